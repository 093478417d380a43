/*
 * Holdfast from C, without Node: locks a key on an SQLite file, does its work, lets go.
 *
 *     make -C test/c examples && build-c/plain/examples/lock ./holdfast.db nightly
 *
 * Run it twice at once: the second waits until the first has released.
 */
#include "holdfast.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static hf_client *client;
static hf_engine *engine;
static uv_timer_t work;
static int status = 1;

static void on_client_closed(void *data) {
    (void)data;
    hf_engine_close(engine, NULL, NULL);
}

static void finish(hf_lock *lock) {
    if (lock != NULL) hf_lock_free(lock);
    uv_close((uv_handle_t *)&work, NULL);
    hf_client_close(client, 1000, on_client_closed, NULL);
}

static void on_released(void *data, hf_lock *lock, bool was_held, const hf_error *error) {
    (void)data;
    if (error != NULL)
        fprintf(stderr, "release: %s\n", error->message);
    else
        printf("released%s\n", was_held ? "" : ", but it had been lost");
    status = error == NULL && was_held ? 0 : 1;
    finish(lock);
}

static void on_work_done(uv_timer_t *timer) {
    hf_lock *lock = timer->data;
    if (hf_lock_release(lock, on_released, NULL) != HF_OK) finish(lock);
}

static void on_acquired(void *data, hf_lock *lock, const hf_lock_result *result) {
    (void)data;
    if (result->error != NULL) {
        fprintf(stderr, "%s: %s\n", hf_code_name(result->error->code), result->error->message);
        finish(lock);
        return;
    }
    printf("held after %" PRIu64 " ms, fence %" PRIu64 ", %" PRIu64 " ms left unless renewed\n",
           result->waited_ms, hf_lock_fence(lock), hf_lock_remaining_ms(lock));
    work.data = lock;
    uv_timer_start(&work, on_work_done, 500, 0); /* the work */
}

int main(int argc, char **argv) {
    hf_error error;
    hf_lock *lock;
    char url[1100];
    if (argc != 3) {
        fprintf(stderr, "usage: lock FILE KEY\n");
        return 2;
    }
    snprintf(url, sizeof(url), "sqlite:%s", argv[1]);
    hf_slice key = {argv[2], strlen(argv[2])};
    uv_loop_t *loop = uv_default_loop();
    uv_timer_init(loop, &work);
    if (hf_engine_open(loop, NULL, &engine, &error) != HF_OK ||
        hf_client_open(engine, (hf_slice){url, strlen(url)}, NULL, &client, &error) != HF_OK) {
        fprintf(stderr, "%s: %s\n", hf_code_name(error.code), error.message);
        return 1;
    }
    hf_lock_options options = {.keys = &key,
                               .n_keys = 1,
                               .ttl_ms = 1000,
                               .wait_ms = 10000,
                               .max_hold_ms = HF_FOREVER,
                               .max_stall_ms = 60000,
                               .limit = 1,
                               .renew = true};
    if (hf_lock_acquire(client, &options, on_acquired, NULL, NULL, &lock, &error) != HF_OK) {
        fprintf(stderr, "%s: %s\n", hf_code_name(error.code), error.message);
        finish(NULL);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    return status;
}
