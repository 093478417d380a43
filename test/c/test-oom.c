/* The store contract while memory is out: every operation of the suite is tried with its first
 * allocation failing, then its second, and so on until it gets through. Each failure must end in
 * HF_ENOMEM and change nothing (the suite's own checks then hold for what gets through at last), or
 * be no failure at all. SQLite's own allocations fail as well as ours; nothing of either may be
 * left. */
#include "conformance.h"
#include "store/stores.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

/* SQLite's allocator is the process's, and so is what makes it fail. */
static struct {
    injector starve;
    sqlite3_mem_methods real;
} memory;

static void *sqlite_malloc(int size) {
    return injector_strikes(&memory.starve) ? NULL : memory.real.xMalloc(size);
}

static void *sqlite_realloc(void *p, int size) {
    return injector_strikes(&memory.starve) ? NULL : memory.real.xRealloc(p, size);
}

/* Before SQLite is initialized, and so before any test. */
__attribute__((constructor)) static void configure_sqlite(void) {
    sqlite3_mem_methods methods;

    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real) != SQLITE_OK) abort();
    methods = memory.real;
    methods.xMalloc = sqlite_malloc;
    methods.xRealloc = sqlite_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK) abort();
}

static void fresh_memory(char *url, size_t size) {
    snprintf(url, size, "memory:");
}

static void fresh_sqlite(char *url, size_t size) {
    static int n;
    snprintf(url, size, "sqlite:%s/%d.db", hf_test_folder(), ++n);
}

static const store_subject memory_subject = {
    .vt = &hf__memory_store,
    .fresh = fresh_memory,
    .own_clock = true,
};

static const store_subject sqlite_subject = {
    .vt = &hf__sqlite_store,
    .fresh = fresh_sqlite,
    .own_clock = true,
    .lasts = true,
};

static void run(const store_subject *subject, void (*part)(world *w)) {
    sqlite3_int64 before;

    if (sqlite3_initialize() != SQLITE_OK) FAIL("SQLite does not start");
    before = sqlite3_memory_used();
    conformance_run(subject, part, &memory.starve);
    CHECK_INT(sqlite3_memory_used(), before);
}

/* One op with its n-th allocation failing, and never tried again. True if it got through. */
static bool ask_starved(rig *r, slot *one, const ask *what, long n) {
    injector_arm(&memory.starve, n);
    rig_submit(r, one, what, 1);
    RIG_UNTIL(r, one->ended > 0);
    if (injector_disarm(&memory.starve) && !one->op.applied && one->op.error.code != HF_OK) {
        CHECK_INT(one->op.error.code, HF_ENOMEM);
        return false;
    }
    CHECK_INT(one->op.error.code, HF_OK);
    return true;
}

/* Who is told that there is no memory has nothing, and another may have it at once. */
static void abandon_takes(world *w) {
    slot one = {.ended = 0};
    long failed = 0;
    bool through = false;
    rig r;

    rig_open(&r, w, false);
    CHECK(ASK(&r, .verb = HF_TAKE, .keys = "shared", .token = 7000, .limit = HF_SHARED)->applied);
    for (int n = 1; !through; n++) {
        char key[32];
        snprintf(key, sizeof key, "a%d b%d", n, n);
        through = ask_starved(&r, &one, &(ask){.verb = HF_TAKE, .keys = key, .token = n}, n);
        failed += !through;
        slot_reset(&one);
        if (!through) CHECK(ASK(&r, .verb = HF_TAKE, .keys = key, .token = 5000 + n)->applied);
    }
    CHECK(failed > 0);
    /* Refused for want of memory, it leaves no intent mark. */
    through = false;
    for (int n = 1; !through; n++) {
        const ask what = {
            .verb = HF_TAKE, .keys = "shared", .token = 8000 + n, .flags = HF_OP_INTENT};
        through = ask_starved(&r, &one, &what, n);
        slot_reset(&one);
        CHECK(ASK(&r, .verb = HF_TAKE, .keys = "shared", .token = 9000 + n, .limit = HF_SHARED)
                  ->applied == !through);
    }
    rig_close(&r);
}

static void run_abandoned(const store_subject *subject) {
    injector *starve = &memory.starve;
    world w;

    /* Opened without failures: only the takes are to have them. */
    world_open(&w, subject);
    w.starve = starve;
    abandon_takes(&w);
    world_close(&w);
}

TEST(memory_takes_given_up) {
    run_abandoned(&memory_subject);
}

TEST(sqlite_takes_given_up) {
    run_abandoned(&sqlite_subject);
}

#define STARVE(name)                              \
    TEST(memory_##name) {                         \
        run(&memory_subject, conformance_##name); \
    }                                             \
    TEST(sqlite_##name) {                         \
        run(&sqlite_subject, conformance_##name); \
    }
HF_CONFORMANCE(STARVE)
