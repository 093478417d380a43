/* What is the PostgreSQL store's own: what it does where its schema is gone, or memory is. */
#include "harness.h"
#include "store/stores.h"
#include "support-postgres.h"
#include "support-rig.h"

#include <stdio.h>
#include <string.h>

/* A schema that many worlds share: it takes the server longer to make than all else. */
static struct {
    char url[256];
    bool keep;
} schema;

static void fresh(char *url, size_t size) {
    if (!schema.keep || schema.url[0] == '\0') postgres_fresh(schema.url, sizeof schema.url);
    snprintf(url, size, "%s", schema.url);
}

static const store_subject subject = {
    .vt = &hf__postgres_store, .fresh = fresh, .set_clock = postgres_set_clock, .lasts = true};

static void drop_schema(void) {
    const char *name = strstr(schema.url, "schema=") + strlen("schema=");
    char sql[128];

    snprintf(sql, sizeof sql, "SET client_min_messages = warning; DROP SCHEMA %.*s CASCADE",
             (int)strcspn(name, "&"), name);
    (void)postgres_do(sql);
}

/* Each kind is a statement of its own: all of them are under way when the first finds it gone. */
TEST(the_schema_is_made_once_however_many_find_it_gone) {
    static const ask asks[] = {
        {.verb = HF_TAKE, .keys = "a", .token = 1},
        {.verb = HF_GET, .space = HF_VALUES, .keys = "v"},
        {.verb = HF_LIST},
        {.verb = HF_TAKE, .keys = "b", .token = 2},
        {.verb = HF_SWEEP, .limit = 10},
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x", .token = 3},
    };
    enum { N = sizeof asks / sizeof asks[0] };
    world w;
    rig r;

    schema.keep = false;
    world_open(&w, &subject);
    rig_open(&r, &w, false);
    for (int round = 0; round < 10; round++) {
        slot slots[N] = {{.ended = 0}};

        drop_schema();
        for (size_t i = 0; i < N; i++)
            rig_submit(&r, &slots[i], &asks[i], 1);
        for (size_t i = 0; i < N; i++) {
            RIG_UNTIL(&r, slots[i].ended > 0);
            CHECK_INT(slots[i].op.error.code, HF_OK);
            slot_reset(&slots[i]);
        }
    }
    rig_close(&r);
    world_close(&w);
}

/* Asks while the n-th allocation fails; false: there are not so many. Whatever becomes of it, the
 * store goes on. */
static bool ask_starved(const ask *what, long n, int token) {
    injector starve = {0};
    slot one = {.ended = 0};
    ask mine = *what;
    world w;
    rig r;
    bool hit;

    mine.token = token;
    world_open(&w, &subject);
    w.starve = &starve;
    rig_open_idle(&r, &w, false);
    injector_arm(&starve, n);
    rig_submit(&r, &one, &mine, 1);
    RIG_UNTIL(&r, one.ended > 0);
    hit = injector_disarm(&starve);
    CHECK_INT(one.ended, 1);
    if (one.op.error.code != HF_OK && one.op.error.code != HF_ENOMEM)
        CHECK_UINT(one.op.error.code, HF_EUNAVAIL);
    slot_reset(&one);
    CHECK_INT(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "other")->error.code, HF_OK);
    rig_close(&r);
    world_close(&w);
    return hit;
}

static long starve_all(const ask *what, bool keep, int token) {
    long n = 1;

    schema.keep = keep;
    while (ask_starved(what, n, token + (int)n))
        n++;
    return n;
}

/* Ours fails at any point: every op ends, with HF_ENOMEM or, where there was no connection to be
 * had or only the answer could not be taken in, as if the server were away. */
TEST(memory_runs_out) {
    static const ask asks[] = {
        {.verb = HF_TAKE, .keys = "a b", .flags = HF_OP_WAIT},
        {.verb = HF_LIST},
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x"},
        {.verb = HF_GET, .space = HF_VALUES, .keys = "v"},
        {.verb = HF_SWEEP, .limit = 10},
        {.verb = HF_DROP, .keys = "a b"},
    };
    long struck = 0;

    schema.keep = false;
    schema.url[0] = '\0';
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++)
        struck += starve_all(&asks[i], true, 1000 * (int)(i + 1));
    CHECK(struck > 20);
}

/* The same while it makes its schema. */
TEST(memory_runs_out_at_first) {
    static const ask get = {.verb = HF_GET, .space = HF_VALUES, .keys = "v"};

    CHECK(starve_all(&get, false, 1) > 3);
}
