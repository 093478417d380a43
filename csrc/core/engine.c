#include "core/engine.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PARK_MS 10000 /* so long the end of the process waits for the keeper, where it is starved */

/* ---------------------------------------------------------------- open */

static void default_who(char *who, size_t size) {
    char host[64];
    if (gethostname(host, sizeof(host)) != 0) host[0] = '\0';
    host[sizeof(host) - 1] = '\0';
    snprintf(who, size, "%ld@%s", (long)getpid(), host);
}

static void fill(hf_engine *engine, uv_loop_t *loop, const hf_engine_options *o) {
    engine->loop = loop;
    const hf_clock *clock = o->clock != NULL ? o->clock : hf__clock_system();
    engine->clock = *clock;
    const char *boot = clock->boot_id != NULL ? clock->boot_id : hf__clock_system()->boot_id;
    snprintf(engine->boot_id, sizeof(engine->boot_id), "%s", boot);
    engine->clock.boot_id = engine->boot_id;
    if (o->who != NULL)
        snprintf(engine->who, sizeof(engine->who), "%s", o->who);
    else
        default_who(engine->who, sizeof(engine->who));
    engine->scope = (hf__scope){.enter = o->enter, .leave = o->leave, .data = o->data};
    engine->event = o->event;
    engine->event_data = o->data;
    atomic_init(&engine->renewals, o->renewals);
    hf__list_init(&engine->clients);
}

static void on_timers_gone(void *data) {
    hf_engine *engine = data;
    hf_allocator allocator = engine->allocator;
    hf__free(&allocator, engine);
}

hf_code hf_engine_open(struct uv_loop_s *loop, const hf_engine_options *options, hf_engine **out,
                       hf_error *error) {
    const hf_engine_options none = {0};
    const hf_engine_options *o = options != NULL ? options : &none;
    hf_allocator allocator = o->allocator != NULL ? *o->allocator : *hf__allocator_libc();
    hf_engine *engine = hf__zalloc(&allocator, sizeof(*engine));
    if (engine == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    engine->allocator = allocator;
    fill(engine, loop, o);
    int rc = hf__timers_init(&engine->timers, loop, &engine->clock, &engine->scope);
    if (rc == 0) {
        rc = hf__mailbox_init(&engine->mailbox, loop, &engine->scope, NULL);
        if (rc == 0) {
            *out = engine;
            return HF_OK;
        }
        hf__timers_close(&engine->timers, on_timers_gone, engine);
    } else {
        hf__free(&allocator, engine);
    }
    return hf__error_native(error, rc == UV_ENOMEM ? HF_ENOMEM : HF_EIO, 0, rc,
                            "the engine could not make its timer: %s", uv_strerror(rc));
}

/* ---------------------------------------------------------------- close */

static void on_handle_closed(void *data) {
    hf_engine *engine = data;
    if (--engine->open_handles > 0) return;
    hf_allocator allocator = engine->allocator;
    void (*closed)(void *data) = engine->closed;
    void *closed_data = engine->closed_data;
    hf__free(&allocator, engine);
    if (closed != NULL) closed(closed_data);
}

static void finish_close(hf_engine *engine) {
    if (engine->keeper != NULL) hf__keeper_stop(engine->keeper);
    engine->keeper = NULL;
    assert(engine->pending == 0);
    engine->open_handles = 2;
    hf__timers_close(&engine->timers, on_handle_closed, engine);
    hf__mailbox_close(&engine->mailbox, on_handle_closed, engine);
}

void hf_engine_close(hf_engine *engine, void (*cb)(void *data), void *data) {
    assert(!engine->closing);
    engine->closing = true;
    engine->closed = cb;
    engine->closed_data = data;
    if (hf__list_empty(&engine->clients)) {
        finish_close(engine);
        return;
    }
    hf__node *next;
    for (hf__node *node = engine->clients.next; node != &engine->clients; node = next) {
        next = node->next;
        hf__member *member = hf__of(node, hf__member, node);
        member->close(member);
    }
}

void hf__engine_add(hf_engine *engine, hf__member *member) {
    hf__list_push(&engine->clients, &member->node);
}

void hf__engine_remove(hf_engine *engine, hf__member *member) {
    hf__list_remove(&member->node);
    if (engine->closing && hf__list_empty(&engine->clients)) finish_close(engine);
}

/* ---------------------------------------------------------------- small things */

void hf__engine_ref(hf_engine *engine) {
    if (engine->pending++ == 0) uv_ref((uv_handle_t *)&engine->mailbox.async);
}

void hf__engine_unref(hf_engine *engine) {
    assert(engine->pending > 0);
    if (--engine->pending == 0) uv_unref((uv_handle_t *)&engine->mailbox.async);
}

void hf_engine_renewals(hf_engine *engine, bool on) {
    atomic_store(&engine->renewals, on);
}

uint64_t hf_engine_now_ns(const hf_engine *engine) {
    return hf__now_ns(&engine->clock);
}

void hf__engine_warn(hf_engine *engine, hf_client *client, const hf_error *error) {
    hf_event event = {.kind = HF_EVENT_WARNING, .client = client, .error = error};
    if (engine->event == NULL) return;
    hf__scope_enter(&engine->scope);
    engine->event(engine->event_data, &event);
    hf__scope_leave(&engine->scope);
}

/* ---------------------------------------------------------------- leases */

bool hf__engine_token(hf_engine *engine, hf_token *token) {
    const uint32_t room = sizeof engine->spare / sizeof engine->spare[0];
    do {
        if (engine->n_spare == 0) {
            if (!hf__random(engine->spare, sizeof engine->spare)) return false;
            engine->n_spare = room;
        }
        *token = engine->spare[--engine->n_spare];
    } while (hf__token_is_zero(token)); /* zero means none */
    return true;
}

hf_code hf__engine_need_keeper(hf_engine *engine, hf_error *error) {
    if (engine->keeper != NULL) return HF_OK;
    hf__keeper_env env = {
        .allocator = &engine->allocator, .clock = &engine->clock, .loop_mailbox = &engine->mailbox};
    return hf__keeper_start(&env, &engine->keeper, error);
}

/* The engine's own watch over a deadline: it needs no keeper, and tells the owner in the first
 * turn after a loss, whoever saw it first. */
static void on_deadline(hf__timer *timer) {
    hf__lease *lease = hf__of(timer, hf__lease, timer);
    hf_engine *engine = lease->link->engine;
    uint64_t now = hf_engine_now_ns(engine);
    if (hf__lease_live(lease, now)) {
        hf__timer_start(&engine->timers, timer, atomic_load(&lease->deadline_ns));
        return;
    }
    uint32_t none = HF__LOSS_NONE;
    uint32_t why = now >= lease->hold_end_ns ? HF__LOSS_HOLD : HF__LOSS_DEADLINE;
    atomic_compare_exchange_strong(&lease->loss, &none, why);
    lease->owner->lost(lease, (hf__loss)atomic_load(&lease->loss));
}

static void attach(hf_engine *engine, hf__lease *lease) {
    if (lease->link->keeper == NULL) lease->link->keeper = engine->keeper;
}

bool hf__engine_start(hf_engine *engine, hf__lease *lease, uint64_t ttl_ms, uint64_t sent_ns) {
    uint64_t deadline = hf__lease_bound(sent_ns, ttl_ms);
    deadline = deadline < lease->hold_end_ns ? deadline : lease->hold_end_ns;
    if (hf_engine_now_ns(engine) >= deadline) return false;
    lease->ttl_ms = ttl_ms;
    lease->timer.fire = on_deadline;
    atomic_store(&lease->deadline_ns, deadline);
    hf__timer_start(&engine->timers, &lease->timer, deadline);
    hf__list_push(&lease->link->leases, &lease->node);
    if (lease->renew) {
        attach(engine, lease);
        hf__keeper_join(engine->keeper, lease, ttl_ms, sent_ns);
    }
    return true;
}

bool hf__engine_end(hf_engine *engine, hf__lease *lease, bool drop) {
    bool live = hf__lease_live(lease, hf_engine_now_ns(engine));
    bool held = hf__lease_end(lease, HF__LOSS_ENDED) && live;
    hf__timer_stop(&engine->timers, &lease->timer);
    hf__list_remove(&lease->node);
    if (!lease->joined || lease->leaving) return held;
    lease->leaving = true;
    if (drop)
        hf__keeper_drop(engine->keeper, lease);
    else
        hf__keeper_leave(engine->keeper, lease);
    return held;
}

hf_code hf__engine_extend(hf_engine *engine, hf__lease *lease, hf__extend *extend,
                          hf_error *error) {
    if (lease->leaving) return hf__error_set(error, HF_ELOST, 0, NULL);
    hf_code code = hf__engine_need_keeper(engine, error);
    if (code != HF_OK) return code;
    attach(engine, lease);
    if (!lease->joined)
        hf__keeper_join(engine->keeper, lease, lease->ttl_ms, hf_engine_now_ns(engine));
    hf__keeper_extend(engine->keeper, lease, extend);
    return HF_OK;
}

void hf__engine_look(hf_engine *engine, hf__lease *lease) {
    hf__timer_start(&engine->timers, &lease->timer, atomic_load(&lease->deadline_ns));
}

/* ---------------------------------------------------------------- exit */

bool hf__engine_hand_over(hf_engine *engine, hf__lease *lease) {
    hf_error error;
    if (hf__engine_need_keeper(engine, &error) != HF_OK) return false;
    attach(engine, lease);
    if (!lease->joined)
        hf__keeper_join(engine->keeper, lease, lease->ttl_ms, hf_engine_now_ns(engine));
    lease->leaving = true;
    hf__keeper_drop(engine->keeper, lease);
    engine->exited = true;
    return true;
}

void hf__engine_part(hf_engine *engine, hf__link *link) {
    for (hf__node *node = link->leases.next; node != &link->leases; node = node->next) {
        hf__lease *lease = hf__of(node, hf__lease, node);
        if (hf__lease_end(lease, HF__LOSS_CLOSED) && !hf__engine_hand_over(engine, lease))
            hf__engine_look(engine, lease); /* its owner is told, should the loop go on */
    }
}

/* The loop goes on all the same. */
static void on_gone_on(hf__timer *timer) {
    hf_engine *engine = hf__of(timer, hf_engine, gone_on);
    hf__keeper_unpark(engine->keeper);
}

void hf_engine_exit(hf_engine *engine, uint64_t timeout_ms) {
    hf__node *next;
    if (engine->exited) return;
    for (hf__node *node = engine->clients.next; node != &engine->clients; node = next) {
        hf__member *member = hf__of(node, hf__member, node);
        next = node->next;
        member->exit(member);
    }
    if (engine->exited) hf__keeper_flush(engine->keeper, timeout_ms);
    if (engine->keeper == NULL) return;
    hf__keeper_park(engine->keeper, PARK_MS);
    engine->gone_on.fire = on_gone_on;
    hf__timer_start(&engine->timers, &engine->gone_on, hf_engine_now_ns(engine));
}
