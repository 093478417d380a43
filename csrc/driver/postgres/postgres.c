#include "driver/postgres/postgres.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <stdio.h>

#define PAUSE_MIN_MS 25
#define PAUSE_MAX_MS 2000
#define STEADY_MS 1000 /* a session that lasted so long starts the pauses anew */

/* One connection, and what comes after it. */
typedef struct pg_link {
    hf__pg *pg;
    hf__pg_session_env env;
    hf__pg_session *session; /* NULL: none */
    hf__node waiting;        /* calls */
    uv_timer_t retry;
    uint32_t tries; /* that failed in a row */
    uint64_t ready_ms;
} pg_link;

struct hf__pg {
    hf__store_env env;
    hf__pg_events events;
    hf__pg_config config;
    uint64_t refused_password;
    pg_link statements;
    pg_link listener;
    char channel[64];
    uint32_t handles; /* of it and of all that it made, to be closed before it is gone */
    bool opened;      /* it has handles */
    bool deaf;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

static void let_go(hf__pg *pg) {
    assert(pg->handles > 0);
    if (--pg->handles == 0 && pg->closing) pg->closed(pg->closed_data);
}

/* ---------------------------------------------------------------- links */

static void want(pg_link *l);

static void on_retry(uv_timer_t *timer) {
    pg_link *l = hf__of(timer, pg_link, retry);

    want(l);
}

/* A pause of at most 25 ms, 50 ms and so on, at least half of that: those who lost the same server
 * must not all come back at once. */
static void try_later(pg_link *l) {
    uint64_t high = l->tries > 6 ? PAUSE_MAX_MS : (uint64_t)PAUSE_MIN_MS << l->tries;

    if (high > PAUSE_MAX_MS) high = PAUSE_MAX_MS;
    l->tries++;
    uv_timer_start(&l->retry, on_retry, hf__random_between(high / 2, high), 0);
}

static bool is_ready(const pg_link *l) {
    return l->session != NULL && l->session->state == HF__PG_READY;
}

static void end_waiting(pg_link *l, const hf_error *error) {
    hf__node batch;
    hf__node *node;

    /* Only those that are here now: `done` may send again. */
    hf__list_init(&batch);
    hf__list_append(&batch, &l->waiting);
    while ((node = hf__list_pop(&batch)) != NULL) {
        hf__pg_call *call = hf__of(node, hf__pg_call, node);
        call->done(call, NULL, error);
    }
}

static void want(pg_link *l) {
    if (l->session != NULL || l->pg->closing) return;
    if (uv_is_active((uv_handle_t *)&l->retry)) {
        if (uv_timer_get_due_in(&l->retry) > 0) return;
        uv_timer_stop(&l->retry);
    }
    l->session = hf__pg_session_new(&l->env, l);
    if (l->session != NULL)
        l->pg->handles++;
    else
        try_later(l); /* without memory now there may be some later */
}

static void on_ready(hf__pg_session *session) {
    pg_link *l = session->data;
    hf__pg *pg = l->pg;
    hf__node batch;
    hf__node *node;

    l->ready_ms = uv_now(pg->env.loop);
    if (l == &pg->listener) {
        pg->events.listening(pg->events.data);
        return;
    }
    pg->events.connected(pg->events.data, &session->server);
    hf__list_init(&batch);
    hf__list_append(&batch, &l->waiting);
    while ((node = hf__list_pop(&batch)) != NULL) {
        if (is_ready(l))
            hf__pg_session_send(l->session, hf__of(node, hf__pg_call, node));
        else
            hf__list_push(&l->waiting, node);
    }
}

static void on_notified(hf__pg_session *session, hf_slice payload) {
    const pg_link *l = session->data;

    l->pg->events.notified(l->pg->events.data, payload);
}

static void on_down(hf__pg_session *session, const hf_error *error) {
    pg_link *l = session->data;
    hf__pg *pg = l->pg;
    bool was_ready = l->ready_ms != 0;

    if (was_ready && uv_now(pg->env.loop) - l->ready_ms >= STEADY_MS) l->tries = 0;
    l->ready_ms = 0;
    l->session = NULL;
    session->data = l;
    if (l == &pg->listener && error->code == HF_ENOTSUP) {
        pg->deaf = true;
        return;
    }
    try_later(l);
    if (!was_ready) end_waiting(l, error);
}

static void on_gone(void *data) {
    let_go(((pg_link *)data)->pg);
}

static void init_link(hf__pg *pg, pg_link *l) {
    l->pg = pg;
    hf__list_init(&l->waiting);
    l->env = (hf__pg_session_env){
        .store = &pg->env,
        .config = &pg->config,
        .statement_ms = pg->config.command_ms,
        .refused_password = &pg->refused_password,
        .events = {.ready = on_ready, .notified = on_notified, .down = on_down, .gone = on_gone}};
}

/* ---------------------------------------------------------------- the interface */

hf_code hf__pg_new(const hf__store_env *env, const hf__pg_events *events, hf__pg **out,
                   hf_error *error) {
    hf__pg *pg = hf__zalloc(env->allocator, sizeof *pg);

    if (pg == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    pg->env = *env;
    pg->events = *events;
    if (hf__pg_config_read(&pg->config, &pg->env, error) != HF_OK) {
        hf__free(env->allocator, pg);
        return error->code;
    }
    init_link(pg, &pg->statements);
    init_link(pg, &pg->listener);
    *out = pg;
    return HF_OK;
}

void hf__pg_free(hf__pg *pg) {
    assert(pg->handles == 0);
    hf__pg_config_fini(&pg->config, pg->env.allocator);
    hf__free(pg->env.allocator, pg);
}

static void open_handles(hf__pg *pg) {
    pg_link *links[] = {&pg->statements, &pg->listener};

    if (pg->opened) return;
    pg->opened = true;
    for (size_t i = 0; i < 2; i++) {
        uv_timer_init(pg->env.loop, &links[i]->retry);
        uv_unref((uv_handle_t *)&links[i]->retry);
        pg->handles++;
    }
}

void hf__pg_send(hf__pg *pg, hf__pg_call *call) {
    pg_link *l = &pg->statements;

    assert(!pg->closing);
    assert(call->node.next == NULL || hf__list_empty(&call->node)); /* it is not under way */
    open_handles(pg);
    hf__list_init(&call->node);
    if (is_ready(l)) {
        hf__pg_session_send(l->session, call);
        return;
    }
    hf__list_push(&l->waiting, &call->node);
    want(l);
}

uint32_t hf__pg_command_ms(const hf__pg *pg) {
    return pg->config.command_ms;
}

bool hf__pg_listen(hf__pg *pg, const char *channel) {
    pg_link *l = &pg->listener;

    open_handles(pg);
    snprintf(pg->channel, sizeof pg->channel, "%s", channel);
    l->env.channel = pg->channel;
    want(l);
    return true;
}

bool hf__pg_hears(const hf__pg *pg) {
    return is_ready(&pg->listener);
}

bool hf__pg_is_deaf(const hf__pg *pg) {
    return pg->deaf;
}

static void on_retry_closed(uv_handle_t *handle) {
    let_go(hf__of(handle, pg_link, retry)->pg);
}

void hf__pg_close(hf__pg *pg, void (*closed)(void *data), void *data) {
    pg_link *links[] = {&pg->statements, &pg->listener};

    assert(!pg->closing);
    /* What has no handle yet gets one, so that `closed` does not run within this call. */
    open_handles(pg);
    pg->closing = true;
    pg->closed = closed;
    pg->closed_data = data;
    for (size_t i = 0; i < 2; i++) {
        assert(hf__list_empty(&links[i]->waiting));
        if (links[i]->session != NULL) hf__pg_session_close(links[i]->session);
        uv_close((uv_handle_t *)&links[i]->retry, on_retry_closed);
    }
}
