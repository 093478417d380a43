/* Every store against the model of its leases: random programs, and where one differs, the smallest
 * that does. HF_SEED=n begins with that one, HF_MODEL_RUNS=n runs so many on each store, and
 * HF_MODEL_SECONDS=n as many as take so long on all of them together. */
#include "harness.h"
#include "store/stores.h"
#include "support-model-run.h"
#include "support-model.h"
#include "support-postgres.h"
#include "support-redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void fresh_memory(char *url, size_t size) {
    snprintf(url, size, "memory:");
}

/* The file of the program before is not needed any more: there are thousands. */
static void fresh_sqlite(char *url, size_t size) {
    static const char *const ends[] = {"", "-wal", "-shm"};

    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/model.db%s", hf_test_folder(), ends[i]);
        (void)unlink(path);
    }
    snprintf(url, size, "sqlite:%s/model.db", hf_test_folder());
}

static const model_row rows[] = {
    {.name = "memory",
     .subject = {.vt = &hf__memory_store, .fresh = fresh_memory, .own_clock = true},
     .instances = 2,
     .runs = 1000},
    {.name = "sqlite",
     .subject = {.vt = &hf__sqlite_store, .fresh = fresh_sqlite, .own_clock = true, .lasts = true},
     .instances = 3,
     .runs = 60},
    {.name = "redis",
     .subject = {.vt = &hf__redis_store,
                 .fresh = redis_fresh,
                 .set_clock = redis_set_clock,
                 .lasts = true},
     .instances = 3,
     .runs = 200,
     .lists_at_length = true},
    {.name = "postgres",
     .subject = {.vt = &hf__postgres_store,
                 .fresh = postgres_fresh,
                 .set_clock = postgres_set_clock,
                 .lasts = true},
     .instances = 3,
     .runs = 40},
};

enum {
    ROWS = sizeof rows / sizeof rows[0],
    USUAL_SECONDS = 5, /* at most on each store, unless told; a slow machine does less */
};

static uint64_t read_number(const char *name, uint64_t otherwise) {
    const char *given = getenv(name);
    return given != NULL ? strtoull(given, NULL, 10) : otherwise;
}

static bool does_all(const model_row *row) {
    uint32_t caps = HF_CAP_SHARED | HF_CAP_LIST | HF_CAP_HAND_OVER;
    return row->subject.own_clock && (row->subject.vt->caps & caps) == caps;
}

static void compare(const model_row *row, uint64_t seed) {
    uint64_t runs = read_number("HF_MODEL_RUNS", 0);
    uint64_t seconds = read_number("HF_MODEL_SECONDS", 0);
    uint64_t start = uv_hrtime();
    hunt *h = calloc(1, sizeof *h);

    if (h == NULL) abort();
    h->seed = seed;
    h->runs = runs > 0 ? runs : seconds > 0 ? UINT64_MAX : row->runs;
    h->seconds = seconds > 0 ? (seconds + ROWS - 1) / ROWS : runs > 0 ? 0 : USUAL_SECONDS;
    if (model_hunt(row, h)) {
        model_report(row, h);
        FAIL("%s does not do as the model", row->name);
    }
    /* Programs that never get to a hand-over, say, would find nothing wrong with one. */
    if (h->programs >= 50 && does_all(row)) CHECK_UINT(h->saw, MODEL_SAW_ALL);
    printf("    %s: %" PRIu64 " programs, %" PRIu64 " steps, %" PRIu64 " ms\n", row->name,
           h->programs, h->steps, (uv_hrtime() - start) / 1000000);
    free(h);
}

TEST(stores_do_as_the_model) {
    uint64_t seed = read_number("HF_SEED", uv_hrtime() % 1000000000);

    printf("    HF_SEED=%" PRIu64 "\n", seed);
    for (size_t i = 0; i < ROWS; i++)
        compare(&rows[i], seed);
}
