#include "support-faulty.h"

#include "store/stores.h"

#include <stdlib.h>
#include <string.h>

plan the_plan;

void plan_set(fault what, hf_verb verb, int count, unsigned delay_ms) {
    atomic_store(&the_plan.fault, (int)what);
    atomic_store(&the_plan.verb, (int)verb);
    atomic_store(&the_plan.delay_ms, delay_ms);
    atomic_store(&the_plan.struck, 0);
    atomic_store(&the_plan.drops_applied, 0);
    atomic_store(&the_plan.ghosts, 0);
    atomic_store(&the_plan.ghosts_applied, 0);
    atomic_store(&the_plan.left, count);
}

/* What stands between an op and its caller. */
typedef struct veil {
    hf_store *store;
    hf_op *op;
    hf_op_cb done;
    void *data;
    fault fault;
    uv_timer_t timer;
} veil;

static void lift(veil *v) {
    v->op->done = v->done;
    v->op->data = v->data;
}

static void on_timer_closed(uv_handle_t *handle) {
    free(handle->data);
}

static void set_unknown(hf_op *op) {
    hf__error_set(&op->error, HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
                  "the connection was lost before the answer came");
    op->applied = false;
}

static void on_answer_due(uv_timer_t *timer) {
    veil *v = timer->data;
    hf_op *op = v->op;
    lift(v);
    hf__scope_enter(v->store->env.scope);
    op->done(op);
    hf__scope_leave(v->store->env.scope);
    uv_close((uv_handle_t *)timer, on_timer_closed);
}

static void on_done(hf_op *op) {
    veil *v = op->data;
    if (v->fault == DELAY_ANSWER) {
        uv_timer_init(v->store->env.loop, &v->timer);
        v->timer.data = v;
        uv_timer_start(&v->timer, on_answer_due, atomic_load(&the_plan.delay_ms), 0);
        return;
    }
    if (op->verb == HF_DROP && op->applied) atomic_fetch_add(&the_plan.drops_applied, 1);
    if (v->fault == LOSE_ANSWER || v->fault == LOSE_REQUEST || v->fault == DELAY_REQUEST)
        set_unknown(op);
    if (v->fault == REFUSE)
        hf__error_set(&op->error, HF_EUNAVAIL, HF_RETRYABLE, "the store is away");
    lift(v);
    free(v);
    op->done(op);
}

/* ---------------------------------------------------------------- requests that come late */

typedef struct ghost {
    hf_op op;
    hf_slice key;
    uv_timer_t timer;
    hf_store *store;
    char bytes[];
} ghost;

static void on_ghost_done(hf_op *op) {
    ghost *g = op->data;
    if (op->applied) atomic_fetch_add(&the_plan.ghosts_applied, 1);
    atomic_fetch_add(&the_plan.ghosts, 1);
    hf_op_reset(op);
    g->timer.data = g;
    uv_close((uv_handle_t *)&g->timer, on_timer_closed);
}

static void on_ghost_due(uv_timer_t *timer) {
    ghost *g = timer->data;
    hf__memory_store.take(g->store, &g->op);
}

static void send_later(hf_store *store, const hf_op *op) {
    ghost *g = calloc(1, sizeof(*g) + op->keys[0].len);
    if (g == NULL) abort();
    memcpy(g->bytes, op->keys[0].data, op->keys[0].len);
    g->key = (hf_slice){g->bytes, op->keys[0].len};
    hf_op_init(&g->op, (hf_verb)op->verb, on_ghost_done, g);
    g->op.keys = &g->key;
    g->op.n_keys = 1;
    g->op.token = op->token;
    g->op.ttl_ms = op->ttl_ms;
    g->op.limit = op->limit;
    g->op.phase = HF__OP_PENDING;
    g->op.allocator = store->env.allocator;
    g->store = store;
    uv_timer_init(store->env.loop, &g->timer);
    g->timer.data = g;
    uv_timer_start(&g->timer, on_ghost_due, atomic_load(&the_plan.delay_ms), 0);
}

/* ---------------------------------------------------------------- the store */

static fault befalls(const hf_op *op) {
    if (atomic_load(&the_plan.verb) != op->verb) return FAULT_NONE;
    if (atomic_fetch_sub(&the_plan.left, 1) <= 0) return FAULT_NONE;
    atomic_fetch_add(&the_plan.struck, 1);
    return (fault)atomic_load(&the_plan.fault);
}

/* A request that is not to land asks for nothing instead, so that its answer comes the usual
 * way. */
static void blank(hf_op *op) {
    static const hf_slice nothing = {"\x01 nobody's", 9};
    op->keys = &nothing;
    op->n_keys = 1;
    hf__memory_store.drop(((veil *)op->data)->store, op);
}

static void pass(hf_store *store, hf_op *ops, void (*verb)(hf_store *store, hf_op *ops)) {
    hf_op *next;
    for (hf_op *op = ops; op != NULL; op = next) {
        next = op->next;
        op->next = NULL;
        veil *v = calloc(1, sizeof(*v));
        if (v == NULL) abort();
        *v = (veil){
            .store = store, .op = op, .done = op->done, .data = op->data, .fault = befalls(op)};
        op->done = on_done;
        op->data = v;
        if (v->fault == DELAY_REQUEST) send_later(store, op);
        if (v->fault == LOSE_REQUEST || v->fault == DELAY_REQUEST || v->fault == REFUSE)
            blank(op);
        else
            verb(store, op);
    }
}

static void take(hf_store *store, hf_op *ops) {
    pass(store, ops, hf__memory_store.take);
}

static void keep(hf_store *store, hf_op *ops) {
    pass(store, ops, hf__memory_store.keep);
}

static void drop(hf_store *store, hf_op *ops) {
    pass(store, ops, hf__memory_store.drop);
}

static void put(hf_store *store, hf_op *ops) {
    pass(store, ops, hf__memory_store.put);
}

/* The rest is the memory store's; filled in before main. */
static hf_store_vtable table;

__attribute__((constructor)) static void fill(void) {
    table = hf__memory_store;
    table.name = "faulty";
    table.take = take;
    table.keep = keep;
    table.drop = drop;
    table.put = put;
}

const hf_store_vtable *faulty_vtable(void) {
    return &table;
}
