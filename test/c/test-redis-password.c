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
    uv_loop_t loop;
    uv_timer_t guard; /* keeps the loop turning, and ends a test that hangs */
    int ticks;
    hf__mailbox mailbox;
    peer_server server;
    hf__url url;
    hf__store_env env;
    hf__redis *redis;
    int closed;
    const char *wanted;   /* what the server lets in */
    const char *gives[4]; /* what the function gives, one after another; NULL: no answer */
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
        else
            peer_say(p, "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    } else if (!peer_greets(p, command)) {
        note(b, "PING. ");
        peer_say(p, "+PONG\r\n");
    } else if (strstr(b->log, b->wanted) == NULL) {
        note(b, "too early! ");
    }
}

static void on_guard(uv_timer_t *timer) {
    bed *b = timer->data;
    if (++b->ticks > 6000) {
        fprintf(stderr, "a test waits for something that does not come\n");
        abort();
    }
}

static void on_closed(void *data) {
    ((bed *)data)->closed = 1;
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
    const char *why;
    char text[256];
    hf_error error;

    memset(b, 0, sizeof *b);
    b->wanted = wanted;
    uv_loop_init(&b->loop);
    uv_timer_init(&b->loop, &b->guard);
    b->guard.data = b;
    uv_timer_start(&b->guard, on_guard, 5, 5);
    REQUIRE(hf__mailbox_init(&b->mailbox, &b->loop, NULL, NULL) == 0);
    peer_open(&b->server, &b->loop, on_command, b);
    snprintf(text, sizeof text, "unix:%s%s", b->server.path, params);
    REQUIRE(hf__url_parse(&b->url, slice(text), hf__allocator_libc(), &why));
    b->env = (hf__store_env){.loop = &b->loop,
                             .mailbox = &b->mailbox,
                             .allocator = hf__allocator_libc(),
                             .clock = hf__clock_system(),
                             .url = &b->url};
    hf_client_options options = {.password = on_password, .password_data = b};
    REQUIRE_INT(hf__credentials_new(&options, b->env.allocator, b->env.clock, &b->mailbox,
                                    &b->env.credentials, &error),
                HF_OK);
    REQUIRE_INT(hf__redis_new(&b->env, &events, &b->redis, &error), HF_OK);
}

#define UNTIL(bed, condition)                  \
    do {                                       \
        while (!(condition))                   \
            uv_run(&(bed)->loop, UV_RUN_ONCE); \
    } while (0)

static void bed_close(bed *b) {
    hf__redis_close(b->redis, on_closed, b);
    UNTIL(b, b->closed);
    hf__redis_free(b->redis);
    hf__credentials_free(b->env.credentials);
    if (b->open != NULL) hf_password_give(b->open, slice("too late"), NULL);
    peer_close(&b->server);
    UNTIL(b, b->server.open == 0);
    hf__mailbox_close(&b->mailbox, NULL, NULL);
    uv_close((uv_handle_t *)&b->guard, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&b->loop), 0);
    hf__url_free(&b->url, hf__allocator_libc());
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
    hf__redis_send(b->redis, &c.base);
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
    CHECK(hf__redis_listen(b.redis, slice("inbox")));
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
    CHECK_INT(b.server.connections, 1);
    /* And so the next time: what was known meanwhile is an old one by now. */
    b.wanted = b.gives[2] = "newer";
    CHECK(hf__redis_listen(b.redis, slice("inbox")));
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
    hf__redis_send(b.redis, &c.base);
    UNTIL(&b, b.asked == 1);
    CHECK(hf__redis_cancel(b.redis, &c.base));
    bed_close(&b);
    CHECK_INT(c.ended, 0);
    CHECK_STR(b.log, "");
}
