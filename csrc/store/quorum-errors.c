/*
 * What a poll that got no majority says: which nodes had no vote, and why.
 */
#include "store/quorum-store.h"

#include <stdio.h>
#include <string.h>

void hf__quorum_why(const hf__quorum *q, uint8_t index, hf_vote *vote) {
    const hf__quorum_node *node = &q->nodes[index];
    const hf__member_state *state = &q->membership.nodes[index];
    uint64_t left_ms = hf__ms_until(hf__quorum_now(q), state->until_ns);

    switch ((hf__standing)state->standing) {
    case HF__NODE_OUT:
        vote->kind = HF_VOTE_QUARANTINED;
        hf__error_set(&vote->error, HF_EQUORUM, HF_RETRYABLE,
                      "%s has no vote for %llu ms: it was %s", node->name,
                      (unsigned long long)left_ms,
                      state->outage == HF__OUT_RESTARTED ? "started again"
                      : state->outage == HF__OUT_EMPTIED ? "emptied, or is new"
                      : state->outage == HF__OUT_CLOCK   ? "left by its clock, which jumped"
                                                       : "put out of the quorum by another client");
        return;
    case HF__NODE_BLANK:
        if (state->misses > 0) break;
        vote->kind = HF_VOTE_QUARANTINED;
        hf__error_set(&vote->error, HF_EQUORUM, HF_RETRYABLE,
                      "%s has no marker of the quorum yet, and too few others can be asked why",
                      node->name);
        return;
    case HF__NODE_VOTES:
        vote->kind = HF_VOTE_DOWN;
        hf__error_set(&vote->error, HF_EUNAVAIL, HF_RETRYABLE,
                      node->silent ? "%s has not answered for a while"
                                   : "%s is only just being asked whether it has a vote",
                      node->name);
        return;
    case HF__NODE_UNKNOWN:
        if (state->misses > 0) break;
        vote->kind = HF_VOTE_DOWN;
        hf__error_set(&vote->error, HF_EUNAVAIL, HF_RETRYABLE,
                      "%s is only just being asked whether it has a vote", node->name);
        return;
    case HF__NODE_DOWN: break;
    }
    vote->kind = HF_VOTE_DOWN;
    vote->error = node->error;
}

static const hf_vote *first_of(const hf_op *op, hf_vote_kind kind) {
    for (size_t i = 0; i < op->n_votes; i++)
        if (op->votes[i].kind == kind) return &op->votes[i];
    return NULL;
}

static unsigned count(const hf_op *op, hf_vote_kind kind) {
    unsigned n = 0;

    for (size_t i = 0; i < op->n_votes; i++)
        n += op->votes[i].kind == kind;
    return n;
}

/* Of nodes that are missing for several reasons: that the rest could not have made up for. */
static const char *reason_of(const hf__quorum *q, const hf_op *op) {
    unsigned down = count(op, HF_VOTE_DOWN);

    if (down > (unsigned)(q->n - hf__majority(q->n))) return "down";
    if (count(op, HF_VOTE_QUARANTINED) > 0) return "quarantined";
    return down > 0 ? "down" : "held";
}

static const char *wanted(const hf_op *op) {
    switch ((hf_verb)op->verb) {
    case HF_TAKE: return "granted";
    case HF_KEEP: return "renewed";
    case HF_DROP: return "released";
    default: return "listed";
    }
}

/* What the op itself is wrong about all nodes say alike: it is no matter of votes. */
static const hf_vote *common(const hf__quorum *q, const hf_op *op) {
    for (size_t i = 0; i < op->n_votes; i++) {
        hf_code code = op->votes[i].error.code;
        unsigned same = 0;

        if (op->votes[i].kind != HF_VOTE_DOWN || code != HF_EINVAL) continue;
        for (size_t j = 0; j < op->n_votes; j++)
            same += op->votes[j].error.code == code;
        if (same >= hf__majority(q->n)) return &op->votes[i];
    }
    return NULL;
}

void hf__quorum_fail(const hf__quorum *q, hf_op *op, bool late) {
    const hf_vote *same = common(q, op);
    const hf_vote *down = first_of(op, HF_VOTE_DOWN);
    const hf_vote *out = first_of(op, HF_VOTE_QUARANTINED);
    const hf_vote *why = down != NULL ? down : out;
    hf_slice key = op->keys != NULL ? op->keys[0] : (hf_slice){"", 0};
    const char *reason = late ? "time" : reason_of(q, op);
    /* Of a take the nodes are told; a renewal or release may have happened at some. */
    uint32_t doubt = op->verb == HF_KEEP || op->verb == HF_DROP ? HF_OUTCOME_UNKNOWN : 0;

    if (same != NULL) {
        op->error = same->error;
        return;
    }
    if (late)
        hf__error_set(&op->error, HF_EQUORUM, HF_RETRYABLE,
                      "a majority of the %u nodes granted \"%.*s\" only when its time to live was "
                      "nearly over",
                      q->n, hf__shown(key), key.data);
    else if (key.len == 0)
        hf__error_set(&op->error, HF_EQUORUM, HF_RETRYABLE,
                      "%u of %u nodes answered, %u are needed: %s", count(op, HF_VOTE_FOR), q->n,
                      hf__majority(q->n), why != NULL ? why->error.message : "no majority is left");
    else
        hf__error_set(
            &op->error, HF_EQUORUM, HF_RETRYABLE | doubt,
            "%u of %u nodes %s \"%.*s\", %u are needed (%u down, %u quarantined, %u "
            "against): %s",
            count(op, HF_VOTE_FOR), q->n, wanted(op), hf__shown(key) > 40 ? 40 : hf__shown(key),
            key.data, hf__majority(q->n), count(op, HF_VOTE_DOWN), count(op, HF_VOTE_QUARANTINED),
            count(op, HF_VOTE_AGAINST), why != NULL ? why->error.message : "no majority is left");
    (void)snprintf(op->error.state, sizeof op->error.state, "%s", reason);
}
