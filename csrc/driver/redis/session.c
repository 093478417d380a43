#include "driver/redis/session.h"

#include "driver/peers.h"
#include "driver/redis/error.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/random.h"

#include <assert.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

enum {
    TICK_MS = 100,          /* how often it is looked for what takes too long */
    LOOK_MS = 1000,         /* how long what is known of a server's history is taken for granted */
    LISTENER_IDLE_MS = 5000 /* silence after which a listener asks whether anyone is there */
};

/* What is said first, in this order and in one write. */
enum {
    STEP_AUTH,
    STEP_SELECT,
    STEP_NAME,
    STEP_LIBRARY,
    STEP_SERVER,
    STEP_MEMORY,
    STEP_ROLE,
    STEP_SUBSCRIBE
};

static uint64_t now_ms(void) {
    /* Not the loop's time: that stands still while a callback takes long. */
    return uv_hrtime() / HF_NS_PER_MS;
}

/* ---------------------------------------------------------------- the end */

static void let_go(hf__session *s) {
    void (*gone)(void *data) = s->env->events.gone;
    void *data = s->data;

    if (--s->handles > 0) return;
    hf__free(s->env->store->allocator, s);
    gone(data);
}

static void on_timer_closed(uv_handle_t *handle) {
    let_go(hf__of(handle, hf__session, timer));
}

static void on_socket_closed(hf__socket *socket) {
    let_go(hf__of(socket, hf__session, socket));
}

void hf__session_close(hf__session *s) {
    s->state = HF__SESSION_OVER;
    hf__list_remove(&s->dirty);
    if (s->socket.state != HF__SOCKET_IDLE && s->socket.state != HF__SOCKET_CLOSING)
        hf__socket_close(&s->socket);
    if (s->resolving) uv_cancel((uv_req_t *)&s->lookup);
    hf__password_cancel(&s->password);
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

/* The connection is of no more use: what was sent may have had its effect. */
static void end(hf__session *s, const hf_error *error) {
    hf_error unknown;
    hf__node *node;

    if (s->state == HF__SESSION_OVER) return;
    if (s->is_known && s->state != HF__SESSION_READY)
        hf__peers_forget(s->env->store->shared, &s->address);
    s->state = HF__SESSION_OVER;
    hf__error_set(&unknown, error->code == HF_EPROTO ? HF_EPROTO : HF_EUNAVAIL,
                  HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
                  "the answer never came, and whether it was done is not known: %s",
                  error->message);
    if (s->looking) hf__list_remove(&s->look.node);
    while ((node = hf__list_pop(&s->sent)) != NULL)
        s->env->events.answer(s, hf__of(node, hf__redis_call, node), NULL, &unknown);
    hf__list_append(&s->again, &s->unsent);
    hf__list_append(&s->unsent, &s->again);
    s->env->events.down(s, error);
    hf__session_close(s);
}

void hf__session_fail(hf__session *s, const hf_error *error) {
    end(s, error);
}

static void end_unreachable(hf__session *s, const char *why) {
    hf_error error;

    hf__redis_unreachable(&error, s->server.name, why);
    end(s, &error);
}

static void end_protocol(hf__session *s, const char *what) {
    hf_error error;

    hf__error_set(&error, HF_EPROTO, HF_RETRYABLE, "the server %s %s", s->server.name, what);
    end(s, &error);
}

/* ---------------------------------------------------------------- greeting */

static void expect(hf__session *s, uint8_t step) {
    assert(s->n_steps < sizeof s->steps);
    s->steps[s->n_steps++] = step;
}

static void say(hf__session *s, uint8_t step, const char *const *words) {
    uint32_t n = 0;

    while (words[n] != NULL)
        n++;
    hf__resp_begin(&s->socket.out, n);
    for (uint32_t i = 0; i < n; i++)
        hf__resp_text(&s->socket.out, words[i]);
    expect(s, step);
}

#define SAY(s, step, ...) say(s, step, (const char *const[]){__VA_ARGS__, NULL})

static void say_password(hf__session *s, hf_slice username, hf_slice password) {
    hf__buffer *out = &s->socket.out;

    if (username.len == 0 && password.len == 0) return; /* a user may have no password */
    hf__resp_begin(out, username.len > 0 ? 3 : 2);
    hf__resp_text(out, "AUTH");
    if (username.len > 0) hf__resp_slice(out, username);
    hf__resp_slice(out, password);
    expect(s, STEP_AUTH);
}

static const char *name_of(const hf__session *s) {
    if (s->kind == HF__SESSION_LISTENER) return "holdfast-wake";
    return s->env->store->blocking ? "holdfast-keeper" : "holdfast";
}

static void greet(hf__session *s) {
    const hf__redis_config *config = s->env->config;
    char db[16];

    s->state = HF__SESSION_GREETING;
    if (s->kind == HF__SESSION_SENTINEL)
        say_password(s, config->sentinel_username, config->sentinel_password);
    else if (!hf__password_is_asked(s->env->store))
        say_password(s, config->username, config->password);
    SAY(s, STEP_NAME, "CLIENT", "SETNAME", name_of(s));
    if (s->kind == HF__SESSION_COMMANDS) {
        snprintf(db, sizeof db, "%" PRIu32, config->db);
        if (config->db != 0) SAY(s, STEP_SELECT, "SELECT", db);
        SAY(s, STEP_LIBRARY, "CLIENT", "SETINFO", "LIB-NAME", "holdfast");
        SAY(s, STEP_SERVER, "INFO", "server");
        SAY(s, STEP_MEMORY, "INFO", "memory");
        SAY(s, STEP_ROLE, "INFO", "replication");
    }
    if (s->kind == HF__SESSION_LISTENER) {
        hf__resp_begin(&s->socket.out, 2);
        hf__resp_text(&s->socket.out, "SUBSCRIBE");
        hf__resp_slice(&s->socket.out, s->env->channel);
        expect(s, STEP_SUBSCRIBE);
    }
    hf__socket_flush(&s->socket);
}

/* A password that a function gives is said alone, before the rest: it may be an old one, and is
 * then asked for again. */
static void ask_password(hf__session *s) {
    s->state = HF__SESSION_ASKING;
    s->n_steps = s->step = 0;
    s->password.generation = *s->env->refused_password;
    s->password.fresh = s->password.generation != 0;
    hf__password_ask(s->env->store, &s->password);
}

static void on_password(hf__password_wait *wait, hf_slice password, const hf_error *error) {
    hf__session *s = hf__of(wait, hf__session, password);

    if (error != NULL) {
        end(s, error);
        return;
    }
    s->state = HF__SESSION_SIGNING;
    say_password(s, s->env->config->username, password);
    hf__socket_flush(&s->socket);
}

static void on_signed(hf__session *s, const hf__reply *reply) {
    hf_error error;

    if (reply->type != HF__REPLY_ERROR) {
        s->n_steps = s->step = 0;
        greet(s);
        return;
    }
    hf__redis_error_auth(&error, reply->text, s->server.name);
    *s->env->refused_password = s->password.generation;
    if (s->refused) {
        end(s, &error);
        return;
    }
    s->refused = true;
    ask_password(s);
}

/* The value of "name:value" in INFO's text; false if it is not there. */
static bool info_field(hf_slice info, const char *name, char *value, size_t size) {
    size_t len = strlen(name);
    const char *at = info.data;
    const char *last = info.data + info.len;

    while (at < last) {
        const char *line_end = memchr(at, '\n', (size_t)(last - at));
        const char *next = line_end == NULL ? last : line_end + 1;
        size_t n = (size_t)((line_end == NULL ? last : line_end) - at);

        if (n > 0 && at[n - 1] == '\r') n--;
        if (n > len && at[len] == ':' && memcmp(at, name, len) == 0) {
            n -= len + 1;
            n = n < size - 1 ? n : size - 1;
            memcpy(value, at + len + 1, n);
            value[n] = '\0';
            return true;
        }
        at = next;
    }
    return false;
}

/* What the server tells of itself. Where it does not (an ACL without +info), less is known, and
 * the careful thing is done. */
static void learn(hf__session *s, uint8_t step, hf_slice info) {
    char value[24];

    if (step == STEP_SERVER) {
        if (!info_field(info, "run_id", s->server.run_id, sizeof s->server.run_id))
            s->server.run_id[0] = '\0';
    } else if (step == STEP_MEMORY) {
        bool bounded = info_field(info, "maxmemory", value, sizeof value) && value[0] != '0';
        if (!info_field(info, "maxmemory_policy", s->server.policy, sizeof s->server.policy))
            s->server.policy[0] = '\0';
        s->server.evicts =
            bounded && s->server.policy[0] != '\0' && strcmp(s->server.policy, "noeviction") != 0;
    } else if (step == STEP_ROLE) {
        s->replica = info_field(info, "role", value, sizeof value) && strcmp(value, "slave") == 0;
        if (!info_field(info, "master_replid", s->server.replid, sizeof s->server.replid))
            s->server.replid[0] = '\0';
    }
}

/* Whether the greeting can do without a good answer to `step`. */
static bool is_optional(uint8_t step) {
    return step == STEP_NAME || step == STEP_LIBRARY || step == STEP_SERVER ||
           step == STEP_MEMORY || step == STEP_ROLE;
}

/* Whether an optional command was refused because the server lacks it, or the user may not use it.
 * Anything else will pass (BUSY), or is true of all that follows (DENIED). */
static bool is_about_rights(const hf_error *error) {
    return hf__redis_error_is(error, "NOPERM") ||
           (hf__redis_error_is(error, "ERR") && (error->flags & HF_RETRYABLE) == 0);
}

static void become_ready(hf__session *s) {
    if (s->replica && s->env->config->kind == HF__REDIS_SENTINEL) {
        end_unreachable(s, "it is not the master any more");
        return;
    }
    s->state = HF__SESSION_READY;
    s->looked_ms = now_ms();
    if (s->is_name) hf__peers_note(s->env->store->shared, &s->address, &s->peers[s->peer - 1]);
    s->env->events.ready(s);
}

static bool is_subscribed(const hf__reply *reply) {
    return reply->type == HF__REPLY_ARRAY && reply->n_items == 3 &&
           hf__reply_equals(&reply->items[0], "subscribe");
}

static void on_greeting(hf__session *s, const hf__reply *reply) {
    uint8_t step = s->steps[s->step];
    hf_error error;

    if (reply->type == HF__REPLY_ERROR) {
        if (step == STEP_AUTH)
            hf__redis_error_auth(&error, reply->text, s->server.name);
        else
            hf__redis_error(&error, reply->text, s->server.name);
        if (!is_optional(step) || !is_about_rights(&error)) {
            end(s, &error);
            return;
        }
    } else if (step == STEP_SUBSCRIBE ? !is_subscribed(reply) : !hf__reply_is_text(reply)) {
        end_protocol(s, "answered a greeting with something else");
        return;
    } else if (reply->type == HF__REPLY_STRING) {
        learn(s, step, reply->text);
    }
    if (++s->step == s->n_steps) become_ready(s);
}

/* ---------------------------------------------------------------- calls */

void hf__redis_script_begin(hf__redis_call *call, hf__buffer *out, uint32_t n_keys,
                            uint32_t n_args) {
    hf__session *s = call->conn;
    const hf__redis_script *script = call->script;
    uint32_t bit = UINT32_C(1) << script->id;

    call->whole = (s->scripts & bit) == 0;
    s->scripts |= bit;
    hf__resp_begin(out, 3 + n_keys + n_args);
    if (call->whole) {
        hf__resp_text(out, "EVAL");
        hf__resp_bytes(out, script->text, script->len);
    } else {
        hf__resp_text(out, "EVALSHA");
        hf__resp_bytes(out, script->sha, sizeof script->sha - 1);
    }
    hf__resp_int(out, n_keys);
}

static uint32_t next_nonce(hf__session *s) {
    s->nonce = s->nonce % INT32_MAX + 1;
    return s->nonce;
}

static uint32_t patience_for(const hf__session *s, const hf__redis_call *call) {
    uint32_t ms = s->env->config->command_ms;

    return call->timeout_ms > 0 && call->timeout_ms < ms ? call->timeout_ms : ms;
}

/* A server may have become a replica, have lost what it wrote last, and be the master once more,
 * without a word to those who are connected: then the history of its data is another. Where that
 * may have happened it is asked for, just before a call that rests on it. */
static void look_again(hf__session *s, uint64_t now) {
    hf__resp_begin(&s->socket.out, 2);
    hf__resp_text(&s->socket.out, "INFO");
    hf__resp_text(&s->socket.out, "replication");
    s->looking = true;
    s->looked_ms = now;
    s->look = (hf__redis_call){.due_ms = now + s->env->config->command_ms, .sent = true};
    hf__list_push(&s->sent, &s->look.node);
}

/* Writes one call into the buffer; what could not be encoded ends, and leaves no byte behind. */
static void encode(hf__session *s, hf__redis_call *call, uint64_t now) {
    hf__buffer *out = &s->socket.out;
    uint32_t scripts = s->scripts;
    hf_error error;
    size_t before;

    if (call->by_history && !s->looking && now - s->looked_ms >= LOOK_MS) look_again(s, now);
    before = out->len;
    call->stale = false;
    call->conn = s;
    call->connection = s->number;
    call->nonce = next_nonce(s);
    call->prefixed = call->asking;
    if (call->prefixed) {
        hf__resp_begin(out, 1);
        hf__resp_text(out, "ASKING");
    }
    if (call->encode(call, &s->server, out, &error) != HF_OK) {
        out->len = before;
        s->scripts = scripts;
        s->env->events.answer(s, call, NULL, &error);
        return;
    }
    call->due_ms = now + patience_for(s, call);
    call->sent = true;
    hf__list_push(&s->sent, &call->node);
}

static void on_tick(uv_timer_t *timer);

static void watch_time(hf__session *s) {
    if (!uv_is_active((uv_handle_t *)&s->timer))
        uv_timer_start(&s->timer, on_tick, TICK_MS, TICK_MS);
}

void hf__session_flush(hf__session *s) {
    uint64_t now = now_ms();
    hf__node *node;

    assert(s->state == HF__SESSION_READY);
    /* After an unknown script nothing new overtakes what must be sent again. */
    s->put_off = !hf__list_empty(&s->again);
    if (s->put_off) return;
    while (s->state == HF__SESSION_READY && (node = hf__list_pop(&s->unsent)) != NULL)
        encode(s, hf__of(node, hf__redis_call, node), now);
    if (s->state != HF__SESSION_READY) return;
    if (!hf__list_empty(&s->sent)) watch_time(s);
    hf__socket_flush(&s->socket);
}

/* The script was flushed, or this is another server than before. The answers to what was sent
 * behind it come first, then all that had no effect is sent again, in its order. */
static void send_again(hf__session *s, hf__redis_call *call) {
    s->scripts &= ~(UINT32_C(1) << call->script->id);
    call->redirects++;
    call->sent = false;
    hf__list_push(&s->again, &call->node);
}

static void end_drain(hf__session *s) {
    if (!hf__list_empty(&s->sent)) return;
    /* Who had to be sent again may have been taken back since; the others still wait. */
    if (hf__list_empty(&s->again) && !s->put_off) return;
    hf__list_append(&s->again, &s->unsent);
    hf__list_append(&s->unsent, &s->again);
    hf__session_flush(s);
}

static void end_out_of_step(hf__session *s) {
    end_protocol(s, "gave an answer that belongs to something else: "
                    "answers were lost or repeated on the way");
}

/* What was sent meanwhile, and rests on a history that is no more, is worth nothing. */
static void on_look(hf__session *s, const hf__reply *reply) {
    char before[sizeof s->server.replid];

    if (reply->type != HF__REPLY_STRING && reply->type != HF__REPLY_ERROR) {
        end_out_of_step(s);
        return;
    }
    s->looking = false;
    hf__list_remove(&s->look.node);
    memcpy(before, s->server.replid, sizeof before);
    if (reply->type == HF__REPLY_STRING) learn(s, STEP_ROLE, reply->text);
    if (s->replica && s->env->config->kind == HF__REDIS_SENTINEL) {
        end_unreachable(s, "it is not the master any more");
        return;
    }
    for (hf__node *node = s->sent.next; node != &s->sent; node = node->next) {
        hf__redis_call *call = hf__of(node, hf__redis_call, node);
        call->stale = call->by_history && strcmp(before, s->server.replid) != 0;
    }
    end_drain(s);
}

static bool has_nonce(const hf__redis_call *call, const hf__reply *reply) {
    return reply->type == HF__REPLY_ARRAY && reply->n_items > 0 &&
           reply->items[0].type == HF__REPLY_INTEGER &&
           reply->items[0].integer == (int64_t)call->nonce;
}

static void on_answer(hf__session *s, const hf__reply *reply) {
    hf__node *node = hf__list_first(&s->sent);
    hf__redis_call *call;
    hf_error error;

    if (node == NULL) {
        end_protocol(s, "answered what was not asked");
        return;
    }
    call = hf__of(node, hf__redis_call, node);
    if (call == &s->look) {
        on_look(s, reply);
        return;
    }
    if (call->prefixed) { /* of two answers this is the first */
        call->prefixed = false;
        return;
    }
    if (reply->type != HF__REPLY_ERROR && call->script != NULL && !has_nonce(call, reply)) {
        end_out_of_step(s);
        return;
    }
    hf__list_remove(node);
    if (reply->type != HF__REPLY_ERROR && call->stale) {
        hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
                      "the data of the server %s has another history than when it was last asked "
                      "(it may have been a replica): what it answered may not hold",
                      s->server.name);
        s->env->events.answer(s, call, NULL, &error);
    } else if (reply->type != HF__REPLY_ERROR) {
        s->env->events.answer(s, call, reply, NULL);
    } else {
        hf__redis_error(&error, reply->text, s->server.name);
        if (call->script != NULL && call->redirects < HF__REDIS_REDIRECTS_MAX &&
            hf__redis_begins(reply->text, "NOSCRIPT"))
            send_again(s, call);
        else
            s->env->events.answer(s, call, reply, &error);
    }
    if (s->state == HF__SESSION_READY) end_drain(s);
}

static void on_message(hf__session *s, const hf__reply *reply) {
    s->pinged = false;
    if (reply->type == HF__REPLY_ARRAY && reply->n_items == 3 &&
        hf__reply_equals(&reply->items[0], "message") && reply->items[2].type == HF__REPLY_STRING) {
        s->env->events.message(s, reply->items[2].text);
        return;
    }
    if (reply->type == HF__REPLY_ARRAY && reply->n_items > 0 &&
        hf__reply_equals(&reply->items[0], "pong"))
        return;
    end_protocol(s, "sent something else than messages to a subscriber");
}

static void on_reply(hf__socket *socket, const hf__reply *reply) {
    hf__session *s = hf__of(socket, hf__session, socket);

    s->heard_ms = now_ms();
    if (s->state == HF__SESSION_GREETING)
        on_greeting(s, reply);
    else if (s->state == HF__SESSION_SIGNING)
        on_signed(s, reply);
    else if (s->kind == HF__SESSION_LISTENER)
        on_message(s, reply);
    else
        on_answer(s, reply);
}

/* ---------------------------------------------------------------- what takes too long */

static void say_late(hf__session *s, const char *what, uint64_t ms) {
    char why[96];

    snprintf(why, sizeof why, "%s for %" PRIu64 " ms", what, ms);
    end_unreachable(s, why);
}

static bool is_overdue(const hf__session *s, uint64_t now) {
    for (const hf__node *node = s->sent.next; node != &s->sent; node = node->next) {
        if (hf__of((hf__node *)(uintptr_t)node, hf__redis_call, node)->due_ms <= now) return true;
    }
    return false;
}

static void ping(hf__session *s) {
    hf__resp_begin(&s->socket.out, 1);
    hf__resp_text(&s->socket.out, "PING");
    s->pinged = true;
    hf__socket_flush(&s->socket);
}

static void check_listener(hf__session *s) {
    uint64_t silent = now_ms() - s->heard_ms;
    uint32_t bound = s->env->config->command_ms;

    if (s->pinged && silent > LISTENER_IDLE_MS + (uint64_t)bound)
        say_late(s, "it has been silent", silent);
    else if (!s->pinged && silent > LISTENER_IDLE_MS)
        ping(s);
}

static void try_next_peer(hf__session *s, const hf_error *why);

static uint32_t waited_ms(const hf__session *s) {
    return s->ticks * TICK_MS;
}

/* Of several addresses each has its share of the time. */
static void check_connecting(hf__session *s) {
    uint32_t bound = s->env->config->connect_ms;
    hf_error error;

    if (waited_ms(s) >= bound && s->state == HF__SESSION_ASKING) {
        hf__error_set(&error, HF_ECALLBACK, HF_RETRYABLE,
                      "the function that gives the password has not answered for %u ms",
                      waited_ms(s));
        end(s, &error);
    } else if (waited_ms(s) >= bound && s->socket.state == HF__SOCKET_SHAKING) {
        end_unreachable(s, "it has not answered the greeting of TLS: is this its port for TLS?");
    } else if (waited_ms(s) >= bound) {
        say_late(s, "it could not be connected to", waited_ms(s));
    } else if (s->state == HF__SESSION_CONNECTING && s->peer < s->n_peers &&
               waited_ms(s) >= bound / s->n_peers * s->peer) {
        hf__redis_unreachable(&error, s->server.name, "it does not answer");
        try_next_peer(s, &error);
    }
}

/* Whether something has not come in time, as far as it was looked for. */
static bool is_late(const hf__session *s, uint64_t now) {
    if (s->state == HF__SESSION_GREETING || s->state == HF__SESSION_SIGNING)
        return waited_ms(s) >= s->env->config->connect_ms;
    if (s->state != HF__SESSION_READY) return false;
    if (s->kind == HF__SESSION_LISTENER) return now - s->heard_ms > LISTENER_IDLE_MS;
    return is_overdue(s, now);
}

static void check(hf__session *s) {
    uint64_t now = now_ms();

    s->ticks++;
    /* After a long callback of the host answers may have come that nobody has read yet. */
    if (is_late(s, now)) hf__socket_read(&s->socket);
    if (s->state == HF__SESSION_OVER) return;
    if (s->state != HF__SESSION_READY)
        check_connecting(s);
    else if (s->kind == HF__SESSION_LISTENER)
        check_listener(s);
    else if (is_overdue(s, now))
        end_unreachable(s, "it has not answered in time");
    else if (hf__list_empty(&s->sent))
        uv_timer_stop(&s->timer);
}

static void on_tick(uv_timer_t *timer) {
    hf__session *s = hf__of(timer, hf__session, timer);
    hf__scope *scope = s->env->store->scope;

    hf__scope_enter(scope);
    check(s);
    hf__scope_leave(scope);
}

/* ---------------------------------------------------------------- connecting */

static void on_opened(hf__socket *socket) {
    hf__session *s = hf__of(socket, hf__session, socket);

    if (s->kind != HF__SESSION_SENTINEL && hf__password_is_asked(s->env->store))
        ask_password(s);
    else
        greet(s);
}

static void on_failed(hf__socket *socket, const hf_error *error) {
    hf__session *s = hf__of(socket, hf__session, socket);

    if (s->state == HF__SESSION_CONNECTING && s->peer < s->n_peers)
        try_next_peer(s, error);
    else if (s->state == HF__SESSION_GREETING && s->step == 0 && s->env->tls == NULL &&
             error->code == HF_EUNAVAIL)
        end_unreachable(s, "it hung up at the first word: if this is its port for TLS, the URL "
                           "begins with \"rediss:\"");
    else
        end(s, error);
}

static void try_next_peer(hf__session *s, const hf_error *why) {
    hf_error error = *why;

    /* A socket that is in use is closed first; its end comes back here. */
    if (s->socket.state != HF__SOCKET_IDLE) {
        if (s->socket.state != HF__SOCKET_CLOSING) hf__socket_close(&s->socket);
        return;
    }
    while (s->peer < s->n_peers) {
        hf__peer *peer = &s->peers[s->peer++];
        if (hf__socket_connect(&s->socket, s->env->store->loop, peer, s->env->tls, s->address.host,
                               &error)) {
            s->handles++;
            return;
        }
    }
    end(s, &error);
}

static void on_closed(hf__socket *socket) {
    hf__session *s = hf__of(socket, hf__session, socket);
    hf__scope *scope = s->env->store->scope;
    hf_error error;

    if (s->state != HF__SESSION_CONNECTING) {
        on_socket_closed(socket);
        return;
    }
    s->handles--;
    hf__redis_unreachable(&error, s->server.name, "no address of it answers");
    hf__scope_enter(scope);
    try_next_peer(s, &error);
    hf__scope_leave(scope);
}

static const hf__socket_events socket_events = {
    .opened = on_opened,
    .reply = on_reply,
    .failed = on_failed,
    .closed = on_closed,
};

static void begin_to_connect(hf__session *s) {
    hf_error error;

    s->state = HF__SESSION_CONNECTING;
    hf__redis_unreachable(&error, s->server.name, "it has no address");
    try_next_peer(s, &error);
}

static void add_peer(hf__session *s, const struct sockaddr *address, size_t len) {
    hf__peer *peer = &s->peers[s->n_peers];

    if (s->n_peers == sizeof s->peers / sizeof s->peers[0] || len > sizeof peer->address) return;
    memset(&peer->address, 0, sizeof peer->address);
    memcpy(&peer->address, address, len);
    peer->len = (socklen_t)len;
    s->n_peers++;
}

/* Without a look-up: a socket's path, or a number. */
static bool add_literal(hf__session *s) {
    const hf__address *address = &s->address;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (address->port == 0) {
        snprintf(un.sun_path, sizeof un.sun_path, "%.*s", (int)sizeof un.sun_path - 1,
                 address->host);
        add_peer(s, (struct sockaddr *)&un, sizeof un);
    } else if (uv_ip4_addr(address->host, address->port, &in) == 0) {
        add_peer(s, (struct sockaddr *)&in, sizeof in);
    } else if (uv_ip6_addr(address->host, address->port, &in6) == 0) {
        add_peer(s, (struct sockaddr *)&in6, sizeof in6);
    }
    return s->n_peers > 0;
}

static void on_resolved(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found) {
    hf__session *s = hf__of(lookup, hf__session, lookup);
    hf__scope *scope = s->env->store->scope;

    s->resolving = false;
    if (s->state == HF__SESSION_OVER) {
        uv_freeaddrinfo(found);
        let_go(s);
        return;
    }
    s->handles--;
    for (struct addrinfo *at = found; at != NULL; at = at->ai_next)
        add_peer(s, at->ai_addr, at->ai_addrlen);
    uv_freeaddrinfo(found);
    hf__scope_enter(scope);
    if (status != 0)
        end_unreachable(s, uv_strerror(status));
    else
        begin_to_connect(s);
    hf__scope_leave(scope);
}

/* A keeper does not wait for the pool of threads, which the host may have filled. */
static bool add_known(hf__session *s) {
    const hf__store_env *store = s->env->store;

    s->is_name = true;
    s->is_known = store->blocking && hf__peers_find(store->shared, &s->address, &s->peers[0]);
    if (s->is_known) s->n_peers = 1;
    return s->is_known;
}

static void resolve(hf__session *s) {
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];
    int status;

    s->state = HF__SESSION_RESOLVING;
    snprintf(port, sizeof port, "%u", (unsigned)s->address.port);
    status =
        uv_getaddrinfo(s->env->store->loop, &s->lookup, on_resolved, s->address.host, port, &hints);
    if (status != 0) {
        end_unreachable(s, uv_strerror(status));
        return;
    }
    s->resolving = true;
    s->handles++;
}

/* The first turn: no event comes from within hf__session_new. */
static void on_begin(uv_timer_t *timer) {
    hf__session *s = hf__of(timer, hf__session, timer);
    hf__scope *scope = s->env->store->scope;

    hf__scope_enter(scope);
    uv_timer_start(timer, on_tick, TICK_MS, TICK_MS);
    if (add_literal(s) || add_known(s))
        begin_to_connect(s);
    else
        resolve(s);
    hf__scope_leave(scope);
}

hf__session *hf__session_new(const hf__session_env *env, hf__session_kind kind,
                             const hf__address *address, void *data) {
    hf__session *s = hf__zalloc(env->store->allocator, sizeof *s);

    if (s == NULL) return NULL;
    s->env = env;
    s->kind = kind;
    s->address = *address;
    s->data = data;
    hf__address_show(address, s->server.name, sizeof s->server.name);
    hf__socket_init(&s->socket, &socket_events, s->server.name, env->store->allocator,
                    env->store->scope);
    hf__list_init(&s->dirty);
    hf__list_init(&s->unsent);
    hf__list_init(&s->sent);
    hf__list_init(&s->again);
    s->password.done = on_password;
    (void)hf__random(&s->nonce, sizeof s->nonce);
    (void)hf__random(&s->number, sizeof s->number);
    s->nonce &= INT32_MAX;
    s->heard_ms = now_ms();
    s->handles = 1;
    uv_timer_init(env->store->loop, &s->timer);
    uv_unref((uv_handle_t *)&s->timer);
    uv_timer_start(&s->timer, on_begin, 0, 0);
    return s;
}
