#include "support-host.h"

#include <stdio.h>
#include <string.h>

int held_answers;

void host_open_with(host *h, const char *url, const hf_engine_options *options) {
    hf_error error = {0};
    char path[4096];
    memset(h, 0, sizeof(*h));
    if (strcmp(url, "sqlite:") == 0) {
        snprintf(path, sizeof(path), "sqlite:%s/holdfast.db", hf_test_folder());
        url = path;
    }
    CHECK_INT(uv_loop_init(&h->loop), 0);
    CHECK_INT(hf_engine_open(&h->loop, options, &h->engine, &error), HF_OK);
    CHECK_INT(hf_client_open(h->engine, slice(url), NULL, &h->client, &error), HF_OK);
    CHECK_STR(error.message, "");
}

void host_open(host *h, const char *url) {
    host_open_with(h, url, NULL);
}

static void on_closed(void *data) {
    *(int *)data = 1;
}

void host_close(host *h) {
    int closed = 0;
    hf_engine_close(h->engine, on_closed, &closed);
    uv_run(&h->loop, UV_RUN_DEFAULT);
    CHECK_INT(closed, 1);
    CHECK_INT(uv_loop_close(&h->loop), 0);
}

static void on_alarm(uv_timer_t *timer) {
    *(bool *)timer->data = true;
}

static void run_until(host *h, const int *flag, int count, uint64_t ms, bool must) {
    uv_timer_t alarm;
    bool rang = false;
    uv_timer_init(&h->loop, &alarm);
    alarm.data = &rang;
    uv_timer_start(&alarm, on_alarm, ms, 0);
    while (!rang && (flag == NULL || *flag < count))
        uv_run(&h->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&alarm, NULL);
    uv_run(&h->loop, UV_RUN_NOWAIT);
    if (must && *flag < count) FAIL("waited in vain: %d of %d", *flag, count);
}

void host_until(host *h, const int *flag, int count) {
    run_until(h, flag, count, 30000, true);
}

void host_run_ms(host *h, uint64_t ms) {
    run_until(h, NULL, 0, ms, false);
}

/* ---------------------------------------------------------------- locks */

hf_lock_options lock_options(const hf_slice *keys, size_t n_keys) {
    return (hf_lock_options){.keys = keys,
                             .n_keys = n_keys,
                             .ttl_ms = 30000,
                             .wait_ms = 10000,
                             .max_hold_ms = HF_FOREVER,
                             .max_stall_ms = 60000,
                             .limit = 1,
                             .renew = true};
}

static void on_acquired(void *data, hf_lock *lock, const hf_lock_result *result) {
    held *l = data;
    l->lock = lock;
    l->answered++;
    l->order = ++held_answers;
    l->code = result->error == NULL ? HF_OK : result->error->code;
    l->held_here = result->held_here;
    l->holder_known = result->holder != NULL;
}

static void on_lost(void *data, hf_lock *lock, const hf_error *why) {
    held *l = data;
    (void)lock;
    l->lost++;
    l->why = *why;
}

static void on_released(void *data, hf_lock *lock, bool was_held, const hf_error *error) {
    held *l = data;
    (void)lock;
    l->released++;
    l->was_held = was_held;
    l->release_code = error == NULL ? HF_OK : error->code;
}

static void on_extended(void *data, hf_lock *lock, const hf_error *error) {
    held *l = data;
    (void)lock;
    l->extended++;
    l->extend_code = error == NULL ? HF_OK : error->code;
}

hf_code held_ask(host *h, held *l, const hf_lock_options *options) {
    hf_error error;
    memset(l, 0, sizeof(*l));
    return hf_lock_acquire(h->client, options, on_acquired, on_lost, l, &l->lock, &error);
}

void held_take(host *h, held *l, const char *key) {
    hf_slice k = slice(key);
    hf_lock_options o = lock_options(&k, 1);
    CHECK_INT(held_ask(h, l, &o), HF_OK);
    host_until(h, &l->answered, 1);
    CHECK_INT(l->code, HF_OK);
}

hf_code held_release(held *l) {
    return hf_lock_release(l->lock, on_released, l);
}

hf_code held_extend(held *l, uint64_t ttl_ms) {
    return hf_lock_extend(l->lock, ttl_ms, on_extended, l);
}
