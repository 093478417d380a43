/*
 * A session with one PostgreSQL server, through libpq, which never blocks here: names are looked up
 * by libuv, sockets are watched by the loop, and statements go out in pipeline mode, each with a
 * Sync of its own, so that each is a transaction of its own and none disturbs another. It lives for
 * one connection: what comes after is a new session.
 *
 * Events run from the loop, within env.scope; or within hf__pg_session_send. One loop, its thread
 * only.
 */
#ifndef HF_DRIVER_POSTGRES_SESSION_H
#define HF_DRIVER_POSTGRES_SESSION_H

#include "core/credentials.h"
#include "driver/postgres/config.h"

#include <libpq-fe.h>

typedef struct hf__pg_session hf__pg_session;
typedef struct hf__pg_call hf__pg_call;

#define HF__PG_STATEMENTS_MAX 63 /* that a session keeps prepared */

typedef struct hf__pg_statement {
    const char *sql;
    int n_params;
    const Oid *types; /* of the parameters; NULL: the server finds out */
    uint8_t number;   /* from 1: it is prepared once in each session; 0: it is not */
} hf__pg_statement;

/* What is sent at once and answered at once. The caller owns it, and what it points to, until
 * `done`. */
struct hf__pg_call {
    const hf__pg_statement *before; /* go first, in the same transaction; without parameters */
    size_t n_before;
    const hf__pg_statement *statement;
    const char *const *values;
    const int *lengths;
    const int *formats; /* of the parameters: 0 text, 1 binary; NULL: all text */
    int result_format;
    uint32_t timeout_ms; /* 0: as configured */
    /* Once. What the server answered, good for this time only; or `error`, and then NULL or what it
     * answered of that. */
    void (*done)(hf__pg_call *call, const PGresult *result, const hf_error *error);
    void *data;

    /* the driver's */
    hf__node node;
    uint64_t due_ms;
    uint64_t prepares; /* a bit: of the statement that it has prepared */
    size_t step;
    size_t last_step;
    PGresult *result;
    hf_error error;
};

typedef struct hf__pg_server {
    char name[HF__HOST_MAX + 16]; /* "10.0.0.1:5432", as messages call it */
    int version;                  /* 150004 */
    int pid;                      /* of its process that serves us */
    bool pooled; /* a pooler lends a connection for each transaction: nothing lasts in it */
} hf__pg_server;

typedef struct hf__pg_session_events {
    void (*ready)(hf__pg_session *session);
    /* Somebody has notified the channel listened to. May be NULL. */
    void (*notified)(hf__pg_session *session, hf_slice payload);
    /* The connection is over, or there never was one; calls that were sent have ended. Nothing but
     * `gone` follows. */
    void (*down)(hf__pg_session *session, const hf_error *error);
    void (*gone)(void *data); /* its memory is freed */
} hf__pg_session_events;

/* What sessions of one owner have in common. */
typedef struct hf__pg_session_env {
    const hf__store_env *store;
    const hf__pg_config *config;
    const char *channel;   /* to listen to; NULL: none */
    uint32_t statement_ms; /* statement_timeout; 0: none */
    /* For statements of the user's: isolation, time limits and so on stay as the server, the
     * database and the role have them. */
    bool plain;
    /* Which of the passwords that a function gave was refused last; 0: none. */
    uint64_t *refused_password;
    hf__pg_session_events events;
} hf__pg_session_env;

struct hf__pg_session {
    const hf__pg_session_env *env;
    void *data; /* the owner's */
    enum {
        HF__PG_NEW,
        HF__PG_RESOLVING,
        HF__PG_ASKING, /* for the password that a function gives */
        HF__PG_CONNECTING,
        HF__PG_GREETING,
        HF__PG_READY,
        HF__PG_OVER
    } state;
    hf__pg_server server;
    size_t n_sent; /* calls under way */

    /* the session's */
    PGconn *conn;
    struct hf__pg_socket *socket; /* what the loop watches of it; NULL: nothing */
    uv_timer_t timer;
    uv_getaddrinfo_t lookup;
    hf__password_wait password;
    char *secret; /* that the function gave; NULL: none */
    bool refused; /* the password, once in this session */
    bool resolving;
    bool second_pass; /* no standby was to be had: any will do */
    bool tried_host;
    size_t host; /* of the configuration */
    hf__peer peers[4];
    char numbers[4][64];
    uint32_t n_peers;
    uint32_t peer;
    bool is_known;  /* where the name leads was known */
    bool peeked;    /* what has come was taken from the socket, and is still to be told */
    bool parted;    /* the server has said why it ends the connection */
    hf_error why;   /* the last attempt failed, or that */
    uint32_t ticks; /* since it began: a loop that is stuck does not count */
    uint32_t handles;
    uint64_t prepared; /* statements, by bit */
    hf__node sent;
    hf__pg_call greeting;
    uint8_t greeting_step;
    char statement_ms[16];
    hf__pg_statement listen;
    char listen_sql[96];
};

/* Begins. NULL when memory is out. No event before this returns. */
hf__pg_session *hf__pg_session_new(const hf__pg_session_env *env, void *data);
/* Sends a call; the session is ready. Where it breaks in the sending, `down` comes first. */
void hf__pg_session_send(hf__pg_session *session, hf__pg_call *call);
/* Ends it without `down`: no call is under way. `gone` follows. */
void hf__pg_session_close(hf__pg_session *session);
/* As if the connection had broken, with this error. */
void hf__pg_session_fail(hf__pg_session *session, const hf_error *error);
/* Reads at once what has come, for who has been away for long: events may run within. */
void hf__pg_session_read(hf__pg_session *session);
/* Whether the server has answered something of the call that was sent first of those under way. No
 * event runs within; they do in the next turn. */
bool hf__pg_session_peek(hf__pg_session *session);

#endif
