/* Advisory locks on a real PostgreSQL server: order, sharing, giving up, loss, and that nothing is
 * left behind. */
#include "support-host.h"
#include "support-postgres.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- what happens to a lock */

typedef struct advisory {
    hf_pg_lock *lock;
    int answered;
    hf_code code;
    hf_error error;
    bool held_here;
    int lost;
    hf_error why;
    int released;
    bool was_held;
    hf_code release_code;
    int order;
    bool release_at_once; /* when it is held */
} advisory;

static int answers;

static void on_released(void *data, hf_pg_lock *lock, bool was_held, const hf_error *error) {
    advisory *l = data;
    CHECK(l->lock == lock);
    l->released++;
    l->was_held = was_held;
    l->release_code = error == NULL ? HF_OK : error->code;
}

static hf_code release(advisory *l) {
    return hf_pg_lock_release(l->lock, on_released, l);
}

static void on_acquired(void *data, hf_pg_lock *lock, const hf_pg_lock_result *result) {
    advisory *l = data;
    l->lock = lock;
    l->answered++;
    l->order = ++answers;
    l->code = result->error == NULL ? HF_OK : result->error->code;
    if (result->error != NULL) l->error = *result->error;
    l->held_here = result->held_here;
    if (l->code == HF_OK && l->release_at_once) CHECK_INT(release(l), HF_OK);
}

static void on_lost(void *data, hf_pg_lock *lock, const hf_error *why) {
    advisory *l = data;
    CHECK(!hf_pg_lock_held(lock));
    l->lost++;
    l->why = *why;
}

static hf_pg_id number(int64_t n) {
    return (hf_pg_id){.number = n};
}

static hf_pg_lock_options of(int64_t n) {
    return (hf_pg_lock_options){.id = number(n), .wait_ms = 10000};
}

static void ask(host *h, advisory *l, hf_pg_lock_options o) {
    hf_error error;
    memset(l, 0, sizeof *l);
    CHECK_INT(hf_pg_lock_acquire(h->client, &o, on_acquired, on_lost, l, &l->lock, &error), HF_OK);
    CHECK_INT(l->answered, 0);
}

static void answer(host *h, advisory *l, hf_code code) {
    host_until(h, &l->answered, 1);
    CHECK_INT(l->code, code);
    CHECK(hf_pg_lock_held(l->lock) == (code == HF_OK));
}

static void take(host *h, advisory *l, hf_pg_lock_options o) {
    ask(h, l, o);
    answer(h, l, HF_OK);
}

static void let_go(host *h, advisory *l) {
    CHECK_INT(release(l), HF_OK);
    CHECK(!hf_pg_lock_held(l->lock));
    host_until(h, &l->released, 1);
    CHECK(l->was_held);
    CHECK_INT(l->release_code, HF_OK);
    hf_pg_lock_free(l->lock);
}

/* ---------------------------------------------------------------- the server's view */

static int count(const char *what) {
    char sql[256];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND %s",
             what);
    return atoi(postgres_do(sql));
}

static int locks(void) {
    return count("granted");
}

static void until_count(host *h, const char *what, int n) {
    int now = count(what);
    for (int i = 0; i < 3000 && now != n; i++) {
        host_run_ms(h, 5);
        now = count(what);
    }
    CHECK_INT(now, n);
}

static int sessions(void) {
    return atoi(postgres_do("SELECT count(*) FROM pg_stat_activity WHERE application_name = "
                            "'holdfast'"));
}

/* Ends the sessions that hold advisory locks, or wait for them. */
static void terminate(const char *what) {
    char sql[256];
    snprintf(sql, sizeof sql,
             "SELECT count(pg_terminate_backend(pid)) FROM (SELECT DISTINCT pid FROM pg_locks "
             "WHERE locktype = 'advisory' AND %s) AS l",
             what);
    CHECK(atoi(postgres_do(sql)) > 0);
}

static int warnings;

static void on_event(void *data, const hf_event *event) {
    (void)data;
    if (event->kind == HF_EVENT_WARNING) warnings++;
}

static void open_client(host *h) {
    hf_engine_options options = {.event = on_event};
    char url[256];
    warnings = 0;
    postgres_fresh(url, sizeof url);
    host_open_with(h, url, &options);
}

static void check_clean(void) {
    for (int i = 0; i < 1000 && sessions() > 0; i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    CHECK_INT(sessions(), 0);
    CHECK_INT(locks(), 0);
}

static void close_client(host *h) {
    host_close(h);
    check_clean();
}

/* ---------------------------------------------------------------- taking and releasing */

TEST(a_lock_is_postgresqls_own) {
    host h;
    advisory a, b;
    hf_pg_lock_options pair = {.id = {.pair = true, .first = -7, .second = 8}, .wait_ms = 1000};
    open_client(&h);
    take(&h, &a, of(-5));
    take(&h, &b, pair);
    CHECK_INT(locks(), 2);
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(-5)"), "f");
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(-7, 8)"), "f");
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(7, 8)"), "t");
    CHECK_STR(postgres_do("SELECT pg_advisory_unlock(7, 8)"), "t");
    let_go(&h, &a);
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(-5)"), "t");
    CHECK_STR(postgres_do("SELECT pg_advisory_unlock(-5)"), "t");
    let_go(&h, &b);
    CHECK_INT(locks(), 0);
    CHECK_INT(sessions(), 1);
    close_client(&h);
}

TEST(the_ends_of_the_spaces) {
    static const int64_t numbers[] = {INT64_MIN, INT64_MAX, 0, -1, 4294967296, 2147483648};
    static const int32_t pairs[][2] = {{INT32_MIN, INT32_MAX}, {-1, -1}, {0, 0}, {0, INT32_MIN}};
    host h;
    advisory a;
    char sql[128];
    open_client(&h);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        take(&h, &a, of(numbers[i]));
        snprintf(sql, sizeof sql, "SELECT pg_try_advisory_lock('%" PRId64 "'::bigint)", numbers[i]);
        CHECK_STR(postgres_do(sql), "f");
        let_go(&h, &a);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        hf_pg_lock_options o = {.id = {.pair = true, .first = pairs[i][0], .second = pairs[i][1]},
                                .wait_ms = 1000,
                                .dedicated = i == 0};
        take(&h, &a, o);
        snprintf(sql, sizeof sql, "SELECT pg_try_advisory_lock('%d'::int, '%d'::int)", pairs[i][0],
                 pairs[i][1]);
        CHECK_STR(postgres_do(sql), "f");
        let_go(&h, &a);
    }
    close_client(&h);
}

TEST(callers_of_one_client_take_turns) {
    enum { N = 50 };
    host h;
    advisory first, l[N];
    open_client(&h);
    take(&h, &first, of(1));
    for (int i = 0; i < N; i++)
        ask(&h, &l[i], of(1));
    host_run_ms(&h, 30);
    for (int i = 0; i < N; i++)
        CHECK_INT(l[i].answered, 0);
    let_go(&h, &first);
    for (int i = 0; i < N; i++) {
        answer(&h, &l[i], HF_OK);
        CHECK_INT(locks(), 1);
        if (i + 1 < N) CHECK_INT(l[i + 1].answered, 0);
        if (i > 0) CHECK_INT(l[i].order, l[i - 1].order + 1);
        let_go(&h, &l[i]);
    }
    close_client(&h);
}

TEST(those_who_share_have_one_lock_at_the_server) {
    host h;
    advisory a, b, x, c;
    hf_pg_lock_options shared = of(2);
    shared.shared = true;
    open_client(&h);
    take(&h, &a, shared);
    take(&h, &b, shared);
    CHECK_INT(count("granted AND mode = 'ShareLock'"), 1);
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock_shared(2)"), "t");
    CHECK_STR(postgres_do("SELECT pg_advisory_unlock_shared(2)"), "t");
    ask(&h, &x, of(2));
    ask(&h, &c, shared);
    let_go(&h, &a);
    CHECK_INT(locks(), 1);
    CHECK_INT(x.answered + c.answered, 0);
    let_go(&h, &b);
    answer(&h, &x, HF_OK);
    CHECK_INT(count("granted AND mode = 'ExclusiveLock'"), 1);
    CHECK_INT(c.answered, 0);
    let_go(&h, &x);
    answer(&h, &c, HF_OK);
    CHECK_INT(count("granted AND mode = 'ShareLock'"), 1);
    let_go(&h, &c);
    close_client(&h);
}

TEST(who_waits_for_another_session_asks_again) {
    host h;
    advisory a;
    hf_pg_lock_options o = of(3);
    open_client(&h);
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(3)"), "t");
    o.wait_ms = 60;
    ask(&h, &a, o);
    answer(&h, &a, HF_ETIMEDOUT);
    CHECK(!a.held_here);
    hf_pg_lock_free(a.lock);
    ask(&h, &a, of(3));
    host_run_ms(&h, 100);
    CHECK_INT(a.answered, 0);
    CHECK_STR(postgres_do("SELECT pg_advisory_unlock(3)"), "t");
    answer(&h, &a, HF_OK);
    let_go(&h, &a);
    close_client(&h);
}

TEST(one_attempt) {
    host h;
    advisory a, b, c;
    hf_pg_lock_options try = {.id = number(4)};
    hf_pg_lock_options shared = try;
    shared.shared = true;
    open_client(&h);
    take(&h, &a, try);
    ask(&h, &b, try);
    answer(&h, &b, HF_ETIMEDOUT);
    CHECK(b.held_here);
    hf_pg_lock_free(b.lock);
    let_go(&h, &a);
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(4)"), "t");
    ask(&h, &b, try);
    answer(&h, &b, HF_ETIMEDOUT);
    CHECK(!b.held_here);
    hf_pg_lock_free(b.lock);
    /* Others here wait. */
    ask(&h, &a, of(4));
    ask(&h, &b, try);
    answer(&h, &b, HF_ETIMEDOUT);
    hf_pg_lock_free(b.lock);
    CHECK_STR(postgres_do("SELECT pg_advisory_unlock(4)"), "t");
    answer(&h, &a, HF_OK);
    let_go(&h, &a);
    /* Many in one turn: all who share, but one of those who do not. */
    ask(&h, &a, shared);
    ask(&h, &b, shared);
    ask(&h, &c, try);
    answer(&h, &a, HF_OK);
    answer(&h, &b, HF_OK);
    answer(&h, &c, HF_ETIMEDOUT);
    let_go(&h, &a);
    let_go(&h, &b);
    hf_pg_lock_free(c.lock);
    close_client(&h);
}

TEST(a_thousand_locks_have_one_session) {
    enum { N = 1000 };
    static advisory l[N];
    host h;
    open_client(&h);
    for (int i = 0; i < N; i++)
        ask(&h, &l[i], of(i));
    for (int i = 0; i < N; i++)
        answer(&h, &l[i], HF_OK);
    CHECK_INT(locks(), N);
    CHECK_INT(sessions(), 1);
    for (int i = 0; i < N; i++)
        CHECK_INT(release(&l[i]), HF_OK);
    for (int i = 0; i < N; i++) {
        host_until(&h, &l[i].released, 1);
        CHECK(l[i].was_held);
        hf_pg_lock_free(l[i].lock);
    }
    CHECK_INT(locks(), 0);
    close_client(&h);
}

TEST(waiters_given_up_at_random_leave_nothing) {
    enum { N = 1000 };
    static advisory l[N];
    host h;
    unsigned seed = (unsigned)time(NULL);
    int n_granted = 0;
    printf("        seed %u\n", seed);
    srand(seed);
    open_client(&h);
    for (int i = 0; i < N; i++) {
        hf_pg_lock_options o = of(rand() % 20);
        o.shared = rand() % 2 == 0;
        ask(&h, &l[i], o);
        l[i].release_at_once = true;
    }
    for (int i = 0; i < N; i++) {
        int k = rand() % N;
        if (l[k].lock == NULL) continue;
        if (rand() % 3 == 0) {
            hf_pg_lock_free(l[k].lock);
            l[k].lock = NULL;
        } else {
            hf_pg_lock_cancel(l[k].lock);
        }
        if (i % 50 == 0) uv_run(&h.loop, UV_RUN_NOWAIT);
    }
    for (int i = 0; i < N; i++) {
        if (l[i].lock == NULL) continue;
        host_until(&h, &l[i].answered, 1);
        CHECK(l[i].code == HF_OK || l[i].code == HF_ECANCELED);
        if (l[i].code != HF_OK) continue;
        n_granted++;
        host_until(&h, &l[i].released, 1);
        CHECK(l[i].was_held);
    }
    CHECK(n_granted > 0);
    for (int i = 0; i < N; i++) {
        CHECK(l[i].answered <= 1);
        if (l[i].lock != NULL) hf_pg_lock_free(l[i].lock);
    }
    until_count(&h, "true", 0);
    close_client(&h);
}

TEST(a_grant_for_nobody_is_unlocked_at_once) {
    host h;
    advisory a, b;
    open_client(&h);
    take(&h, &a, of(1));
    let_go(&h, &a);
    for (;;) {
        ask(&h, &a, of(6));
        uv_run(&h.loop, UV_RUN_NOWAIT); /* it is on its way */
        if (a.answered == 0) break;
        let_go(&h, &a); /* it has been there and back already */
    }
    hf_pg_lock_cancel(a.lock);
    answer(&h, &a, HF_ECANCELED);
    take(&h, &b, of(7)); /* the server has come past it */
    until_count(&h, "objid = 6", 0);
    let_go(&h, &b);
    hf_pg_lock_free(a.lock);
    close_client(&h);
}

TEST(a_lock_that_is_held_and_freed_is_released) {
    host h;
    advisory a;
    open_client(&h);
    take(&h, &a, of(7));
    hf_pg_lock_free(a.lock);
    until_count(&h, "true", 0);
    close_client(&h);
}

/* ---------------------------------------------------------------- losses */

TEST(the_end_of_the_session_is_the_end_of_its_locks) {
    host h;
    advisory a, b, w;
    open_client(&h);
    take(&h, &a, of(1));
    take(&h, &b, of(2));
    ask(&h, &w, of(1));
    terminate("granted");
    host_until(&h, &a.lost, 1);
    CHECK_INT(b.lost, 1); /* in the same turn */
    CHECK_INT(a.why.code, HF_ELOST);
    CHECK_STR(a.why.state, "57P01");
    CHECK(strstr(a.why.message, "the advisory lock 1 was lost") != NULL);
    CHECK(strstr(a.why.message, "terminating connection") != NULL);
    CHECK_INT(release(&a), HF_ELOST);
    /* Who waits goes on, on a new one. */
    answer(&h, &w, HF_OK);
    CHECK_INT(w.lost, 0);
    let_go(&h, &w);
    hf_pg_lock_free(a.lock);
    hf_pg_lock_free(b.lock);
    close_client(&h);
}

TEST(a_server_that_is_away_is_waited_for) {
    host h;
    advisory a, t;
    hf_pg_lock_options try = {.id = number(2)};
    open_client(&h);
    take(&h, &a, of(1));
    postgres_restart(true);
    host_until(&h, &a.lost, 1);
    hf_pg_lock_free(a.lock);
    take(&h, &a, of(1));
    take(&h, &t, try);
    let_go(&h, &a);
    let_go(&h, &t);
    close_client(&h);
}

TEST(nobody_there) {
    host h;
    advisory a, d;
    hf_pg_lock_options o = of(1);
    hf_pg_lock_options try = {.id = number(2)};
    o.wait_ms = 100;
    host_open(&h, "postgres://postgres@127.0.0.1:1/postgres");
    ask(&h, &a, o);
    answer(&h, &a, HF_EUNAVAIL);
    CHECK((a.error.flags & HF_RETRYABLE) != 0);
    hf_pg_lock_free(a.lock);
    ask(&h, &a, try);
    answer(&h, &a, HF_EUNAVAIL);
    hf_pg_lock_free(a.lock);
    o.dedicated = try.dedicated = true;
    ask(&h, &d, o);
    answer(&h, &d, HF_EUNAVAIL);
    hf_pg_lock_free(d.lock);
    ask(&h, &d, try);
    answer(&h, &d, HF_EUNAVAIL);
    hf_pg_lock_free(d.lock);
    host_close(&h);
}

static uint64_t skew_ns;

static uint64_t skewed_ns(void *data) {
    struct timespec now;
    (void)data;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec + skew_ns;
}

static uint64_t real_us(void *data) {
    (void)data;
    return (uint64_t)time(NULL) * 1000000;
}

static void open_skewed(host *h) {
    static const hf_clock clock = {.boot_ns = skewed_ns, .real_us = real_us};
    hf_engine_options options = {.clock = &clock};
    char url[256];
    skew_ns = 0;
    postgres_fresh(url, sizeof url);
    host_open_with(h, url, &options);
}

TEST(a_lock_ends_when_the_server_might_let_go) {
    host h;
    advisory a, d;
    hf_pg_lock_options own = of(2);
    own.dedicated = true;
    open_skewed(&h);
    take(&h, &a, of(1));
    take(&h, &d, own);
    skew_ns = UINT64_C(7900000000);
    CHECK(hf_pg_lock_held(a.lock));
    CHECK(hf_pg_lock_held(d.lock));
    host_run_ms(&h, 50); /* it has beaten */
    skew_ns += UINT64_C(5000000000);
    CHECK(hf_pg_lock_held(a.lock));
    skew_ns += UINT64_C(3001000000);
    CHECK(!hf_pg_lock_held(a.lock));
    CHECK(!hf_pg_lock_held(d.lock));
    CHECK_INT(release(&a), HF_ELOST);
    skew_ns -= UINT64_C(3001000000);
    CHECK(!hf_pg_lock_held(a.lock)); /* once lost, it stays so */
    CHECK_INT(a.lost + d.lost, 0);
    host_until(&h, &a.lost, 1);
    host_until(&h, &d.lost, 1);
    CHECK(strstr(a.why.message, "8000 ms") != NULL);
    until_count(&h, "true", 0);
    hf_pg_lock_free(a.lock);
    hf_pg_lock_free(d.lock);
    close_client(&h);
}

TEST(an_answer_that_has_come_counts_before_it_is_read) {
    host h;
    advisory a, b;
    open_skewed(&h);
    take(&h, &a, of(1));
    skew_ns = UINT64_C(6000000000);
    ask(&h, &b, of(2));
    uv_run(&h.loop, UV_RUN_NOWAIT); /* sent */
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    skew_ns = UINT64_C(13000000000);
    CHECK(hf_pg_lock_held(a.lock));
    answer(&h, &b, HF_OK);
    CHECK_INT(a.lost, 0);
    skew_ns = UINT64_C(22000000000);
    CHECK(!hf_pg_lock_held(b.lock));
    host_until(&h, &a.lost, 1);
    hf_pg_lock_free(a.lock);
    hf_pg_lock_free(b.lock);
    close_client(&h);
}

TEST(held_locks_are_beaten_for) {
    host h;
    advisory a;
    open_skewed(&h);
    take(&h, &a, of(1));
    for (int i = 0; i < 20; i++) {
        skew_ns += UINT64_C(2500000000);
        host_run_ms(&h, 20);
        CHECK(hf_pg_lock_held(a.lock));
    }
    CHECK_INT(a.lost, 0);
    let_go(&h, &a);
    skew_ns += UINT64_C(60000000000); /* idle: nothing to end */
    host_run_ms(&h, 20);
    take(&h, &a, of(1));
    let_go(&h, &a);
    CHECK_INT(sessions(), 1);
    close_client(&h);
}

/* A function of the server's own gives way to another of its name, for sessions that begin after
 * this; and back. */
static void put_in_place(const char *name, const char *body) {
    char sql[512];
    (void)postgres_do("SET allow_system_table_mods = on");
    snprintf(sql, sizeof sql, "ALTER FUNCTION pg_catalog.%s(bigint) RENAME TO %s_real", name, name);
    (void)postgres_do(sql);
    snprintf(sql, sizeof sql,
             "CREATE FUNCTION pg_catalog.%s(bigint) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN %s "
             "END'",
             name, body);
    (void)postgres_do(sql);
}

static void put_back(const char *name) {
    char sql[256];
    snprintf(sql, sizeof sql, "DROP FUNCTION pg_catalog.%s(bigint)", name);
    (void)postgres_do(sql);
    snprintf(sql, sizeof sql, "ALTER FUNCTION pg_catalog.%s_real(bigint) RENAME TO %s", name, name);
    (void)postgres_do(sql);
}

TEST(a_server_that_had_it_not_is_believed) {
    host h;
    advisory a, d, c;
    hf_pg_lock_options own = of(2);
    own.dedicated = true;
    (void)postgres_port();
    put_in_place("pg_advisory_unlock",
                 "PERFORM pg_advisory_unlock_real($1); RETURN $1 NOT IN (1, 2, 3);");
    open_client(&h);
    take(&h, &a, of(1));
    take(&h, &d, own);
    take(&h, &c, of(4));
    CHECK_INT(release(&a), HF_OK);
    CHECK_INT(release(&d), HF_OK);
    host_until(&h, &a.released, 1);
    host_until(&h, &d.released, 1);
    CHECK(!a.was_held);
    CHECK_INT(a.release_code, HF_ELOST);
    CHECK(!d.was_held);
    CHECK_INT(d.release_code, HF_ELOST);
    CHECK_INT(warnings, 0);
    /* That nobody waits to hear is an event. */
    do { /* until the answer has not come by then */
        hf_pg_lock_free(a.lock);
        ask(&h, &a, of(3));
        uv_run(&h.loop, UV_RUN_NOWAIT);
    } while (a.answered > 0);
    hf_pg_lock_cancel(a.lock);
    host_until(&h, &warnings, 1);
    CHECK(hf_pg_lock_held(c.lock));
    let_go(&h, &c);
    hf_pg_lock_free(a.lock);
    hf_pg_lock_free(d.lock);
    close_client(&h);
    put_back("pg_advisory_unlock");
}

TEST(a_statement_that_fails_half_way_leaves_nothing) {
    host h;
    advisory other, a, b, t;
    hf_pg_lock_options try = {.id = number(3)};
    (void)postgres_port();
    /* A session's lock that was taken before the failure stays taken. */
    put_in_place("pg_try_advisory_lock",
                 "PERFORM pg_advisory_lock($1); IF $1 = 3 THEN RAISE ''out of shared memory'' "
                 "USING ERRCODE = ''53200''; END IF; RETURN true;");
    open_client(&h);
    take(&h, &other, of(1));
    ask(&h, &a, of(2));
    ask(&h, &t, try);
    ask(&h, &b, of(4));
    answer(&h, &t, HF_EUNAVAIL);
    CHECK_STR(t.error.state, "53200");
    answer(&h, &a, HF_OK);
    answer(&h, &b, HF_OK);
    CHECK_INT(locks(), 3);
    CHECK(hf_pg_lock_held(other.lock));
    let_go(&h, &a);
    let_go(&h, &b);
    let_go(&h, &other);
    hf_pg_lock_free(t.lock);
    CHECK_INT(locks(), 0);
    CHECK_INT(warnings, 0);
    close_client(&h);
    put_back("pg_try_advisory_lock");
}

/* ---------------------------------------------------------------- sessions of their own */

TEST(a_dedicated_lock_waits_in_the_servers_queue) {
    host h;
    advisory a, b;
    hf_pg_lock_options own = of(1);
    own.dedicated = true;
    open_client(&h);
    take(&h, &a, own);
    ask(&h, &b, own);
    until_count(&h, "NOT granted", 1);
    CHECK_INT(b.answered, 0);
    CHECK_INT(sessions(), 2);
    let_go(&h, &a);
    answer(&h, &b, HF_OK);
    let_go(&h, &b);
    /* Two are kept, and used again. */
    CHECK_INT(sessions(), 2);
    take(&h, &a, own);
    CHECK_INT(sessions(), 2);
    let_go(&h, &a);
    close_client(&h);
}

TEST(a_dedicated_lock_that_waited_long_is_assured) {
    host h;
    advisory a, b;
    hf_pg_lock_options own = of(1);
    own.dedicated = true;
    own.wait_ms = HF_FOREVER;
    open_skewed(&h);
    CHECK_STR(postgres_do("SELECT pg_try_advisory_lock(1)"), "t");
    ask(&h, &a, own);
    ask(&h, &b, of(2)); /* another, of no interest, so that the loop has timers */
    until_count(&h, "NOT granted", 1);
    skew_ns = UINT64_C(100000000000);
    CHECK_STR(postgres_do("SELECT pg_advisory_unlock(1)"), "t");
    answer(&h, &a, HF_OK);
    CHECK_INT(a.lost, 0);
    let_go(&h, &a);
    hf_pg_lock_free(b.lock);
    close_client(&h);
}

TEST(giving_up_takes_it_back_at_the_server) {
    enum { N = 20 };
    host h;
    advisory first, l[N];
    hf_pg_lock_options own = of(1);
    own.dedicated = true;
    own.shared = true;
    open_client(&h);
    take(&h, &first, of(1));
    for (int i = 0; i < N; i++) {
        own.wait_ms = i % 2 == 0 ? 3000 : 30000;
        ask(&h, &l[i], own);
    }
    until_count(&h, "NOT granted", N);
    for (int i = 1; i < N; i += 2)
        hf_pg_lock_cancel(l[i].lock);
    for (int i = 0; i < N; i++)
        answer(&h, &l[i], i % 2 == 0 ? HF_ETIMEDOUT : HF_ECANCELED);
    until_count(&h, "NOT granted", 0);
    let_go(&h, &first);
    CHECK_INT(locks(), 0);
    for (int i = 0; i < N; i++)
        hf_pg_lock_free(l[i].lock);
    close_client(&h);
}

TEST(dedicated_locks_given_up_at_random_leave_nothing) {
    enum { N = 60 };
    static advisory l[N];
    host h;
    open_client(&h);
    for (int i = 0; i < N; i++) {
        hf_pg_lock_options own = of(i % 3);
        own.dedicated = true;
        ask(&h, &l[i], own);
        l[i].release_at_once = true;
    }
    for (int i = 0; i < N; i++) {
        if (i % 3 == 0) hf_pg_lock_cancel(l[rand() % N].lock);
        host_run_ms(&h, 2);
    }
    for (int i = 0; i < N; i++) {
        host_until(&h, &l[i].answered, 1);
        CHECK(l[i].code == HF_OK || l[i].code == HF_ECANCELED);
        if (l[i].code == HF_OK) host_until(&h, &l[i].released, 1);
        hf_pg_lock_free(l[i].lock);
    }
    until_count(&h, "true", 0);
    for (int i = 0; i < 1000 && sessions() > 2; i++)
        host_run_ms(&h, 5);
    CHECK(sessions() <= 2);
    close_client(&h);
}

TEST(one_dedicated_attempt) {
    host h;
    advisory a, b;
    hf_pg_lock_options try = {.id = number(1), .dedicated = true};
    open_client(&h);
    take(&h, &a, try);
    ask(&h, &b, try);
    answer(&h, &b, HF_ETIMEDOUT);
    hf_pg_lock_free(b.lock);
    let_go(&h, &a);
    take(&h, &b, try);
    let_go(&h, &b);
    close_client(&h);
}

TEST(a_dedicated_lock_is_lost_with_its_session) {
    host h;
    advisory a, w;
    hf_pg_lock_options own = of(1);
    own.dedicated = true;
    open_client(&h);
    take(&h, &a, own);
    ask(&h, &w, own);
    until_count(&h, "NOT granted", 1);
    terminate("NOT granted");
    host_run_ms(&h, 20);
    until_count(&h, "NOT granted", 1); /* again */
    CHECK_INT(a.lost, 0);
    terminate("granted");
    host_until(&h, &a.lost, 1);
    CHECK_INT(release(&a), HF_ELOST);
    answer(&h, &w, HF_OK);
    let_go(&h, &w);
    hf_pg_lock_free(a.lock);
    close_client(&h);
}

TEST(a_dedicated_lock_and_the_others_exclude_each_other) {
    host h;
    advisory a, d, w;
    hf_pg_lock_options own = of(1);
    own.dedicated = true;
    open_client(&h);
    take(&h, &a, of(1));
    ask(&h, &d, own);
    until_count(&h, "NOT granted", 1);
    ask(&h, &w, of(1));
    /* Here it passes on, for a while. */
    let_go(&h, &a);
    answer(&h, &w, HF_OK);
    CHECK_INT(d.answered, 0);
    let_go(&h, &w);
    answer(&h, &d, HF_OK);
    ask(&h, &w, of(1));
    host_run_ms(&h, 50);
    CHECK_INT(w.answered, 0);
    let_go(&h, &d);
    answer(&h, &w, HF_OK);
    let_go(&h, &w);
    close_client(&h);
}

/* ---------------------------------------------------------------- others */

TEST(a_pooler_that_lends_for_each_transaction_is_refused) {
    host h;
    advisory a;
    hf_pg_lock_options own = of(1);
    char url[300];
    own.dedicated = true;
    postgres_fresh(url, sizeof url);
    strcat(url, "&pooler=transaction");
    host_open(&h, url);
    ask(&h, &a, of(1));
    answer(&h, &a, HF_ENOTSUP);
    CHECK(strstr(a.error.message, "pooler=session") != NULL);
    hf_pg_lock_free(a.lock);
    ask(&h, &a, own);
    answer(&h, &a, HF_ENOTSUP);
    hf_pg_lock_free(a.lock);
    close_client(&h);
}

TEST(others_have_their_turn) {
    enum { N = 8 };
    host here, there;
    advisory l[N], other;
    int turns = 0;
    uint64_t end_ns = uv_hrtime() + UINT64_C(20000000000);
    char url[256];
    postgres_fresh(url, sizeof url);
    host_open(&here, url);
    host_open(&there, url);
    for (int i = 0; i < N; i++)
        take(&here, &l[i], of(100 + i)); /* so that there is a session */
    for (int i = 0; i < N; i++)
        let_go(&here, &l[i]);
    for (int i = 0; i < N; i++)
        ask(&here, &l[i], of(1));
    answer(&here, &l[0], HF_OK);
    ask(&there, &other, of(1));
    /* Here somebody always waits. */
    while (other.answered == 0 && uv_hrtime() < end_ns) {
        advisory *l0 = &l[turns % N];
        while (l0->answered == 0 && other.answered == 0) {
            uv_run(&here.loop, UV_RUN_NOWAIT);
            uv_run(&there.loop, UV_RUN_NOWAIT);
        }
        if (other.answered != 0) break;
        CHECK_INT(release(l0), HF_OK);
        hf_pg_lock_free(l0->lock);
        ask(&here, l0, of(1));
        turns++;
    }
    CHECK(turns > 10);
    CHECK_INT(other.answered, 1);
    CHECK_INT(other.code, HF_OK);
    let_go(&there, &other);
    for (int i = 0; i < N; i++)
        hf_pg_lock_free(l[i].lock);
    host_close(&here);
    host_close(&there);
    check_clean();
}

typedef struct listing {
    int answered;
    hf_code code;
    size_t n;
    hf_pg_holder holders[16];
} listing;

static void on_holders(void *data, const hf_pg_holder *holders, size_t n, const hf_error *error) {
    listing *l = data;
    l->answered++;
    l->code = error == NULL ? HF_OK : error->code;
    l->n = n;
    if (n > 0) memcpy(l->holders, holders, (n < 16 ? n : 16) * sizeof *holders);
}

TEST(holders_and_waiters_are_listed) {
    host h;
    advisory a, b, w;
    listing l = {0};
    hf_error error;
    hf_pg_lock_options own = of(-9);
    hf_pg_lock_options pair = {.id = {.pair = true, .first = -1, .second = 2}, .shared = true};
    own.dedicated = true;
    open_client(&h);
    take(&h, &a, of(-9));
    take(&h, &b, pair);
    ask(&h, &w, own);
    until_count(&h, "NOT granted", 1);
    CHECK_INT(hf_pg_holders(h.client, on_holders, &l, &error), HF_OK);
    CHECK_INT(l.answered, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    REQUIRE_INT(l.n, 3);
    CHECK(!l.holders[0].id.pair && l.holders[0].id.number == -9);
    CHECK(l.holders[0].granted && l.holders[0].here && !l.holders[0].shared);
    CHECK_STR(l.holders[0].application, "holdfast");
    CHECK(l.holders[0].waiting_ms == HF_FOREVER && l.holders[0].query_ms < 30000);
    CHECK(!l.holders[1].granted && l.holders[1].id.number == -9 && l.holders[1].here);
    CHECK(l.holders[1].waiting_ms < 30000);
    CHECK(l.holders[1].pid != l.holders[0].pid && l.holders[1].pid > 0);
    CHECK(l.holders[2].id.pair && l.holders[2].id.first == -1 && l.holders[2].id.second == 2);
    CHECK(l.holders[2].shared && l.holders[2].granted);
    let_go(&h, &a);
    answer(&h, &w, HF_OK);
    let_go(&h, &w);
    let_go(&h, &b);
    CHECK_INT(hf_pg_holders(h.client, on_holders, &l, &error), HF_OK);
    host_until(&h, &l.answered, 2);
    CHECK_INT(l.n, 0);
    close_client(&h);
}

TEST(closing_ends_waiters_and_then_holders) {
    host h;
    advisory a, d, w, v;
    int closed = 0;
    hf_pg_lock_options own = of(2);
    own.dedicated = true;
    open_client(&h);
    take(&h, &a, of(1));
    take(&h, &d, own);
    ask(&h, &w, of(1));
    ask(&h, &v, own);
    until_count(&h, "NOT granted", 1);
    hf_client_close(h.client, 50, NULL, NULL);
    answer(&h, &w, HF_ECLOSED);
    answer(&h, &v, HF_ECLOSED);
    CHECK(hf_pg_lock_held(a.lock));
    host_until(&h, &a.lost, 1);
    CHECK_INT(d.lost, 1);
    (void)closed;
    hf_pg_lock_free(a.lock);
    hf_pg_lock_free(d.lock);
    hf_pg_lock_free(w.lock);
    hf_pg_lock_free(v.lock);
    close_client(&h);
}

TEST(closing_lets_holders_finish) {
    host h;
    advisory a;
    hf_error error;
    hf_pg_lock *lock;
    hf_pg_lock_options o = of(1);
    open_client(&h);
    take(&h, &a, of(1));
    hf_client_close(h.client, 20000, NULL, NULL);
    CHECK_INT(hf_pg_lock_acquire(h.client, &o, on_acquired, on_lost, &a, &lock, &error),
              HF_ECLOSED);
    host_run_ms(&h, 20);
    CHECK(hf_pg_lock_held(a.lock));
    let_go(&h, &a);
    close_client(&h);
}

TEST(held_locks_do_not_keep_the_loop) {
    host h;
    advisory a, d;
    hf_pg_lock_options own = of(2);
    own.dedicated = true;
    open_client(&h);
    take(&h, &a, of(1));
    take(&h, &d, own);
    CHECK_INT(uv_run(&h.loop, UV_RUN_DEFAULT), 0); /* ends */
    let_go(&h, &a);
    let_go(&h, &d);
    CHECK_INT(uv_run(&h.loop, UV_RUN_DEFAULT), 0);
    close_client(&h);
}

TEST(it_is_for_postgresql) {
    host h;
    hf_error error;
    hf_pg_lock *lock;
    hf_pg_lock_options o = of(1);
    host_open(&h, "memory:");
    CHECK_INT(hf_pg_lock_acquire(h.client, &o, on_acquired, on_lost, NULL, &lock, &error),
              HF_ENOTSUP);
    CHECK_STR(error.message, "this is for PostgreSQL: the client's store is memory");
    host_close(&h);
}

/* ---------------------------------------------------------------- without memory */

static int left; /* allocations until one fails; negative: none does */

static void *failing(void *data, void *p, size_t size) {
    (void)data;
    if (size == 0) {
        free(p);
        return NULL;
    }
    return left-- == 0 ? NULL : realloc(p, size);
}

static bool is_without_memory(host *h, bool dedicated, int n) {
    advisory a, b;
    hf_error error;
    hf_pg_lock_options o = of(1);
    o.dedicated = dedicated;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    left = n;
    if (hf_pg_lock_acquire(h->client, &o, on_acquired, on_lost, &a, &a.lock, &error) != HF_OK) {
        CHECK_INT(error.code, HF_ENOMEM);
        left = -1;
        return true;
    }
    if (hf_pg_lock_acquire(h->client, &o, on_acquired, on_lost, &b, &b.lock, &error) == HF_OK) {
        hf_pg_lock_cancel(b.lock);
        host_until(h, &b.answered, 1);
        CHECK(b.code == HF_ECANCELED);
        hf_pg_lock_free(b.lock);
    }
    host_until(h, &a.answered, 1);
    CHECK(a.code == HF_OK || a.code == HF_ENOMEM);
    if (a.code == HF_OK)
        let_go(h, &a);
    else
        hf_pg_lock_free(a.lock);
    n = left;
    left = -1;
    return n < 0;
}

TEST(memory_may_run_out) {
    static const hf_allocator allocator = {.resize = failing};
    hf_engine_options options = {.allocator = &allocator};
    for (int dedicated = 0; dedicated < 2; dedicated++) {
        for (int n = 0;; n++) {
            host h;
            bool ran_out;
            char url[256];
            left = -1;
            postgres_fresh(url, sizeof url);
            host_open_with(&h, url, &options);
            ran_out = is_without_memory(&h, dedicated == 1, n);
            close_client(&h);
            if (!ran_out) break;
        }
    }
}
