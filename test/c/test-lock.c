/* Locks by the public interface, on the memory and the SQLite store. */
#include "support-host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const urls[] = {"memory:", "sqlite:"};
#define EACH_STORE(i) for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)

static void block_ms(unsigned ms) {
    usleep(ms * 1000); /* the loop does not turn meanwhile: that is the point */
}

TEST(takes_holds_and_releases) {
    EACH_STORE(i) {
        host h;
        held l;
        host_open(&h, urls[i]);
        held_take(&h, &l, "a");
        CHECK(hf_lock_held(l.lock));
        CHECK(hf_lock_remaining_ms(l.lock) > 0);
        CHECK(hf_lock_remaining_ms(l.lock) <= 30000 - 300 - 2);
        uint64_t fence = hf_lock_fence(l.lock);
        CHECK(fence > 0);
        CHECK_INT(held_release(&l), HF_OK);
        CHECK(!hf_lock_held(l.lock)); /* at once */
        CHECK_UINT(hf_lock_remaining_ms(l.lock), 0);
        CHECK_INT(l.released, 0); /* but told later */
        CHECK_INT(held_release(&l), HF_ELOST);
        host_until(&h, &l.released, 1);
        CHECK(l.was_held);
        hf_lock_free(l.lock);
        held_take(&h, &l, "a");
        CHECK(hf_lock_fence(l.lock) > fence);
        hf_lock_free(l.lock); /* releases */
        host_close(&h);
    }
}

TEST(refuses_what_is_not_valid) {
    host h;
    held l;
    char note[HF_NOTE_MAX + 1] = {0};
    hf_slice keys[2] = {slice("a"), slice("a")};
    hf_slice empty = {"", 0}, nul = {"a\0b", 3}, longer = {note, HF_KEY_MAX + 1};
    host_open(&h, "memory:");
    hf_lock_options o = lock_options(keys, 2);
    CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    o = lock_options(keys, 0);
    CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    const hf_slice *bad[] = {&empty, &nul, &longer};
    for (int i = 0; i < 3; i++) {
        o = lock_options(bad[i], 1);
        CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    }
    o = lock_options(keys, 1);
    o.ttl_ms = HF_TTL_MIN - 1;
    CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    o.ttl_ms = HF_TTL_MAX + 1;
    CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    o = lock_options(keys, 1);
    o.note = (hf_slice){note, sizeof(note)};
    CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    o = lock_options(keys, 1);
    o.limit = 0;
    CHECK_INT(held_ask(&h, &l, &o), HF_EINVAL);
    host_close(&h);
}

TEST(a_second_waits_and_times_out) {
    EACH_STORE(i) {
        host h;
        held a, b;
        hf_slice key = slice("k");
        hf_lock_options o = lock_options(&key, 1);
        host_open(&h, urls[i]);
        held_take(&h, &a, "k");
        o.wait_ms = 60;
        CHECK_INT(held_ask(&h, &b, &o), HF_OK);
        hf_waiter waiter;
        CHECK_UINT(hf_lock_waiters(h.client, key, &waiter, 1), 1);
        CHECK_UINT(waiter.limit, 1);
        host_until(&h, &b.answered, 1);
        CHECK_INT(b.code, HF_ETIMEDOUT);
        CHECK(b.held_here);
        CHECK_UINT(hf_lock_waiters(h.client, key, &waiter, 1), 0);
        hf_lock_free(b.lock);
        o.wait_ms = 0;
        CHECK_INT(held_ask(&h, &b, &o), HF_OK);
        CHECK_INT(b.answered, 0);
        host_until(&h, &b.answered, 1);
        CHECK_INT(b.code, HF_ETIMEDOUT);
        hf_lock_free(b.lock);
        hf_lock_free(a.lock);
        host_close(&h);
    }
}

TEST(serves_a_thousand_in_order) {
    EACH_STORE(i) {
        enum { N = 1000 };
        host h;
        held first, *all = calloc(N, sizeof(*all));
        hf_slice key = slice("k");
        hf_lock_options o = lock_options(&key, 1);
        o.wait_ms = HF_FOREVER;
        srand(7);
        host_open(&h, urls[i]);
        held_take(&h, &first, "k");
        for (int j = 0; j < N; j++)
            CHECK_INT(held_ask(&h, &all[j], &o), HF_OK);
        bool cancelled[N] = {false};
        for (int left = N / 2; left > 0;) {
            int j = rand() % N;
            if (cancelled[j]) continue;
            cancelled[j] = true;
            hf_lock_cancel(all[j].lock);
            left--;
        }
        hf_lock_free(first.lock);
        int last = 0;
        for (int j = 0; j < N; j++) {
            host_until(&h, &all[j].answered, 1);
            if (cancelled[j]) {
                CHECK_INT(all[j].code, HF_ECANCELED);
            } else {
                CHECK_INT(all[j].code, HF_OK);
                CHECK(all[j].order > last);
                last = all[j].order;
            }
            hf_lock_free(all[j].lock);
        }
        /* nothing is held: one attempt succeeds once the last drop has been heard */
        held_take(&h, &first, "k");
        hf_lock_free(first.lock);
        free(all);
        host_close(&h);
    }
}

TEST(is_renewed_while_the_loop_is_blocked) {
    EACH_STORE(i) {
        host h;
        held l;
        hf_slice key = slice("k");
        hf_lock_options o = lock_options(&key, 1);
        o.ttl_ms = 200;
        host_open(&h, urls[i]);
        CHECK_INT(held_ask(&h, &l, &o), HF_OK);
        host_until(&h, &l.answered, 1);
        block_ms(1000);
        CHECK(hf_lock_held(l.lock));
        CHECK(hf_lock_remaining_ms(l.lock) > 0);
        host_run_ms(&h, 1000); /* and while it is idle */
        CHECK(hf_lock_held(l.lock));
        CHECK_INT(l.lost, 0);
        CHECK_INT(held_release(&l), HF_OK);
        host_until(&h, &l.released, 1);
        CHECK(l.was_held);
        hf_lock_free(l.lock);
        host_close(&h);
    }
}

TEST(ends_at_max_stall) {
    EACH_STORE(i) {
        host h;
        held l;
        hf_slice key = slice("k");
        hf_lock_options o = lock_options(&key, 1);
        o.ttl_ms = 300;
        o.max_stall_ms = 400;
        host_open(&h, urls[i]);
        CHECK_INT(held_ask(&h, &l, &o), HF_OK);
        host_until(&h, &l.answered, 1);
        host_run_ms(&h, 1000); /* an idle loop is no stall */
        CHECK(hf_lock_held(l.lock));
        block_ms(2000);
        CHECK(!hf_lock_held(l.lock)); /* before the loop turns */
        CHECK_UINT(hf_lock_remaining_ms(l.lock), 0);
        CHECK_INT(l.lost, 0);
        host_until(&h, &l.lost, 1);
        CHECK(strstr(l.why.message, "maxStall") != NULL);
        CHECK_INT(held_release(&l), HF_ELOST);
        held again;
        held_take(&h, &again, "k"); /* it was dropped */
        hf_lock_free(again.lock);
        hf_lock_free(l.lock);
        host_close(&h);
    }
}

TEST(ends_at_max_hold) {
    host h;
    held l;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    o.ttl_ms = 100;
    o.max_hold_ms = 500;
    host_open(&h, "memory:");
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    uint64_t from = hf_engine_now_ns(h.engine);
    host_until(&h, &l.lost, 1);
    CHECK((hf_engine_now_ns(h.engine) - from) / 1000000 >= 300);
    CHECK(strstr(l.why.message, "maxHold") != NULL);
    CHECK(!hf_lock_held(l.lock));
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(lapses_without_renewal) {
    host h;
    held l, next;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    o.ttl_ms = 150;
    o.renew = false;
    host_open(&h, "memory:");
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    o.ttl_ms = 30000;
    CHECK_INT(held_ask(&h, &next, &o), HF_OK);
    host_until(&h, &l.lost, 1);
    CHECK(!hf_lock_held(l.lock));
    host_until(&h, &next.answered, 1);
    CHECK_INT(next.code, HF_OK);
    CHECK_INT(next.lost, 0);
    hf_lock_free(l.lock);
    hf_lock_free(next.lock);
    host_close(&h);
}

TEST(extends) {
    EACH_STORE(i) {
        for (int renew = 0; renew < 2; renew++) {
            host h;
            held l;
            hf_slice key = slice("k");
            hf_lock_options o = lock_options(&key, 1);
            o.renew = renew == 1;
            host_open(&h, urls[i]);
            CHECK_INT(held_ask(&h, &l, &o), HF_OK);
            host_until(&h, &l.answered, 1);
            CHECK_INT(held_extend(&l, 100000), HF_OK);
            host_until(&h, &l.extended, 1);
            CHECK_INT(l.extend_code, HF_OK);
            CHECK(hf_lock_remaining_ms(l.lock) > 30000);
            CHECK_INT(held_extend(&l, 500), HF_OK); /* shorter too */
            CHECK_INT(held_extend(&l, 600), HF_OK);
            host_until(&h, &l.extended, 3);
            CHECK_INT(l.extend_code, HF_OK);
            CHECK(hf_lock_remaining_ms(l.lock) <= 600);
            CHECK_INT(held_extend(&l, 700), HF_OK);
            CHECK_INT(held_release(&l), HF_OK);
            host_until(&h, &l.extended, 4); /* answered all the same */
            host_until(&h, &l.released, 1);
            CHECK_INT(held_extend(&l, 700), HF_ELOST);
            hf_lock_free(l.lock);
            host_close(&h);
        }
    }
}

TEST(several_keys_go_all_or_none) {
    EACH_STORE(i) {
        host h;
        held ab, bc, c;
        hf_slice keys_ab[] = {slice("a"), slice("b")};
        hf_slice keys_bc[] = {slice("c"), slice("b")};
        hf_slice key_c = slice("c");
        host_open(&h, urls[i]);
        hf_lock_options o = lock_options(keys_ab, 2);
        CHECK_INT(held_ask(&h, &ab, &o), HF_OK);
        o = lock_options(keys_bc, 2);
        CHECK_INT(held_ask(&h, &bc, &o), HF_OK);
        o = lock_options(&key_c, 1);
        CHECK_INT(held_ask(&h, &c, &o), HF_OK);
        host_until(&h, &ab.answered, 1);
        host_run_ms(&h, 50);
        CHECK_INT(bc.answered, 0);
        CHECK_INT(c.answered, 0); /* behind bc at key c: no overtaking */
        hf_lock_free(ab.lock);
        host_until(&h, &bc.answered, 1);
        CHECK_INT(bc.code, HF_OK);
        CHECK_INT(c.answered, 0);
        hf_lock_free(bc.lock);
        host_until(&h, &c.answered, 1);
        CHECK_INT(c.code, HF_OK);
        hf_lock_free(c.lock);
        host_close(&h);
    }
}

TEST(shared_and_exclusive) {
    EACH_STORE(i) {
        host h;
        held r1, r2, w;
        hf_slice key = slice("k");
        hf_lock_options shared = lock_options(&key, 1), exclusive = shared;
        shared.limit = HF_SHARED;
        host_open(&h, urls[i]);
        CHECK_INT(held_ask(&h, &r1, &shared), HF_OK);
        CHECK_INT(held_ask(&h, &r2, &shared), HF_OK);
        host_until(&h, &r2.answered, 1);
        CHECK_INT(r1.code, HF_OK);
        CHECK_INT(r2.code, HF_OK);
        CHECK_INT(held_ask(&h, &w, &exclusive), HF_OK);
        hf_lock_free(r1.lock);
        host_run_ms(&h, 50);
        CHECK_INT(w.answered, 0);
        hf_lock_free(r2.lock);
        host_until(&h, &w.answered, 1);
        CHECK_INT(w.code, HF_OK);
        hf_lock_free(w.lock);
        host_close(&h);
    }
}

TEST(a_writer_that_gives_up_takes_its_mark_along) {
    host h, other;
    held reader, writer, next;
    hf_slice key = slice("k");
    hf_lock_options shared = lock_options(&key, 1), exclusive = shared;
    shared.limit = HF_SHARED;
    shared.wait_ms = 0;
    exclusive.wait_ms = HF_FOREVER;
    host_open(&h, "sqlite:");
    host_open(&other, "sqlite:");
    CHECK_INT(held_ask(&h, &reader, &shared), HF_OK);
    host_until(&h, &reader.answered, 1);
    CHECK_INT(held_ask(&other, &writer, &exclusive), HF_OK);
    /* The writer's mark keeps new readers out, as soon as it is there. */
    for (int i = 0; i < 10000; i++) {
        host_run_ms(&other, 1);
        CHECK_INT(held_ask(&h, &next, &shared), HF_OK);
        host_until(&h, &next.answered, 1);
        hf_lock_free(next.lock);
        if (next.code != HF_OK) break;
    }
    CHECK_INT(next.code, HF_ETIMEDOUT);
    hf_lock_cancel(writer.lock);
    host_until(&other, &writer.answered, 1);
    CHECK_INT(writer.code, HF_ECANCELED);
    hf_lock_free(writer.lock);
    host_close(&other); /* what it had on its way has landed */
    CHECK_INT(held_ask(&h, &next, &shared), HF_OK);
    host_until(&h, &next.answered, 1);
    CHECK_INT(next.code, HF_OK); /* and is gone with it, long before its time */
    hf_lock_free(next.lock);
    hf_lock_free(reader.lock);
    host_close(&h);
}

static void on_closed(void *data) {
    ++*(int *)data;
}

TEST(closing_lets_holders_finish) {
    EACH_STORE(i) {
        host h;
        held holder, waiter, late;
        int closed = 0;
        hf_slice key = slice("k");
        hf_lock_options o = lock_options(&key, 1);
        host_open(&h, urls[i]);
        held_take(&h, &holder, "k");
        CHECK_INT(held_ask(&h, &waiter, &o), HF_OK);
        hf_client_close(h.client, 60000, on_closed, &closed);
        CHECK_INT(held_ask(&h, &late, &o), HF_ECLOSED);
        host_until(&h, &waiter.answered, 1);
        CHECK_INT(waiter.code, HF_ECLOSED);
        CHECK(hf_lock_held(holder.lock));
        CHECK_INT(closed, 0);
        CHECK_INT(held_release(&holder), HF_OK);
        host_until(&h, &closed, 1);
        CHECK_INT(holder.released, 1);
        CHECK(holder.was_held);
        CHECK(!hf_lock_held(holder.lock));
        hf_lock_free(holder.lock);
        hf_lock_free(waiter.lock);
        host_close(&h);
    }
}

TEST(closing_releases_in_the_end) {
    EACH_STORE(i) {
        host h;
        held holder;
        int closed = 0;
        host_open(&h, urls[i]);
        held_take(&h, &holder, "k");
        hf_client_close(h.client, 30, on_closed, &closed);
        host_until(&h, &closed, 1);
        CHECK_INT(holder.lost, 1);
        CHECK(!hf_lock_held(holder.lock));
        hf_lock_free(holder.lock);
        host_close(&h);
    }
}

TEST(exit_drops_what_is_held) {
    host h, other;
    held a, b;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    host_open(&h, "sqlite:");
    o.renew = false;
    CHECK_INT(held_ask(&h, &b, &o), HF_OK);
    host_until(&h, &b.answered, 1);
    held_take(&h, &a, "other");
    hf_engine_exit(h.engine, 500);
    hf_engine_exit(h.engine, 500);
    CHECK(!hf_lock_held(a.lock));
    CHECK(!hf_lock_held(b.lock));
    host_open(&other, "sqlite:");
    held c;
    o.wait_ms = 0;
    CHECK_INT(held_ask(&other, &c, &o), HF_OK);
    host_until(&other, &c.answered, 1);
    CHECK_INT(c.code, HF_OK);
    hf_lock_free(c.lock);
    host_close(&other);
    hf_lock_free(a.lock);
    hf_lock_free(b.lock);
    host_close(&h);
}

TEST(a_loop_that_goes_on_after_exit_learns_of_it) {
    host h;
    held l;
    host_open(&h, "sqlite:");
    held_take(&h, &l, "a");
    hf_engine_exit(h.engine, 500);
    CHECK(!hf_lock_held(l.lock));
    host_until(&h, &l.lost, 1);
    CHECK_INT(held_release(&l), HF_ELOST);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(a_thousand_locks_come_and_go) {
    EACH_STORE(i) {
        enum { N = 1000 };
        host h;
        held *all = calloc(N, sizeof(*all));
        char key[32];
        host_open(&h, urls[i]);
        for (int j = 0; j < N; j++) {
            snprintf(key, sizeof(key), "key-%d", j);
            hf_slice k = slice(key);
            hf_lock_options o = lock_options(&k, 1);
            o.ttl_ms = 300;
            CHECK_INT(held_ask(&h, &all[j], &o), HF_OK);
        }
        for (int j = 0; j < N; j++)
            host_until(&h, &all[j].answered, 1);
        host_run_ms(&h, 600);
        for (int j = 0; j < N; j++)
            CHECK(hf_lock_held(all[j].lock));
        for (int j = 0; j < N; j++)
            hf_lock_free(all[j].lock);
        free(all);
        host_close(&h);
    }
}

/* A host that asks again and again from its answers. */
typedef struct stubborn {
    host *h;
    hf_lock *lock;
    int tries;
    int turns;
    bool over;
} stubborn;

static void on_refused(void *data, hf_lock *lock, const hf_lock_result *result) {
    stubborn *s = data;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    hf_error error;
    CHECK(result->error != NULL);
    hf_lock_free(lock);
    s->lock = NULL;
    o.wait_ms = 0;
    if (++s->tries < 1000 && s->turns == 0)
        CHECK_INT(hf_lock_acquire(s->h->client, &o, on_refused, NULL, s, &s->lock, &error), HF_OK);
    else
        s->over = true;
}

static void on_turn(uv_idle_t *idle) {
    ((stubborn *)idle->data)->turns++;
}

TEST(who_asks_again_from_an_answer_lets_the_loop_turn) {
    host h;
    held l;
    uv_idle_t idle;
    stubborn s = {.h = &h};
    host_open(&h, "memory:");
    held_take(&h, &l, "k");
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    hf_error error;
    o.wait_ms = 0;
    uv_idle_init(&h.loop, &idle);
    idle.data = &s;
    CHECK_INT(hf_lock_acquire(h.client, &o, on_refused, NULL, &s, &s.lock, &error), HF_OK);
    uv_idle_start(&idle, on_turn);
    s.turns = -1; /* the turn in which the first is answered */
    while (!s.over)
        uv_run(&h.loop, UV_RUN_NOWAIT);
    CHECK(s.tries < 1000);
    uv_close((uv_handle_t *)&idle, NULL);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(extensions_asked_for_before_the_exit_are_answered) {
    for (int round = 0; round < 20; round++) {
        host h;
        held l;
        host_open(&h, "memory:");
        held_take(&h, &l, "k");
        CHECK_INT(held_extend(&l, 50000), HF_OK);
        CHECK_INT(held_extend(&l, 60000), HF_OK);
        CHECK_INT(held_extend(&l, 70000), HF_OK);
        hf_engine_exit(h.engine, 500);
        host_until(&h, &l.lost, 1);
        hf_lock_free(l.lock);
        host_run_ms(&h, 5);
        CHECK_INT(l.extended, 3);
        host_close(&h);
    }
}

TEST(a_lease_cut_short_is_lost_in_time) {
    host h;
    held l;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    host_open(&h, "memory:");
    o.renew = false;
    o.ttl_ms = 3600000;
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    CHECK_INT(held_extend(&l, 200), HF_OK);
    host_until(&h, &l.extended, 1);
    host_until(&h, &l.lost, 1);
    hf_lock_free(l.lock);
    host_close(&h);
}

/* Asked at the end of a long stall, and slow itself, but less than its own limit. */
static void on_late_acquired(void *data, hf_lock *lock, const hf_lock_result *result) {
    CHECK(result->error == NULL);
    block_ms(60);
    CHECK(hf_lock_held(lock));
    ++*(int *)data;
}

static hf_lock *late;
static int late_answered;

static void on_block(uv_timer_t *timer) {
    host *h = timer->data;
    hf_error error;
    hf_slice key = slice("late");
    hf_lock_options o = lock_options(&key, 1);
    o.max_stall_ms = 400;
    block_ms(1500);
    CHECK_INT(hf_lock_acquire(h->client, &o, on_late_acquired, NULL, &late_answered, &late, &error),
              HF_OK);
}

TEST(a_stall_is_not_held_against_who_came_after_it) {
    host h;
    held l;
    uv_timer_t timer;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    host_open(&h, "memory:");
    o.max_stall_ms = 5000;
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    uv_timer_init(&h.loop, &timer);
    timer.data = &h;
    late_answered = 0;
    uv_timer_start(&timer, on_block, 100, 0);
    host_until(&h, &late_answered, 1);
    CHECK(hf_lock_held(late));
    CHECK(hf_lock_held(l.lock));
    uv_close((uv_handle_t *)&timer, NULL);
    hf_lock_free(late);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(exit_ends_what_is_on_its_way_to_the_store) {
    host h, other;
    held a, b;
    hf_slice key = slice("a");
    hf_lock_options o = lock_options(&key, 1);
    host_open(&h, "sqlite:");
    CHECK_INT(held_ask(&h, &a, &o), HF_OK);
    host_until(&h, &a.answered, 1);
    CHECK_INT(held_release(&a), HF_OK); /* the loop does not turn any more */
    hf_engine_exit(h.engine, 500);
    host_open(&other, "sqlite:");
    o.wait_ms = 0;
    CHECK_INT(held_ask(&other, &b, &o), HF_OK);
    host_until(&other, &b.answered, 1);
    CHECK_INT(b.code, HF_OK);
    hf_lock_free(b.lock);
    host_close(&other);
    host_until(&h, &a.released, 1);
    hf_lock_free(a.lock);
    host_close(&h);
}
