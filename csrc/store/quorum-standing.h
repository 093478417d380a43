/*
 * Which nodes of a quorum have a vote. A node that has lost its memory, all or the newest part of
 * it, or whose clock has jumped, no longer knows what it has promised: it has no vote until all
 * that it can have promised is over. No I/O, no memory: the explorer walks through it as it is.
 *
 * The marker. Each node keeps one text beside its leases: for which run of the server it stands
 * (its run_id), the longest time to live of the quorum, and until when (by the server's clock)
 * there is no vote. A vote counts only if the node's marker is, at that very instant, the one its
 * client has read; so what one client finds out binds all.
 *
 *   none, on a majority    a new quorum: it is written, and the nodes have their votes
 *   none, another has one  the node was emptied, or is new: no vote for maxTtl
 *   of another run         it was started again: no vote for maxTtl
 *   of this run            no vote until the time in it; then a vote
 *
 * A new quorum is founded only when no node that can be reached has a marker, and every reading was
 * asked for after the last connection to any of these nodes was made: one that is older may have
 * been overtaken by the founding, and the emptying of another node.
 *
 * A node that has none while others have may be about to get its own from the client that has
 * just written theirs: for GRACE it is asked again.
 *
 * maxTtl. A lease may be as long as the marker of each node that grants it says; a client with a
 * greater one raises the markers first, and every client goes by the greatest that it has read. How
 * long a node that has forgotten its own is without a vote is therefore asked of the others.
 */
#ifndef HF_STORE_QUORUM_STANDING_H
#define HF_STORE_QUORUM_STANDING_H

#include "store/quorum-round.h"

#include "holdfast.h"

#define HF__MARKER_MAX 96 /* bytes of its text */
#define HF__STANDING_GRACE_NS UINT64_C(1000000000)
#define HF__CLOCK_TOLERANCE_US 10000

/* ---------------------------------------------------------------- marker */

typedef struct hf__marker {
    char run_id[41]; /* "": there is none */
    uint64_t max_ttl_ms;
    uint64_t until_us; /* no vote before that, by the server's clock; 0: it votes */
} hf__marker;

/* False: it makes no sense. An empty text is none. */
bool hf__marker_read(hf__marker *marker, hf_slice text);

/* ---------------------------------------------------------------- clock */

/* The difference between a server's clock and ours, as narrow as what has been asked allows. */
typedef struct hf__node_clock {
    bool known;
    int64_t low_us; /* server less monotonic */
    int64_t high_us;
    uint64_t at_ns;  /* for when they are so wide */
    int64_t jump_us; /* of the last sample that showed one */
} hf__node_clock;

/* The server's clock showed `server_us` at some instant between the two. False: it has jumped,
 * and is watched anew from there. A steady clock is off by up to 500 ppm (RFC 5905, section 11.3),
 * and 10 ms are let pass, since that is within what a lease has to spare. */
bool hf__node_clock_sample(hf__node_clock *clock, uint64_t sent_ns, uint64_t heard_ns,
                           uint64_t server_us);

/* ---------------------------------------------------------------- standing */

typedef enum hf__standing {
    HF__NODE_DOWN = 0, /* not connected */
    HF__NODE_UNKNOWN,  /* connected, its marker has not been read */
    HF__NODE_BLANK,    /* it has none; what that means is open */
    HF__NODE_OUT,      /* without a vote until `until_ns` */
    HF__NODE_VOTES
} hf__standing;

typedef enum hf__outage {
    HF__OUT_NOT = 0,
    HF__OUT_RESTARTED,
    HF__OUT_EMPTIED, /* or new */
    HF__OUT_CLOCK,
    HF__OUT_TOLD /* its marker says so: another client has found out */
} hf__outage;

typedef enum hf__errand {
    HF__ERRAND_NONE = 0,
    HF__ERRAND_READ,  /* ask for the marker, now */
    HF__ERRAND_FOUND, /* write a marker with a vote, if its marker is still this one (none) */
    HF__ERRAND_RAISE, /* write a greater maxTtl, if its marker is still this one */
    HF__ERRAND_BAR    /* write one without a vote for maxTtl, if its marker is still this one */
} hf__errand;

/* One node as one client sees it. A plain value. */
typedef struct hf__member_state {
    uint8_t standing;    /* hf__standing */
    uint8_t outage;      /* hf__outage, while HF__NODE_OUT */
    uint8_t errand;      /* hf__errand under way; one at a time */
    bool coming;         /* the first attempt to connect has not ended */
    bool jumped;         /* its clock has, and its marker does not say so yet */
    bool is_short;       /* its marker says for too short a time that there is no vote */
    char run_id[41];     /* of this connection */
    hf__marker marker;   /* as last read */
    uint64_t max_ttl_ms; /* the greatest that it is known to have had */
    uint64_t asked_ns;   /* when the reading that `marker` is of was asked for */
    uint64_t linked_ns;  /* when this connection was made */
    uint64_t blank_ns;   /* since when it has been blank; 0: it has not */
    uint64_t until_ns;   /* of HF__NODE_OUT */
    uint64_t again_ns;   /* no errand before that */
    uint64_t loss_ns;    /* by then it had lost what a BAR is for */
    int64_t jump_us;     /* by how much its clock has */
    uint64_t jump_ns;    /* when that was seen last; 0: never */
    uint8_t misses;      /* errands in a row that came to nothing */
} hf__member_state;

typedef struct hf__membership {
    uint8_t n;
    uint8_t rules;
    uint64_t max_ttl_ms; /* this client's */
    hf__member_state nodes[HF__QUORUM_MAX];
} hf__membership;

void hf__membership_init(hf__membership *m, uint8_t n, uint64_t max_ttl_ms, uint8_t rules);
/* A connection was made, to a server of that run. */
void hf__membership_up(hf__membership *m, uint8_t node, const char *run_id, uint64_t now_ns);
/* There is none any more, or none could be made. */
void hf__membership_down(hf__membership *m, uint8_t node);
/* An errand was answered: the marker as it is now, whoever wrote it, and the server's clock when it
 * was read. */
void hf__membership_read(hf__membership *m, uint8_t node, const hf__marker *marker,
                         uint64_t server_us, uint64_t asked_ns, uint64_t now_ns);
/* An errand came to nothing, though the connection lives. */
void hf__membership_missed(hf__membership *m, uint8_t node, uint64_t now_ns);
/* A vote was refused, for the marker is another one. */
void hf__membership_changed(hf__membership *m, uint8_t node);
/* The clock of the node has jumped, by so much. Before hf__membership_read of the answer that
 * showed it. Where all have jumped alike, it is our own that has. */
void hf__membership_jumped(hf__membership *m, uint8_t node, int64_t jump_us, uint64_t now_ns);
/* What is to be done about the node now; it then counts as under way until hf__membership_read or
 * _missed. To be asked for each node after each of the calls above, and when `wake_ns` of
 * hf__membership_wake has come. */
hf__errand hf__membership_errand(hf__membership *m, uint8_t node, uint64_t now_ns);
/* When to ask again at the latest; HF_FOREVER: no need. */
uint64_t hf__membership_wake(const hf__membership *m, uint64_t now_ns);
/* The greatest maxTtl that is known of, which every marker that is written gets, and how long a BAR
 * lasts: the longest time to live that a promise of the node can have. */
uint64_t hf__membership_most_ms(const hf__membership *m);

bool hf__membership_votes(const hf__membership *m, uint8_t node);

/* Whether it may have a vote in a moment: it is being connected to, or asked. */
bool hf__membership_coming(const hf__membership *m, uint8_t node);

#endif
