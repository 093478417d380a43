/*
 * Inside of the locks: what lock.c (waiting, taking, holding) and queue.c (who is next) and
 * attempt.c (one op at the store, and undoing it) share. The public interface is holdfast.h.
 *
 * A lock goes through
 *
 *   WAITING -> HELD -> ENDED      granted, then released or lost
 *   WAITING -> ENDED              timed out, failed, cancelled
 *
 * and stays until its last reference is gone: the user's handle, an attempt under way, the keeper.
 */
#ifndef HF_PRIM_LOCK_H
#define HF_PRIM_LOCK_H

#include "prim/client.h"

#define HF__WAITING_MAX 200000u /* callers that may wait in one client */
#define HF__UNDOS_MAX 10000u    /* takes of unknown outcome that may be under way */

typedef struct hf__queue hf__queue;

/* One lock at one of its keys. */
typedef struct hf__place {
    hf__node node; /* in queue->waiting or queue->holding */
    hf__queue *queue;
    struct hf_lock *lock;
} hf__place;

/* One key: who holds it here, who waits for it here, in order. */
struct hf__queue {
    hf__map_node node;
    hf_client *client;
    hf__node waiting;
    hf__node holding;
    bool taking; /* an attempt for this key is at the store */
    bool watching;
    hf__watch watch;
    char key[];
};

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

struct hf_lock {
    hf__lease lease;
    hf__waiter waiter; /* in client->waiting or client->holding */
    hf_client *client; /* valid while anything is under way */
    hf_allocator allocator;
    uint32_t refs;
    enum { HF__WAITING, HF__HELD, HF__ENDED } state;
    uint32_t limit;
    uint32_t rounds;   /* attempts sent */
    uint32_t failures; /* in a row, without an answer */
    bool queued;       /* its places are in the queues' waiting lists */
    bool marked;       /* its last attempt may have left an intent mark */
    bool graced;       /* its wait has been stretched for the first answer */
    bool cancelled;    /* told so in the next turn */
    hf__timer timer;
    uint64_t asked_ns;
    uint64_t wait_ns;  /* when waiting ends; HF_FOREVER */
    uint64_t retry_ns; /* when to try again at the latest; HF_FOREVER: when told */
    uint64_t ttl_ms;
    uint64_t wait_ms;
    uint64_t max_hold_ms;
    uint64_t fence;
    hf__attempt *attempt;      /* take under way */
    hf__attempt *refused;      /* the last that was refused: who was in the way */
    hf_code failed;            /* why the last got no answer; HF_OK if it got one */
    hf_error *failure;         /* the same at length; NULL where memory was out */
    hf__extension *extensions; /* first is under way at the keeper */
    hf_slice note;
    void (*acquired)(void *data, struct hf_lock *lock, const hf_lock_result *result);
    void (*lost)(void *data, struct hf_lock *lock, const hf_error *why);
    void (*released)(void *data, struct hf_lock *lock, bool was_held, const hf_error *error);
    void *data;
    void *released_data;
    hf__place *places; /* one per key */
};

/* queue.c */

/* Enters the lock into the queue of each key. False when memory is out: it is in none then. */
bool hf__queues_join(hf_lock *lock);
/* Whether the lock may go to the store now: first at every key, and compatible with who holds
 * there. */
bool hf__queues_ready(const hf_lock *lock);
/* Whether a holder of this engine is in its way. */
bool hf__queues_held_here(const hf_lock *lock);
/* From waiting to holding. */
void hf__queues_hold(hf_lock *lock);
/* Out of all queues, from waiting or holding; those who come next are tried. */
void hf__queues_leave(hf_lock *lock);
/* Tries who is first at the lock's keys. */
void hf__queues_next(hf_lock *lock);
void hf__queues_set_taking(hf_lock *lock, bool taking);
/* Asks for hints on every key. True if all are watched; the store may have no watches. */
bool hf__queues_watch(hf_lock *lock);

/* lock.c */

/* Goes to the store if it is this lock's turn. */
void hf__lock_try(hf_lock *lock);
/* A watched key may have become free. */
void hf__lock_hint(hf_lock *lock);
void hf__lock_ref(hf_lock *lock);
void hf__lock_unref(hf_lock *lock);

/* attempt.c */

/* An attempt of `verb` for the lock, with its token, holding a reference to it; NULL when memory
 * is out. */
hf__attempt *hf__attempt_new(hf_lock *lock, hf_verb verb, hf_op_cb done);
/* Gives it back, with its reference. */
void hf__attempt_free(hf__attempt *attempt);
/* Drops the attempt's token until it is certain that nothing is left of it, then gives the
 * attempt back. With `unknown` the take may not have arrived yet. */
void hf__attempt_undo(hf__attempt *attempt, bool unknown);

#endif
