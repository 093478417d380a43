/*
 * A lease as this process sees it: a deadline that two threads may read and move, and what the
 * keeper needs to renew it. The deadline is the one truth about holding: it goes to 0 once and
 * stays there.
 *
 * Ownership: part of a lock or a run, on the loop's side. From hf__keeper_join until `left`
 * the keeper may touch it too.
 */
#ifndef HF_CORE_LEASE_H
#define HF_CORE_LEASE_H

#include "core/mailbox.h"
#include "core/timer.h"

#include <stdatomic.h>

typedef struct hf__link hf__link;

/* Why a lease ended before its owner ended it. */
typedef enum hf__loss {
    HF__LOSS_NONE = 0,
    HF__LOSS_DEADLINE, /* not renewed in time */
    HF__LOSS_REFUSED,  /* the store says it belongs to somebody else, or to nobody */
    HF__LOSS_HOLD,     /* max_hold reached */
    HF__LOSS_STALL,    /* the loop was stuck for max_stall */
    HF__LOSS_CLOSED,   /* the client was closed, or the process ends */
    HF__LOSS_ENDED     /* none: its owner has ended it, and tells the keeper so */
} hf__loss;

/* One change of the time to live, asked for by the owner. Owned by who asks, until answered. */
typedef struct hf__extend {
    uint64_t ttl_ms;
    bool wants_votes;
    bool done; /* else `error` */
    hf_error error;
    hf_vote *votes; /* of the nodes of a quorum; NULL, or the owner's from then on */
    size_t n_votes;
} hf__extend;

typedef struct hf__lease hf__lease;

/* What the owner of a lease hears of it, on the loop's thread. */
typedef struct hf__lease_owner {
    void (*lost)(hf__lease *lease, hf__loss why); /* at most once */
    void (*extended)(hf__lease *lease, hf__extend *extend);
    void (*left)(hf__lease *lease); /* the keeper will not touch it again */
} hf__lease_owner;

/* There may be a hundred thousand of these: the order of the fields leaves no gaps. */
struct hf__lease {
    _Atomic uint64_t deadline_ns; /* 0: not held (any more) */
    _Atomic uint32_t loss;        /* hf__loss, set before the deadline goes to 0 */
    uint32_t flags;               /* the keeper's */

    /* Set before the lease starts; then constant. */
    uint8_t n_keys;
    uint8_t space;
    bool renew;
    bool joined;  /* the loop's: the keeper may touch it */
    bool leaving; /* the loop's: and has been told to let it go */
    hf_token token;
    const hf_slice *keys;
    hf__link *link;
    const hf__lease_owner *owner;
    uint64_t hold_end_ns; /* HF_FOREVER: no bound */
    uint64_t max_stall_ms;

    /* The loop's. */
    hf__node node; /* in the link's list while held */
    hf__timer timer;
    hf__msg to_keeper;

    /* Handed over through the mailboxes. */
    hf__msg to_loop;
    uint64_t ttl_ms;    /* the keeper's, once joined */
    hf__extend *extend; /* under way */

    /* The keeper's. */
    hf__heap_node due; /* `at`: the next renewal; the loop sets the first */
    hf__node list;
    uint64_t drop_until_ns; /* how long a drop is tried */
};

/* Until when a lease asked for at `sent_ns` counts as held: ttl less 1 % and 2 ms for clocks
 * that drift (antirez, "Distributed Locks with Redis", section on clock drift). */
static inline uint64_t hf__lease_bound(uint64_t sent_ns, uint64_t ttl_ms) {
    uint64_t ttl_ns = ttl_ms * HF_NS_PER_MS;
    return sent_ns + ttl_ns - ttl_ns / 100 - 2 * HF_NS_PER_MS;
}

/* Any thread: whether it is held now. Whoever sees the deadline pass sets it to 0, so that no
 * late renewal can bring it back. */
static inline bool hf__lease_live(hf__lease *lease, uint64_t now_ns) {
    uint64_t deadline = atomic_load(&lease->deadline_ns);
    while (deadline != 0 && now_ns >= deadline)
        if (atomic_compare_exchange_weak(&lease->deadline_ns, &deadline, 0)) return false;
    return deadline != 0;
}

/* Any thread: the deadline comes no later than `bound_ns` (before a renewal that may shorten). */
static inline void hf__lease_shrink(hf__lease *lease, uint64_t bound_ns) {
    uint64_t deadline = atomic_load(&lease->deadline_ns);
    while (deadline > bound_ns &&
           !atomic_compare_exchange_weak(&lease->deadline_ns, &deadline, bound_ns)) {
    }
}

/* The keeper: after a renewal. False if the lease ended meanwhile: the renewal must be undone. */
static inline bool hf__lease_grow(hf__lease *lease, uint64_t bound_ns, uint64_t now_ns) {
    uint64_t deadline = atomic_load(&lease->deadline_ns);
    do {
        if (deadline == 0) return false;
        if (now_ns >= deadline) return hf__lease_live(lease, now_ns);
        if (bound_ns <= deadline) return true;
    } while (!atomic_compare_exchange_weak(&lease->deadline_ns, &deadline, bound_ns));
    return true;
}

/* Any thread: ends it, and says why if nobody has before. True for the one call that did. */
static inline bool hf__lease_end(hf__lease *lease, hf__loss why) {
    uint32_t none = HF__LOSS_NONE;
    atomic_compare_exchange_strong(&lease->loss, &none, (uint32_t)why);
    return atomic_exchange(&lease->deadline_ns, 0) != 0;
}

#endif
