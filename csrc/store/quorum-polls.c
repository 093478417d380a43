/*
 * Polls: one op asked of every node at once. It ends with the verdict of its round
 * (quorum-round.h); answers that come later only complete what is known of the nodes. A node that
 * may have granted what was not won is owed a drop (quorum-debts.c), which goes out on the same
 * connection behind the take, and so before any later one.
 *
 * A lease that a majority has renewed is put back on nodes that have lost it, or missed it: by the
 * same take, which a node without a vote refuses.
 */
#include "store/quorum-store.h"
#include "store/stores.h"
#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define PING_MS 1000
#define DROP_LEAST_MS 250
#define FREE_MAX 256   /* polls that are kept for later ones, with */
#define USUAL_ROOM 512 /* bytes of room */

enum { IDLE, ASKED, ANSWERED, WRITING, REPAIRING, REPAIRED };

/* A poll's question at one node. */
typedef struct hf__paper {
    hf_op op;
    hf__redis_vote vote;
    hf__poll *poll;
    uint8_t node;
    uint8_t phase;
    bool asked;   /* the node may have what was asked for */
    bool awaited; /* others wait there */
    uint64_t left_ms;
    hf_error error;
    hf_holder holder; /* only where the node is against */
} hf__paper;

/* One allocation, with the keys and the bytes of keys, note and who behind the papers. */
struct hf__poll {
    hf__quorum *quorum;
    hf_op *op; /* NULL: it has ended */
    hf__round round;
    hf__timer timer; /* when the silent ones are not waited for any more */
    bool graced;
    uint64_t sent_ns;
    uint64_t seed_us; /* of fences */
    uint32_t n_open;  /* papers at their nodes */
    uint8_t verb;
    uint32_t limit;
    uint32_t flags;
    uint32_t n_keys;
    hf_slice *keys;
    hf_slice note;
    hf_slice who;
    hf_token token;
    uint64_t ttl_ms;
    hf__poll *next_free;
    size_t room; /* for keys, note and who, behind the papers */
    hf__paper papers[];
};

/* ---------------------------------------------------------------- making one */

static hf_slice put(char **at, hf_slice s) {
    hf_slice copy = {*at, s.len};

    if (s.len > 0) memcpy(*at, s.data, s.len);
    *at += s.len;
    return copy;
}

static size_t head_size(const hf__quorum *q) {
    return sizeof(hf__poll) + q->n * sizeof(hf__paper);
}

/* One with so much room, used before or new; NULL when memory is out. */
static hf__poll *poll_get(hf__quorum *q, size_t room) {
    hf__poll *poll = q->free_polls;

    if (room <= USUAL_ROOM && poll != NULL) {
        q->free_polls = poll->next_free;
        q->n_free_polls--;
        return poll;
    }
    if (room < USUAL_ROOM) room = USUAL_ROOM;
    poll = hf__alloc(q->base.env.allocator, head_size(q) + room);
    if (poll != NULL) poll->room = room;
    return poll;
}

static void poll_put(hf__poll *poll) {
    hf__quorum *q = poll->quorum;

    if (poll->room != USUAL_ROOM || q->n_free_polls >= FREE_MAX) {
        hf__free(q->base.env.allocator, poll);
        return;
    }
    poll->next_free = q->free_polls;
    q->free_polls = poll;
    q->n_free_polls++;
}

void hf__quorum_polls_free(hf__quorum *q) {
    hf__poll *next;

    for (hf__poll *poll = q->free_polls; poll != NULL; poll = next) {
        next = poll->next_free;
        hf__free(q->base.env.allocator, poll);
    }
    q->free_polls = NULL;
}

static hf__poll *poll_new(hf__quorum *q, hf_op *op) {
    bool has_keys = op->keys != NULL && op->keys[0].len > 0;
    uint32_t n_keys = has_keys ? op->n_keys : 0;
    size_t head = head_size(q);
    size_t room = n_keys * sizeof(hf_slice) + op->note.len + op->who.len;
    hf__poll *poll;
    char *at;

    for (uint32_t i = 0; i < n_keys; i++)
        room += op->keys[i].len;
    poll = poll_get(q, room);
    if (poll == NULL) {
        hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return NULL;
    }
    room = poll->room;
    memset(poll, 0, sizeof *poll);
    poll->room = room;
    poll->quorum = q;
    poll->op = op;
    poll->verb = op->verb;
    poll->limit = op->limit;
    poll->flags = op->flags;
    poll->token = op->token;
    poll->ttl_ms = op->ttl_ms;
    poll->n_keys = n_keys;
    poll->keys = (hf_slice *)(void *)((char *)poll + head);
    at = (char *)(poll->keys + n_keys);
    for (uint32_t i = 0; i < n_keys; i++)
        poll->keys[i] = put(&at, op->keys[i]);
    poll->note = put(&at, op->note);
    poll->who = put(&at, op->who);
    return poll;
}

static void free_if_over(hf__poll *poll) {
    if (poll->op != NULL || poll->n_open > 0) return;
    hf__timer_stop(&poll->quorum->timers, &poll->timer);
    poll_put(poll);
}

/* ---------------------------------------------------------------- questions */

static void on_paper(hf_op *op);

static hf__unasked *unasked_at(const hf__poll *poll) {
    uint32_t at;

    memcpy(&at, poll->token.bytes, sizeof at);
    return &poll->quorum->unasked[at & (HF__UNASKED_MAX - 1)];
}

/* Which nodes a take passes over. */
static void note_unasked(const hf__poll *poll, const bool *asks) {
    hf__unasked *entry = unasked_at(poll);
    uint32_t nodes = 0;

    for (uint8_t i = 0; i < poll->round.n; i++)
        if (!asks[i]) nodes |= 1U << i;
    entry->nodes = hf__token_equal(&entry->token, &poll->token) ? entry->nodes & nodes : nodes;
    entry->token = poll->token;
}

static void note_asked(const hf__paper *paper) {
    hf__unasked *entry = unasked_at(paper->poll);

    if (hf__token_equal(&entry->token, &paper->poll->token)) entry->nodes &= ~(1U << paper->node);
}

/* False: not known. */
static bool was_never_asked(const hf__paper *paper) {
    const hf__unasked *entry = unasked_at(paper->poll);

    return hf__token_equal(&entry->token, &paper->poll->token) &&
           (entry->nodes & 1U << paper->node) != 0;
}

static void fill(hf__paper *paper, hf_verb verb) {
    const hf__poll *poll = paper->poll;
    hf_op *op = &paper->op;

    hf_op_init(op, verb, on_paper, paper);
    op->space = HF_LEASES;
    op->keys = poll->keys;
    op->n_keys = poll->n_keys;
    op->token = poll->token;
    op->ttl_ms = poll->ttl_ms;
    op->owner = &paper->vote;
    paper->vote = (hf__redis_vote){0};
    if (verb == HF_TAKE || verb == HF_KEEP) note_asked(paper);
}

static void note_sent(hf__paper *paper, uint8_t phase) {
    hf__poll *poll = paper->poll;

    paper->phase = phase;
    poll->n_open++;
    hf__quorum_asked(poll->quorum, paper->node);
}

/* Of an empty key: a sign of life. */
static void ask_ping(hf__paper *paper) {
    static const hf_slice none = {"", 0};
    hf__poll *poll = paper->poll;

    fill(paper, HF_GET);
    paper->op.space = HF_VALUES;
    paper->op.keys = &none;
    paper->op.n_keys = 1;
    note_sent(paper, ASKED);
    hf__store_submit(poll->quorum->nodes[paper->node].store, &paper->op);
}

static void ask_take(hf__paper *paper, uint32_t limit, uint8_t phase) {
    hf__poll *poll = paper->poll;
    hf__quorum_node *node = &poll->quorum->nodes[paper->node];
    hf_op *op = &paper->op;

    fill(paper, HF_TAKE);
    op->limit = limit;
    op->flags = poll->flags;
    op->note = poll->note;
    op->who = poll->who;
    op->holder = &paper->holder;
    op->fence_in = poll->seed_us;
    paper->asked = true;
    note_sent(paper, phase);
    hf__store_submit(node->store, op);
}

static void ask(hf__paper *paper) {
    hf__poll *poll = paper->poll;
    hf__quorum *q = poll->quorum;

    switch ((hf_verb)poll->verb) {
    case HF_TAKE:
        hf__quorum_probe(q, paper->node);
        ask_take(paper, poll->limit, ASKED);
        return;
    case HF_KEEP: hf__quorum_probe(q, paper->node); break;
    case HF_DROP: break;
    default: ask_ping(paper); return;
    }
    fill(paper, (hf_verb)poll->verb);
    note_sent(paper, ASKED);
    hf__store_submit(q->nodes[paper->node].store, &paper->op);
}

/* The fence that the round came to. */
static void write_fence(hf__paper *paper) {
    hf__poll *poll = paper->poll;

    fill(paper, HF_KEEP);
    paper->op.fence_in = poll->round.fence;
    note_sent(paper, WRITING);
    hf__redis_raise(poll->quorum->nodes[paper->node].store, &paper->op);
}

/* ---------------------------------------------------------------- the end of it */

/* What the nodes said, for who asked. */
static void tell_votes(const hf__poll *poll, hf_op *op) {
    const hf__quorum *q = poll->quorum;
    hf_vote *votes = hf__op_new_votes(op, q->n);

    for (uint8_t i = 0; votes != NULL && i < q->n; i++) {
        const hf__paper *paper = &poll->papers[i];
        hf_vote *vote = &votes[i];

        memcpy(vote->node, q->nodes[i].name, sizeof vote->node);
        vote->error.code = HF_OK;
        switch ((hf__ballot)poll->round.votes[i]) {
        case HF__VOTE_OPEN: vote->kind = 0; break;
        case HF__VOTE_FOR:
            vote->kind = HF_VOTE_FOR;
            if (poll->round.writings[i] != HF__VOTE_NONE) break;
            vote->kind = HF_VOTE_DOWN; /* it granted the take, and did not take its fence */
            vote->error = paper->error;
            break;
        case HF__VOTE_AGAINST:
            vote->kind = HF_VOTE_AGAINST;
            hf__error_set(&vote->error, op->verb == HF_TAKE ? HF_ETIMEDOUT : HF_ELOST, 0,
                          op->verb == HF_TAKE ? "%s holds it for another"
                                              : "%s does not hold it for this token",
                          q->nodes[i].name);
            break;
        case HF__VOTE_NONE:
            if (paper->error.code == HF_OK) {
                hf__quorum_why(q, i, vote);
            } else {
                vote->kind = HF_VOTE_DOWN;
                vote->error = paper->error;
            }
            break;
        }
    }
}

/* Whether both are against it, for the same holder. */
static bool names_the_same(const hf__poll *poll, uint8_t i, uint8_t j) {
    return poll->round.votes[j] == HF__VOTE_AGAINST &&
           memcmp(&poll->papers[i].holder.token, &poll->papers[j].holder.token, sizeof(hf_token)) ==
               0;
}

/* How many of those that are against it a majority needs. */
static uint8_t needed(uint8_t majority, uint8_t votes_for, uint8_t against) {
    uint8_t more = (uint8_t)(majority - votes_for);
    return more < against ? more : against;
}

/* When as many of the nodes that are against it as are needed may have changed their mind; and one
 * who is in the way, of those the one whom most nodes name. */
static void tell_refusal(hf__poll *poll, hf_op *op) {
    const hf__round *round = &poll->round;
    uint8_t majority = hf__majority(round->n);
    uint8_t votes_for = hf__round_count(round, HF__VOTE_FOR);
    hf__tally left = {0};
    uint8_t most = 0;
    bool is_split = true;

    for (uint8_t i = 0; i < round->n; i++) {
        hf__tally fences = {0};

        if (round->votes[i] != HF__VOTE_AGAINST) continue;
        hf__tally_add(&left, poll->papers[i].left_ms);
        /* Of many who share it, or wait, each node names one. */
        if (poll->papers[i].holder.limit != 1) is_split = false;
        for (uint8_t j = 0; j < round->n; j++)
            if (names_the_same(poll, i, j)) hf__tally_add(&fences, poll->papers[j].holder.fence);
        if (fences.n <= most) continue;
        most = fences.n;
        if (op->holder == NULL) continue;
        *op->holder = poll->papers[i].holder;
        op->holder->fence = poll->quorum->fencing ? hf__tally_reach(&fences, majority) : 0;
    }
    op->refused = HF_REFUSED_HELD;
    /* So many of them must go before there is a majority: all but those that last longest. */
    op->left_ms =
        hf__tally_reach(&left, (uint8_t)(left.n + 1 - needed(majority, votes_for, left.n)));
    /* Nobody has a majority: those who try must not go on doing so in step. */
    if (is_split && most < majority) {
        uint64_t pause_ms = hf__quorum_watch_split(poll->quorum, op);
        if (pause_ms < op->left_ms) op->left_ms = pause_ms;
    }
}

static void owe(const hf__paper *paper, bool again) {
    const hf__poll *poll = paper->poll;

    /* While a node is out, there is no end of those that it never heard of. */
    if (poll->verb == HF_DROP && was_never_asked(paper)) return;
    hf__quorum_owe(poll->quorum, paper->node, poll->keys, poll->n_keys, &poll->token, poll->ttl_ms,
                   again);
}

/* What a take that was not won may have got. Those that refused it have nothing. Where it is
 * refused by a majority, those that have not answered will most likely refuse it too: they are not
 * told before they have, so that the marks that a refusal leaves stay. */
static void take_back(const hf__poll *poll, hf__verdict verdict) {
    for (uint8_t i = 0; i < poll->round.n; i++) {
        hf__ballot vote = (hf__ballot)poll->round.votes[i];

        if (!poll->papers[i].asked || vote == HF__VOTE_AGAINST ||
            (vote == HF__VOTE_OPEN && verdict == HF__ROUND_REFUSED))
            continue;
        owe(&poll->papers[i], false);
    }
}

/* What the answer of one node to a renewal or release leaves to be done there, once the verdict is
 * known. */
static void settle(const hf__paper *paper, hf__verdict verdict) {
    const hf__poll *poll = paper->poll;
    uint8_t vote = poll->round.votes[paper->node];

    /* A renewal that was on its way elsewhere may put it back on a node that had missed it. */
    if (poll->verb == HF_DROP && verdict == HF__ROUND_WON && vote == HF__VOTE_AGAINST)
        owe(paper, true);
    /* One that has renewed what the others have not would keep it for nobody. */
    if (poll->verb == HF_KEEP && verdict == HF__ROUND_REFUSED && vote == HF__VOTE_FOR)
        owe(paper, false);
}

static void tell_owner(hf__poll *poll, hf_op *op, hf__verdict verdict) {
    op->applied = verdict == HF__ROUND_WON;
    if (!op->applied) op->refused = HF_REFUSED_OWNER;
    for (uint8_t i = 0; i < poll->round.n; i++)
        settle(&poll->papers[i], verdict);
}

/* Fills the op in. A take has its majority with its fence, or has got nothing. */
static void tell(hf__poll *poll, hf_op *op, hf__verdict verdict) {
    bool is_take = op->verb == HF_TAKE;
    bool failed = verdict == HF__ROUND_FAILED || verdict == HF__ROUND_LATE;

    if (failed || (op->flags & HF_OP_VOTES) != 0) tell_votes(poll, op);
    if (failed) {
        hf__quorum_fail(poll->quorum, op, verdict == HF__ROUND_LATE);
    } else if (is_take && verdict == HF__ROUND_WON) {
        op->applied = true;
        op->fence = poll->quorum->fencing ? poll->round.fence : 0;
        for (uint8_t i = 0; i < poll->round.n; i++)
            if (poll->papers[i].awaited) op->awaited = true;
    } else if (is_take) {
        tell_refusal(poll, op);
    } else if (op->verb == HF_KEEP || op->verb == HF_DROP) {
        tell_owner(poll, op, verdict);
    } else {
        op->applied = true;
    }
    /* What is wrong about the op itself was granted nowhere. */
    if (is_take && !op->applied && op->error.code != HF_EINVAL) take_back(poll, verdict);
}

/* In a callback only; the poll may be gone afterwards. */
static void conclude(hf__poll *poll, hf__verdict verdict) {
    hf_op *op = poll->op;

    tell(poll, op, verdict);
    poll->op = NULL;
    hf__timer_stop(&poll->quorum->timers, &poll->timer);
    hf__quorum_end(poll->quorum, op);
    free_if_over(poll);
}

/* ---------------------------------------------------------------- answers */

/* A majority has renewed it: those that have not got it are to have it again, now or when they say
 * so. */
static void repair(hf__poll *poll) {
    uint32_t limit = 1;

    if (poll->verb != HF_KEEP || poll->round.verdict != HF__ROUND_WON || poll->quorum->is_over)
        return;
    for (uint8_t i = 0; i < poll->round.n; i++)
        if (poll->papers[i].vote.is_shared) limit = HF_SHARED;
    for (uint8_t i = 0; i < poll->round.n; i++) {
        hf__paper *paper = &poll->papers[i];

        if (poll->round.votes[i] != HF__VOTE_AGAINST || paper->phase != ANSWERED ||
            !hf__quorum_can_ask(poll->quorum, i))
            continue;
        ask_take(paper, limit, REPAIRING);
    }
}

static void write_fences(hf__poll *poll) {
    for (uint8_t i = 0; i < poll->round.n; i++)
        if (hf__round_must_write(&poll->round, i) && poll->papers[i].phase == ANSWERED)
            write_fence(&poll->papers[i]);
}

static void act(hf__poll *poll, hf__verdict verdict) {
    /* Also where a majority has it in writing already: the more do, the more of them may forget. */
    if (verdict == HF__ROUND_WRITES || verdict == HF__ROUND_WON) write_fences(poll);
    if (verdict <= HF__ROUND_WRITES || poll->op == NULL) return;
    repair(poll);
    conclude(poll, verdict);
}

/* Whether the node's clock has gone on steadily, as a take or keep tells. */
static bool look_at_clock(const hf__paper *paper) {
    hf__quorum *q = paper->poll->quorum;

    if (hf__quorum_clock(q, paper->node, paper->poll->sent_ns, paper->vote.server_us)) return true;
    hf__quorum_look(q);
    return false;
}

/* What the answer of a node counts for: by its marker and its clock it may have no vote. */
static hf__ballot count(hf__paper *paper) {
    hf__poll *poll = paper->poll;
    hf__quorum *q = poll->quorum;
    const hf_op *op = &paper->op;
    bool is_take = op->verb == HF_TAKE;

    if (op->error.code != HF_OK) {
        paper->error = op->error;
        if ((op->error.flags & HF_OUTCOME_UNKNOWN) == 0) paper->asked = false;
        return HF__VOTE_NONE;
    }
    paper->awaited = op->awaited;
    paper->left_ms = op->left_ms;
    if (paper->vote.is_void) {
        paper->asked = false;
        hf__membership_changed(&q->membership, paper->node);
        hf__quorum_look(q);
        return HF__VOTE_NONE;
    }
    /* A drop, and a sign of life, are no promise. */
    if (is_take || op->verb == HF_KEEP) {
        if (!look_at_clock(paper)) return HF__VOTE_NONE;
        if (!hf__membership_votes(&q->membership, paper->node)) return HF__VOTE_NONE;
    }
    return op->applied ? HF__VOTE_FOR : HF__VOTE_AGAINST;
}

static void on_vote(hf__paper *paper) {
    hf__poll *poll = paper->poll;
    hf__ballot vote = count(paper);
    uint64_t fence = paper->op.fence;
    hf__verdict verdict;

    paper->phase = ANSWERED;
    if (poll->round.votes[paper->node] != HF__VOTE_OPEN) { /* it was not waited for */
        free_if_over(poll);
        return;
    }
    verdict = hf__round_vote(&poll->round, paper->node, vote, fence, hf__quorum_now(poll->quorum));
    if (poll->op == NULL) {
        if (poll->verb == HF_TAKE && verdict == HF__ROUND_REFUSED && vote != HF__VOTE_AGAINST &&
            paper->asked)
            owe(paper, false);
        if (verdict == HF__ROUND_WON) write_fences(poll);
        settle(paper, verdict);
        repair(poll);
        free_if_over(poll);
        return;
    }
    /* One that comes while the others write does so too. */
    if (verdict == HF__ROUND_OPEN && hf__round_must_write(&poll->round, paper->node))
        write_fence(paper);
    act(poll, verdict);
}

static void on_written(hf__paper *paper) {
    hf__poll *poll = paper->poll;
    bool written = paper->op.error.code == HF_OK && paper->op.applied;
    hf__verdict verdict;

    paper->phase = ANSWERED;
    if (paper->op.error.code != HF_OK) paper->error = paper->op.error;
    if (poll->op == NULL || poll->round.writings[paper->node] != HF__VOTE_OPEN) {
        free_if_over(poll);
        return;
    }
    verdict = hf__round_written(&poll->round, paper->node, written ? HF__VOTE_FOR : HF__VOTE_NONE,
                                hf__quorum_now(poll->quorum));
    act(poll, verdict);
}

static void on_paper(hf_op *op) {
    hf__paper *paper = op->data;
    hf__poll *poll = paper->poll;
    hf__quorum *q = poll->quorum;
    uint8_t phase = paper->phase;
    hf__scope *scope = q->base.env.scope;

    hf__scope_enter(scope);
    poll->n_open--;
    hf__quorum_answered(q, paper->node, op->error.code != HF_OK ? &op->error : NULL);
    if (phase == ASKED && poll->verb == HF_DROP && op->error.code != HF_OK) owe(paper, false);
    if (phase == ASKED) {
        on_vote(paper);
    } else if (phase == WRITING) {
        on_written(paper);
    } else {
        paper->phase = REPAIRED;
        if (op->error.code == HF_OK) (void)look_at_clock(paper);
        free_if_over(poll);
    }
    hf__scope_leave(scope);
}

/* ---------------------------------------------------------------- begin */

static uint64_t timeout_ms(const hf__poll *poll) {
    const hf__quorum *q = poll->quorum;
    uint64_t ms = hf__quorum_patience_ms(q, poll->ttl_ms);

    if (poll->verb == HF_TAKE || poll->verb == HF_KEEP) return ms;
    if (poll->verb == HF_DROP) return ms < DROP_LEAST_MS ? DROP_LEAST_MS : ms;
    return PING_MS;
}

/* The rest is not waited for. After a loop that was stuck the answers may be there already, unread:
 * it is looked once more, in a later turn. */
static void on_timeout(hf__timer *timer) {
    hf__poll *poll = hf__of(timer, hf__poll, timer);
    hf__quorum *q = poll->quorum;
    hf__verdict verdict = HF__ROUND_OPEN;
    uint64_t now = hf__quorum_now(q);

    if (!poll->graced) {
        poll->graced = true;
        hf__timer_start(&q->timers, timer, now + HF_NS_PER_MS);
        return;
    }
    for (uint8_t i = 0; i < poll->round.n && verdict < HF__ROUND_WON; i++) {
        hf__paper *paper = &poll->papers[i];
        hf__quorum_node *node = &q->nodes[i];
        bool votes = poll->round.votes[i] == HF__VOTE_OPEN;
        bool writes = hf__round_must_write(&poll->round, i);

        if (!votes && !writes) continue;
        if (node->answered_ns <= poll->sent_ns) node->silent = true;
        hf__error_set(&paper->error, HF_EUNAVAIL, HF_RETRYABLE, "%s did not answer within %llu ms",
                      node->name, (unsigned long long)timeout_ms(poll));
        verdict = votes ? hf__round_vote(&poll->round, i, HF__VOTE_NONE, 0, now)
                        : hf__round_written(&poll->round, i, HF__VOTE_NONE, now);
    }
    assert(verdict >= HF__ROUND_WON);
    act(poll, verdict);
}

/* What asks for no promise is for nodes without a vote too. */
static bool is_for_all(const hf__poll *poll) {
    return poll->verb != HF_TAKE && poll->verb != HF_KEEP;
}

/* Those who cannot be asked do not vote. A lease that ends is told to all that there is a
 * connection to; the others owe it. */
static hf__verdict count_out(hf__poll *poll, bool *asks) {
    hf__quorum *q = poll->quorum;
    hf__verdict verdict = HF__ROUND_OPEN;
    uint64_t now = poll->sent_ns;

    for (uint8_t i = 0; i < q->n; i++) {
        bool is_down = q->membership.nodes[i].standing == HF__NODE_DOWN;

        asks[i] = is_for_all(poll) ? !is_down : hf__quorum_can_ask(q, i);
        if (asks[i]) continue;
        if (poll->verb == HF_DROP) owe(&poll->papers[i], false);
        if (verdict < HF__ROUND_WON)
            verdict = hf__round_vote(&poll->round, i, HF__VOTE_NONE, 0, now);
        else
            poll->round.votes[i] = HF__VOTE_NONE;
    }
    return verdict;
}

/* Nothing was asked, and nothing will be; but for a release, which those that are there hear of. */
static void refuse(hf__poll *poll, hf__verdict verdict, const bool *asks) {
    hf_op *op = poll->op;

    for (uint8_t i = 0; poll->verb == HF_DROP && i < poll->round.n; i++)
        if (asks[i]) owe(&poll->papers[i], false);
    tell(poll, op, verdict);
    poll->op = NULL;
    free_if_over(poll);
}

bool hf__quorum_poll(hf__quorum *q, hf_op *op) {
    hf__poll *poll = poll_new(q, op);
    bool asks[HF__QUORUM_MAX] = {false};
    hf__verdict verdict;

    if (poll == NULL) return false;
    poll->sent_ns = hf__quorum_now(q);
    poll->seed_us = q->fencing ? hf__quorum_common_us(q) : 0;
    poll->timer.fire = on_timeout;
    /* Only a lease that is taken is worth nothing when its time is over. */
    hf__round_begin(&poll->round, q->n, q->fencing && op->verb == HF_TAKE,
                    op->verb == HF_TAKE ? hf__lease_bound(poll->sent_ns, op->ttl_ms) : HF_FOREVER,
                    HF__RULES_ALL);
    for (uint8_t i = 0; i < q->n; i++) {
        hf__paper *paper = &poll->papers[i];

        paper->poll = poll;
        paper->node = i;
        paper->phase = IDLE;
        paper->asked = paper->awaited = false;
        paper->left_ms = 0;
        paper->vote = (hf__redis_vote){0};
        paper->error.code = HF_OK;
    }
    verdict = count_out(poll, asks);
    if (hf__round_over(&poll->round)) {
        refuse(poll, verdict, asks);
        return false;
    }
    hf__timer_start(&q->timers, &poll->timer, hf__add_ms(poll->sent_ns, timeout_ms(poll)));
    if (op->verb == HF_TAKE) note_unasked(poll, asks);
    for (uint8_t i = 0; i < q->n; i++)
        if (asks[i]) ask(&poll->papers[i]);
    return true;
}
