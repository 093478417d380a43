/*
 * The SQLite store when memory is out: SQLite's own, by failing its allocator, and the engine's.
 * Every op ends in HF_ENOMEM or with a correct result, what failed has left nothing behind, and
 * nothing leaks.
 */
#include "harness.h"
#include "store/sqlite-store.h"
#include "support-powerloss-vfs.h"
#include "support-sqlite.h"
#include "util/alloc.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Fails the n-th allocation from now on, and if `sticky` all after it. One thread only. */
static struct {
    uint64_t countdown; /* 0: not armed */
    bool sticky;
    uint64_t failed;
    int64_t live;
    sqlite3_mem_methods real;
} memory;

static bool may_allocate(void) {
    if (memory.countdown == 0) return true;
    if (memory.countdown > 1) {
        memory.countdown--;
        return true;
    }
    if (!memory.sticky) memory.countdown = 0;
    memory.failed++;
    return false;
}

static void *test_malloc(int size) {
    void *p = may_allocate() ? memory.real.xMalloc(size) : NULL;
    if (p != NULL) memory.live++;
    return p;
}

static void test_free(void *p) {
    if (p != NULL) memory.live--;
    memory.real.xFree(p);
}

static void *test_realloc(void *p, int size) {
    return may_allocate() ? memory.real.xRealloc(p, size) : NULL;
}

/* Before SQLite is initialized, and so before any test. */
__attribute__((constructor)) static void take_over_memory(void) {
    sqlite3_mem_methods methods;

    if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real) != SQLITE_OK) abort();
    methods = memory.real;
    methods.xMalloc = test_malloc;
    methods.xFree = test_free;
    methods.xRealloc = test_realloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) != SQLITE_OK) abort();
}

static void arm(uint64_t n, bool sticky) {
    memory.countdown = n;
    memory.sticky = sticky;
    memory.failed = 0;
}

static void *engine_resize(void *data, void *p, size_t size) {
    const hf_allocator *libc = data;

    if (size > 0 && !may_allocate()) return NULL;
    if (size == 0 && p != NULL) memory.live--;
    if (size > 0 && p == NULL) memory.live++;
    return libc->resize(libc->data, p, size);
}

/* ---------------------------------------------------------------- the ops */

enum { STEPS = 9 };

struct script {
    hf_slice keys[3];
    hf_slice all; /* the prefix of all keys */
    hf_op ops[STEPS];
    char value[3000];
};

static void write_script(kit *k, struct script *s) {
    static const hf_verb verbs[STEPS] = {HF_TAKE, HF_PUT,  HF_ADD,   HF_GET, HF_TAKE,
                                         HF_LIST, HF_KEEP, HF_SWEEP, HF_DEL};

    s->all = kit_slice("");
    s->keys[0] = kit_slice("a");
    s->keys[1] = kit_slice("b");
    s->keys[2] = kit_slice("counter");
    for (int i = 0; i < STEPS; i++) {
        bool lease = verbs[i] == HF_TAKE || verbs[i] == HF_KEEP || verbs[i] == HF_LIST ||
                     verbs[i] == HF_SWEEP;
        kit_op(k, &s->ops[i], verbs[i], lease ? HF_LEASES : HF_VALUES, &s->keys[0]);
        s->ops[i].token = kit_token(1);
        s->ops[i].limit = lease && verbs[i] != HF_TAKE ? 10 : 1;
    }
    s->ops[0].n_keys = 2;
    memset(s->value, 'v', sizeof s->value);
    s->ops[1].value = (hf_slice){s->value, sizeof s->value};
    s->ops[2].keys = &s->keys[2];
    s->ops[2].delta = 1;
    s->ops[4].token = kit_token(2); /* is refused, and leaves a mark */
    s->ops[4].flags = HF_OP_INTENT;
    s->ops[5].keys = &s->all;
    s->ops[6].n_keys = 2;
}

/* No memory, or what must come of it, given what came before. */
static void check_step(const struct script *s, int i) {
    const hf_op *op = &s->ops[i];
    bool held = s->ops[0].applied;
    bool stored = s->ops[1].applied;

    if (op->error.code != HF_OK) {
        if (op->error.code != HF_ENOMEM)
            FAIL("step %d: %s: %s", i, hf_code_name(op->error.code), op->error.message);
        CHECK(!op->applied && op->refused == HF_NOT_REFUSED);
        CHECK(op->out.data == NULL && op->rows == NULL);
        return;
    }
    switch (i) {
    case 0: CHECK(op->applied && op->fence > 0); break;
    case 1: CHECK(op->applied && op->version > 0); break;
    case 2: CHECK(op->applied && op->sum == 1); break;
    case 3:
        CHECK(op->entry.present == stored);
        CHECK_UINT(op->out.len, stored ? sizeof s->value : 0);
        break;
    case 4: CHECK(op->applied != held); break;
    case 5: CHECK_UINT(op->n_rows, held ? 2 : s->ops[4].applied ? 1 : 0); break;
    case 6: CHECK(op->applied == held); break;
    case 7: CHECK_UINT(op->swept, 0); break;
    default: CHECK(op->applied == stored); break;
    }
}

/* An outcome that is unknown must turn out to be one or the other. */
static void check_after(kit *k, const struct script *s) {
    char value[4];
    bool held = kit_keep(k, "a", 1);

    if ((s->ops[0].error.flags & HF_OUTCOME_UNKNOWN) == 0) CHECK(held == s->ops[0].applied);
    CHECK(kit_keep(k, "b", 1) == held);
    kit_drop(k, "a", 1);
    kit_drop(k, "b", 1);
    kit_drop(k, "a", 2);
    CHECK(kit_take(k, "a", 3, NULL));
    CHECK(kit_take(k, "b", 3, NULL));
    CHECK(kit_drop(k, "a", 3));
    CHECK(kit_drop(k, "b", 3));
    CHECK(kit_get(k, "counter", value, sizeof value, NULL) ==
          (s->ops[2].applied || (s->ops[2].error.flags & HF_OUTCOME_UNKNOWN) != 0));
}

/* How a run goes. */
enum { STICKY = 1, TOGETHER = 2, OPENED = 4 };

/* Runs all with the n-th allocation failing; false when there were not so many. */
static bool run_script(uint64_t n, unsigned how, const hf_allocator *allocator) {
    static struct script s;
    uint64_t failed;
    kit k;

    unlink(kit_file("memory.db").text);
    kit_init(&k, kit_file("memory.db").text, NULL, KIT_BLOCKING);
    if (allocator != NULL) k.store->env.allocator = allocator;
    if ((how & OPENED) != 0) CHECK_INT(kit_open(&k).code, HF_OK);
    write_script(&k, &s);
    arm(n, (how & STICKY) != 0);
    for (int i = 0; i < STEPS; i++) {
        kit_submit(&k, &s.ops[i]);
        if ((how & TOGETHER) == 0) kit_wait(&k);
    }
    kit_wait(&k);
    failed = memory.failed;
    arm(0, false);
    for (int i = 0; i < STEPS; i++)
        check_step(&s, i);
    check_after(&k, &s);
    for (int i = 0; i < STEPS; i++)
        hf_op_reset(&s.ops[i]);
    k.store->env.allocator = k.env.allocator;
    kit_fini(&k);
    return failed > 0;
}

/* Fails one allocation after the other until there are no more to fail, `stride` apart. */
static void run_all(unsigned how, uint64_t stride, uint64_t least, const hf_allocator *allocator) {
    uint64_t n = 1;
    int64_t live;

    powerloss_install();                         /* its syncs cost nothing */
    CHECK(!run_script(1000000, how, allocator)); /* what SQLite keeps for good is there now */
    live = memory.live;
    while (run_script(n, how, allocator)) {
        CHECK_INT(memory.live, live);
        n += stride;
    }
    powerloss_uninstall();
    CHECK(n > least);
}

TEST(one_allocation_fails) {
    run_all(OPENED, 1, 30, NULL);
}

TEST(one_allocation_fails_in_a_batch) {
    run_all(OPENED | TOGETHER, 1, 30, NULL);
}

TEST(all_allocations_fail_from_one_on) {
    run_all(OPENED | STICKY, 1, 30, NULL);
}

TEST(all_allocations_fail_from_one_on_in_a_batch) {
    run_all(OPENED | STICKY | TOGETHER, 1, 30, NULL);
}

/* Opening reads the schema and compiles the statements: thousands, of a few kinds. */
TEST(one_allocation_fails_while_opening) {
    run_all(0, 11, 1000, NULL);
}

TEST(all_allocations_fail_from_one_on_while_opening) {
    run_all(STICKY | TOGETHER, 13, 1000, NULL);
}

/* SQLite's fail along with them. */
TEST(allocations_of_the_engine_fail) {
    const hf_allocator failing = {engine_resize, (void *)(uintptr_t)hf__allocator_libc()};

    run_all(OPENED, 1, 30, &failing);
    run_all(OPENED | STICKY, 1, 30, &failing);
}
