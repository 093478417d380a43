#include "support-sqlite.h"

#include "harness.h"
#include "store/stores.h"
#include "util/alloc.h"
#include "util/clock.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t fake_ns(void *data) {
    return ((const kit *)data)->boot_ns;
}

static uint64_t fake_us(void *data) {
    return ((const kit *)data)->real_us;
}

static void on_warning(void *data, const hf_error *error) {
    kit *k = data;
    k->warnings++;
    k->warned = error->code;
}

void kit_init(kit *k, const char *path, const char *params, unsigned flags) {
    const hf_clock *system = hf__clock_system();
    const char *why = NULL;
    char text[600];
    hf_error error;

    memset(k, 0, sizeof *k);
    snprintf(text, sizeof text, "sqlite:%s%s%s", path, params ? "?" : "", params ? params : "");
    if (!hf__url_parse(&k->url, kit_slice(text), hf__allocator_libc(), &why)) abort();
    if (uv_loop_init(&k->loop) != 0) abort();
    k->boot_ns = hf__now_ns(system);
    k->real_us = hf__real_us(system);
    k->clock = (flags & KIT_FAKE_CLOCK) != 0 ? (hf_clock){fake_ns, fake_us, "boot-a", k} : *system;
    k->env = (hf__store_env){
        .loop = &k->loop,
        .allocator = hf__allocator_libc(),
        .clock = &k->clock,
        .url = &k->url,
        .blocking = (flags & KIT_BLOCKING) != 0,
        .warn = on_warning,
        .warn_data = k,
    };
    k->store = hf__store_new(&hf__sqlite_store, &k->env, &error);
    if (k->store == NULL) abort();
}

void kit_fini(kit *k) {
    hf_op op;

    hf_op_init(&op, HF_CLOSE, NULL, NULL);
    kit_run(k, &op);
    hf__store_free(k->store);
    uv_run(&k->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&k->loop), 0);
    hf__url_free(&k->url, k->env.allocator);
}

hf_error kit_open(kit *k) {
    hf_op op;

    hf_op_init(&op, HF_OPEN, NULL, NULL);
    kit_run(k, &op);
    return op.error;
}

void kit_set_boot(kit *k, const char *boot_id) {
    k->clock.boot_id = boot_id;
}

void kit_pass(kit *k, uint64_t ms) {
    k->boot_ns += ms * UINT64_C(1000000);
    k->real_us += ms * UINT64_C(1000);
}

static void on_done(hf_op *op) {
    ((kit *)op->data)->pending--;
}

void kit_op(kit *k, hf_op *op, hf_verb verb, hf_space space, const hf_slice *key) {
    hf_op_init(op, verb, on_done, k);
    op->space = (uint8_t)space;
    op->keys = key;
    op->limit = 1;
    op->ttl_ms = space == HF_LEASES ? 30000 : 0;
    op->who = kit_slice("1@test");
}

void kit_submit(kit *k, hf_op *op) {
    for (hf_op *each = op; each != NULL; each = each->next) {
        if (each->done == NULL) {
            each->done = on_done;
            each->data = k;
        }
        if (each->done == on_done) k->pending++;
    }
    hf__store_submit(k->store, op);
}

void kit_wait(kit *k) {
    while (k->pending > 0)
        uv_run(&k->loop, UV_RUN_ONCE);
}

void kit_run(kit *k, hf_op *op) {
    kit_submit(k, op);
    kit_wait(k);
}

hf_token kit_token(uint64_t n) {
    hf_token token = {{0}};
    memcpy(token.bytes, &n, sizeof n);
    return token;
}

hf_slice kit_slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

/* Runs an op of one key, checks that it did not fail, and leaves its results in place. */
static bool run_one(kit *k, hf_op *op) {
    kit_run(k, op);
    if (op->error.code != HF_OK)
        FAIL("verb %d: %s: %s", op->verb, hf_code_name(op->error.code), op->error.message);
    return op->applied;
}

static bool lease(kit *k, hf_verb verb, const char *key, uint64_t token, uint64_t *fence) {
    hf_slice slice = kit_slice(key);
    bool applied;
    hf_op op;

    kit_op(k, &op, verb, HF_LEASES, &slice);
    op.token = kit_token(token);
    applied = run_one(k, &op);
    if (fence != NULL) *fence = op.fence;
    hf_op_reset(&op);
    return applied;
}

bool kit_take(kit *k, const char *key, uint64_t token, uint64_t *fence) {
    return lease(k, HF_TAKE, key, token, fence);
}

bool kit_drop(kit *k, const char *key, uint64_t token) {
    return lease(k, HF_DROP, key, token, NULL);
}

bool kit_keep(kit *k, const char *key, uint64_t token) {
    return lease(k, HF_KEEP, key, token, NULL);
}

bool kit_put(kit *k, const char *key, const char *value, uint64_t token, uint64_t *version) {
    hf_slice slice = kit_slice(key);
    bool applied;
    hf_op op;

    kit_op(k, &op, HF_PUT, HF_VALUES, &slice);
    op.token = kit_token(token);
    op.value = kit_slice(value);
    applied = run_one(k, &op);
    if (version != NULL) *version = op.version;
    hf_op_reset(&op);
    return applied;
}

bool kit_get(kit *k, const char *key, char *value, size_t size, uint64_t *version) {
    hf_slice slice = kit_slice(key);
    bool present;
    hf_op op;

    kit_op(k, &op, HF_GET, HF_VALUES, &slice);
    run_one(k, &op);
    present = op.entry.present;
    snprintf(value, size, "%.*s", (int)op.out.len, op.out.len > 0 ? op.out.data : "");
    if (version != NULL) *version = op.entry.version;
    hf_op_reset(&op);
    return present;
}

kit_path kit_file(const char *name) {
    kit_path path;
    snprintf(path.text, sizeof path.text, "%s/%s", hf_test_folder(), name);
    return path;
}

pid_t kit_fork(int (*run)(void *data), void *data) {
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) _exit(run(data));
    return pid;
}

int kit_wait_for(pid_t pid) {
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

bool kit_sql(const char *path, const char *sql) {
    sqlite3 *db = NULL;
    bool ok = sqlite3_open(path, &db) == SQLITE_OK &&
              sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;

    if (!ok) printf("    %s: %s\n", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
    return ok;
}

bool kit_copy(const char *from, const char *to) {
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    char buffer[4096];
    size_t n;
    bool ok = in != NULL && out != NULL;

    while (ok && (n = fread(buffer, 1, sizeof buffer, in)) > 0)
        ok = fwrite(buffer, 1, n, out) == n;
    if (in != NULL) fclose(in);
    if (out != NULL) ok = fclose(out) == 0 && ok;
    return ok;
}
