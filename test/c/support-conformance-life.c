#include "conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void conformance_run(const store_subject *subject, void (*part)(world *w), injector *starve) {
    world w;

    world_open(&w, subject);
    w.starve = starve;
    w.starving = starve != NULL;
    part(&w);
    if (starve != NULL) CHECK(atomic_load(&w.struck) > 0);
    world_close(&w);
}

static void need(world *w, uint32_t caps) {
    if ((w->subject->vt->caps & caps) != caps) world_skip(w, "the store has no such capability");
}

static const hf_op *take(rig *r, const char *keys, int token) {
    return ASK(r, .verb = HF_TAKE, .keys = keys, .token = token);
}

static bool drop(rig *r, const char *keys, int token) {
    return ASK(r, .verb = HF_DROP, .keys = keys, .token = token)->applied;
}

/* ---- open and close */

void conformance_ops_before_open(world *w) {
    slot slots[4];
    const ask asks[] = {{.verb = HF_TAKE, .keys = "a", .token = 1},
                        {.verb = HF_TAKE, .keys = "a", .token = 2},
                        {.verb = HF_TAKE, .keys = "b", .token = 2}};
    rig r;

    need(w, HF_CAP_LEASES);
    rig_open_idle(&r, w, false);
    memset(slots, 0, sizeof slots);
    rig_submit(&r, slots, asks, 3);
    rig_submit(&r, &slots[3], &(ask){.verb = HF_OPEN}, 1);
    RIG_UNTIL(&r, slots[0].ended && slots[1].ended && slots[2].ended && slots[3].ended);
    CHECK_INT(slots[3].op.error.code, HF_OK);
    CHECK(slots[0].op.applied);
    CHECK(!slots[1].op.applied);
    CHECK(slots[2].op.applied);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(slots[i].ended, 1);
        slot_reset(&slots[i]);
    }
    rig_close(&r);
}

/* Closes the instance under ops that are on their way. */
static void close_under(rig *r, slot *slots, size_t n) {
    slot closing;

    memset(&closing, 0, sizeof closing);
    rig_submit(r, &closing, &(ask){.verb = HF_CLOSE}, 1);
    while (closing.ended == 0) {
        size_t ended = 0;
        rig_turn(r);
        for (size_t i = 0; i < n; i++)
            ended += slots[i].ended > 0;
        if (closing.ended > 0) CHECK_UINT(ended, n);
    }
    CHECK_INT(closing.op.error.code, HF_OK);
    hf__store_free(r->store);
}

/* What rig_close does for an instance that is gone already. */
static void close_loop(rig *r) {
    uv_close((uv_handle_t *)&r->alive, NULL);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&r->loop), 0);
    free(r->slot);
}

void conformance_close_ends_what_came_before(world *w) {
    enum { N = 20 };
    slot slots[N];
    ask asks[N];
    rig r;

    need(w, HF_CAP_LEASES);
    memset(slots, 0, sizeof slots);
    for (int i = 0; i < N; i++)
        asks[i] = (ask){.verb = HF_TAKE, .keys = "k", .token = 1 + i};
    rig_open(&r, w, false);
    rig_submit(&r, slots, asks, N);
    close_under(&r, slots, N);
    for (int i = 0; i < N; i++) {
        CHECK_INT(slots[i].ended, 1);
        CHECK_INT(slots[i].op.error.code, HF_OK);
        CHECK(slots[i].op.applied == (i == 0));
        slot_reset(&slots[i]);
    }
    close_loop(&r);
}

typedef struct late {
    slot slot;
    slot *closing;
    rig *rig;
} late;

static void submit_late(hf_op *op) {
    late *l = op->data;

    l->slot.ended++;
    if (l->slot.op.error.code == HF_ECLOSED || l->slot.ended > 1) return;
    /* Within a callback, close is on its way. */
    hf_op_reset(&l->slot.op);
    hf__store_submit(l->rig->store, &l->slot.op);
}

void conformance_ops_after_close(world *w) {
    slot closing;
    slot after[2];
    const ask asks[] = {{.verb = HF_TAKE, .keys = "a", .token = 1},
                        {.verb = HF_TAKE, .keys = "b", .token = 2}};
    late l = {.closing = &closing};
    rig r;

    need(w, HF_CAP_LEASES);
    memset(&closing, 0, sizeof closing);
    memset(after, 0, sizeof after);
    rig_open(&r, w, false);
    l.rig = &r;
    slot_fill(&l.slot, &r, &(ask){.verb = HF_TAKE, .keys = "k", .token = 3});
    l.slot.op.done = submit_late;
    l.slot.op.data = &l;
    hf__store_submit(r.store, &l.slot.op);
    rig_submit(&r, &closing, &(ask){.verb = HF_CLOSE}, 1);
    rig_submit(&r, after, asks, 2);
    while (closing.ended == 0) {
        rig_turn(&r);
        if (closing.ended > 0) CHECK(after[0].ended == 1 && after[1].ended == 1);
    }
    CHECK_INT(l.slot.ended, 2);
    CHECK_INT(l.slot.op.error.code, HF_ECLOSED);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(after[i].op.error.code, HF_ECLOSED);
        slot_reset(&after[i]);
    }
    hf__store_free(r.store);
    close_loop(&r);
}

void conformance_close_unopened(world *w) {
    slot waiting;
    rig r;

    /* Made, and given back. */
    rig_open_idle(&r, w, false);
    hf__store_free(r.store);
    close_loop(&r);

    need(w, HF_CAP_LEASES);
    memset(&waiting, 0, sizeof waiting);
    rig_open_idle(&r, w, false);
    rig_submit(&r, &waiting, &(ask){.verb = HF_TAKE, .keys = "k", .token = 1}, 1);
    close_under(&r, &waiting, 1);
    CHECK_INT(waiting.ended, 1);
    CHECK(waiting.op.error.code == HF_ECLOSED || waiting.op.applied);
    close_loop(&r);
}

/* ---- chains */

void conformance_chains(world *w) {
    const ask takes[] = {
        {.verb = HF_TAKE, .keys = "a", .token = 1},   {.verb = HF_TAKE, .keys = "a", .token = 2},
        {.verb = HF_TAKE, .keys = "b c", .token = 3}, {.verb = HF_TAKE, .keys = "a b", .token = 4},
        {.verb = HF_TAKE, .keys = "a c", .token = 1}, /* a mistake */
        {.verb = HF_TAKE, .keys = "d", .token = 5},
    };
    const ask puts[] = {
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "1", .condition = HF_IF_ABSENT},
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "2", .condition = HF_IF_ABSENT},
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "w", .value = "3", .condition = HF_IF_ABSENT},
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "4"},
    };
    static const bool taken[] = {true, false, true, false, false, true};
    static const bool landed[] = {true, false, true, true};
    slot slots[6];
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES);
    memset(slots, 0, sizeof slots);
    rig_open(&r, w, false);
    rig_submit(&r, slots, takes, 6);
    for (int i = 0; i < 6; i++) {
        RIG_UNTIL(&r, slots[i].ended > 0);
        CHECK_INT(slots[i].ended, 1);
        CHECK(slots[i].op.applied == taken[i]);
        CHECK_INT(slots[i].op.error.code, i == 4 ? HF_EINVAL : HF_OK);
        slot_reset(&slots[i]);
    }
    rig_submit(&r, slots, puts, 4);
    for (int i = 0; i < 4; i++) {
        RIG_UNTIL(&r, slots[i].ended > 0);
        CHECK(slots[i].op.applied == landed[i]);
        slot_reset(&slots[i]);
    }
    CHECK(out_is(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "v"), "4"));
    CHECK(out_is(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "w"), "3"));
    rig_close(&r);
}

void conformance_long_chains(world *w) {
    enum { N = 600 };
    char(*keys)[16];
    slot *slots;
    ask *asks;
    rig r;

    need(w, HF_CAP_LEASES);
    slots = calloc(3 * N, sizeof *slots);
    asks = calloc(3 * N, sizeof *asks);
    keys = calloc(N, sizeof *keys);
    rig_open(&r, w, false);
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        asks[i] = (ask){.verb = HF_TAKE, .keys = keys[i], .token = 1 + i};
        asks[N + i] = (ask){.verb = HF_KEEP, .keys = keys[i], .token = 1 + i};
        asks[2 * N + i] = (ask){.verb = HF_DROP, .keys = keys[i], .token = 1 + i};
    }
    /* What is asked for a token comes after its take. Two chains one after the other, without
     * waiting: the second finds what the first has done. */
    rig_submit(&r, slots, asks, N);
    for (int i = 0; i < N; i++)
        RIG_UNTIL(&r, slots[i].ended > 0);
    rig_submit(&r, slots + N, asks + N, N);
    rig_submit(&r, slots + 2 * N, asks + 2 * N, N);
    for (int i = 0; i < 3 * N; i++) {
        RIG_UNTIL(&r, slots[i].ended > 0);
        CHECK_INT(slots[i].ended, 1);
        CHECK(slots[i].op.applied);
        slot_reset(&slots[i]);
    }
    CHECK(take(&r, "k0", 9999)->applied);
    rig_close(&r);
    free(slots);
    free(asks);
    free(keys);
}

void conformance_cancel(world *w) {
    enum { N = 6 };
    char keys[N][16];
    slot slots[N];
    ask asks[N];
    rig r;

    need(w, HF_CAP_LEASES);
    memset(slots, 0, sizeof slots);
    rig_open(&r, w, false);
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        asks[i] = (ask){.verb = HF_TAKE, .keys = keys[i], .token = 1 + i};
    }
    rig_submit(&r, slots, asks, N);
    for (int i = N - 1; i > 0; i -= 2)
        r.store->vt->cancel(r.store, &slots[i].op);
    for (int i = 0; i < N; i++)
        CHECK_INT(slots[i].ended, 0);
    for (int i = 0; i < N; i++)
        RIG_UNTIL(&r, slots[i].ended > 0);
    /* Cancelled with no effect, or too late: one of the two, and only where it was asked for. */
    for (int i = 0; i < N; i++) {
        hf_op *op = &slots[i].op;
        CHECK_INT(slots[i].ended, 1);
        CHECK(op->applied || (i % 2 == 1 && op->error.code == HF_ECANCELED));
        CHECK(take(&r, keys[i], 100)->applied == !op->applied);
        slot_reset(&slots[i]);
    }
    rig_close(&r);
}

typedef struct relay {
    slot slot;
    rig *rig;
    int left;
} relay;

static void run_on(hf_op *op) {
    relay *leg = op->data;

    CHECK(op->applied);
    CHECK_INT(leg->rig->entered, 1);
    hf_op_reset(op);
    if (--leg->left > 0) hf__store_submit(leg->rig->store, op);
}

void conformance_done_may_submit(world *w) {
    relay legs[3];
    rig r;

    need(w, HF_CAP_ENTRIES);
    memset(legs, 0, sizeof legs);
    rig_open(&r, w, false);
    for (int i = 0; i < 3; i++) {
        relay *leg = &legs[i];
        leg->rig = &r;
        leg->left = 20;
        slot_fill(&leg->slot, &r,
                  &(ask){.verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1});
        leg->slot.op.done = run_on;
        leg->slot.op.data = leg;
        hf__store_submit(r.store, &leg->slot.op);
    }
    RIG_UNTIL(&r, legs[0].left == 0 && legs[1].left == 0 && legs[2].left == 0);
    CHECK(out_is(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "n"), "60"));
    rig_close(&r);
}

/* ---- watches */

typedef struct watcher {
    hf__watch watch;
    rig *rig;
    int fired;
    struct watcher *removes; /* unwatched by its fire */
} watcher;

static void on_fire(hf__watch *watch) {
    watcher *self = watch->data;

    if (self->rig->env.scope != NULL) CHECK_INT(self->rig->entered, 1);
    self->fired++;
    if (self->removes != NULL)
        self->rig->store->vt->unwatch(self->rig->store, &self->removes->watch);
    self->removes = NULL;
}

static void start(watcher *self, rig *r, hf_space space, const char *key) {
    memset(self, 0, sizeof *self);
    self->rig = r;
    self->watch =
        (hf__watch){.fire = on_fire, .data = self, .key = slice_of(key), .space = (uint8_t)space};
    r->store->vt->watch(r->store, &self->watch);
}

static void stop(watcher *self) {
    self->rig->store->vt->unwatch(self->rig->store, &self->watch);
}

static void need_watch(world *w) {
    if (w->subject->vt->watch == NULL) world_skip(w, "the store cannot tell of changes");
}

void conformance_watch_leases(world *w) {
    watcher seen;
    int before;
    rig r;
    rig other;

    need_watch(w);
    need(w, HF_CAP_LEASES | HF_CAP_SHARED);
    rig_open(&r, w, false);
    rig_open(&other, w, false);
    CHECK(take(&other, "k", 1)->applied);
    start(&seen, &r, HF_LEASES, "k");
    CHECK(!take(&r, "k", 2)->applied); /* armed */
    before = seen.fired;
    CHECK(drop(&other, "k", 1));
    RIG_UNTIL(&r, seen.fired > before);

    /* Again and again, and from the same instance too. */
    for (int i = 0; i < 3; i++) {
        CHECK(take(&r, "k", 3)->applied);
        CHECK(!take(&r, "k", 2)->applied);
        before = seen.fired;
        CHECK(drop(&r, "k", 3));
        RIG_UNTIL(&r, seen.fired > before);
    }

    /* One of several has gone; a mark has gone. */
    CHECK(ASK(&other, .verb = HF_TAKE, .keys = "k", .token = 4, .limit = HF_SHARED)->applied);
    CHECK(ASK(&other, .verb = HF_TAKE, .keys = "k", .token = 5, .limit = HF_SHARED)->applied);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "k", .token = 2, .limit = 1)->applied);
    before = seen.fired;
    CHECK(drop(&other, "k", 4));
    RIG_UNTIL(&r, seen.fired > before);
    CHECK(!ASK(&other, .verb = HF_TAKE, .keys = "k", .token = 6, .flags = HF_OP_INTENT)->applied);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "k", .token = 2, .limit = 1)->applied);
    before = seen.fired;
    CHECK(!drop(&other, "k", 6));
    RIG_UNTIL(&r, seen.fired > before);

    stop(&seen);
    before = seen.fired;
    CHECK(drop(&other, "k", 5));
    for (int i = 0; i < 5; i++)
        CHECK(take(&r, "other", 7)->applied);
    CHECK_INT(seen.fired, before);
    rig_close(&other);
    rig_close(&r);
}

static void check_change(watcher *seen, rig *other, const ask *what) {
    int before;

    CHECK_INT(ASK(seen->rig, .verb = HF_GET, .space = HF_RECORDS, .keys = "k")->error.code, 0);
    before = seen->fired;
    CHECK(rig_ask(other, what)->applied);
    RIG_UNTIL(seen->rig, seen->fired > before);
}

void conformance_watch_entries(world *w) {
    const ask claim = {.verb = HF_PUT,
                       .space = HF_RECORDS,
                       .keys = "k",
                       .value = "c",
                       .token = 1,
                       .lease = 1000,
                       .condition = HF_IF_CLAIMABLE};
    const ask finish = {.verb = HF_PUT,
                        .space = HF_RECORDS,
                        .keys = "k",
                        .value = "1",
                        .token = 1,
                        .format = HF_JSON,
                        .condition = HF_IF_TOKEN};
    const ask add = {.verb = HF_ADD, .space = HF_RECORDS, .keys = "k", .delta = 1};
    const ask del = {.verb = HF_DEL, .space = HF_RECORDS, .keys = "k"};
    watcher seen;
    rig r;
    rig other;

    need_watch(w);
    need(w, HF_CAP_ENTRIES);
    rig_open(&r, w, false);
    rig_open(&other, w, false);
    start(&seen, &r, HF_RECORDS, "k");
    for (int i = 0; i < 2; i++) {
        check_change(&seen, &other, &claim);
        check_change(&seen, &other, &finish);
        check_change(&seen, &other, &add);
        check_change(&seen, &other, &del);
    }
    check_change(&seen, &r, &claim);
    stop(&seen);
    rig_close(&other);
    rig_close(&r);
}

void conformance_watch_many(world *w) {
    enum { N = 150 };
    char(*keys)[16];
    watcher *watchers;
    watcher twin;
    rig r;

    need_watch(w);
    need(w, HF_CAP_LEASES);
    watchers = calloc(N, sizeof *watchers);
    keys = calloc(N, sizeof *keys);
    rig_open(&r, w, false);
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        CHECK(take(&r, keys[i], 1 + i)->applied);
        start(&watchers[i], &r, HF_LEASES, keys[i]);
    }
    start(&twin, &r, HF_LEASES, keys[0]); /* two on one key */
    for (int i = 0; i < N; i++)
        CHECK(!take(&r, keys[i], 9999)->applied);
    for (int i = 0; i < N; i++) {
        int before = watchers[i].fired;
        int before_twin = twin.fired;
        CHECK(drop(&r, keys[i], 1 + i));
        RIG_UNTIL(&r, watchers[i].fired > before);
        if (i == 0) RIG_UNTIL(&r, twin.fired > before_twin);
    }
    for (int i = 0; i < N; i++)
        stop(&watchers[i]);
    stop(&twin);
    rig_close(&r);
    free(watchers);
    free(keys);
}

void conformance_unwatch_within_fire(world *w) {
    watcher watchers[3];
    int before;
    rig r;

    need_watch(w);
    need(w, HF_CAP_LEASES);
    rig_open(&r, w, false);
    CHECK(take(&r, "k", 1)->applied);
    for (int i = 0; i < 3; i++)
        start(&watchers[i], &r, HF_LEASES, "k");
    CHECK(!take(&r, "k", 2)->applied);
    watchers[0].removes = &watchers[1];
    watchers[1].removes = &watchers[0];
    watchers[2].removes = &watchers[2];
    before = watchers[2].fired; /* for no reason */
    CHECK(drop(&r, "k", 1));
    RIG_UNTIL(&r, watchers[2].fired > before && watchers[0].fired + watchers[1].fired > 0);
    CHECK_INT(watchers[2].fired, before + 1);
    for (int i = 0; i < 3; i++) {
        if (watchers[i].watch.node.next != &watchers[i].watch.node) stop(&watchers[i]);
    }
    /* One that is armed when the store closes is simply gone. */
    start(&watchers[0], &r, HF_LEASES, "k");
    rig_close(&r);
}

/* ---- several at once */

void conformance_instances_share(world *w) {
    rig a;
    rig b;

    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES);
    rig_open(&a, w, false);
    rig_open(&b, w, true);
    CHECK(take(&a, "k", 1)->applied);
    CHECK(!take(&b, "k", 2)->applied);
    CHECK(ASK(&b, .verb = HF_KEEP, .keys = "k", .token = 1, .ttl = 20000)->applied);
    CHECK(drop(&b, "k", 1));
    CHECK(take(&a, "k", 2)->applied);
    CHECK(ASK(&a, .verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x")->applied);
    CHECK(out_is(ASK(&b, .verb = HF_GET, .space = HF_VALUES, .keys = "v"), "x"));
    /* What one leaves behind is there for the other. */
    rig_close(&a);
    CHECK(!take(&b, "k", 3)->applied);
    CHECK(drop(&b, "k", 2));
    rig_close(&b);
}

typedef struct contender {
    rig rig; /* opened and closed by the main thread: descriptors that pass from thread to thread
                through libuv are races to ThreadSanitizer, which does not see libuv close them */
    uv_thread_t thread;
    int tokens_from;
    int takes;
    atomic_int *inside;        /* exclusive holders at this instant */
    atomic_int *inside_shared; /* those who share */
    _Atomic uint64_t *fence;   /* the newest of an exclusive holder */
} contender;

static void be_exclusive(contender *c, rig *r, int token) {
    const hf_op *op = ASK(r, .verb = HF_TAKE, .keys = "k other", .token = token);
    uint64_t fence = op->fence;

    CHECK_INT(op->error.code, HF_OK);
    if (!op->applied) return;
    CHECK_INT(atomic_fetch_add(c->inside, 1), 0);
    CHECK_INT(atomic_load(c->inside_shared), 0);
    CHECK(atomic_exchange(c->fence, fence) < fence);
    ASK(r, .verb = HF_ADD, .space = HF_VALUES, .keys = "count", .delta = 1);
    CHECK(ASK(r, .verb = HF_KEEP, .keys = "k other", .token = token)->applied);
    CHECK_INT(atomic_fetch_sub(c->inside, 1), 1);
    CHECK(drop(r, "k other", token));
    c->takes++;
}

static void be_shared(contender *c, rig *r, int token) {
    const hf_op *op = ASK(r, .verb = HF_TAKE, .keys = "k", .token = token, .limit = HF_SHARED);

    CHECK_INT(op->error.code, HF_OK);
    if (!op->applied) return;
    atomic_fetch_add(c->inside_shared, 1);
    CHECK_INT(atomic_load(c->inside), 0);
    ASK(r, .verb = HF_SWEEP, .limit = 3);
    atomic_fetch_sub(c->inside_shared, 1);
    CHECK(drop(r, "k", token));
}

static void contend(void *data) {
    contender *c = data;

    for (int i = 0; c->takes < 60 && i < 100000; i++) {
        if (i % 4 == 3)
            be_shared(c, &c->rig, c->tokens_from + i);
        else
            be_exclusive(c, &c->rig, c->tokens_from + i);
    }
}

void conformance_two_threads(world *w) {
    atomic_int inside = 0;
    atomic_int inside_shared = 0;
    _Atomic uint64_t fence = 0;
    contender contenders[2];
    char text[16];
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES | HF_CAP_SHARED | HF_CAP_FENCES);
    for (int i = 0; i < 2; i++) {
        contenders[i] = (contender){.tokens_from = 1 + i * 1000000,
                                    .inside = &inside,
                                    .inside_shared = &inside_shared,
                                    .fence = &fence};
        rig_open(&contenders[i].rig, w, i == 1);
    }
    for (int i = 0; i < 2; i++)
        REQUIRE_INT(uv_thread_create(&contenders[i].thread, contend, &contenders[i]), 0);
    for (int i = 0; i < 2; i++)
        uv_thread_join(&contenders[i].thread);
    for (int i = 0; i < 2; i++)
        rig_close(&contenders[i].rig);
    rig_open(&r, w, false);
    snprintf(text, sizeof text, "%d", contenders[0].takes + contenders[1].takes);
    CHECK_INT(contenders[0].takes, 60);
    CHECK_INT(contenders[1].takes, 60);
    CHECK(out_is(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "count"), text));
    rig_close(&r);
}

/* ---- what outlives an instance */

void conformance_reopen(world *w) {
    uint64_t fence;
    uint64_t version;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES);
    rig_open(&r, w, false);
    fence = take(&r, "k", 1)->fence;
    version = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x")->version;
    rig_close(&r);
    rig_open(&r, w, false);
    CHECK(!take(&r, "k", 2)->applied);
    CHECK_UINT(rig_holder(&r)->fence, fence);
    CHECK(drop(&r, "k", 1));
    CHECK(take(&r, "k", 2)->fence > fence);
    CHECK_UINT(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "v")->entry.version, version);
    rig_close(&r);
}

void conformance_reboot(world *w) {
    const hf_op *op;
    uint64_t fence;
    rig r;

    if (!w->subject->own_clock) world_skip(w, "the store's clock cannot be moved");
    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES);
    rig_open(&r, w, false);
    fence = ASK(&r, .verb = HF_TAKE, .keys = "k", .token = 1, .ttl = HF_TTL_MAX)->fence;
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x");
    ASK(&r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "r", .value = "y", .token = 1,
        .lease = HF_TTL_MAX, .condition = HF_IF_CLAIMABLE);
    rig_close(&r);
    world_reboot(w);

    /* The machine's holders have died with it; what they wrote has not. */
    rig_open(&r, w, false);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "k", .token = 1)->applied);
    op = take(&r, "k", 2);
    CHECK(op->applied);
    CHECK(op->fence > fence);
    op = ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "v");
    CHECK(op->entry.present == w->subject->lasts);
    op = ASK(&r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "r", .value = "z", .token = 2,
             .lease = 1000, .condition = HF_IF_CLAIMABLE);
    CHECK(op->applied);
    CHECK_UINT(op->attempt, w->subject->lasts ? 2 : 1);
    CHECK(!ASK(&r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "r", .value = "late", .token = 1,
               .condition = HF_IF_TOKEN)
               ->applied);
    rig_close(&r);
}

void conformance_rewind(world *w) {
    const hf_op *op;
    uint64_t fence = 0;
    uint64_t version = 0;
    rig r;

    if (w->subject->save == NULL) world_skip(w, "the store has nothing that could be put back");
    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES);
    rig_open(&r, w, false);
    CHECK(take(&r, "k", 1)->applied);
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x");
    rig_close(&r);
    w->subject->save(w->text);
    rig_open(&r, w, false);
    for (int i = 0; i < 20; i++) {
        CHECK(drop(&r, "k", 1 + i));
        fence = take(&r, "k", 2 + i)->fence;
        version = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "y")->version;
    }
    rig_close(&r);

    /* An older copy, after a reboot: its counters are behind. A server's has the lease of before,
     * for its time. */
    w->subject->restore(w->text);
    if (w->subject->own_clock)
        world_reboot(w);
    else
        world_pass(w, 10001);
    rig_open(&r, w, false);
    CHECK(out_is(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "v"), "x"));
    op = take(&r, "k", 50);
    CHECK(op->applied);
    CHECK(op->fence > fence);
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "z");
    CHECK(op->version > version);
    rig_close(&r);
}
