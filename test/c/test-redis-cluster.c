/* The Redis store on a Cluster of three servers. */
#include "driver/redis/redis.h"
#include "harness.h"
#include "store/stores.h"
#include "support-redis.h"
#include "support-rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 3 };

static void fresh(char *url, size_t size) {
    redis_as_cluster(NODES);
    redis_fresh(url, size);
    for (size_t i = 0; i < NODES; i++)
        CHECK_STR(redis_do_at(i, "CONFIG RESETSTAT"), "OK");
}

static const store_subject subject = {.vt = &hf__redis_store, .fresh = fresh, .lasts = true};

typedef struct scene {
    world world;
    rig rig;
} scene;

static void begin(scene *s) {
    world_open(&s->world, &subject);
    rig_open(&s->rig, &s->world, false);
}

static void end(scene *s) {
    rig_close(&s->rig);
    world_close(&s->world);
}

/* Keys with every kind of brace in them, and so of every way to name what stands beside a lease. */
static const char *const keys[] = {"a",    "b",   "c", "d",     "e",  "f",
                                   "{x}1", "y{z", "}", "{}{q}", "x}y"};

enum { KEYS = sizeof keys / sizeof keys[0] };

static int count_keys(size_t node) {
    return atoi(redis_do_at(node, "DBSIZE"));
}

/* All that a lock and an entry leave lies where the key does, whatever the key. */
TEST(everything_of_a_key_is_in_one_place) {
    scene s;
    rig *r = &s.rig;

    begin(&s);
    for (size_t i = 0; i < KEYS; i++) {
        hf_slice key = slice_of(keys[i]);

        CHECK(ASK(r, .verb = HF_TAKE, .key = key, .token = 1, .limit = 5)->applied);
        CHECK(ASK(r, .verb = HF_TAKE, .key = key, .token = 2, .limit = 5)->applied);
        CHECK(!ASK(r, .verb = HF_TAKE, .key = key, .token = 3, .flags = HF_OP_INTENT | HF_OP_WAIT)
                   ->applied);
        CHECK(ASK(r, .verb = HF_KEEP, .key = key, .token = 1)->applied);
        CHECK(ASK(r, .verb = HF_DROP, .key = key, .token = 1)->applied);
        CHECK(ASK(r, .verb = HF_DROP, .key = key, .token = 2)->applied);
        CHECK(ASK(r, .verb = HF_TAKE, .key = key, .token = 3)->applied);
        CHECK(ASK(r, .verb = HF_PUT, .space = HF_VALUES, .key = key, .value = "v")->applied);
        CHECK(out_is(ASK(r, .verb = HF_GET, .space = HF_VALUES, .key = key), "v"));
    }
    for (size_t i = 0; i < NODES; i++)
        CHECK(count_keys(i) >= 3); /* lease, state and value of one, at least */
    CHECK_INT(count_keys(0) + count_keys(1) + count_keys(2), 3 * KEYS);
    end(&s);
}

TEST(keys_of_one_lock_need_one_slot) {
    const hf_op *op;
    scene s;

    begin(&s);
    op = ASK(&s.rig, .verb = HF_TAKE, .keys = "order:1 invoice:1", .token = 1);
    CHECK_INT(op->error.code, HF_ENOTSUP);
    CHECK(strstr(op->error.message, "order:1") != NULL);
    CHECK(strstr(op->error.message, "invoice:1") != NULL);
    CHECK(strstr(op->error.message, "hash tag") != NULL);
    CHECK_INT(count_keys(0) + count_keys(1) + count_keys(2), 0);
    op = ASK(&s.rig, .verb = HF_TAKE, .keys = "order:{1} invoice:{1} x:{1}", .token = 1);
    CHECK(op->applied);
    CHECK(!ASK(&s.rig, .verb = HF_TAKE, .keys = "invoice:{1}", .token = 2)->applied);
    CHECK(ASK(&s.rig, .verb = HF_KEEP, .keys = "order:{1} invoice:{1} x:{1}", .token = 1)->applied);
    CHECK(ASK(&s.rig, .verb = HF_DROP, .keys = "order:{1} invoice:{1} x:{1}", .token = 1)->applied);
    end(&s);
}

TEST(list_has_the_leases_of_every_server) {
    size_t seen = 0;
    char after[32] = "";
    scene s;

    begin(&s);
    for (size_t i = 0; i < KEYS; i++)
        CHECK(ASK(&s.rig, .verb = HF_TAKE, .key = slice_of(keys[i]), .token = 1)->applied);
    for (;;) {
        const hf_op *op = ASK(&s.rig, .verb = HF_LIST, .limit = 3, .value = after,
                              .flags = seen > 0 ? HF_OP_NEXT : 0);

        CHECK_INT(op->error.code, HF_OK);
        if (op->n_rows == 0) break;
        for (size_t i = 0; i < op->n_rows; i++, seen++) {
            hf_slice key = op->rows[i].key;
            snprintf(after, sizeof after, "%.*s", (int)key.len, key.data);
        }
    }
    CHECK_UINT(seen, KEYS);
    CHECK_STR(after, "}");
    end(&s);
}

/* A release is heard of wherever the key lies. */
static void on_fire(hf__watch *watch) {
    ++*(int *)watch->data;
}

TEST(a_release_is_heard_of) {
    rig other;
    scene s;

    begin(&s);
    rig_open(&other, &s.world, false);
    for (size_t i = 0; i < KEYS; i++) {
        int fired = 0;
        hf__watch watch = {.fire = on_fire, .data = &fired, .key = slice_of(keys[i])};

        CHECK(ASK(&other, .verb = HF_TAKE, .key = watch.key, .token = 1)->applied);
        s.rig.store->vt->watch(s.rig.store, &watch);
        CHECK(!ASK(&s.rig, .verb = HF_TAKE, .key = watch.key, .token = 2)->applied);
        fired = 0;
        CHECK(ASK(&other, .verb = HF_DROP, .key = watch.key, .token = 1)->applied);
        RIG_UNTIL(&s.rig, fired > 0);
        s.rig.store->vt->unwatch(s.rig.store, &watch);
    }
    rig_close(&other);
    end(&s);
}
