/* Whether the model finds what is wrong with a store: the memory store with one fault planted in it
 * at a time. Each must be found, and the program that shows it must shrink to a few steps.
 * HF_SEED=n begins there, and HF_MODEL_SHOW=1 prints those programs. */
#include "harness.h"
#include "store/stores.h"
#include "support-model-run.h"
#include "support-model.h"
#include "util/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- a store with a fault */

/* The clock of the store under test, turned back for the length of a call. Vtables have nothing to
 * hang a context on. */
static struct {
    hf_clock clock;
    const hf_clock *under;
    uint64_t back_ns;
} planted;

static uint64_t earlier_ns(void *data) {
    (void)data;
    return hf__now_ns(planted.under) - planted.back_ns;
}

static uint64_t real_us(void *data) {
    (void)data;
    return hf__real_us(planted.under);
}

/* As fine as the clock since boot, or it would differ for that. */
static uint64_t wall_ns(void *data) {
    (void)data;
    return hf__real_us(planted.under) * 1000 + hf__now_ns(planted.under) % 1000;
}

static hf_code begin_with(hf_store *store, uint64_t (*boot_ns)(void *data), hf_error *error) {
    planted.under = store->env.clock;
    planted.clock = *planted.under;
    planted.clock.boot_ns = boot_ns;
    planted.clock.real_us = real_us;
    store->env.clock = &planted.clock;
    return hf__memory_store.init(store, error);
}

static hf_code begin_turned_back(hf_store *store, hf_error *error) {
    return begin_with(store, earlier_ns, error);
}

static hf_code begin_on_the_wall_clock(hf_store *store, hf_error *error) {
    return begin_with(store, wall_ns, error);
}

/* What stands between an op and its caller: the fault has a say before and after. */
typedef struct veil {
    hf_op_cb done;
    void *data;
    void (*after)(hf_op *op);
    hf_op asked; /* what its caller asked for */
} veil;

static void on_done(hf_op *op) {
    veil *v = op->data;

    op->done = v->done;
    op->data = v->data;
    op->limit = v->asked.limit;
    op->flags = v->asked.flags;
    op->n_keys = v->asked.n_keys;
    op->ttl_ms = v->asked.ttl_ms;
    op->replace_token = v->asked.replace_token;
    if (v->after != NULL) v->after(op);
    free(v);
    op->done(op);
}

static void cover(hf_op *ops, void (*before)(hf_op *op), void (*after)(hf_op *op)) {
    for (hf_op *op = ops; op != NULL; op = op->next) {
        veil *v = calloc(1, sizeof *v);

        if (v == NULL) abort();
        *v = (veil){.done = op->done, .data = op->data, .after = after, .asked = *op};
        op->done = on_done;
        op->data = v;
        if (before != NULL) before(op);
    }
}

/* ---------------------------------------------------------------- faults */

/* Limits are one more than they say. */
static bool is_permits(uint32_t limit) {
    return limit > 1 && limit != HF_SHARED;
}

static void allow_one_more(hf_op *op) {
    op->limit += is_permits(op->limit);
}

static void say_one_less(hf_op *op) {
    if (op->holder != NULL) op->holder->limit -= is_permits(op->holder->limit);
    for (size_t i = 0; i < op->n_rows; i++)
        op->rows[i].holder.limit -= is_permits(op->rows[i].holder.limit);
}

static void take_one_too_many(hf_store *store, hf_op *ops) {
    cover(ops, allow_one_more, say_one_less);
    hf__memory_store.take(store, ops);
}

static void list_one_less(hf_store *store, hf_op *ops) {
    cover(ops, NULL, say_one_less);
    hf__memory_store.list(store, ops);
}

static void forget_intent(hf_op *op) {
    op->flags &= ~HF_OP_INTENT;
}

static void take_without_mark(hf_store *store, hf_op *ops) {
    cover(ops, forget_intent, NULL);
    hf__memory_store.take(store, ops);
}

/* Every second fence is the one before once more. */
static void repeat_fences(hf_op *op) {
    op->fence &= ~UINT64_C(1);
    if (op->holder != NULL) op->holder->fence &= ~UINT64_C(1);
    for (size_t i = 0; i < op->n_rows; i++)
        op->rows[i].holder.fence &= ~UINT64_C(1);
}

static void take_with_old_fence(hf_store *store, hf_op *ops) {
    cover(ops, NULL, repeat_fences);
    hf__memory_store.take(store, ops);
}

static void list_old_fences(hf_store *store, hf_op *ops) {
    cover(ops, NULL, repeat_fences);
    hf__memory_store.list(store, ops);
}

static void lengthen(hf_op *op) {
    op->ttl_ms += planted.back_ns / HF_NS_PER_MS;
}

/* Does not look whether the lease has lapsed within the last minute. */
static void keep_the_dead(hf_store *store, hf_op *ops) {
    uint64_t now = hf__now_ns(planted.under);
    uint64_t minute = 60000 * HF_NS_PER_MS;

    planted.back_ns = now < minute ? now - now % HF_NS_PER_MS : minute;
    cover(ops, lengthen, NULL);
    hf__memory_store.keep(store, ops);
    planted.back_ns = 0;
}

/* At its deadline a lease is still there. */
static void take_at_the_deadline(hf_store *store, hf_op *ops) {
    planted.back_ns = 1;
    hf__memory_store.take(store, ops);
    planted.back_ns = 0;
}

static void only_one_key(hf_op *op) {
    op->n_keys = 1;
}

static void take_first_key(hf_store *store, hf_op *ops) {
    cover(ops, only_one_key, NULL);
    hf__memory_store.take(store, ops);
}

static void drop_first_key(hf_store *store, hf_op *ops) {
    cover(ops, only_one_key, NULL);
    hf__memory_store.drop(store, ops);
}

static void from_nobody(hf_op *op) {
    memset(&op->replace_token, 0, sizeof op->replace_token);
}

static void take_without_handing_over(hf_store *store, hf_op *ops) {
    cover(ops, from_nobody, NULL);
    hf__memory_store.take(store, ops);
}

/* A fault, and the most steps that may be left of a program that shows it. */
typedef struct fault {
    const char *name;
    size_t steps;
    hf_store_vtable vt; /* what is not the memory store's */
} fault;

static const fault faults[] = {
    {"one holder too many is admitted", 4, {.take = take_one_too_many, .list = list_one_less}},
    {"an intent mark is forgotten", 5, {.take = take_without_mark}},
    {"a fence repeats", 4, {.take = take_with_old_fence, .list = list_old_fences}},
    {"keep brings back what has lapsed", 5, {.init = begin_turned_back, .keep = keep_the_dead}},
    {"a lapsed lease counts", 6, {.init = begin_turned_back, .take = take_at_the_deadline}},
    {"leases go by the wall clock", 4, {.init = begin_on_the_wall_clock}},
    {"only one of several keys is taken", 2, {.take = take_first_key}},
    {"only one of several keys is dropped", 4, {.drop = drop_first_key}},
    {"a hand-over is any take", 2, {.take = take_without_handing_over}},
};

static void fresh(char *url, size_t size) {
    snprintf(url, size, "memory:");
}

static hf_store_vtable vtable_of(const fault *f) {
    hf_store_vtable vt = hf__memory_store;

    if (f->vt.init != NULL) vt.init = f->vt.init;
    if (f->vt.take != NULL) vt.take = f->vt.take;
    if (f->vt.keep != NULL) vt.keep = f->vt.keep;
    if (f->vt.drop != NULL) vt.drop = f->vt.drop;
    if (f->vt.list != NULL) vt.list = f->vt.list;
    return vt;
}

static hunt *find(const fault *f, uint64_t seed, bool report) {
    hf_store_vtable vt = vtable_of(f);
    model_row row = {
        .name = f->name, .subject = {.vt = &vt, .fresh = fresh, .own_clock = true}, .instances = 2};
    hunt *h = calloc(1, sizeof *h);

    if (h == NULL) abort();
    *h = (hunt){.seed = seed, .runs = 2000};
    if (!model_hunt(&row, h))
        FAIL("not found: %s", f->name);
    else if (report)
        model_report(&row, h);
    return h;
}

static uint64_t the_seed(void) {
    const char *given = getenv("HF_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : uv_hrtime() % 1000000000;

    printf("    HF_SEED=%" PRIu64 "\n", seed);
    return seed;
}

TEST(every_planted_fault_is_found_and_shown_in_a_few_steps) {
    uint64_t seed = the_seed();

    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        hunt *h = find(&faults[i], seed, getenv("HF_MODEL_SHOW") != NULL);

        printf("    %s: after %" PRIu64 " programs, %zu steps, of %zu\n", faults[i].name,
               h->programs, h->found.n, h->found_size);
        CHECK(h->found.n <= faults[i].steps);
        free(h);
    }
}

TEST(a_seed_finds_the_same_program_again) {
    uint64_t seed = the_seed();

    for (size_t i = 0; i < 3; i++) {
        hunt *first = find(&faults[i], seed, false);
        hunt *second = find(&faults[i], seed, false);

        CHECK_UINT(first->found_seed, second->found_seed);
        CHECK_UINT(first->found.n, second->found.n);
        CHECK_MEM(first->found.steps, second->found.steps,
                  first->found.n * sizeof first->found.steps[0]);
        free(first);
        free(second);
    }
}
