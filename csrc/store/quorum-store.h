/*
 * The quorum store, as its own files see it. How it works as a whole is told in store/quorum.c.
 * One loop, its thread only.
 */
#ifndef HF_STORE_QUORUM_STORE_H
#define HF_STORE_QUORUM_STORE_H

#include "core/defer.h"
#include "core/lease.h"
#include "core/timer.h"
#include "store/redis-member.h"

typedef struct hf__quorum hf__quorum;
typedef struct hf__poll hf__poll;

#define HF__UNASKED_MAX 4096 /* a power of two */

/* A token, and the nodes that were never asked for anything with it: they have nothing of it. */
typedef struct hf__unasked {
    hf_token token;
    uint32_t nodes; /* a bit for each */
} hf__unasked;

/* One node as this instance sees it; its vote is in the membership. */
typedef struct hf__quorum_node {
    hf__quorum *quorum;
    uint8_t index;
    hf__url url;
    hf_store *store;
    char name[HF_NODE_NAME_MAX];
    hf__redis_member member;
    hf__node_clock clock;
    hf__redis_mark mark; /* the errand under way */
    uint64_t mark_ns;    /* when it was sent */
    uint64_t links;      /* how many connections there have been */
    hf_error error;      /* why it is down */
    hf_node told;        /* what was told of it last */
    hf__timer reopen;    /* where there was no memory to begin */
    hf_op open_op;
    hf_op close_op;

    uint32_t n_open;      /* questions that have no answer yet */
    uint64_t heard_ns;    /* of the last answer, or the first question since all were answered */
    uint64_t answered_ns; /* of the last answer */
    hf__timer hush;       /* when it is called silent, unless it has answered */
    bool silent;          /* it is not asked until it answers */
    uint64_t down_ns;     /* since when there is no connection */
    bool twin;            /* it is the server of another node */
    char run_id[41];      /* of the errand under way, or of the twin */

    hf__node debts;
    uint32_t n_debts;
} hf__quorum_node;

struct hf__quorum {
    hf_store base;
    uint8_t n;
    bool fencing;
    uint64_t timeout_ms; /* of a node; 0: by the time to live */
    hf__membership membership;
    hf__quorum_node *nodes;

    hf__timers timers;
    hf__timer wake;   /* to look after the nodes */
    hf__timer settle; /* when nodes that are being connected to are not waited for any more */
    uint64_t opened_ns;
    hf__defer defer;
    bool has_handles;
    bool broken;         /* they could not be made */
    hf__op_list parked;  /* until it is known who can be asked */
    size_t n_busy;       /* ops that have not ended */
    size_t n_open_nodes; /* that have not been closed */
    uint32_t n_handles;
    hf__op_list late; /* given after close */
    hf_op *closing;
    hf_op drained;
    bool is_over; /* the nodes are being closed */

    hf__node watches;
    /* Of takes, by their tokens, which are random; a later one takes the place of an earlier. */
    hf__unasked unasked[HF__UNASKED_MAX];
    hf__poll *free_polls;
    uint32_t n_free_polls;
};

static inline hf__quorum *hf__quorum_self(hf_store *store) {
    return hf__of(store, hf__quorum, base);
}

static inline uint64_t hf__quorum_now(const hf__quorum *q) {
    return hf__now_ns(q->base.env.clock);
}

/* ---- quorum.c */

/* Ends an op. In a callback only. */
void hf__quorum_end(hf__quorum *q, hf_op *op);
/* Another node can be asked, or cannot any more: what is parked is looked at again. */
void hf__quorum_changed(hf__quorum *q);
/* How long a node is waited for. */
uint64_t hf__quorum_patience_ms(const hf__quorum *q, uint64_t ttl_ms);

/* ---- quorum-nodes.c */

hf_code hf__quorum_nodes_new(hf__quorum *q, hf_error *error);
void hf__quorum_nodes_free(hf__quorum *q);
/* Connects to all. */
void hf__quorum_nodes_open(hf__quorum *q);
/* Whether the node can be asked now: it has a vote, and answers. */
bool hf__quorum_can_ask(const hf__quorum *q, uint8_t node);
/* Does what there is to be done about the nodes' votes, and tells of what has changed. */
void hf__quorum_look(hf__quorum *q);
/* Asks the node for its marker, and its clock, if that was last done a while ago. */
void hf__quorum_probe(hf__quorum *q, uint8_t node);
/* A question is sent to it; it has been answered, or has come to nothing. */
void hf__quorum_asked(hf__quorum *q, uint8_t node);
void hf__quorum_answered(hf__quorum *q, uint8_t node, const hf_error *error);
/* The server's clock, as an answer to what was asked at `sent_ns` gives it. False: it has jumped,
 * and the node has no vote any more. */
bool hf__quorum_clock(hf__quorum *q, uint8_t node, uint64_t sent_ns, uint64_t server_us);
/* What the clocks of most nodes show, in microseconds: their median, so that no minority of them
 * that is wrong decides; 0: too few are known. */
uint64_t hf__quorum_common_us(const hf__quorum *q);
size_t hf__quorum_nodes(hf_store *store, hf_node *nodes, size_t max);

/* ---- quorum-polls.c */

/* Begins to ask the nodes. False, with the op's error set: it could not begin. */
bool hf__quorum_poll(hf__quorum *q, hf_op *op);
/* At the end: those that were kept. */
void hf__quorum_polls_free(hf__quorum *q);

/* ---- quorum-debts.c: what a node has that it should not, until it is told so */

/* The node is told that the token's lease on the keys is over: now, and again until that is sure,
 * or `ttl_ms` are over. `again`: also a moment later, for what may be on its way from elsewhere.
 * Without memory the lease lapses. */
void hf__quorum_owe(hf__quorum *q, uint8_t node, const hf_slice *keys, uint32_t n_keys,
                    const hf_token *token, uint64_t ttl_ms, bool again);
/* It can be told now. */
void hf__quorum_debts_pay(hf__quorum *q, uint8_t node);
/* Forgets those that are not on their way. */
void hf__quorum_debts_forget(hf__quorum *q, uint8_t node);

/* ---- quorum-errors.c */

/* Why the node has no vote, or did not answer. */
void hf__quorum_why(const hf__quorum *q, uint8_t node, hf_vote *vote);
/* Fills op->error from op->votes: a majority of which nothing came. `late`: one that came, but too
 * late. */
void hf__quorum_fail(const hf__quorum *q, hf_op *op, bool late);

/* ---- quorum-tally.c: what a majority of the nodes says, where each says a number */

/* Numbers in falling order. */
typedef struct hf__tally {
    uint8_t n;
    uint64_t values[HF__QUORUM_MAX];
} hf__tally;

void hf__tally_add(hf__tally *tally, uint64_t value);
/* The greatest that so many reach or exceed; the least of all where there are fewer. */
uint64_t hf__tally_reach(const hf__tally *tally, uint8_t count);

/* ---- quorum-watch.c */

void hf__quorum_watch(hf_store *store, hf__watch *watch);
void hf__quorum_unwatch(hf_store *store, hf__watch *watch);
void hf__quorum_watch_forget(hf__quorum *q);
/* A take of the op's keys was refused because others had some of the votes each: who waits for one
 * of them does so for a random time. Returns how long, in ms. */
uint64_t hf__quorum_watch_split(hf__quorum *q, const hf_op *op);

/* ---- quorum-list.c */

bool hf__quorum_list(hf__quorum *q, hf_op *op);

#endif
