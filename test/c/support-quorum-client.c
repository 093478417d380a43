/* What a client does: it goes by the decisions of the store, and sends what they say. */
#include "support-quorum-model.h"

#include "core/lease.h"
#include "store/quorum-store.h"

#include <assert.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)

/* ---------------------------------------------------------------- values */

uint64_t qm_now_ns(const qm_world *w) {
    return (uint64_t)w->now_ms * NS_PER_MS + w->order;
}

uint64_t qm_bound_ns(const qm_setup *setup, uint8_t client, int32_t sent_ms) {
    uint64_t sent_ns = (uint64_t)sent_ms * NS_PER_MS;
    uint64_t ttl_ms = (uint64_t)setup->ttl_ms[client];

    if ((setup->faults & QM_NO_MARGIN) != 0) return sent_ns + ttl_ms * NS_PER_MS;
    return hf__lease_bound(sent_ns, ttl_ms);
}

qm_marker qm_read_marker(const hf__marker *from) {
    if (from->run_id[0] == '\0') return (qm_marker){0};
    return (qm_marker){(uint8_t)(from->run_id[1] - '0'), (int32_t)from->max_ttl_ms,
                       (int32_t)(from->until_us / 1000)};
}

hf__marker qm_write_marker(const qm_marker *from) {
    hf__marker marker = {.run_id = ""};

    if (from->run == 0) return marker;
    marker.run_id[0] = 'r';
    marker.run_id[1] = (char)('0' + from->run);
    marker.max_ttl_ms = (uint64_t)from->max_ms;
    marker.until_us = (uint64_t)from->until_ms * 1000;
    return marker;
}

/* ---------------------------------------------------------------- membership */

/* The real thing wants its nodes in one value. */
static void gather(const qm_scene *s, uint8_t c, hf__membership *m) {
    m->n = QM_NODES;
    m->rules = s->setup->rules;
    m->max_ttl_ms = (uint64_t)s->setup->max_ms[c];
    for (uint8_t n = 0; n < QM_NODES; n++)
        m->nodes[n] = s->world->link[c][n].member;
}

static void scatter(qm_scene *s, uint8_t c, const hf__membership *m) {
    for (uint8_t n = 0; n < QM_NODES; n++)
        s->world->link[c][n].member = m->nodes[n];
}

static bool votes(const qm_scene *s, uint8_t c, uint8_t n) {
    hf__membership m;

    gather(s, c, &m);
    return hf__membership_votes(&m, n);
}

static void send_it(qm_scene *s, uint8_t c, uint8_t n, qm_message message) {
    qm_link *l = &s->world->link[c][n];

    if (!l->up) return;
    if (l->n_queue == QM_QUEUE) {
        s->world->cut = true;
        return;
    }
    message.sent_ns = qm_now_ns(s->world);
    l->queue[l->n_queue++] = message;
}

/* What the clocks of most nodes show that the client has seen: as hf__quorum_common_us. */
static uint32_t common_us(const qm_scene *s, uint8_t c) {
    hf__tally shown = {.n = 0};

    for (uint8_t n = 0; n < QM_NODES; n++) {
        const hf__node_clock *clock = &s->world->link[c][n].clock;
        int64_t apart_us = clock->low_us + (clock->high_us - clock->low_us) / 2;
        if (s->setup->jumps == 0)
            apart_us = (int64_t)(qm_clock_ms(s->world, n) - s->world->now_ms) * 1000;
        if (clock->known)
            hf__tally_add(&shown, (uint64_t)((int64_t)s->world->now_ms * 1000 + apart_us));
    }
    if (shown.n < hf__majority(QM_NODES)) return 0;
    return (uint32_t)hf__tally_reach(&shown,
                                     (uint8_t)(shown.n - (QM_NODES - hf__majority(QM_NODES))));
}

static void send_vote(qm_scene *s, uint8_t c, uint8_t n, qm_ask ask, bool awaited) {
    const qm_client *cl = &s->world->clients[c];
    qm_message message = {.ask = (uint8_t)ask, .token = cl->token, .awaited = awaited};

    if (ask == QM_ASK_TAKE && s->setup->fencing) message.seed = common_us(s, c);
    if (ask == QM_ASK_RAISE) message.fence = (uint32_t)cl->round.fence;
    message.marker = qm_read_marker(&s->world->link[c][n].member.marker);
    send_it(s, c, n, message);
}

static void take_out(qm_link *l, uint8_t at) {
    memmove(&l->queue[at], &l->queue[at + 1], sizeof l->queue[0] * (size_t)(l->n_queue - at - 1));
    memset(&l->queue[--l->n_queue], 0, sizeof l->queue[0]);
}

/* Nobody waits for votes any more; answers that have been given are as good as heard. */
static void ignore_votes(qm_scene *s, uint8_t c) {
    for (uint8_t n = 0; n < QM_NODES; n++) {
        qm_link *l = &s->world->link[c][n];
        for (uint8_t i = l->n_queue; i-- > 0;) {
            if (l->queue[i].ask == QM_ASK_MARK) continue;
            l->queue[i].awaited = false;
            if (l->queue[i].answered) take_out(l, i);
        }
    }
}

static void hear_errand(qm_scene *s, uint8_t c, uint8_t n, const qm_message *m);

static void send_errand(qm_scene *s, uint8_t c, uint8_t n, hf__errand errand,
                        const hf__membership *m) {
    qm_message message = {.ask = QM_ASK_MARK, .errand = (uint8_t)errand, .awaited = true};

    message.marker = qm_read_marker(&m->nodes[n].marker);
    message.span_ms = (int32_t)hf__membership_most_ms(m);
    send_it(s, c, n, message);
}

/* Where errands are answered at once, they do not wait for what is before them either. */
static bool answer_at_once(qm_scene *s, uint8_t c, uint8_t n) {
    qm_link *l = &s->world->link[c][n];
    qm_message message;

    if (!s->setup->prompt || s->world->cut) return false;
    message = l->queue[l->n_queue - 1];
    take_out(l, (uint8_t)(l->n_queue - 1));
    qm_serve(s, n, &message);
    hear_errand(s, c, n, &message);
    return true;
}

/* A look at a node that votes, for its clock alone: it is as if the timer had not come yet. What it
 * would show is left for the next take to find, which is the worse case. */
static bool is_watch(const hf__membership *m, uint8_t n) {
    for (uint8_t i = 0; i < QM_NODES; i++) {
        const hf__member_state *other = &m->nodes[i];
        bool is_own = strcmp(other->marker.run_id, other->run_id) == 0;
        if (other->standing == HF__NODE_UNKNOWN || other->standing == HF__NODE_BLANK) return false;
        if (other->standing == HF__NODE_OUT && (!is_own || other->jumped || other->is_short))
            return false;
    }
    return m->nodes[n].standing == HF__NODE_VOTES;
}

static void run_errands(qm_scene *s, uint8_t c) {
    bool again = true;

    for (int i = 0; again; i++) {
        assert(i < 20);
        again = false;
        /* Nodes that were started again are sorted behind the others: they come first. */
        for (uint8_t n = QM_NODES; n-- > 0;) {
            hf__membership m;
            hf__errand errand;

            if (!s->world->link[c][n].up) continue;
            gather(s, c, &m);
            errand = hf__membership_errand(&m, n, qm_now_ns(s->world));
            if (errand == HF__ERRAND_READ && is_watch(&m, n)) {
                errand = HF__ERRAND_NONE;
                m.nodes[n].errand = HF__ERRAND_NONE;
            }
            scatter(s, c, &m);
            if (errand == HF__ERRAND_NONE) continue;
            send_errand(s, c, n, errand, &m);
            again = answer_at_once(s, c, n) || again;
        }
    }
}

static void sample_clock(qm_scene *s, uint8_t c, uint8_t n, const qm_message *message) {
    qm_link *l = &s->world->link[c][n];
    uint64_t now_ns = qm_now_ns(s->world);
    hf__membership m;

    if (s->setup->jumps == 0) l->clock.known = true;
    if (s->setup->jumps == 0 || (s->setup->faults & QM_NO_CLOCKS) != 0) return;
    if (hf__node_clock_sample(&l->clock, message->sent_ns, now_ns,
                              (uint64_t)message->clock_ms * 1000))
        return;
    s->saw |= QM_SAW_JUMP;
    if (s->story != NULL) fprintf(s->story, "; its clock has jumped");
    gather(s, c, &m);
    hf__membership_jumped(&m, n, l->clock.jump_us, now_ns);
    scatter(s, c, &m);
}

static void hear_errand(qm_scene *s, uint8_t c, uint8_t n, const qm_message *message) {
    hf__membership m;
    hf__marker marker = qm_write_marker(&message->marker);

    sample_clock(s, c, n, message);
    if (!message->awaited) return;
    gather(s, c, &m);
    hf__membership_read(&m, n, &marker, (uint64_t)message->clock_ms * 1000, message->sent_ns,
                        qm_now_ns(s->world));
    scatter(s, c, &m);
}

/* ---------------------------------------------------------------- rounds */

/* What waits right before its drop does nothing but count. Where nothing is counted, and no
 * connection breaks between the two, it is as good as done. */
static void undo(const qm_scene *s, qm_link *l) {
    const qm_setup *setup = s->setup;

    if (s->world->links < setup->links || s->world->deaths < setup->deaths) return;
    for (uint8_t i = l->n_queue; i-- > 0;) {
        bool counts = l->queue[i].ask == QM_ASK_TAKE || l->queue[i].ask == QM_ASK_RAISE;
        if (l->queue[i].ask == QM_ASK_MARK || (counts && setup->fencing)) continue;
        take_out(l, i);
    }
}

static void drop_all(qm_scene *s, uint8_t c) {
    const qm_client *cl = &s->world->clients[c];

    for (uint8_t n = 0; n < QM_NODES; n++) {
        undo(s, &s->world->link[c][n]);
        send_it(s, c, n, (qm_message){.ask = QM_ASK_DROP, .token = cl->token});
    }
}

static void end_round(qm_client *cl) {
    cl->phase = QM_IDLE;
    cl->sent_ms = 0;
    memset(&cl->round, 0, sizeof cl->round);
}

static void give_back(qm_scene *s, uint8_t c, const char *why) {
    qm_client *cl = &s->world->clients[c];

    if (s->story != NULL) fprintf(s->story, "; c%d %s", c, why);
    ignore_votes(s, c);
    drop_all(s, c);
    end_round(cl);
    cl->holds = false;
    cl->bound_ms = 0;
}

static void check_fence(qm_scene *s, uint8_t c, uint32_t fence) {
    qm_world *w = s->world;
    bool shared = s->setup->shared[c];

    if (!s->setup->fencing) return;
    if (fence <= (shared ? w->last_exclusive : w->last)) w->broken = QM_FENCE_BACK;
    if (fence > w->last) w->last = fence;
    if (!shared && fence > w->last_exclusive) w->last_exclusive = fence;
}

static void win_take(qm_scene *s, uint8_t c) {
    qm_world *w = s->world;
    qm_client *cl = &w->clients[c];
    bool judged = (s->setup->rules & HF__RULE_VALIDITY) != 0;
    /* Who does not count from the first request counts from the last answer. */
    uint32_t fence = (uint32_t)cl->round.fence;
    uint64_t bound_ns = judged ? cl->round.bound_ns : qm_bound_ns(s->setup, c, w->now_ms);

    s->saw |= QM_SAW_WON | (w->last > 0 ? QM_SAW_NEXT : 0u);
    if (s->story != NULL) {
        fprintf(s->story, "; c%d HOLDS", c);
        if (s->setup->fencing) fprintf(s->story, " with fence %u", fence);
    }
    ignore_votes(s, c);
    end_round(cl);
    cl->holds = true;
    cl->bound_ms = (int32_t)(bound_ns / NS_PER_MS);
    check_fence(s, c, fence);
}

/* As hf__lease_grow: a lease is extended only while it lives. */
static void win_keep(qm_scene *s, uint8_t c) {
    qm_client *cl = &s->world->clients[c];
    int32_t bound_ms = (int32_t)(cl->round.bound_ns / NS_PER_MS);
    bool mine[QM_NODES];

    for (uint8_t n = 0; n < QM_NODES; n++)
        mine[n] = cl->round.votes[n] != HF__VOTE_AGAINST;
    s->saw |= QM_SAW_RENEWED;
    if (s->story != NULL) fprintf(s->story, "; c%d has renewed", c);
    if (bound_ms > cl->bound_ms) cl->bound_ms = bound_ms;
    end_round(cl);
    for (uint8_t n = 0; n < QM_NODES; n++)
        if (!mine[n] && votes(s, c, n)) send_vote(s, c, n, QM_ASK_TAKE, false);
}

static void follow(qm_scene *s, uint8_t c, hf__verdict verdict) {
    qm_client *cl = &s->world->clients[c];
    bool takes = cl->phase == QM_TAKING;

    if (verdict == HF__ROUND_OPEN && (s->setup->faults & QM_HALF) != 0 &&
        hf__round_count(&cl->round, HF__VOTE_FOR) >= QM_NODES / 2)
        verdict = HF__ROUND_WON;
    if (verdict == HF__ROUND_WRITES && (s->setup->faults & QM_ONE_RAISES) != 0 &&
        qm_now_ns(s->world) < cl->round.bound_ns)
        verdict = HF__ROUND_WON;
    switch (verdict) {
    case HF__ROUND_OPEN: break;
    case HF__ROUND_WRITES:
        for (uint8_t n = 0; n < QM_NODES; n++)
            if (hf__round_must_write(&cl->round, n)) send_vote(s, c, n, QM_ASK_RAISE, true);
        break;
    case HF__ROUND_WON:
        if (takes)
            win_take(s, c);
        else
            win_keep(s, c);
        break;
    case HF__ROUND_REFUSED: give_back(s, c, takes ? "is refused" : "has lost it"); break;
    case HF__ROUND_FAILED:
    case HF__ROUND_LATE:
        if (verdict == HF__ROUND_LATE) s->saw |= QM_SAW_LATE;
        if (takes)
            give_back(s, c, verdict == HF__ROUND_LATE ? "is too late" : "fails");
        else
            end_round(cl);
        break;
    }
}

static void vote(qm_scene *s, uint8_t c, uint8_t n, hf__ballot ballot, uint64_t fence) {
    qm_client *cl = &s->world->clients[c];
    bool was_writing = cl->round.writing;
    hf__verdict verdict = hf__round_vote(&cl->round, n, ballot, fence, qm_now_ns(s->world));

    if (was_writing && verdict == HF__ROUND_OPEN && hf__round_must_write(&cl->round, n))
        send_vote(s, c, n, QM_ASK_RAISE, true);
    follow(s, c, verdict);
}

static void begin_round(qm_scene *s, uint8_t c, qm_phase phase) {
    qm_client *cl = &s->world->clients[c];
    uint64_t bound_ns = qm_bound_ns(s->setup, c, s->world->now_ms);

    cl->phase = (uint8_t)phase;
    cl->sent_ms = s->world->now_ms;
    hf__round_begin(&cl->round, QM_NODES, s->setup->fencing && phase == QM_TAKING, bound_ns,
                    s->setup->rules);
    for (uint8_t n = 0; n < QM_NODES && cl->phase == phase; n++) {
        if (votes(s, c, n))
            send_vote(s, c, n, phase == QM_TAKING ? QM_ASK_TAKE : QM_ASK_KEEP, true);
        else
            vote(s, c, n, HF__VOTE_NONE, 0);
    }
}

void qm_begin_take(qm_scene *s, uint8_t c) {
    qm_client *cl = &s->world->clients[c];

    cl->token = (uint8_t)(1 + c * QM_ATTEMPTS + cl->attempts++);
    if (s->story != NULL) fprintf(s->story, "; its token is t%d", cl->token);
    begin_round(s, c, QM_TAKING);
}

void qm_begin_keep(qm_scene *s, uint8_t c) {
    ignore_votes(s, c);
    s->world->clients[c].renewals++;
    begin_round(s, c, QM_KEEPING);
}

void qm_release(qm_scene *s, uint8_t c) {
    give_back(s, c, "holds no more");
}

void qm_abandon(qm_scene *s, uint8_t c) {
    qm_client *cl = &s->world->clients[c];
    uint8_t phase = cl->phase;

    for (uint8_t n = 0; n < QM_NODES && cl->phase == phase; n++)
        if (cl->round.votes[n] == HF__VOTE_OPEN) vote(s, c, n, HF__VOTE_NONE, 0);
    for (uint8_t n = 0; n < QM_NODES && cl->phase == phase; n++)
        if (hf__round_must_write(&cl->round, n))
            follow(s, c, hf__round_written(&cl->round, n, HF__VOTE_NONE, qm_now_ns(s->world)));
    assert(cl->phase == QM_IDLE);
}

/* ---------------------------------------------------------------- answers */

/* By its marker and its clock a node may have no vote. A fence that it has in writing is no
 * promise: that it still had its marker, and the holder its lease, was seen by the node. */
static hf__ballot count(qm_scene *s, uint8_t c, uint8_t n, const qm_message *message) {
    if (message->unmarked) {
        hf__membership m;
        gather(s, c, &m);
        hf__membership_changed(&m, n);
        scatter(s, c, &m);
        return HF__VOTE_NONE;
    }
    if (message->ask == QM_ASK_RAISE)
        return message->ballot == HF__VOTE_FOR ? HF__VOTE_FOR : HF__VOTE_NONE;
    if (message->ask == QM_ASK_TAKE || (s->setup->faults & QM_BLIND_KEEP) == 0)
        sample_clock(s, c, n, message);
    return votes(s, c, n) ? (hf__ballot)message->ballot : HF__VOTE_NONE;
}

static void hear_vote(qm_scene *s, uint8_t c, uint8_t n, const qm_message *message) {
    qm_client *cl = &s->world->clients[c];
    hf__ballot ballot = count(s, c, n, message);

    if (ballot == HF__VOTE_FOR && s->world->nodes[n].memory.marker.until_ms != 0)
        s->saw |= QM_SAW_BACK;
    if (cl->phase == QM_IDLE) { /* a keep that was won without it */
        if (ballot == HF__VOTE_AGAINST && cl->holds && votes(s, c, n))
            send_vote(s, c, n, QM_ASK_TAKE, false);
    } else if (message->ask == QM_ASK_RAISE) {
        follow(s, c, hf__round_written(&cl->round, n, ballot, qm_now_ns(s->world)));
    } else {
        vote(s, c, n, ballot, message->fence);
    }
}

void qm_hear(qm_scene *s, uint8_t c, uint8_t n) {
    qm_link *l = &s->world->link[c][n];
    qm_message message = l->queue[0];

    assert(l->n_queue > 0 && message.answered);
    take_out(l, 0);
    if (message.ask == QM_ASK_MARK)
        hear_errand(s, c, n, &message);
    else if (message.awaited)
        hear_vote(s, c, n, &message);
    run_errands(s, c);
}

void qm_miss(qm_scene *s, uint8_t c, uint8_t n) {
    qm_link *l = &s->world->link[c][n];
    hf__membership m;

    for (uint8_t i = 0; i < l->n_queue; i++)
        if (l->queue[i].ask == QM_ASK_MARK) l->queue[i].awaited = false;
    gather(s, c, &m);
    hf__membership_missed(&m, n, qm_now_ns(s->world));
    scatter(s, c, &m);
    run_errands(s, c);
}

/* ---------------------------------------------------------------- connections, time */

static void lose_votes(qm_scene *s, uint8_t c, uint8_t n) {
    qm_client *cl = &s->world->clients[c];

    if (cl->phase == QM_IDLE) return;
    if (cl->round.votes[n] == HF__VOTE_OPEN)
        vote(s, c, n, HF__VOTE_NONE, 0);
    else if (hf__round_must_write(&cl->round, n))
        follow(s, c, hf__round_written(&cl->round, n, HF__VOTE_NONE, qm_now_ns(s->world)));
}

void qm_link_down(qm_scene *s, uint8_t c, uint8_t n) {
    qm_link *l = &s->world->link[c][n];
    hf__membership m;

    gather(s, c, &m);
    hf__membership_down(&m, n);
    scatter(s, c, &m);
    l->up = false;
    if ((s->setup->faults & QM_SHORT_CLOCKS) != 0) memset(&l->clock, 0, sizeof l->clock);
    memset(l->queue, 0, sizeof l->queue);
    l->n_queue = 0;
    lose_votes(s, c, n);
    run_errands(s, c);
}

void qm_link_up(qm_scene *s, uint8_t c, uint8_t n) {
    qm_marker run = {.run = s->world->nodes[n].run};
    hf__marker text = qm_write_marker(&run);
    hf__membership m;

    s->world->link[c][n].up = true;
    gather(s, c, &m);
    hf__membership_up(&m, n, text.run_id, qm_now_ns(s->world));
    scatter(s, c, &m);
    run_errands(s, c);
}

void qm_client_ticks(qm_scene *s, uint8_t c) {
    qm_client *cl = &s->world->clients[c];

    if (cl->holds && s->world->now_ms >= cl->bound_ms) give_back(s, c, "has no time left");
    run_errands(s, c);
}

void qm_client_dies(qm_scene *s, uint8_t c) {
    qm_client *cl = &s->world->clients[c];
    hf__membership m;

    hf__membership_init(&m, QM_NODES, (uint64_t)s->setup->max_ms[c], s->setup->rules);
    scatter(s, c, &m);
    ignore_votes(s, c);
    end_round(cl);
    cl->holds = false;
    cl->bound_ms = 0;
    for (uint8_t n = 0; n < QM_NODES; n++) {
        qm_link *l = &s->world->link[c][n];
        l->up = false;
        memset(l->queue, 0, sizeof l->queue);
        l->n_queue = 0;
        memset(&l->clock, 0, sizeof l->clock);
    }
}
