#include "driver/postgres/session.h"

#include "driver/peers.h"
#include "driver/postgres/error.h"
#include "util/alloc.h"
#include "util/clock.h"

#include <assert.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define TICK_MS 100 /* how often it is looked for what takes too long */

/* What the loop watches: libpq closes sockets and makes new ones while it connects, and a handle of
 * libuv is for one descriptor. */
typedef struct hf__pg_socket {
    uv_poll_t poll;
    int fd;
    hf__pg_session *session;
} hf__pg_socket;

static void on_io(uv_poll_t *poll, int status, int events);
static void on_tick(uv_timer_t *timer);

static uint64_t now_ms(void) {
    /* Not the loop's time: that stands still while a callback takes long. */
    return uv_hrtime() / HF_NS_PER_MS;
}

/* ---------------------------------------------------------------- the end */

static void let_go(hf__pg_session *s) {
    void (*gone)(void *data) = s->env->events.gone;
    void *data = s->data;

    if (--s->handles > 0) return;
    hf__free(s->env->store->allocator, s);
    gone(data);
}

static void on_timer_closed(uv_handle_t *handle) {
    let_go(hf__of(handle, hf__pg_session, timer));
}

static void on_socket_closed(uv_handle_t *handle) {
    hf__pg_socket *socket = hf__of(handle, hf__pg_socket, poll);
    hf__pg_session *s = socket->session;

    hf__free(s->env->store->allocator, socket);
    let_go(s);
}

/* Before its descriptor is closed. */
static void unwatch(hf__pg_session *s) {
    if (s->socket == NULL) return;
    uv_close((uv_handle_t *)&s->socket->poll, on_socket_closed);
    s->socket = NULL;
}

static void forget_secret(hf__pg_session *s) {
    if (s->secret == NULL) return;
    explicit_bzero(s->secret, strlen(s->secret));
    hf__free(s->env->store->allocator, s->secret);
    s->secret = NULL;
}

static void disconnect(hf__pg_session *s) {
    unwatch(s);
    if (s->conn != NULL) PQfinish(s->conn);
    s->conn = NULL;
}

void hf__pg_session_close(hf__pg_session *s) {
    assert(hf__list_empty(&s->sent) || s->state != HF__PG_READY);
    s->state = HF__PG_OVER;
    PQclear(s->greeting.result); /* it may have been answered in part */
    s->greeting.result = NULL;
    disconnect(s);
    forget_secret(s);
    if (s->resolving) uv_cancel((uv_req_t *)&s->lookup);
    hf__password_cancel(&s->password);
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static void end_call(hf__pg_session *s, hf__pg_call *call, const hf_error *error) {
    PGresult *result = call->result;

    hf__list_remove(&call->node);
    s->n_sent--;
    call->result = NULL;
    call->done(call, result, error);
    if (result != NULL) PQclear(result);
}

/* The connection is of no more use: what was sent may have had its effect. */
static void end(hf__pg_session *s, const hf_error *why) {
    hf_error error = *why;
    hf_error unknown;
    hf__node *node;

    if (s->state == HF__PG_OVER) return;
    if (s->is_known && s->state != HF__PG_READY)
        hf__peers_forget(s->env->store->shared, &s->env->config->hosts[s->host].address);
    if (s->state == HF__PG_GREETING) hf__list_remove(&s->greeting.node);
    s->state = HF__PG_OVER;
    hf__error_set(&unknown, error.code == HF_EPROTO ? HF_EPROTO : HF_EUNAVAIL,
                  HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
                  "the answer never came, and whether it was done is not known: %s", error.message);
    memcpy(unknown.state, error.state, sizeof unknown.state);
    while ((node = hf__list_first(&s->sent)) != NULL) {
        hf__pg_call *call = hf__of(node, hf__pg_call, node);
        /* What was refused has had no effect, unless that was the server's farewell. */
        bool refused = call->error.code != HF_OK && !s->parted;

        end_call(s, call, refused ? &call->error : &unknown);
    }
    s->env->events.down(s, &error);
    hf__pg_session_close(s);
}

void hf__pg_session_fail(hf__pg_session *s, const hf_error *error) {
    end(s, error);
}

/* What the server says before it hangs up: that tells more than that it has. */
static void note_fatal(hf__pg_session *s, const PGresult *result) {
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

    if (severity == NULL || (strcmp(severity, "FATAL") != 0 && strcmp(severity, "PANIC") != 0))
        return;
    hf__pg_error(&s->why, result, s->server.name);
    s->parted = true;
}

static void end_broken(hf__pg_session *s) {
    hf_error error;

    if (s->parted)
        error = s->why;
    else
        hf__pg_error_connection(&error, s->conn, s->server.name);
    error.flags |= HF_RETRYABLE;
    end(s, &error);
}

static void end_unreachable(hf__pg_session *s, const char *why) {
    hf_error error;

    hf__pg_unreachable(&error, s->server.name, why);
    end(s, &error);
}

/* ---------------------------------------------------------------- the socket */

/* Has the loop look at libpq's socket of now. False when memory is out, or the session is over. */
static bool watch(hf__pg_session *s, int events) {
    int fd = PQsocket(s->conn);
    hf__pg_socket *socket = s->socket;

    if (socket != NULL && socket->fd != fd) {
        unwatch(s);
        socket = NULL;
    }
    if (socket == NULL && fd >= 0) {
        socket = hf__zalloc(s->env->store->allocator, sizeof *socket);
        if (socket != NULL && uv_poll_init(s->env->store->loop, &socket->poll, fd) != 0) {
            hf__free(s->env->store->allocator, socket);
            socket = NULL;
        }
        if (socket != NULL) {
            socket->fd = fd;
            socket->session = s;
            uv_unref((uv_handle_t *)&socket->poll);
            s->socket = socket;
            s->handles++;
        }
    }
    if (socket == NULL || uv_poll_start(&socket->poll, events, on_io) != 0) {
        end_unreachable(s, "its socket cannot be watched");
        return false;
    }
    return true;
}

/* ---------------------------------------------------------------- calls */

static bool flush(hf__pg_session *s) {
    int left = PQflush(s->conn);

    if (left < 0) {
        end_broken(s);
        return false;
    }
    return watch(s, left > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

/* One or two messages of the pipeline: whether libpq took them. */
static bool queue_statement(hf__pg_session *s, hf__pg_call *call) {
    const hf__pg_statement *st = call->statement;
    uint64_t bit = UINT64_C(1) << st->number;
    char name[16];

    if (st->number == 0 || s->server.pooled)
        return PQsendQueryParams(s->conn, st->sql, st->n_params, st->types, call->values,
                                 call->lengths, call->formats, call->result_format) == 1;
    assert(st->number <= HF__PG_STATEMENTS_MAX);
    snprintf(name, sizeof name, "holdfast_%u", (unsigned)st->number);
    if ((s->prepared & bit) == 0) {
        if (PQsendPrepare(s->conn, name, st->sql, st->n_params, st->types) != 1) return false;
        s->prepared |= bit;
        call->prepares = bit;
        call->last_step++;
    }
    return PQsendQueryPrepared(s->conn, name, st->n_params, call->values, call->lengths,
                               call->formats, call->result_format) == 1;
}

static bool queue_call(hf__pg_session *s, hf__pg_call *call) {
    call->step = 0;
    call->last_step = call->n_before;
    call->prepares = 0;
    call->result = NULL;
    hf__error_clear(&call->error);
    for (size_t i = 0; i < call->n_before; i++) {
        if (PQsendQueryParams(s->conn, call->before[i].sql, 0, NULL, NULL, NULL, NULL, 0) != 1)
            return false;
    }
    return queue_statement(s, call) && PQpipelineSync(s->conn) == 1;
}

static void send_call(hf__pg_session *s, hf__pg_call *call) {
    uint32_t timeout_ms = call->timeout_ms != 0 ? call->timeout_ms : s->env->config->command_ms;
    bool queued = queue_call(s, call);

    call->due_ms = timeout_ms == UINT32_MAX ? UINT64_MAX : now_ms() + timeout_ms;
    hf__list_push(&s->sent, &call->node);
    s->n_sent++;
    if (!uv_is_active((uv_handle_t *)&s->timer)) {
        uv_timer_start(&s->timer, on_tick, TICK_MS, TICK_MS);
    }
    if (!queued)
        end_broken(s);
    else
        flush(s);
}

void hf__pg_session_send(hf__pg_session *s, hf__pg_call *call) {
    assert(s->state == HF__PG_READY);
    send_call(s, call);
}

static void on_error_result(hf__pg_session *s, hf__pg_call *call, PGresult *result) {
    if (call->error.code != HF_OK) {
        PQclear(result);
        return;
    }
    hf__pg_error(&call->error, result, s->server.name);
    note_fatal(s, result);
    PQclear(call->result); /* it was carried out, and could not be committed */
    call->result = result;
    /* What failed after it was prepared stays so; what failed before was not. */
    if (call->prepares != 0 && call->step < call->last_step) s->prepared &= ~call->prepares;
}

/* The session is of no more use: whoever copies is to read or to write until the end of that. What
 * goes out is sent by a server that has done its part. */
static void end_copy(hf__pg_session *s, hf__pg_call *call, PGresult *result) {
    bool goes_out = PQresultStatus(result) == PGRES_COPY_OUT;

    PQclear(result);
    hf__error_set(&call->error, HF_ENOTSUP, goes_out ? HF_OUTCOME_UNKNOWN : 0,
                  "COPY from or to the client is not for here: write many rows with INSERT ... "
                  "SELECT unnest(...), and read them with SELECT");
    end(s, &call->error);
}

/* What a call in the pipeline is answered: for each message results and then nothing, and in the
 * end the Sync. */
static void on_result(hf__pg_session *s, hf__pg_call *call, PGresult *result) {
    if (result == NULL) {
        call->step++;
        return;
    }
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(result);
        end_call(s, call, call->error.code != HF_OK ? &call->error : NULL);
        return;
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        if (call->step == call->last_step && call->result == NULL)
            call->result = result;
        else
            PQclear(result);
        return;
    case PGRES_PIPELINE_ABORTED: PQclear(result); return;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH: end_copy(s, call, result); return;
    default: on_error_result(s, call, result); return;
    }
}

static void on_notifications(hf__pg_session *s) {
    PGnotify *n;

    while (s->state == HF__PG_READY && (n = PQnotifies(s->conn)) != NULL) {
        if (s->env->events.notified != NULL)
            s->env->events.notified(s, (hf_slice){n->extra, strlen(n->extra)});
        PQfreemem(n);
    }
}

/* All that has come. */
static void process(hf__pg_session *s) {
    while (s->state != HF__PG_OVER && !PQisBusy(s->conn)) {
        hf__node *first = hf__list_first(&s->sent);

        if (first == NULL) break;
        on_result(s, hf__of(first, hf__pg_call, node), PQgetResult(s->conn));
        if (s->state != HF__PG_OVER && PQstatus(s->conn) == CONNECTION_BAD) end_broken(s);
    }
    if (s->state == HF__PG_OVER) return;
    on_notifications(s);
}

static void read_all(hf__pg_session *s) {
    bool good = PQconsumeInput(s->conn) == 1;

    s->peeked = false;
    process(s);
    if (s->state == HF__PG_OVER) return;
    /* After the server's farewell nothing comes, also where the end is still to be read. */
    if (!good || (s->parted && hf__list_empty(&s->sent))) end_broken(s);
}

/* ---------------------------------------------------------------- greeting */

enum { GREET_PROBE, GREET_SETTINGS, GREET_LISTEN };

/* Whether the process that answers is the one that libpq would cancel: a pooler in between gives
 * a number of its own. */
static const hf__pg_statement probe = {
    .sql = "SELECT pg_catalog.pg_backend_pid()::text, pg_catalog.pg_is_in_recovery()::int::text"};

/* For a session of our own. A peer that is gone is noticed by the server too, within seconds; and
 * each of our functions wants to see what is committed, not what was when it began. */
static const hf__pg_statement settings = {
    .sql = "SELECT pg_catalog.count(pg_catalog.set_config(v.name, v.value, false))::text FROM"
           " (VALUES ('statement_timeout', $1::text), ('lock_timeout', '0'),"
           " ('idle_in_transaction_session_timeout', '0'),"
           " ('default_transaction_isolation', 'read committed'),"
           " ('default_transaction_read_only', 'off'), ('default_transaction_deferrable', 'off'),"
           " ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'),"
           " ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10000'),"
           " ('client_connection_check_interval', '2000')) AS v (name, value)"
           " WHERE pg_catalog.current_setting(v.name, true) IS NOT NULL",
    .n_params = 1};

/* The part of it that says nothing of how statements run. */
static const hf__pg_statement plain_settings = {
    .sql = "SELECT pg_catalog.count(pg_catalog.set_config(v.name, v.value, false))::text FROM"
           " (VALUES ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'),"
           " ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '10000'),"
           " ('client_connection_check_interval', '2000')) AS v (name, value)"
           " WHERE pg_catalog.current_setting(v.name, true) IS NOT NULL"};

static void on_greeted(hf__pg_call *call, const PGresult *result, const hf_error *error);

static void greet(hf__pg_session *s, uint8_t step, const hf__pg_statement *statement,
                  const char *const *values) {
    s->greeting_step = step;
    s->greeting = (hf__pg_call){.statement = statement,
                                .values = values,
                                .timeout_ms = s->env->config->connect_ms,
                                .done = on_greeted,
                                .data = s};
    hf__list_init(&s->greeting.node);
    send_call(s, &s->greeting);
}

static void become_ready(hf__pg_session *s) {
    const hf__pg_config *config = s->env->config;

    s->state = HF__PG_READY;
    if (s->n_peers > 0)
        hf__peers_note(s->env->store->shared, &config->hosts[s->host].address,
                       &s->peers[s->peer - 1]);
    s->env->events.ready(s);
}

static void greet_settings(hf__pg_session *s) {
    const char *values[] = {s->statement_ms};

    if (s->env->plain) {
        greet(s, GREET_SETTINGS, &plain_settings, NULL);
        return;
    }
    snprintf(s->statement_ms, sizeof s->statement_ms, "%" PRIu32, s->env->statement_ms);
    greet(s, GREET_SETTINGS, &settings, values);
}

static void refuse_to_listen(hf__pg_session *s) {
    hf_error error;

    hf__error_set(&error, HF_ENOTSUP, 0,
                  "a pooler at %s lends connections for each transaction: nobody can listen there",
                  s->server.name);
    end(s, &error);
}

static void on_probed(hf__pg_session *s, const PGresult *result) {
    const hf__pg_config *config = s->env->config;
    hf_slice pid = {PQgetvalue(result, 0, 0), (size_t)PQgetlength(result, 0, 0)};
    bool standby = PQgetvalue(result, 0, 1)[0] == '1';
    uint64_t number;
    hf_error error;

    if (!hf__parse_uint(pid, 1, INT32_MAX, &number)) {
        end_unreachable(s, "it answered a greeting with something else");
        return;
    }
    s->server.pid = (int)number;
    s->server.pooled =
        config->pooler == HF__PG_POOLER_TRANSACTION ||
        (config->pooler == HF__PG_POOLER_FOUND_OUT && s->server.pid != PQbackendPID(s->conn));
    if (standby && config->target == NULL) {
        hf__error_set(
            &error, HF_EREADONLY, HF_RETRYABLE,
            "PostgreSQL at %s is a standby, which cannot be written to: name the primary, "
            "or several hosts and target_session_attrs=read-write",
            s->server.name);
        end(s, &error);
    } else if (!s->server.pooled) {
        greet_settings(s);
    } else if (s->env->channel != NULL) {
        refuse_to_listen(s);
    } else {
        become_ready(s);
    }
}

/* The channel's name is ours: it needs no quoting beyond this. */
static void greet_listen(hf__pg_session *s) {
    snprintf(s->listen_sql, sizeof s->listen_sql, "LISTEN \"%s\"", s->env->channel);
    s->listen.sql = s->listen_sql;
    greet(s, GREET_LISTEN, &s->listen, NULL);
}

static void on_greeted(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__pg_session *s = call->data;

    if (s->state == HF__PG_OVER) return;
    if (error != NULL) {
        hf_error why = *error;
        end(s, &why);
    } else if (s->greeting_step == GREET_PROBE) {
        if (PQntuples(result) == 1 && PQnfields(result) == 2)
            on_probed(s, result);
        else
            end_unreachable(s, "it answered a greeting with something else");
    } else if (s->greeting_step == GREET_SETTINGS && s->env->channel != NULL) {
        greet_listen(s);
    } else {
        become_ready(s);
    }
}

static void begin_greeting(hf__pg_session *s) {
    forget_secret(s);
    s->state = HF__PG_GREETING;
    s->server.version = PQserverVersion(s->conn);
    (void)PQsetnonblocking(s->conn, 1);
    if (PQenterPipelineMode(s->conn) != 1)
        end_unreachable(s, "libpq is too old: 14 is the least");
    else if (s->server.version < 120000)
        end_unreachable(s, "it is too old: PostgreSQL 12 is the least");
    else
        greet(s, GREET_PROBE, &probe, NULL);
}

/* ---------------------------------------------------------------- connecting
 *
 * One host, and one of its addresses, after another: libpq would go through a list itself, but
 * waits for ever for each that does not answer. */

static void try_next(hf__pg_session *s);
static void ask_password(hf__pg_session *s);

static const hf__pg_host *host_of(const hf__pg_session *s) {
    return &s->env->config->hosts[s->host];
}

static void on_attempt_failed(hf__pg_session *s, const hf_error *why) {
    bool refused = hf__pg_error_is_password(why) && hf__password_is_asked(s->env->store);

    disconnect(s);
    if (refused && !s->refused) {
        s->refused = true;
        *s->env->refused_password = s->password.generation;
        ask_password(s);
        return;
    }
    s->why = *why;
    try_next(s);
}

/* One step of libpq's, which may close the socket and make another. */
static void step_connecting(hf__pg_session *s) {
    hf_error error;

    if (s->socket != NULL) uv_poll_stop(&s->socket->poll);
    switch (PQconnectPoll(s->conn)) {
    case PGRES_POLLING_READING: watch(s, UV_READABLE); return;
    case PGRES_POLLING_WRITING: watch(s, UV_WRITABLE); return;
    case PGRES_POLLING_OK: begin_greeting(s); return;
    default:
        hf__pg_error_connection(&error, s->conn, s->server.name);
        on_attempt_failed(s, &error);
        return;
    }
}

static void on_notice(void *data, const PGresult *result) {
    note_fatal(data, result);
}

/* What the server's list of its clients calls it, where the user does not say. */
static const char *name_of(const hf__pg_session *s) {
    if (s->env->channel != NULL) return "holdfast-wake";
    return s->env->store->blocking ? "holdfast-keeper" : "holdfast";
}

/* `number`: the address to connect to; NULL: where `host` leads is libpq's affair. */
static void connect_to(hf__pg_session *s, const char *number) {
    const hf__pg_config *config = s->env->config;
    const char *words[HF__PG_WORDS_MAX + 7];
    const char *values[HF__PG_WORDS_MAX + 7];
    size_t n = config->n_words;
    char port[8];
    hf_error error;

    memcpy(words, config->words, n * sizeof *words);
    memcpy(values, config->values, n * sizeof *values);
    snprintf(port, sizeof port, "%u", (unsigned)host_of(s)->socket_port);
#define ADD(word, value) (words[n] = (word), values[n] = (value), n++)
    ADD("port", port);
    ADD("fallback_application_name", name_of(s));
    if (host_of(s)->address.host[0] != '\0') ADD("host", host_of(s)->address.host);
    if (number != NULL) ADD("hostaddr", number);
    if (s->secret != NULL) ADD("password", s->secret);
    if (config->target != NULL)
        ADD("target_session_attrs", s->second_pass ? "any" : config->target);
#undef ADD
    words[n] = values[n] = NULL;
    s->state = HF__PG_CONNECTING;
    s->conn = PQconnectStartParams(words, values, 0);
    if (s->conn == NULL) {
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
        end(s, &error);
        return;
    }
    PQsetNoticeReceiver(s->conn, on_notice, s);
    if (PQstatus(s->conn) == CONNECTION_BAD) {
        hf__pg_error_connection(&error, s->conn, s->server.name);
        on_attempt_failed(s, &error);
        return;
    }
    watch(s, UV_WRITABLE);
}

static void name_server(hf__pg_session *s) {
    const hf__pg_host *host = host_of(s);
    hf__address shown = host->address;

    if (shown.host[0] == '\0' && host->number[0] != '\0')
        snprintf(shown.host, sizeof shown.host, "%s", host->number);
    if (shown.host[0] == '\0') snprintf(shown.host, sizeof shown.host, "its local socket");
    hf__address_show(&shown, s->server.name, sizeof s->server.name);
}

static bool add_peer(hf__pg_session *s, const hf__peer *peer) {
    const struct sockaddr *address = (const struct sockaddr *)&peer->address;
    char *text = s->numbers[s->n_peers];
    size_t size = sizeof s->numbers[0];
    int status = UV_EINVAL;

    if (s->n_peers == sizeof s->peers / sizeof s->peers[0]) return false;
    if (address->sa_family == AF_INET)
        status = uv_ip4_name((const struct sockaddr_in *)(const void *)address, text, size);
    else if (address->sa_family == AF_INET6)
        status = uv_ip6_name((const struct sockaddr_in6 *)(const void *)address, text, size);
    if (status == 0) s->peers[s->n_peers++] = *peer;
    return status == 0;
}

static void on_resolved(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found) {
    hf__pg_session *s = hf__of(lookup, hf__pg_session, lookup);
    hf__scope *scope = s->env->store->scope;

    s->resolving = false;
    if (s->state == HF__PG_OVER) {
        uv_freeaddrinfo(found);
        let_go(s);
        return;
    }
    s->handles--;
    for (const struct addrinfo *at = found; at != NULL; at = at->ai_next) {
        hf__peer peer = {.len = at->ai_addrlen};
        if (at->ai_addrlen > sizeof peer.address) continue;
        memcpy(&peer.address, at->ai_addr, at->ai_addrlen);
        (void)add_peer(s, &peer);
    }
    uv_freeaddrinfo(found);
    if (status != 0) hf__pg_unreachable(&s->why, s->server.name, uv_strerror(status));
    hf__scope_enter(scope);
    try_next(s);
    hf__scope_leave(scope);
}

/* A keeper does not wait for the pool of threads, which the host may have filled. */
static bool know_peer(hf__pg_session *s) {
    const hf__store_env *store = s->env->store;
    hf__peer peer;

    s->is_known = store->blocking && hf__peers_find(store->shared, &host_of(s)->address, &peer) &&
                  add_peer(s, &peer);
    return s->is_known;
}

static void resolve(hf__pg_session *s) {
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int status;

    s->state = HF__PG_RESOLVING;
    status = uv_getaddrinfo(s->env->store->loop, &s->lookup, on_resolved, host_of(s)->address.host,
                            NULL, &hints);
    if (status != 0) {
        end_unreachable(s, uv_strerror(status));
        return;
    }
    s->resolving = true;
    s->handles++;
}

/* The first time at a host: true if it needs no name to be looked up, or that has begun. */
static void try_host(hf__pg_session *s) {
    const hf__pg_host *host = host_of(s);

    name_server(s);
    s->n_peers = s->peer = 0;
    s->is_known = false;
    s->tried_host = true;
    if (host->number[0] != '\0')
        connect_to(s, host->number);
    else if (host->address.port == 0)
        connect_to(s, NULL);
    else if (know_peer(s))
        try_next(s);
    else
        resolve(s);
}

static void try_next(hf__pg_session *s) {
    const hf__pg_config *config = s->env->config;
    hf_error why;

    if (s->peer < s->n_peers) {
        connect_to(s, s->numbers[s->peer++]);
        return;
    }
    if (s->tried_host) {
        s->tried_host = false;
        s->host++;
    }
    if (s->host == config->n_hosts && config->prefers_standby && !s->second_pass) {
        s->second_pass = true;
        s->host = 0;
    }
    if (s->host < config->n_hosts) {
        try_host(s);
        return;
    }
    s->host = config->n_hosts - 1;
    why = s->why;
    end(s, &why);
}

static void ask_password(hf__pg_session *s) {
    s->state = HF__PG_ASKING;
    s->password.generation = *s->env->refused_password;
    s->password.fresh = s->password.generation != 0;
    hf__password_ask(s->env->store, &s->password);
}

/* After a refusal the same address is tried again, with the other password. */
static void on_password(hf__password_wait *wait, hf_slice password, const hf_error *error) {
    hf__pg_session *s = hf__of(wait, hf__pg_session, password);
    hf_error failed;

    forget_secret(s);
    if (error == NULL) s->secret = hf__copy(s->env->store->allocator, password);
    if (error != NULL) {
        failed = *error;
        end(s, &failed);
    } else if (s->secret == NULL) {
        hf__error_set(&failed, HF_ENOMEM, HF_RETRYABLE, NULL);
        end(s, &failed);
    } else {
        if (s->tried_host && s->peer > 0) s->peer--;
        if (s->tried_host && s->n_peers == 0)
            try_host(s);
        else
            try_next(s);
    }
}

/* ---------------------------------------------------------------- what takes too long */

static void on_io(uv_poll_t *poll, int status, int events) {
    hf__pg_socket *socket = hf__of(poll, hf__pg_socket, poll);
    hf__pg_session *s = socket->session;
    hf__scope *scope = s->env->store->scope;

    if (s->socket != socket) return;
    hf__scope_enter(scope);
    if (s->state == HF__PG_CONNECTING) {
        step_connecting(s);
    } else if (status < 0) {
        end_unreachable(s, uv_strerror(status));
    } else {
        if ((events & UV_READABLE) != 0) read_all(s);
        if (s->state != HF__PG_OVER && (events & UV_WRITABLE) != 0) flush(s);
    }
    hf__scope_leave(scope);
}

static bool is_overdue(const hf__pg_session *s) {
    uint64_t now = now_ms();

    for (const hf__node *node = s->sent.next; node != &s->sent; node = node->next) {
        if (hf__of((hf__node *)(uintptr_t)node, hf__pg_call, node)->due_ms <= now) return true;
    }
    return false;
}

/* Each address of each host has its share of the time. */
static void check_connecting(hf__pg_session *s) {
    const hf__pg_config *config = s->env->config;
    uint64_t waited = (uint64_t)s->ticks * TICK_MS;
    uint64_t passes = config->prefers_standby ? 2 : 1;
    uint64_t share = config->connect_ms / (config->n_hosts * passes);
    uint64_t before = (s->second_pass ? config->n_hosts : 0) + s->host;
    uint32_t peers = s->n_peers > 0 ? s->n_peers : 1;
    uint64_t bound = share * before + share * (s->peer > 0 ? s->peer : 1) / peers;
    hf_error error;

    if (waited < bound) return;
    if (s->state == HF__PG_ASKING) {
        hf__error_set(&error, HF_ECALLBACK, HF_RETRYABLE,
                      "the function that gives the password has not answered for %" PRIu64 " ms",
                      waited);
        end(s, &error);
    } else if (s->state == HF__PG_CONNECTING) {
        hf__pg_unreachable(&error, s->server.name, "it does not answer");
        on_attempt_failed(s, &error);
    } else if (waited >= config->connect_ms) {
        end_unreachable(s, s->state == HF__PG_RESOLVING ? "its name is not found in time"
                                                        : "it has not answered the greeting");
    }
}

static void check(hf__pg_session *s) {
    s->ticks++;
    if (s->state != HF__PG_READY) {
        check_connecting(s);
        return;
    }
    /* After a long callback of the host answers may have come that nobody has read yet. */
    if (s->peeked || is_overdue(s)) read_all(s);
    if (s->state == HF__PG_OVER) return;
    if (is_overdue(s))
        end_unreachable(s, "it has not answered in time");
    else if (hf__list_empty(&s->sent))
        uv_timer_stop(&s->timer);
}

static void on_tick(uv_timer_t *timer) {
    hf__pg_session *s = hf__of(timer, hf__pg_session, timer);
    hf__scope *scope = s->env->store->scope;

    hf__scope_enter(scope);
    check(s);
    hf__scope_leave(scope);
}

void hf__pg_session_read(hf__pg_session *s) {
    if (s->state == HF__PG_READY) read_all(s);
}

bool hf__pg_session_peek(hf__pg_session *s) {
    if (s->state != HF__PG_READY || hf__list_empty(&s->sent)) return false;
    /* The loop will not see again what is taken from the socket here. */
    s->peeked = true;
    uv_timer_start(&s->timer, on_tick, 0, TICK_MS);
    return PQconsumeInput(s->conn) == 1 && !PQisBusy(s->conn);
}

/* The first turn: no event comes from within hf__pg_session_new. */
static void on_begin(uv_timer_t *timer) {
    hf__pg_session *s = hf__of(timer, hf__pg_session, timer);
    hf__scope *scope = s->env->store->scope;

    hf__scope_enter(scope);
    uv_timer_start(timer, on_tick, TICK_MS, TICK_MS);
    name_server(s);
    if (hf__password_is_asked(s->env->store))
        ask_password(s);
    else
        try_next(s);
    hf__scope_leave(scope);
}

hf__pg_session *hf__pg_session_new(const hf__pg_session_env *env, void *data) {
    hf__pg_session *s = hf__zalloc(env->store->allocator, sizeof *s);

    if (s == NULL) return NULL;
    s->env = env;
    s->data = data;
    hf__list_init(&s->sent);
    hf__list_init(&s->greeting.node);
    s->password.done = on_password;
    s->handles = 1;
    uv_timer_init(env->store->loop, &s->timer);
    uv_unref((uv_handle_t *)&s->timer);
    uv_timer_start(&s->timer, on_begin, 0, 0);
    return s;
}
