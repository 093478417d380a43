/*
 * The SQLite store among processes that contend, are killed, or lose power.
 *
 * The parent makes no thread before it forks (its own instances block), so that a child may do all.
 * What children have seen comes back through shared memory, written at the moment it happened.
 */
#include "harness.h"
#include "store/sqlite-store.h"
#include "support-powerloss-vfs.h"
#include "support-sqlite.h"
#include "util/random.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEYS = 10, HISTORY = 4096 };

struct shared {
    kit_path path;
    atomic_int ready;
    atomic_bool go;
    atomic_int failures;
    atomic_int turn;
    atomic_int inside; /* who holds the one key */
    atomic_uint entered;
    atomic_ullong fences[HISTORY]; /* in order of holding */
    /* Of each key, the last number whose write was begun, and whose write was acknowledged. */
    atomic_ullong begun[KEYS];
    atomic_ullong acknowledged[KEYS];
    atomic_ullong fence; /* the greatest acknowledged */
    atomic_ullong released_ns;
    char folder[256]; /* where the power loss leaves its image */
    uint64_t cut_at;
    uint64_t seed;
    bool careless; /* entries are not synced: what must go wrong then, does */
};

static struct shared *share(void) {
    struct shared *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) abort();
    s->path = kit_file("shared.db");
    return s;
}

static void wait_for_go(struct shared *s) {
    atomic_fetch_add(&s->ready, 1);
    while (!atomic_load(&s->go))
        usleep(50);
}

static void start_all(struct shared *s, int n) {
    while (atomic_load(&s->ready) < n)
        usleep(50);
    atomic_store(&s->go, true);
}

/* ---------------------------------------------------------------- creation */

static int create_and_write(void *data) {
    struct shared *s = data;
    char key[32];
    int rc = 0;
    hf_error error;
    kit k;

    kit_init(&k, s->path.text, NULL, 0);
    wait_for_go(s);
    snprintf(key, sizeof key, "key%d", (int)getpid());
    error = kit_open(&k);
    if (error.code != HF_OK) {
        printf("    %s: %s\n", hf_code_name(error.code), error.message);
        rc |= 1;
    }
    if (!kit_put(&k, key, "v", 1, NULL)) rc |= 2;
    if (!kit_take(&k, key, 1, NULL)) rc |= 4;
    kit_fini(&k);
    return rc;
}

TEST(eight_processes_create_one_file_at_once) {
    struct shared *s = share();
    pid_t pids[8];
    char key[32];
    char value[8];
    kit k;

    for (int round = 0; round < 5; round++) {
        char name[32];
        snprintf(name, sizeof name, "created%d.db", round);
        s->path = kit_file(name);
        atomic_store(&s->ready, 0);
        atomic_store(&s->go, false);
        for (int i = 0; i < 8; i++)
            pids[i] = kit_fork(create_and_write, s);
        start_all(s, 8);
        for (int i = 0; i < 8; i++)
            CHECK_INT(kit_wait_for(pids[i]), 0);
        kit_init(&k, s->path.text, NULL, KIT_BLOCKING);
        for (int i = 0; i < 8; i++) {
            snprintf(key, sizeof key, "key%d", (int)pids[i]);
            CHECK(kit_get(&k, key, value, sizeof value, NULL));
        }
        kit_fini(&k);
    }
    munmap(s, sizeof *s);
}

/* ---------------------------------------------------------------- contention */

struct waiter {
    struct shared *shared;
    kit kit;
    hf__watch watch;
    bool hinted;
};

static void on_hint(hf__watch *watch) {
    ((struct waiter *)watch->data)->hinted = true;
}

static void on_tick(uv_timer_t *timer) {
    ((struct waiter *)timer->data)->hinted = true;
}

/* Waits as a lock does: armed, tried, and then asleep until a hint or the time that was left. */
static uint64_t take_waiting(struct waiter *w, uint64_t token) {
    hf_slice key = kit_slice("the key");
    uint64_t fence = 0;
    uv_timer_t timer;

    uv_timer_init(&w->kit.loop, &timer);
    timer.data = w;
    while (fence == 0) {
        hf_op op;
        w->hinted = false;
        kit_op(&w->kit, &op, HF_TAKE, HF_LEASES, &key);
        op.token = kit_token(token);
        kit_run(&w->kit, &op);
        if (op.error.code != HF_OK) atomic_fetch_add(&w->shared->failures, 1);
        if (op.applied) fence = op.fence;
        if (!op.applied) uv_timer_start(&timer, on_tick, op.left_ms, 0);
        hf_op_reset(&op);
        while (fence == 0 && !w->hinted)
            uv_run(&w->kit.loop, UV_RUN_ONCE);
        uv_timer_stop(&timer);
    }
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&w->kit.loop, UV_RUN_NOWAIT);
    return fence;
}

static void watch_the_key(struct waiter *w) {
    w->watch.fire = on_hint;
    w->watch.data = w;
    w->watch.key = kit_slice("the key");
    w->watch.space = HF_LEASES;
    w->kit.store->vt->watch(w->kit.store, &w->watch);
}

static int contend(void *data) {
    struct waiter w = {.shared = data};
    struct shared *s = data;

    kit_init(&w.kit, s->path.text, NULL, 0);
    watch_the_key(&w);
    wait_for_go(s);
    for (uint64_t i = 1; i <= 100; i++) {
        uint64_t token = (uint64_t)getpid() << 32 | i;
        uint64_t fence = take_waiting(&w, token);
        if (atomic_fetch_add(&s->inside, 1) != 0) atomic_fetch_add(&s->failures, 1);
        atomic_store(&s->fences[atomic_fetch_add(&s->entered, 1) % HISTORY], fence);
        atomic_fetch_sub(&s->inside, 1);
        if (!kit_drop(&w.kit, "the key", token)) atomic_fetch_add(&s->failures, 1);
    }
    w.kit.store->vt->unwatch(w.kit.store, &w.watch);
    kit_fini(&w.kit);
    return 0;
}

TEST(processes_that_contend_never_overlap_and_fences_grow) {
    struct shared *s = share();
    pid_t pids[4];
    uint64_t last = 0;

    for (int i = 0; i < 4; i++)
        pids[i] = kit_fork(contend, s);
    start_all(s, 4);
    for (int i = 0; i < 4; i++)
        CHECK_INT(kit_wait_for(pids[i]), 0);
    CHECK_INT(atomic_load(&s->failures), 0);
    CHECK_UINT(atomic_load(&s->entered), 400);
    for (int i = 0; i < 400; i++) {
        uint64_t fence = atomic_load(&s->fences[i]);
        CHECK(fence > last);
        last = fence;
    }
    munmap(s, sizeof *s);
}

/* ---------------------------------------------------------------- waking */

static uint64_t monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

enum { WAKES = 50 };

static int wake_up(void *data) {
    struct waiter w = {.shared = data};
    struct shared *s = data;

    kit_init(&w.kit, s->path.text, NULL, 0);
    watch_the_key(&w);
    for (uint64_t i = 0; i < WAKES; i++) {
        while (atomic_load(&s->turn) <= (int)i)
            usleep(100);
        atomic_fetch_add(&s->ready, 1);
        take_waiting(&w, 1000 + i);
        atomic_store(&s->fences[i], monotonic() - atomic_load(&s->released_ns));
        kit_drop(&w.kit, "the key", 1000 + i);
        atomic_fetch_add(&s->entered, 1);
    }
    w.kit.store->vt->unwatch(w.kit.store, &w.watch);
    kit_fini(&w.kit);
    return 0;
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

TEST(waiters_of_other_processes_wake_on_release) {
    struct shared *s = share();
    uint64_t times[WAKES];
    pid_t pid;
    kit k;

    kit_init(&k, s->path.text, NULL, KIT_BLOCKING);
    CHECK(kit_take(&k, "the key", 1, NULL));
    pid = kit_fork(wake_up, s);
    for (int i = 0; i < WAKES; i++) {
        atomic_store(&s->turn, i + 1); /* the key is held here */
        while (atomic_load(&s->ready) <= i)
            usleep(100);
        usleep(5000); /* no condition to wait for: only the time printed depends on it */
        atomic_store(&s->released_ns, monotonic());
        CHECK(kit_drop(&k, "the key", (uint64_t)i + 1));
        while (atomic_load(&s->entered) <= (unsigned)i)
            usleep(100);
        CHECK(kit_take(&k, "the key", (uint64_t)i + 2, NULL));
    }
    kit_drop(&k, "the key", WAKES + 1);
    CHECK_INT(kit_wait_for(pid), 0);
    for (int i = 0; i < WAKES; i++)
        times[i] = atomic_load(&s->fences[i]);
    qsort(times, WAKES, sizeof times[0], ascending);
    printf("    release to the next holder in another process: median %.2f ms, worst %.2f ms\n",
           (double)times[WAKES / 2] / 1e6, (double)times[WAKES - 1] / 1e6);
    kit_fini(&k);
    munmap(s, sizeof *s);
}

/* ---------------------------------------------------------------- kill -9 */

/* One round of numbered writes to all keys. */
static void write_round(kit *k, struct shared *s, uint64_t n, size_t size) {
    static char value[65536];
    hf_slice keys[KEYS];
    hf_op ops[KEYS];
    char names[KEYS][16];

    memset(value, ' ', sizeof value);
    snprintf(value, sizeof value, "%llu", (unsigned long long)n);
    for (int i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof names[i], "k%d", i);
        keys[i] = kit_slice(names[i]);
        kit_op(k, &ops[i], HF_PUT, HF_VALUES, &keys[i]);
        ops[i].token = kit_token(n * KEYS + (uint64_t)i + 1);
        ops[i].value = (hf_slice){value, size};
        atomic_store(&s->begun[i], n);
    }
    /* Half in one batch, half alone. */
    for (int i = 0; i < KEYS / 2 - 1; i++)
        ops[i].next = &ops[i + 1];
    kit_run(k, &ops[0]);
    for (int i = KEYS / 2; i < KEYS; i++)
        kit_run(k, &ops[i]);
    for (int i = 0; i < KEYS; i++) {
        if (ops[i].applied)
            atomic_store(&s->acknowledged[i], n);
        else
            atomic_fetch_add(&s->failures, 1);
        hf_op_reset(&ops[i]);
    }
}

/* A take and a drop of one key; and one take of a key that stays held. */
static void take_round(kit *k, struct shared *s, uint64_t n) {
    char key[32];
    uint64_t fence;

    if (kit_take(k, "lock", n, &fence)) {
        atomic_store(&s->fence, fence);
        kit_drop(k, "lock", n);
    }
    snprintf(key, sizeof key, "held%llu", (unsigned long long)n);
    if (kit_take(k, key, n, &fence)) atomic_store(&s->fence, fence);
}

/* What was acknowledged is there, and nothing that was never begun. False if something is lost. */
static bool all_there(kit *k, struct shared *s) {
    bool lost = false;
    char value[32];
    char key[16];

    for (int i = 0; i < KEYS; i++) {
        uint64_t n = 0;
        snprintf(key, sizeof key, "k%d", i);
        if (kit_get(k, key, value, sizeof value, NULL)) n = strtoull(value, NULL, 10);
        if (n < atomic_load(&s->acknowledged[i])) lost = true;
        CHECK(n <= atomic_load(&s->begun[i]));
    }
    return !lost;
}

static int write_for_ever(void *data) {
    struct shared *s = data;
    uint64_t start = atomic_load(&s->begun[0]);
    kit k;

    kit_init(&k, s->path.text, NULL, 0);
    for (uint64_t n = start + 1; n < start + 1000000; n++) {
        write_round(&k, s, n, 3000);
        take_round(&k, s, n);
        atomic_fetch_add(&s->entered, 1);
    }
    return 1;
}

TEST(a_killed_process_loses_nothing_acknowledged) {
    struct shared *s = share();
    char value[8];
    kit k;

    for (int round = 0; round < 25; round++) {
        unsigned before = atomic_load(&s->entered);
        pid_t pid = kit_fork(write_for_ever, s);

        while (round % 5 != 0 && atomic_load(&s->entered) == before)
            usleep(100);
        usleep((unsigned)hf__random_between(0, 5000)); /* anywhere in a write, or while it opens */
        kill(pid, SIGKILL);
        CHECK_INT(kit_wait_for(pid), 256 + SIGKILL);
        kit_init(&k, s->path.text, NULL, KIT_BLOCKING);
        REQUIRE_INT(kit_open(&k).code, HF_OK);
        CHECK(all_there(&k, s));
        kit_get(&k, "k0", value, sizeof value, NULL);
        kit_fini(&k);
    }
    CHECK_INT(atomic_load(&s->failures), 0);
    CHECK(atomic_load(&s->acknowledged[0]) > 0);
    munmap(s, sizeof *s);
}

/* ---------------------------------------------------------------- loss of power */

static int write_until_dark(void *data) {
    struct shared *s = data;
    hf__sqlite_instance *instance;
    kit k;

    powerloss_install();
    powerloss_cut_at(s->cut_at, s->folder, s->seed);
    kit_init(&k, s->path.text, NULL, KIT_BLOCKING | KIT_FAKE_CLOCK);
    instance = hf__of(k.store, hf__sqlite_instance, base);
    instance->checkpoint_step = 60;
    for (uint64_t n = 1; n < 1000; n++) {
        write_round(&k, s, n, n % 4 == 0 ? 20000 : 100);
        take_round(&k, s, n);
        /* As relaxed as the takes before left it; it believes otherwise. */
        if (s->careless) instance->conn.durable = true;
    }
    return 1; /* the power never failed */
}

/* One loss of power, and what is found after the reboot. False if what was acknowledged is lost. */
static bool lose_power(struct shared *s, int number) {
    kit_path after;
    uint64_t fence;
    char name[32];
    bool there;
    hf_error error;
    kit k;

    snprintf(name, sizeof name, "before%d", number);
    REQUIRE(mkdir(kit_file(name).text, 0755) == 0);
    snprintf(name, sizeof name, "before%d/a.db", number);
    s->path = kit_file(name);
    snprintf(name, sizeof name, "after%d", number);
    snprintf(s->folder, sizeof s->folder, "%s", kit_file(name).text);
    REQUIRE(mkdir(s->folder, 0755) == 0);
    for (int i = 0; i < KEYS; i++) {
        atomic_store(&s->begun[i], 0);
        atomic_store(&s->acknowledged[i], 0);
    }
    atomic_store(&s->fence, 0);
    REQUIRE_INT(kit_wait_for(kit_fork(write_until_dark, s)), 0);
    snprintf(name, sizeof name, "after%d/a.db", number);
    after = kit_file(name);
    kit_init(&k, after.text, NULL, KIT_BLOCKING | KIT_FAKE_CLOCK);
    kit_set_boot(&k, "boot-b");
    kit_pass(&k, 1000);
    error = kit_open(&k);
    there = error.code == HF_OK && all_there(&k, s);
    if (error.code == HF_OK && !s->careless) {
        CHECK(kit_take(&k, "lock", 1, &fence));
        CHECK(fence > atomic_load(&s->fence));
        CHECK(kit_put(&k, "k0", "more", 1, NULL));
    }
    if (error.code != HF_OK && !s->careless) FAIL("%s", error.message);
    kit_fini(&k);
    return there;
}

TEST(a_loss_of_power_loses_nothing_acknowledged) {
    struct shared *s = share();
    const char *given = getenv("HF_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : hf__random_between(1, UINT32_MAX);

    printf("    HF_SEED=%llu\n", (unsigned long long)seed);
    for (int i = 0; i < 60; i++) {
        s->seed = seed + (uint64_t)i;
        /* Some of them while the file is being made. */
        s->cut_at = 1 + s->seed % (i % 3 == 0 ? 40 : 1500);
        CHECK(lose_power(s, i));
    }
    munmap(s, sizeof *s);
}

/* The file system above does lose what is not synced, or the test before could not fail. */
TEST(a_loss_of_power_without_syncs_is_noticed) {
    struct shared *s = share();
    int lost = 0;

    s->careless = true;
    for (int i = 0; i < 10; i++) {
        s->seed = (uint64_t)i + 1;
        s->cut_at = 300 + (uint64_t)i * 50;
        lost += lose_power(s, i) ? 0 : 1;
    }
    CHECK(lost > 0);
    munmap(s, sizeof *s);
}
