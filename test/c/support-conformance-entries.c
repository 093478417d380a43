#include "conformance.h"

#include <stdlib.h>
#include <string.h>

#define DAY_MS UINT64_C(86400000)

static void need_entries(world *w) {
    if ((w->subject->vt->caps & HF_CAP_ENTRIES) == 0) world_skip(w, "the store has no entries");
}

static void need_clock(world *w) {
    if (!world_can_pass(w)) world_skip(w, "the store's clock cannot be moved");
}

static const hf_op *get_in(rig *r, hf_space space, const char *key) {
    return ASK(r, .verb = HF_GET, .space = space, .keys = key);
}

static const hf_op *get(rig *r, const char *key) {
    return get_in(r, HF_VALUES, key);
}

static bool has(rig *r, const char *key, const char *value) {
    const hf_op *op = get(r, key);
    return op->entry.present && out_is(op, value);
}

static bool is_token(const hf_token *token, int n) {
    hf_token other = token_of(n);
    return memcmp(token, &other, sizeof other) == 0;
}

/* A plain put; the version it gave. */
static uint64_t put(rig *r, const char *key, const char *value) {
    const hf_op *op = ASK(r, .verb = HF_PUT, .space = HF_VALUES, .keys = key, .value = value);

    CHECK(op->applied);
    CHECK(op->version > 0);
    return op->version;
}

static bool del(rig *r, const char *key) {
    return ASK(r, .verb = HF_DEL, .space = HF_VALUES, .keys = key)->applied;
}

/* ---- values */

static void check_absent(const hf_op *op) {
    CHECK_INT(op->error.code, HF_OK);
    CHECK(!op->entry.present);
    CHECK(!op->entry.claimed);
    CHECK_UINT(op->out.len, 0);
}

void conformance_values(world *w) {
    static char large[1 << 20];
    char long_key[HF_KEY_MAX];
    hf_slice key = {long_key, sizeof long_key};
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    rig_open(&r, w, false);
    CHECK_INT(ASK(&r, .verb = HF_GET)->error.code, HF_OK); /* a ping */
    check_absent(get(&r, "k"));
    version = put(&r, "k", "hello");
    op = get(&r, "k");
    CHECK(op->applied && op->entry.present && !op->entry.claimed);
    CHECK(out_is(op, "hello"));
    CHECK_UINT(op->entry.version, version);
    CHECK_UINT(op->entry.format, HF_BYTES);
    CHECK_UINT(op->entry.kept_left_ms, HF_FOREVER);
    CHECK_UINT(op->entry.fence, 0);
    if (w->subject->own_clock) CHECK_UINT(op->entry.stored_us, atomic_load(&w->real_us));

    CHECK(ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "[1]",
              .format = HF_JSON, .token = 5)
              ->applied);
    op = get(&r, "k");
    CHECK_UINT(op->entry.format, HF_JSON);
    CHECK(op->entry.version > version);
    CHECK(is_token(&op->entry.token, 5));

    /* Any bytes, none, and as many as there may be. */
    CHECK(ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "nul", .bytes = {"\0a\0\xff", 4})
              ->applied);
    op = get(&r, "nul");
    CHECK_UINT(op->out.len, 4);
    CHECK_MEM(op->out.data, "\0a\0\xff", 4);
    put(&r, "empty", "");
    op = get(&r, "empty");
    CHECK(op->entry.present);
    CHECK_UINT(op->out.len, 0);
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 >> 3);
    memset(long_key, 'k', sizeof long_key);
    CHECK(ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .key = key, .bytes = {large, sizeof large})
              ->applied);
    op = ASK(&r, .verb = HF_GET, .space = HF_VALUES, .key = key);
    CHECK_UINT(op->out.len, sizeof large);
    CHECK_MEM(op->out.data, large, sizeof large);
    key.len--;
    check_absent(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .key = key));

    /* The same key in two spaces is two things, and no lock. */
    check_absent(get_in(&r, HF_RECORDS, "k"));
    CHECK(ASK(&r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "k", .value = "record")->applied);
    CHECK(has(&r, "k", "[1]"));
    CHECK(ASK(&r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "k")->applied);
    CHECK(has(&r, "k", "[1]"));
    CHECK(del(&r, "k"));
    check_absent(get(&r, "k"));
    op = ASK(&r, .verb = HF_DEL, .space = HF_VALUES, .keys = "k");
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_VERSION);
    rig_close(&r);
}

/* Keys of every state that a condition can meet: `none`, `done` (by token 1) and `held`, `lapsed`
 * (claims of token 1). */
static void prepare_states(rig *r, uint64_t *version) {
    ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "lapsed", .token = 1, .lease = 100,
        .value = "v");
    ASK(r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "none");
    ASK(r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "held");
    ASK(r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "done");
    ASK(r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "lapsed");
    CHECK(ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "lapsed", .token = 1, .lease = 100,
              .value = "v")
              ->applied);
    world_pass(r->world, 100);
    CHECK(ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "held", .token = 1, .lease = 100,
              .value = "v")
              ->applied);
    world_pass(r->world, 1); /* entries written at the same instant may have the same version */
    *version = ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "done", .token = 1, .value = "v")
                   ->version;
}

/* What each condition says to each state, for a put and for a del by `token`. HF_NOT_REFUSED: it
 * lands. */
static const struct {
    hf_condition condition;
    int token;
    bool with_version; /* that of `done` */
    hf_refusal none, done, held, lapsed;
} conditions[] = {
    {HF_IF_ANY, 2, false, 0, 0, 0, 0},
    {HF_IF_ABSENT, 2, false, 0, HF_REFUSED_PRESENT, HF_REFUSED_PRESENT, HF_REFUSED_PRESENT},
    {HF_IF_VERSION, 2, true, HF_REFUSED_VERSION, 0, HF_REFUSED_VERSION, HF_REFUSED_VERSION},
    {HF_IF_VERSION, 2, false, HF_REFUSED_VERSION, HF_REFUSED_VERSION, HF_REFUSED_VERSION,
     HF_REFUSED_VERSION},
    {HF_IF_TOKEN, 2, false, HF_REFUSED_OWNER, HF_REFUSED_OWNER, HF_REFUSED_OWNER, HF_REFUSED_OWNER},
    {HF_IF_TOKEN, 1, false, HF_REFUSED_OWNER, 0, 0, 0},
    {HF_IF_CLAIMABLE, 2, false, 0, HF_REFUSED_PRESENT, HF_REFUSED_PRESENT, 0},
};

static void check_condition(rig *r, hf_verb verb, size_t row, const char *key,
                            hf_refusal expected) {
    uint64_t version;
    const hf_op *op;
    bool was_present;

    prepare_states(r, &version);
    was_present = get_in(r, HF_RECORDS, key)->entry.present;
    if (verb == HF_DEL && !was_present) expected = HF_REFUSED_VERSION;
    if (!conditions[row].with_version) version = 1;
    op = ASK(r, .verb = verb, .space = HF_RECORDS, .keys = key, .token = conditions[row].token,
             .condition = conditions[row].condition, .version = version, .value = "new",
             .flags = HF_OP_WANT_ENTRY);
    CHECK_INT(op->error.code, HF_OK);
    if (op->refused != expected || op->applied != (expected == HF_NOT_REFUSED))
        FAIL("row %zu, \"%s\": refused %d, expected %d", row, key, op->refused, expected);
    if (expected != HF_NOT_REFUSED) {
        /* The present entry is shown, and stays as it was. */
        CHECK(op->entry.present == was_present);
        if (was_present) CHECK(out_is(op, "v"));
        if (was_present) CHECK(is_token(&op->entry.token, 1));
    }
    op = get_in(r, HF_RECORDS, key);
    if (expected != HF_NOT_REFUSED)
        CHECK(op->entry.present == was_present && (!was_present || out_is(op, "v")));
    else if (verb == HF_DEL)
        CHECK(!op->entry.present);
    else if (strcmp(key, "done") != 0 || conditions[row].condition != HF_IF_TOKEN)
        CHECK(out_is(op, "new"));
}

static void check_conditions(world *w, hf_verb verb) {
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    for (size_t row = 0; row < sizeof conditions / sizeof conditions[0]; row++) {
        check_condition(&r, verb, row, "none", conditions[row].none);
        check_condition(&r, verb, row, "done", conditions[row].done);
        check_condition(&r, verb, row, "held", conditions[row].held);
        check_condition(&r, verb, row, "lapsed", conditions[row].lapsed);
    }
    rig_close(&r);
}

void conformance_put_conditions(world *w) {
    check_conditions(w, HF_PUT);
}

void conformance_del_conditions(world *w) {
    check_conditions(w, HF_DEL);
}

void conformance_put_is_idempotent(world *w) {
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    rig_open(&r, w, false);
    version = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "a", .token = 1,
                  .condition = HF_IF_ABSENT)
                  ->version;
    CHECK(version > 0);
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "a", .token = 1,
             .condition = HF_IF_ABSENT);
    CHECK(op->applied);
    CHECK_UINT(op->version, version);
    CHECK_UINT(op->attempt, 1);

    /* By version: the repeat's condition does not hold any more, and yet it has landed. */
    version = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "b", .token = 2,
                  .condition = HF_IF_VERSION, .version = version)
                  ->version;
    CHECK(version > 0);
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "b", .token = 2,
             .condition = HF_IF_VERSION, .version = 1);
    CHECK(op->applied);
    CHECK_UINT(op->version, version);

    /* Nothing changes with it. */
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "other", .token = 2);
    CHECK(op->applied);
    CHECK_UINT(op->version, version);
    CHECK(has(&r, "k", "b"));

    /* After another's put it is a put like any. */
    put(&r, "k", "c");
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "b", .token = 2,
             .condition = HF_IF_VERSION, .version = version);
    CHECK(!op->applied);
    CHECK(has(&r, "k", "c"));

    /* Two without a token are two. */
    version = put(&r, "k", "c");
    CHECK(put(&r, "k", "c") > version);
    rig_close(&r);
}

/* ---- records */

static const hf_op *claim(rig *r, int token, uint64_t lease) {
    return ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "r", .token = token,
               .condition = HF_IF_CLAIMABLE, .lease = lease, .value = "running",
               .flags = HF_OP_WANT_ENTRY);
}

static const hf_op *finish(rig *r, int token) {
    return ASK(r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "r", .token = token,
               .condition = HF_IF_TOKEN, .ttl = 5000, .value = "done");
}

static bool keep_claim(rig *r, int token, uint64_t ttl) {
    return ASK(r, .verb = HF_KEEP, .space = HF_RECORDS, .keys = "r", .token = token, .ttl = ttl)
        ->applied;
}

void conformance_claims(world *w) {
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    op = claim(&r, 1, 1000);
    CHECK(op->applied);
    CHECK_UINT(op->attempt, 1);
    version = op->version;
    op = claim(&r, 1, 1000);
    CHECK(op->applied);
    CHECK_UINT(op->version, version);
    op = claim(&r, 2, 1000);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_PRESENT);
    CHECK(op->entry.claimed);
    CHECK_UINT(op->entry.lease_left_ms, 1000);
    CHECK_UINT(op->entry.attempt, 1);
    CHECK(out_is(op, "running"));

    /* Kept alive by its owner alone, and by no more than the lease's key. */
    world_pass(w, 900);
    CHECK(!keep_claim(&r, 2, 9000));
    CHECK(keep_claim(&r, 1, 1000));
    world_pass(w, 900);
    CHECK_UINT(claim(&r, 2, 1000)->entry.lease_left_ms, 100);

    op = finish(&r, 1);
    CHECK(op->applied);
    CHECK(op->version > version);
    CHECK_UINT(op->attempt, 1);
    version = op->version;
    op = get_in(&r, HF_RECORDS, "r");
    CHECK(op->entry.present && !op->entry.claimed);
    CHECK(out_is(op, "done"));
    CHECK_UINT(op->entry.kept_left_ms, 5000);

    /* Finished again: the answer may have been lost. */
    op = finish(&r, 1);
    CHECK(op->applied);
    CHECK_UINT(op->version, version);
    CHECK(!keep_claim(&r, 1, 1000));
    op = claim(&r, 2, 1000);
    CHECK(!op->applied);
    CHECK(!op->entry.claimed);
    CHECK(out_is(op, "done"));
    CHECK_INT(finish(&r, 2)->refused, HF_REFUSED_OWNER);

    /* Taken back by its owner; by nobody else. */
    world_pass(w, 5000);
    op = claim(&r, 3, 1000);
    CHECK(op->applied);
    CHECK_UINT(op->attempt, 1);
    CHECK(!ASK(&r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "r", .token = 2,
               .condition = HF_IF_TOKEN)
               ->applied);
    CHECK(ASK(&r, .verb = HF_DEL, .space = HF_RECORDS, .keys = "r", .token = 3,
              .condition = HF_IF_TOKEN)
              ->applied);
    CHECK(!keep_claim(&r, 3, 1000));
    CHECK_INT(finish(&r, 3)->refused, HF_REFUSED_OWNER);
    CHECK_UINT(claim(&r, 4, 1000)->attempt, 1);
    rig_close(&r);
}

void conformance_claims_lapse(world *w) {
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    version = claim(&r, 1, 1000)->version;
    world_pass(w, 999);
    CHECK(!claim(&r, 2, 1000)->applied);
    world_pass(w, 1);
    op = get_in(&r, HF_RECORDS, "r");
    CHECK(op->entry.present && op->entry.claimed);
    CHECK_UINT(op->entry.lease_left_ms, 0);
    CHECK(!keep_claim(&r, 1, 1000)); /* never resurrected */
    op = claim(&r, 2, 1000);
    CHECK(op->applied);
    CHECK_UINT(op->attempt, 2);
    CHECK(op->version > version);

    /* The first runner comes late. */
    op = finish(&r, 1);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_OWNER);
    CHECK(!keep_claim(&r, 1, 1000));
    op = get_in(&r, HF_RECORDS, "r");
    CHECK(op->entry.claimed && is_token(&op->entry.token, 2));

    /* The second comes late too, but nobody has claimed it since. */
    world_pass(w, 5000);
    op = finish(&r, 2);
    CHECK(op->applied);
    CHECK_UINT(op->attempt, 2);
    op = get_in(&r, HF_RECORDS, "r");
    CHECK(!op->entry.claimed);
    CHECK_UINT(op->entry.attempt, 2);

    /* Many crashes in a row. */
    world_pass(w, 5000);
    for (uint32_t i = 1; i <= 5; i++) {
        CHECK_UINT(claim(&r, 10 + (int)i, 100)->attempt, i);
        world_pass(w, 100);
    }
    rig_close(&r);
}

/* ---- time */

void conformance_entries_expire(world *w) {
    const hf_op *op;
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "a", .ttl = 1000);
    world_pass(w, 400);
    CHECK_UINT(get(&r, "k")->entry.kept_left_ms, 600);
    world_pass(w, 599);
    CHECK(has(&r, "k", "a"));
    world_pass(w, 1);
    check_absent(get(&r, "k"));
    CHECK(!del(&r, "k"));
    CHECK(ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "b", .ttl = 1000,
              .condition = HF_IF_ABSENT)
              ->applied);

    /* Another put sets its time, or clears it, or lets it be. */
    world_pass(w, 500);
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "c", .flags = HF_OP_KEEP_TTL);
    CHECK_UINT(get(&r, "k")->entry.kept_left_ms, 500);
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "d", .ttl = 2000);
    CHECK_UINT(get(&r, "k")->entry.kept_left_ms, 2000);
    put(&r, "k", "e");
    CHECK_UINT(get(&r, "k")->entry.kept_left_ms, HF_FOREVER);
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "f", .ttl = 7000,
        .flags = HF_OP_KEEP_TTL);
    CHECK_UINT(get(&r, "k")->entry.kept_left_ms, HF_FOREVER);
    world_pass(w, 1000 * DAY_MS);
    CHECK(has(&r, "k", "f"));

    /* Where there is nothing whose time could be kept, its own counts. */
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "new", .value = "g", .ttl = 300,
        .flags = HF_OP_KEEP_TTL);
    CHECK_UINT(get(&r, "new")->entry.kept_left_ms, 300);

    /* A claim may be kept for a while, too. */
    ASK(&r, .verb = HF_PUT, .space = HF_RECORDS, .keys = "r", .token = 1, .value = "v", .ttl = 3000,
        .lease = 1000, .condition = HF_IF_CLAIMABLE);
    op = get_in(&r, HF_RECORDS, "r");
    CHECK_UINT(op->entry.kept_left_ms, 3000);
    CHECK_UINT(op->entry.lease_left_ms, 1000);
    rig_close(&r);
}

/* ---- fences */

static const hf_op *put_fenced(rig *r, const char *lock, uint64_t fence) {
    return ASK(r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "v", .fence_key = lock,
               .fence = fence);
}

void conformance_entry_fences(world *w) {
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    rig_open(&r, w, false);
    put(&r, "k", "plain");
    CHECK(put_fenced(&r, "lock", 100)->applied);
    CHECK_UINT(get(&r, "k")->entry.fence, 100);
    CHECK(put_fenced(&r, "lock", 100)->applied); /* the same holder again */
    version = put_fenced(&r, "lock", 101)->version;
    op = put_fenced(&r, "lock", 100);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_FENCE);
    CHECK_UINT(op->fence, 101);
    op = put_fenced(&r, "other lock", 500);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_FENCE_KEY);
    CHECK_UINT(get(&r, "k")->entry.version, version);

    /* A write without a fence leaves what is remembered. */
    put(&r, "k", "w");
    CHECK_UINT(get(&r, "k")->entry.fence, 101);
    CHECK_INT(put_fenced(&r, "lock", 100)->refused, HF_REFUSED_FENCE);

    /* What is refused by its condition moves no fence; a fence is judged before the condition. */
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "x", .fence_key = "lock",
             .fence = 200, .condition = HF_IF_ABSENT);
    CHECK_INT(op->refused, HF_REFUSED_PRESENT);
    CHECK(put_fenced(&r, "lock", 150)->applied);
    op = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "x", .fence_key = "lock",
             .fence = 100, .condition = HF_IF_ABSENT);
    CHECK_INT(op->refused, HF_REFUSED_FENCE);

    /* Of del and add, too. */
    CHECK_INT(
        ASK(&r, .verb = HF_DEL, .space = HF_VALUES, .keys = "k", .fence_key = "lock", .fence = 149)
            ->refused,
        HF_REFUSED_FENCE);
    CHECK(ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1, .fence_key = "lock",
              .fence = 7)
              ->applied);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1, .fence_key = "lock",
             .fence = 6);
    CHECK_INT(op->refused, HF_REFUSED_FENCE);
    CHECK_UINT(op->fence, 7);
    CHECK(ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1)->applied);
    CHECK_UINT(get(&r, "n")->entry.fence, 7);
    rig_close(&r);
}

static void sweep_all(rig *r) {
    while (ASK(r, .verb = HF_SWEEP, .limit = 50)->swept > 0) {
    }
}

void conformance_tombstones(world *w) {
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    /* The memory of a fence outlives the value that was deleted, by one day. */
    CHECK(put_fenced(&r, "lock", 100)->applied);
    CHECK(
        ASK(&r, .verb = HF_DEL, .space = HF_VALUES, .keys = "k", .fence_key = "lock", .fence = 110)
            ->applied);
    check_absent(get(&r, "k"));
    CHECK(!del(&r, "k"));
    world_pass(w, DAY_MS - 1);
    sweep_all(&r);
    CHECK_INT(put_fenced(&r, "lock", 109)->refused, HF_REFUSED_FENCE);
    CHECK_INT(put_fenced(&r, "other", 500)->refused, HF_REFUSED_FENCE_KEY);
    world_pass(w, 1);
    CHECK(put_fenced(&r, "other", 1)->applied);
    CHECK_UINT(get(&r, "k")->entry.fence, 1);

    /* Also where the deletion itself had none; and it lives on in the next value. */
    CHECK(del(&r, "k"));
    world_pass(w, DAY_MS / 2);
    put(&r, "k", "again");
    CHECK_UINT(get(&r, "k")->entry.fence, 1);
    world_pass(w, 2 * DAY_MS);
    sweep_all(&r);
    CHECK_INT(put_fenced(&r, "other", 0)->refused, HF_REFUSED_FENCE);

    /* And the one that expired. */
    ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "v", .ttl = 1000,
        .fence_key = "other", .fence = 50);
    world_pass(w, 1000 + DAY_MS - 1);
    sweep_all(&r);
    check_absent(get(&r, "k"));
    CHECK_INT(put_fenced(&r, "other", 49)->refused, HF_REFUSED_FENCE);
    world_pass(w, 1);
    CHECK(put_fenced(&r, "other", 49)->applied);

    /* Nothing forgotten comes back with a write that has no fence. */
    CHECK(del(&r, "k"));
    world_pass(w, DAY_MS);
    put(&r, "k", "fresh");
    CHECK_UINT(get(&r, "k")->entry.fence, 0);
    CHECK(put_fenced(&r, "third", 1)->applied);
    rig_close(&r);
}

/* ---- add */

static const hf_op *add(rig *r, const char *key, int64_t delta) {
    return ASK(r, .verb = HF_ADD, .space = HF_VALUES, .keys = key, .delta = delta);
}

static const hf_op *add_within(rig *r, int64_t delta, int64_t min, int64_t max) {
    return ASK(r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = delta, .min = min,
               .max = max, .flags = HF_OP_HAS_MIN | HF_OP_HAS_MAX);
}

static void check_type(rig *r, const char *value, hf_format format, bool is_integer) {
    const hf_op *op;

    CHECK(ASK(r, .verb = HF_PUT, .space = HF_VALUES, .keys = "t", .value = value, .format = format)
              ->applied);
    op = add(r, "t", 1);
    if (op->applied != is_integer || op->refused != (is_integer ? 0 : HF_REFUSED_TYPE))
        FAIL("\"%s\" is%s taken for an integer", value, op->applied ? "" : " not");
    if (!is_integer) CHECK(has(r, "t", value));
}

static void check_types(rig *r) {
    check_type(r, "41", HF_JSON, true);
    check_type(r, "-41", HF_JSON, true);
    check_type(r, "0", HF_JSON, true);
    check_type(r, "41", HF_BYTES, false);
    check_type(r, "\"41\"", HF_JSON, false);
    check_type(r, "4.5", HF_JSON, false);
    check_type(r, "1e3", HF_JSON, false);
    check_type(r, "null", HF_JSON, false);
    check_type(r, "{}", HF_JSON, false);
    check_type(r, "", HF_JSON, false);
    check_type(r, "-", HF_JSON, false);
    check_type(r, "99999999999999999999999999", HF_JSON, false);
}

void conformance_add(world *w) {
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 5, .initial = 100,
             .ttl = 3000);
    CHECK(op->applied);
    CHECK_INT(op->sum, 105);
    version = op->version;
    CHECK(version > 0);
    op = get(&r, "n");
    CHECK(out_is(op, "105"));
    CHECK_UINT(op->entry.format, HF_JSON);
    CHECK_UINT(op->entry.kept_left_ms, 3000);
    world_pass(w, 1000);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = -300, .initial = 7,
             .ttl = 9000);
    CHECK_INT(op->sum, -195);
    CHECK(op->version > version);
    op = get(&r, "n");
    CHECK(out_is(op, "-195"));
    CHECK_UINT(op->entry.kept_left_ms, 2000);
    CHECK_INT(add(&r, "n", 195)->sum, 0);
    CHECK(has(&r, "n", "0"));

    /* Bounds hold for the result, and are its own ends. */
    CHECK_INT(add_within(&r, 5, 0, 5)->sum, 5);
    op = add_within(&r, 1, 0, 5);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_BOUNDS);
    CHECK_INT(add_within(&r, -6, 0, 5)->refused, HF_REFUSED_BOUNDS);
    CHECK(has(&r, "n", "5"));
    CHECK_INT(add_within(&r, -5, 0, 5)->sum, 0);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "none", .delta = 1, .initial = 10,
             .max = 10, .flags = HF_OP_HAS_MAX);
    CHECK_INT(op->refused, HF_REFUSED_BOUNDS);
    check_absent(get(&r, "none"));
    CHECK_INT(ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "none", .delta = -1,
                  .initial = 10, .max = 10, .min = 9, .flags = HF_OP_HAS_MAX | HF_OP_HAS_MIN)
                  ->sum,
              9);

    /* Safe integers only, whatever is added to whatever. */
    CHECK_INT(add(&r, "big", HF_INT_MAX)->sum, HF_INT_MAX);
    CHECK_INT(add(&r, "big", 1)->refused, HF_REFUSED_BOUNDS);
    CHECK_INT(add(&r, "big", INT64_MAX)->refused, HF_REFUSED_BOUNDS);
    CHECK_INT(add(&r, "small", -HF_INT_MAX)->sum, -HF_INT_MAX);
    CHECK_INT(add(&r, "small", -1)->refused, HF_REFUSED_BOUNDS);
    CHECK_INT(add(&r, "small", INT64_MIN)->refused, HF_REFUSED_BOUNDS);
    CHECK_INT(ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "odd", .delta = INT64_MAX,
                  .initial = INT64_MAX)
                  ->refused,
              HF_REFUSED_BOUNDS);

    check_types(&r);
    rig_close(&r);
}

void conformance_add_conditions(world *w) {
    const hf_op *op;
    uint64_t version;
    rig r;

    need_entries(w);
    rig_open(&r, w, false);
    version = add(&r, "n", 1)->version;
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1,
             .condition = HF_IF_VERSION, .version = version + 1, .flags = HF_OP_WANT_ENTRY);
    CHECK_INT(op->refused, HF_REFUSED_VERSION);
    CHECK(op->entry.present && out_is(op, "1"));
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1,
             .condition = HF_IF_VERSION, .version = version);
    CHECK_INT(op->sum, 2);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "n", .delta = 1,
             .condition = HF_IF_ABSENT);
    CHECK_INT(op->refused, HF_REFUSED_PRESENT);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "m", .delta = 1,
             .condition = HF_IF_ABSENT);
    CHECK_INT(op->sum, 1);
    op = ASK(&r, .verb = HF_ADD, .space = HF_VALUES, .keys = "o", .delta = 1,
             .condition = HF_IF_VERSION, .version = 1);
    CHECK_INT(op->refused, HF_REFUSED_VERSION);
    rig_close(&r);
}

/* ---- versions */

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void conformance_versions_never_repeat(world *w) {
    uint64_t versions[48];
    size_t n = sizeof versions / sizeof versions[0];
    rig r;

    need_entries(w);
    need_clock(w);
    rig_open(&r, w, false);
    for (size_t i = 0; i < n; i++) {
        versions[i] = ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "k", .value = "1",
                          .format = HF_JSON, .ttl = 1000)
                          ->version;
        CHECK(versions[i] > 0);
        CHECK(versions[i] <= HF_INT_MAX);
        switch (i % 4) {
        case 0: CHECK(del(&r, "k")); break;
        case 1: world_pass(w, 1000); break;
        case 2:
            world_pass(w, 3 * DAY_MS);
            sweep_all(&r);
            break;
        default: versions[i] = add(&r, "k", 1)->version; break;
        }
    }
    qsort(versions, n, sizeof versions[0], compare_numbers);
    for (size_t i = 1; i < n; i++)
        CHECK(versions[i] != versions[i - 1]);
    rig_close(&r);
}
