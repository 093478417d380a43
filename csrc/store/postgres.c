/*
 * The PostgreSQL store: everything in one database, in a schema of its own.
 *
 * Each op is carried out by a function in the server (store/postgres/schema.sql), under the lock of
 * its key's row and by the server's clock. Many ops go in one statement, one transaction and one
 * commit, which is what costs: while two such batches are under way, the ops that come gather for
 * the next. So a lone op is sent at once, and a hundred at a time share a commit.
 *
 * Fences. A key's row keeps its counter and the epoch it was given in: a random number in an
 * UNLOGGED table, which is empty after the server has crashed, together with the time when the
 * server was started, for an old copy that is put back needs a start. In another epoch the clock
 * decides.
 *
 * Names: the keys, and all else that users give, are bytes there, whatever the database's encoding.
 */
#include "driver/postgres/error.h"
#include "store/postgres-store.h"
#include "store/stores.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/random.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define UNDER_WAY_MAX 2         /* batches: one is carried out while the next is on its way */
#define BATCH_OPS_MAX 512       /* ops of one */
#define BATCH_BYTES_MAX 4194304 /* and of their values */
#define FREE_MAX 4              /* batches that are kept for later */
#define LOCKED_MIN_MS 2         /* an entry that others are at is tried again after so long */
#define LOCKED_MAX_MS 25
#define KEEP_MS 250 /* a renewal's answer is waited for so long at least */

/* ---------------------------------------------------------------- init, fini */

static hf_code read_settings(hf__postgres_instance *s, hf_error *error) {
    hf_slice schema = {"holdfast", 8};
    hf_slice leases = {"durable", 7};

    (void)hf__setting_get(&s->base.env, "schema", &schema);
    (void)hf__setting_get(&s->base.env, "leases", &leases);
    if (schema.len == 0 || schema.len > HF__POSTGRES_NAME_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "schema has 1 to %d bytes",
                             HF__POSTGRES_NAME_MAX);
    for (size_t i = 0; i < schema.len; i++) {
        char c = schema.data[i];
        if ((c < 'a' || c > 'z') && c != '_' && (i == 0 || c < '0' || c > '9'))
            return hf__error_set(error, HF_EINVAL, 0,
                                 "schema is a name of small letters, digits and _");
    }
    memcpy(s->schema, schema.data, schema.len);
    s->relaxed = hf__slice_is(leases, "relaxed");
    if (!s->relaxed && !hf__slice_is(leases, "durable"))
        return hf__error_set(error, HF_EINVAL, 0, "leases is \"durable\" or \"relaxed\"");
    return HF_OK;
}

static void on_connected(void *data, const hf__pg_server *server) {
    hf__postgres_instance *s = data;

    memcpy(s->server_name, server->name, sizeof s->server_name);
}

static hf_code init(hf_store *store, hf_error *error) {
    hf__postgres_instance *s = hf__postgres_self(store);
    const hf__pg_events events = {.connected = on_connected,
                                  .notified = hf__postgres_notified,
                                  .listening = hf__postgres_listening,
                                  .data = s};
    char *at = s->channel;

    hf__error_clear(error);
    if (read_settings(s, error) != HF_OK) return error->code;
    if (!hf_token_random(&s->self))
        return hf__error_set(error, HF_EIO, 0, "the system has no randomness to give");
    at += snprintf(at, 12, "holdfast_");
    for (size_t i = 0; i < 8; i++)
        at += snprintf(at, 3, "%02x", s->self.bytes[i]);
    snprintf(s->server_name, sizeof s->server_name, "its address");
    hf__list_init(&s->batches);
    hf__list_init(&s->free_batches);
    hf__watchers_init(&s->watchers, store->env.allocator);
    if (hf__postgres_statements_init(s, error) != HF_OK) return error->code;
    if (hf__pg_new(&store->env, &events, &s->pg, error) != HF_OK) hf__postgres_statements_fini(s);
    return error->code;
}

static void free_batch(hf__postgres_instance *s, hf__postgres_batch *batch) {
    hf__buffer_fini(&batch->bytes);
    hf__free(s->base.env.allocator, batch);
}

static void fini(hf_store *store) {
    hf__postgres_instance *s = hf__postgres_self(store);
    hf__node *node;

    assert(s->n_busy == 0 && hf__list_empty(&s->batches));
    while ((node = hf__list_pop(&s->free_batches)) != NULL)
        free_batch(s, hf__of(node, hf__postgres_batch, node));
    hf__watchers_fini(&s->watchers);
    hf__pg_free(s->pg);
    hf__postgres_statements_fini(s);
}

/* ---------------------------------------------------------------- the end of ops */

static void close_if_idle(hf__postgres_instance *s);

static bool is_write(const hf_op *op) {
    return op->verb != HF_GET && op->verb != HF_LIST && op->verb != HF_OPEN;
}

static void end_ops(hf__postgres_instance *s, hf__op_list *ops, size_t n) {
    assert(s->n_busy >= n);
    hf__op_finish(s->base.env.scope, ops);
    /* Counted out afterwards: a close does not end before what `done` submits. */
    s->n_busy -= n;
    close_if_idle(s);
}

/* In the next turn: within a call. */
static void end_later(hf__postgres_instance *s, hf_op *op) {
    hf__defer_push(&s->defer, op);
    s->n_busy--;
    close_if_idle(s);
}

void hf__postgres_nonsense(const hf__postgres_instance *s, hf_op *op) {
    hf_slice key = op->keys != NULL ? op->keys[0] : (hf_slice){"", 0};

    hf__error_set(&op->error, HF_EPROTO, is_write(op) ? HF_OUTCOME_UNKNOWN : 0,
                  "PostgreSQL at %s gave no sensible answer for \"%.*s\": has something else "
                  "changed the schema \"%s\"?",
                  s->server_name, hf__shown(key), key.data, s->schema);
    op->applied = false;
    op->refused = HF_NOT_REFUSED;
}

static void fail_ops(hf__op_list *ops, const hf_error *error) {
    for (hf_op *op = ops->first; op != NULL; op = op->next) {
        op->error = *error;
        op->applied = false;
        /* Reading leaves nothing in doubt. */
        if (!is_write(op)) op->error.flags &= ~HF_OUTCOME_UNKNOWN;
    }
}

static size_t count(const hf__op_list *ops) {
    size_t n = 0;

    for (const hf_op *op = ops->first; op != NULL; op = op->next)
        n++;
    return n;
}

void hf__postgres_fail_queue(hf__postgres_instance *s, const hf_error *error) {
    hf__op_list ops = s->queue;

    s->queue = (hf__op_list){NULL, NULL};
    fail_ops(&ops, error);
    end_ops(s, &ops, count(&ops));
}

/* ---------------------------------------------------------------- batches */

static hf__postgres_batch *new_batch(hf__postgres_instance *s) {
    hf__node *node = hf__list_pop(&s->free_batches);
    hf__postgres_batch *batch;

    if (node != NULL) {
        batch = hf__of(node, hf__postgres_batch, node);
        s->n_free--;
        batch->bytes.len = 0;
    } else {
        batch = hf__zalloc(s->base.env.allocator, sizeof *batch);
        if (batch == NULL) return NULL;
        hf__buffer_init(&batch->bytes, s->base.env.allocator);
    }
    batch->store = s;
    batch->ops = (hf__op_list){NULL, NULL};
    batch->n_ops = 0;
    batch->n_params = 0;
    batch->again = false;
    memset(&batch->call, 0, sizeof batch->call);
    hf__list_push(&s->batches, &batch->node);
    s->n_batches++;
    return batch;
}

static void give_back(hf__postgres_batch *batch) {
    hf__postgres_instance *s = batch->store;

    hf__list_remove(&batch->node);
    s->n_batches--;
    /* One that was large is not kept. */
    if (s->n_free < FREE_MAX && batch->bytes.cap <= BATCH_BYTES_MAX && !batch->bytes.failed) {
        hf__list_push(&s->free_batches, &batch->node);
        s->n_free++;
    } else {
        free_batch(s, batch);
    }
}

/* ---- entries that others are at */

static void on_retry(uv_timer_t *timer) {
    hf__postgres_instance *s = hf__of(timer, hf__postgres_instance, retry);

    hf__op_append(&s->locked, &s->queue);
    s->queue = s->locked;
    s->locked = (hf__op_list){NULL, NULL};
    hf__postgres_wake(s);
}

static bool has_time(const hf__postgres_instance *s, const hf_op *op) {
    return uv_hrtime() / HF_NS_PER_MS - op->stamp < hf__pg_command_ms(s->pg);
}

static bool may_retry(const hf__postgres_instance *s, const hf_op *op) {
    return op->error.code == HF_EBUSY && s->closing == NULL && has_time(s, op);
}

/* Takes those that found others at their entry out of `ops`, to be tried again; returns how many.
 * It is another batch's for a moment; or a user's transaction has it, which may last. */
static size_t put_off_locked(hf__postgres_instance *s, hf__op_list *ops) {
    hf__op_list rest = {NULL, NULL};
    size_t n = 0;
    hf_op *op;

    while ((op = hf__op_pop(ops)) != NULL) {
        if (!may_retry(s, op)) {
            hf__op_push(&rest, op);
            continue;
        }
        hf__error_clear(&op->error);
        hf__op_push(&s->locked, op);
        n++;
    }
    *ops = rest;
    if (n > 0 && !uv_is_active((uv_handle_t *)&s->retry))
        uv_timer_start(&s->retry, on_retry, hf__random_between(LOCKED_MIN_MS, LOCKED_MAX_MS), 0);
    return n;
}

static void on_done(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__postgres_batch *batch = call->data;
    hf__postgres_instance *s = batch->store;
    hf__op_list ops = batch->ops;
    size_t n = batch->n_ops;
    bool missing = error != NULL && hf__pg_error_is_missing(error);

    /* Others that were sent with it fail likewise, when it is looked for already. */
    if (missing && s->state == HF__POSTGRES_THERE) s->state = HF__POSTGRES_UNKNOWN;
    /* Somebody has removed the schema, or restored another: it is made anew, once. What succeeds
     * meanwhile must not have it tried for ever. */
    s->again = missing && !batch->again && has_time(s, ops.first);
    if (s->again) {
        hf__op_append(&ops, &s->queue);
        s->queue = ops;
        give_back(batch);
        hf__postgres_wake(s);
        return;
    }
    if (error != NULL) {
        fail_ops(&ops, error);
    } else if (!batch->answer(batch, result)) {
        for (hf_op *op = ops.first; op != NULL; op = op->next)
            hf__postgres_nonsense(s, op);
    }
    give_back(batch);
    if (s->queue.first != NULL) hf__postgres_wake(s);
    n -= put_off_locked(s, &ops);
    end_ops(s, &ops, n);
}

/* Which statement carries the op out. */
static int kind_of(const hf_op *op) {
    switch ((hf_verb)op->verb) {
    case HF_TAKE:
    case HF_DROP: return HF__POSTGRES_LEASES;
    case HF_KEEP: return op->space == HF_LEASES ? HF__POSTGRES_LEASES : HF__POSTGRES_ENTRIES;
    case HF_GET: return op->keys[0].len > 0 ? HF__POSTGRES_ENTRIES : HF__POSTGRES_PING;
    case HF_PUT:
    case HF_DEL:
    case HF_ADD: return HF__POSTGRES_ENTRIES;
    case HF_LIST: return HF__POSTGRES_LIST;
    case HF_SWEEP: return HF__POSTGRES_SWEEP;
    case HF_OPEN: return HF__POSTGRES_PING;
    case HF_CLOSE: break;
    }
    assert(false);
    return HF__POSTGRES_PING;
}

static size_t size_of(const hf_op *op) {
    size_t size = op->value.len + op->note.len + op->who.len + 256;

    for (uint32_t i = 0; op->keys != NULL && i < op->n_keys; i++)
        size += op->keys[i].len;
    return size;
}

/* A connection that has died in silence leaves time for another. */
static uint32_t patience_ms(const hf_op *op) {
    uint64_t ms = op->ttl_ms / 3;

    if (op->verb != HF_KEEP) return UINT32_MAX;
    if (ms < KEEP_MS) return KEEP_MS;
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* Moves what goes into one statement from the queue to the batch. */
static void fill(hf__postgres_batch *batch, int kind) {
    hf__postgres_instance *s = batch->store;
    bool many = kind == HF__POSTGRES_LEASES || kind == HF__POSTGRES_ENTRIES;
    uint32_t patience = UINT32_MAX;
    size_t size = 0;

    do {
        hf_op *op = hf__op_pop(&s->queue);
        uint32_t ms = patience_ms(op);

        if (ms < patience) patience = ms;
        size += size_of(op);
        hf__op_push(&batch->ops, op);
        batch->n_ops++;
    } while (many && s->queue.first != NULL && kind_of(s->queue.first) == kind &&
             batch->n_ops < BATCH_OPS_MAX && size + size_of(s->queue.first) < BATCH_BYTES_MAX);
    /* Never longer than configured, which is what 0 says. */
    batch->call.timeout_ms = patience < hf__pg_command_ms(s->pg) ? patience : 0;
}

static bool answer_sweep(hf__postgres_batch *batch, const PGresult *result) {
    hf_op *op = batch->ops.first;

    if (PQntuples(result) != 1 || PQnfields(result) != 1) return false;
    op->swept = (uint32_t)hf__postgres_int(result, 0, 0);
    op->applied = true;
    return true;
}

static bool answer_ping(hf__postgres_batch *batch, const PGresult *result) {
    batch->ops.first->applied = PQntuples(result) == 1;
    return batch->ops.first->applied;
}

static void encode(hf__postgres_batch *batch, int kind) {
    switch (kind) {
    case HF__POSTGRES_LEASES:
        hf__postgres_encode_leases(batch);
        batch->answer = hf__postgres_answer_leases;
        return;
    case HF__POSTGRES_ENTRIES:
        hf__postgres_encode_entries(batch);
        batch->answer = hf__postgres_answer_entries;
        return;
    case HF__POSTGRES_LIST:
        hf__postgres_encode_list(batch);
        batch->answer = hf__postgres_answer_list;
        return;
    case HF__POSTGRES_SWEEP:
        hf__postgres_scalar(batch);
        hf__postgres_put32(batch, (int32_t)(batch->ops.first->limit & INT32_MAX));
        batch->answer = answer_sweep;
        return;
    default: batch->answer = answer_ping; return;
    }
}

/* Sends what the queue begins with. False: memory is out, and it fails. */
static bool send_batch(hf__postgres_instance *s) {
    static const int binary[HF__POSTGRES_PARAMS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1,
                                                        1, 1, 1, 1, 1, 1, 1, 1, 1};
    int kind = kind_of(s->queue.first);
    hf__postgres_batch *batch = new_batch(s);

    if (batch == NULL) return false;
    fill(batch, kind);
    encode(batch, kind);
    if (!hf__postgres_params_end(batch)) {
        hf__op_append(&batch->ops, &s->queue);
        s->queue = batch->ops;
        give_back(batch);
        return false;
    }
    batch->again = s->again;
    batch->call.statement = &s->statements[kind];
    batch->call.values = batch->values;
    batch->call.lengths = batch->lengths;
    batch->call.formats = binary;
    batch->call.result_format = 1;
    batch->call.done = on_done;
    batch->call.data = batch;
    hf__pg_send(s->pg, &batch->call);
    return true;
}

static void pump(hf__postgres_instance *s) {
    hf_error error;

    if (s->state == HF__POSTGRES_UNKNOWN && s->queue.first != NULL) hf__postgres_look(s);
    while (s->state == HF__POSTGRES_THERE && s->queue.first != NULL &&
           s->n_batches < UNDER_WAY_MAX) {
        if (send_batch(s)) continue;
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
        hf__postgres_fail_queue(s, &error);
    }
}

static void on_idle(uv_idle_t *idle) {
    hf__postgres_instance *s = hf__of(idle, hf__postgres_instance, idle);
    hf__scope *scope = s->base.env.scope;

    uv_idle_stop(idle);
    hf__scope_enter(scope);
    pump(s);
    hf__scope_leave(scope);
}

void hf__postgres_wake(hf__postgres_instance *s) {
    if (s->n_busy > 0)
        uv_idle_start(&s->idle, on_idle);
    else
        close_if_idle(s);
}

/* ---------------------------------------------------------------- submit */

/* False, with the op's error set: it cannot be asked. */
static bool check(hf_op *op) {
    for (uint32_t i = 0; op->keys != NULL && i < op->n_keys; i++) {
        if (op->keys[i].len <= HF_KEY_MAX) continue;
        hf__error_set(&op->error, HF_EINVAL, 0, "a key has up to %d bytes", HF_KEY_MAX);
        return false;
    }
    if (op->fence_key.len > 0 && op->fence_in > HF_INT_MAX) {
        hf__error_set(&op->error, HF_EINVAL, 0, "a fence is a number below 2^53");
        return false;
    }
    return true;
}

static void open_handles(hf__postgres_instance *s) {
    if (s->has_handles) return;
    s->has_handles = true;
    hf__defer_init(&s->defer, s->base.env.loop, s->base.env.scope);
    uv_idle_init(s->base.env.loop, &s->idle);
    uv_unref((uv_handle_t *)&s->idle);
    uv_timer_init(s->base.env.loop, &s->poll);
    uv_unref((uv_handle_t *)&s->poll);
    uv_timer_init(s->base.env.loop, &s->retry);
    uv_unref((uv_handle_t *)&s->retry);
}

/* Every verb but close. */
static void submit(hf_store *store, hf_op *ops) {
    hf__postgres_instance *s = hf__postgres_self(store);
    uint64_t now_ms = uv_hrtime() / HF_NS_PER_MS;

    open_handles(s);
    while (ops != NULL) {
        hf_op *next = ops->next;

        ops->next = NULL;
        ops->stamp = now_ms;
        if (s->closing != NULL) {
            hf__op_push(&s->late, ops);
        } else {
            s->n_busy++;
            if (check(ops))
                hf__op_push(&s->queue, ops);
            else
                end_later(s, ops);
        }
        ops = next;
    }
    if (s->queue.first != NULL) hf__postgres_wake(s);
}

static void cancel(hf_store *store, hf_op *op) {
    hf__postgres_instance *s = hf__postgres_self(store);

    if (!hf__op_remove(&s->queue, op) && !hf__op_remove(&s->locked, op)) return;
    hf__error_set(&op->error, HF_ECANCELED, 0, NULL);
    end_later(s, op);
}

/* ---------------------------------------------------------------- close */

static void on_handle_gone(void *data) {
    hf__postgres_instance *s = data;

    if (--s->n_handles == 0) hf__op_finish_close(s->base.env.scope, &s->late, s->closing);
}

static void on_idle_gone(uv_handle_t *handle) {
    on_handle_gone(hf__of(handle, hf__postgres_instance, idle));
}

static void on_poll_gone(uv_handle_t *handle) {
    on_handle_gone(hf__of(handle, hf__postgres_instance, poll));
}

static void on_retry_gone(uv_handle_t *handle) {
    on_handle_gone(hf__of(handle, hf__postgres_instance, retry));
}

/* All that was deferred before has ended, and nothing was deferred since. */
static void on_drained(hf_op *op) {
    hf__postgres_instance *s = op->data;

    s->n_handles = 5;
    hf__pg_close(s->pg, on_handle_gone, s);
    hf__defer_close(&s->defer, on_handle_gone, s);
    uv_close((uv_handle_t *)&s->idle, on_idle_gone);
    uv_close((uv_handle_t *)&s->poll, on_poll_gone);
    uv_close((uv_handle_t *)&s->retry, on_retry_gone);
}

static void close_if_idle(hf__postgres_instance *s) {
    bool looks = s->state == HF__POSTGRES_LOOKING || s->state == HF__POSTGRES_MAKING;

    if (s->closing == NULL || s->n_busy > 0 || looks || s->drained.done != NULL) return;
    hf_op_init(&s->drained, HF_CLOSE, on_drained, s);
    s->drained.phase = HF__OP_PENDING;
    hf__defer_push(&s->defer, &s->drained);
}

static void close_store(hf_store *store, hf_op *op) {
    hf__postgres_instance *s = hf__postgres_self(store);

    assert(s->closing == NULL && op->next == NULL);
    open_handles(s);
    s->closing = op;
    hf__watchers_close(&s->watchers);
    uv_timer_stop(&s->poll);
    close_if_idle(s);
}

const hf_store_vtable hf__postgres_store = {
    .name = "postgres",
    .schemes = "postgres postgresql",
    .caps = HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_PERMITS | HF_CAP_FENCES | HF_CAP_ENTRIES |
            HF_CAP_DURABLE | HF_CAP_SHARED_BY_PROCESSES | HF_CAP_LIST | HF_CAP_HAND_OVER,
    .size = sizeof(hf__postgres_instance),
    .params = HF__PG_PARAMS " " HF__POSTGRES_PARAMS,
    .init = init,
    .open = submit,
    .close = close_store,
    .fini = fini,
    .cancel = cancel,
    .take = submit,
    .keep = submit,
    .drop = submit,
    .get = submit,
    .put = submit,
    .del = submit,
    .add = submit,
    .list = submit,
    .sweep = submit,
    .watch = hf__postgres_watch,
    .unwatch = hf__postgres_unwatch,
};
