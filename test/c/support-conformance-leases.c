#include "conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARED HF_SHARED

static void need(world *w, uint32_t caps) {
    if ((w->subject->vt->caps & caps) != caps) world_skip(w, "the store has no such capability");
}

static void need_clock(world *w) {
    if (!world_can_pass(w)) world_skip(w, "the store's clock cannot be moved");
}

/* Whether it has counted leases; else those who share stand in for them. */
static bool counts(const world *w) {
    return (w->subject->vt->caps & HF_CAP_PERMITS) != 0;
}

static const hf_op *take(rig *r, const char *keys, int token) {
    return ASK(r, .verb = HF_TAKE, .keys = keys, .token = token);
}

static const hf_op *take_for(rig *r, const char *keys, int token, uint32_t limit, uint64_t ttl) {
    return ASK(r, .verb = HF_TAKE, .keys = keys, .token = token, .limit = limit, .ttl = ttl);
}

static bool drop(rig *r, const char *keys, int token) {
    return ASK(r, .verb = HF_DROP, .keys = keys, .token = token)->applied;
}

/* Whether a key could be taken exclusively now. */
static bool is_free(rig *r, const char *key) {
    bool applied = take(r, key, 9999)->applied;

    if (applied) CHECK(drop(r, key, 9999));
    return applied;
}

static bool is_token(const hf_token *token, int n) {
    hf_token other = token_of(n);
    return memcmp(token, &other, sizeof other) == 0;
}

/* A key's live holders, the tokens of `rows` in any order. */
static const hf_op *list_key(rig *r, const char *key) {
    return ASK(r, .verb = HF_LIST, .keys = key, .flags = HF_OP_EXACT);
}

/* ---- admission */

void conformance_admission(world *w) {
    static const struct {
        uint32_t holders[4];
        uint32_t limit;
        bool admitted;
    } table[] = {
        {{0}, 1, true},
        {{0}, 2, true},
        {{0}, SHARED, true},
        {{1}, 1, false},
        {{1}, 2, false},
        {{1}, SHARED, false},
        {{SHARED}, 1, false},
        {{SHARED}, SHARED, true},
        {{SHARED, SHARED, SHARED}, SHARED, true},
        {{SHARED, SHARED}, 1, false},
        {{2}, 1, false},
        {{2}, 2, true},
        {{2, 2}, 2, false},
        {{3, 3}, 3, true},
        {{3, 3, 3}, 3, false},
        {{2}, 5, true},
        {{5, 2}, 5, false}, /* the least limit counts, whoever's it is */
        {{5, 5}, 2, false},
        {{5, 5}, 3, true},
        {{SHARED}, 3, true},
        {{SHARED, SHARED}, 2, false},
        {{SHARED, SHARED}, 3, true},
        {{3, SHARED}, SHARED, true},
        {{3, SHARED, SHARED}, SHARED, false},
        {{4, 4, SHARED, SHARED}, SHARED, false},
        {{SHARED - 1}, SHARED, true},
    };
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_PERMITS);
    rig_open(&r, w, false);
    for (size_t row = 0; row < sizeof table / sizeof table[0]; row++) {
        char key[32];
        int holders = 0;
        const hf_op *op;

        snprintf(key, sizeof key, "row-%zu", row);
        for (; holders < 4 && table[row].holders[holders] != 0; holders++)
            CHECK(take_for(&r, key, 10 + holders, table[row].holders[holders], 10000)->applied);
        op = take_for(&r, key, 1, table[row].limit, 10000);
        if (op->applied != table[row].admitted) FAIL("row %zu is wrong", row);
        CHECK_INT(op->error.code, HF_OK);
        CHECK_INT(op->refused, op->applied ? HF_NOT_REFUSED : HF_REFUSED_HELD);
        CHECK((op->fence > 0) == op->applied);
        /* When enough of them have gone it is admitted. */
        for (int i = 0; i < holders; i++)
            CHECK(drop(&r, key, 10 + i));
        CHECK(take_for(&r, key, 1, table[row].limit, 10000)->applied);
    }
    rig_close(&r);
}

void conformance_refusal_tells_of_the_holder(world *w) {
    const hf_holder *holder;
    const hf_op *op;
    uint64_t fence;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED);
    need_clock(w);
    rig_open(&r, w, false);
    op = ASK(&r, .verb = HF_TAKE, .keys = "k", .token = 7, .limit = 1, .ttl = 5000,
             .note = "nightly \xc3\xa9");
    CHECK(op->applied);
    fence = op->fence;
    world_pass(w, 1500);
    op = take(&r, "k", 8);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    CHECK_UINT(op->left_ms, 3500);
    holder = rig_holder(&r);
    CHECK(is_token(&holder->token, 7));
    CHECK_UINT(holder->fence, fence);
    CHECK_UINT(holder->left_ms, 3500);
    CHECK_UINT(holder->limit, 1);
    CHECK_UINT(holder->since_us, atomic_load(&w->real_us) - 1500000);
    CHECK_STR(holder->who, "4711@rig");
    CHECK_STR(holder->note, "nightly \xc3\xa9");

    /* Of several in the way, the time until the first lapses; of several keys, over all of them. */
    CHECK(take_for(&r, "s", 1, SHARED, 9000)->applied);
    CHECK(take_for(&r, "s", 2, SHARED, 3000)->applied);
    CHECK(take_for(&r, "s", 3, SHARED, 6000)->applied);
    CHECK_UINT(take(&r, "s", 8)->left_ms, 3000);
    CHECK_INT(rig_holder(&r)->limit, SHARED);
    CHECK_UINT(take(&r, "s k free", 8)->left_ms, 3000);
    CHECK_UINT(take(&r, "free k", 8)->left_ms, 3500);
    CHECK(is_token(&rig_holder(&r)->token, 7));
    rig_close(&r);
}

void conformance_take_is_idempotent(world *w) {
    const hf_op *op;
    uint64_t fence;
    uint32_t two;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED);
    need_clock(w);
    rig_open(&r, w, false);
    op = take_for(&r, "a b", 1, 1, 5000);
    CHECK(op->applied);
    fence = op->fence;
    op = take_for(&r, "a b", 1, 1, 5000);
    CHECK(op->applied);
    CHECK_UINT(op->fence, fence);
    CHECK_UINT(list_key(&r, "a")->n_rows, 1);

    /* It may lengthen the lease, never shorten it. */
    CHECK(take_for(&r, "b a", 1, 1, 1000)->applied);
    CHECK_UINT(take(&r, "a", 2)->left_ms, 5000);
    CHECK(take_for(&r, "a b", 1, 1, 8000)->applied);
    CHECK_UINT(take(&r, "a", 2)->left_ms, 8000);
    CHECK_UINT(take(&r, "b", 2)->left_ms, 8000);

    /* Some of the keys and others: a mistake, and nothing changes. */
    op = take(&r, "b c", 1);
    CHECK_INT(op->error.code, HF_EINVAL);
    CHECK(!op->applied);
    CHECK(is_free(&r, "c"));
    CHECK_UINT(take(&r, "b", 2)->left_ms, 8000);

    /* Once lapsed, the same token's take is a new one. */
    world_pass(w, 8000);
    op = take_for(&r, "a b", 1, 1, 5000);
    CHECK(op->applied);
    CHECK(op->fence > fence);

    /* A shared holder's repeat does not count it twice. */
    two = counts(w) ? 2 : SHARED;
    CHECK(take_for(&r, "n", 1, two, 5000)->applied);
    CHECK(take_for(&r, "n", 1, two, 5000)->applied);
    CHECK(take_for(&r, "n", 2, two, 5000)->applied);
    CHECK(take_for(&r, "n", 1, two, 5000)->applied);
    CHECK_UINT(list_key(&r, "n")->n_rows, 2);
    CHECK(!take_for(&r, "n", 3, counts(w) ? 2 : 1, 5000)->applied);
    rig_close(&r);
}

void conformance_take_several_keys(world *w) {
    char many[HF_KEYS_MAX * 8];
    uint64_t most = 0;
    uint64_t fence;
    size_t at = 0;
    rig r;

    need(w, HF_CAP_LEASES);
    rig_open(&r, w, false);
    /* All or none. */
    CHECK(take(&r, "b", 1)->applied);
    CHECK(!take(&r, "a b c", 2)->applied);
    CHECK(is_free(&r, "a"));
    CHECK(is_free(&r, "c"));
    CHECK(drop(&r, "b", 1));

    /* One number, above all that any of them has had. */
    for (int i = 0; i < 20; i++) {
        fence = take(&r, "b", 3)->fence;
        CHECK(fence > most);
        most = fence;
        CHECK(drop(&r, "b", 3));
    }
    fence = take(&r, "a b c", 4)->fence;
    CHECK(fence > most);
    most = fence;
    CHECK(drop(&r, "a b c", 4));
    for (int i = 0; i < 3; i++)
        CHECK(take(&r, (const char *[]){"a", "b", "c"}[i], 5 + i)->fence > most);

    /* As many as there may be, in another order than they sort. */
    for (int i = 0; i < HF_KEYS_MAX; i++)
        at += (size_t)snprintf(many + at, sizeof many - at, "m%d ", i * 37 % HF_KEYS_MAX);
    CHECK(take(&r, many, 20)->applied);
    CHECK(!take(&r, "m63", 21)->applied);
    CHECK(ASK(&r, .verb = HF_KEEP, .keys = many, .token = 20)->applied);
    CHECK(drop(&r, many, 20));
    CHECK(is_free(&r, "m0"));
    CHECK(is_free(&r, "m63"));
    rig_close(&r);
}

void conformance_hand_over(world *w) {
    const hf_op *op;
    uint64_t fence;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_HAND_OVER);
    need_clock(w);
    rig_open(&r, w, false);
    fence = take(&r, "a b", 1)->fence;
    op = ASK(&r, .verb = HF_TAKE, .keys = "b a", .token = 2, .replace = 1, .ttl = 4000);
    CHECK(op->applied);
    CHECK(op->fence > fence);
    fence = op->fence;
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "a b", .token = 1)->applied);
    CHECK(!drop(&r, "a b", 1));
    CHECK_UINT(take(&r, "a", 3)->left_ms, 4000);
    CHECK(is_token(&rig_holder(&r)->token, 2));
    /* Repeated, it is the same take: the answer may have been lost. */
    op = ASK(&r, .verb = HF_TAKE, .keys = "b a", .token = 2, .replace = 1, .ttl = 4000);
    CHECK(op->applied);
    CHECK_UINT(op->fence, fence);

    /* Not exactly these keys, or not its own, or nobody's. */
    CHECK_INT(ASK(&r, .verb = HF_TAKE, .keys = "a", .token = 4, .replace = 2)->refused,
              HF_REFUSED_OWNER);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "a b c", .token = 4, .replace = 2)->applied);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "a b", .token = 4, .replace = 1)->applied);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "z", .token = 4, .replace = 1)->applied);
    CHECK(is_free(&r, "z"));
    CHECK(is_free(&r, "c"));
    CHECK_UINT(take(&r, "a", 3)->left_ms, 4000);
    CHECK(is_token(&rig_holder(&r)->token, 2));

    /* What was shared is not handed over. */
    CHECK(take_for(&r, "s", 5, SHARED, 4000)->applied);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "s", .token = 6, .replace = 5)->applied);

    /* Nor what has lapsed. */
    world_pass(w, 4000);
    CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "a b", .token = 7, .replace = 2)->applied);
    CHECK(is_free(&r, "a"));
    rig_close(&r);
}

void conformance_keep(world *w) {
    const hf_op *op;
    rig r;

    need(w, HF_CAP_LEASES);
    need_clock(w);
    rig_open(&r, w, false);
    CHECK(take_for(&r, "a b", 1, 1, 3000)->applied);
    world_pass(w, 2000);
    CHECK(ASK(&r, .verb = HF_KEEP, .keys = "a b", .token = 1, .ttl = 3000)->applied);
    world_pass(w, 2999);
    CHECK_UINT(take(&r, "a", 2)->left_ms, 1);
    CHECK_UINT(take(&r, "b", 2)->left_ms, 1);
    /* It sets the time left: also to less. */
    CHECK(ASK(&r, .verb = HF_KEEP, .keys = "a b", .token = 1, .ttl = 9000)->applied);
    CHECK(ASK(&r, .verb = HF_KEEP, .keys = "a", .token = 1, .ttl = 2000)->applied);
    CHECK_UINT(take(&r, "a", 2)->left_ms, 2000);
    CHECK_UINT(take(&r, "b", 2)->left_ms, 9000);

    /* Only its owner's, and all or none. */
    op = ASK(&r, .verb = HF_KEEP, .keys = "a", .token = 2, .ttl = 60000);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_OWNER);
    CHECK(take(&r, "c", 3)->applied);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "a c b", .token = 1, .ttl = 60000)->applied);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "a b nobody", .token = 1, .ttl = 60000)->applied);
    CHECK_UINT(take(&r, "a", 2)->left_ms, 2000);

    /* Never back to life, taken by another since or not. */
    world_pass(w, 2000);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "a", .token = 1, .ttl = 60000)->applied);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "a b", .token = 1, .ttl = 60000)->applied);
    CHECK_UINT(take(&r, "b", 2)->left_ms, 7000);
    CHECK(take(&r, "a", 2)->applied);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "a", .token = 1, .ttl = 60000)->applied);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "never", .token = 1, .ttl = 60000)->applied);
    CHECK(is_free(&r, "never"));
    rig_close(&r);
}

void conformance_drop(world *w) {
    const hf_op *op;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED);
    need_clock(w);
    rig_open(&r, w, false);
    CHECK(take(&r, "a b", 1)->applied);
    op = ASK(&r, .verb = HF_DROP, .keys = "a b", .token = 2);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_OWNER);
    CHECK_INT(op->error.code, HF_OK);
    CHECK(!take(&r, "a", 3)->applied);
    CHECK(drop(&r, "a b", 1));
    CHECK(is_free(&r, "a"));
    CHECK(is_free(&r, "b"));
    CHECK(!drop(&r, "a b", 1));

    /* What it holds of them goes, even if that is not all. */
    CHECK(take(&r, "a", 1)->applied);
    CHECK(take(&r, "b", 2)->applied);
    CHECK(!drop(&r, "c a b", 1));
    CHECK(is_free(&r, "a"));
    CHECK(!take(&r, "b", 3)->applied);
    CHECK(drop(&r, "b", 2));

    /* One of several who share goes alone. */
    for (int i = 0; i < 3; i++)
        CHECK(take_for(&r, "s", 10 + i, counts(w) ? 3 : SHARED, 5000)->applied);
    CHECK(drop(&r, "s", 11));
    CHECK_UINT(list_key(&r, "s")->n_rows, 2);
    CHECK(take_for(&r, "s", 13, counts(w) ? 3 : SHARED, 5000)->applied);

    /* A lease that has lapsed is not there to be dropped. */
    world_pass(w, 20000);
    CHECK(!drop(&r, "s", 10));
    CHECK(take(&r, "s", 20)->applied);
    CHECK(!drop(&r, "s", 10));
    CHECK(!is_free(&r, "s"));
    rig_close(&r);
}

/* ---- intent marks */

static const hf_op *want(rig *r, const char *keys, int token, uint64_t ttl) {
    return ASK(r, .verb = HF_TAKE, .keys = keys, .token = token, .ttl = ttl, .flags = HF_OP_INTENT);
}

static bool shares(rig *r, const char *key, int token) {
    return take_for(r, key, token, SHARED, 60000)->applied;
}

void conformance_intent_marks(world *w) {
    const hf_op *op;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED);
    need_clock(w);
    rig_open(&r, w, false);
    CHECK(shares(&r, "k", 1));
    /* Without the flag a refused take leaves nothing behind; nor does a shared one with it. */
    CHECK(!take(&r, "k", 2)->applied);
    CHECK(shares(&r, "k", 3));
    if (counts(w))
        CHECK(!ASK(&r, .verb = HF_TAKE, .keys = "k", .token = 2, .limit = 2, .flags = HF_OP_INTENT)
                   ->applied);
    CHECK(shares(&r, "k", 4));

    /* A mark keeps those who share from coming in for ever. */
    CHECK(!want(&r, "k", 2, 30000)->applied);
    op = take_for(&r, "k", 5, SHARED, 60000);
    CHECK(!op->applied);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    CHECK_UINT(op->left_ms, 2000);
    if (counts(w)) CHECK(!take_for(&r, "k", 5, 50, 60000)->applied);
    CHECK(shares(&r, "k", 1)); /* who is in already is not refused */
    CHECK(ASK(&r, .verb = HF_KEEP, .keys = "k", .token = 1, .ttl = 60000)->applied);

    /* It lives two seconds, anew with every refused attempt. */
    world_pass(w, 1500);
    CHECK(!want(&r, "k", 2, 30000)->applied);
    world_pass(w, 1999);
    CHECK(!shares(&r, "k", 5));
    world_pass(w, 1);
    CHECK(shares(&r, "k", 5));

    /* Or as long as its lease would have, if that is less. */
    CHECK(!want(&r, "k", 2, 500)->applied);
    world_pass(w, 499);
    CHECK_UINT(take_for(&r, "k", 6, SHARED, 60000)->left_ms, 1);
    world_pass(w, 1);
    CHECK(shares(&r, "k", 6));

    /* It goes when its token is dropped; the drop itself held nothing. */
    CHECK(!want(&r, "k", 2, 30000)->applied);
    CHECK(!drop(&r, "k", 2));
    CHECK(shares(&r, "k", 7));

    /* It refuses no exclusive take, and goes when its token is admitted. */
    CHECK(!want(&r, "k", 2, 30000)->applied);
    for (int i = 1; i <= 7; i++)
        (void)drop(&r, "k", i == 2 ? 999 : i);
    CHECK(!shares(&r, "k", 8));
    CHECK(take(&r, "k", 9)->applied);
    CHECK(drop(&r, "k", 9));
    CHECK(want(&r, "k", 2, 30000)->applied);
    CHECK(drop(&r, "k", 2));
    CHECK(shares(&r, "k", 8));

    /* Two marks: each refuses until it is gone. */
    CHECK(!want(&r, "k", 20, 30000)->applied);
    world_pass(w, 1000);
    CHECK(!want(&r, "k", 21, 30000)->applied);
    world_pass(w, 1000);
    CHECK(!shares(&r, "k", 10));
    CHECK(!drop(&r, "k", 21));
    CHECK(shares(&r, "k", 10));

    /* A mark is no holder: it is not listed, and cannot be kept. */
    CHECK(!want(&r, "k", 22, 30000)->applied);
    CHECK_UINT(list_key(&r, "k")->n_rows, 2);
    CHECK(!ASK(&r, .verb = HF_KEEP, .keys = "k", .token = 22)->applied);
    rig_close(&r);
}

/* ---- time */

void conformance_lapse(world *w) {
    uint32_t two;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED);
    need_clock(w);
    rig_open(&r, w, false);
    CHECK(take_for(&r, "k", 1, 1, 50)->applied);
    world_pass(w, 49);
    CHECK(!take(&r, "k", 2)->applied);
    CHECK_UINT(list_key(&r, "k")->n_rows, 1);
    world_pass(w, 1);
    CHECK_UINT(list_key(&r, "k")->n_rows, 0);
    CHECK(take(&r, "k", 2)->applied);

    /* Those who share lapse each in its own time. */
    two = counts(w) ? 2 : SHARED;
    CHECK(take_for(&r, "s", 1, two, 100)->applied);
    CHECK(take_for(&r, "s", 2, two, 200)->applied);
    world_pass(w, 100);
    CHECK_UINT(list_key(&r, "s")->n_rows, 1);
    CHECK(take_for(&r, "s", 3, two, 300)->applied);
    CHECK_UINT(take(&r, "s", 4)->left_ms, 100);
    world_pass(w, 100);
    CHECK_UINT(take(&r, "s", 4)->left_ms, 200);

    if (counts(w)) { /* The least limit goes with its holder. */
        CHECK(take_for(&r, "l", 1, 2, 100)->applied);
        CHECK(take_for(&r, "l", 2, 5, 900)->applied);
        CHECK(!take_for(&r, "l", 3, 5, 900)->applied);
        world_pass(w, 100);
        CHECK(take_for(&r, "l", 3, 5, 900)->applied);
        CHECK(take_for(&r, "l", 4, 5, 900)->applied);
    }
    rig_close(&r);
}

/* ---- fences */

void conformance_fences_grow(world *w) {
    uint64_t last = 0;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_FENCES | HF_CAP_SHARED);
    need_clock(w);
    rig_open(&r, w, false);
    for (int i = 0; i < 60; i++) {
        uint32_t limit = i % 3 == 0 ? 1 : counts(w) ? 100 : SHARED;
        const hf_op *op = take_for(&r, "k", 100 + i, limit, 1000);

        CHECK(op->applied);
        CHECK(op->fence > last);
        CHECK(op->fence <= HF_INT_MAX);
        last = op->fence;
        /* Ended by drop, by lapse, or (shared) not at all before the next. */
        if (i % 3 == 2)
            world_pass(w, 1000);
        else if (i % 3 == 0)
            CHECK(drop(&r, "k", 100 + i));
    }
    rig_close(&r);
}

static void sweep_all(rig *r) {
    while (ASK(r, .verb = HF_SWEEP, .limit = 50)->swept > 0) {
    }
}

void conformance_fences_outlive_leases(world *w) {
    uint64_t last;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_FENCES);
    need_clock(w);
    rig_open(&r, w, false);
    last = take(&r, "k", 1)->fence;
    for (int i = 0; i < 50; i++) {
        CHECK(drop(&r, "k", 1 + i));
        last = take(&r, "k", 2 + i)->fence;
    }
    for (int hours = 1; hours < 100; hours += 23) {
        uint64_t fence;
        world_pass(w, (uint64_t)hours * 3600 * 1000);
        sweep_all(&r);
        fence = take(&r, "k", 1000 + hours)->fence;
        CHECK(fence > last);
        last = fence;
    }

    /* Within the day the counter itself counts, not the clock: that may have been set back. */
    atomic_fetch_sub(&w->real_us, UINT64_C(7200000000));
    world_pass(w, 3600 * 1000);
    sweep_all(&r);
    CHECK(take(&r, "k", 2000)->fence > last);
    rig_close(&r);
}

/* ---- list, sweep */

static bool row_is(const hf_op *op, size_t at, const char *key, int token) {
    return at < op->n_rows && op->rows[at].key.len == strlen(key) &&
           memcmp(op->rows[at].key.data, key, strlen(key)) == 0 &&
           is_token(&op->rows[at].holder.token, token);
}

void conformance_list_leases(world *w) {
    const hf_op *op;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_LIST);
    need_clock(w);
    rig_open(&r, w, false);
    CHECK_UINT(ASK(&r, .verb = HF_LIST)->n_rows, 0);
    CHECK(take(&r, "b", 2)->applied);
    CHECK(take(&r, "ab", 3)->applied);
    CHECK(take_for(&r, "a", 4, 1, 100)->applied);
    CHECK(ASK(&r, .verb = HF_TAKE, .keys = "a_", .token = 5, .ttl = 3000, .note = "note")->applied);
    CHECK(take(&r, "a%", 6)->applied);
    CHECK(take(&r, "\xff\xff", 7)->applied);
    CHECK(take(&r, "A", 8)->applied);

    op = ASK(&r, .verb = HF_LIST);
    CHECK_UINT(op->n_rows, 7);
    CHECK(row_is(op, 0, "A", 8) && row_is(op, 1, "a", 4) && row_is(op, 2, "a%", 6));
    CHECK(row_is(op, 3, "a_", 5) && row_is(op, 4, "ab", 3) && row_is(op, 5, "b", 2));
    CHECK(row_is(op, 6, "\xff\xff", 7));
    op = ASK(&r, .verb = HF_LIST, .keys = "a");
    CHECK_UINT(op->n_rows, 4);
    op = ASK(&r, .verb = HF_LIST, .keys = "a_");
    CHECK_UINT(op->n_rows, 1);
    CHECK(row_is(op, 0, "a_", 5));
    CHECK_STR(op->rows[0].holder.note, "note");
    CHECK_STR(op->rows[0].holder.who, "4711@rig");
    CHECK_UINT(op->rows[0].holder.left_ms, 3000);
    CHECK_UINT(op->rows[0].holder.limit, 1);
    CHECK(op->rows[0].holder.fence > 0);
    CHECK_UINT(op->rows[0].holder.since_us, atomic_load(&w->real_us));
    CHECK_UINT(ASK(&r, .verb = HF_LIST, .keys = "\xff")->n_rows, 1);
    CHECK_UINT(ASK(&r, .verb = HF_LIST, .keys = "none")->n_rows, 0);
    op = ASK(&r, .verb = HF_LIST, .keys = "a", .value = "a%");
    CHECK(op->n_rows == 2 && row_is(op, 0, "a_", 5));

    CHECK_UINT(list_key(&r, "a")->n_rows, 1);
    CHECK_UINT(list_key(&r, "c")->n_rows, 0);
    world_pass(w, 100);
    CHECK_UINT(list_key(&r, "a")->n_rows, 0);
    CHECK_UINT(ASK(&r, .verb = HF_LIST, .keys = "a")->n_rows, 3);
    rig_close(&r);
}

/* Through all pages of `limit`, checking that keys come once, in order and whole. */
static int count_pages(rig *r, uint32_t limit, int holders) {
    char after[16] = "";
    int keys = 0;

    for (;;) {
        const hf_op *op = ASK(r, .verb = HF_LIST, .keys = "p", .limit = limit, .value = after,
                              .flags = keys > 0 ? HF_OP_NEXT : 0);

        CHECK_INT(op->error.code, HF_OK);
        if (op->n_rows == 0) return keys;
        CHECK(op->n_rows <= limit || op->n_rows == (size_t)holders);
        CHECK_UINT(op->n_rows % (size_t)holders, 0);
        for (size_t i = 0; i < op->n_rows; i++) {
            hf_slice key = op->rows[i].key;
            bool is_new = strlen(after) != key.len || memcmp(after, key.data, key.len) != 0;
            if (i % (size_t)holders != 0) {
                CHECK(!is_new);
                continue;
            }
            snprintf(after, sizeof after, "p%03d", keys++);
            CHECK(key.len == strlen(after) && memcmp(after, key.data, key.len) == 0);
        }
    }
}

void conformance_list_pages(world *w) {
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_LIST | HF_CAP_SHARED);
    rig_open(&r, w, false);
    for (int i = 0; i < 30; i++) {
        char key[16];
        snprintf(key, sizeof key, "p%03d", i * 7 % 30);
        for (int holder = 0; holder < 3; holder++)
            CHECK(take_for(&r, key, 1 + holder, SHARED, 10000)->applied);
    }
    CHECK(take(&r, "q", 50)->applied);
    CHECK_INT(count_pages(&r, 100, 3), 30);
    CHECK_INT(count_pages(&r, 90, 3), 30);
    CHECK_INT(count_pages(&r, 10, 3), 30);
    CHECK_INT(count_pages(&r, 3, 3), 30);
    /* A key with more holders than a page has rows still comes, or the list could not go on. */
    CHECK_INT(count_pages(&r, 2, 3), 30);
    CHECK_UINT(ASK(&r, .verb = HF_LIST, .keys = "p000", .limit = 1, .flags = HF_OP_EXACT)->n_rows,
               3);
    rig_close(&r);
}

static uint32_t sweep_in_steps(rig *r, uint32_t limit) {
    uint32_t all = 0;

    for (;;) {
        const hf_op *op = ASK(r, .verb = HF_SWEEP, .limit = limit);
        CHECK_INT(op->error.code, HF_OK);
        CHECK(op->swept <= limit);
        if (op->swept == 0) return all;
        all += op->swept;
    }
}

void conformance_sweep(world *w) {
    uint32_t least = w->subject->set_clock == NULL ? 24 : 0;
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_ENTRIES);
    need_clock(w);
    rig_open(&r, w, false);
    CHECK_UINT(sweep_in_steps(&r, 5), 0);
    for (int i = 0; i < 12; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        CHECK(take_for(&r, key, 1 + i, 1, 1000)->applied);
        CHECK(ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = key, .ttl = 1000, .value = "v")
                  ->applied);
    }
    CHECK(take_for(&r, "held", 90, 1, 60000)->applied);
    CHECK(ASK(&r, .verb = HF_PUT, .space = HF_VALUES, .keys = "kept", .value = "v")->applied);
    world_pass(w, 999);
    CHECK_UINT(sweep_in_steps(&r, 5), 0);
    world_pass(w, 1);
    CHECK(sweep_in_steps(&r, 5) >= least);
    CHECK(!take(&r, "held", 91)->applied);
    CHECK(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "kept")->entry.present);
    CHECK(!ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "k1")->entry.present);
    CHECK(is_free(&r, "k1"));
    /* And after a day whatever was left of them. */
    world_pass(w, UINT64_C(25) * 3600 * 1000);
    sweep_in_steps(&r, 3);
    CHECK_UINT(sweep_in_steps(&r, 100), 0);
    CHECK(ASK(&r, .verb = HF_GET, .space = HF_VALUES, .keys = "kept")->entry.present);
    CHECK(is_free(&r, "held"));
    rig_close(&r);
}

/* ---- against a model */

enum { KEYS = 3, TOKENS = 7 };

typedef struct model {
    struct {
        uint64_t until[TOKENS]; /* 0: no hold */
        uint32_t limit[TOKENS];
        uint64_t mark[TOKENS];
        uint64_t fence;
    } key[KEYS];
    uint64_t fence_of[TOKENS][KEYS];
    uint64_t now;
} model;

static uint32_t draw(uint64_t *state, uint32_t below) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % below;
}

static bool holds(const model *m, int token, int key) {
    return m->key[key].until[token] > m->now;
}

/* The rule once more, in the words of the contract. */
static bool admitted(const model *m, int token, int key, uint32_t limit, uint64_t *left) {
    uint32_t least = limit;
    uint32_t count = 0;
    uint64_t first = UINT64_MAX;
    uint64_t mark = UINT64_MAX;

    for (int t = 0; t < TOKENS; t++) {
        if (t == token) continue;
        if (limit > 1 && m->key[key].mark[t] > m->now && m->key[key].mark[t] < mark)
            mark = m->key[key].mark[t];
        if (!holds(m, t, key)) continue;
        count++;
        if (m->key[key].limit[t] < least) least = m->key[key].limit[t];
        if (m->key[key].until[t] < first) first = m->key[key].until[t];
    }
    if (count + 1 > least && first - m->now < *left) *left = first - m->now;
    if (mark != UINT64_MAX && mark - m->now < *left) *left = mark - m->now;
    return count + 1 <= least && mark == UINT64_MAX;
}

static const char *keys_of(uint32_t set) {
    static const char *const names[] = {"", "x", "y", "x y", "z", "x z", "y z", "x y z"};
    return names[set];
}

static void model_take(rig *r, model *m, int token, uint32_t set, uint32_t limit, uint64_t ttl,
                       bool intent) {
    const hf_op *op = ASK(r, .verb = HF_TAKE, .keys = keys_of(set), .token = token + 1,
                          .limit = limit, .ttl = ttl, .flags = intent ? HF_OP_INTENT : 0);
    uint32_t own = 0;
    uint64_t left = UINT64_MAX;
    bool ok = true;

    for (int k = 0; k < KEYS; k++) {
        if ((set >> k & 1) == 0) continue;
        if (holds(m, token, k)) own |= 1u << k;
        ok = admitted(m, token, k, limit, &left) && ok;
    }
    if (own != 0 && own != set) {
        CHECK_INT(op->error.code, HF_EINVAL);
        return;
    }
    CHECK_INT(op->error.code, HF_OK);
    if (own == set) ok = true;
    CHECK(op->applied == ok);
    if (!ok) CHECK_UINT(op->left_ms, left);
    for (int k = 0; k < KEYS; k++) {
        if ((set >> k & 1) == 0) continue;
        if (own == set) {
            if (m->key[k].until[token] < m->now + ttl) m->key[k].until[token] = m->now + ttl;
            CHECK(op->fence >= m->fence_of[token][k]);
        } else if (ok) {
            CHECK(op->fence > m->key[k].fence);
            m->key[k].fence = m->fence_of[token][k] = op->fence;
            m->key[k].until[token] = m->now + ttl;
            m->key[k].limit[token] = limit;
        } else if (intent && limit == 1) {
            m->key[k].mark[token] = m->now + (ttl < 2000 ? ttl : 2000);
        }
    }
    /* A token's marks on them go with its admission. */
    for (int k = 0; k < KEYS && ok && own == 0; k++) {
        if ((set >> k & 1) != 0) m->key[k].mark[token] = 0;
    }
}

static void model_keep(rig *r, model *m, int token, uint32_t set, uint64_t ttl) {
    bool ok = true;

    for (int k = 0; k < KEYS; k++)
        ok = ok && ((set >> k & 1) == 0 || holds(m, token, k));
    CHECK(ASK(r, .verb = HF_KEEP, .keys = keys_of(set), .token = token + 1, .ttl = ttl)->applied ==
          ok);
    for (int k = 0; k < KEYS && ok; k++) {
        if ((set >> k & 1) != 0) m->key[k].until[token] = m->now + ttl;
    }
}

static void model_drop(rig *r, model *m, int token, uint32_t set) {
    bool ok = true;

    for (int k = 0; k < KEYS; k++) {
        if ((set >> k & 1) == 0) continue;
        ok = ok && holds(m, token, k);
        m->key[k].until[token] = 0;
        m->key[k].mark[token] = 0;
    }
    CHECK(drop(r, keys_of(set), token + 1) == ok);
}

static void model_compare(rig *r, const model *m) {
    for (int k = 0; k < KEYS; k++) {
        const hf_op *op = list_key(r, keys_of(1u << k));
        uint32_t live = 0;

        for (int t = 0; t < TOKENS; t++)
            live += holds(m, t, k);
        CHECK_UINT(op->n_rows, live);
        for (size_t i = 0; i < op->n_rows; i++) {
            const hf_holder *holder = &op->rows[i].holder;
            int t = holder->token.bytes[15] - 1;
            CHECK(holds(m, t, k));
            CHECK_UINT(holder->left_ms, m->key[k].until[t] - m->now);
            CHECK_UINT(holder->fence, m->fence_of[t][k]);
        }
    }
}

void conformance_random_leases(world *w) {
    static const uint32_t all_limits[] = {1, 1, 2, 3, SHARED, SHARED};
    static const uint32_t no_permits[] = {1, 1, 1, SHARED, SHARED, SHARED};
    const uint32_t *limits = counts(w) ? all_limits : no_permits;
    const char *given = getenv("HF_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : uv_hrtime() % 1000000;
    uint64_t state = seed;
    int steps = w->starving ? 150 : 4000;
    model m = {.now = 0};
    rig r;

    need(w, HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_LIST);
    need_clock(w);
    printf("    HF_SEED=%llu\n", (unsigned long long)seed);
    rig_open(&r, w, false);
    for (int step = 0; step < steps; step++) {
        uint32_t set = 1 + draw(&state, (1u << KEYS) - 1);
        int token = (int)draw(&state, TOKENS);
        uint64_t ttl = 50 + draw(&state, 4000);
        uint32_t what = draw(&state, 16);

        if (what < 8)
            model_take(&r, &m, token, set, limits[draw(&state, 6)], ttl, draw(&state, 2) == 0);
        else if (what < 10)
            model_keep(&r, &m, token, set, ttl);
        else if (what < 13)
            model_drop(&r, &m, token, set);
        else if (what < 14)
            model_compare(&r, &m);
        else if (what < 15)
            ASK(&r, .verb = HF_SWEEP, .limit = 1 + draw(&state, 4));
        else {
            uint64_t ms = draw(&state, 1500);
            world_pass(w, ms);
            m.now += ms;
        }
    }
    rig_close(&r);
}
