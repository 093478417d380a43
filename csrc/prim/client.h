/*
 * A client: one store, and the state that the primitives keep on it. Loop's thread only.
 *
 * Two counts. `pending` is everything that must end before the client can be closed. Of these,
 * what a user waits for also keeps the loop alive (hf__client_begin); the rest does not
 * (hf__client_hold).
 */
#ifndef HF_PRIM_CLIENT_H
#define HF_PRIM_CLIENT_H

#include "core/credentials.h"
#include "core/engine.h"
#include "util/map.h"

/* How long a failed operation of a value or record is tried again, unless it has a deadline. */
#define HF__RETRY_MS 10000

typedef struct hf__attempt hf__attempt;

struct hf_client {
    hf__member member;
    hf_engine *engine;
    const hf_store_vtable *vt;
    hf__url url;
    hf_client_options options; /* but for its settings: */
    hf__settings settings;
    hf__credentials *credentials; /* NULL: no function gives the password */
    hf__shared shared;
    hf__link link; /* the keeper's side */
    hf_store *store;
    hf_op open_op;
    hf_op close_op;
    bool opened; /* `open` has been submitted */

    uint32_t pending;
    hf__node waiting;  /* locks and runs that wait (hf__waiter) */
    hf__node running;  /* operations running (hf__waiter); what is held is in link.leases */
    hf__node requests; /* operations on entries (hf__request) */

    hf__map queues; /* queue.c: waiters and holders by key */
    uint32_t n_waiting;
    hf__attempt *free_attempts;
    uint32_t n_free_attempts;
    hf__node sent;       /* attempts at the store that undo nothing */
    hf__node undos;      /* and those that do */
    hf__node unclaiming; /* runs that pause before they take back a claim again (hf__waiter) */
    uint32_t n_undos;    /* of both */

    hf__timer sweep_timer;
    hf_op sweep_op;

    struct hf__postgres *postgres; /* api/postgres.c's; NULL: nothing of it has been used */

    enum { HF__OPEN, HF__DRAINING, HF__FORCING, HF__UNLINKING, HF__CLOSING } phase;
    hf__timer close_timer;
    uint64_t close_until_ns;
    void (*closed)(void *data);
    void *closed_data;
};

/* What closing ends: embedded in a lock that waits, a run, a request. */
typedef struct hf__waiter {
    hf__node node;
    void (*stop)(struct hf__waiter *waiter); /* waiting: ends with HF_ECLOSED; running: is lost */
} hf__waiter;

/* Makes a client of `vt`; takes `url` over in any case. HF_EINVAL, HF_ENOMEM, HF_EIO. */
hf_code hf__client_new(hf_engine *engine, const hf_store_vtable *vt, hf__url *url,
                       const hf_client_options *options, hf_client **out, hf_error *error);

/* What the client's store on the engine's loop lives in: for what is built on the same server. */
void hf__client_env(hf_client *client, hf__store_env *env);

/* Whether new work is accepted: HF_OK, or HF_ECLOSED with `error` set. */
hf_code hf__client_accepts(const hf_client *client, hf_error *error);

/* Gives `op` to the store, connecting first if that has not happened. */
void hf__client_submit(hf_client *client, hf_op *op);

void hf__client_begin(hf_client *client);
void hf__client_end(hf_client *client); /* may start the next step of closing, in a later turn */
void hf__client_hold(hf_client *client);
void hf__client_unhold(hf_client *client);

/* HF_ENOTSUP: the store keeps no entries, and why. */
hf_code hf__client_no_entries(const hf_client *client, hf_error *error);

/* A key that may be one: HF_OK, or HF_EINVAL with `error` set. */
hf_code hf__check_key(hf_slice key, hf_error *error);

/* The pause before try number `tries` (from 0) of something that failed: doubling from `base_ms`
 * to 2 s, jittered over its upper half. */
uint64_t hf__backoff_ms(uint32_t tries, uint64_t base_ms);

static inline uint64_t hf__client_now(const hf_client *client) {
    return hf__now_ns(&client->engine->clock);
}

static inline void hf__client_timer(hf_client *client, hf__timer *timer, uint64_t at_ns) {
    hf__timer_start(&client->engine->timers, timer, at_ns);
}

/* The keeper will renew leases of this client. */
hf_code hf__client_need_keeper(hf_client *client, hf_error *error);

/* attempt.c, for client.c: ends the undos (a drop under way is the last), hands the keeper every
 * token that is at the store or on its way there, and frees the attempts kept for reuse. */
void hf__undo_stop_all(hf_client *client);
void hf__attempts_exit(hf_client *client);
void hf__attempts_free(hf_client *client);

/* queue.c, for client.c: frees the queues that nobody is in any more. */
void hf__queues_close(hf_client *client);

#endif
