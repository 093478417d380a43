/* What the Redis store makes of answers that no script of ours gives: an error, and no more. The
 * server is one of the test's own, which answers as it is told. HF_SEED=n repeats a run. */
#include "harness.h"
#include "store/stores.h"
#include "support-redis-peer.h"
#include "support-rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What follows the nonce: a number of items, and their text. */
typedef struct answer {
    int n;
    const char *text;
} answer;

static answer told;

static void on_command(peer *p, const hf__reply *command) {
    if (peer_greets(p, command)) return;
    if (peer_is(command, "PING"))
        peer_say(p, "+PONG\r\n");
    else
        peer_say(p, "*%d\r\n:%lld\r\n%s", told.n + 1, (long long)peer_nonce(command), told.text);
}

static void fresh(char *url, size_t size) {
    snprintf(url, size, "unix:%s/redis.sock", hf_test_folder());
}

static const store_subject subject = {.vt = &hf__redis_store, .fresh = fresh};

typedef struct scene {
    world world;
    rig rig;
    peer_server peer;
} scene;

static void begin(scene *s) {
    world_open(&s->world, &subject);
    rig_open_idle(&s->rig, &s->world, false);
    peer_open(&s->peer, &s->rig.loop, on_command, NULL);
}

static void end(scene *s) {
    peer_close(&s->peer);
    RIG_UNTIL(&s->rig, s->peer.open == 0);
    rig_close(&s->rig);
    world_close(&s->world);
}

/* One of each verb. */
static const ask asks[] = {
    {.verb = HF_TAKE, .keys = "k", .token = 1},
    {.verb = HF_KEEP, .keys = "k", .token = 1},
    {.verb = HF_DROP, .keys = "k", .token = 1},
    {.verb = HF_LIST, .keys = "k", .flags = HF_OP_EXACT},
    {.verb = HF_LIST, .keys = "k"},
    {.verb = HF_GET, .space = HF_VALUES, .keys = "k"},
    {.verb = HF_PUT, .space = HF_VALUES, .keys = "k", .token = 1, .flags = HF_OP_WANT_ENTRY},
    {.verb = HF_DEL, .space = HF_VALUES, .keys = "k"},
    {.verb = HF_ADD, .space = HF_VALUES, .keys = "k"},
    {.verb = HF_KEEP, .space = HF_RECORDS, .keys = "k", .token = 1},
};

enum { VERBS = sizeof asks / sizeof asks[0] };

#define TOKEN "$32\r\n70000000000000000000000000000001\r\n"
#define STATE "$60\r\n7 0123456789abcdef 70000000000000000000000000000001 1 1 2 0 \r\n"
#define ENTRY                                                                  \
    "$138\r\n0000000000000007 0000000001 p1 00000000000000000000000000000000 " \
    "0000000000000000 0000000000000000 0000000000000009 0000000000000000 0000\n5\r\n"

/* What the scripts do give; without these the rest of the test would prove nothing. */
TEST(sound_answers) {
    static const struct {
        size_t verb;
        answer told;
        bool applied;
    } table[] = {
        {0, {3, ":1\r\n:7\r\n:0\r\n"}, true},
        {0, {6, ":0\r\n:50\r\n:0\r\n" TOKEN ":50\r\n" STATE}, false},
        {0, {6, ":0\r\n:-1\r\n:1\r\n$0\r\n\r\n:-1\r\n$0\r\n\r\n"}, false},
        {0, {1, ":-1\r\n"}, false},
        {1, {1, ":1\r\n"}, true},
        {2, {1, ":0\r\n"}, false},
        {3, {0, ""}, true},
        {3, {3, TOKEN ":50\r\n" STATE}, true},
        {4, {1, "$1\r\n0\r\n"}, true},
        {5, {2, ":100\r\n$0\r\n\r\n"}, true},
        {5, {2, ":100\r\n" ENTRY}, true},
        {6, {3, ":1\r\n:9\r\n:1\r\n"}, true},
        {6, {5, ":0\r\n:3\r\n:0\r\n:100\r\n" ENTRY}, false},
        {7, {1, ":1\r\n"}, true},
        {8, {3, ":1\r\n:9\r\n:-4\r\n"}, true},
        {9, {1, ":1\r\n"}, true},
    };
    scene s;

    begin(&s);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const hf_op *op;

        told = table[i].told;
        op = rig_ask(&s.rig, &asks[table[i].verb]);
        if (op->error.code != HF_OK) FAIL("number %zu: %s", i, op->error.message);
        CHECK(op->applied == table[i].applied);
    }
    end(&s);
}

static void check_refused(const hf_op *op, size_t verb, const answer *a) {
    bool is_read = op->verb == HF_GET || op->verb == HF_LIST;

    if (op->error.code == HF_EPROTO && !op->applied && op->n_rows == 0) {
        CHECK_UINT(op->error.flags, is_read ? 0 : HF_OUTCOME_UNKNOWN);
        return;
    }
    FAIL("verb %zu: %d items, %s", verb, a->n, a->text);
}

/* One thing wrong at a time. */
TEST(answers_that_make_no_sense) {
    static const answer any[] = {
        {1, "$-1\r\n"},
        {1, "+OK\r\n"},
        {1, ":7\r\n"},
        {1, "*0\r\n"},
        {2, ":1\r\n$1\r\nx\r\n"},
        {3, ":1\r\n:9007199254740992\r\n$1\r\nx\r\n"},
        {3, ":1\r\n:-5\r\n:0\r\n"},
        {4, ":1\r\n:1\r\n:1\r\n:1\r\n"},
        {6, ":0\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n"},
        {6, ":0\r\n:50\r\n:0\r\n$32\r\n7000000000000000000000000000000x\r\n:50\r\n" STATE},
        {6, ":0\r\n:50\r\n:0\r\n" TOKEN ":50\r\n$9\r\nno state!\r\n"},
        {6, ":0\r\n:50\r\n:0\r\n" TOKEN ":50\r\n$15\r\n7 a b 1 1 2 99 \r\n"},
        {5, ":0\r\n:99\r\n:0\r\n:100\r\n" ENTRY},
        {5, ":0\r\n:3\r\n:0\r\n:100\r\n$5\r\nshort\r\n"},
        {3, TOKEN "$1\r\n5\r\n" STATE},
        {2, ":100\r\n$9\r\nno entry!\r\n"},
        {2, ":-1\r\n" ENTRY},
    };
    scene s;

    begin(&s);
    for (size_t verb = 0; verb < VERBS; verb++) {
        for (size_t i = 0; i < sizeof any / sizeof any[0]; i++) {
            told = any[i];
            check_refused(rig_ask(&s.rig, &asks[verb]), verb, &told);
        }
    }
    CHECK_INT(s.peer.connections, 1);
    end(&s);
}

/* ---- anything */

static size_t draw_item(char *text, size_t size) {
    static const char *const texts[] = {
        TOKEN,     STATE,    ENTRY,          "$0\r\n\r\n", "$1\r\n0\r\n", "$4\r\n9999\r\n",
        "$-1\r\n", "*0\r\n", "*1\r\n:1\r\n", "+OK\r\n",    ":0\r\n",      ":1\r\n",
        ":-1\r\n", ":3\r\n", ":50\r\n"};
    size_t which = (size_t)rand() % 18;

    if (which < 15) return (size_t)snprintf(text, size, "%s", texts[which]);
    return (size_t)snprintf(text, size, ":%lld\r\n",
                            (long long)((unsigned long long)rand() << rand() % 40));
}

TEST(answers_of_any_kind) {
    const char *given = getenv("HF_SEED");
    unsigned seed = given != NULL ? (unsigned)atoi(given) : (unsigned)(uv_hrtime() / 1000);
    static char text[4096];
    scene s;

    printf("    HF_SEED=%u\n", seed);
    srand(seed);
    begin(&s);
    for (int i = 0; i < 4000; i++) {
        size_t len = 0;
        const hf_op *op;

        told.n = rand() % 9;
        text[0] = '\0';
        for (int n = 0; n < told.n; n++)
            len += draw_item(text + len, sizeof text - len);
        told.text = text;
        /* A list that is told to walk on would do so for ever. */
        op = rig_ask(&s.rig, &asks[i % VERBS == 4 ? 3 : i % VERBS]);
        if (op->error.code != HF_OK && op->error.code != HF_EPROTO && op->error.code != HF_EINVAL &&
            op->error.code != HF_EIO)
            FAIL("%s: %s", hf_code_name(op->error.code), op->error.message);
    }
    CHECK_INT(s.peer.connections, 1);
    end(&s);
}
