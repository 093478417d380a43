/*
 * Entries in PostgreSQL: what holdfast.entries is asked, and what it answers.
 */
#include "store/postgres-store.h"

#include <string.h>

/* The columns of holdfast.entries. */
enum {
    STATUS,
    FENCE,
    VERSION,
    ATTEMPT,
    SUM,
    PRESENT,
    CLAIMED,
    FORMAT,
    E_ATTEMPT,
    E_VERSION,
    LEASE_LEFT,
    KEPT_LEFT,
    STORED,
    E_FENCE,
    TOKEN,
    VALUE,
    COLUMNS
};

enum { NO_VERSION_LEFT = -2, LOCKED = -3, UNARMED = -4 };

/* ---------------------------------------------------------------- asking */

static int64_t ms_of(uint64_t ms) {
    return (int64_t)(ms < HF__POSTGRES_MS_MOST ? ms : HF__POSTGRES_MS_MOST);
}

/* What no entry has stands for what is too large. */
static int64_t number_of(uint64_t n) {
    return n <= HF_INT_MAX ? (int64_t)n : -1;
}

static int32_t flags_of(const hf__postgres_instance *s, const hf_op *op) {
    uint32_t flags =
        op->flags & (HF_OP_KEEP_TTL | HF_OP_WANT_ENTRY | HF_OP_HAS_MIN | HF_OP_HAS_MAX);

    if (hf__postgres_is_watched(s, op)) flags |= HF__POSTGRES_FLAG_WATCHED;
    return (int32_t)flags;
}

static void put_key_and_token(hf__postgres_batch *batch) {
    hf__postgres_array(batch, HF__POSTGRES_INT2, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put16(batch, op->verb);
    hf__postgres_array(batch, HF__POSTGRES_INT2, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put16(batch, op->space);
    hf__postgres_array(batch, HF__POSTGRES_BYTEA, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put_bytes(batch, op->keys[0].data, op->keys[0].len);
    hf__postgres_array(batch, HF__POSTGRES_BYTEA, batch->n_ops);
    HF__POSTGRES_EACH(batch) {
        /* That of nobody equals nothing, itself included. */
        bool none = hf__token_is_zero(&op->token);
        hf__postgres_put_bytes(batch, op->token.bytes, none ? 0 : sizeof op->token.bytes);
    }
}

static void put_numbers(hf__postgres_batch *batch) {
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, op->delta);
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, op->min);
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, op->max);
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, op->initial);
}

void hf__postgres_encode_entries(hf__postgres_batch *batch) {
    hf__postgres_instance *s = batch->store;

    put_key_and_token(batch);
    hf__postgres_array(batch, HF__POSTGRES_INT2, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put16(batch, op->condition);
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, number_of(op->if_version));
    hf__postgres_array(batch, HF__POSTGRES_INT2, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put16(batch, op->format);
    hf__postgres_array(batch, HF__POSTGRES_INT4, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put32(batch, flags_of(s, op));
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, ms_of(op->ttl_ms));
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put64(batch, ms_of(op->lease_ms));
    hf__postgres_array(batch, HF__POSTGRES_BYTEA, batch->n_ops);
    HF__POSTGRES_EACH(batch) hf__postgres_put_bytes(batch, op->fence_key.data, op->fence_key.len);
    hf__postgres_array(batch, HF__POSTGRES_INT8, batch->n_ops);
    HF__POSTGRES_EACH(batch)
    hf__postgres_put64(batch, op->fence_key.len > 0 ? (int64_t)op->fence_in : 0);
    put_numbers(batch);
    hf__postgres_array(batch, HF__POSTGRES_BYTEA, batch->n_ops);
    HF__POSTGRES_EACH(batch) {
        hf_slice value = op->verb == HF_PUT ? op->value : (hf_slice){NULL, 0};
        hf__postgres_put_bytes(batch, value.data, value.len);
    }
    hf__postgres_scalar(batch);
    hf__postgres_put_bytes(batch, s->channel, strlen(s->channel));
}

/* ---------------------------------------------------------------- answers */

static bool read_entry(const PGresult *result, int row, hf_op *op) {
    hf_entry *e = &op->entry;
    int64_t kept = hf__postgres_int(result, row, KEPT_LEFT);
    int64_t lease = hf__postgres_int(result, row, LEASE_LEFT);
    hf_slice value = hf__postgres_bytes(result, row, VALUE);

    memset(e, 0, sizeof *e);
    if (hf__postgres_int(result, row, PRESENT) == 0) return true;
    if (!hf__postgres_token(result, row, TOKEN, &e->token)) return false;
    e->present = true;
    e->claimed = hf__postgres_int(result, row, CLAIMED) != 0;
    e->format = (uint8_t)hf__postgres_int(result, row, FORMAT);
    e->attempt = (uint32_t)hf__postgres_int(result, row, E_ATTEMPT);
    e->version = (uint64_t)hf__postgres_int(result, row, E_VERSION);
    e->lease_left_ms = lease > 0 ? (uint64_t)lease : 0;
    e->kept_left_ms = kept < 0 ? HF_FOREVER : (uint64_t)kept;
    e->stored_us = (uint64_t)hf__postgres_int(result, row, STORED);
    e->fence = (uint64_t)hf__postgres_int(result, row, E_FENCE);
    if (!hf__op_set_out(op, value.data, value.len)) memset(e, 0, sizeof *e);
    return true;
}

static bool answer_applied(const PGresult *result, int row, hf_op *op) {
    int64_t version = hf__postgres_int(result, row, VERSION);

    op->applied = true;
    switch ((hf_verb)op->verb) {
    case HF_GET:
        if (!read_entry(result, row, op)) return false;
        op->applied = op->error.code == HF_OK;
        return true;
    case HF_PUT:
        op->version = (uint64_t)version;
        op->attempt = (uint32_t)hf__postgres_int(result, row, ATTEMPT);
        return version > 0 && version <= HF_INT_MAX;
    case HF_ADD:
        op->version = (uint64_t)version;
        op->sum = hf__postgres_int(result, row, SUM);
        return version > 0 && version <= HF_INT_MAX;
    default: return true;
    }
}

static bool answer_refused(const PGresult *result, int row, hf_op *op, hf_refusal why) {
    hf__postgres_refuse(op, why);
    if (why == HF_REFUSED_FENCE) op->fence = (uint64_t)hf__postgres_int(result, row, FENCE);
    if ((op->flags & HF_OP_WANT_ENTRY) == 0) return true;
    if (!read_entry(result, row, op)) return false;
    if (op->error.code != HF_OK) op->refused = HF_NOT_REFUSED;
    return true;
}

static bool answer_entry(hf__postgres_instance *s, const PGresult *result, int row, hf_op *op) {
    int64_t status = hf__postgres_int(result, row, STATUS);

    if (status == HF_NOT_REFUSED) return answer_applied(result, row, op);
    if (status >= HF_REFUSED_OWNER && status <= HF_REFUSED_TYPE)
        return answer_refused(result, row, op, (hf_refusal)status);
    if (status == UNARMED && op->verb == HF_GET) {
        hf__postgres_unarmed(s);
        return answer_applied(result, row, op);
    }
    if (status == LOCKED) {
        hf__error_set(
            &op->error, HF_EBUSY, HF_RETRYABLE,
            "a transaction that is still open has locked \"%.*s\" in PostgreSQL at %s: it "
            "must end first",
            hf__shown(op->keys[0]), op->keys[0].data, s->server_name);
        return true;
    }
    if (status == NO_VERSION_LEFT) {
        hf__error_set(&op->error, HF_EIO, 0, "versions have reached 2^53");
        return true;
    }
    return false;
}

bool hf__postgres_answer_entries(hf__postgres_batch *batch, const PGresult *result) {
    int row = 0;

    if (PQnfields(result) != COLUMNS || PQntuples(result) != (int)batch->n_ops) return false;
    for (hf_op *op = batch->ops.first; op != NULL; op = op->next, row++) {
        if (!answer_entry(batch->store, result, row, op)) hf__postgres_nonsense(batch->store, op);
    }
    return true;
}
