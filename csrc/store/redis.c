/*
 * The Redis store: everything on one Redis or Valkey, the master that Sentinels name, or a Cluster.
 *
 * Each op is one script in the server (store/redis), so that it happens at one instant, by the
 * server's clock, and takes one round trip. What is submitted in one turn of the loop goes out in
 * one write (driver/redis). The scripts come back with a nonce, which tells answers that are out of
 * step from those that are not.
 *
 * A lease that is held alone is what every Redlock implementation writes: a string with the token
 * in it, that expires. Everything else about a key stands beside it (redis-names.h).
 *
 * Fences. A key's state keeps its counter, together with the epoch it was given in: the run id of
 * the server, and its replication id, which is another after each failover. A server that was
 * started anew or promoted may have lost the last of them, or have come up with an old copy; then
 * its clock decides. Here and everywhere Redis expires what is over: there is
 * nothing to sweep.
 *
 * Waiting. Who is refused leaves its channel behind, in the same step, and a release publishes to
 * each that it finds there: nothing is published where nobody waits, and no release falls between a
 * refusal and the listening for it.
 */
#include "store/redis-store.h"
#include "store/stores.h"
#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define FREE_MAX 256    /* tasks that are kept for later ones */
#define REPLICAS_MAX 16 /* a setting of more is a mistake */

static const char *const lua[] = {
#define X(name) hf__redis_lua_##name,
    HF__REDIS_SCRIPTS(X)
#undef X
};

/* ---------------------------------------------------------------- init, fini */

static hf_slice setting(const hf_store *store, const char *name, const char *otherwise) {
    hf_slice value = {otherwise, strlen(otherwise)};

    (void)hf__setting_get(&store->env, name, &value);
    return value;
}

static hf_code read_settings(hf__redis_instance *s, hf_error *error) {
    const hf_store *store = &s->base;
    hf_slice eviction = setting(store, "allowEviction", "false");

    if (!hf__parse_uint(setting(store, "waitReplicas", "0"), 0, REPLICAS_MAX, &s->wait_replicas))
        return hf__error_set(error, HF_EINVAL, 0, "waitReplicas is a whole number from 0 to %d",
                             REPLICAS_MAX);
    s->allow_eviction = hf__slice_is(eviction, "true");
    if (!s->allow_eviction && !hf__slice_is(eviction, "false"))
        return hf__error_set(error, HF_EINVAL, 0, "allowEviction is \"true\" or \"false\"");
    return hf__redis_names_init(&s->names, setting(store, "prefix", "holdfast:"),
                                store->env.allocator, error);
}

/* Below the prefix, as everything is: a user's channels are then allowed by one pattern. */
static void name_channel(hf__redis_instance *s, const hf_token *id) {
    hf_slice prefix = s->names.prefix;
    char *at = s->channel;

    if (prefix.len > 0) memcpy(at, prefix.data, prefix.len);
    at += prefix.len;
    *at++ = '\0';
    at += snprintf(at, 24, "wake:");
    for (size_t i = 0; i < 8; i++)
        at += snprintf(at, 3, "%02x", id->bytes[i]);
    s->channel_len = (size_t)(at - s->channel);
}

static void on_message(void *data, hf_slice payload) {
    hf__redis_message(data, payload);
}

static void on_listening(void *data) {
    hf__redis_listening(data);
}

/* Told once, by the instance of the host's loop. */
static void on_connected(void *data, const hf__redis_server *server) {
    hf__redis_instance *s = data;
    const hf__store_env *env = &s->base.env;
    hf_error error;

    if (s->member != NULL) s->member->connected(s->member->data, server);
    if (!server->evicts || s->warned || env->blocking || env->warn == NULL) return;
    s->warned = true;
    hf__error_set(&error, HF_ENOTSUP, 0,
                  "Redis at %s removes data when its memory is full (maxmemory-policy %s), leases "
                  "that are held among them: set maxmemory-policy to noeviction",
                  server->name, server->policy);
    env->warn(env->warn_data, &error);
}

static void on_down(void *data, const hf_error *error) {
    hf__redis_instance *s = data;

    if (s->member != NULL) s->member->down(s->member->data, error);
}

static hf_code init(hf_store *store, hf_error *error) {
    hf__redis_instance *s = hf__redis_self(store);
    const hf__redis_events events = {.message = on_message,
                                     .listening = on_listening,
                                     .connected = on_connected,
                                     .down = on_down,
                                     .data = s};
    hf_token id;

    hf__error_clear(error);
    if (read_settings(s, error) != HF_OK) return error->code;
    if (!hf_token_random(&id))
        return hf__error_set(error, HF_EIO, 0, "the system has no randomness to give");
    name_channel(s, &id);
    for (size_t i = 0; i < HF__LUA_COUNT; i++)
        hf__redis_script_init(&s->scripts[i], (uint8_t)i, lua[i]);
    hf__list_init(&s->tasks);
    hf__list_init(&s->free_tasks);
    hf__list_init(&s->inquiries);
    hf__watchers_init(&s->watchers, store->env.allocator);
    return hf__redis_new(&store->env, &events, &s->redis, error);
}

static void fini(hf_store *store) {
    hf__redis_instance *s = hf__redis_self(store);
    hf__node *node;

    assert(s->n_busy == 0 && hf__list_empty(&s->tasks));
    while ((node = hf__list_pop(&s->free_tasks)) != NULL)
        hf__free(store->env.allocator, hf__of(node, hf__redis_task, node));
    hf__redis_list_forget(s);
    hf__watchers_fini(&s->watchers);
    hf__redis_names_fini(&s->names);
    hf__redis_free(s->redis);
}

/* ---------------------------------------------------------------- the end of ops */

static void close_if_idle(hf__redis_instance *s);

void hf__redis_end_op(hf__redis_instance *s, hf_op *op) {
    hf__op_list list = {NULL, NULL};

    assert(s->n_busy > 0);
    if (op->error.code != HF_OK) op->applied = false;
    hf__op_push(&list, op);
    /* Counted out afterwards: a close does not end before what `done` submits. */
    hf__op_finish(s->base.env.scope, &list);
    s->n_busy--;
    close_if_idle(s);
}

/* The same in the next turn: within a call. */
static void end_later(hf__redis_instance *s, hf_op *op) {
    hf__defer_push(&s->defer, op);
    s->n_busy--;
    close_if_idle(s);
}

bool hf__redis_has_shape(const hf__reply *reply, size_t numbers, size_t texts) {
    if (reply->type != HF__REPLY_ARRAY || reply->n_items != numbers + texts) return false;
    for (size_t i = 0; i < reply->n_items; i++) {
        hf__reply_type type = i < numbers ? HF__REPLY_INTEGER : HF__REPLY_STRING;
        if (reply->items[i].type != type) return false;
    }
    return true;
}

static bool is_write(const hf_op *op) {
    return op->verb != HF_GET && op->verb != HF_LIST && op->verb != HF_OPEN;
}

static hf_slice key_of(const hf_op *op) {
    return op->keys != NULL ? op->keys[0] : (hf_slice){"", 0};
}

void hf__redis_nonsense(const hf__redis_task *task, hf_error *error) {
    hf_slice key = key_of(task->op);

    hf__error_set(error, HF_EPROTO, is_write(task->op) ? HF_OUTCOME_UNKNOWN : 0,
                  "Redis at %s gave no sensible answer for \"%.*s\": has something else written "
                  "what begins with Holdfast's prefix, or is it no Redis and no Valkey?",
                  task->server != NULL ? task->server->name : "its address", hf__shown(key),
                  key.data);
}

/* Of data that is in the way says whose it is. */
static void explain(const hf__redis_task *task, hf_error *error) {
    hf_slice prefix = task->store->names.prefix;
    hf_slice key = key_of(task->op);

    if (error->code != HF_ETYPE) return;
    hf__error_set(error, HF_ETYPE, 0,
                  "Redis at %s has other data than Holdfast's in \"%.*s%.*s\", or in what Holdfast "
                  "keeps beside it: remove that, or choose another prefix or key",
                  task->server != NULL ? task->server->name : "its address", hf__shown(prefix),
                  prefix.data, hf__shown(key), key.data);
}

/* ---------------------------------------------------------------- tasks */

hf__redis_task *hf__redis_task_new(hf__redis_instance *s, hf_op *op) {
    hf__node *node = hf__list_pop(&s->free_tasks);
    hf__redis_task *task;

    if (node != NULL) {
        task = hf__of(node, hf__redis_task, node);
        s->n_free--;
    } else {
        task = hf__alloc(s->base.env.allocator, sizeof *task);
    }
    if (task == NULL) {
        hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return NULL;
    }
    memset(task, 0, sizeof *task);
    task->store = s;
    task->op = op;
    hf__list_push(&s->tasks, &task->node);
    return task;
}

void hf__redis_task_free(hf__redis_task *task) {
    hf__redis_instance *s = task->store;

    hf__list_remove(&task->node);
    if (s->n_free < FREE_MAX) {
        hf__list_push(&s->free_tasks, &task->node);
        s->n_free++;
    } else {
        hf__free(s->base.env.allocator, task);
    }
}

void hf__redis_begin(hf__redis_task *task, const hf__redis_server *server, hf__buffer *out,
                     uint32_t n_keys, uint32_t n_args) {
    task->server = server;
    hf__redis_script_begin(&task->call, out, n_keys, n_args);
}

void hf__redis_end_task(hf__redis_task *task) {
    hf__redis_instance *s = task->store;
    hf_op *op = task->op;

    hf__redis_task_free(task);
    hf__redis_end_op(s, op);
}

static void on_done(hf__redis_call *call, const hf__reply *reply, const hf_error *error) {
    hf__redis_task *task = call->data;
    hf_op *op = task->op;

    if (task->done != NULL) {
        task->done(task, reply, error);
        return;
    }
    if (error != NULL) {
        op->error = *error;
        explain(task, &op->error);
        /* Reading leaves nothing in doubt. */
        if (!is_write(op)) op->error.flags &= ~HF_OUTCOME_UNKNOWN;
    } else if (!task->answer(task, reply)) {
        hf__redis_nonsense(task, &op->error);
        op->refused = HF_NOT_REFUSED;
    }
    if (op->verb == HF_TAKE && op->error.code == HF_OK && op->applied &&
        task->store->wait_replicas > 0)
        hf__redis_confirm(task);
    else
        hf__redis_end_task(task);
}

void hf__redis_send_task(hf__redis_task *task, int script, hf_slice key) {
    hf__redis_instance *s = task->store;
    hf__redis_call *call = &task->call;

    call->done = on_done;
    call->data = task;
    if (s->member != NULL && call->timeout_ms == 0) call->timeout_ms = s->member->patience_ms;
    call->slot = HF__REDIS_ANY;
    if (script >= 0) call->script = &s->scripts[script];
    if (key.len > 0 && hf__redis_is_cluster(s->redis)) {
        hf__redis_name lease;
        hf__redis_lease_name(&s->names, key, &lease);
        call->slot = hf__redis_slot(hf__redis_name_slice(&lease));
    }
    hf__redis_send(s->redis, call);
}

/* ---------------------------------------------------------------- submit */

/* A sign of life, and what `open` waits for. */
static hf_code encode_ping(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    (void)error;
    ((hf__redis_task *)call->data)->server = server;
    hf__resp_begin(out, 1);
    hf__resp_text(out, "PING");
    return HF_OK;
}

static bool answer_ping(hf__redis_task *task, const hf__reply *reply) {
    task->op->applied = hf__reply_equals(reply, "PONG");
    return task->op->applied;
}

static bool ping(hf__redis_instance *s, hf_op *op) {
    hf__redis_task *task = hf__redis_task_new(s, op);

    if (task == NULL) return false;
    task->call.encode = encode_ping;
    task->answer = answer_ping;
    hf__redis_send_task(task, -1, (hf_slice){NULL, 0});
    return true;
}

/* Keys that no name can be made of, or that no server has all of. */
static bool check_keys(const hf__redis_instance *s, hf_op *op) {
    bool is_cluster = hf__redis_is_cluster(s->redis);
    uint16_t first = 0;

    for (uint32_t i = 0; i < op->n_keys; i++) {
        hf_slice key = op->keys[i];
        hf__redis_name lease;
        uint16_t slot;

        if (key.len > HF_KEY_MAX || (key.len > 0 && memchr(key.data, '\0', key.len) != NULL)) {
            hf__error_set(&op->error, HF_EINVAL, 0, "a key has up to %d bytes, and no NUL",
                          HF_KEY_MAX);
            return false;
        }
        if (!is_cluster || op->n_keys == 1) continue;
        hf__redis_lease_name(&s->names, key, &lease);
        slot = hf__redis_slot(hf__redis_name_slice(&lease));
        if (i == 0) first = slot;
        if (slot == first) continue;
        hf__error_set(
            &op->error, HF_ENOTSUP, 0,
            "\"%.*s\" and \"%.*s\" lie in different slots of the Redis Cluster and cannot "
            "be locked together: give them one hash tag, such as {order:1}",
            op->keys[0].len > 40 ? 40 : (int)op->keys[0].len, op->keys[0].data,
            key.len > 40 ? 40 : (int)key.len, key.data);
        return false;
    }
    return true;
}

/* False, with the op's error set: it has ended. */
static bool begin(hf__redis_instance *s, hf_op *op) {
    if (op->verb != HF_OPEN && op->verb != HF_SWEEP && !check_keys(s, op)) return false;
    switch ((hf_verb)op->verb) {
    case HF_TAKE: return hf__redis_take(s, op);
    case HF_KEEP: return op->space == HF_LEASES ? hf__redis_keep(s, op) : hf__redis_renew(s, op);
    case HF_DROP: return hf__redis_drop(s, op);
    case HF_GET: return op->keys[0].len > 0 ? hf__redis_get(s, op) : ping(s, op);
    case HF_PUT: return hf__redis_put(s, op);
    case HF_DEL: return hf__redis_del(s, op);
    case HF_ADD: return hf__redis_add(s, op);
    case HF_LIST: return hf__redis_list(s, op);
    case HF_OPEN: return ping(s, op);
    case HF_SWEEP: op->applied = true; return false; /* Redis has done it */
    case HF_CLOSE: break;
    }
    assert(false);
    return false;
}

static void open_handles(hf__redis_instance *s) {
    if (s->has_handles) return;
    s->has_handles = true;
    hf__defer_init(&s->defer, s->base.env.loop, s->base.env.scope);
    uv_timer_init(s->base.env.loop, &s->forget);
    uv_unref((uv_handle_t *)&s->forget);
}

/* Every verb but close. */
static void submit(hf_store *store, hf_op *ops) {
    hf__redis_instance *s = hf__redis_self(store);

    open_handles(s);
    while (ops != NULL) {
        hf_op *next = ops->next;

        if (s->closing != NULL) {
            hf__op_push(&s->late, ops);
        } else {
            s->n_busy++;
            if (!begin(s, ops)) end_later(s, ops);
        }
        ops = next;
    }
}

void hf__redis_start(hf__redis_instance *s, hf_op *op,
                     bool (*start)(hf__redis_instance *s, hf_op *op)) {
    assert(op->phase == HF__OP_FREE);
    op->phase = HF__OP_PENDING;
    op->allocator = s->base.env.allocator;
    open_handles(s);
    if (s->closing != NULL) {
        hf__op_push(&s->late, op);
        return;
    }
    s->n_busy++;
    if (!start(s, op)) end_later(s, op);
}

/* What has not been sent can be had back. Few are cancelled, so there is no index. */
static void cancel(hf_store *store, hf_op *op) {
    hf__redis_instance *s = hf__redis_self(store);

    for (hf__node *node = s->tasks.next; node != &s->tasks; node = node->next) {
        hf__redis_task *task = hf__of(node, hf__redis_task, node);

        if (task->op != op || task->done != NULL) continue;
        if (!hf__redis_cancel(s->redis, &task->call)) return;
        hf__redis_task_free(task);
        hf__error_set(&op->error, HF_ECANCELED, 0, NULL);
        end_later(s, op);
        return;
    }
}

/* ---------------------------------------------------------------- close */

static void on_handle_gone(void *data) {
    hf__redis_instance *s = data;

    if (--s->n_handles == 0) hf__op_finish_close(s->base.env.scope, &s->late, s->closing);
}

static void on_timer_gone(uv_handle_t *handle) {
    on_handle_gone(hf__of(handle, hf__redis_instance, forget));
}

/* All that was deferred before has ended, and nothing was deferred since. */
static void on_drained(hf_op *op) {
    hf__redis_instance *s = op->data;

    s->n_handles = 3;
    hf__redis_close(s->redis, on_handle_gone, s);
    hf__defer_close(&s->defer, on_handle_gone, s);
    uv_close((uv_handle_t *)&s->forget, on_timer_gone);
}

static void close_if_idle(hf__redis_instance *s) {
    if (s->closing == NULL || s->n_busy > 0 || s->drained.done != NULL) return;
    hf_op_init(&s->drained, HF_CLOSE, on_drained, s);
    s->drained.phase = HF__OP_PENDING;
    hf__defer_push(&s->defer, &s->drained);
}

static void close_store(hf_store *store, hf_op *op) {
    hf__redis_instance *s = hf__redis_self(store);

    assert(s->closing == NULL && op->next == NULL);
    open_handles(s);
    s->closing = op;
    hf__watchers_close(&s->watchers);
    hf__redis_list_forget(s);
    close_if_idle(s);
}

const hf_store_vtable hf__redis_store = {
    .name = "redis",
    .schemes = "redis rediss unix valkey valkeys redis+sentinel rediss+sentinel redis+cluster "
               "rediss+cluster",
    .caps = HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_PERMITS | HF_CAP_FENCES | HF_CAP_ENTRIES |
            HF_CAP_SHARED_BY_PROCESSES | HF_CAP_LIST | HF_CAP_HAND_OVER,
    .size = sizeof(hf__redis_instance),
    .params = HF__REDIS_PARAMS " prefix waitReplicas allowEviction",
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
    .watch = hf__redis_watch,
    .unwatch = hf__redis_unwatch,
};
