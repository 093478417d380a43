/*
 * A session with one server: finding its address, connecting, saying who we are, and then calls
 * and answers, one for one and in order. It lives for one connection: what comes after is a new
 * session.
 */
#ifndef HF_DRIVER_REDIS_SESSION_H
#define HF_DRIVER_REDIS_SESSION_H

#include "core/credentials.h"
#include "driver/redis/config.h"
#include "driver/redis/redis.h"
#include "driver/redis/socket.h"

typedef struct hf__session hf__session;

typedef enum hf__session_kind {
    HF__SESSION_COMMANDS,
    HF__SESSION_LISTENER, /* to one channel */
    HF__SESSION_SENTINEL
} hf__session_kind;

/* From the loop, within env.scope, or within hf__session_flush. */
typedef struct hf__session_events {
    void (*ready)(hf__session *session);
    /* A call has ended: `reply` or `error`, as in hf__redis_call. Errors of the server that ask for
     * another place or another try come here too. */
    void (*answer)(hf__session *session, hf__redis_call *call, const hf__reply *reply,
                   const hf_error *error);
    void (*message)(hf__session *session, hf_slice payload);
    /* The connection is over, or there never was one. Calls whose fate is open have been answered
     * before; those that had no effect are in `unsent`. Nothing but `gone` follows. */
    void (*down)(hf__session *session, const hf_error *error);
    void (*gone)(void *data); /* its memory is freed */
} hf__session_events;

/* What sessions of one deployment have in common. */
typedef struct hf__session_env {
    const hf__store_env *store;
    const hf__redis_config *config;
    hf__tls_context *tls; /* NULL: plain */
    hf_slice channel;     /* of a listener */
    /* Which of the passwords that a function gave was refused last; 0: none. */
    uint64_t *refused_password;
    hf__session_events events;
} hf__session_env;

struct hf__session {
    const hf__session_env *env;
    void *data; /* the owner's */
    hf__session_kind kind;
    enum {
        HF__SESSION_NEW,
        HF__SESSION_RESOLVING,
        HF__SESSION_CONNECTING,
        HF__SESSION_ASKING,  /* for the password that a function gives */
        HF__SESSION_SIGNING, /* in, with that password */
        HF__SESSION_GREETING,
        HF__SESSION_READY,
        HF__SESSION_OVER
    } state;
    hf__address address;
    hf__redis_server server;
    hf__node dirty;  /* the owner's: in a list of those that are to be flushed */
    hf__node unsent; /* calls */

    /* the session's */
    hf__socket socket;
    uv_timer_t timer;
    uv_getaddrinfo_t lookup;
    hf__password_wait password;
    bool refused;      /* the password, once on this connection */
    hf__peer peers[4]; /* addresses of the host */
    uint32_t n_peers;
    uint32_t peer;
    uint32_t handles; /* that keep its memory */
    bool resolving;
    bool is_name;   /* the address is one: it leads somewhere */
    bool is_known;  /* where that is was known */
    bool replica;   /* it has said that it is one */
    uint32_t ticks; /* since it began: a loop that is stuck does not count */
    uint64_t heard_ms;
    hf__node sent;
    hf__node again;      /* had no effect: the script was not known */
    hf__redis_call look; /* asks once more what history its data has */
    bool looking;        /* `look` is among those that were sent */
    uint64_t looked_ms;
    bool put_off; /* what is unsent waits until those can be sent again */
    uint32_t nonce;
    uint64_t number;  /* random: no other connection has it */
    uint32_t scripts; /* that the server knows, by bit */
    uint8_t steps[8]; /* of the greeting, in the order of their answers */
    uint8_t n_steps;
    uint8_t step;
    bool pinged; /* a listener waits for a sign of life */
};

/* Begins. NULL when memory is out. No event before this returns. */
hf__session *hf__session_new(const hf__session_env *env, hf__session_kind kind,
                             const hf__address *address, void *data);
/* Ends it without `down`; its calls have ended or are in `unsent`, and are the owner's. `gone`
 * follows. */
void hf__session_close(hf__session *session);
/* As if the connection had broken, with this error. */
void hf__session_fail(hf__session *session, const hf_error *error);
/* Encodes and writes what is unsent. The session is ready. */
void hf__session_flush(hf__session *session);

#endif
