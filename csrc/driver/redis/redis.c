#include "driver/redis/redis.h"

#include "driver/redis/deployment.h"
#include "driver/redis/error.h"
#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define PAUSE_MIN_MS 25
#define PAUSE_MAX_MS 2000
#define STEADY_MS 1000 /* a session that lasted so long starts the pauses anew */

/* ---------------------------------------------------------------- calls */

static void on_idle(uv_idle_t *idle);

static void wake(hf__redis *redis) {
    uv_idle_start(&redis->idle, on_idle);
}

void hf__redis_flush_later(hf__redis *redis, hf__session *session) {
    if (hf__list_empty(&session->dirty)) hf__list_push(&redis->dirty, &session->dirty);
    wake(redis);
}

void hf__redis_end(hf__redis *redis, hf__redis_call *call, const hf__reply *reply,
                   const hf_error *error) {
    assert(redis->n_calls > 0);
    redis->n_calls--;
    call->done(call, reply, error);
}

static void end_all(hf__redis *redis, hf__node *calls, const hf_error *error) {
    hf__node batch;
    hf__node *node;

    /* Only those that are here now: `done` may send again. */
    hf__list_init(&batch);
    hf__list_append(&batch, calls);
    while ((node = hf__list_pop(&batch)) != NULL)
        hf__redis_end(redis, hf__of(node, hf__redis_call, node), NULL, error);
}

static void flush_all(hf__redis *redis) {
    hf__node batch;
    hf__node *node;

    hf__list_init(&batch);
    hf__list_append(&batch, &redis->dirty);
    while ((node = hf__list_pop(&batch)) != NULL)
        hf__session_flush(hf__of(node, hf__session, dirty));
}

/* The idle handle, not a prepare handle: while it is active the loop does not sleep, also where
 * something was sent between the two phases. */
static void on_idle(uv_idle_t *idle) {
    hf__redis *redis = hf__of(idle, hf__redis, idle);
    hf__scope *scope = redis->env.scope;
    hf_error error;

    uv_idle_stop(idle);
    hf__scope_enter(scope);
    if (redis->main == NULL && redis->cluster == NULL)
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else
        hf__error_set(&error, HF_EOVERLOAD, HF_RETRYABLE,
                      "%d operations are under way at the Redis server already: do less at a time",
                      HF__REDIS_CALLS_MAX);
    end_all(redis, &redis->refused, &error);
    flush_all(redis);
    hf__scope_leave(scope);
}

/* ---------------------------------------------------------------- nodes */

bool hf__redis_node_ready(const hf__redis_node *node) {
    return node->session != NULL && node->session->state == HF__SESSION_READY;
}

static void on_retry(uv_timer_t *timer) {
    hf__redis_node *node = hf__of(timer, hf__redis_node, retry);
    hf__scope *scope = node->redis->env.scope;

    hf__scope_enter(scope);
    hf__redis_node_want(node);
    hf__scope_leave(scope);
}

/* A pause of at most 25 ms, 50 ms and so on, at least half of that: those who lost the same server
 * must not all come back at once. */
static void try_later(hf__redis_node *node) {
    uint64_t high = node->tries > 6 ? PAUSE_MAX_MS : (uint64_t)PAUSE_MIN_MS << node->tries;

    if (high > PAUSE_MAX_MS) high = PAUSE_MAX_MS;
    node->tries++;
    uv_timer_start(&node->retry, on_retry, hf__random_between(high / 2, high), 0);
}

static void tell_down(const hf__redis_node *node, const hf_error *error) {
    const hf__redis_events *events = &node->redis->events;

    if (events->down != NULL && node->kind == HF__SESSION_COMMANDS)
        events->down(events->data, error);
}

void hf__redis_node_failed(hf__redis_node *node, const hf_error *error) {
    hf__redis *redis = node->redis;

    node->search = NULL;
    if (node->retired) return;
    try_later(node);
    tell_down(node, error);
    end_all(redis, &node->waiting, error);
}

void hf__redis_node_found(hf__redis_node *node, const hf__address *address) {
    node->search = NULL;
    if (node->retired) return;
    node->address = *address;
    node->session = hf__session_new(&node->redis->session_env, node->kind, address, node);
    if (node->session != NULL)
        hf__redis_hold(node->redis);
    else
        try_later(node); /* without memory now there may be some later */
}

void hf__redis_node_want(hf__redis_node *node) {
    hf__redis *redis = node->redis;

    if (node->session != NULL || node->search != NULL || node->retired) return;
    if (uv_is_active((uv_handle_t *)&node->retry)) {
        if (uv_timer_get_due_in(&node->retry) > 0) return;
        uv_timer_stop(&node->retry);
    }
    if (redis->config.kind == HF__REDIS_SENTINEL) {
        node->search = hf__sentinel_ask(node);
        if (node->search == NULL) try_later(node);
        return;
    }
    if (redis->cluster != NULL && node->kind == HF__SESSION_LISTENER &&
        !hf__cluster_any(redis->cluster, &node->address)) {
        try_later(node);
        return;
    }
    hf__address address = node->address;
    hf__redis_node_found(node, &address);
}

void hf__redis_node_send(hf__redis_node *node, hf__redis_call *call) {
    if (!hf__redis_node_ready(node)) {
        hf__list_push(&node->waiting, &call->node);
        hf__redis_node_want(node);
        return;
    }
    hf__list_push(&node->session->unsent, &call->node);
    hf__redis_flush_later(node->redis, node->session);
}

hf__redis_node *hf__redis_node_new(hf__redis *redis, hf__session_kind kind) {
    hf__redis_node *node = hf__zalloc(redis->env.allocator, sizeof *node);

    if (node == NULL) return NULL;
    node->redis = redis;
    node->kind = kind;
    hf__list_init(&node->waiting);
    uv_timer_init(redis->env.loop, &node->retry);
    uv_unref((uv_handle_t *)&node->retry);
    hf__redis_hold(redis);
    return node;
}

static void on_retry_closed(uv_handle_t *handle) {
    hf__redis_node *node = hf__of(handle, hf__redis_node, retry);
    hf__redis *redis = node->redis;

    hf__free(redis->env.allocator, node);
    hf__redis_let_go(redis);
}

void hf__redis_node_retire(hf__redis_node *node) {
    assert(hf__list_empty(&node->waiting) && !node->retired);
    node->retired = true;
    if (node->search != NULL) hf__sentinel_stop(node->search);
    if (node->session != NULL) {
        node->session->data = node->redis; /* which outlives the node */
        hf__session_close(node->session);
    }
    uv_close((uv_handle_t *)&node->retry, on_retry_closed);
}

/* ---------------------------------------------------------------- sessions */

/* A listener may still be with the master of before, where nobody publishes any more. */
static void move_listener(hf__redis *redis, const hf__redis_node *master) {
    hf__redis_node *listener = redis->listener;
    hf_error error;

    if (redis->config.kind != HF__REDIS_SENTINEL || listener == NULL ||
        !hf__redis_node_ready(listener) ||
        (listener->address.port == master->address.port &&
         strcmp(listener->address.host, master->address.host) == 0))
        return;
    hf__redis_unreachable(&error, listener->session->server.name, "it is not the master any more");
    hf__session_fail(listener->session, &error);
}

static void on_ready(hf__session *session) {
    hf__redis_node *node = session->data;
    hf__redis *redis = node->redis;
    hf__node *call;

    node->ready_ms = uv_now(redis->env.loop);
    while ((call = hf__list_pop(&node->waiting)) != NULL)
        hf__redis_node_send(node, hf__of(call, hf__redis_call, node));
    if (node->kind == HF__SESSION_LISTENER) {
        redis->events.listening(redis->events.data);
        return;
    }
    if (redis->events.connected != NULL)
        redis->events.connected(redis->events.data, &session->server);
    move_listener(redis, node);
    if (redis->cluster != NULL) hf__cluster_ready(redis->cluster);
}

static void on_answer(hf__session *session, hf__redis_call *call, const hf__reply *reply,
                      const hf_error *error) {
    hf__redis_node *node = session->data;
    hf__redis *redis = node->redis;
    bool demoted = reply != NULL && error != NULL && error->code == HF_EREADONLY;

    if (reply != NULL && error != NULL && redis->cluster != NULL &&
        hf__cluster_redirect(redis->cluster, node, call, reply->text))
        return;
    /* With `error` the reply is only its text. */
    hf__redis_end(redis, call, error == NULL ? reply : NULL, error);
    if (demoted && session->state == HF__SESSION_READY) hf__session_fail(session, error);
}

static void on_message(hf__session *session, hf_slice payload) {
    const hf__redis_node *node = session->data;

    node->redis->events.message(node->redis->events.data, payload);
}

static void on_down(hf__session *session, const hf_error *error) {
    hf__redis_node *node = session->data;
    hf__redis *redis = node->redis;
    bool was_ready = node->ready_ms != 0;

    if (was_ready && uv_now(redis->env.loop) - node->ready_ms >= STEADY_MS) node->tries = 0;
    node->ready_ms = 0;
    node->session = NULL;
    session->data = redis;
    /* What had no effect waits for the next session. */
    hf__list_append(&session->unsent, &node->waiting);
    hf__list_append(&node->waiting, &session->unsent);
    if (was_ready) {
        try_later(node);
        tell_down(node, error);
    } else {
        hf__redis_node_failed(node, error);
    }
    if (redis->cluster != NULL && node->kind == HF__SESSION_COMMANDS)
        hf__cluster_down(redis->cluster);
}

static void on_gone(void *data) {
    hf__redis_let_go(data);
}

/* ---------------------------------------------------------------- the interface */

hf_code hf__redis_new(const hf__store_env *env, const hf__redis_events *events, hf__redis **out,
                      hf_error *error) {
    hf__redis *redis = hf__zalloc(env->allocator, sizeof *redis);

    if (redis == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    redis->env = *env;
    redis->events = *events;
    hf__list_init(&redis->dirty);
    hf__list_init(&redis->refused);
    if (hf__redis_config_read(&redis->config, env, error) != HF_OK ||
        (redis->config.tls && hf__tls_context_new(&redis->config.tls_options, env->allocator,
                                                  &redis->session_env.tls, error) != HF_OK)) {
        hf__redis_free(redis);
        return error->code;
    }
    redis->session_env.store = &redis->env;
    redis->session_env.config = &redis->config;
    redis->session_env.refused_password = &redis->refused_password;
    redis->session_env.events = (hf__session_events){.ready = on_ready,
                                                     .answer = on_answer,
                                                     .message = on_message,
                                                     .down = on_down,
                                                     .gone = on_gone};
    redis->sentinel_env = redis->session_env;
    redis->sentinel_env.events = hf__sentinel_events;
    *out = redis;
    return HF_OK;
}

void hf__redis_free(hf__redis *redis) {
    const hf_allocator *allocator = redis->env.allocator;

    assert(redis->handles == 0);
    if (redis->cluster != NULL) hf__cluster_free(redis->cluster);
    if (redis->session_env.tls != NULL) hf__tls_context_free(redis->session_env.tls);
    hf__free(allocator, redis);
}

/* Handles are made with the first use. False when memory is out. */
static bool open_handles(hf__redis *redis) {
    if (!redis->opened) {
        redis->opened = true;
        uv_idle_init(redis->env.loop, &redis->idle);
        uv_unref((uv_handle_t *)&redis->idle);
        hf__redis_hold(redis);
    }
    if (redis->main != NULL || redis->cluster != NULL) return true;
    if (redis->config.kind == HF__REDIS_CLUSTER) {
        redis->cluster = hf__cluster_new(redis);
        if (redis->cluster == NULL) return false;
        hf__cluster_open(redis->cluster);
        return true;
    }
    redis->main = hf__redis_node_new(redis, HF__SESSION_COMMANDS);
    if (redis->main != NULL) redis->main->address = redis->config.hosts[0];
    return redis->main != NULL;
}

void hf__redis_send(hf__redis *redis, hf__redis_call *call) {
    assert(!redis->closing);
    hf__list_init(&call->node);
    call->redirects = 0;
    call->asking = false;
    call->sent = false;
    redis->n_calls++;
    if (!open_handles(redis) || redis->n_calls > HF__REDIS_CALLS_MAX) {
        hf__list_push(&redis->refused, &call->node);
        wake(redis);
    } else if (redis->cluster != NULL) {
        hf__cluster_send(redis->cluster, call);
    } else {
        hf__redis_node_send(redis->main, call);
    }
}

bool hf__redis_cancel(hf__redis *redis, hf__redis_call *call) {
    if (call->sent) return false;
    hf__list_remove(&call->node);
    redis->n_calls--;
    return true;
}

bool hf__redis_listen(hf__redis *redis, hf_slice channel) {
    assert(redis->listener == NULL && channel.len <= sizeof redis->channel);
    if (!open_handles(redis)) return false;
    memcpy(redis->channel, channel.data, channel.len);
    redis->session_env.channel = (hf_slice){redis->channel, channel.len};
    redis->listener = hf__redis_node_new(redis, HF__SESSION_LISTENER);
    if (redis->listener == NULL) return false;
    redis->listener->address = redis->config.hosts[0];
    hf__redis_node_want(redis->listener);
    return true;
}

bool hf__redis_hears(const hf__redis *redis) {
    return redis->listener != NULL && hf__redis_node_ready(redis->listener);
}

bool hf__redis_is_cluster(const hf__redis *redis) {
    return redis->config.kind == HF__REDIS_CLUSTER;
}

uint16_t hf__redis_servers(const hf__redis *redis) {
    return redis->cluster != NULL ? hf__cluster_servers(redis->cluster) : 1;
}

void hf__redis_hold(hf__redis *redis) {
    redis->handles++;
}

void hf__redis_let_go(hf__redis *redis) {
    assert(redis->handles > 0);
    if (--redis->handles == 0 && redis->closing) redis->closed(redis->closed_data);
}

static void on_idle_closed(uv_handle_t *handle) {
    hf__redis_let_go(hf__of(handle, hf__redis, idle));
}

void hf__redis_close(hf__redis *redis, void (*closed)(void *data), void *data) {
    assert(!redis->closing);
    /* What has no handle yet gets one, so that `closed` does not run within this call. */
    if (!redis->opened) {
        redis->opened = true;
        uv_idle_init(redis->env.loop, &redis->idle);
        hf__redis_hold(redis);
    }
    redis->closing = true;
    redis->closed = closed;
    redis->closed_data = data;
    if (redis->listener != NULL) hf__redis_node_retire(redis->listener);
    if (redis->main != NULL) hf__redis_node_retire(redis->main);
    if (redis->cluster != NULL) hf__cluster_retire(redis->cluster);
    assert(redis->n_calls == 0);
    uv_close((uv_handle_t *)&redis->idle, on_idle_closed);
}
