/*
 * The memory store: for one process, gone with it. The table of a client is shared by its instances
 * (the host's loop, the keeper's) under one mutex; an op is carried out at once, inside submit, and
 * ends in the next turn of its instance's loop.
 */
#include "core/defer.h"
#include "core/store.h"
#include "store/memory-table.h"
#include "store/stores.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

typedef struct memory {
    hf_store store;
    hf__defer defer;
    uv_async_t wake;   /* sent by whoever changes what a watch waits for */
    hf__op_list early; /* given before open */
    hf__op_list late;  /* given after close */
    hf_op *closing;    /* the op of close */
    hf_op drained;     /* behind the last op that is deferred */
    uint32_t handles;  /* to be closed */
    bool opened;       /* open was given: the defer is there */
    bool attached;     /* the table and the async handle are there */
    /* Of all instances, under the table's mutex. */
    hf__node in_table;
    hf__node *watches; /* heads of lists, by hash; NULL: no watch can be kept now */
    size_t n_heads;    /* a power of two */
    size_t n_watches;
    hf__node fired; /* watches whose hint is on its way */
    uint64_t seed[2];
} memory;

enum { FIRST_HEADS = 32 };

static memory *of(hf_store *store) {
    return hf__of(store, memory, store);
}

static hf__mem_table *table_of(const memory *m) {
    return m->store.env.shared->data;
}

/* ---- the table */

static void free_table(hf__shared *shared) {
    hf__mem_table *table = shared->data;

    assert(hf__list_empty(&table->instances));
    hf__mem_free_leases(table);
    hf__mem_free_entries(table);
    hf__free(table->allocator, table);
    shared->data = NULL;
}

static hf__mem_table *new_table(const hf__store_env *env) {
    const hf_allocator *allocator = env->shared->allocator;
    hf__mem_table *table = hf__zalloc(allocator, sizeof *table);

    if (table == NULL) return NULL;
    table->allocator = allocator;
    table->version = hf__real_us(env->clock);
    hf__map_init(&table->locks, allocator);
    hf__map_init(&table->owners, allocator);
    for (size_t i = 0; i < 3; i++)
        hf__map_init(&table->entries[i], allocator);
    hf__list_init(&table->instances);
    return table;
}

/* ---- watches */

static hf__node *head_of(const memory *m, uint64_t hash) {
    return &m->watches[hash & (m->n_heads - 1)];
}

/* Twice as many heads; false when memory is out. */
static bool grow_heads(memory *m) {
    size_t n = m->n_heads == 0 ? FIRST_HEADS : m->n_heads * 2;
    hf__node *heads = hf__alloc(m->store.env.allocator, n * sizeof *heads);
    hf__node *before = m->watches;
    size_t n_before = m->n_heads;

    if (heads == NULL) return false;
    for (size_t i = 0; i < n; i++)
        hf__list_init(&heads[i]);
    m->watches = heads;
    m->n_heads = n;
    for (size_t i = 0; i < n_before; i++) {
        hf__node *node;
        while ((node = hf__list_pop(&before[i])) != NULL)
            hf__list_push(head_of(m, hf__of(node, hf__watch, node)->seen), node);
    }
    hf__free(m->store.env.allocator, before);
    return true;
}

static void watch(hf_store *store, hf__watch *w) {
    memory *m = of(store);

    hf__list_init(&w->node);
    w->seen = hf__hash(m->seed, w->key);
    uv_mutex_lock(&store->env.shared->lock);
    /* Where not even the first heads can be had the hint is lost, as a hint may be. */
    if (!m->closing && (m->n_watches < m->n_heads || grow_heads(m) || m->n_heads > 0)) {
        hf__list_push(head_of(m, w->seen), &w->node);
        m->n_watches++;
    }
    uv_mutex_unlock(&store->env.shared->lock);
}

static void unwatch(hf_store *store, hf__watch *w) {
    memory *m = of(store);

    uv_mutex_lock(&store->env.shared->lock);
    if (!hf__list_empty(&w->node)) {
        hf__list_remove(&w->node);
        m->n_watches--;
    }
    uv_mutex_unlock(&store->env.shared->lock);
}

void hf__mem_changed(hf__mem_table *table, hf_space space, hf_slice key) {
    for (hf__node *at = table->instances.next; at != &table->instances; at = at->next) {
        memory *m = hf__of(at, memory, in_table);
        hf__node *head;
        hf__node *next;

        if (m->n_watches == 0) continue;
        head = head_of(m, hf__hash(m->seed, key));
        for (hf__node *node = head->next; node != head; node = next) {
            hf__watch *w = hf__of(node, hf__watch, node);
            next = node->next;
            if (w->space != space || !hf__slice_equal(w->key, key)) continue;
            hf__list_remove(node);
            hf__list_push(&m->fired, node);
            uv_async_send(&m->wake);
        }
    }
}

static hf__watch *next_fired(memory *m, hf__node *batch) {
    hf__node *node;
    hf__watch *w = NULL;

    uv_mutex_lock(&m->store.env.shared->lock);
    node = hf__list_pop(batch);
    if (node != NULL) {
        w = hf__of(node, hf__watch, node);
        hf__list_push(head_of(m, w->seen), node); /* armed again before it is told */
    }
    uv_mutex_unlock(&m->store.env.shared->lock);
    return w;
}

static void on_wake(uv_async_t *wake) {
    memory *m = hf__of(wake, memory, wake);
    hf__scope *scope = m->store.env.scope;
    hf__node batch;
    hf__watch *w;

    /* Only those that are there now: one whose `fire` leads to its next must not keep the loop. */
    hf__list_init(&batch);
    uv_mutex_lock(&m->store.env.shared->lock);
    hf__list_append(&batch, &m->fired);
    uv_mutex_unlock(&m->store.env.shared->lock);
    hf__scope_enter(scope);
    while ((w = next_fired(m, &batch)) != NULL)
        w->fire(w);
    hf__scope_leave(scope);
}

static void forget_watches(memory *m) {
    while (hf__list_pop(&m->fired) != NULL) {
    }
    for (size_t i = 0; i < m->n_heads; i++) {
        while (hf__list_pop(&m->watches[i]) != NULL) {
        }
    }
    m->n_watches = 0;
}

/* ---- ops */

/* Gets the table and the handle that can be missing. False with `error` set. */
static bool attach(memory *m, hf_error *error) {
    const hf__store_env *env = &m->store.env;
    int status;

    if (m->attached) return true;
    uv_mutex_lock(&env->shared->lock);
    if (env->shared->data == NULL) {
        env->shared->data = new_table(env);
        env->shared->fini = free_table;
    }
    uv_mutex_unlock(&env->shared->lock);
    if (env->shared->data == NULL) {
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return false;
    }
    status = uv_async_init(env->loop, &m->wake, on_wake);
    if (status != 0) {
        hf__error_native(error, HF_EIO, HF_RETRYABLE, -status, "no descriptor for a wake-up: %s",
                         uv_strerror(status));
        return false;
    }
    uv_unref((uv_handle_t *)&m->wake);
    uv_mutex_lock(&env->shared->lock);
    hf__list_push(&table_of(m)->instances, &m->in_table);
    uv_mutex_unlock(&env->shared->lock);
    m->attached = true;
    return true;
}

static void sweep(const hf__mem_turn *turn, hf_op *op) {
    op->swept = hf__mem_sweep_leases(turn, op->limit);
    op->swept += hf__mem_sweep_entries(turn, op->limit - op->swept);
    op->applied = true;
}

static void execute(const hf__mem_turn *turn, hf_op *op) {
    switch ((hf_verb)op->verb) {
    case HF_TAKE: hf__mem_take(turn, op); break;
    case HF_KEEP:
        if (op->space == HF_LEASES)
            hf__mem_keep(turn, op);
        else
            hf__mem_keep_entry(turn, op);
        break;
    case HF_DROP: hf__mem_drop(turn, op); break;
    case HF_GET: hf__mem_get(turn, op); break;
    case HF_PUT: hf__mem_put(turn, op); break;
    case HF_DEL: hf__mem_del(turn, op); break;
    case HF_ADD: hf__mem_add(turn, op); break;
    case HF_LIST: hf__mem_list(turn, op); break;
    case HF_SWEEP: sweep(turn, op); break;
    case HF_OPEN:
    case HF_CLOSE: assert(false);
    }
}

static void fail_all(memory *m, hf__op_list *ops, const hf_error *error) {
    hf__op_list failed = {NULL, NULL};
    hf_op *op;

    while ((op = hf__op_pop(ops)) != NULL)
        hf__op_fail(&failed, op, error);
    while ((op = hf__op_pop(&failed)) != NULL)
        hf__defer_push(&m->defer, op);
}

static void run(memory *m, hf__op_list *ops) {
    const hf__store_env *env = &m->store.env;
    hf__mem_turn turn;
    hf_error error;
    hf_op *op;

    if (!attach(m, &error)) {
        fail_all(m, ops, &error);
        return;
    }
    uv_mutex_lock(&env->shared->lock);
    turn = (hf__mem_turn){
        .table = table_of(m), .now_ns = hf__now_ns(env->clock), .now_us = hf__real_us(env->clock)};
    while ((op = hf__op_pop(ops)) != NULL) {
        execute(&turn, op);
        hf__defer_push(&m->defer, op);
    }
    uv_mutex_unlock(&env->shared->lock);
}

/* Every verb but open and close. */
static void submit(hf_store *store, hf_op *ops) {
    memory *m = of(store);
    hf__op_list list = {NULL, NULL};

    while (ops != NULL) {
        hf_op *next = ops->next;
        hf__op_push(&list, ops);
        ops = next;
    }
    if (m->closing != NULL)
        hf__op_append(&m->late, &list);
    else if (!m->opened)
        hf__op_append(&m->early, &list);
    else
        run(m, &list);
}

/* ---- life */

static hf_code init(hf_store *store, hf_error *error) {
    memory *m = of(store);
    const hf__url *url = store->env.url;

    if (url->has_authority || url->path.len > 0)
        return hf__error_set(error, HF_EINVAL, 0, "\"memory:\" takes no host and no path");
    hf__list_init(&m->in_table);
    hf__list_init(&m->fired);
    if (!hf__random(m->seed, sizeof m->seed)) memset(m->seed, 0, sizeof m->seed);
    return HF_OK;
}

static void open_store(hf_store *store, hf_op *op) {
    memory *m = of(store);

    assert(!m->opened && m->closing == NULL);
    m->opened = true;
    hf__defer_init(&m->defer, store->env.loop, store->env.scope);
    op->applied = attach(m, &op->error);
    hf__defer_push(&m->defer, op);
    if (op->applied)
        run(m, &m->early);
    else
        fail_all(m, &m->early, &op->error);
}

static void on_gone(void *data) {
    memory *m = data;

    if (--m->handles == 0) hf__op_finish_close(m->store.env.scope, &m->late, m->closing);
}

static void on_wake_gone(uv_handle_t *handle) {
    on_gone(hf__of(handle, memory, wake));
}

/* All that was deferred before has ended, and nothing was deferred since. */
static void on_drained(hf_op *op) {
    memory *m = op->data;

    m->handles = m->attached ? 2 : 1;
    hf__defer_close(&m->defer, on_gone, m);
    if (m->attached) uv_close((uv_handle_t *)&m->wake, on_wake_gone);
}

static void close_store(hf_store *store, hf_op *op) {
    memory *m = of(store);

    assert(m->closing == NULL);
    uv_mutex_lock(&store->env.shared->lock);
    m->closing = op;
    hf__list_remove(&m->in_table);
    forget_watches(m);
    uv_mutex_unlock(&store->env.shared->lock);
    hf__op_append(&m->late, &m->early);
    if (!m->opened) hf__defer_init(&m->defer, store->env.loop, store->env.scope);
    hf_op_init(&m->drained, HF_CLOSE, on_drained, m);
    m->drained.phase = HF__OP_PENDING;
    hf__defer_push(&m->defer, &m->drained);
}

static void fini(hf_store *store) {
    hf__free(store->env.allocator, of(store)->watches);
}

/* An op has had its effect before anyone could want it back. */
static void cancel(hf_store *store, hf_op *op) {
    (void)store;
    (void)op;
}

const hf_store_vtable hf__memory_store = {
    .name = "memory",
    .schemes = "memory",
    .caps = HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_PERMITS | HF_CAP_FENCES | HF_CAP_ENTRIES |
            HF_CAP_LIST | HF_CAP_HAND_OVER,
    .size = sizeof(memory),
    .params = "",
    .init = init,
    .open = open_store,
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
    .watch = watch,
    .unwatch = unwatch,
};
