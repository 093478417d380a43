#include "store/quorum-round.h"

#include <assert.h>
#include <string.h>

void hf__round_begin(hf__round *round, uint8_t n, bool fencing, uint64_t bound_ns, uint8_t rules) {
    assert(n >= 1 && n <= HF__QUORUM_MAX);
    memset(round, 0, sizeof *round);
    round->n = n;
    round->fencing = fencing;
    round->bound_ns = bound_ns;
    round->rules = rules;
}

static uint8_t count(const uint8_t *votes, uint8_t n, hf__ballot vote) {
    uint8_t found = 0;

    for (uint8_t i = 0; i < n; i++)
        found = (uint8_t)(found + (votes[i] == vote));
    return found;
}

uint8_t hf__round_count(const hf__round *round, hf__ballot vote) {
    return count(round->votes, round->n, vote);
}

static hf__verdict conclude(hf__round *round, hf__verdict verdict) {
    round->verdict = (uint8_t)verdict;
    return verdict;
}

static hf__verdict win(hf__round *round, uint64_t now_ns) {
    bool is_late = (round->rules & HF__RULE_VALIDITY) != 0 && now_ns >= round->bound_ns;

    return conclude(round, is_late ? HF__ROUND_LATE : HF__ROUND_WON);
}

/* Nodes that may yet say yes: those that have not voted, and those that have and are writing. */
static uint8_t may_write(const hf__round *round) {
    uint8_t open = 0;

    for (uint8_t i = 0; i < round->n; i++) {
        bool may = round->votes[i] == HF__VOTE_OPEN || round->votes[i] == HF__VOTE_FOR;
        open = (uint8_t)(open + (may && round->writings[i] != HF__VOTE_AGAINST &&
                                 round->writings[i] != HF__VOTE_NONE));
    }
    return open;
}

static hf__verdict judge_writing(hf__round *round, uint64_t now_ns) {
    if (count(round->writings, round->n, HF__VOTE_FOR) >= hf__majority(round->n))
        return win(round, now_ns);
    return may_write(round) >= hf__majority(round->n) ? HF__ROUND_OPEN
                                                      : conclude(round, HF__ROUND_FAILED);
}

/* Who proposed the fence, or a greater one, has written it with the grant. */
static void note_proposal(hf__round *round, uint8_t node) {
    if (round->votes[node] == HF__VOTE_FOR && round->proposals[node] >= round->fence)
        round->writings[node] = HF__VOTE_FOR;
}

static hf__verdict begin_writing(hf__round *round, uint64_t now_ns) {
    hf__verdict verdict;

    round->writing = true;
    for (uint8_t i = 0; i < round->n; i++)
        note_proposal(round, i);
    verdict = judge_writing(round, now_ns);
    return verdict == HF__ROUND_OPEN ? HF__ROUND_WRITES : verdict;
}

static hf__verdict judge_votes(hf__round *round, uint64_t now_ns) {
    uint8_t majority = hf__majority(round->n);
    uint8_t votes_for = hf__round_count(round, HF__VOTE_FOR);
    uint8_t against = hf__round_count(round, HF__VOTE_AGAINST);
    uint8_t open = hf__round_count(round, HF__VOTE_OPEN);

    if (votes_for >= majority) {
        if (!round->fencing || (round->rules & HF__RULE_WRITE_BACK) == 0) return win(round, now_ns);
        return begin_writing(round, now_ns);
    }
    if (against > round->n - majority) return conclude(round, HF__ROUND_REFUSED);
    /* Those that are still to come may yet show that others hold it. */
    if (votes_for + open < majority && against + open <= round->n - majority)
        return conclude(round, HF__ROUND_FAILED);
    return HF__ROUND_OPEN;
}

hf__verdict hf__round_vote(hf__round *round, uint8_t node, hf__ballot vote, uint64_t fence,
                           uint64_t now_ns) {
    assert(node < round->n && round->votes[node] == HF__VOTE_OPEN && vote != HF__VOTE_OPEN);
    round->votes[node] = (uint8_t)vote;
    round->proposals[node] = fence;
    if (round->writing) note_proposal(round, node);
    if (hf__round_over(round)) return (hf__verdict)round->verdict;
    if (round->writing) return judge_writing(round, now_ns);
    /* Only what is counted is compared: the votes of the first majority. */
    if (vote == HF__VOTE_FOR && fence > round->fence) round->fence = fence;
    return judge_votes(round, now_ns);
}

hf__verdict hf__round_written(hf__round *round, uint8_t node, hf__ballot written, uint64_t now_ns) {
    assert(node < round->n && hf__round_must_write(round, node));
    assert(written == HF__VOTE_FOR || written == HF__VOTE_NONE);
    round->writings[node] = (uint8_t)written;
    if (hf__round_over(round)) return (hf__verdict)round->verdict;
    return judge_writing(round, now_ns);
}
