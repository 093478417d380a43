/*
 * The keeper: a thread with a loop and store instances of its own that renews leases while the
 * host's loop is busy, ends those whose time or bounds are over, and drops what is left when the
 * process ends.
 *
 * All functions here are called on the engine's loop. The keeper answers through the engine's
 * mailbox.
 */
#ifndef HF_CORE_KEEPER_H
#define HF_CORE_KEEPER_H

#include "core/lease.h"
#include "core/store.h"

typedef struct hf__keeper hf__keeper;

/* The keeper's side of one client: how to make its store instance, and that instance once it is
 * needed. Owned by the client, constant from hf__link_init until `closed` but for the keeper's
 * part. */
struct hf__link {
    const hf_store_vtable *vt;
    hf__store_env env; /* loop and scope are the keeper's own */
    struct hf_engine *engine;
    /* on the loop's thread */
    hf__node leases; /* every lease that was taken and has not been ended or seen lost */
    void (*closed)(hf__link *link);
    void (*warned)(hf__link *link, const hf_error *error);
    void (*renewed)(hf__link *link, const hf__lease *lease); /* while *renewals */
    const _Atomic bool *renewals;
    hf__keeper *keeper; /* set once, before the first lease joins */
    /* Set by the loop when the client waits for nothing more: a drop is tried once from then on. */
    _Atomic bool closing;
    /* the keeper's */
    hf_store *store;
    hf_op open_op;
    hf_op close_op;
    hf__msg to_keeper;
    /* on its way to the loop */
    hf__msg to_loop;
    uv_mutex_t mutex;
    hf_error warning;
};

/* What a keeper stands on; outlives it. */
typedef struct hf__keeper_env {
    const hf_allocator *allocator;
    const hf_clock *clock;
    hf__mailbox *loop_mailbox;
} hf__keeper_env;

#define HF__KEEPER_JOBS 256 /* renewals and drops under way at once */

/* Starts the thread. HF_ENOMEM, or HF_EIO when the system has no thread or descriptor to give. */
hf_code hf__keeper_start(const hf__keeper_env *env, hf__keeper **out, hf_error *error);
/* Ends and joins the thread, and frees the keeper. Every link is closed, every lease has left.
 * Blocks for the moment this takes. */
void hf__keeper_stop(hf__keeper *keeper);

/* 0, or a negative errno. */
int hf__link_init(hf__link *link);
void hf__link_fini(hf__link *link);
/* Closes the link's instance; its leases have left. Then `closed` runs. */
void hf__keeper_close_link(hf__keeper *keeper, hf__link *link);

void hf__lease_init(hf__lease *lease);

/* The keeper renews `lease`, taken with `ttl_ms` at `sent_ns`, from now on (with lease->renew),
 * and acts on what follows. */
void hf__keeper_join(hf__keeper *keeper, hf__lease *lease, uint64_t ttl_ms, uint64_t sent_ns);
/* The owner has ended the lease. True: the keeper has never seen it, and it is free at once.
 * False: `left` follows. */
bool hf__keeper_leave(hf__keeper *keeper, hf__lease *lease);
/* Sets another time to live, at once and for later renewals (`extend` borrowed until
 * `extended`). */
void hf__keeper_extend(hf__keeper *keeper, hf__lease *lease, hf__extend *extend);
/* The lease has been ended by the owner; the keeper drops it at the store, and lets it go
 * (`left`). */
void hf__keeper_drop(hf__keeper *keeper, hf__lease *lease);
/* Waits until every drop sent before has been answered, `timeout_ms` at most. */
void hf__keeper_flush(hf__keeper *keeper, uint64_t timeout_ms);
/* For the end of the process, where libraries take themselves down while threads still run: has the
 * keeper stand still, and waits until it does, `timeout_ms` at most. And lets it go on. */
void hf__keeper_park(hf__keeper *keeper, uint64_t timeout_ms);
void hf__keeper_unpark(hf__keeper *keeper);

#endif
