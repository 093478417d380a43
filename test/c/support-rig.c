#include "support-rig.h"

#include "harness.h"
#include "util/alloc.h"
#include "util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- out of memory */

void injector_arm(injector *i, long n) {
    atomic_store(&i->hit, false);
    atomic_store(&i->countdown, n);
}

bool injector_disarm(injector *i) {
    atomic_store(&i->countdown, 0);
    return atomic_exchange(&i->hit, false);
}

bool injector_strikes(injector *i) {
    long left = atomic_load(&i->countdown);

    while (left > 0 && !atomic_compare_exchange_weak(&i->countdown, &left, left - 1)) {
    }
    if (left != 1) return false;
    atomic_store(&i->hit, true);
    return true;
}

static void *world_resize(void *data, void *p, size_t size) {
    world *w = data;

    if (size == 0) {
        if (p != NULL) atomic_fetch_sub(&w->blocks, 1);
        free(p);
        return NULL;
    }
    if (w->starve != NULL && injector_strikes(w->starve)) return NULL;
    if (p == NULL) atomic_fetch_add(&w->blocks, 1);
    return realloc(p, size);
}

/* ---- the world */

static uint64_t read_boot_ns(void *data) {
    return atomic_load(&((world *)data)->boot_ns);
}

static uint64_t read_real_us(void *data) {
    return atomic_load(&((world *)data)->real_us);
}

#define FIRST_BOOT_NS (UINT64_C(1000000) * HF_NS_PER_MS)
#define FIRST_REAL_US UINT64_C(1800000000000000)

void world_open(world *w, const store_subject *subject) {
    const char *why = "";

    memset(w, 0, sizeof *w);
    w->subject = subject;
    w->boot_ns = FIRST_BOOT_NS;
    w->real_us = FIRST_REAL_US;
    snprintf(w->boot_id, sizeof w->boot_id, "boot-1");
    w->clock = (hf_clock){read_boot_ns, read_real_us, w->boot_id, w};
    w->allocator = (hf_allocator){world_resize, w};
    w->shared.allocator = &w->allocator;
    uv_mutex_init(&w->shared.lock);
    subject->fresh(w->text, sizeof w->text);
    world_set_clock(w);
    if (!hf__url_parse(&w->url, slice_of(w->text), &w->allocator, &why)) FAIL("%s", why);
}

void world_close(world *w) {
    if (w->shared.fini != NULL) w->shared.fini(&w->shared);
    uv_mutex_destroy(&w->shared.lock);
    hf__url_free(&w->url, &w->allocator);
    CHECK_INT(atomic_load(&w->blocks), 0);
}

void world_skip(world *w, const char *reason) {
    world_close(w);
    SKIP(reason);
}

bool world_can_pass(const world *w) {
    return w->subject->own_clock || w->subject->set_clock != NULL;
}

void world_set_clock(const world *w) {
    uint64_t passed_ns = atomic_load(&w->boot_ns) - FIRST_BOOT_NS;

    if (w->subject->set_clock != NULL) w->subject->set_clock(FIRST_REAL_US + passed_ns / 1000);
}

void world_pass(world *w, uint64_t ms) {
    if (!world_can_pass(w)) {
        uv_sleep((unsigned)ms);
        return;
    }
    atomic_fetch_add(&w->boot_ns, ms * HF_NS_PER_MS);
    atomic_fetch_add(&w->real_us, ms * 1000);
    world_set_clock(w);
}

void world_reboot(world *w) {
    int n = atoi(w->boot_id + 5);

    snprintf(w->boot_id, sizeof w->boot_id, "boot-%d", n + 1);
    w->boot_ns = UINT64_C(1000) * HF_NS_PER_MS;
    w->real_us += UINT64_C(60000000);
    if (w->shared.fini != NULL) w->shared.fini(&w->shared);
    w->shared.fini = NULL;
    w->shared.data = NULL;
}

/* ---- rigs */

static void enter(void *data) {
    ((rig *)data)->entered++;
}

static void leave(void *data) {
    rig *r = data;

    r->entered--;
    r->brackets++;
}

static void warn(void *data, const hf_error *error) {
    rig *r = data;

    r->warnings++;
    r->warning = *error;
}

static void nothing(uv_async_t *handle) {
    (void)handle;
}

static void give_up(uv_timer_t *timer) {
    (void)timer;
    FAIL("nothing has happened for half a minute");
    exit(1);
}

void rig_turn(rig *r) {
    uv_timer_t patience;

    uv_timer_init(&r->loop, &patience);
    uv_timer_start(&patience, give_up, 30000, 0);
    uv_run(&r->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&patience, NULL);
    /* Closing takes effect at the end of a turn; this one does not wait. */
    uv_run(&r->loop, UV_RUN_NOWAIT);
}

void rig_open_idle(rig *r, world *w, bool blocking) {
    hf_error error;
    long n = 0;

    memset(r, 0, sizeof *r);
    r->world = w;
    uv_loop_init(&r->loop);
    uv_async_init(&r->loop, &r->alive, nothing);
    r->scope = (hf__scope){enter, leave, r, 0};
    r->env = (hf__store_env){
        .loop = &r->loop,
        .scope = blocking ? NULL : &r->scope,
        .allocator = &w->allocator,
        .clock = &w->clock,
        .url = &w->url,
        .shared = &w->shared,
        .blocking = blocking,
        .warn = warn,
        .warn_data = r,
    };
    r->slot = calloc(1, sizeof *r->slot);
    do {
        if (w->starving) injector_arm(w->starve, ++n);
        r->store = hf__store_new(w->subject->vt, &r->env, &error);
        if (!w->starving || !injector_disarm(w->starve)) break;
        if (r->store != NULL) break;
        CHECK_INT(error.code, HF_ENOMEM);
        w->struck++;
    } while (r->store == NULL);
    if (r->store == NULL) FAIL("init: %s", error.message);
}

static void end_instance(rig *r) {
    slot s;

    memset(&s, 0, sizeof s);
    rig_submit(r, &s, &(ask){.verb = HF_CLOSE}, 1);
    CHECK_INT(s.ended, 0);
    RIG_UNTIL(r, s.ended > 0);
    CHECK_INT(s.op.error.code, HF_OK);
    hf__store_free(r->store);
    r->store = NULL;
}

static void end_loop(rig *r) {
    uv_close((uv_handle_t *)&r->alive, NULL);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&r->loop), 0);
    CHECK_INT(r->entered, 0);
    free(r->slot);
}

/* False when the open failed for want of memory, and there is no instance any more. */
static bool try_open(rig *r, bool must) {
    slot s;
    bool struck = false;

    memset(&s, 0, sizeof s);
    rig_submit(r, &s, &(ask){.verb = HF_OPEN}, 1);
    RIG_UNTIL(r, s.ended > 0);
    if (r->world->starving) struck = injector_disarm(r->world->starve);
    if (s.op.error.code == HF_OK) return true;
    if (must || !struck) FAIL("open: %s", s.op.error.message);
    CHECK_INT(s.op.error.code, HF_ENOMEM);
    end_instance(r);
    return false;
}

void rig_open(rig *r, world *w, bool blocking) {
    for (long n = 1;; n++) {
        rig_open_idle(r, w, blocking);
        if (w->starving) injector_arm(w->starve, n);
        if (try_open(r, !w->starving)) return;
        w->struck++;
        end_loop(r);
    }
}

void rig_close(rig *r) {
    slot_reset(r->slot);
    end_instance(r);
    end_loop(r);
}

/* ---- ops */

hf_token token_of(int n) {
    hf_token token = {{0}};

    if (n == 0) return token;
    token.bytes[0] = 0x70;
    for (int i = 0; i < 4; i++)
        token.bytes[12 + i] = (uint8_t)((unsigned)n >> (8 * (3 - i)));
    return token;
}

hf_slice slice_of(const char *text) {
    return (hf_slice){text, text == NULL ? 0 : strlen(text)};
}

static void on_done(hf_op *op) {
    slot *s = op->data;
    rig *r = s->rig;

    CHECK(op == &s->op);
    if (r->env.scope != NULL) CHECK_INT(r->entered, 1);
    s->ended++;
}

static uint32_t split(const char *words, hf_slice *keys) {
    uint32_t n = 0;

    while (*words != '\0' && n < HF_KEYS_MAX) {
        size_t len = strcspn(words, " ");
        keys[n++] = (hf_slice){words, len};
        words += len;
        words += strspn(words, " ");
    }
    return n;
}

static void fill_entry(hf_op *op, const ask *what) {
    op->condition = (uint8_t)what->condition;
    op->format = (uint8_t)what->format;
    op->if_version = what->version;
    op->lease_ms = what->lease;
    op->fence_key = slice_of(what->fence_key);
    op->fence_in = what->fence;
    op->delta = what->delta;
    op->min = what->min;
    op->max = what->max;
    op->initial = what->initial;
}

void slot_fill(slot *s, rig *r, const ask *what) {
    bool leases = what->space == HF_LEASES;
    hf_op *op = &s->op;

    hf_op_init(op, what->verb, on_done, s);
    s->rig = r;
    s->ended = 0;
    memset(&s->holder, 0, sizeof s->holder);
    op->space = (uint8_t)what->space;
    op->keys = s->keys;
    s->keys[0] = what->key;
    if (what->keys != NULL) op->n_keys = split(what->keys, s->keys);
    op->token = token_of(what->token);
    op->replace_token = token_of(what->replace);
    op->flags = what->flags;
    op->limit = what->limit;
    if (op->limit == 0) op->limit = what->verb == HF_TAKE ? 1 : 100;
    op->ttl_ms = what->ttl == 0 && leases ? 10000 : what->ttl;
    op->value = what->value != NULL ? slice_of(what->value) : what->bytes;
    op->note = slice_of(what->note);
    op->who = slice_of("4711@rig");
    op->holder = &s->holder;
    fill_entry(op, what);
}

void slot_reset(slot *s) {
    if (s->rig != NULL) hf_op_reset(&s->op);
}

void rig_submit(rig *r, slot *slots, const ask *asks, size_t n) {
    for (size_t i = 0; i < n; i++) {
        slot_fill(&slots[i], r, &asks[i]);
        if (i > 0) slots[i - 1].op.next = &slots[i].op;
    }
    hf__store_submit(r->store, &slots[0].op);
    for (size_t i = 0; i < n; i++)
        CHECK_INT(slots[i].ended, 0); /* never inside submit */
}

static void ask_once(rig *r, slot *s, const ask *what) {
    rig_submit(r, s, what, 1);
    RIG_UNTIL(r, s->ended > 0);
    CHECK_INT(s->ended, 1);
}

/* Who holds what under the keys of `what`. */
static void snapshot(rig *r, const ask *what, uint64_t *sum) {
    slot s;
    hf_slice keys[HF_KEYS_MAX];
    uint32_t n = split(what->keys, keys);

    *sum = 0;
    memset(&s, 0, sizeof s);
    for (uint32_t i = 0; i < n; i++) {
        ask_once(r, &s, &(ask){.verb = HF_LIST, .key = keys[i], .flags = HF_OP_EXACT});
        for (size_t row = 0; row < s.op.n_rows; row++) {
            const hf_holder *h = &s.op.rows[row].holder;
            *sum = *sum * 31 + h->fence + h->left_ms * 7 + h->limit + h->token.bytes[15];
        }
        slot_reset(&s);
    }
}

/* The op, with its first allocation failing, then its second, and so on until it gets through. A
 * failed one has changed nothing, so what comes through at last is what the test expects. */
static void ask_starving(rig *r, slot *s, const ask *what) {
    bool leases = what->space == HF_LEASES && what->keys != NULL && what->verb <= HF_DROP &&
                  (r->world->subject->vt->caps & HF_CAP_LIST) != 0;
    uint64_t before = 0;
    uint64_t after = 0;

    if (leases) snapshot(r, what, &before);
    for (long n = 1;; n++) {
        bool struck;

        injector_arm(r->world->starve, n);
        ask_once(r, s, what);
        struck = injector_disarm(r->world->starve);
        if (s->op.error.code != HF_ENOMEM) return;
        CHECK(struck);
        CHECK(!s->op.applied);
        atomic_fetch_add(&r->world->struck, 1);
        slot_reset(s);
        if (leases) snapshot(r, what, &after);
        CHECK_UINT(after, before);
    }
}

const hf_op *rig_ask(rig *r, const ask *what) {
    slot_reset(r->slot);
    if (r->world->starving)
        ask_starving(r, r->slot, what);
    else
        ask_once(r, r->slot, what);
    return &r->slot->op;
}

const hf_holder *rig_holder(const rig *r) {
    return &r->slot->holder;
}

bool out_is(const hf_op *op, const char *text) {
    return hf__slice_equal(op->out, slice_of(text));
}
