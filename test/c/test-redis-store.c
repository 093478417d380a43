/* What is the Redis store's own: how it gets along with other programs on the same server, what a
 * server that loses, refuses or removes data does to it, and what it asks of a server. */
#include "driver/redis/redis.h"
#include "harness.h"
#include "store/redis-names.h"
#include "store/stores.h"
#include "support-redis.h"
#include "support-rig.h"
#include "util/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS 86400000

/* ---- a world on the server, whose clock stands */

static const char *parameters;

static void fresh(char *url, size_t size) {
    size_t len;

    redis_fresh(url, size);
    CHECK_REDIS("CONFIG RESETSTAT", "OK");
    len = strlen(url);
    if (parameters != NULL) snprintf(url + len, size - len, "?%s", parameters);
}

static const store_subject subject = {
    .vt = &hf__redis_store, .fresh = fresh, .set_clock = redis_set_clock, .lasts = true};

typedef struct scene {
    world world;
    rig rig;
} scene;

/* With the URL's parameters, or NULL. */
static void begin(scene *s, const char *with) {
    parameters = with;
    world_open(&s->world, &subject);
    rig_open(&s->rig, &s->world, false);
}

static void end(scene *s) {
    rig_close(&s->rig);
    world_close(&s->world);
}

static const hf_op *take(scene *s, const char *keys, int token) {
    return ASK(&s->rig, .verb = HF_TAKE, .keys = keys, .token = token);
}

static bool drop(scene *s, const char *keys, int token) {
    return ASK(&s->rig, .verb = HF_DROP, .keys = keys, .token = token)->applied;
}

static const hf_op *put(scene *s, const char *key, const char *value) {
    return ASK(&s->rig, .verb = HF_PUT, .space = HF_VALUES, .keys = key, .value = value);
}

/* Runs a command on what stands beside a key, under the prefix that is usual. */
static const char *beside(const char *command, const char *key, char letter, const char *rest) {
    hf__redis_names names;
    hf__redis_name name;
    hf_slice words[3];
    hf_error error;

    hf__redis_names_init(&names, slice_of("holdfast:"), hf__allocator_libc(), &error);
    REQUIRE(hf__redis_companion(&names, slice_of(key), letter, &name));
    words[0] = slice_of(command);
    words[1] = (hf_slice){name.text, name.len};
    words[2] = slice_of(rest);
    hf__redis_names_fini(&names);
    return redis_command(words, rest == NULL ? 2 : 3);
}

/* ---- other programs */

TEST(lease_is_a_plain_string) {
    scene s;

    begin(&s, NULL);
    CHECK(take(&s, "k", 1)->applied);
    CHECK_REDIS("GET holdfast:k", "70000000000000000000000000000001");
    CHECK_REDIS("PTTL holdfast:k", "9999");
    CHECK(drop(&s, "k", 1));
    CHECK_REDIS("EXISTS holdfast:k", "0");
    end(&s);

    begin(&s, "prefix=");
    CHECK(take(&s, "a b", 1)->applied);
    CHECK_REDIS("MGET a b", "70000000000000000000000000000001\n70000000000000000000000000000001");
    end(&s);
}

/* Who does as the Redlock specification says excludes us, and we it; shared leases too. */
TEST(redlock_and_we_exclude_each_other) {
    static const char unlock[] =
        "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) end";
    hf_slice words[] = {slice_of("EVAL"), slice_of(unlock), slice_of("1"), slice_of("k"),
                        slice_of("their-own-random-value")};
    const hf_op *op;
    scene s;

    begin(&s, "prefix=");
    CHECK_REDIS("SET k their-own-random-value PX 30000 NX", "OK");
    op = take(&s, "k", 1);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    CHECK(op->left_ms >= 150 && op->left_ms <= 250); /* they will not tell */
    CHECK_STR(rig_holder(&s.rig)->who, "another program than Holdfast");
    CHECK_UINT(rig_holder(&s.rig)->left_ms, 30001);
    CHECK(hf__token_is_zero(&rig_holder(&s.rig)->token));
    op = ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 1, .limit = HF_SHARED);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    CHECK(!drop(&s, "k", 1));
    CHECK(!ASK(&s.rig, .verb = HF_KEEP, .keys = "k", .token = 1)->applied);
    op = ASK(&s.rig, .verb = HF_LIST, .keys = "k", .flags = HF_OP_EXACT);
    CHECK_UINT(op->n_rows, 1);
    CHECK_STR(op->rows[0].holder.who, "another program than Holdfast");

    CHECK_STR(redis_command(words, 5), "1");
    CHECK(take(&s, "k", 1)->applied);
    CHECK_REDIS("SET k their-own-random-value PX 30000 NX", "(nil)");
    CHECK_STR(redis_command(words, 5), "(nil)");
    CHECK(drop(&s, "k", 1));
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 2, .limit = 5)->applied);
    CHECK_REDIS("SET k their-own-random-value PX 30000 NX", "(nil)");
    CHECK(drop(&s, "k", 2));
    CHECK_REDIS("SET k their-own-random-value PX 30000 NX", "OK");
    end(&s);
}

TEST(foreign_lease_that_never_ends) {
    const hf_op *op;
    scene s;

    begin(&s, "prefix=");
    CHECK_REDIS("SET k value", "OK");
    op = take(&s, "k", 1);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    CHECK(op->left_ms <= 250);
    CHECK_UINT(rig_holder(&s.rig)->left_ms, HF_FOREVER);
    CHECK_REDIS("GET k", "value");
    end(&s);
}

/* ---- fences */

TEST(fences_survive_a_flush) {
    uint64_t fence;
    scene s;

    begin(&s, NULL);
    fence = take(&s, "k", 1)->fence;
    world_pass(&s.world, 1);
    CHECK_REDIS("FLUSHALL", "OK");
    CHECK(take(&s, "k", 2)->fence > fence);
    end(&s);
}

/* A server that was started anew: with its data it may be an old copy. Within one run the counter
 * counts, whatever the clock says. */
TEST(fences_survive_a_restart) {
    uint64_t fence;
    scene s;

    begin(&s, NULL);
    fence = take(&s, "k", 1)->fence;
    CHECK(drop(&s, "k", 1));
    redis_set_clock(UINT64_C(1700000000000000)); /* three years back */
    CHECK_UINT(take(&s, "k", 2)->fence, fence + 1);
    CHECK(drop(&s, "k", 2));
    for (int i = 0; i < 2; i++) {
        rig_close(&s.rig);
        world_pass(&s.world, 5);
        redis_restart(i == 0);
        rig_open(&s.rig, &s.world, false);
        fence = take(&s, "k", 3 + i)->fence;
        CHECK_UINT(fence, s.world.real_us); /* the clock's */
        CHECK_UINT(beside("EXISTS", "k", 's', NULL)[0], '1');
        CHECK(drop(&s, "k", 3 + i));
    }

    /* With its data and a clock that stands behind, the counter goes on. */
    rig_close(&s.rig);
    redis_set_clock(UINT64_C(1700000000000000));
    redis_restart(true);
    rig_open(&s.rig, &s.world, false);
    CHECK_UINT(take(&s, "k", 9)->fence, fence + 1);
    end(&s);
}

/* A master that was cut off, came back as a replica and is the master once more has lost what it
 * wrote last, though it is the same process. */
TEST(fences_survive_two_failovers) {
    static char lost[1024];
    uint64_t fence;
    scene s;

    begin(&s, NULL);
    CHECK(take(&s, "k", 1)->applied);
    CHECK(drop(&s, "k", 1));
    snprintf(lost, sizeof lost, "%s", beside("GET", "k", 's', NULL));
    fence = take(&s, "k", 2)->fence;
    CHECK(drop(&s, "k", 2));
    rig_close(&s.rig);
    world_pass(&s.world, 5);
    CHECK_REDIS("REPLICAOF 127.0.0.1 1", "OK");
    CHECK_REDIS("REPLICAOF NO ONE", "OK");
    CHECK_STR(beside("SET", "k", 's', lost), "OK");
    rig_open(&s.rig, &s.world, false);
    CHECK(take(&s, "k", 3)->fence > fence);
    end(&s);
}

/* The connection may have stayed all the while: then the first take that notices is in doubt. */
TEST(fences_survive_two_failovers_on_one_connection) {
    static char lost[1024];
    const hf_op *op;
    uint64_t fence;
    uint64_t then;
    scene s;

    begin(&s, NULL);
    CHECK(take(&s, "k", 1)->applied);
    CHECK(drop(&s, "k", 1));
    snprintf(lost, sizeof lost, "%s", beside("GET", "k", 's', NULL));
    fence = take(&s, "k", 2)->fence;
    CHECK(drop(&s, "k", 2));
    CHECK_REDIS("REPLICAOF 127.0.0.1 1", "OK");
    CHECK_REDIS("REPLICAOF NO ONE", "OK");
    CHECK_STR(beside("SET", "k", 's', lost), "OK");
    world_pass(&s.world, 5);
    then = uv_hrtime();
    while (uv_hrtime() - then < UINT64_C(1100000000)) {
        uv_async_send(&s.rig.alive);
        rig_turn(&s.rig);
    }
    op = take(&s, "k", 3);
    CHECK(!op->applied);
    CHECK_INT(op->error.code, HF_EUNAVAIL);
    CHECK_UINT(op->error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    drop(&s, "k", 3); /* the core undoes it */
    op = take(&s, "k", 4);
    CHECK(op->applied);
    CHECK(op->fence > fence);
    end(&s);
}

/* Without its state a lease has no fence: the same take once more gets a new one, and holds. */
TEST(state_that_is_gone) {
    uint64_t fence;
    scene s;

    begin(&s, NULL);
    fence = take(&s, "k", 1)->fence;
    CHECK_STR(beside("DEL", "k", 's', NULL), "1");
    CHECK_INT(take(&s, "k", 2)->refused, HF_REFUSED_HELD);
    world_pass(&s.world, 1);
    CHECK(take(&s, "k", 1)->fence > fence);
    CHECK(ASK(&s.rig, .verb = HF_KEEP, .keys = "k", .token = 1)->applied);
    CHECK(drop(&s, "k", 1));

    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "s", .token = 1, .limit = 2)->applied);
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "s", .token = 2, .limit = 2)->applied);
    CHECK_STR(beside("DEL", "s", 'h', NULL), "1");
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "s", .token = 1, .limit = 2)->applied);
    CHECK_INT(take(&s, "s", 3)->refused, HF_REFUSED_HELD);
    /* Nobody knows any more how many the second lets in: none. */
    CHECK(!ASK(&s.rig, .verb = HF_TAKE, .keys = "s", .token = 4, .limit = 9)->applied);
    CHECK(drop(&s, "s", 1) && drop(&s, "s", 2));
    CHECK(take(&s, "s", 3)->applied);
    end(&s);
}

TEST(counter_outlives_its_lease_by_a_day) {
    scene s;

    begin(&s, NULL);
    CHECK(take(&s, "k", 1)->applied);
    CHECK_UINT((uint64_t)atol(beside("PTTL", "k", 's', NULL)), DAY_MS + 10000);
    world_pass(&s.world, 5000);
    CHECK(ASK(&s.rig, .verb = HF_KEEP, .keys = "k", .token = 1, .ttl = 60000)->applied);
    CHECK_UINT((uint64_t)atol(beside("PTTL", "k", 's', NULL)), DAY_MS + 60000);
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "s", .token = 1, .limit = 2, .ttl = 9000)->applied);
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "s", .token = 2, .limit = 2, .ttl = 3000)->applied);
    CHECK_UINT((uint64_t)atol(beside("PTTL", "s", 's', NULL)), DAY_MS + 9000);
    CHECK(ASK(&s.rig, .verb = HF_KEEP, .keys = "s", .token = 2, .ttl = 70000)->applied);
    CHECK_UINT((uint64_t)atol(beside("PTTL", "s", 's', NULL)), DAY_MS + 70000);
    end(&s);
}

/* ---- data of others */

static void check_foreign(const hf_op *op, const char *name) {
    CHECK_INT(op->error.code, HF_ETYPE);
    CHECK_UINT(op->error.flags, 0);
    CHECK(!op->applied);
    if (strstr(op->error.message, name) == NULL) FAIL("\"%s\"", op->error.message);
}

TEST(data_of_another_kind_is_left_alone) {
    scene s;

    begin(&s, "prefix=");
    CHECK_REDIS("RPUSH list a b", "2");
    check_foreign(take(&s, "list", 1), "\"list\"");
    check_foreign(ASK(&s.rig, .verb = HF_TAKE, .keys = "free list", .token = 1), "\"free\"");
    check_foreign(ASK(&s.rig, .verb = HF_TAKE, .keys = "list", .token = 1, .limit = 2), "\"list\"");
    check_foreign(ASK(&s.rig, .verb = HF_KEEP, .keys = "list", .token = 1), "\"list\"");
    check_foreign(ASK(&s.rig, .verb = HF_DROP, .keys = "list", .token = 1), "\"list\"");
    CHECK_REDIS("LRANGE list 0 -1", "a\nb");
    CHECK(take(&s, "free", 2)->applied); /* nothing was left of the take of both */
    CHECK_REDIS("DBSIZE", "3");          /* and of none: the list, a lease, a state */
    end(&s);
}

/* Nobody but us has such names; yet nothing may be left half done. */
TEST(companions_of_another_kind) {
    static const char letters[] = "siw";
    scene s;

    begin(&s, NULL);
    for (size_t i = 0; i < sizeof letters - 1; i++) {
        char key[] = {letters[i], '\0'};

        CHECK_STR(beside("LPUSH", key, letters[i], "x"), "1");
        check_foreign(ASK(&s.rig, .verb = HF_TAKE, .keys = key, .token = 1, .limit = 2), key);
        CHECK_STR(beside("LLEN", key, letters[i], NULL), "1");
    }
    CHECK_REDIS("DBSIZE", "3");
    /* What only those who share need is put right, as nobody shares. */
    CHECK_STR(beside("LPUSH", "z", 'z', "x"), "1");
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "z", .token = 1, .limit = 2)->applied);
    CHECK_STR(beside("ZCARD", "z", 'z', NULL), "1");
    end(&s);
}

TEST(entries_of_another_kind) {
    const hf_op *op;
    scene s;

    begin(&s, NULL);
    CHECK_STR(beside("SET", "k", 'v', "not an entry"), "OK");
    check_foreign(put(&s, "k", "v"), "holdfast:k");
    op = ASK(&s.rig, .verb = HF_GET, .space = HF_VALUES, .keys = "k");
    check_foreign(op, "holdfast:k");
    check_foreign(ASK(&s.rig, .verb = HF_DEL, .space = HF_VALUES, .keys = "k"), "holdfast:k");
    check_foreign(ASK(&s.rig, .verb = HF_ADD, .space = HF_VALUES, .keys = "k"), "holdfast:k");
    CHECK_STR(beside("GET", "k", 'v', NULL), "not an entry");
    CHECK_STR(beside("RPUSH", "l", 'v', "x"), "1");
    check_foreign(put(&s, "l", "v"), "holdfast:l");
    end(&s);
}

/* ---- a server whose memory is full */

/* Everything that there is, and when it expires. */
static const char *snapshot(char *text, size_t size) {
    hf_slice words[] = {
        slice_of("EVAL"),
        slice_of("local r = {} for _, k in ipairs(redis.call('KEYS', '*')) do "
                 "r[#r + 1] = redis.sha1hex(k) .. redis.sha1hex(redis.call('DUMP', k)) .. "
                 "redis.call('PTTL', k) end table.sort(r) return r"),
        slice_of("0")};

    snprintf(text, size, "%s", redis_command(words, 3));
    return text;
}

static void check_full(const hf_op *op) {
    CHECK_INT(op->error.code, HF_EFULL);
    CHECK(!op->applied);
    CHECK_INT(op->error.flags & HF_OUTCOME_UNKNOWN, 0);
}

TEST(full_memory_changes_nothing) {
    static char before[65536];
    static char after[65536];
    rig *r;
    scene s;

    begin(&s, NULL);
    r = &s.rig;
    CHECK(take(&s, "held", 1)->applied);
    CHECK(ASK(r, .verb = HF_TAKE, .keys = "shared", .token = 1, .limit = 5)->applied);
    CHECK(put(&s, "value", "v")->applied);
    CHECK(ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "claim", .token = 7, .lease = 5000,
              .condition = HF_IF_CLAIMABLE)
              ->applied);
    CHECK_REDIS("CONFIG SET maxmemory 1", "OK");
    snapshot(before, sizeof before);
    check_full(take(&s, "k", 1));
    check_full(take(&s, "a b", 2));
    check_full(ASK(r, .verb = HF_TAKE, .keys = "k", .token = 1, .limit = 5));
    check_full(ASK(r, .verb = HF_TAKE, .keys = "shared", .token = 2, .limit = 5));
    check_full(ASK(r, .verb = HF_TAKE, .keys = "held", .token = 2, .replace = 1));
    check_full(put(&s, "value", "other"));
    check_full(put(&s, "new", "v"));
    check_full(ASK(r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1));
    CHECK_STR(snapshot(after, sizeof after), before);

    /* What is held stays held, can be read, and given back. */
    CHECK(ASK(r, .verb = HF_KEEP, .keys = "held", .token = 1, .ttl = 50000)->applied);
    CHECK(ASK(r, .verb = HF_KEEP, .keys = "shared", .token = 1, .ttl = 50000)->applied);
    CHECK(ASK(r, .verb = HF_KEEP, .space = HF_RECORDS, .keys = "claim", .token = 7, .ttl = 9000)
              ->applied);
    CHECK(out_is(ASK(r, .verb = HF_GET, .space = HF_VALUES, .keys = "value"), "v"));
    CHECK(drop(&s, "held", 1));
    CHECK(drop(&s, "shared", 1));
    CHECK(ASK(r, .verb = HF_DEL, .space = HF_VALUES, .keys = "value")->applied);
    CHECK_REDIS("CONFIG SET maxmemory 0", "OK");
    CHECK(take(&s, "held", 2)->applied);
    end(&s);
}

/* ---- a server that evicts */

TEST(eviction_is_warned_of_and_refused) {
    const hf_op *op;
    scene s;

    CHECK_REDIS("CONFIG SET maxmemory-policy allkeys-lru", "OK");
    CHECK_REDIS("CONFIG SET maxmemory 1gb", "OK");
    begin(&s, NULL);
    CHECK_INT(s.rig.warnings, 1);
    CHECK(strstr(s.rig.warning.message, "maxmemory-policy allkeys-lru") != NULL);
    CHECK(take(&s, "k", 1)->applied);
    op = put(&s, "k", "v");
    CHECK_INT(op->error.code, HF_ENOTSUP);
    CHECK(strstr(op->error.message, "allowEviction") != NULL);
    CHECK_INT(ASK(&s.rig, .verb = HF_GET, .space = HF_VALUES, .keys = "k")->error.code, HF_ENOTSUP);
    CHECK_INT(ASK(&s.rig, .verb = HF_GET)->error.code, HF_OK); /* a sign of life */
    CHECK_INT(s.rig.warnings, 1);
    end(&s);

    begin(&s, "allowEviction=true");
    CHECK(put(&s, "k", "v")->applied);
    CHECK_INT(s.rig.warnings, 1);
    end(&s);
    CHECK_REDIS("CONFIG SET maxmemory-policy noeviction", "OK");
    CHECK_REDIS("CONFIG SET maxmemory 0", "OK");
}

/* ---- what is asked of a server */

TEST(plain_take_and_drop_are_seven_commands) {
    scene s;

    begin(&s, NULL);
    CHECK(take(&s, "k", 1)->applied);
    CHECK(drop(&s, "k", 1));
    CHECK_REDIS("CONFIG RESETSTAT", "OK");
    for (int i = 0; i < 10; i++) {
        CHECK(take(&s, "k", 2)->applied);
        CHECK(ASK(&s.rig, .verb = HF_KEEP, .keys = "k", .token = 2)->applied);
        CHECK(drop(&s, "k", 2));
    }
    CHECK_INT(redis_count("get"), 10 + 10 + 10);
    CHECK_INT(redis_count("set"), 20);
    CHECK_INT(redis_count("exists"), 20);
    CHECK_INT(redis_count("del"), 10);
    CHECK_INT(redis_count("pexpire"), 20);
    CHECK_INT(redis_count("time"), 0);
    end(&s);
}

TEST(publishes_only_where_somebody_waits) {
    const hf_op *op;
    rig other;
    scene s;

    begin(&s, NULL);
    rig_open(&other, &s.world, false);
    for (int i = 0; i < 5; i++) {
        CHECK(take(&s, "k", 1)->applied);
        CHECK(!take(&s, "k", 2)->applied); /* who does not wait on leaves nothing */
        CHECK(drop(&s, "k", 1));
    }
    CHECK_INT(redis_count("publish"), 0);
    CHECK(take(&s, "k", 1)->applied);
    CHECK(!ASK(&other, .verb = HF_TAKE, .keys = "k", .token = 2, .flags = HF_OP_WAIT)->applied);
    CHECK(!ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 3, .flags = HF_OP_WAIT)->applied);
    CHECK(drop(&s, "k", 1));
    CHECK_INT(redis_count("publish"), 2);
    op = take(&s, "k", 3);
    CHECK(op->applied && op->awaited); /* by the other */
    CHECK(drop(&s, "k", 3));
    CHECK_INT(redis_count("publish"), 3);
    op = ASK(&other, .verb = HF_TAKE, .keys = "k", .token = 2);
    CHECK(op->applied && !op->awaited);
    CHECK(ASK(&other, .verb = HF_DROP, .keys = "k", .token = 2)->applied);
    CHECK_INT(redis_count("publish"), 3);

    /* A note lives as long as the time left that was told. */
    CHECK(take(&s, "k", 1)->applied);
    CHECK(!ASK(&other, .verb = HF_TAKE, .keys = "k", .token = 2, .flags = HF_OP_WAIT)->applied);
    world_pass(&s.world, 10000);
    CHECK(take(&s, "k", 4)->applied);
    CHECK(!s.rig.slot->op.awaited);
    CHECK(drop(&s, "k", 4));
    CHECK_INT(redis_count("publish"), 3);
    CHECK_STR(beside("EXISTS", "k", 'w', NULL), "0");
    rig_close(&other);
    end(&s);
}

/* ---- entries */

TEST(entries_expire_by_themselves) {
    rig *r;
    scene s;

    begin(&s, NULL);
    r = &s.rig;
    CHECK(ASK(r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "v", .ttl = 5000)
              ->applied);
    CHECK_STR(beside("PTTL", "k", 'v', NULL), "5000");
    /* One that remembers a fence a day later. */
    CHECK(ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "k", .value = "v", .ttl = 5000,
              .fence_key = "lock", .fence = 1)
              ->applied);
    CHECK_STR(beside("PTTL", "k", 'r', NULL), "86405000");
    world_pass(&s.world, 5001);
    CHECK_STR(beside("EXISTS", "k", 'v', NULL), "0");
    CHECK_STR(beside("EXISTS", "k", 'r', NULL), "1");
    CHECK(!ASK(r, .verb = HF_GET, .space = HF_RECORDS, .keys = "k")->entry.present);
    world_pass(&s.world, DAY_MS);
    CHECK_STR(beside("EXISTS", "k", 'r', NULL), "0");
    end(&s);
}

/* A deleted entry leaves nothing, unless the clock has been set back behind its version. */
TEST(versions_do_not_go_back_with_the_clock) {
    uint64_t version;
    scene s;

    begin(&s, NULL);
    version = put(&s, "k", "v")->version;
    redis_set_clock(UINT64_C(1700000000000000));
    CHECK(ASK(&s.rig, .verb = HF_DEL, .space = HF_VALUES, .keys = "k")->applied);
    CHECK(!ASK(&s.rig, .verb = HF_GET, .space = HF_VALUES, .keys = "k")->entry.present);
    CHECK_UINT(put(&s, "k", "w")->version, version + 1);
    world_pass(&s.world, 1);
    CHECK(ASK(&s.rig, .verb = HF_DEL, .space = HF_VALUES, .keys = "k")->applied);
    CHECK_REDIS("DBSIZE", "0");
    end(&s);
}

/* Sums are exact, however far apart what is added lies from what is there. */
TEST(sums_are_exact) {
    static const int64_t base[] = {-HF_INT_MAX, HF_INT_MAX, -HF_INT_MAX, HF_INT_MAX, 1, 0};
    static const int64_t delta[] = {HF_INT_MAX + INT64_C(4), -HF_INT_MAX - INT64_C(4),
                                    2 * HF_INT_MAX,          -2 * HF_INT_MAX,
                                    HF_INT_MAX - INT64_C(1), -HF_INT_MAX};
    scene s;

    begin(&s, NULL);
    for (size_t i = 0; i < sizeof base / sizeof base[0]; i++) {
        char text[24];
        const hf_op *op;

        snprintf(text, sizeof text, "%lld", (long long)base[i]);
        CHECK(ASK(&s.rig, .verb = HF_PUT, .space = HF_VALUES, .keys = "n", .value = text,
                  .format = HF_JSON)
                  ->applied);
        op = ASK(&s.rig, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = delta[i]);
        CHECK(op->applied);
        CHECK_INT(op->sum, base[i] + delta[i]);
    }
    end(&s);
}

/* ---- users with few rights */

/* A release is one also for a user who may not publish; those who wait then look by themselves. */
TEST(user_who_may_not_publish) {
    const char *why = "";
    scene s;

    begin(&s, NULL);
    CHECK_REDIS("ACL SETUSER shy on >pw ~holdfast:* resetchannels +@all -publish", "OK");
    CHECK(take(&s, "k", 1)->applied);
    CHECK(!ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 2, .flags = HF_OP_WAIT)->applied);
    rig_close(&s.rig);
    hf__url_free(&s.world.url, &s.world.allocator);
    snprintf(s.world.text, sizeof s.world.text, "redis://shy:pw@127.0.0.1:%d", redis_port());
    REQUIRE(hf__url_parse(&s.world.url, slice_of(s.world.text), &s.world.allocator, &why));
    rig_open(&s.rig, &s.world, false);
    CHECK(drop(&s, "k", 1));
    CHECK_REDIS("EXISTS holdfast:k", "0");
    CHECK(take(&s, "k", 2)->applied);
    end(&s);
    CHECK_REDIS("ACL DELUSER shy", "1");
}

/* ---- lists */

static void take_many(scene *s, const char *prefix, int n) {
    slot *slots = calloc((size_t)n, sizeof *slots);
    ask *asks = calloc((size_t)n, sizeof *asks);
    char(*keys)[24] = calloc((size_t)n, sizeof *keys);

    for (int i = 0; i < n; i++) {
        snprintf(keys[i], sizeof keys[i], "%s%06d", prefix, i);
        asks[i] = (ask){.verb = HF_TAKE, .keys = keys[i], .token = 1 + i};
    }
    rig_submit(&s->rig, slots, asks, (size_t)n);
    for (int i = 0; i < n; i++) {
        RIG_UNTIL(&s->rig, slots[i].ended > 0);
        CHECK(slots[i].op.applied);
        slot_reset(&slots[i]);
    }
    free(slots);
    free(asks);
    free(keys);
}

/* More keys than one walk collects, in a database with other things in it. */
TEST(list_of_very_many) {
    enum { N = 20000 };
    char after[24] = "";
    int seen = 0;
    scene s;

    begin(&s, NULL);
    take_many(&s, "k", N);
    for (int i = 0; i < 3; i++) {
        char name[] = {'x', (char)('0' + i), '\0'};
        CHECK(put(&s, name, "v")->applied);
        CHECK_STR(beside("SET", name, 's', "junk"), "OK");
    }
    CHECK_REDIS("CONFIG RESETSTAT", "OK");
    for (;;) {
        const hf_op *op = ASK(&s.rig, .verb = HF_LIST, .keys = "k", .limit = 1000, .value = after,
                              .flags = seen > 0 ? HF_OP_NEXT : 0);

        CHECK_INT(op->error.code, HF_OK);
        if (op->n_rows == 0) break;
        for (size_t i = 0; i < op->n_rows; i++) {
            snprintf(after, sizeof after, "k%06d", seen++);
            CHECK(hf__slice_equal(op->rows[i].key, slice_of(after)));
        }
    }
    CHECK_INT(seen, N);
    /* Two walks, not one for each of the twenty pages. */
    CHECK(redis_count("scan") < 3L * 2 * N / 1000);
    end(&s);
}

/* What was locked once may be the name of other data now. */
TEST(list_passes_over_other_data) {
    const hf_op *op;
    scene s;

    begin(&s, "prefix=");
    CHECK(take(&s, "a", 1)->applied);
    CHECK(drop(&s, "a", 1));
    CHECK(take(&s, "b", 1)->applied);
    CHECK_REDIS("HSET a f v", "1");
    op = ASK(&s.rig, .verb = HF_LIST, .keys = "", .limit = 10);
    CHECK_INT(op->error.code, HF_OK);
    CHECK_UINT(op->n_rows, 1);
    end(&s);
}

TEST(list_forgets_what_it_has_collected) {
    const hf_op *op;
    scene s;

    begin(&s, NULL);
    take_many(&s, "k", 10);
    op = ASK(&s.rig, .verb = HF_LIST, .limit = 4);
    CHECK_UINT(op->n_rows, 4);
    CHECK(drop(&s, "k000005", 6));
    CHECK(take(&s, "k000004a", 50)->applied);
    op = ASK(&s.rig, .verb = HF_LIST, .limit = 4, .value = "k000003", .flags = HF_OP_NEXT);
    CHECK_UINT(op->n_rows, 4);
    CHECK(hf__slice_equal(op->rows[1].key, slice_of("k000006"))); /* what has gone is gone */
    op = ASK(&s.rig, .verb = HF_LIST, .limit = 4, .value = "k000003");
    CHECK(hf__slice_equal(op->rows[1].key, slice_of("k000004a")));
    end(&s);
}

/* ---- a server that does not answer */

/* A renewal is not waited for until its lease is over: there must be time for another. */
TEST(renewal_is_not_waited_for_long) {
    const hf_op *op;
    uint64_t start;
    scene s;

    begin(&s, NULL);
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 1, .ttl = 1500)->applied);
    redis_freeze(true);
    start = uv_hrtime();
    op = ASK(&s.rig, .verb = HF_KEEP, .keys = "k", .token = 1, .ttl = 1500);
    CHECK((uv_hrtime() - start) / 1000000 < 1500);
    CHECK_INT(op->error.code, HF_EUNAVAIL);
    CHECK_UINT(op->error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    redis_freeze(false);
    CHECK(ASK(&s.rig, .verb = HF_KEEP, .keys = "k", .token = 1, .ttl = 1500)->applied);
    end(&s);
}

/* A take that must reach a replica does; without one it fails, and says so. */
TEST(replicas) {
    const hf_op *op;
    scene s;

    redis_replica(true); /* the first one makes another history */
    begin(&s, "waitReplicas=1");
    CHECK(take(&s, "k", 1)->applied);
    CHECK_INT(take(&s, "k", 2)->refused, HF_REFUSED_HELD);
    CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "a b", .token = 3, .limit = 5)->applied);
    CHECK(drop(&s, "k", 1));
    redis_replica(false);
    op = take(&s, "k", 1);
    CHECK(!op->applied);
    CHECK_INT(op->error.code, HF_EUNAVAIL);
    CHECK_UINT(op->error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    CHECK(strstr(op->error.message, "\"k\"") != NULL);
    CHECK_INT(take(&s, "k", 2)->refused, HF_REFUSED_HELD); /* it has landed: the core undoes it */
    CHECK(drop(&s, "k", 1));
    end(&s);
}

/* Memory of ours runs out at any point: every op ends, with HF_ENOMEM or, where only the answer
 * could not be taken in, in doubt; and the store goes on. */
TEST(memory_runs_out) {
    static const ask asks[] = {
        {.verb = HF_TAKE, .keys = "a b", .token = 1, .flags = HF_OP_WAIT},
        {.verb = HF_TAKE, .keys = "}", .token = 2}, /* whose slot must be looked up */
        {.verb = HF_LIST},
        {.verb = HF_PUT, .space = HF_VALUES, .keys = "v", .value = "x", .token = 3},
        {.verb = HF_GET, .space = HF_VALUES, .keys = "v"},
        {.verb = HF_DROP, .keys = "a b", .token = 1},
    };
    injector starve = {0};
    long struck = 0;
    scene s;

    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        bool hit = true;

        for (long n = 1; hit; n++) {
            slot one = {.ended = 0};

            parameters = NULL;
            world_open(&s.world, &subject);
            s.world.starve = &starve;
            rig_open_idle(&s.rig, &s.world, false);
            injector_arm(&starve, n);
            rig_submit(&s.rig, &one, &asks[i], 1);
            RIG_UNTIL(&s.rig, one.ended > 0);
            hit = injector_disarm(&starve);
            struck += hit;
            CHECK_INT(one.ended, 1);
            if (one.op.error.code != HF_OK && one.op.error.code != HF_ENOMEM)
                CHECK_UINT(one.op.error.code, HF_EUNAVAIL);
            slot_reset(&one);
            CHECK_INT(take(&s, "other", 9)->error.code, HF_OK);
            end(&s);
        }
    }
    CHECK(struck > 30);
}

TEST(settings_are_checked) {
    static const char *const wrong[] = {"prefix={a",        "prefix={}x",      "prefix={a}{b}",
                                        "prefix=a}b{",      "waitReplicas=-1", "waitReplicas=99",
                                        "allowEviction=yes"};
    static const char *const right[] = {"prefix=", "prefix={app}:", "waitReplicas=2",
                                        "allowEviction=false"};

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0] + sizeof right / sizeof right[0]; i++) {
        bool is_wrong = i < sizeof wrong / sizeof wrong[0];
        const char *text = is_wrong ? wrong[i] : right[i - sizeof wrong / sizeof wrong[0]];
        hf__store_env env = {.allocator = hf__allocator_libc()};
        const char *why = "";
        char url[96];
        hf_store *store;
        hf_error error;
        hf__url parsed;

        snprintf(url, sizeof url, "redis://127.0.0.1?%s", text);
        REQUIRE(hf__url_parse(&parsed, slice_of(url), env.allocator, &why));
        env.url = &parsed;
        store = hf__store_new(&hf__redis_store, &env, &error);
        CHECK((store == NULL) == is_wrong);
        if (store == NULL) CHECK_INT(error.code, HF_EINVAL);
        if (store != NULL) hf__store_free(store);
        hf__url_free(&parsed, env.allocator);
    }
}
