/*
 * The quorum store: locks over independent Redis nodes, of which a majority decides. What is lost
 * with a minority of them, be it data, connections, time, is not noticed by those who lock.
 *
 * Each node is a Redis store (store/redis.c) of its own, with its own connections. An op is a poll
 * (quorum-polls.c): the same op at every node at once, until a majority has answered it. What a
 * round of votes comes to is said by quorum-round.c, which nodes have a vote by quorum-standing.c;
 * both know nothing of sockets and clocks. Nodes that voted for a take that failed, or that were
 * not heard of, owe the lease until they have been told (quorum-debts.c).
 *
 * While it is not known yet whether a majority can be had, because nodes are being connected to,
 * ops are parked here.
 */
#include "store/quorum-store.h"
#include "store/stores.h"
#include "util/alloc.h"

#include <assert.h>
#include <string.h>

#define MAX_TTL_MS 300000
#define SETTLE_MS 250
#define PARK_NS (2000 * HF_NS_PER_MS)
#define TIMEOUT_PARTS 20 /* of the time to live: 5 % */
#define TIMEOUT_LEAST_MS 10

/* ---------------------------------------------------------------- init, fini */

static bool read_bool(const hf__store_env *env, const char *name, bool otherwise, bool *value) {
    hf_slice text;

    *value = otherwise;
    if (!hf__setting_get(env, name, &text)) return true;
    *value = hf__slice_is(text, "true");
    return *value || hf__slice_is(text, "false");
}

static bool read_ms(const hf__store_env *env, const char *name, uint64_t low, uint64_t high,
                    uint64_t *value) {
    hf_slice text;

    return !hf__setting_get(env, name, &text) || hf__parse_uint(text, low, high, value);
}

static hf_code read_settings(hf__quorum *q, bool *quarantine, hf_error *error) {
    const hf__store_env *env = &q->base.env;

    q->base.max_ttl_ms = MAX_TTL_MS;
    if (!read_ms(env, "maxTtl", HF_TTL_MIN, HF_TTL_MAX, &q->base.max_ttl_ms))
        return hf__error_set(error, HF_EINVAL, 0, "maxTtl is %d ms to 24 h", HF_TTL_MIN);
    if (!read_ms(env, "nodeTimeout", 1, 3600000, &q->timeout_ms))
        return hf__error_set(error, HF_EINVAL, 0, "nodeTimeout is 1 ms to 1 h");
    if (!read_bool(env, "fencing", false, &q->fencing))
        return hf__error_set(error, HF_EINVAL, 0, "fencing is \"true\" or \"false\"");
    if (!read_bool(env, "quarantine", true, quarantine))
        return hf__error_set(error, HF_EINVAL, 0, "quarantine is \"true\" or \"false\"");
    return HF_OK;
}

static void on_wake(hf__timer *timer) {
    hf__quorum_look(hf__of(timer, hf__quorum, wake));
}

static hf_code init(hf_store *store, hf_error *error) {
    hf__quorum *q = hf__quorum_self(store);
    bool quarantine = true;
    uint8_t rules;

    hf__error_clear(error);
    hf__list_init(&q->watches);
    q->wake.fire = on_wake;
    if (read_settings(q, &quarantine, error) != HF_OK) return error->code;
    if (!q->fencing) store->caps &= ~HF_CAP_FENCES;
    if (hf__quorum_nodes_new(q, error) != HF_OK) {
        hf__quorum_nodes_free(q);
        return error->code;
    }
    rules = (uint8_t)(HF__RULES_ALL & ~(quarantine ? 0u : HF__RULE_QUARANTINE));
    hf__membership_init(&q->membership, q->n, store->max_ttl_ms, rules);
    return HF_OK;
}

static void fini(hf_store *store) {
    hf__quorum *q = hf__quorum_self(store);

    assert(q->n_busy == 0);
    hf__quorum_watch_forget(q);
    hf__quorum_polls_free(q);
    hf__quorum_nodes_free(q);
}

uint64_t hf__quorum_patience_ms(const hf__quorum *q, uint64_t ttl_ms) {
    uint64_t ms = q->timeout_ms != 0 ? q->timeout_ms : ttl_ms / TIMEOUT_PARTS;

    return q->timeout_ms == 0 && ms < TIMEOUT_LEAST_MS ? TIMEOUT_LEAST_MS : ms;
}

/* ---------------------------------------------------------------- the end of ops */

static void close_if_idle(hf__quorum *q);

void hf__quorum_end(hf__quorum *q, hf_op *op) {
    hf__op_list list = {NULL, NULL};

    assert(q->n_busy > 0);
    if (op->error.code != HF_OK) op->applied = false;
    hf__op_push(&list, op);
    hf__op_finish(q->base.env.scope, &list);
    q->n_busy--;
    close_if_idle(q);
}

/* The same in the next turn: within a call. */
static void end_later(hf__quorum *q, hf_op *op) {
    hf__defer_push(&q->defer, op);
    q->n_busy--;
    close_if_idle(q);
}

/* ---------------------------------------------------------------- submit */

/* How long after the store was opened nodes that are still being connected to are waited for. */
static uint64_t settle_ns(const hf__quorum *q, const hf_op *op) {
    bool has_ttl = op->verb == HF_TAKE || op->verb == HF_KEEP;
    uint64_t ms = has_ttl ? hf__quorum_patience_ms(q, op->ttl_ms) : SETTLE_MS;

    return (ms < SETTLE_MS ? ms : SETTLE_MS) * HF_NS_PER_MS;
}

/* Until when it waits: `op->stamp` is when it was given. HF_FOREVER: it need not. It is not known
 * yet who can be asked while there is no majority, but may be one in a moment; when that takes long
 * it is told so. When the store has just been opened the others are waited for too: what is locked
 * on all nodes outlasts the loss of more of them. */
static uint64_t waits_until(const hf__quorum *q, const hf_op *op) {
    uint8_t majority = hf__majority(q->n);
    uint8_t ready = 0;
    uint8_t coming = 0;
    uint64_t until_ns;

    if (q->broken) return HF_FOREVER;
    for (uint8_t i = 0; i < q->n; i++) {
        bool can = hf__quorum_can_ask(q, i);
        ready = (uint8_t)(ready + can);
        coming = (uint8_t)(coming + (!can && hf__membership_coming(&q->membership, i)));
    }
    if (coming == 0 || ready + coming < majority) return HF_FOREVER;
    until_ns = ready >= majority ? q->opened_ns + settle_ns(q, op) : op->stamp + PARK_NS;
    return hf__quorum_now(q) < until_ns ? until_ns : HF_FOREVER;
}

static void on_settled(hf__timer *timer) {
    hf__quorum_changed(hf__of(timer, hf__quorum, settle));
}

static void park(hf__quorum *q, hf_op *op, uint64_t until_ns) {
    hf__op_push(&q->parked, op);
    if (!hf__timer_active(&q->settle) || until_ns < q->settle.node.at)
        hf__timer_start(&q->timers, &q->settle, until_ns);
}

static bool no_entries(hf_op *op) {
    hf__error_set(&op->error, HF_ENOTSUP, 0, "a quorum keeps no values and no records: %s",
                  hf__quorum_store.lacks);
    return false;
}

/* False, with the op's error set: it has ended. */
static bool begin(hf__quorum *q, hf_op *op) {
    if (q->broken) {
        hf__error_set(&op->error, HF_EIO, HF_RETRYABLE, "the system has no descriptor to give");
        return false;
    }
    switch ((hf_verb)op->verb) {
    case HF_TAKE:
    case HF_KEEP:
    case HF_DROP: return op->space == HF_LEASES ? hf__quorum_poll(q, op) : no_entries(op);
    case HF_GET: return op->keys[0].len == 0 ? hf__quorum_poll(q, op) : no_entries(op);
    case HF_OPEN: return hf__quorum_poll(q, op);
    case HF_LIST: return hf__quorum_list(q, op);
    case HF_SWEEP: op->applied = true; return false; /* Redis has done it */
    case HF_PUT:
    case HF_DEL:
    case HF_ADD: return no_entries(op);
    case HF_CLOSE: break;
    }
    assert(false);
    return false;
}

static void park_or_begin(hf__quorum *q, hf_op *op) {
    uint64_t until_ns = waits_until(q, op);

    if (until_ns != HF_FOREVER) {
        park(q, op, until_ns);
    } else {
        op->stamp = 0; /* a list has its own use for it */
        if (!begin(q, op)) end_later(q, op);
    }
}

void hf__quorum_changed(hf__quorum *q) {
    hf__op_list ops = q->parked;
    hf_op *op;

    q->parked = (hf__op_list){NULL, NULL};
    while ((op = hf__op_pop(&ops)) != NULL)
        park_or_begin(q, op);
}

static void open_handles(hf__quorum *q, bool connects) {
    const hf__store_env *env = &q->base.env;

    if (q->has_handles) return;
    q->has_handles = true;
    hf__defer_init(&q->defer, env->loop, env->scope);
    q->broken = hf__timers_init(&q->timers, env->loop, env->clock, env->scope) != 0;
    q->settle.fire = on_settled;
    q->opened_ns = hf__quorum_now(q);
    if (connects) hf__quorum_nodes_open(q);
}

/* Every verb but close. */
static void submit(hf_store *store, hf_op *ops) {
    hf__quorum *q = hf__quorum_self(store);

    open_handles(q, true);
    while (ops != NULL) {
        hf_op *next = ops->next;

        if (q->closing != NULL) {
            hf__op_push(&q->late, ops);
        } else {
            q->n_busy++;
            ops->stamp = hf__quorum_now(q);
            park_or_begin(q, ops);
        }
        ops = next;
    }
}

/* What has been asked of the nodes is not called back: their answers are waited for a short time
 * only. */
static void cancel(hf_store *store, hf_op *op) {
    hf__quorum *q = hf__quorum_self(store);

    if (!hf__op_remove(&q->parked, op)) return;
    hf__error_set(&op->error, HF_ECANCELED, 0, NULL);
    end_later(q, op);
}

/* ---------------------------------------------------------------- close */

static void on_handle_gone(void *data) {
    hf__quorum *q = data;

    if (--q->n_handles == 0) hf__op_finish_close(q->base.env.scope, &q->late, q->closing);
}

static void on_node_closed(hf_op *op) {
    hf__quorum_node *node = hf__of(op, hf__quorum_node, close_op);
    hf__quorum *q = node->quorum;

    hf_op_reset(op);
    if (--q->n_open_nodes > 0) return;
    q->n_handles = q->broken ? 1 : 2;
    if (!q->broken) hf__timers_close(&q->timers, on_handle_gone, q);
    hf__defer_close(&q->defer, on_handle_gone, q);
}

/* All that was deferred before has ended, and nothing was deferred since. What is still on its way
 * to a node ends before the node does. */
static void on_drained(hf_op *op) {
    hf__quorum *q = op->data;

    q->is_over = true;
    if (!q->broken) hf__timer_stop(&q->timers, &q->wake);
    if (!q->broken) hf__timer_stop(&q->timers, &q->settle);
    q->n_open_nodes = q->n;
    for (uint8_t i = 0; i < q->n; i++) {
        hf__quorum_node *node = &q->nodes[i];

        hf__quorum_debts_forget(q, i);
        if (!q->broken) {
            hf__timer_stop(&q->timers, &node->reopen);
            hf__timer_stop(&q->timers, &node->hush);
        }
        if (node->open_op.phase == HF__OP_PENDING)
            node->store->vt->cancel(node->store, &node->open_op);
        hf_op_init(&node->close_op, HF_CLOSE, on_node_closed, NULL);
        hf__store_submit(node->store, &node->close_op);
    }
}

static void close_if_idle(hf__quorum *q) {
    if (q->closing == NULL || q->n_busy > 0 || q->drained.done != NULL) return;
    hf_op_init(&q->drained, HF_CLOSE, on_drained, q);
    q->drained.phase = HF__OP_PENDING;
    hf__defer_push(&q->defer, &q->drained);
}

static void close_store(hf_store *store, hf_op *op) {
    hf__quorum *q = hf__quorum_self(store);
    hf_op *parked;

    assert(q->closing == NULL && op->next == NULL);
    open_handles(q, false);
    q->closing = op;
    hf__quorum_watch_forget(q);
    while ((parked = hf__op_pop(&q->parked)) != NULL) {
        hf__error_set(&parked->error, HF_ECLOSED, 0, NULL);
        end_later(q, parked);
    }
    close_if_idle(q);
}

const hf_store_vtable hf__quorum_store = {
    .name = "quorum",
    .schemes = "quorum",
    .caps =
        HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_FENCES | HF_CAP_SHARED_BY_PROCESSES | HF_CAP_LIST,
    .size = sizeof(hf__quorum),
    .params = HF__REDIS_PARAMS " prefix waitReplicas allowEviction maxTtl nodeTimeout fencing "
                               "quarantine",
    .lacks = "what a majority of nodes wrote last would have to be agreed on before it is read; "
             "open one Redis or an SQLite file for them",
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
    .watch = hf__quorum_watch,
    .unwatch = hf__quorum_unwatch,
    .nodes = hf__quorum_nodes,
};
