/* The quorum store where it differs from others: nodes that are lost, come back, forget. The clocks
 * of nodes and instance stand still unless they are moved, all together. */
#include "harness.h"
#include "store/quorum-store.h"
#include "store/stores.h"
#include "support-redis.h"
#include "support-rig.h"

#include <stdio.h>
#include <string.h>

enum { NODES = 3, MAX_TTL = 20000 };

static const char *parameters; /* of the quorum */

static void fresh(char *url, size_t size) {
    char list[256];

    redis_as_quorum(NODES);
    redis_freeze(false);
    redis_fresh(list, sizeof list);
    snprintf(url, size, "quorum:?maxTtl=%d%s%s%s", MAX_TTL, parameters != NULL ? "&" : "",
             parameters != NULL ? parameters : "", strchr(list, ' '));
}

static const store_subject subject = {
    .vt = &hf__quorum_store, .fresh = fresh, .set_clock = redis_set_clock, .lasts = true};

typedef struct scene {
    world world;
    rig rig;
    hf_node nodes[NODES];
} scene;

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

static bool keep(scene *s, const char *keys, int token) {
    return ASK(&s->rig, .verb = HF_KEEP, .keys = keys, .token = token)->applied;
}

static bool drop(scene *s, const char *keys, int token) {
    return ASK(&s->rig, .verb = HF_DROP, .keys = keys, .token = token)->applied;
}

static const hf_node *look_at(scene *s, size_t node) {
    hf_store *store = s->rig.store;

    CHECK_UINT(store->vt->nodes(store, s->nodes, NODES), NODES);
    return &s->nodes[node];
}

/* Lets time pass, a little at a time, until the node stands like that. */
static void until_state(scene *s, size_t node, hf_node_state state) {
    for (int i = 0; i < 20000 && look_at(s, node)->state != state; i++) {
        world_pass(&s->world, 5);
        uv_run(&s->rig.loop, UV_RUN_NOWAIT);
        uv_sleep(1);
    }
    CHECK_INT(look_at(s, node)->state, state);
}

static void all_vote(scene *s) {
    for (size_t i = 0; i < NODES; i++)
        RIG_UNTIL(&s->rig, look_at(s, i)->state == HF_NODE_VOTING);
}

/* Lets the loop turn until the node's answer is that. */
static void until_says(scene *s, size_t node, const char *words, const char *text) {
    for (int i = 0; i < 10000 && strcmp(redis_do_at(node, words), text) != 0; i++) {
        uv_run(&s->rig.loop, UV_RUN_NOWAIT);
        uv_sleep(1);
    }
    CHECK_STR(redis_do_at(node, words), text);
}

#define TOKEN_1 "70000000000000000000000000000001"

/* ---- votes */

TEST(votes_are_told) {
    const hf_op *op;
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    op = ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 1, .flags = HF_OP_VOTES);
    CHECK(op->applied);
    CHECK_UINT(op->fence, 0);
    CHECK_UINT(op->n_votes, NODES);
    for (size_t i = 0; i < NODES; i++) {
        CHECK_STR(op->votes[i].node, look_at(&s, i)->name);
        CHECK(op->votes[i].kind == HF_VOTE_FOR || op->votes[i].kind == 0);
    }
    for (size_t i = 0; i < NODES; i++)
        until_says(&s, i, "GET holdfast:k", TOKEN_1);
    CHECK_UINT(take(&s, "k", 2)->n_votes, 0);
    op = ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 2, .flags = HF_OP_VOTES);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    CHECK_INT(op->error.code, HF_OK);
    for (size_t i = 0; i < NODES; i++)
        CHECK(op->votes[i].kind == HF_VOTE_AGAINST || op->votes[i].kind == 0);
    CHECK(drop(&s, "k", 1));
    CHECK(!drop(&s, "k", 1));
    end(&s);
}

/* Who has a vote at two of three holds it, whatever the third says. */
TEST(minority_holds_nothing) {
    const hf_op *op;
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    CHECK_STR(redis_do_at(0, "SET holdfast:k stranger PX 5000"), "OK");
    CHECK(take(&s, "k", 1)->applied);
    CHECK(drop(&s, "k", 1));
    CHECK_STR(redis_do_at(1, "SET holdfast:k another PX 5000"), "OK");
    op = take(&s, "k", 1);
    CHECK_INT(op->refused, HF_REFUSED_HELD);
    /* What the third has granted is taken back. */
    until_says(&s, 2, "EXISTS holdfast:k", "0");
    CHECK_UINT(ASK(&s.rig, .verb = HF_LIST)->n_rows, 0);
    end(&s);
}

/* ---- fences */

TEST(fences_grow_over_different_counters) {
    uint64_t last = 0;
    scene s;

    begin(&s, "fencing=true");
    all_vote(&s);
    for (int i = 0; i < 60; i++) {
        size_t busy = (size_t)(i / 4) % NODES; /* does not count this one */
        const hf_op *op;

        CHECK_STR(redis_do_at(busy, "SET holdfast:k stranger PX 9000"), "OK");
        op = take(&s, "k", 1 + i);
        CHECK(op->applied);
        CHECK(op->fence > last);
        last = op->fence;
        CHECK(drop(&s, "k", 1 + i));
        CHECK_STR(redis_do_at(busy, "DEL holdfast:k"), "1");
        world_pass(&s.world, 3);
    }
    CHECK_UINT(take(&s, "k", 100)->fence, last + 1);
    end(&s);
}

TEST(lost_counters_go_on_from_the_clock) {
    uint64_t last;
    scene s;

    begin(&s, "fencing=true");
    all_vote(&s);
    CHECK_STR(redis_do_at(0, "PING"), "PONG");
    last = take(&s, "k", 1)->fence;
    CHECK_UINT(last, UINT64_C(1800000000000000));
    CHECK(drop(&s, "k", 1));
    world_pass(&s.world, 1000);
    for (size_t i = 0; i < NODES; i++)
        CHECK_STR(redis_do_at(i, "FLUSHALL"), "OK");
    (void)take(&s, "l", 2); /* finds that out */
    all_vote(&s);
    CHECK_UINT(take(&s, "k", 3)->fence, last + 1000000);
    end(&s);
}

/* One that is wrong, and has been so for long enough to vote, moves no fence. */
TEST(fences_go_by_most_clocks) {
    static const struct {
        int64_t offsets[NODES]; /* 0: not known */
        uint64_t shows;
    } table[] = {
        {{5000, 5002, 5004}, 6002}, {{5000, 5002, 3600005000}, 6002},
        {{5000, 5002, 1}, 6000},    {{5000, 0, 5002}, 6002},
        {{5000, 0, 0}, 0},          {{0, 0, 0}, 0},
    };
    hf__quorum_node nodes[NODES];
    hf__quorum q;
    world w;

    parameters = NULL;
    world_open(&w, &subject);
    memset(&q, 0, sizeof q);
    q.n = NODES;
    q.nodes = nodes;
    q.base.env.clock = &w.clock;
    w.boot_ns = 1000000; /* 1,000 us */
    for (size_t row = 0; row < sizeof table / sizeof table[0]; row++) {
        memset(nodes, 0, sizeof nodes);
        for (size_t i = 0; i < NODES; i++) {
            int64_t offset = table[row].offsets[i];
            nodes[i].clock = (hf__node_clock){
                .known = offset != 0, .low_us = offset - 20, .high_us = offset + 20};
        }
        CHECK_UINT(hf__quorum_common_us(&q), table[row].shows);
    }
    world_close(&w);
}

/* ---- nodes that have forgotten */

static void restart_node_0(scene *s, bool with_data) {
    redis_restart(with_data);
    RIG_UNTIL(&s->rig, look_at(s, 0)->state != HF_NODE_VOTING);
}

TEST(node_started_again_has_no_vote) {
    const hf_op *op;
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    CHECK(take(&s, "k", 1)->applied);
    restart_node_0(&s, true);
    until_state(&s, 0, HF_NODE_QUARANTINED);
    CHECK_INT(look_at(&s, 0)->reason, HF_NODE_RESTARTED);
    CHECK(look_at(&s, 0)->left_ms > MAX_TTL - 1000 && look_at(&s, 0)->left_ms <= MAX_TTL);
    CHECK_INT(s.rig.warning.code, HF_EQUORUM);

    /* With a second one lost there is no majority, though two of three answer. */
    CHECK(keep(&s, "k", 1));
    CHECK(drop(&s, "k", 1));
    CHECK_STR(redis_do_at(1, "SET holdfast:k stranger PX 600000"), "OK");
    op = take(&s, "k", 2);
    CHECK(!op->applied);
    CHECK_INT(op->error.code, HF_EQUORUM);
    CHECK_STR(op->error.state, "quarantined");
    CHECK_INT(op->votes[0].kind, HF_VOTE_QUARANTINED);
    CHECK_INT(op->votes[1].kind, HF_VOTE_AGAINST);
    until_says(&s, 2, "EXISTS holdfast:k", "0");

    until_state(&s, 0, HF_NODE_VOTING);
    CHECK(take(&s, "k", 3)->applied);
    end(&s);
}

TEST(node_that_was_emptied_has_no_vote) {
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    restart_node_0(&s, false);
    until_state(&s, 0, HF_NODE_QUARANTINED);
    CHECK_INT(look_at(&s, 0)->reason, HF_NODE_EMPTIED);
    until_state(&s, 0, HF_NODE_VOTING);

    /* Without a restart: the next vote finds no marker. */
    CHECK_STR(redis_do_at(0, "FLUSHALL"), "OK");
    CHECK(take(&s, "k", 1)->applied);
    RIG_UNTIL(&s.rig, look_at(&s, 0)->state != HF_NODE_VOTING);
    until_state(&s, 0, HF_NODE_QUARANTINED);
    CHECK_INT(look_at(&s, 0)->reason, HF_NODE_EMPTIED);
    CHECK_STR(redis_do_at(0, "EXISTS holdfast:k"), "0");
    end(&s);
}

/* A client that comes later is told by the node. */
static const char *marker_of_node_0(void) {
    static const hf_slice words[] = {{"GET", 3}, {"holdfast:\0quorum", 16}};
    return redis_command(words, 2);
}

TEST(quarantine_binds_everybody) {
    char before[HF__MARKER_MAX + 1];
    rig other;
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    snprintf(before, sizeof before, "%s", marker_of_node_0());
    restart_node_0(&s, true);
    until_state(&s, 0, HF_NODE_QUARANTINED);
    /* It was still the last run's when that was found out. */
    while (strcmp(marker_of_node_0(), before) == 0)
        uv_run(&s.rig.loop, UV_RUN_NOWAIT);
    rig_open(&other, &s.world, false);
    for (int i = 0; i < 1000; i++) {
        CHECK_UINT(other.store->vt->nodes(other.store, s.nodes, NODES), NODES);
        if (s.nodes[0].state == HF_NODE_QUARANTINED) break;
        rig_turn(&other);
    }
    CHECK_INT(s.nodes[0].state, HF_NODE_QUARANTINED);
    CHECK_INT(s.nodes[0].reason, HF_NODE_TOLD);
    rig_close(&other);
    end(&s);
}

TEST(without_quarantine_it_votes_at_once) {
    scene s;

    begin(&s, "quarantine=false");
    all_vote(&s);
    restart_node_0(&s, false);
    until_state(&s, 0, HF_NODE_VOTING);
    end(&s);
}

#define LATER_US (UINT64_C(1800000000000000) + 5000000)

/* Ours stands. */
TEST(node_whose_clock_jumps_has_no_vote) {
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    CHECK(take(&s, "k", 1)->applied);
    CHECK(drop(&s, "k", 1));
    redis_set_clock_at(0, LATER_US);
    CHECK(take(&s, "k", 2)->applied);
    RIG_UNTIL(&s.rig, look_at(&s, 0)->state == HF_NODE_QUARANTINED);
    CHECK_INT(look_at(&s, 0)->reason, HF_NODE_CLOCK);
    CHECK_INT(look_at(&s, 1)->state, HF_NODE_VOTING);
    CHECK(drop(&s, "k", 2));
    until_says(&s, 0, "EXISTS holdfast:k", "0");
    end(&s);
}

/* All that seem to jump alike do not: it is our own that has stood still. */
TEST(own_clock_that_jumps_bars_nobody) {
    static const ask asks = {.verb = HF_TAKE, .keys = "k", .token = 2};
    slot one = {.ended = 0};
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    CHECK(take(&s, "k", 1)->applied);
    CHECK(drop(&s, "k", 1));
    redis_set_clock(LATER_US);
    rig_submit(&s.rig, &one, &asks, 1); /* finds that out */
    for (int turns = 0; turns < 2000; turns++) {
        atomic_fetch_add(&s.world.boot_ns, 1000); /* what happens takes time, if not much */
        uv_run(&s.rig.loop, UV_RUN_NOWAIT);
        uv_sleep(turns % 10 == 0);
    }
    CHECK_INT(one.ended, 1);
    slot_reset(&one);
    for (size_t i = 0; i < NODES; i++)
        CHECK_INT(look_at(&s, i)->state, HF_NODE_VOTING);
    CHECK(take(&s, "l", 3)->applied);
    end(&s);
}

/* One that refuses to say where it stands keeps nobody. */
TEST(node_that_refuses_is_down) {
    scene s;

    redis_as_quorum(NODES);
    CHECK_STR(redis_do_at(0, "ACL SETUSER default -eval -evalsha"), "OK");
    begin(&s, NULL);
    CHECK(take(&s, "k", 1)->applied);
    RIG_UNTIL(&s.rig, look_at(&s, 0)->state == HF_NODE_DOWN);
    CHECK_INT(look_at(&s, 1)->state, HF_NODE_VOTING);
    CHECK_INT(look_at(&s, 2)->state, HF_NODE_VOTING);
    CHECK_STR(redis_do_at(1, "SET holdfast:l stranger PX 600000"), "OK");
    CHECK(strstr(take(&s, "l", 2)->error.message, "permission") != NULL ||
          strstr(take(&s, "l", 2)->error.message, "NOPERM") != NULL);
    CHECK_STR(redis_do_at(0, "ACL SETUSER default +@all"), "OK");
    until_state(&s, 0, HF_NODE_VOTING);
    end(&s);
}

/* ---- what is left behind, and what is missing */

TEST(frozen_node_is_told_later) {
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    CHECK(take(&s, "k", 1)->applied);
    until_says(&s, 0, "GET holdfast:k", TOKEN_1);
    redis_freeze(true);
    CHECK(drop(&s, "k", 1));
    CHECK(take(&s, "l", 2)->applied);
    CHECK(drop(&s, "l", 2));
    redis_freeze(false);
    until_says(&s, 0, "EXISTS holdfast:k holdfast:l", "0");
    end(&s);
}

TEST(renewal_repairs) {
    static const uint32_t limits[] = {1, HF_SHARED};
    scene s;

    begin(&s, NULL);
    all_vote(&s);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 1, .limit = limits[i])->applied);
        until_says(&s, 0, "EXISTS holdfast:k", "1");
        CHECK_STR(redis_do_at(0, "DEL holdfast:k"), "1");
        CHECK(keep(&s, "k", 1));
        until_says(&s, 0, "EXISTS holdfast:k", "1");
        if (limits[i] == 1) CHECK_STR(redis_do_at(0, "GET holdfast:k"), TOKEN_1);
        CHECK(ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 2, .limit = HF_SHARED)->applied ==
              (limits[i] != 1));
        CHECK(drop(&s, "k", 1));
        (void)drop(&s, "k", 2);
        until_says(&s, 0, "EXISTS holdfast:k", "0");
    }
    /* Never where no majority is left. */
    CHECK(take(&s, "m", 1)->applied);
    for (size_t i = 0; i < NODES; i++)
        until_says(&s, i, "EXISTS holdfast:m", "1");
    for (size_t i = 0; i < 2; i++)
        CHECK_STR(redis_do_at(i, "DEL holdfast:m"), "1");
    CHECK(!keep(&s, "m", 1));
    CHECK_STR(redis_do_at(0, "EXISTS holdfast:m"), "0");
    end(&s);
}

/* ---- URLs */

TEST(urls_that_are_none) {
    static const struct {
        const char *url;
        const char *says;
    } table[] = {
        {"quorum:", "a quorum has 1 to 15 nodes"},
        {"quorum:?fencing=true", "a quorum has 1 to 15 nodes"},
        {"quorum:redis://a redis://a", "is the same server as another"},
        {"quorum:redis://a redis://a:6379/1", "is the same server as another"},
        {"quorum:redis://a sqlite:x", "node 2 of the quorum is no Redis"},
        {"quorum:redis+cluster://a", "is a Cluster"},
        {"quorum:redis://a?maxTtl=1", "node 1 of the quorum has a parameter \"maxTtl\""},
        {"quorum:redis://a:x", "node 1 of the quorum is not valid"},
        {"quorum:?maxTtl=49 redis://a", "maxTtl is 50 ms to 24 h"},
        {"quorum:?nodeTimeout=0 redis://a", "nodeTimeout is 1 ms to 1 h"},
        {"quorum:?fencing=1 redis://a", "fencing is \"true\" or \"false\""},
        {"quorum:?quarantine=no redis://a", "quarantine is \"true\" or \"false\""},
        {"quorum:?waitReplicas=99 redis://a", "waitReplicas is a whole number"},
    };
    const char *why = "";
    scene s;

    begin(&s, NULL);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hf__store_env env = s.rig.env;
        hf__url url;
        hf_error error;

        REQUIRE(hf__url_parse(&url, slice_of(table[i].url), &s.world.allocator, &why));
        env.url = &url;
        CHECK(hf__store_new(&hf__quorum_store, &env, &error) == NULL);
        CHECK_INT(error.code, HF_EINVAL);
        if (strstr(error.message, table[i].says) == NULL)
            FAIL("\"%s\": %s", table[i].url, error.message);
        hf__url_free(&url, &s.world.allocator);
    }
    end(&s);
}

/* By another name it is found out when it is connected to. */
TEST(one_server_has_one_vote) {
    const char *why = "";
    scene s;

    begin(&s, NULL);
    rig_close(&s.rig);
    hf__url_free(&s.world.url, &s.world.allocator);
    snprintf(s.world.text, sizeof s.world.text,
             "quorum:redis://127.0.0.1:%d redis://127.0.0.2:%d redis://localhost:%d", redis_port(),
             1, redis_port());
    REQUIRE(hf__url_parse(&s.world.url, slice_of(s.world.text), &s.world.allocator, &why));
    rig_open_idle(&s.rig, &s.world, false);
    CHECK_INT(ASK(&s.rig, .verb = HF_TAKE, .keys = "k", .token = 1)->error.code, HF_EQUORUM);
    RIG_UNTIL(&s.rig,
              look_at(&s, 0)->state == HF_NODE_DOWN || look_at(&s, 2)->state == HF_NODE_DOWN);
    end(&s);
}

/* ---- markers and clocks, without servers */

TEST(markers) {
    static const char *const bad[] = {
        "x",      "x 1",          "x 0 1",
        "x 1 y",  "x 1 2 3",      " 1 2",
        "x 1 2 ", "x 86400001 0", "0123456789012345678901234567890123456789x 1 0"};
    hf__marker marker;

    CHECK(hf__marker_read(&marker, slice_of("")));
    CHECK_STR(marker.run_id, "");
    CHECK(hf__marker_read(&marker, slice_of("abc 300000 1800000000000000")));
    CHECK_STR(marker.run_id, "abc");
    CHECK_UINT(marker.max_ttl_ms, 300000);
    CHECK_UINT(marker.until_us, UINT64_C(1800000000000000));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!hf__marker_read(&marker, slice_of(bad[i])));
}

#define SECOND UINT64_C(1000000000)

TEST(clocks_that_jump) {
    hf__node_clock clock = {.known = false};
    uint64_t us = UINT64_C(1800000000000000);
    uint64_t fast;

    CHECK(hf__node_clock_sample(&clock, 10 * SECOND, 11 * SECOND, us));
    /* Anything that may have been read within the time that the question took. */
    CHECK(hf__node_clock_sample(&clock, 20 * SECOND, 22 * SECOND, us + 10999999));
    CHECK(hf__node_clock_sample(&clock, 30 * SECOND, 30 * SECOND, us + 19500000));
    CHECK(!hf__node_clock_sample(&clock, 31 * SECOND, 31 * SECOND, us + 20500000 + 12000));
    CHECK(hf__node_clock_sample(&clock, 32 * SECOND, 32 * SECOND, us + 21500000 + 12000));
    CHECK(!hf__node_clock_sample(&clock, 33 * SECOND, 33 * SECOND, us + 22500000));
    CHECK(hf__node_clock_sample(&clock, 34 * SECOND, 34 * SECOND, us + 23500000));
    /* A slow question proves little, and takes away nothing that is known. */
    CHECK(hf__node_clock_sample(&clock, 34 * SECOND, 60 * SECOND, us + 40000000));
    CHECK(!hf__node_clock_sample(&clock, 61 * SECOND, 61 * SECOND, us + 52000000));
    /* One that is too fast is found out, however often it is looked at. */
    us += 60000000;
    clock.known = false;
    for (fast = 0; fast < 6000; fast++)
        if (!hf__node_clock_sample(&clock, 100 * SECOND + fast * SECOND / 100,
                                   100 * SECOND + fast * SECOND / 100, us + fast * 10100))
            break;
    CHECK(fast > 90 && fast < 200);
    /* 500 ppm are no jump, however long it takes. */
    us += 60000000;
    clock.known = false;
    for (uint64_t i = 0; i < 1000; i++)
        CHECK(hf__node_clock_sample(&clock, (100 + i) * SECOND, (100 + i) * SECOND,
                                    us + i * 1000500));
}

/* ---- memory */

/* An op whose memory runs out somewhere fails, or is done without the node concerned. */
TEST(memory_runs_out) {
    static const ask asks[] = {
        {.verb = HF_TAKE, .keys = "a b", .token = 1, .flags = HF_OP_WAIT},
        {.verb = HF_KEEP, .keys = "a b", .token = 1},
        {.verb = HF_LIST},
        {.verb = HF_DROP, .keys = "a b", .token = 1},
        {.verb = HF_GET, .space = HF_VALUES},
    };
    injector starve = {0};
    long struck = 0;

    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        bool hit = true;

        for (long n = 1; hit; n++) {
            slot one = {.ended = 0};
            scene s;

            parameters = "fencing=true";
            world_open(&s.world, &subject);
            s.world.starve = &starve;
            rig_open_idle(&s.rig, &s.world, false);
            injector_arm(&starve, n);
            rig_submit(&s.rig, &one, &asks[i], 1);
            for (int turns = 0; one.ended == 0 && turns < 10000; turns++) {
                world_pass(&s.world, 5);
                uv_run(&s.rig.loop, UV_RUN_NOWAIT);
                uv_sleep(1);
            }
            hit = injector_disarm(&starve);
            struck += hit;
            CHECK_INT(one.ended, 1);
            if (one.op.error.code != HF_OK && one.op.error.code != HF_ENOMEM &&
                one.op.error.code != HF_EQUORUM)
                FAIL("%s", one.op.error.message);
            slot_reset(&one);
            end(&s);
        }
    }
    CHECK(struck > 50);
}
