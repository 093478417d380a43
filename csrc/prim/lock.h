/*
 * Inside of the locks: what lock.c (waiting, taking), hold.c (holding, releasing), queue.c (who is
 * next) and attempt.c (one op at the store, and undoing it) share. The public interface is
 * holdfast.h.
 *
 * A lock goes through
 *
 *   WAITING -> HELD -> ENDED      granted, then released or lost
 *   WAITING -> ENDED              timed out, failed, cancelled
 *
 * and stays until its last reference is gone: the user's handle, an attempt under way, the keeper.
 * What it needs for waiting alone is a part of its own, so that a lock that is held is small.
 */
#ifndef HF_PRIM_LOCK_H
#define HF_PRIM_LOCK_H

#include "prim/client.h"

#include <stdio.h>

#define HF__WAITING_MAX 200000u /* callers that may wait in one client */
#define HF__UNDOS_MAX 10000u    /* takes of unknown outcome that may be under way */

typedef struct hf__queue hf__queue;
typedef struct hf__line hf__line;

/* One lock at one of its keys. */
typedef struct hf__place {
    hf__node node; /* in queue->waiting or queue->holding */
    hf__queue *queue;
    struct hf_lock *lock;
} hf__place;

/* Who waits for the end of a release. */
typedef struct hf__release {
    void (*cb)(void *data, struct hf_lock *lock, bool was_held, const hf_error *error);
    void *data;
} hf__release;

/* One take or drop at the store. It keeps its lock in place, whose keys it borrows. */
struct hf__attempt {
    hf_op op;
    hf_holder holder;
    struct hf_lock *lock;
    uint64_t sent_ns;
    bool watched;  /* every key was watched when it was sent */
    bool hinted;   /* a watch fired while it was under way */
    bool parted;   /* its token is dropped at the end of the process: a grant does not count */
    hf__node node; /* in client->sent while at the store, in client->undos while it undoes a take */
    /* of a release: its own drop, or the take that it is handed over by */
    struct hf_lock *from; /* the lock that is handed over; holds a reference */
    hf__release release;
    /* while it undoes a take */
    hf__timer timer;
    bool unknown; /* the take may still be on its way */
    uint64_t until_ns;
    uint32_t tries;
    struct hf__attempt *next_free;
};

typedef struct hf__extension {
    hf__extend ask;
    void (*cb)(void *data, struct hf_lock *lock, const hf_error *error);
    void *data;
    struct hf__extension *next;
} hf__extension;

/* What a lock needs until it is held, or has left its queues without. */
typedef struct hf__wait {
    hf__waiter waiter; /* in client->waiting */
    struct hf_lock *lock;
    hf__timer timer;
    uint32_t rounds;   /* attempts sent */
    uint32_t failures; /* in a row, without an answer */
    bool marked;       /* its last attempt may have left an intent mark */
    bool graced;       /* its wait has been stretched for the first answer */
    bool cancelled;    /* told so in the next turn */
    uint64_t asked_ns;
    uint64_t until_ns; /* when waiting ends; HF_FOREVER */
    uint64_t retry_ns; /* when to try again at the latest; HF_FOREVER: when told */
    uint64_t wait_ms;
    uint64_t max_hold_ms;
    hf__attempt *attempt; /* take under way */
    hf__attempt *refused; /* the last that was refused: who was in the way */
    hf_code failed;       /* why the last got no answer; HF_OK if it got one */
    hf_error *failure;    /* the same at length; NULL where memory was out */
    hf_slice note;
    void (*acquired)(void *data, struct hf_lock *lock, const hf_lock_result *result);
} hf__wait;

/* One allocation: the lock, a place per key, the keys, and the bytes of keys and note. */
struct hf_lock {
    hf__lease lease;
    hf_allocator allocator;
    uint32_t refs;
    uint32_t limit;
    enum { HF__WAITING, HF__HELD, HF__ENDED } state;
    bool freed; /* the user's handle is gone: nobody hears of it any more */
    bool wants_votes;
    uint16_t n_votes; /* of `votes` */
    uint64_t fence;
    uint64_t ttl_ms;
    hf__wait *wait;            /* as long as it is in the queues and not held */
    hf__extension *extensions; /* first is under way at the keeper */
    hf_vote *votes;            /* of its last op, where the store is a quorum */
    void (*lost)(void *data, struct hf_lock *lock, const hf_error *why);
    void *data;
    hf__place places[];
};

/* Valid while anything of the lock is under way. */
static inline hf_client *hf__lock_client(const hf_lock *lock) {
    return hf__of(lock->lease.link, hf_client, link);
}

/* What messages add to the lock's first key: "", or " and 2 more". */
typedef struct hf__more {
    char text[24];
} hf__more;

static inline hf__more hf__lock_more(const hf_lock *lock) {
    hf__more more = {""};
    if (lock->lease.n_keys > 1)
        (void)snprintf(more.text, sizeof(more.text), " and %u more", lock->lease.n_keys - 1u);
    return more;
}

/* Keeps the votes of an op of the lock in place of those of the one before. (hold.c) */
void hf__lock_note_votes(hf_lock *lock, hf_op *op);

/* ---- queue.c: the order of those who wait
 *
 * Every key has a queue of the locks of this engine that wait for it, in the order in which they
 * asked, and a list of those that hold it. A lock may go to the store when, at each of its keys,
 * everyone ahead of it would leave room for it, by the admission rule, and nobody ahead has been
 * refused. So an exclusive one goes alone, and many shared ones go together, as one batch of the
 * store's. When the store refuses, or does not answer, the next round is one lock, and each grant
 * doubles that: what is held elsewhere is not asked for by everyone who waits here. */

/* Enters the lock into the queue of each key. False when memory is out: it is in none then. */
bool hf__queues_join(hf_lock *lock);
/* Whether the lock may go to the store now. */
bool hf__queues_ready(const hf_lock *lock);
/* Whether a holder of this engine is in its way. */
bool hf__queues_held_here(const hf_lock *lock);
/* Who is in the way of the lock's first key, as far as one ahead of it was told; NULL. */
const hf_holder *hf__queues_known_holder(const hf_lock *lock);
/* Who may take over all of what `lock` holds, in one step, and nothing else; NULL if nobody is. */
hf_lock *hf__queues_heir(const hf_lock *lock);
/* From waiting to holding: it was granted, while others elsewhere wait (`awaited`) or not. */
void hf__queues_hold(hf_lock *lock, bool awaited);
/* The store did not grant what was asked for; `refused`: others hold it. */
void hf__queues_refused(hf_lock *lock, bool refused);
/* Out of all queues, from waiting or holding; those who come next are tried. */
void hf__queues_leave(hf_lock *lock);
/* Tries those at the lock's keys who may go now. */
void hf__queues_next(hf_lock *lock);
/* Whether every key is watched already. */
bool hf__queues_watched(const hf_lock *lock);
/* Asks for hints on every key. True if all are watched; the store may have no watches. */
bool hf__queues_watch(hf_lock *lock);

/* ---- lock.c */

/* Goes to the store if it is this lock's turn. */
void hf__lock_try(hf_lock *lock);
/* A watched key may have become free. */
void hf__lock_hint(hf_lock *lock);
/* Goes to the store to take over what `from` holds, which its caller releases: the attempt, which
 * holds a reference to `from`, or NULL when memory or randomness is out. */
hf__attempt *hf__lock_take_over(hf_lock *lock, hf_lock *from);
void hf__lock_ref(hf_lock *lock);
void hf__lock_unref(hf_lock *lock);

/* ---- hold.c */

/* The store has granted it. False if that came so late that it was never held. */
bool hf__lock_hold(hf_lock *lock, const hf__attempt *attempt);
/* What became of a release by handing over. */
typedef struct hf__released {
    hf_lock *lock; /* holds a reference; NULL: its drop will tell */
    hf__release release;
    hf_error error; /* code HF_OK: it was held */
} hf__released;

/* The take that was to take over attempt->from has been answered. If that did not land for sure,
 * `from` is dropped like any other. What there is to tell is told later: its callback may end
 * the heir, too. */
void hf__lock_handed_over(hf__attempt *attempt, hf__released *news);
void hf__lock_tell(hf__released *news);
/* What the lease tells of; for lock.c to make the lock with. */
extern const hf__lease_owner hf__lock_owner;

/* ---- attempt.c */

/* An attempt of `verb` for the lock, with its token, holding a reference to it; NULL when memory
 * is out. */
hf__attempt *hf__attempt_new(hf_lock *lock, hf_verb verb, hf_op_cb done);
/* Gives it back, with its reference. */
void hf__attempt_free(hf__attempt *attempt);
/* The `done` of an attempt whose answer nobody waits for. */
void hf__attempt_done(hf_op *op);
/* Drops the lock's token; nobody waits for the answer. False when memory is out. */
bool hf__attempt_forget(hf_lock *lock);
/* Drops the attempt's token until it is certain that nothing is left of it, then gives the
 * attempt back. With `unknown` the take may not have arrived yet. */
void hf__attempt_undo(hf__attempt *attempt, bool unknown);

#endif
