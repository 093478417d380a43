/*
 * One round of votes: what makes a majority of nodes, and when it comes too late. No I/O, no
 * clock, no memory: whoever sends and receives tells it, and does what it says. So the explorer
 * (test/c/test-quorum-explore.c) walks through it as it is.
 *
 * The algorithm is Redlock (antirez, "Distributed Locks with Redis"), with fences in a second
 * step: each node counts its takes of a key, and says with its vote which number comes next. The
 * greatest of the counted votes is the fence, and a majority must have it in writing, under the
 * holder's token, before the lock counts. Any later majority has one of these nodes in it, and so
 * comes to a greater number.
 */
#ifndef HF_STORE_QUORUM_ROUND_H
#define HF_STORE_QUORUM_ROUND_H

#include <stdbool.h>
#include <stdint.h>

#define HF__QUORUM_MAX 15 /* nodes */

typedef enum hf__ballot {
    HF__VOTE_OPEN = 0,
    HF__VOTE_FOR,
    HF__VOTE_AGAINST, /* take: others hold it; keep, drop: the token does not */
    HF__VOTE_NONE     /* down, silent, or without a vote */
} hf__ballot;

typedef enum hf__verdict {
    HF__ROUND_OPEN = 0,
    HF__ROUND_WRITES,  /* given once: `fence` is to be written where hf__round_must_write says so,
                          also after later votes */
    HF__ROUND_WON,     /* a majority, in time */
    HF__ROUND_REFUSED, /* enough nodes are against it, so that no majority is left */
    HF__ROUND_FAILED,  /* too few nodes have a vote */
    HF__ROUND_LATE     /* the time to live would be over */
} hf__verdict;

/* What the explorer may switch off, to show that it finds what then goes wrong. */
#define HF__RULE_VALIDITY 1u   /* a majority that comes too late does not count */
#define HF__RULE_WRITE_BACK 2u /* fences are written to a majority */
#define HF__RULE_QUARANTINE 4u /* of quorum-standing.h */
#define HF__RULES_ALL 7u

/* A plain value: it may be copied. `writings` are of the fence: a node whose own vote proposed it,
 * or a greater one, has it in writing already. */
typedef struct hf__round {
    uint8_t n;
    uint8_t rules;
    bool fencing;
    bool writing;
    uint8_t verdict;                    /* hf__verdict; from HF__ROUND_WON on it is final */
    uint8_t votes[HF__QUORUM_MAX];      /* hf__ballot */
    uint8_t writings[HF__QUORUM_MAX];   /* hf__ballot, of the fence */
    uint64_t proposals[HF__QUORUM_MAX]; /* the fences of those that are for it */
    uint64_t bound_ns;                  /* until when what it wins would be held */
    uint64_t fence;                     /* the greatest of the counted votes */
} hf__round;

/* How many of `n` nodes are a majority. */
static inline uint8_t hf__majority(uint8_t n) {
    return (uint8_t)(n / 2 + 1);
}

/* Begins one: `bound_ns` is hf__lease_bound of the instant before the first node was asked. */
void hf__round_begin(hf__round *round, uint8_t n, bool fencing, uint64_t bound_ns, uint8_t rules);

/* The vote of a node, once: `fence` is what it proposes, with HF__VOTE_FOR. Votes that come after
 * the verdict are noted. */
hf__verdict hf__round_vote(hf__round *round, uint8_t node, hf__ballot vote, uint64_t fence,
                           uint64_t now_ns);

/* Whether the node has granted the take, and does not have the fence in writing yet. */
static inline bool hf__round_must_write(const hf__round *round, uint8_t node) {
    return round->writing && round->votes[node] == HF__VOTE_FOR &&
           round->writings[node] == HF__VOTE_OPEN;
}

/* Whether the node has the fence in writing (HF__VOTE_FOR) or not (HF__VOTE_NONE): once, where
 * hf__round_must_write said so. */
hf__verdict hf__round_written(hf__round *round, uint8_t node, hf__ballot written, uint64_t now_ns);

/* How many votes of that kind there are. */
uint8_t hf__round_count(const hf__round *round, hf__ballot vote);

static inline bool hf__round_over(const hf__round *round) {
    return round->verdict >= HF__ROUND_WON;
}

#endif
