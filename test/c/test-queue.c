/* Who is next: rounds of compatible waiters, hand-over in one step, turns between processes, and
 * what a lock that is held costs. Two hosts on one file stand for two processes. */
#include "support-faulty.h"
#include "support-host.h"

#include "prim/client.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const urls[] = {"memory:", "sqlite:"};
#define EACH_STORE(i) for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)

/* A client of the store that counts what it is asked (see plan_count). */
static void counting_open(host *h) {
    hf_error error;
    hf__url url;
    const char *why;
    hf_client_options options = HF_CLIENT_DEFAULTS;
    plan_set(FAULT_NONE, HF_TAKE, 0, 0);
    host_open(h, "memory:");
    CHECK(hf__url_parse(&url, slice("memory:"), &h->engine->allocator, &why));
    hf_client_close(h->client, 0, NULL, NULL);
    CHECK_INT(hf__client_new(h->engine, faulty_vtable(), &url, &options, &h->client, &error),
              HF_OK);
}

/* From now on `the_plan.struck` counts the ops of `verb`. */
static void count(hf_verb verb) {
    plan_set(FAULT_NONE, verb, 1 << 20, 0);
}

static int counted(void) {
    return atomic_load(&the_plan.struck);
}

static void ask_with(host *h, held *l, const hf_slice *keys, size_t n, uint32_t limit,
                     uint64_t wait_ms) {
    hf_lock_options o = lock_options(keys, n);
    o.limit = limit;
    o.wait_ms = wait_ms;
    CHECK_INT(held_ask(h, l, &o), HF_OK);
}

static void ask(host *h, held *l, const char *key, uint32_t limit, uint64_t wait_ms) {
    hf_slice k = slice(key);
    ask_with(h, l, &k, 1, limit, wait_ms);
}

static void granted(host *h, held *l) {
    host_until(h, &l->answered, 1);
    CHECK_INT(l->code, HF_OK);
    CHECK(hf_lock_held(l->lock));
}

static void release(host *h, held *l) {
    CHECK_INT(held_release(l), HF_OK);
    host_until(h, &l->released, 1);
    CHECK(l->was_held);
    hf_lock_free(l->lock);
}

/* ---------------------------------------------------------------- a stranger on the same store */

typedef struct stranger {
    hf_op op;
    hf_slice key;
    hf_token token;
    int done;
} stranger;

static void on_stranger(hf_op *op) {
    ((stranger *)op->data)->done++;
}

static void strange(host *h, stranger *s, hf_verb verb, uint32_t limit) {
    hf_op_init(&s->op, verb, on_stranger, s);
    s->op.keys = &s->key;
    s->op.token = s->token;
    s->op.ttl_ms = 60000;
    s->op.limit = limit;
    s->done = 0;
    hf__client_submit(h->client, &s->op);
    host_until(h, &s->done, 1);
    CHECK(s->op.applied);
    hf_op_reset(&s->op);
}

static void stranger_takes(host *h, stranger *s, const char *key, uint32_t limit) {
    s->key = slice(key);
    CHECK(hf_token_random(&s->token));
    strange(h, s, HF_TAKE, limit);
}

/* ---------------------------------------------------------------- rounds */

TEST(as_many_as_fit_go_at_once) {
    EACH_STORE(i) {
        host h;
        held l[10];
        int got = 0;
        host_open(&h, urls[i]);
        for (int j = 0; j < 10; j++)
            ask(&h, &l[j], "k", 5, 0);
        for (int j = 0; j < 10; j++) {
            host_until(&h, &l[j].answered, 1);
            CHECK_INT(l[j].code, j < 5 ? HF_OK : HF_ETIMEDOUT);
            got += l[j].code == HF_OK;
        }
        CHECK_INT(got, 5);
        for (int j = 0; j < 10; j++)
            hf_lock_free(l[j].lock);
        host_close(&h);
    }
}

TEST(a_thousand_readers_do_not_wait_for_each_other) {
    EACH_STORE(i) {
        enum { N = 1000 };
        host h;
        held *l = calloc(N, sizeof(*l)), writer;
        if (l == NULL) abort();
        host_open(&h, urls[i]);
        for (int j = 0; j < N; j++)
            ask(&h, &l[j], "k", HF_SHARED, HF_FOREVER);
        ask(&h, &writer, "k", 1, HF_FOREVER);
        for (int j = 0; j < N; j++)
            granted(&h, &l[j]);
        CHECK_INT(writer.answered, 0);
        for (int j = 0; j < N; j++)
            hf_lock_free(l[j].lock);
        granted(&h, &writer);
        hf_lock_free(writer.lock);
        free(l);
        host_close(&h);
    }
}

TEST(nothing_is_asked_while_a_holder_here_excludes_it) {
    host h;
    held holder, l[50];
    counting_open(&h);
    ask(&h, &holder, "k", 1, 0);
    granted(&h, &holder);
    count(HF_TAKE);
    for (int j = 0; j < 50; j++)
        ask(&h, &l[j], "k", j % 2 ? 1 : HF_SHARED, HF_FOREVER);
    host_run_ms(&h, 50);
    CHECK_INT(counted(), 0);
    hf_lock_free(holder.lock);
    for (int j = 0; j < 50; j++) {
        granted(&h, &l[j]);
        CHECK_INT(counted(), j + 1);
        hf_lock_free(l[j].lock);
    }
    host_close(&h);
}

/* What is held elsewhere is asked for by one; once that one gets it, quickly by all. */
TEST(one_scouts_for_all) {
    enum { N = 1000 };
    host h;
    stranger s;
    held *l = calloc(N, sizeof(*l));
    if (l == NULL) abort();
    counting_open(&h);
    stranger_takes(&h, &s, "k", 1);
    ask(&h, &l[0], "k", HF_SHARED, HF_FOREVER);
    host_run_ms(&h, 20); /* it has been refused, and watches */
    count(HF_TAKE);
    for (int j = 1; j < N; j++)
        ask(&h, &l[j], "k", HF_SHARED, HF_FOREVER);
    host_run_ms(&h, 20);
    CHECK_INT(counted(), 0);
    strange(&h, &s, HF_DROP, 1);
    for (int j = 0; j < N; j++)
        granted(&h, &l[j]);
    CHECK_INT(counted(), N);
    for (int j = 0; j < N; j++)
        hf_lock_free(l[j].lock);
    free(l);
    host_close(&h);
}

/* Who waits for another key keeps nobody back, and takes nobody's wake-up either. */
TEST(a_hint_reaches_those_behind_one_who_waits_elsewhere) {
    host h;
    stranger s;
    held b, both, a;
    hf_slice keys[] = {slice("a"), slice("b")};
    counting_open(&h);
    ask(&h, &b, "b", 1, 0);
    granted(&h, &b);
    stranger_takes(&h, &s, "a", 1);
    ask_with(&h, &both, keys, 2, HF_SHARED, HF_FOREVER);
    count(HF_TAKE);
    ask(&h, &a, "a", HF_SHARED, HF_FOREVER);
    for (int i = 0; i < 10000 && counted() < 2; i++)
        host_run_ms(&h, 1); /* refused, and refused again now that it watches */
    CHECK_INT(counted(), 2);
    strange(&h, &s, HF_DROP, 1);
    granted(&h, &a); /* long before the stranger's time would be up */
    CHECK_INT(both.answered, 0);
    hf_lock_free(a.lock);
    hf_lock_free(b.lock);
    granted(&h, &both);
    hf_lock_free(both.lock);
    host_close(&h);
}

TEST(nobody_overtakes_a_ticket_for_several_keys) {
    EACH_STORE(i) {
        host h;
        held a, both, b, single;
        hf_slice keys[] = {slice("a"), slice("b")};
        host_open(&h, urls[i]);
        ask(&h, &a, "a", 1, 0);
        granted(&h, &a);
        ask_with(&h, &both, keys, 2, 1, HF_FOREVER);
        ask(&h, &b, "b", 1, HF_FOREVER); /* b is free, but promised */
        ask(&h, &single, "b", 1, 0);     /* nor does a single attempt overtake */
        host_until(&h, &single.answered, 1);
        CHECK_INT(single.code, HF_ETIMEDOUT);
        CHECK_INT(b.answered, 0);
        hf_lock_free(a.lock);
        granted(&h, &both);
        CHECK_INT(b.answered, 0);
        hf_lock_free(both.lock);
        granted(&h, &b);
        hf_lock_free(b.lock);
        hf_lock_free(single.lock);
        host_close(&h);
    }
}

TEST(the_least_limit_counts_also_after_its_holder_has_gone) {
    host h;
    held three[2], five, next;
    counting_open(&h);
    ask(&h, &five, "k", 5, 0);
    granted(&h, &five);
    ask(&h, &three[0], "k", 3, 0);
    granted(&h, &three[0]);
    ask(&h, &three[1], "k", 3, 0);
    granted(&h, &three[1]);
    count(HF_TAKE);
    ask(&h, &next, "k", 5, 0); /* three hold, and two of them allow no more */
    host_until(&h, &next.answered, 1);
    CHECK_INT(next.code, HF_ETIMEDOUT);
    CHECK_INT(counted(), 0);
    hf_lock_free(next.lock);
    release(&h, &three[0]);
    release(&h, &three[1]);
    for (int j = 0; j < 4; j++) {
        ask(&h, &next, "k", 5, 0);
        granted(&h, &next);
        if (j < 3) hf_lock_free(next.lock);
    }
    hf_lock_free(next.lock);
    hf_lock_free(five.lock);
    host_close(&h);
}

/* ---------------------------------------------------------------- handing over */

TEST(a_lock_is_handed_over_in_one_step) {
    EACH_STORE(i) {
        host h;
        held first, second;
        hf_slice ab[] = {slice("a"), slice("b")}, ba[] = {slice("b"), slice("a")};
        host_open(&h, urls[i]);
        ask_with(&h, &first, ab, 2, 1, 0);
        granted(&h, &first);
        ask_with(&h, &second, ba, 2, 1, HF_FOREVER);
        hf_token token = *hf_lock_token(first.lock);
        uint64_t fence = hf_lock_fence(first.lock);
        CHECK_INT(held_release(&first), HF_OK);
        CHECK(!hf_lock_held(first.lock));
        host_until(&h, &first.released, 1);
        CHECK(first.was_held);
        granted(&h, &second);
        CHECK(hf_lock_fence(second.lock) > fence);
        CHECK(memcmp(&token, hf_lock_token(second.lock), sizeof(token)) != 0);
        hf_lock_free(first.lock);
        release(&h, &second);
        host_close(&h);
    }
}

/* The next of `key` behind a holder: one round trip if it can take over, a drop besides if not. */
static int drops_of_a_release(const hf_slice *next_keys, size_t n, uint32_t next_limit) {
    host h;
    held first, second;
    hf_slice ab[] = {slice("a"), slice("b")};
    counting_open(&h);
    ask_with(&h, &first, ab, 2, 1, 0);
    granted(&h, &first);
    ask_with(&h, &second, next_keys, n, next_limit, HF_FOREVER);
    count(HF_DROP);
    CHECK_INT(held_release(&first), HF_OK);
    granted(&h, &second);
    host_until(&h, &first.released, 1);
    CHECK(first.was_held);
    int drops = counted();
    hf_lock_free(first.lock);
    hf_lock_free(second.lock);
    host_close(&h);
    return drops;
}

TEST(only_the_same_keys_are_handed_over) {
    hf_slice keys[] = {slice("b"), slice("a"), slice("c")};
    CHECK_INT(drops_of_a_release(keys, 2, 1), 0);
    CHECK_INT(drops_of_a_release(keys, 1, 1), 1);
    CHECK_INT(drops_of_a_release(keys, 3, 1), 1);
    CHECK_INT(drops_of_a_release(keys, 2, HF_SHARED), 1);
    CHECK_INT(drops_of_a_release(keys, 2, 2), 1);
}

/* One holds, one waits; the take that hands over meets `what`. */
static void hand_over_meeting(fault what, bool known, hf_code told) {
    host h;
    held first, second, third;
    counting_open(&h);
    ask(&h, &first, "k", 1, 0);
    granted(&h, &first);
    ask(&h, &second, "k", 1, HF_FOREVER);
    plan_set(what, HF_TAKE, 1, 100);
    CHECK_INT(held_release(&first), HF_OK);
    host_until(&h, &first.released, 1);
    CHECK_INT(first.release_code, told);
    if (known) CHECK(first.was_held);
    granted(&h, &second); /* long before what was lost could lapse */
    CHECK_INT(counted(), 1);
    hf_lock_free(first.lock);
    release(&h, &second);
    ask(&h, &third, "k", 1, 0); /* and nothing of either is left */
    granted(&h, &third);
    hf_lock_free(third.lock);
    host_close(&h);
}

TEST(a_hand_over_that_goes_wrong_leaves_nothing_behind) {
    hand_over_meeting(REFUSE, true, HF_OK); /* it is released like any other, and asked for anew */
    hand_over_meeting(LOSE_REQUEST, false, HF_EUNAVAIL);
    hand_over_meeting(LOSE_ANSWER, false, HF_EUNAVAIL);
    hand_over_meeting(DELAY_ANSWER, true, HF_OK);
}

TEST(a_hand_over_that_lands_late_is_undone) {
    host h;
    held first, second;
    counting_open(&h);
    ask(&h, &first, "k", 1, 0);
    granted(&h, &first);
    ask(&h, &second, "k", 1, HF_FOREVER);
    plan_set(DELAY_REQUEST, HF_TAKE, 1, 200);
    CHECK_INT(held_release(&first), HF_OK);
    granted(&h, &second);
    for (int i = 0; i < 30000 && atomic_load(&the_plan.ghosts) == 0; i++)
        host_run_ms(&h, 1);
    CHECK(hf_lock_held(second.lock));
    hf_lock_free(first.lock);
    release(&h, &second);
    host_close(&h);
}

TEST(what_is_not_held_any_more_is_not_handed_over) {
    host h;
    held first, second;
    stranger s;
    counting_open(&h);
    ask(&h, &first, "k", 1, 0);
    granted(&h, &first);
    ask(&h, &second, "k", 1, HF_FOREVER);
    s.key = slice("k");
    s.token = *hf_lock_token(first.lock);
    strange(&h, &s, HF_DROP, 1); /* behind its back */
    CHECK_INT(held_release(&first), HF_OK);
    host_until(&h, &first.released, 1);
    CHECK(!first.was_held);
    CHECK_INT(first.release_code, HF_OK);
    granted(&h, &second);
    hf_lock_free(first.lock);
    release(&h, &second);
    host_close(&h);
}

TEST(an_heir_that_gives_up_leaves_nothing_behind) {
    host h;
    held first, second, third;
    counting_open(&h);
    ask(&h, &first, "k", 1, 0);
    granted(&h, &first);
    ask(&h, &second, "k", 1, HF_FOREVER);
    ask(&h, &third, "k", 1, HF_FOREVER);
    plan_set(DELAY_ANSWER, HF_TAKE, 1, 100);
    CHECK_INT(held_release(&first), HF_OK);
    hf_lock_free(second.lock); /* while it is on its way */
    host_until(&h, &first.released, 1);
    CHECK(first.was_held);
    granted(&h, &third);
    hf_lock_free(first.lock);
    release(&h, &third);
    host_close(&h);
}

static void free_the_heir(void *data, hf_lock *lock, bool was_held, const hf_error *error) {
    held *heir = data;
    (void)lock;
    CHECK(was_held);
    CHECK(error == NULL);
    hf_lock_free(heir->lock);
    heir->released++;
}

TEST(a_release_that_is_told_may_end_the_heir) {
    static const fault faults[] = {FAULT_NONE, REFUSE, LOSE_ANSWER};
    for (size_t i = 0; i < 3; i++) {
        host h;
        held first, second, third;
        counting_open(&h);
        ask(&h, &first, "k", 1, 0);
        granted(&h, &first);
        ask(&h, &second, "k", 1, HF_FOREVER);
        ask(&h, &third, "k", 1, HF_FOREVER);
        plan_set(faults[i], HF_TAKE, 1, 0);
        CHECK_INT(
            hf_lock_release(first.lock, faults[i] == LOSE_ANSWER ? NULL : free_the_heir, &second),
            HF_OK);
        if (faults[i] == LOSE_ANSWER)
            hf_lock_free(second.lock);
        else
            host_until(&h, &second.released, 1);
        granted(&h, &third);
        hf_lock_free(first.lock);
        release(&h, &third);
        host_close(&h);
    }
}

TEST(the_end_of_the_process_drops_what_is_being_handed_over) {
    host h, other;
    held first, second, next;
    host_open(&h, "sqlite:");
    host_open(&other, "sqlite:");
    ask(&h, &first, "k", 1, 0);
    granted(&h, &first);
    ask(&h, &second, "k", 1, HF_FOREVER);
    CHECK_INT(held_release(&first), HF_OK);
    hf_engine_exit(h.engine, 500); /* the loop has not turned since */
    ask(&other, &next, "k", 1, 0);
    granted(&other, &next);
    hf_lock_free(next.lock);
    hf_lock_free(first.lock);
    hf_lock_free(second.lock);
    host_close(&other);
    host_close(&h);
}

/* ---------------------------------------------------------------- turns */

/* Callers of one host that take a key one after the other, for ever. Where there are two, there is
 * always somebody to hand it over to. */
typedef struct crowd {
    host h;
    held l[2];
    int callers;
    int takes;
    uint32_t limit;
} crowd;

static void crowd_turn(crowd *c) {
    for (int i = 0; i < c->callers; i++) {
        held *l = &c->l[i];
        if (l->lock != NULL && l->answered == 0) continue;
        if (l->lock != NULL) {
            CHECK_INT(l->code, HF_OK);
            c->takes++;
            hf_lock_free(l->lock);
        }
        ask(&c->h, l, "k", c->limit, HF_FOREVER);
    }
    uv_run(&c->h.loop, UV_RUN_NOWAIT);
}

static void crowd_open(crowd *c, int callers, uint32_t limit, const hf_client_options *options) {
    char url[4096];
    hf_error error;
    memset(c, 0, sizeof(*c));
    c->callers = callers;
    c->limit = limit;
    snprintf(url, sizeof(url), "sqlite:%s/holdfast.db", hf_test_folder());
    CHECK_INT(uv_loop_init(&c->h.loop), 0);
    CHECK_INT(hf_engine_open(&c->h.loop, NULL, &c->h.engine, &error), HF_OK);
    CHECK_INT(hf_client_open(c->h.engine, slice(url), options, &c->h.client, &error), HF_OK);
    while (c->takes < 2)
        crowd_turn(c);
}

static void crowd_close(crowd *c) {
    for (int i = 0; i < c->callers; i++)
        hf_lock_free(c->l[i].lock);
    host_close(&c->h);
}

TEST(others_get_their_turn) {
    /* handed over in one step; dropped and taken by the next; dropped, and taken by the same */
    static const struct {
        int callers;
        uint32_t limit;
    } cases[] = {{2, 1}, {2, 2}, {1, 1}};
    for (size_t each = 0; each < 3; each++) {
        crowd c;
        host other;
        held l;
        crowd_open(&c, cases[each].callers, cases[each].limit, NULL);
        host_open(&other, "sqlite:");
        ask(&other, &l, "k", 1, HF_FOREVER);
        for (int i = 0; i < 1000000 && l.answered == 0; i++) {
            crowd_turn(&c);
            uv_run(&other.loop, UV_RUN_NOWAIT);
        }
        granted(&other, &l);
        hf_lock_free(l.lock);
        crowd_close(&c);
        host_close(&other);
    }
}

/* Without a bound there is never a gap: what the test above shows is not luck. */
TEST(without_a_bound_they_would_not) {
    crowd c;
    host other;
    held l;
    hf_client_options endless = {.handoffs = HF_HANDOFFS_MAX, .handoff_ms = HF_FOREVER};
    crowd_open(&c, 2, 1, &endless);
    host_open(&other, "sqlite:");
    ask(&other, &l, "k", 1, HF_FOREVER);
    while (c.takes < 1000) {
        crowd_turn(&c);
        uv_run(&other.loop, UV_RUN_NOWAIT);
    }
    CHECK_INT(l.answered, 0);
    hf_lock_free(l.lock);
    crowd_close(&c);
    host_close(&other);
}

/* Nobody else waits: then there is nothing to yield to, and nothing is. */
TEST(a_turn_without_rivals_does_not_end) {
    host h;
    held l[40];
    hf_slice key = slice("k");
    counting_open(&h);
    for (int i = 0; i < 40; i++)
        ask_with(&h, &l[i], &key, 1, 1, HF_FOREVER);
    count(HF_DROP);
    for (int i = 0; i < 40; i++) {
        granted(&h, &l[i]);
        hf_lock_free(l[i].lock);
    }
    host_run_ms(&h, 20);
    CHECK_INT(counted(), 1); /* the last one's */
    host_close(&h);
}

/* ---------------------------------------------------------------- marks */

static _Atomic uint64_t boot_ns = UINT64_C(1000000000000);

static uint64_t read_boot_ns(void *data) {
    (void)data;
    return atomic_load(&boot_ns);
}

static uint64_t read_real_us(void *data) {
    (void)data;
    return UINT64_C(1700000000000000);
}

static const hf_clock the_clock = {
    .boot_ns = read_boot_ns, .real_us = read_real_us, .boot_id = "one boot"};

static void on_settled(hf_op *op) {
    ++*(int *)op->data;
}

/* Everything that is due has been asked of the store, and answered: ops end in order. */
static void settle(host *h) {
    hf_op op;
    hf_slice none = {"", 0};
    int done = 0;
    uv_run(&h->loop, UV_RUN_NOWAIT);
    uv_run(&h->loop, UV_RUN_NOWAIT);
    hf_op_init(&op, HF_GET, on_settled, &done);
    op.space = HF_VALUES;
    op.keys = &none;
    hf__client_submit(h->client, &op);
    host_until(h, &done, 1);
    hf_op_reset(&op);
}

TEST(a_writer_that_waits_renews_its_mark) {
    const hf_engine_options options = {.clock = &the_clock};
    host readers, writers;
    held reader, writer, next;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    o.ttl_ms = HF_TTL_MAX;
    o.limit = HF_SHARED;
    host_open_with(&readers, "sqlite:", &options);
    host_open_with(&writers, "sqlite:", &options);
    CHECK_INT(held_ask(&readers, &reader, &o), HF_OK);
    granted(&readers, &reader);
    ask(&writers, &writer, "k", 1, HF_FOREVER);
    for (int i = 0; i < 4; i++)
        settle(&writers); /* refused, watched, refused again: now its mark is there */
    for (int i = 0; i < 20; i++) {
        ask(&readers, &next, "k", HF_SHARED, 0);
        host_until(&readers, &next.answered, 1);
        CHECK_INT(next.code, HF_ETIMEDOUT);
        hf_lock_free(next.lock);
        atomic_fetch_add(&boot_ns, UINT64_C(500000000));
        settle(&writers);
    }
    CHECK_INT(writer.answered, 0);
    hf_lock_free(reader.lock);
    settle(&readers);
    granted(&writers, &writer);
    hf_lock_free(writer.lock);
    host_close(&readers);
    host_close(&writers);
}

/* ---------------------------------------------------------------- size */

static _Atomic size_t in_use;

static void *counting_resize(void *data, void *p, size_t size) {
    size_t *block = p == NULL ? NULL : (size_t *)p - 2;
    (void)data;
    if (block != NULL) atomic_fetch_sub(&in_use, block[0]);
    if (size == 0) {
        free(block);
        return NULL;
    }
    block = realloc(block, size + 2 * sizeof(size_t));
    if (block == NULL) abort();
    block[0] = size;
    atomic_fetch_add(&in_use, size);
    return block + 2;
}

TEST(a_lock_that_is_held_is_small) {
    enum { FIRST = 1000, N = 9000 };
    const hf_allocator allocator = {.resize = counting_resize};
    const hf_engine_options options = {.allocator = &allocator};
    host h;
    held *l = calloc(FIRST + N, sizeof(*l));
    size_t before = 0;
    if (l == NULL) abort();
    host_open_with(&h, "sqlite:", &options);
    for (int i = 0; i < FIRST + N; i++) {
        char key[16];
        snprintf(key, sizeof(key), "%08d", i);
        ask(&h, &l[i], key, 1, 0);
        granted(&h, &l[i]);
        if (i + 1 == FIRST) before = atomic_load(&in_use); /* what there is once is there now */
    }
    size_t each = (atomic_load(&in_use) - before) / N - strlen("12345678");
    printf("    %zu bytes for each lock, beside its key\n", each);
    CHECK(each <= 512);
    for (int i = 0; i < FIRST + N; i++)
        hf_lock_free(l[i].lock);
    free(l);
    host_close(&h);
}
