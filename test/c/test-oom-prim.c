/* Out of memory above the stores: every allocation of a scenario fails in turn. Whatever fails says
 * HF_ENOMEM, every callback that is due still comes, nothing leaks and nothing stays held. */
#include "support-host.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_long countdown; /* 0: off */
static atomic_long balance;
static atomic_int failures;

static void *failing_resize(void *data, void *p, size_t size) {
    (void)data;
    if (size == 0) {
        if (p != NULL) atomic_fetch_sub(&balance, 1);
        free(p);
        return NULL;
    }
    if (atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1) {
        atomic_fetch_add(&failures, 1);
        return NULL;
    }
    void *q = realloc(p, size);
    if (q == NULL) abort();
    if (p == NULL) atomic_fetch_add(&balance, 1);
    return q;
}

static const hf_allocator allocator = {.resize = failing_resize};

static bool fine(hf_code code) {
    bool ok = code == HF_OK || code == HF_ENOMEM;
    if (!ok) FAIL("ended with %s", hf_code_name(code));
    return code == HF_OK;
}

static void use_lock(host *h) {
    held l;
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    o.note = slice("a note");
    if (!fine(held_ask(h, &l, &o))) return;
    host_until(h, &l.answered, 1);
    if (fine(l.code)) {
        if (fine(held_extend(&l, 40000))) host_until(h, &l.extended, 1);
        hf_code code = held_release(&l);
        if (fine(code)) host_until(h, &l.released, 1);
        CHECK(!hf_lock_held(l.lock));
    }
    hf_lock_free(l.lock);
}

/* One holds, two of the same key and one reader wait: handed over, watched, tried in rounds. */
static void use_queue(host *h) {
    held l[4];
    bool asked[4];
    hf_slice key = slice("k");
    for (int i = 0; i < 4; i++) {
        hf_lock_options o = lock_options(&key, 1);
        if (i == 3) o.limit = HF_SHARED;
        asked[i] = fine(held_ask(h, &l[i], &o));
    }
    for (int i = 0; i < 4; i++) {
        if (!asked[i]) continue;
        host_until(h, &l[i].answered, 1);
        if (fine(l[i].code)) {
            hf_code code = held_release(&l[i]);
            if (fine(code)) host_until(h, &l[i].released, 1);
        }
        hf_lock_free(l[i].lock);
    }
}

typedef struct seen {
    int count;
    hf_code code;
    bool replay;
} seen;

static void on_begun(void *data, hf_run *run, const hf_once_result *result) {
    seen *s = data;
    (void)run;
    s->count++;
    s->code = result->error == NULL ? HF_OK : result->error->code;
    s->replay = result->replay;
}

static void on_ended(void *data, hf_run *run, const hf_error *error) {
    seen *s = data;
    (void)run;
    s->count++;
    s->code = error == NULL ? HF_OK : error->code;
}

static void use_once(host *h) {
    seen s = {0};
    hf_run *run;
    hf_error error;
    hf_once_options o = {.key = slice("pay"),
                         .ttl_ms = 60000,
                         .lease_ms = 30000,
                         .wait_ms = 0,
                         .max_stall_ms = 60000,
                         .fingerprint = slice("print")};
    if (!fine(hf_once_begin(h->client, &o, on_begun, NULL, &s, &run, &error))) return;
    host_until(h, &s.count, 1);
    if (fine(s.code) && !s.replay) {
        hf_code code = hf_run_finish(run, slice("42"), HF_JSON, false, on_ended, &s);
        if (fine(code)) {
            host_until(h, &s.count, 2);
            fine(s.code);
        }
        if (code != HF_OK || s.code != HF_OK) {
            s.count = 0;
            if (fine(hf_run_abandon(run, on_ended, &s))) host_until(h, &s.count, 1);
        }
    }
    hf_run_free(run);
}

static void on_op(hf_op *op) {
    ++*(int *)op->data;
}

static void use_value(host *h) {
    hf_op op;
    hf_error error;
    int done = 0;
    hf_slice key = slice("v");
    hf_op_init(&op, HF_PUT, on_op, &done);
    op.space = HF_VALUES;
    op.keys = &key;
    op.n_keys = 1;
    op.value = slice("17");
    op.format = HF_JSON;
    if (fine(hf_submit(h->client, &op, &error))) {
        host_until(h, &done, 1);
        fine(op.error.code);
    }
    hf_op_reset(&op);
    done = 0;
    hf_op_init(&op, HF_GET, on_op, &done);
    op.space = HF_VALUES;
    op.keys = &key;
    op.n_keys = 1;
    if (fine(hf_submit(h->client, &op, &error))) {
        host_until(h, &done, 1);
        if (fine(op.error.code) && op.entry.present) CHECK_MEM(op.out.data, "17", 2);
    }
    hf_op_reset(&op);
}

static bool open_all(host *h, const char *url) {
    hf_error error;
    const hf_engine_options options = {.allocator = &allocator};
    memset(h, 0, sizeof(*h));
    CHECK_INT(uv_loop_init(&h->loop), 0);
    if (!fine(hf_engine_open(&h->loop, &options, &h->engine, &error))) {
        uv_run(&h->loop, UV_RUN_DEFAULT);
        CHECK_INT(uv_loop_close(&h->loop), 0);
        return false;
    }
    if (fine(hf_client_open(h->engine, slice(url), NULL, &h->client, &error))) return true;
    host_close(h);
    return false;
}

/* Runs `use` with the n-th allocation failing. True if it came to that. */
static bool scenario(const char *url, void (*use)(host *h), long n) {
    host h;
    atomic_store(&failures, 0);
    atomic_store(&balance, 0);
    atomic_store(&countdown, n);
    if (open_all(&h, url)) {
        use(&h);
        atomic_store(&countdown, 0);
        use(&h); /* and now that there is memory again */
        host_close(&h);
    }
    atomic_store(&countdown, 0);
    CHECK_INT(atomic_load(&balance), 0);
    return atomic_load(&failures) > 0;
}

static void every_allocation(const char *url, void (*use)(host *h)) {
    long n = 1;
    while (n < 1000 && scenario(url, use, n))
        n++;
    CHECK(n > 3);
    CHECK(n < 1000);
}

TEST(locks) {
    every_allocation("memory:", use_lock);
}

TEST(queues) {
    every_allocation("memory:", use_queue);
}

TEST(runs) {
    every_allocation("memory:", use_once);
}

TEST(values) {
    every_allocation("memory:", use_value);
}

TEST(on_sqlite) {
    char url[1024];
    snprintf(url, sizeof(url), "sqlite:%s/holdfast.db", hf_test_folder());
    every_allocation(url, use_lock);
    every_allocation(url, use_queue);
    every_allocation(url, use_once);
    every_allocation(url, use_value);
}
