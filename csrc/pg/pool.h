/*
 * A pool of sessions, up to `max` of them, which are lent to users one at a time, in the order in
 * which these came. A session that is idle for long is closed; one that broke while it was idle is
 * dropped, and the next user has a new one. What comes back must be as good as new: a session that
 * is within a transaction, or whose statement was to be cancelled, is closed, so that the cancel
 * can never hit the next user's statement.
 *
 * One loop, its thread only. Nothing runs within hf__pool_ask, hf__pool_leave, hf__pool_interrupt
 * and hf__pool_wake, so they may be called from within a call of the host's; what they lead to
 * happens in hf__pool_pump, which the owner calls in the loop's next turn.
 */
#ifndef HF_PG_POOL_H
#define HF_PG_POOL_H

#include "core/engine.h"
#include "driver/postgres/session.h"
#include "pg/canceller.h"

typedef struct hf__pool hf__pool;
typedef struct hf__pool_user hf__pool_user;

/* A session of the pool, and whose it is. */
typedef struct hf__seat {
    hf__pool *pool;
    hf__pg_session *session; /* NULL: it is over */
    hf__pool_user *user;     /* NULL: nobody */

    /* the pool's */
    enum { HF__SEAT_CONNECTING, HF__SEAT_IDLE, HF__SEAT_TAKEN, HF__SEAT_ENDED } state;
    bool there;        /* the session's memory is */
    bool interrupted;  /* a cancel was asked for: it is for no other user */
    bool interrupting; /* and what is to be cancelled has not been answered */
    hf__cancelling cancelling;
    hf__timer timer; /* idle for too long, or a cancel that the server does not answer */
    uint64_t idle_ns;
    hf__node node;
    hf__node idle;
} hf__seat;

/* Who wants a session. Zeroed, but for the functions; node is initialized. */
struct hf__pool_user {
    /* user->seat has a session, which is ready. From hf__pool_pump. */
    void (*seated)(hf__pool_user *user);
    /* None can be had. The user is out of the line. */
    void (*refused)(hf__pool_user *user, const hf_error *error);
    /* The session is over, its calls have ended, user->seat is NULL. */
    void (*unseated)(hf__pool_user *user, const hf_error *error);
    /* The request to cancel has been delivered; what was asked after that is another. */
    void (*calmed)(hf__pool_user *user);
    hf__seat *seat; /* NULL: none */
    hf__node node;
};

struct hf__pool {
    hf_engine *engine;
    hf__pg_session_env session_env;
    uint32_t max;
    uint32_t idle_ms;
    hf__node waiting; /* users */
    uint32_t n_waiting;
    hf__node seats;
    hf__node idle;    /* of them; the last was used last */
    uint32_t n_seats; /* that have not ended */
    uint32_t n_connecting;
    hf__timer retry; /* no session is begun before that; at the end: no cancel after it */
    uint32_t tries;  /* that failed in a row */
    uint64_t refused_password;
    hf__canceller canceller;
    bool closing;
    bool pumping;
    uint32_t n_handles;           /* sessions that are there, and cancels under way */
    void (*wake)(hf__pool *pool); /* hf__pool_pump is wanted in the next turn */
    void (*gone)(hf__pool *pool); /* after hf__pool_close: nothing runs any more */
};

/* `pool` is zeroed, with `wake` and `gone` set. What is given outlives it. */
void hf__pool_init(hf__pool *pool, hf_engine *engine, const hf__store_env *env,
                   const hf__pg_config *config);
/* Enters the line. */
void hf__pool_ask(hf__pool *pool, hf__pool_user *user);
/* Leaves the line. */
void hf__pool_leave(hf__pool *pool, hf__pool_user *user);
/* Lends what can be lent and connects what may be. From the loop; functions of users run within. */
void hf__pool_pump(hf__pool *pool);
/* The user has no more use for its session, on which nothing is under way. Others are seated by the
 * next hf__pool_pump. */
void hf__pool_give_back(hf__pool_user *user);
/* Has the server cancel what the session carries out. If it does not answer within a second after
 * that, the session ends. Harmless while such a request is under way. */
void hf__pool_interrupt(hf__pool_user *user);
/* What was to be cancelled has been answered. */
void hf__pool_calm(hf__pool_user *user);
/* Whether no request to cancel is under way: what is sent now cannot be hit by one. */
bool hf__pool_is_calm(const hf__pool_user *user);
/* Ends the sessions that users have, and has the server cancel what it does for them. From the
 * loop. */
void hf__pool_force(hf__pool *pool, const hf_error *error);
/* Nobody waits, or has a session: ends all of them, then calls `gone`. From the loop. */
void hf__pool_close(hf__pool *pool);

#endif
