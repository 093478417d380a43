/* The Redis driver without a Redis: its parts, and what it makes of a server that misbehaves. */
#include "driver/peers.h"
#include "driver/redis/config.h"
#include "driver/redis/error.h"
#include "driver/redis/redis.h"
#include "harness.h"
#include "support-redis-peer.h"
#include "util/alloc.h"
#include "util/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

/* ---------------------------------------------------------------- parts */

/* The first is the Cluster specification's; the others are what CLUSTER KEYSLOT says. */
TEST(slots) {
    static const struct {
        const char *key;
        uint16_t slot;
    } table[] = {
        {"123456789", 12739}, {"foo", 12182},          {"{user1000}.following", 3443},
        {"user1000", 3443},   {"foo{}{bar}", 8363},    {"foo{{bar}}zap", 4015},
        {"{bar", 4015},       {"foo{bar}{zap}", 5061}, {"bar", 5061},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint16_t slot = hf__redis_slot(slice(table[i].key));
        if (slot != table[i].slot) FAIL("%s: slot %u", table[i].key, (unsigned)slot);
    }
    CHECK_UINT(hf__redis_slot((hf_slice){NULL, 0}), 0);
}

TEST(commands) {
    hf_token token = {{0x01, 0xab, 0xff}};
    hf__buffer out;
    static const char expected[] = "*5\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n-7\r\n$20\r\n"
                                   "-9223372036854775808\r\n$32\r\n"
                                   "01abff00000000000000000000000000\r\n";

    hf__buffer_init(&out, hf__allocator_libc());
    hf__resp_begin(&out, 5);
    hf__resp_text(&out, "SET");
    hf__resp_slice(&out, (hf_slice){NULL, 0});
    hf__resp_int(&out, -7);
    hf__resp_int(&out, INT64_MIN);
    hf__resp_token(&out, &token);
    REQUIRE_INT(out.len, sizeof expected - 1);
    CHECK_MEM(out.data, expected, out.len);
    hf__buffer_fini(&out);
}

/* One answer in pieces of one byte; then what must be refused, with the reason. */
TEST(answers) {
    static const char text[] = "*4\r\n:-5\r\n$3\r\na\rb\r\n*2\r\n+OK\r\n*0\r\n$-1\r\n";
    static const struct {
        const char *bytes, *why;
    } bad[] = {
        {"?\r\n", "is no Redis protocol"},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "nested too deep"},
        {"*70000\r\n", "is no Redis protocol"},
        {"#t\r\n", "another version"},
        {"%1\r\n+a\r\n+b\r\n", "another version"},
        {",1.5\r\n", "another version"},
        {"$-7\r\n", "is no Redis protocol"},
    };
    const hf__reply *reply = NULL;
    hf_error error;
    hf__reply_reader *r = hf__reply_reader_new(hf__allocator_libc());

    REQUIRE(r != NULL);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        REQUIRE(hf__reply_feed(r, text + i, 1, &error));
        REQUIRE_INT(hf__reply_next(r, &reply, &error), i == sizeof text - 2 ? 1 : 0);
    }
    CHECK_UINT(reply->n_items, 4);
    CHECK_INT(reply->items[0].integer, -5);
    CHECK_MEM(reply->items[1].text.data, "a\rb", 4);
    CHECK(hf__reply_equals(&reply->items[2].items[0], "OK"));
    CHECK_UINT(reply->items[2].items[1].n_items, 0);
    CHECK_INT(reply->items[3].type, HF__REPLY_NIL);
    hf__reply_reader_free(r);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        r = hf__reply_reader_new(hf__allocator_libc());
        REQUIRE(hf__reply_feed(r, bad[i].bytes, strlen(bad[i].bytes), &error));
        CHECK_INT(hf__reply_next(r, &reply, &error), -1);
        CHECK_INT(error.code, HF_EPROTO);
        if (strstr(error.message, bad[i].why) == NULL) FAIL("%zu: %s", i, error.message);
        hf__reply_reader_free(r);
    }
}

/* What an answer may take is bounded, however it is made up. */
TEST(answers_are_bounded) {
    static char zeros[1 << 16];
    const hf__reply *reply = NULL;
    hf_error error = {0};
    hf__reply_reader *r = hf__reply_reader_new(hf__allocator_libc());
    bool fed = true;

    for (int i = 0; fed && i < 4096; i++)
        fed = hf__reply_feed(r, i == 0 ? "$500000000\r\n" : zeros, i == 0 ? 12 : sizeof zeros,
                             &error) &&
              hf__reply_next(r, &reply, &error) == 0;
    CHECK(!fed);
    CHECK_INT(error.code, HF_EPROTO);
    hf__reply_reader_free(r);
    r = hf__reply_reader_new(hf__allocator_libc());
    for (int i = 0; i < 8; i++)
        CHECK(hf__reply_feed(r, "*60000\r\n", 8, &error));
    CHECK_INT(hf__reply_next(r, &reply, &error), -1);
    CHECK_INT(error.code, HF_EPROTO);
    hf__reply_reader_free(r);
}

TEST(errors_say_what_to_do) {
    static const struct {
        const char *text;
        hf_code code;
        bool retryable;
        const char *advice;
    } table[] = {
        {"NOAUTH Authentication required.", HF_EACCES, false, "password"},
        {"WRONGPASS invalid", HF_EACCES, false, "wrong"},
        {"NOPERM this user", HF_EACCES, false, "ACL SETUSER"},
        {"LOADING Redis is", HF_EUNAVAIL, true, "wait"},
        {"BUSY Redis is", HF_EBUSY, true, "SCRIPT KILL"},
        {"OOM command not", HF_EFULL, true, "maxmemory"},
        {"READONLY You can't", HF_EREADONLY, true, "master"},
        {"MISCONF Redis is", HF_EFULL, true, "disk"},
        {"WRONGTYPE Operation", HF_ETYPE, false, "prefix"},
        {"CROSSSLOT Keys in", HF_ENOTSUP, false, "hash tag"},
        {"ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation", HF_ETYPE,
         false, "prefix"},
        {"ERR max number of clients reached", HF_EUNAVAIL, true, "maxclients"},
        {"ERR unknown command 'EVALSHA'", HF_ENOTSUP, false, "Redis 6"},
        {"ERR Script attempted to access a non local key in a cluster node script: b7a0",
         HF_EUNAVAIL, true, "being moved"},
        {"ERR something else", HF_EPROTO, false, "something else"},
        {"", HF_EPROTO, false, "answered"},
    };
    hf_error error;

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hf__redis_error(&error, slice(table[i].text), "db:6379");
        if (error.code != table[i].code) FAIL("%s: %s", table[i].text, hf_code_name(error.code));
        CHECK_INT((error.flags & HF_RETRYABLE) != 0, table[i].retryable);
        if (strstr(error.message, table[i].advice) == NULL ||
            strstr(error.message, "db:6379") == NULL)
            FAIL("%s: %s", table[i].text, error.message);
    }
}

/* What a server says to a password may have the password in it. */
TEST(a_refused_password_is_not_shown) {
    static const struct {
        const char *text, *advice;
        hf_code code;
    } table[] = {
        {"WRONGPASS invalid username-password pair", "wrong", HF_EACCES},
        {"ERR unknown command 'AUTH', with args beginning with: 'secret'", "AUTH", HF_EACCES},
        {"ERR AUTH <password> called without any password configured", "none", HF_EACCES},
        {"ERR wrong number of arguments for 'auth' command", "6.0", HF_EACCES},
        {"ERR max number of clients reached", "maxclients", HF_EUNAVAIL},
        {"secret", "not shown", HF_EACCES},
    };
    hf_error error;

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hf__redis_error_auth(&error, slice(table[i].text), "db:6379");
        CHECK_INT(error.code, table[i].code);
        if (strstr(error.message, table[i].advice) == NULL ||
            strstr(error.message, "secret") != NULL)
            FAIL("%s: %s", table[i].text, error.message);
    }
}

static hf_code configure(const char *text, hf__redis_config *config, hf_error *error) {
    static hf__url url;
    static bool used;
    const char *why = "";
    hf__store_env env = {.url = &url};

    if (used) hf__url_free(&url, hf__allocator_libc());
    used = hf__url_parse(&url, slice(text), hf__allocator_libc(), &why);
    if (text[0] == '\0') return HF_OK;
    REQUIRE(used);
    hf__error_clear(error);
    return hf__redis_config_read(config, &env, error);
}

TEST(urls) {
    static const struct {
        const char *url;
        hf__redis_kind kind;
        size_t hosts;
        const char *last;
        uint32_t db;
        bool tls;
    } table[] = {
        {"redis://h", HF__REDIS_SINGLE, 1, "h:6379", 0, false},
        {"redis://", HF__REDIS_SINGLE, 1, "127.0.0.1:6379", 0, false},
        {"valkeys://[::1]:7000/3", HF__REDIS_SINGLE, 1, "[::1]:7000", 3, true},
        {"unix:/run/x.sock?db=2", HF__REDIS_SINGLE, 1, "/run/x.sock", 2, false},
        {"unix://u:p@/run/x.sock", HF__REDIS_SINGLE, 1, "/run/x.sock", 0, false},
        {"redis+sentinel://a,b:1,[::2]:3/m", HF__REDIS_SENTINEL, 3, "[::2]:3", 0, false},
        {"redis+sentinel://a/m", HF__REDIS_SENTINEL, 1, "a:26379", 0, false},
        {"rediss+cluster://a:1,b", HF__REDIS_CLUSTER, 2, "b:6379", 0, true},
        {"redis://h?tls=true", HF__REDIS_SINGLE, 1, "h:6379", 0, true},
    };
    static const char *const bad[] = {"redis:h",
                                      "redis://h/x",
                                      "redis://a,b",
                                      "redis+sentinel://a",
                                      "unix:",
                                      "unix://h/x.sock",
                                      "redis+cluster://a/1",
                                      "redis+cluster://a,b:0",
                                      "redis://h?db=x",
                                      "redis://h?connectTimeout=1",
                                      "redis://h?tls=yes",
                                      "unix:/x?tls=true",
                                      "redis+cluster://a,,b"};
    hf__redis_config config;
    hf_error error;
    char shown[300];

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (configure(table[i].url, &config, &error) != HF_OK)
            FAIL("%s: %s", table[i].url, error.message);
        CHECK_INT(config.kind, table[i].kind);
        REQUIRE_INT(config.n_hosts, table[i].hosts);
        hf__address_show(&config.hosts[config.n_hosts - 1], shown, sizeof shown);
        CHECK_STR(shown, table[i].last);
        CHECK_UINT(config.db, table[i].db);
        CHECK_INT(config.tls, table[i].tls);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (configure(bad[i], &config, &error) != HF_EINVAL) FAIL("%s is taken", bad[i]);
        CHECK(error.message[0] != '\0');
    }
    configure("", &config, &error);
}

TEST(where_names_led_to) {
    hf__shared shared = {.allocator = hf__allocator_libc()};
    hf__address address = {.host = "db", .port = 1};
    hf__peer where = {.len = 7};
    hf__peer found;

    CHECK(!hf__peers_find(NULL, &address, &found));
    uv_mutex_init(&shared.lock);
    CHECK(!hf__peers_find(&shared, &address, &found));
    hf__peers_forget(&shared, &address);
    for (uint16_t port = 1; port <= 100; port++) {
        address.port = port;
        hf__peers_note(&shared, &address, &where);
        hf__peers_note(&shared, &address, &where);
    }
    CHECK(hf__peers_find(&shared, &address, &found));
    CHECK_INT(found.len, 7);
    address.port = 70; /* the last few dozen are known, each once */
    CHECK(hf__peers_find(&shared, &address, &found));
    hf__peers_forget(&shared, &address);
    CHECK(!hf__peers_find(&shared, &address, &found));
    shared.fini(&shared);
    uv_mutex_destroy(&shared.lock);
}

/* ---------------------------------------------------------------- a server that misbehaves */

typedef struct bed {
    peer_bed base;
    int listening;
    int messages;
    char message[32];
    void (*on_command)(struct bed *b, peer *p, const hf__reply *command);
    int commands; /* that were no greeting */
    int ended;    /* calls */
    int overloaded;
    const char *refusal; /* of all commands; NULL: none */
    char log[64];
} bed;

typedef struct call {
    hf__redis_call base;
    bed *bed;
    const char *word;
    int ended;
    int64_t answer;
    hf_error error;
} call;

static void on_command(peer *p, const hf__reply *command) {
    bed *b = p->server->data;

    if (b->refusal != NULL) {
        peer_say(p, "-%s\r\n", b->refusal);
        return;
    }
    if (peer_greets(p, command)) return;
    b->commands++;
    b->on_command(b, p, command);
}

static void on_message(void *data, hf_slice payload) {
    bed *b = data;
    b->messages++;
    snprintf(b->message, sizeof b->message, "%.*s", (int)payload.len, payload.data);
}

static void on_listening(void *data) {
    ((bed *)data)->listening++;
}

static void bed_open(bed *b, const char *params,
                     void (*answer)(bed *b, peer *p, const hf__reply *command)) {
    const hf__redis_events events = {.message = on_message, .listening = on_listening, .data = b};

    memset(b, 0, sizeof *b);
    b->on_command = answer;
    peer_bed_open(&b->base, params, on_command, b);
    peer_bed_start(&b->base, &events);
}

static void bed_close(bed *b) {
    peer_bed_stop(&b->base);
    peer_bed_close(&b->base);
}

static hf__redis_script a_script;

static hf_code encode(hf__redis_call *base, const hf__redis_server *server, hf__buffer *out,
                      hf_error *error) {
    call *c = base->data;

    (void)server;
    if (c->word == NULL) return hf__error_set(error, HF_ENOTSUP, 0, "refused");
    if (base->script == NULL) {
        hf__resp_begin(out, 1);
        hf__resp_text(out, c->word);
        return HF_OK;
    }
    hf__redis_script_begin(base, out, 0, 2);
    hf__resp_int(out, base->nonce);
    hf__resp_text(out, c->word);
    return HF_OK;
}

static void on_done(hf__redis_call *base, const hf__reply *reply, const hf_error *error) {
    call *c = base->data;

    c->ended++;
    c->bed->ended++;
    c->bed->overloaded += error != NULL && error->code == HF_EOVERLOAD;
    CHECK((reply == NULL) != (error == NULL));
    if (error != NULL) c->error = *error;
    if (reply != NULL && reply->type == HF__REPLY_ARRAY && reply->n_items > 1)
        c->answer = reply->items[1].integer;
}

static void send_call(bed *b, call *c, const char *word, bool script) {
    memset(c, 0, sizeof *c);
    c->bed = b;
    c->word = word;
    c->base = (hf__redis_call){.encode = encode, .done = on_done, .data = c};
    if (script) {
        hf__redis_script_init(&a_script, 3, "return 1");
        c->base.script = &a_script;
    }
    hf__redis_send(b->base.redis, &c->base);
    CHECK_INT(c->ended, 0);
}

static void answer_pong(bed *b, peer *p, const hf__reply *command) {
    (void)b;
    (void)command;
    peer_say(p, "+PONG\r\n");
}

TEST(calls_are_answered_in_one_write) {
    static call calls[100];
    bed b;

    bed_open(&b, "", answer_pong);
    for (int i = 0; i < 100; i++)
        send_call(&b, &calls[i], "PING", false);
    UNTIL(&b, calls[99].ended);
    for (int i = 0; i < 100; i++) {
        CHECK_INT(calls[i].ended, 1);
        CHECK_INT(calls[i].error.code, HF_OK);
    }
    CHECK_INT(b.base.server.connections, 1);
    bed_close(&b);
}

/* Knows the script from the moment it was sent its text; forgets it once, in the middle. */
static void answer_script(bed *b, peer *p, const hf__reply *command) {
    static bool known;
    const char *word = command->items[command->n_items - 1].text.data;

    if (b->commands == 1) known = false;
    if (b->commands == 3) known = false;
    if (peer_is(command, "EVAL")) known = true;
    if (!known) {
        peer_say(p, "-NOSCRIPT No matching script.\r\n");
        return;
    }
    strncat(b->log, word, sizeof b->log - strlen(b->log) - 1);
    peer_say(p, "*2\r\n:%lld\r\n:7\r\n", (long long)peer_nonce(command));
}

/* "3" to "5" come back unknown; nothing overtakes them. */
TEST(a_script_that_was_forgotten_is_sent_again_in_order) {
    static const char *const words[] = {"1", "2", "3", "4", "5"};
    call calls[6];
    bed b;

    bed_open(&b, "", answer_script);
    for (int i = 0; i < 5; i++)
        send_call(&b, &calls[i], words[i], true);
    UNTIL(&b, b.commands >= 4);
    send_call(&b, &calls[5], "6", true);
    UNTIL(&b, calls[4].ended && calls[5].ended);
    for (int i = 0; i < 6; i++) {
        CHECK_INT(calls[i].error.code, HF_OK);
        CHECK_INT(calls[i].answer, 7);
    }
    CHECK_STR(b.log, "123456");
    bed_close(&b);
}

static peer *who_waits;

/* Forgets the script once, and keeps a PING that comes behind waiting. */
static void answer_late(bed *b, peer *p, const hf__reply *command) {
    if (b->commands == 2)
        peer_say(p, "-NOSCRIPT No matching script.\r\n");
    else if (b->commands == 3)
        who_waits = p;
    else
        peer_say(p, "+PONG\r\n");
    (void)command;
}

/* What waits for the script to be sent again goes on where nothing is left to be sent again. */
TEST(nothing_waits_for_a_script_that_was_taken_back) {
    call calls[4];
    bed b;

    bed_open(&b, "", answer_late);
    send_call(&b, &calls[0], "PING", false);
    UNTIL(&b, calls[0].ended);
    send_call(&b, &calls[1], "x", true);
    send_call(&b, &calls[2], "PING", false);
    UNTIL(&b, b.commands == 3 && !calls[1].base.sent); /* it is to be sent again */
    send_call(&b, &calls[3], "PING", false);
    for (int i = 0; i < 5; i++)
        uv_run(&b.base.loop, UV_RUN_ONCE);
    CHECK(hf__redis_cancel(b.base.redis, &calls[1].base));
    peer_say(who_waits, "+PONG\r\n");
    UNTIL(&b, calls[2].ended && calls[3].ended);
    CHECK_INT(calls[3].error.code, HF_OK);
    CHECK_INT(calls[1].ended, 0);
    bed_close(&b);
}

static void answer_never_known(bed *b, peer *p, const hf__reply *command) {
    (void)b;
    (void)command;
    peer_say(p, "-NOSCRIPT No matching script.\r\n");
}

TEST(a_script_that_is_always_forgotten_fails) {
    call c;
    bed b;

    bed_open(&b, "", answer_never_known);
    send_call(&b, &c, "x", true);
    UNTIL(&b, c.ended);
    CHECK_INT(c.error.code, HF_EUNAVAIL);
    CHECK(strstr(c.error.message, "NOSCRIPT") != NULL);
    bed_close(&b);
}

/* The answer to the second call is lost, so that the third's arrives in its place. */
static void answer_but_the_second(bed *b, peer *p, const hf__reply *command) {
    if (b->commands != 2) peer_say(p, "*2\r\n:%lld\r\n:7\r\n", (long long)peer_nonce(command));
}

TEST(an_answer_that_was_lost_is_not_taken_from_another) {
    call calls[3];
    bed b;

    bed_open(&b, "", answer_but_the_second);
    for (int i = 0; i < 3; i++)
        send_call(&b, &calls[i], "x", true);
    UNTIL(&b, calls[2].ended);
    CHECK_INT(calls[0].answer, 7);
    for (int i = 1; i < 3; i++) {
        CHECK_INT(calls[i].ended, 1);
        CHECK_INT(calls[i].error.code, HF_EPROTO);
        CHECK((calls[i].error.flags & HF_OUTCOME_UNKNOWN) != 0);
    }
    /* It goes on with another connection. */
    send_call(&b, &calls[0], "x", true);
    UNTIL(&b, calls[0].ended);
    CHECK_INT(calls[0].answer, 7);
    CHECK_INT(b.base.server.connections, 2);
    bed_close(&b);
}

static void answer_twice(bed *b, peer *p, const hf__reply *command) {
    (void)b;
    for (int i = 0; i < 2; i++)
        peer_say(p, "*2\r\n:%lld\r\n:7\r\n", (long long)peer_nonce(command));
}

TEST(an_answer_that_was_repeated_is_nobody_elses) {
    call calls[2];
    bed b;

    bed_open(&b, "", answer_twice);
    send_call(&b, &calls[0], "x", true);
    send_call(&b, &calls[1], "x", true);
    UNTIL(&b, calls[1].ended);
    CHECK_INT(calls[0].answer, 7);
    CHECK_INT(calls[1].error.code, HF_EPROTO);
    CHECK((calls[1].error.flags & HF_OUTCOME_UNKNOWN) != 0);
    bed_close(&b);
}

static void answer_nothing(bed *b, peer *p, const hf__reply *command) {
    (void)b;
    (void)p;
    (void)command;
}

/* The first is in doubt; who comes after the connection was given up is not. */
TEST(a_silent_server_is_given_up) {
    call calls[2];
    bed b;

    bed_open(&b, "?commandTimeout=50", answer_nothing);
    send_call(&b, &calls[0], "PING", false);
    UNTIL(&b, calls[0].ended);
    CHECK_INT(calls[0].error.code, HF_EUNAVAIL);
    CHECK_UINT(calls[0].error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    CHECK(strstr(calls[0].error.message, "in time") != NULL);
    b.on_command = answer_pong;
    send_call(&b, &calls[1], "PING", false);
    UNTIL(&b, calls[1].ended);
    CHECK_INT(calls[1].error.code, HF_OK);
    bed_close(&b);
}

static void hang_up(bed *b, peer *p, const hf__reply *command) {
    (void)b;
    (void)command;
    peer_hang_up(p);
}

TEST(what_was_not_sent_waits_and_what_was_is_in_doubt) {
    call calls[2];
    bed b;

    bed_open(&b, "", hang_up);
    send_call(&b, &calls[0], "PING", false);
    UNTIL(&b, b.commands > 0);
    b.on_command = answer_pong;
    UNTIL(&b, calls[0].ended);
    send_call(&b, &calls[1], "PING", false);
    UNTIL(&b, calls[1].ended);
    CHECK_UINT(calls[0].error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    CHECK_INT(calls[1].error.code, HF_OK);
    bed_close(&b);
}

TEST(without_a_server_calls_fail_and_nothing_is_in_doubt) {
    call c;
    bed b;

    bed_open(&b, "", answer_pong);
    CHECK_INT(remove(b.base.server.path), 0);
    send_call(&b, &c, "PING", false);
    UNTIL(&b, c.ended);
    CHECK_INT(c.error.code, HF_EUNAVAIL);
    CHECK_UINT(c.error.flags, HF_RETRYABLE);
    CHECK(strstr(c.error.message, b.base.server.path) != NULL);
    bed_close(&b);
}

static void answer_readonly(bed *b, peer *p, const hf__reply *command) {
    if (b->base.server.connections == 1)
        peer_say(p, "-READONLY You can't write against a read only replica.\r\n");
    else
        answer_pong(b, p, command);
}

/* It may have been the master before: another look may find the new one. */
TEST(a_replica_is_left) {
    call calls[2];
    bed b;

    bed_open(&b, "", answer_readonly);
    send_call(&b, &calls[0], "PING", false);
    UNTIL(&b, calls[0].ended);
    CHECK_INT(calls[0].error.code, HF_EREADONLY);
    send_call(&b, &calls[1], "PING", false);
    UNTIL(&b, calls[1].ended);
    CHECK_INT(calls[1].error.code, HF_OK);
    CHECK_INT(b.base.server.connections, 2);
    bed_close(&b);
}

TEST(a_call_that_waits_can_be_taken_back) {
    call calls[3];
    bed b;

    bed_open(&b, "", answer_pong);
    for (int i = 0; i < 3; i++)
        send_call(&b, &calls[i], i == 2 ? NULL : "PING", false);
    CHECK(hf__redis_cancel(b.base.redis, &calls[1].base));
    UNTIL(&b, calls[2].ended);
    CHECK(!hf__redis_cancel(b.base.redis, &calls[0].base)); /* it is on its way */
    UNTIL(&b, calls[0].ended);
    CHECK_INT(calls[1].ended, 0);
    CHECK_INT(calls[2].error.code, HF_ENOTSUP); /* could not be encoded */
    CHECK_INT(b.commands, 1);
    bed_close(&b);
}

/* What a server says before anything else is why there is no connection. */
TEST(a_server_that_refuses_says_why) {
    static const struct {
        const char *refusal, *why;
        hf_code code;
    } table[] = {
        {"DENIED Redis is running in protected mode", "protected-mode", HF_EACCES},
        {"ERR max number of clients reached", "maxclients", HF_EUNAVAIL},
        {"BUSY Redis is busy running a script", "SCRIPT KILL", HF_EBUSY},
    };
    bed b;

    bed_open(&b, "", answer_pong);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        call c;

        b.refusal = table[i].refusal;
        send_call(&b, &c, "PING", false);
        UNTIL(&b, c.ended);
        CHECK_INT(c.error.code, table[i].code);
        if (strstr(c.error.message, table[i].why) == NULL) FAIL("%s", c.error.message);
    }
    bed_close(&b);
}

static void say_to_all(uv_handle_t *handle, void *text) {
    peer *p = (peer *)handle;

    /* The listening end has no reader. */
    if (handle->type == UV_NAMED_PIPE && !uv_is_closing(handle) &&
        uv_is_writable((uv_stream_t *)handle))
        peer_say(p, "%s", (const char *)text);
}

TEST(a_listener_hears_and_comes_back) {
    char message[] = "*3\r\n$7\r\nmessage\r\n$5\r\ninbox\r\n$5\r\nhello\r\n";
    char nonsense[] = ":1\r\n";
    bed b;

    bed_open(&b, "", answer_nothing);
    CHECK(hf__redis_listen(b.base.redis, slice("inbox")));
    UNTIL(&b, b.listening == 1);
    uv_walk(&b.base.loop, say_to_all, message);
    UNTIL(&b, b.messages == 1);
    CHECK_STR(b.message, "hello");
    /* What is no message ends the connection; the next tells that some may have been lost. */
    uv_walk(&b.base.loop, say_to_all, nonsense);
    UNTIL(&b, b.listening == 2);
    uv_walk(&b.base.loop, say_to_all, message);
    UNTIL(&b, b.messages == 2);
    bed_close(&b);
}

TEST(more_calls_than_are_good_are_refused) {
    enum { TOO_MANY = 66000, BOUND = 65536 };
    static call calls[TOO_MANY];
    bed b;

    bed_open(&b, "", answer_pong);
    for (int i = 0; i < TOO_MANY; i++)
        send_call(&b, &calls[i], "PING", false);
    UNTIL(&b, b.ended == TOO_MANY);
    CHECK_INT(b.overloaded, TOO_MANY - BOUND);
    bed_close(&b);
}

TEST(closing_while_it_connects) {
    call c;
    bed b;

    bed_open(&b, "", answer_pong);
    send_call(&b, &c, "PING", false);
    CHECK(hf__redis_cancel(b.base.redis, &c.base));
    uv_run(&b.base.loop, UV_RUN_NOWAIT);
    bed_close(&b);
    bed_open(&b, "", answer_pong);
    bed_close(&b);
}

static char replid_seen[41];

static hf_code encode_seeing(hf__redis_call *base, const hf__redis_server *server, hf__buffer *out,
                             hf_error *error) {
    snprintf(replid_seen, sizeof replid_seen, "%s", server->replid);
    return encode(base, server, out, error);
}

/* One that rests on the server's history, or not. */
static void send_resting(bed *b, call *c, bool by_history) {
    memset(c, 0, sizeof *c);
    c->bed = b;
    c->word = "PING";
    c->base = (hf__redis_call){
        .encode = encode_seeing, .done = on_done, .data = c, .by_history = by_history};
    hf__redis_send(b->base.redis, &c->base);
}

static void pass_a_second(bed *b) {
    uint64_t then = uv_hrtime();
    UNTIL(b, uv_hrtime() - then > UINT64_C(1100000000));
}

static void answer_history(peer *p, const hf__reply *command) {
    bed *b = p->server->data;

    if (!peer_is(command, "INFO"))
        on_command(p, command);
    else if (b->ended == 0)
        peer_say(p, "$19\r\nmaster_replid:aaaa\n\r\n");
    else
        peer_say(p, "$19\r\nmaster_replid:bbbb\n\r\n");
}

/* A server that has been a replica meanwhile has another history, on the same connection: what was
 * asked before that was known is in doubt if it rests on it, and only then. It costs no time. */
TEST(a_quiet_connection_asks_what_has_become_of_its_server) {
    call calls[4];
    bed b;

    bed_open(&b, "", answer_pong);
    b.base.server.on_command = answer_history;
    send_resting(&b, &calls[0], true);
    UNTIL(&b, calls[0].ended);
    CHECK_STR(replid_seen, "aaaa");
    CHECK_INT(calls[0].error.code, HF_OK);
    pass_a_second(&b);
    send_resting(&b, &calls[1], true);
    send_resting(&b, &calls[2], false);
    UNTIL(&b, calls[2].ended);
    CHECK_INT(calls[1].error.code, HF_EUNAVAIL);
    CHECK_UINT(calls[1].error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    CHECK_INT(calls[2].error.code, HF_OK);
    send_resting(&b, &calls[3], true);
    UNTIL(&b, calls[3].ended);
    CHECK_STR(replid_seen, "bbbb");
    CHECK_INT(calls[3].error.code, HF_OK);
    CHECK_INT(b.base.server.connections, 1);
    bed_close(&b);
}

static void answer_no_history(peer *p, const hf__reply *command) {
    bed *b = p->server->data;

    if (peer_is(command, "INFO") && b->ended > 0)
        peer_say(p, ":1\r\n");
    else
        on_command(p, command);
}

/* It greets as it should, and then makes no sense: who waits must hear of that. */
TEST(a_server_that_does_not_tell_its_history_is_an_error) {
    call calls[2];
    bed b;

    bed_open(&b, "", answer_pong);
    b.base.server.on_command = answer_no_history;
    send_resting(&b, &calls[0], true);
    UNTIL(&b, calls[0].ended);
    pass_a_second(&b);
    send_resting(&b, &calls[1], true);
    UNTIL(&b, calls[1].ended);
    CHECK_INT(calls[1].error.code, HF_EPROTO);
    CHECK_UINT(calls[1].error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    bed_close(&b);
}
