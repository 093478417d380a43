#include "prim/client.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define SWEEP_ROWS 512
#define SWEEP_MIN_MS 30000
#define SWEEP_MAX_MS 90000

/* ---------------------------------------------------------------- small things */

hf_code hf__check_key(hf_slice key, hf_error *error) {
    if (key.len == 0 || key.len > HF_KEY_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a key has 1 to %d bytes; this one has %zu",
                             HF_KEY_MAX, key.len);
    if (memchr(key.data, 0, key.len) != NULL)
        return hf__error_set(error, HF_EINVAL, 0, "a key cannot contain a NUL byte");
    return HF_OK;
}

hf_code hf__client_no_entries(const hf_client *client, hf_error *error) {
    const hf_store_vtable *vt = client->vt;
    return hf__error_set(error, HF_ENOTSUP, 0, "the %s store keeps no values and no records%s%s",
                         vt->name, vt->lacks != NULL ? ": " : "",
                         vt->lacks != NULL ? vt->lacks : "");
}

uint64_t hf__backoff_ms(uint32_t tries, uint64_t base_ms) {
    uint64_t high = tries > 10 ? 2000 : base_ms << tries;
    high = high > 2000 ? 2000 : high;
    return hf__random_between(high / 2, high);
}

hf_code hf__client_accepts(const hf_client *client, hf_error *error) {
    if (client->phase == HF__OPEN) return HF_OK;
    return hf__error_set(error, HF_ECLOSED, 0, NULL);
}

hf_code hf__client_need_keeper(hf_client *client, hf_error *error) {
    return hf__engine_need_keeper(client->engine, error);
}

/* ---------------------------------------------------------------- submitting */

static void sweep_later(hf_client *client, uint64_t ms) {
    if (client->phase == HF__OPEN)
        hf__client_timer(client, &client->sweep_timer, hf__add_ms(hf__client_now(client), ms));
}

/* Old rows go a few at a time, now and then, so that no request ever waits long behind it. */
static void on_swept(hf_op *op) {
    hf_client *client = op->data;
    bool more = op->error.code == HF_OK && op->swept >= SWEEP_ROWS;
    hf_op_reset(op);
    sweep_later(client, more ? 100 : hf__random_between(SWEEP_MIN_MS, SWEEP_MAX_MS));
    hf__client_unhold(client);
}

static void on_sweep_due(hf__timer *timer) {
    hf_client *client = hf__of(timer, hf_client, sweep_timer);
    hf_op_init(&client->sweep_op, HF_SWEEP, on_swept, client);
    client->sweep_op.limit = SWEEP_ROWS;
    hf__client_hold(client);
    hf__client_submit(client, &client->sweep_op);
}

static void on_opened(hf_op *op) {
    hf_client *client = op->data;
    hf_op_reset(op);
    hf__client_unhold(client);
}

void hf__client_submit(hf_client *client, hf_op *op) {
    if (!client->opened) {
        client->opened = true;
        hf_op_init(&client->open_op, HF_OPEN, on_opened, client);
        hf__client_hold(client);
        hf__store_submit(client->store, &client->open_op);
        if (client->vt->sweep != NULL)
            sweep_later(client, hf__random_between(SWEEP_MIN_MS, SWEEP_MAX_MS));
    }
    op->next = NULL;
    hf__store_submit(client->store, op);
}

/* ---------------------------------------------------------------- open */

static void on_warning(void *data, const hf_error *error) {
    hf_client *client = data;
    hf__engine_warn(client->engine, client, error);
}

static void on_node(void *data, const hf_node *node) {
    hf_client *client = data;
    hf_engine *engine = client->engine;
    hf_event event = {.kind = HF_EVENT_NODE, .client = client, .node = node};
    if (engine->event != NULL) engine->event(engine->event_data, &event);
}

static void on_link_warning(hf__link *link, const hf_error *error) {
    on_warning(hf__of(link, hf_client, link), error);
}

static void on_renewed(hf__link *link, const hf__lease *lease) {
    hf_client *client = hf__of(link, hf_client, link);
    hf_engine *engine = client->engine;
    hf_event event = {.kind = HF_EVENT_RENEWED, .client = client, .token = lease->token};
    if (engine->event != NULL) engine->event(engine->event_data, &event);
}

static void close_at_once(hf__member *member);
static void on_exit_of_process(hf__member *member);
static void on_close_timer(hf__timer *timer);
static void on_link_closed(hf__link *link);

static hf_code unknown(const hf_store_vtable *vt, const char *what, hf_slice name,
                       hf_error *error) {
    bool none = vt->params == NULL || vt->params[0] == '\0';
    return hf__error_set(error, HF_EINVAL, 0, "the %s store has no %s \"%.*s\"; it takes: %s",
                         vt->name, what, hf__shown(name), name.data, none ? "none" : vt->params);
}

/* A function in place of the setting: for who has the setting, and does not give it too. */
static hf_code check_password(const hf_store_vtable *vt, const hf_client_options *options,
                              hf_error *error) {
    static const hf_slice name = {"password", 8};
    if (!hf__store_takes(vt, name)) return unknown(vt, "setting", name, error);
    for (size_t i = 0; i < options->n_settings; i++) {
        if (hf__slice_equal(options->settings[i].name, name))
            return hf__error_set(error, HF_EINVAL, 0,
                                 "password is given as a setting and as a function: give one");
    }
    return HF_OK;
}

/* A parameter or setting that the store does not know is refused: nothing is accepted and
 * ignored. */
static hf_code check_params(const hf_store_vtable *vt, const hf__url *url,
                            const hf_client_options *options, hf_error *error) {
    for (size_t i = 0; i < url->n_params; i++) {
        if (!hf__store_takes(vt, url->params[i].name))
            return unknown(vt, "parameter", url->params[i].name, error);
    }
    for (size_t i = 0; i < options->n_settings; i++) {
        if (!hf__store_takes(vt, options->settings[i].name))
            return unknown(vt, "setting", options->settings[i].name, error);
    }
    return options->password != NULL ? check_password(vt, options, error) : HF_OK;
}

/* What the caller gave is copied. */
static hf_code take_options(hf_client *client, const hf_client_options *options, hf_error *error) {
    hf_engine *engine = client->engine;
    client->options = *options;
    client->options.settings = NULL;
    if (hf__settings_copy(&client->settings, options->settings, options->n_settings,
                          &engine->allocator, error) != HF_OK)
        return error->code;
    if (options->password == NULL) return HF_OK;
    return hf__credentials_new(options, &engine->allocator, &engine->clock, &engine->mailbox,
                               &client->credentials, error);
}

static void free_options(hf_client *client) {
    hf__settings_free(&client->settings, &client->engine->allocator);
    hf__credentials_free(client->credentials);
}

static void release_parts(hf_client *client) {
    const hf_allocator *allocator = &client->engine->allocator;
    if (client->store != NULL) hf__store_free(client->store);
    if (client->shared.fini != NULL) client->shared.fini(&client->shared);
    hf__attempts_free(client);
    hf__queues_close(client);
    hf__map_fini(&client->queues);
    hf__link_fini(&client->link);
    uv_mutex_destroy(&client->shared.lock);
    hf__url_free(&client->url, allocator);
    free_options(client);
    hf__free(allocator, client);
}

static void init_lists(hf_client *client) {
    hf__list_init(&client->waiting);
    hf__list_init(&client->running);
    hf__list_init(&client->requests);
    hf__list_init(&client->sent);
    hf__list_init(&client->undos);
    hf__list_init(&client->unclaiming);
    hf__map_init(&client->queues, &client->engine->allocator);
    client->sweep_timer.fire = on_sweep_due;
    client->close_timer.fire = on_close_timer;
    client->member.close = close_at_once;
    client->member.exit = on_exit_of_process;
}

static int init_link(hf_client *client) {
    hf_engine *engine = client->engine;
    client->shared.allocator = &engine->allocator;
    client->link = (hf__link){.vt = client->vt,
                              .engine = engine,
                              .closed = on_link_closed,
                              .warned = on_link_warning,
                              .renewed = on_renewed,
                              .renewals = &engine->renewals,
                              .env = {.allocator = &engine->allocator,
                                      .clock = &engine->clock,
                                      .url = &client->url,
                                      .settings = &client->settings,
                                      .credentials = client->credentials,
                                      .shared = &client->shared}};
    int rc = uv_mutex_init(&client->shared.lock);
    if (rc != 0) return rc;
    rc = hf__link_init(&client->link);
    if (rc != 0) uv_mutex_destroy(&client->shared.lock);
    return rc;
}

static hf_client *client_alloc(hf_engine *engine, const hf_store_vtable *vt, const hf__url *url,
                               const hf_client_options *options, hf_error *error) {
    if (check_params(vt, url, options, error) != HF_OK) return NULL;
    hf_client *client = hf__zalloc(&engine->allocator, sizeof(*client));
    if (client == NULL) {
        hf__error_set(error, HF_ENOMEM, 0, NULL);
        return NULL;
    }
    client->engine = engine;
    client->vt = vt;
    client->url = *url;
    if (take_options(client, options, error) == HF_OK) {
        init_lists(client);
        int rc = init_link(client);
        if (rc == 0) return client;
        hf__error_native(error, HF_EIO, 0, rc, "no mutex could be made");
    }
    free_options(client);
    hf__free(&engine->allocator, client);
    return NULL;
}

void hf__client_env(hf_client *client, hf__store_env *env) {
    *env = client->link.env;
    env->loop = client->engine->loop;
    env->mailbox = &client->engine->mailbox;
    env->scope = &client->engine->scope;
    env->warn = on_warning;
    env->node = on_node;
    env->warn_data = client;
}

hf_code hf__client_new(hf_engine *engine, const hf_store_vtable *vt, hf__url *url,
                       const hf_client_options *options, hf_client **out, hf_error *error) {
    hf__store_env env;
    hf_client *client = client_alloc(engine, vt, url, options, error);
    if (client == NULL) {
        hf__url_free(url, &engine->allocator);
        return error->code;
    }
    hf__client_env(client, &env);
    client->store = hf__store_new(vt, &env, error);
    if (client->store == NULL) {
        release_parts(client);
        return error->code;
    }
    hf__engine_add(engine, &client->member);
    *out = client;
    return HF_OK;
}

/* ---------------------------------------------------------------- close */

/* Closing goes in steps, each from a timer or an answer, so that no callback runs inside a call:
 *
 *   draining    waiters have ended; holders and what is under way may finish, until the time is up
 *   forcing     what is held is lost; its drops are under way
 *   unlinking   the keeper closes its instance
 *   closing     ours closes
 */
static void step(hf_client *client) {
    if (client->phase != HF__OPEN && !hf__timer_active(&client->close_timer))
        hf__client_timer(client, &client->close_timer, 0);
}

/* Undoing goes on for as long as there is time; it is nothing to wait for. */
static bool is_idle(const hf_client *client) {
    uint32_t undos = client->phase == HF__DRAINING ? client->n_undos : 0;
    return client->pending == undos && hf__list_empty(&client->running) &&
           hf__list_empty(&client->link.leases);
}

void hf__client_begin(hf_client *client) {
    client->pending++;
    hf__engine_ref(client->engine);
}

void hf__client_hold(hf_client *client) {
    client->pending++;
}

void hf__client_unhold(hf_client *client) {
    assert(client->pending > 0);
    client->pending--;
    if (client->phase != HF__OPEN && is_idle(client))
        hf__client_timer(client, &client->close_timer, 0);
}

void hf__client_end(hf_client *client) {
    hf__engine_unref(client->engine);
    hf__client_unhold(client);
}

static void stop_all(hf__node *list) {
    /* A stop may end others of the list too: begin again each time. */
    hf__node *node;
    while ((node = hf__list_pop(list)) != NULL) {
        hf__waiter *waiter = hf__of(node, hf__waiter, node);
        waiter->stop(waiter);
    }
}

static void lose_all(hf__node *leases) {
    hf__node *node;
    while ((node = hf__list_first(leases)) != NULL) {
        hf__lease *lease = hf__of(node, hf__lease, node);
        hf__lease_end(lease, HF__LOSS_CLOSED);
        lease->owner->lost(lease, HF__LOSS_CLOSED);
        assert(hf__list_first(leases) != node);
    }
}

static void on_store_closed(hf_op *op) {
    hf_client *client = op->data;
    hf_engine *engine = client->engine;
    void (*closed)(void *data) = client->closed;
    void *closed_data = client->closed_data;
    hf_op_reset(op);
    hf__timer_stop(&engine->timers, &client->close_timer);
    hf__timer_stop(&engine->timers, &client->sweep_timer);
    hf__engine_unref(engine);
    hf__engine_remove(engine, &client->member);
    release_parts(client);
    if (closed != NULL) closed(closed_data);
}

static void close_store(hf_client *client) {
    client->phase = HF__CLOSING;
    hf_op_init(&client->close_op, HF_CLOSE, on_store_closed, client);
    if (client->opened)
        hf__store_submit(client->store, &client->close_op);
    else
        on_store_closed(&client->close_op);
}

static void on_link_closed(hf__link *link) {
    close_store(hf__of(link, hf_client, link));
}

static void force(hf_client *client) {
    client->phase = HF__FORCING;
    atomic_store(&client->link.closing, true);
    stop_all(&client->requests);
    stop_all(&client->running);
    lose_all(&client->link.leases);
    hf__undo_stop_all(client);
    stop_all(&client->unclaiming);
}

static void on_close_timer(hf__timer *timer) {
    hf_client *client = hf__of(timer, hf_client, close_timer);
    uint64_t now = hf__client_now(client);
    if (client->phase == HF__DRAINING) {
        stop_all(&client->waiting);
        if (!is_idle(client) && now < client->close_until_ns) {
            hf__client_timer(client, timer, client->close_until_ns);
            return;
        }
        force(client);
    }
    if (client->phase != HF__FORCING || !is_idle(client)) return;
    client->phase = HF__UNLINKING;
    if (client->link.keeper != NULL)
        hf__keeper_close_link(client->link.keeper, &client->link);
    else
        close_store(client);
}

void hf_client_close(hf_client *client, uint64_t timeout_ms, void (*cb)(void *data), void *data) {
    uint64_t until = hf__add_ms(hf__client_now(client), timeout_ms);
    if (client->phase != HF__OPEN) {
        if (until < client->close_until_ns) {
            client->close_until_ns = until;
            if (client->phase == HF__DRAINING) hf__client_timer(client, &client->close_timer, 0);
        }
        return;
    }
    client->phase = HF__DRAINING;
    client->close_until_ns = until;
    client->closed = cb;
    client->closed_data = data;
    hf__timer_stop(&client->engine->timers, &client->sweep_timer);
    hf__engine_ref(client->engine);
    step(client);
}

static void close_at_once(hf__member *member) {
    hf_client_close(hf__of(member, hf_client, member), 0, NULL, NULL);
}

static void on_exit_of_process(hf__member *member) {
    hf_client *client = hf__of(member, hf_client, member);
    hf__engine_part(client->engine, &client->link);
    hf__attempts_exit(client);
}
