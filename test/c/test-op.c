/* core: errors, ops, the deferred end of an op, and what stands between the core and a store. */
#include "core/defer.h"
#include "core/error.h"
#include "core/op.h"
#include "core/store.h"
#include "harness.h"
#include "store/registry.h"
#include "util/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An allocator with a budget: so many allocations succeed. */
typedef struct budget {
    hf_allocator allocator;
    int left;
    int blocks;
} budget;

static void *spend(void *data, void *p, size_t size) {
    budget *b = data;

    if (size == 0) {
        b->blocks -= p != NULL;
        free(p);
        return NULL;
    }
    if (b->left-- <= 0) return NULL;
    b->blocks += p == NULL;
    return realloc(p, size);
}

static void budget_init(budget *b, int left) {
    *b = (budget){.allocator = {spend, b}, .left = left};
}

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

/* ---- errors */

TEST(error_names) {
    CHECK_STR(hf_code_name(HF_OK), "HF_OK");
    CHECK_STR(hf_code_name(HF_ETIMEDOUT), "HF_ETIMEDOUT");
    CHECK_STR(hf_code_name(HF_ENETFS), "HF_ENETFS");
    CHECK_STR(hf_code_name(HF_CODE_COUNT), "HF_E?");
    CHECK_STR(hf_code_name((hf_code)9999), "HF_E?");
    CHECK_STR(hf_code_text(HF_ENOMEM), "out of memory");
    for (int code = 0; code <= HF_CODE_COUNT; code++)
        CHECK(strlen(hf_code_text((hf_code)code)) > 5);
}

TEST(error_is_set_whole) {
    hf_error error;

    memset(&error, 0xff, sizeof error);
    CHECK_INT(hf__error_set(&error, HF_EBUSY, HF_RETRYABLE, "%s %d", "waited", 5), HF_EBUSY);
    CHECK_STR(error.message, "waited 5");
    CHECK_INT(error.native, 0);
    CHECK_STR(error.state, "");
    CHECK(hf__error_is_transient(&error));
    hf__error_native(&error, HF_EIO, HF_RETRYABLE | HF_OUTCOME_UNKNOWN, 522, NULL);
    CHECK_INT(error.native, 522);
    CHECK_STR(error.message, hf_code_text(HF_EIO));
    CHECK(!hf__error_is_transient(&error));
    hf__error_clear(&error);
    CHECK_INT(error.code, HF_OK);
    CHECK_STR(error.message, "");
}

/* A message that is cut keeps its bound, and no half of a character. */
static void check_cut(const char *tail, size_t kept) {
    char text[300];
    hf_error error;
    size_t room = sizeof error.message - 1;

    /* `kept` bytes of the tail fit. */
    memset(text, 'a', sizeof text);
    snprintf(text + room - kept, sizeof text - room + kept, "%s", tail);
    hf__error_set(&error, HF_EIO, 0, "%sbbbbbbbbbb", text);
    CHECK(strlen(error.message) <= room);
    if (kept == strlen(tail))
        CHECK_UINT(strlen(error.message), room);
    else
        CHECK_UINT(strlen(error.message), room - kept);
    CHECK(strncmp(error.message, text, strlen(error.message)) == 0);
}

TEST(error_is_cut_between_characters) {
    static const char *const tails[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x94\x92"};

    for (size_t i = 0; i < 3; i++) {
        for (size_t kept = 1; kept <= strlen(tails[i]); kept++)
            check_cut(tails[i], kept);
    }
    CHECK_INT(hf__shown(slice("short")), 5);
    CHECK_INT(hf__shown((hf_slice){"", 1000}), 64);
}

/* ---- tokens */

TEST(tokens) {
    const hf_token zero = {{0}};
    hf_token a;
    hf_token b;

    CHECK(hf_token_random(&a));
    CHECK(hf_token_random(&b));
    CHECK(!hf__token_is_zero(&a));
    CHECK(hf__token_is_zero(&zero));
    CHECK(hf__token_equal(&a, &a));
    CHECK(!hf__token_equal(&a, &b));
    CHECK(!hf__token_equal(&zero, &zero)); /* none is nobody, not the same */
}

/* ---- lists of ops */

TEST(op_list) {
    hf__op_list a = {NULL, NULL};
    hf__op_list b = {NULL, NULL};
    hf_op ops[5];

    for (int i = 0; i < 5; i++) {
        hf_op_init(&ops[i], HF_GET, NULL, NULL);
        hf__op_push(i < 3 ? &a : &b, &ops[i]);
    }
    CHECK(hf__op_remove(&a, &ops[1]));
    CHECK(!hf__op_remove(&a, &ops[1]));
    CHECK(!hf__op_remove(&a, &ops[4]));
    CHECK(hf__op_remove(&a, &ops[2])); /* the last: the next push must follow the new one */
    hf__op_append(&a, &b);
    hf__op_append(&a, &b);
    CHECK_NULL(b.first);
    CHECK(hf__op_pop(&a) == &ops[0]);
    CHECK(hf__op_pop(&a) == &ops[3]);
    CHECK(hf__op_remove(&a, &ops[4]));
    CHECK_NULL(hf__op_pop(&a));
    hf__op_push(&a, &ops[2]);
    CHECK(hf__op_pop(&a) == &ops[2]);
    CHECK_NULL(a.last);
}

/* ---- outputs */

TEST(op_out) {
    budget b;
    hf_op op;

    budget_init(&b, 2);
    hf_op_init(&op, HF_GET, NULL, NULL);
    op.allocator = &b.allocator;
    CHECK(hf__op_set_out(&op, "one", 3));
    CHECK(hf__op_set_out(&op, "two", 3)); /* in the place of the first */
    CHECK_INT(b.blocks, 1);
    CHECK(!hf__op_set_out(&op, "three", 5));
    CHECK_INT(op.error.code, HF_ENOMEM);
    CHECK_MEM(op.out.data, "two", 3);
    CHECK(hf__op_set_out(&op, NULL, 0));
    CHECK_UINT(op.out.len, 0);
    op.applied = true;
    op.refused = HF_REFUSED_HELD;
    op.fence = op.version = op.left_ms = 1;
    op.attempt = op.swept = 1;
    op.sum = 1;
    op.entry.present = true;
    hf_op_reset(&op);
    CHECK_INT(b.blocks, 0);
    CHECK_INT(op.error.code, HF_OK);
    CHECK(!op.applied && op.refused == 0 && op.fence == 0 && op.version == 0 && op.left_ms == 0);
    CHECK(op.attempt == 0 && op.swept == 0 && op.sum == 0 && !op.entry.present);
    CHECK_INT(op.verb, HF_GET);
}

TEST(op_rows) {
    hf_holder holder = {.fence = 7};
    budget b;
    hf_op op;
    int added = 0;

    budget_init(&b, 1000);
    hf_op_init(&op, HF_LIST, NULL, NULL);
    op.allocator = &b.allocator;
    op.stamp = 99; /* whatever its last user left there */
    for (; added < 100; added++) {
        char key[16];
        snprintf(key, sizeof key, "key %d", added);
        REQUIRE(hf__op_add_row(&op, slice(key), &holder));
    }
    CHECK_UINT(op.n_rows, 100);
    CHECK_STR(op.rows[99].key.data, "key 99");
    CHECK_UINT(op.rows[99].holder.fence, 7);
    hf_op_reset(&op);
    CHECK_INT(b.blocks, 0);

    /* Whichever allocation fails, the rows are gone and say so. */
    for (int left = 0; left < 12; left++) {
        bool ok = true;
        budget_init(&b, left);
        for (int i = 0; i < 20 && ok; i++)
            ok = hf__op_add_row(&op, slice("k"), &holder);
        CHECK(!ok);
        CHECK_INT(op.error.code, HF_ENOMEM);
        CHECK_UINT(op.n_rows, 0);
        CHECK_INT(b.blocks, 0);
        hf_op_reset(&op);
    }
}

/* ---- the bracket, and finish */

typedef struct log {
    hf__scope scope;
    char text[64];
} log;

static void note(log *l, char what) {
    size_t len = strlen(l->text);

    if (len + 1 < sizeof l->text) l->text[len] = what;
}

static void on_enter(void *data) {
    note(data, '(');
}

static void on_leave(void *data) {
    note(data, ')');
}

static void log_init(log *l) {
    *l = (log){.scope = {on_enter, on_leave, l, 0}};
}

static void on_done(hf_op *op) {
    CHECK_INT(op->phase, HF__OP_FREE);
    CHECK_NULL(op->next);
    note(op->data, (char)('a' + op->limit));
}

static void on_done_free(hf_op *op) {
    note(op->data, 'f');
    hf_op_reset(op);
    free(op);
}

TEST(scope_nests) {
    log l;

    log_init(&l);
    hf__scope_enter(&l.scope);
    hf__scope_enter(&l.scope);
    hf__scope_leave(&l.scope);
    CHECK_STR(l.text, "(");
    hf__scope_leave(&l.scope);
    CHECK_STR(l.text, "()");
    hf__scope_enter(NULL);
    hf__scope_leave(NULL);
    hf__scope_enter(&(hf__scope){0});
}

TEST(finish_brackets_and_ends_each) {
    hf__op_list list = {NULL, NULL};
    hf_op ops[2];
    hf_op *freed = malloc(sizeof *freed);
    hf_error error;
    log l;

    log_init(&l);
    hf__op_finish(&l.scope, &list); /* of nothing: no bracket */
    CHECK_STR(l.text, "");
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        hf_op_init(&ops[i], HF_GET, on_done, &l);
        ops[i].limit = i;
        ops[i].phase = HF__OP_PENDING;
    }
    hf_op_init(freed, HF_GET, on_done_free, &l);
    freed->phase = HF__OP_PENDING;
    hf__op_push(&list, &ops[0]);
    hf__op_push(&list, freed);
    ops[1].applied = true;
    hf__op_fail(&list, &ops[1], &error);
    hf__op_finish(&l.scope, &list);
    CHECK_STR(l.text, "(afb)");
    CHECK_NULL(list.first);
    CHECK_INT(ops[1].error.code, HF_ECLOSED);
    CHECK(!ops[1].applied);
}

/* ---- defer */

typedef struct deferred {
    log log;
    uv_loop_t loop;
    uv_async_t alive;
    hf__defer defer;
    hf_op second;
} deferred;

static void on_done_push(hf_op *op) {
    deferred *d = op->data;

    note(&d->log, '1');
    d->second.phase = HF__OP_PENDING;
    hf__defer_push(&d->defer, &d->second);
    note(&d->log, '.'); /* the second does not end within the first */
}

static void on_closed(void *data) {
    note(data, 'c');
}

TEST(defer_ends_in_the_next_turn) {
    deferred d;
    hf_op first;

    log_init(&d.log);
    uv_loop_init(&d.loop);
    uv_async_init(&d.loop, &d.alive, NULL);
    hf__defer_init(&d.defer, &d.loop, &d.log.scope);
    hf_op_init(&first, HF_GET, on_done_push, &d);
    hf_op_init(&d.second, HF_GET, on_done, &d.log);
    first.phase = HF__OP_PENDING;
    hf__defer_push(&d.defer, &first);
    CHECK_STR(d.log.text, "");
    /* The loop does not sleep over what waits. */
    CHECK_INT(uv_backend_timeout(&d.loop), 0);
    uv_run(&d.loop, UV_RUN_ONCE);
    CHECK_STR(d.log.text, "(1.)");
    uv_run(&d.loop, UV_RUN_ONCE);
    CHECK_STR(d.log.text, "(1.)(a)");
    CHECK_INT(uv_backend_timeout(&d.loop), -1); /* idle again */
    uv_close((uv_handle_t *)&d.alive, NULL);
    uv_run(&d.loop, UV_RUN_ONCE);
    CHECK(!uv_loop_alive(&d.loop)); /* what waits for an op keeps the loop; the defer does not */
    hf__defer_close(&d.defer, on_closed, &d.log);
    uv_run(&d.loop, UV_RUN_DEFAULT);
    CHECK_STR(d.log.text, "(1.)(a)c");
    CHECK_INT(uv_loop_close(&d.loop), 0);
}

/* ---- the store seam */

static hf_code refuse_init(hf_store *store, hf_error *error) {
    CHECK_NULL(((void **)(store + 1))[0]); /* zeroed */
    return hf__error_set(error, HF_EINVAL, 0, "no");
}

TEST(store_new_can_fail) {
    const hf_store_vtable vt = {.size = sizeof(hf_store) + 16, .init = refuse_init};
    hf__store_env env = {.loop = NULL};
    hf_error error;
    budget b;

    budget_init(&b, 1);
    env.allocator = &b.allocator;
    CHECK_NULL(hf__store_new(&vt, &env, &error));
    CHECK_INT(error.code, HF_EINVAL);
    CHECK_INT(b.blocks, 0);
    CHECK_NULL(hf__store_new(&vt, &env, &error));
    CHECK_INT(error.code, HF_ENOMEM);
}

TEST(store_has_its_verbs) {
    const hf_store_vtable *memory = hf__store_find(slice("memory"));
    const hf_store_vtable none = {.name = "none"};

    REQUIRE(memory != NULL);
    for (int verb = HF_TAKE; verb <= HF_CLOSE; verb++) {
        CHECK(hf__store_has(memory, (hf_verb)verb));
        CHECK(!hf__store_has(&none, (hf_verb)verb));
    }
}

TEST(stores_are_found_by_scheme) {
    CHECK_STR(hf__store_find(slice("memory"))->name, "memory");
    CHECK_STR(hf__store_find(slice("sqlite"))->name, "sqlite");
    CHECK_NULL(hf__store_find(slice("")));
    CHECK_NULL(hf__store_find(slice("mem")));
    CHECK_NULL(hf__store_find(slice("memory2")));
}

TEST(next_fence) {
    CHECK_UINT(hf__next_fence(5, true, 1000), 6);
    CHECK_UINT(hf__next_fence(5, false, 1000), 1000);
    CHECK_UINT(hf__next_fence(5000, false, 1000), 5001); /* the clock is behind */
    CHECK_UINT(hf__next_fence(0, false, 0), 1);
}
