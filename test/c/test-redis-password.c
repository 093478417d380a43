/* Signing in at a Redis server with a password that a function gives. */
#include "harness.h"
#include "support-redis-peer.h"

#include "core/credentials.h"
#include "driver/redis/redis.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

/* A server that wants a password, a host whose function gives one, and a driver between. */
typedef struct bed {
    peer_bed base;
    hf__mailbox mailbox;
    const char *wanted;   /* what the server lets in */
    const char *gives[4]; /* what the function gives, one after another; NULL: no answer */
    bool quotes;          /* it repeats what it was told */
    int asked;
    hf_password *open; /* the question that got no answer */
    char log[256];     /* what the server was told, before and after signing in */
} bed;

static void note(bed *b, const char *text) {
    strncat(b->log, text, sizeof b->log - strlen(b->log) - 1);
}

static void on_password(void *data, hf_password *ask) {
    bed *b = data;
    const char *given = b->gives[b->asked++ % 4];

    if (given != NULL && given[0] == '!')
        hf_password_give(ask, (hf_slice){NULL, 0}, given + 1);
    else if (given != NULL)
        hf_password_give(ask, slice(given), NULL);
    else
        b->open = ask;
}

static void on_command(peer *p, const hf__reply *command) {
    bed *b = p->server->data;
    const hf__reply *last = &command->items[command->n_items - 1];

    if (peer_is(command, "AUTH")) {
        note(b, "AUTH ");
        if (command->n_items == 3) {
            note(b, command->items[1].text.data);
            note(b, " ");
        }
        note(b, last->text.data);
        note(b, ". ");
        if (hf__reply_equals(last, b->wanted))
            peer_say(p, "+OK\r\n");
        else if (b->quotes)
            peer_say(p, "-ERR unknown command 'AUTH', with args beginning with: '%s'\r\n",
                     last->text.data);
        else
            peer_say(p, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    } else if (!peer_greets(p, command)) {
        note(b, "PING. ");
        peer_say(p, "+PONG\r\n");
    } else if (strstr(b->log, b->wanted) == NULL) {
        note(b, "too early! ");
    }
}

static void on_message(void *data, hf_slice payload) {
    (void)data;
    (void)payload;
}

static void on_listening(void *data) {
    note(data, "listening. ");
}

static void bed_open(bed *b, const char *params, const char *wanted) {
    const hf__redis_events events = {.message = on_message, .listening = on_listening, .data = b};
    hf_client_options options = {.password = on_password, .password_data = b};
    hf__store_env *env = &b->base.env;
    hf_error error;

    memset(b, 0, sizeof *b);
    b->wanted = wanted;
    peer_bed_open(&b->base, params, on_command, b);
    REQUIRE(hf__mailbox_init(&b->mailbox, &b->base.loop, NULL, NULL) == 0);
    env->mailbox = &b->mailbox;
    REQUIRE_INT(hf__credentials_new(&options, env->allocator, env->clock, &b->mailbox,
                                    &env->credentials, &error),
                HF_OK);
    peer_bed_start(&b->base, &events);
}

static void bed_close(bed *b) {
    peer_bed_stop(&b->base);
    hf__credentials_free(b->base.env.credentials);
    if (b->open != NULL) hf_password_give(b->open, slice("too late"), NULL);
    hf__mailbox_close(&b->mailbox, NULL, NULL);
    peer_bed_close(&b->base);
}

typedef struct call {
    hf__redis_call base;
    int ended;
    hf_error error;
} call;

static hf_code encode(hf__redis_call *base, const hf__redis_server *server, hf__buffer *out,
                      hf_error *error) {
    (void)base;
    (void)server;
    (void)error;
    hf__resp_begin(out, 1);
    hf__resp_text(out, "PING");
    return HF_OK;
}

static void on_done(hf__redis_call *base, const hf__reply *reply, const hf_error *error) {
    call *c = base->data;

    (void)reply;
    c->ended++;
    if (error != NULL) c->error = *error;
}

static hf_error ping(bed *b) {
    call c = {0};

    c.base = (hf__redis_call){.encode = encode, .done = on_done, .data = &c};
    hf__redis_send(b->base.redis, &c.base);
    UNTIL(b, c.ended);
    return c.error;
}

TEST(what_the_function_gives_is_said_first) {
    bed b;

    bed_open(&b, "", "one");
    b.gives[0] = "one";
    hf_error error = ping(&b);
    CHECK_INT(error.code, HF_OK);
    CHECK_STR(b.log, "AUTH one. PING. ");
    /* A second connection finds what is known. */
    CHECK(hf__redis_listen(b.base.redis, slice("inbox")));
    UNTIL(&b, strstr(b.log, "listening") != NULL);
    CHECK_STR(b.log, "AUTH one. PING. AUTH one. listening. ");
    CHECK_INT(b.asked, 1);
    bed_close(&b);
}

TEST(the_user_of_the_url_goes_along) {
    static const char *const params[] = {"?username=app", "?username=app&password=other"};
    for (int i = 0; i < 2; i++) {
        bed b;
        bed_open(&b, params[i], "one");
        b.gives[0] = "one";
        CHECK_INT(ping(&b).code, HF_OK);
        CHECK_STR(b.log, "AUTH app one. PING. ");
        bed_close(&b);
    }
}

TEST(one_that_has_changed_is_asked_for_again_and_nobody_notices) {
    bed b;

    bed_open(&b, "", "new");
    b.gives[0] = "old";
    b.gives[1] = "new";
    hf_error error = ping(&b);
    CHECK_INT(error.code, HF_OK);
    CHECK_STR(b.log, "AUTH old. AUTH new. PING. ");
    CHECK_INT(b.asked, 2);
    CHECK_INT(b.base.server.connections, 1);
    /* And so the next time: what was known meanwhile is an old one by now. */
    b.wanted = b.gives[2] = "newer";
    CHECK(hf__redis_listen(b.base.redis, slice("inbox")));
    UNTIL(&b, strstr(b.log, "listening") != NULL);
    CHECK_STR(b.log, "AUTH old. AUTH new. PING. AUTH new. AUTH newer. listening. ");
    CHECK_INT(b.asked, 3);
    bed_close(&b);
}

TEST(one_that_stays_wrong_is_an_error) {
    bed b;

    bed_open(&b, "", "right");
    b.gives[0] = b.gives[1] = "s3cret";
    b.gives[2] = "right";
    hf_error error = ping(&b);
    CHECK_INT(error.code, HF_EACCES);
    CHECK(strstr(error.message, "s3cret") == NULL);
    CHECK_STR(b.log, "AUTH s3cret. AUTH s3cret. ");
    /* The next connection asks anew. */
    error = ping(&b);
    CHECK_INT(error.code, HF_OK);
    CHECK_INT(b.asked, 3);
    bed_close(&b);
}

TEST(a_function_that_fails_is_an_error) {
    bed b;

    bed_open(&b, "", "x");
    b.gives[0] = "!the vault is shut";
    b.gives[1] = "x";
    hf_error error = ping(&b);
    CHECK_INT(error.code, HF_ECALLBACK);
    CHECK_UINT(error.flags, HF_RETRYABLE);
    CHECK_STR(error.message, "the function that gives the password failed: the vault is shut");
    CHECK_STR(b.log, "");
    CHECK_INT(ping(&b).code, HF_OK);
    bed_close(&b);
}

TEST(one_that_does_not_answer_is_not_waited_for_longer_than_a_connection_may_take) {
    bed b;

    bed_open(&b, "?connectTimeout=300", "x");
    hf_error error = ping(&b);
    CHECK_INT(error.code, HF_ECALLBACK);
    CHECK(strstr(error.message, "the function that gives the password has not answered for ") ==
          error.message);
    CHECK_INT(b.asked, 1);
    bed_close(&b);
}

TEST(it_may_be_closed_while_it_asks) {
    bed b;
    call c = {0};

    bed_open(&b, "", "x");
    c.base = (hf__redis_call){.encode = encode, .done = on_done, .data = &c};
    hf__redis_send(b.base.redis, &c.base);
    UNTIL(&b, b.asked == 1);
    CHECK(hf__redis_cancel(b.base.redis, &c.base));
    bed_close(&b);
    CHECK_INT(c.ended, 0);
    CHECK_STR(b.log, "");
}

/* What a server says to AUTH may repeat the password. */
TEST(a_server_that_quotes_it_is_not_quoted) {
    bed b;

    bed_open(&b, "", "one");
    b.quotes = true;
    b.gives[0] = b.gives[1] = "hunter2";
    hf_error error = ping(&b);
    CHECK_INT(error.code, HF_EACCES);
    CHECK(strstr(error.message, "hunter2") == NULL);
    bed_close(&b);
}
