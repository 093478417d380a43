/*
 * Leases in PostgreSQL: what holdfast.leases and holdfast.list are asked, and what they answer.
 */
#include "store/postgres-store.h"

#include <string.h>

/* The columns of holdfast.leases. */
enum {
    STATUS,
    FENCE,
    LEFT_MS,
    AWAITED,
    HOLDER_TOKEN,
    HOLDER_FENCE,
    HOLDER_LEFT,
    HOLDER_SINCE,
    HOLDER_LIMIT,
    HOLDER_WHO,
    HOLDER_NOTE,
    LEASE_COLUMNS
};

enum { SOME_HELD = -1, NO_FENCE_LEFT = -2 };

/* ---------------------------------------------------------------- asking */

static size_t count_keys(const hf__postgres_batch *batch) {
    size_t n = 0;

    HF__POSTGRES_EACH(batch) n += op->n_keys;
    return n;
}

static void put_slices(hf__postgres_batch *batch, hf_slice (*of)(const hf_op *op)) {
    hf__postgres_array(batch, HF__POSTGRES_BYTEA, batch->n_ops);
    HF__POSTGRES_EACH(batch) {
        hf_slice s = of(op);
        hf__postgres_put_bytes(batch, s.data, s.len);
    }
}

static hf_slice token_of(const hf_op *op) {
    return (hf_slice){(const char *)op->token.bytes, sizeof op->token.bytes};
}

static hf_slice replaced_of(const hf_op *op) {
    bool none = hf__token_is_zero(&op->replace_token);
    return (hf_slice){(const char *)op->replace_token.bytes,
                      none ? 0 : sizeof op->replace_token.bytes};
}

static hf_slice who_of(const hf_op *op) {
    return op->who;
}

static hf_slice note_of(const hf_op *op) {
    return op->note;
}

static int32_t flags_of(const hf__postgres_instance *s, const hf_op *op) {
    uint32_t flags = op->flags & (HF_OP_INTENT | HF_OP_WAIT);

    if (op->verb == HF_TAKE && hf__postgres_is_watched(s, op)) flags |= HF__POSTGRES_FLAG_WATCHED;
    if (op->holder != NULL) flags |= HF__POSTGRES_FLAG_HOLDER;
    return (int32_t)flags;
}

void hf__postgres_encode_leases(hf__postgres_batch *batch) {
    hf__postgres_instance *s = batch->store;

    hf__postgres_array(batch, HF__POSTGRES_INT2, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put16(batch, op->verb);
    put_slices(batch, token_of);
    hf__postgres_array(batch, HF__POSTGRES_INT4, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put32(batch, (int32_t)op->n_keys);
    hf__postgres_array(batch, HF__POSTGRES_BYTEA, count_keys(batch));
    HF__POSTGRES_EACH(batch) {
        for (uint32_t i = 0; i < op->n_keys; i++)
            hf__postgres_put_bytes(batch, op->keys[i].data, op->keys[i].len);
    }
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch)
    hf__postgres_put64(
        batch, (int64_t)(op->ttl_ms < HF__POSTGRES_MS_MOST ? op->ttl_ms : HF__POSTGRES_MS_MOST));
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, op->limit);
    hf__postgres_array(batch, HF__POSTGRES_INT4, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put32(batch, flags_of(s, op));
    put_slices(batch, replaced_of);
    put_slices(batch, who_of);
    put_slices(batch, note_of);
    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, s->self.bytes, sizeof s->self.bytes);
    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, s->channel, strlen(s->channel));
    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, s->relaxed ? "\1" : "\0", 1);
}

void hf__postgres_encode_list(hf__postgres_batch *batch) {
    const hf_op *op = batch->ops.first;

    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, op->keys[0].data, op->keys[0].len);
    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, op->value.data, op->value.len);
    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, (op->flags & HF_OP_EXACT) != 0 ? "\1" : "\0", 1);
    hf__postgres_scalar(batch);
    hf__postgres_put64(batch, op->limit);
}

/* ---------------------------------------------------------------- answers */

static void copy_text(char *to, size_t size, hf_slice s) {
    size_t len = s.len < size ? s.len : size - 1;

    if (len > 0) memcpy(to, s.data, len);
    to[len] = '\0';
}

/* The columns of a holder, from `column` on. */
static bool read_holder(const PGresult *result, int row, int column, hf_holder *holder) {
    int64_t limit = hf__postgres_int(result, row, column + 4);
    int64_t left = hf__postgres_int(result, row, column + 2);

    memset(holder, 0, sizeof *holder);
    if (!hf__postgres_token(result, row, column, &holder->token) || limit < 0 || limit > UINT32_MAX)
        return false;
    holder->fence = (uint64_t)hf__postgres_int(result, row, column + 1);
    holder->left_ms = left < 0 ? 0 : (uint64_t)left;
    holder->since_us = (uint64_t)hf__postgres_int(result, row, column + 3);
    holder->limit = (uint32_t)limit;
    copy_text(holder->who, sizeof holder->who, hf__postgres_bytes(result, row, column + 5));
    copy_text(holder->note, sizeof holder->note, hf__postgres_bytes(result, row, column + 6));
    return true;
}

static bool answer_lease(const PGresult *result, int row, hf_op *op) {
    int64_t status = hf__postgres_int(result, row, STATUS);
    int64_t left = hf__postgres_int(result, row, LEFT_MS);
    int64_t fence = hf__postgres_int(result, row, FENCE);

    switch (status) {
    case HF_NOT_REFUSED:
        if (op->verb == HF_TAKE && (fence <= 0 || fence > HF_INT_MAX)) return false;
        op->applied = true;
        op->fence = (uint64_t)fence;
        op->awaited = hf__postgres_int(result, row, AWAITED) != 0;
        return true;
    case HF_REFUSED_HELD:
        if (op->verb != HF_TAKE || left < 0) return false;
        hf__postgres_refuse(op, HF_REFUSED_HELD);
        op->left_ms = (uint64_t)left;
        return op->holder == NULL || read_holder(result, row, HOLDER_TOKEN, op->holder);
    case HF_REFUSED_OWNER: hf__postgres_refuse(op, HF_REFUSED_OWNER); return true;
    case SOME_HELD:
        hf__error_set(&op->error, HF_EINVAL, 0, "the token holds some of the keys already");
        return true;
    case NO_FENCE_LEFT:
        hf__error_set(&op->error, HF_EIO, 0, "fences have reached 2^53: the clock is wrong");
        return true;
    default: return false;
    }
}

bool hf__postgres_answer_leases(hf__postgres_batch *batch, const PGresult *result) {
    int row = 0;

    if (PQnfields(result) != LEASE_COLUMNS || PQntuples(result) != (int)batch->n_ops) return false;
    for (hf_op *op = batch->ops.first; op != NULL; op = op->next, row++) {
        if (!answer_lease(result, row, op)) hf__postgres_nonsense(batch->store, op);
    }
    return true;
}

bool hf__postgres_answer_list(hf__postgres_batch *batch, const PGresult *result) {
    hf_op *op = batch->ops.first;
    hf_holder holder;

    /* key, token, fence, left_ms, since_us, slots, who, note */
    if (PQnfields(result) != 8) return false;
    for (int row = 0; row < PQntuples(result); row++) {
        if (!read_holder(result, row, 1, &holder)) return false;
        if (!hf__op_add_row(op, hf__postgres_bytes(result, row, 0), &holder)) return true;
    }
    op->applied = true;
    return true;
}
