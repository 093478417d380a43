/*
 * Worlds as short texts of bytes. What cannot matter any more is left out, times are told from now
 * on, and the nodes, which are all alike, are sorted: so worlds that go on in the same way become
 * one text. A single description serves both ways.
 */
#include "support-quorum-model.h"

#include <assert.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)

enum {
    LONG_AGO_MS = 4000, /* longer than any pace of the membership */
    NEVER = INT16_MIN
};

typedef struct io {
    uint8_t *at;
    bool packs;
    const qm_setup *setup;
    qm_world *w;
} io;

/* ---------------------------------------------------------------- numbers */

static void u8(io *o, uint8_t *v) {
    if (o->packs)
        *o->at = *v;
    else
        *v = *o->at;
    o->at++;
}

static void flag(io *o, bool *v) {
    uint8_t byte = *v;

    u8(o, &byte);
    *v = byte != 0;
}

static void i16(io *o, int32_t *v) {
    uint8_t low = (uint8_t)((uint32_t)*v & 0xff);
    uint8_t high = (uint8_t)(((uint32_t)*v >> 8) & 0xff);

    assert(!o->packs || (*v >= INT16_MIN && *v <= INT16_MAX));
    u8(o, &low);
    u8(o, &high);
    *v = (int16_t)(uint16_t)(low | high << 8);
}

/* A time; 0 means that there is none, and stays so. */
static void time_ms(io *o, int32_t *v, int32_t now_ms) {
    int32_t from_now = *v != 0 ? *v - now_ms : NEVER;

    i16(o, &from_now);
    if (!o->packs) *v = from_now != NEVER ? from_now + now_ms : 0;
}

static void time_ns(io *o, uint64_t *v) {
    int32_t ms = (int32_t)(*v / NS_PER_MS);

    time_ms(o, &ms, o->w->now_ms);
    if (!o->packs) *v = (uint64_t)ms * NS_PER_MS;
}

/* One whose order among others of the same tick counts, where that is explored. */
static void instant_ns(io *o, uint64_t *v) {
    uint8_t order = (uint8_t)(*v % NS_PER_MS);

    time_ns(o, v);
    if (!o->setup->ordered) return;
    u8(o, &order);
    if (!o->packs) *v += order;
}

/* One that comes from a clock is told from now on, too. */
static void fence(io *o, uint32_t *v) {
    uint32_t now_us = (uint32_t)o->w->now_ms * 1000;
    uint32_t told = *v < QM_FEW ? *v : *v - now_us + UINT32_C(0x80000000);

    if (!o->setup->fencing) return;
    for (int i = 0; i < 4; i++) {
        uint8_t byte = (uint8_t)(told >> (8 * i));
        u8(o, &byte);
        if (!o->packs) told = (told & ~(UINT32_C(0xff) << (8 * i))) | (uint32_t)byte << (8 * i);
    }
    if (!o->packs) *v = told < QM_FEW ? told : told - UINT32_C(0x80000000) + now_us;
}

/* ---------------------------------------------------------------- nodes */

static void pack_marker(io *o, qm_marker *m, uint8_t n) {
    u8(o, &m->run);
    if (m->run == 0) return;
    i16(o, &m->max_ms);
    time_ms(o, &m->until_ms, qm_clock_ms(o->w, n));
}

static void pack_leases(io *o, int32_t *until_ms, uint8_t n) {
    uint8_t count = 0;

    for (uint8_t t = 1; t < QM_TOKENS; t++)
        count = (uint8_t)(count + (until_ms[t] != 0));
    u8(o, &count);
    for (uint8_t t = 1, i = 0; i < count; t++) {
        uint8_t token = t;
        if (o->packs && until_ms[t] == 0) continue;
        u8(o, &token);
        time_ms(o, &until_ms[token], qm_clock_ms(o->w, n));
        i++;
    }
}

static void pack_memory(io *o, qm_memory *m, uint8_t n) {
    pack_marker(o, &m->marker, n);
    u8(o, &m->epoch);
    fence(o, &m->counter);
    pack_leases(o, m->until_ms, n);
}

static bool has_offsets(const qm_setup *setup) {
    return setup->jumps > 0 || setup->apart_ms[0] != 0;
}

static void pack_node(io *o, uint8_t n) {
    qm_node *node = &o->w->nodes[n];

    u8(o, &node->run);
    if (o->setup->rate[0] != 0)
        i16(o, &node->rate);
    else
        node->rate = 1000;
    if (has_offsets(o->setup)) i16(o, &node->offset_ms);
    pack_memory(o, &node->memory, n);
    if ((o->setup->losses & (1u << QM_OLD)) != 0) pack_memory(o, &node->disk, n);
}

/* ---------------------------------------------------------------- connections */

static void pack_message(io *o, qm_message *m, uint8_t n) {
    u8(o, &m->ask);
    u8(o, &m->token);
    u8(o, &m->errand);
    flag(o, &m->awaited);
    flag(o, &m->answered);
    if (m->ask != QM_ASK_DROP) pack_marker(o, &m->marker, n);
    if (m->ask == QM_ASK_MARK) i16(o, &m->span_ms);
    fence(o, &m->fence);
    if (m->ask == QM_ASK_TAKE && !m->answered) fence(o, &m->seed);
    if (m->answered) {
        flag(o, &m->aged);
        flag(o, &m->unmarked);
        u8(o, &m->ballot);
        if (o->setup->jumps > 0 || m->ask == QM_ASK_MARK)
            time_ms(o, &m->clock_ms, qm_clock_ms(o->w, n));
    }
    if (m->ask == QM_ASK_MARK || o->setup->jumps > 0) instant_ns(o, &m->sent_ns);
}

static void pack_member(io *o, hf__member_state *m, uint8_t n) {
    qm_marker marker = qm_read_marker(&m->marker);
    int32_t jump_ms = (int32_t)(m->jump_us / 1000);
    qm_marker run = {.run = m->run_id[0] != '\0' ? (uint8_t)(m->run_id[1] - '0') : 0};
    int32_t max_ms = (int32_t)m->max_ttl_ms;

    u8(o, &m->standing);
    u8(o, &m->outage);
    u8(o, &m->errand);
    flag(o, &m->coming);
    flag(o, &m->jumped);
    flag(o, &m->is_short);
    u8(o, &m->misses);
    u8(o, &run.run);
    pack_marker(o, &marker, n);
    i16(o, &max_ms);
    if (o->setup->jumps > 0) {
        i16(o, &jump_ms);
        time_ns(o, &m->jump_ns);
    }
    instant_ns(o, &m->asked_ns);
    instant_ns(o, &m->linked_ns);
    time_ns(o, &m->blank_ns);
    time_ns(o, &m->until_ns);
    time_ns(o, &m->again_ns);
    instant_ns(o, &m->loss_ns);
    if (o->packs) return;
    m->marker = qm_write_marker(&marker);
    m->max_ttl_ms = (uint64_t)max_ms;
    m->jump_us = (int64_t)jump_ms * 1000;
    memcpy(m->run_id, qm_write_marker(&run).run_id, sizeof m->run_id);
}

/* Clocks in the model do not drift where they jump. */
static void pack_clock(io *o, hf__node_clock *c) {
    int32_t low_ms = (int32_t)((c->low_us + 60000000) / 1000) - 60000;
    int32_t high_ms = (int32_t)((c->high_us + 60000999) / 1000) - 60000;

    flag(o, &c->known);
    i16(o, &low_ms);
    i16(o, &high_ms);
    if (o->packs) return;
    c->low_us = (int64_t)low_ms * 1000;
    c->high_us = (int64_t)high_ms * 1000;
    c->at_ns = qm_now_ns(o->w);
}

static void pack_link(io *o, qm_link *l, uint8_t n) {
    flag(o, &l->up);
    u8(o, &l->n_queue);
    for (uint8_t i = 0; i < l->n_queue; i++)
        pack_message(o, &l->queue[i], n);
    u8(o, &l->n_stragglers);
    for (uint8_t i = 0; i < l->n_stragglers; i++)
        pack_message(o, &l->stragglers[i], n);
    pack_member(o, &l->member, n);
    if (o->setup->jumps > 0)
        pack_clock(o, &l->clock);
    else if (o->setup->fencing)
        flag(o, &l->clock.known);
}

/* A proposal counts until the fence is known, and it is known whether this node has it. */
static void pack_proposal(io *o, hf__round *round, uint8_t n) {
    uint32_t proposal = (uint32_t)round->proposals[n];

    if (round->writing || round->votes[n] != HF__VOTE_FOR) proposal = 0;
    fence(o, &proposal);
    round->proposals[n] = proposal;
}

/* All that is of one node, wherever it is kept. */
static void pack_column(io *o, uint8_t n) {
    pack_node(o, n);
    for (uint8_t c = 0; c < o->setup->clients; c++) {
        qm_client *cl = &o->w->clients[c];
        pack_link(o, &o->w->link[c][n], n);
        if (cl->phase == QM_IDLE) continue;
        u8(o, &cl->round.votes[n]);
        if (!cl->round.fencing) continue;
        u8(o, &cl->round.writings[n]);
        pack_proposal(o, &cl->round, n);
    }
}

/* ---------------------------------------------------------------- the rest */

static void pack_client(io *o, uint8_t c) {
    qm_client *cl = &o->w->clients[c];
    uint32_t greatest = (uint32_t)cl->round.fence;

    u8(o, &cl->phase);
    flag(o, &cl->holds);
    u8(o, &cl->attempts);
    u8(o, &cl->renewals);
    if (cl->holds) time_ms(o, &cl->bound_ms, o->w->now_ms);
    if (cl->holds || cl->phase != QM_IDLE) u8(o, &cl->token);
    if (cl->phase == QM_IDLE) return;
    time_ms(o, &cl->sent_ms, o->w->now_ms);
    flag(o, &cl->round.writing);
    fence(o, &greatest);
    if (o->packs) return;
    cl->round.n = QM_NODES;
    cl->round.rules = o->setup->rules;
    cl->round.fencing = o->setup->fencing && cl->phase == QM_TAKING;
    cl->round.fence = greatest;
    cl->round.bound_ns = qm_bound_ns(o->setup, c, cl->sent_ms);
}

static bool is_absolute(const qm_setup *setup) {
    return setup->rate[0] != 0;
}

static void pack_head(io *o) {
    qm_world *w = o->w;
    int32_t since_ms = w->now_ms - QM_START_MS;

    if (is_absolute(o->setup)) i16(o, &since_ms);
    if (!o->packs) w->now_ms = QM_START_MS + (is_absolute(o->setup) ? since_ms : 0);
    u8(o, &w->ticks);
    u8(o, &w->order);
    flag(o, &w->fresh);
    u8(o, &w->late);
    u8(o, &w->links);
    u8(o, &w->crashes);
    u8(o, &w->jumps);
    u8(o, &w->saves);
    u8(o, &w->deaths);
    u8(o, &w->repeats);
    fence(o, &w->last);
    fence(o, &w->last_exclusive);
    for (uint8_t c = 0; c < o->setup->clients; c++)
        pack_client(o, c);
}

/* ---------------------------------------------------------------- what does not matter */

/* Markers whose time has come differ in when it came, and only so far as they are the same or not:
 * the latest of them counts as of 1 ms ago, the next of 2 ms ago. */
typedef struct past {
    uint64_t us[32];
    uint8_t n;
} past;

static void note_past(past *p, uint64_t until_us, uint64_t clock_us) {
    uint8_t at = 0;

    if (until_us == 0 || until_us > clock_us) return;
    while (at < p->n && p->us[at] > until_us)
        at++;
    if (at < p->n && p->us[at] == until_us) return;
    assert(p->n < 32);
    memmove(&p->us[at + 1], &p->us[at], sizeof p->us[0] * (size_t)(p->n - at));
    p->us[at] = until_us;
    p->n++;
}

/* `clock_us` is less than it is where a clock that jumps back may bring some to matter again. */
static uint64_t place_past(const past *p, uint64_t until_us, uint64_t clock_us) {
    for (uint8_t i = 0; i < p->n; i++)
        if (p->us[i] == until_us) return clock_us - (i + 1u) * 1000u;
    return until_us;
}

typedef void (*marker_visit)(past *p, int32_t *until_ms, uint64_t *until_us, uint64_t clock_us);

static void visit_note(past *p, int32_t *until_ms, uint64_t *until_us, uint64_t clock_us) {
    note_past(p, until_ms != NULL ? (uint64_t)*until_ms * 1000 : *until_us, clock_us);
}

static void visit_place(past *p, int32_t *until_ms, uint64_t *until_us, uint64_t clock_us) {
    if (until_us != NULL) *until_us = place_past(p, *until_us, clock_us);
    if (until_ms != NULL)
        *until_ms = (int32_t)(place_past(p, (uint64_t)*until_ms * 1000, clock_us) / 1000);
}

static void visit_markers(qm_world *w, uint8_t n, int32_t back_ms, past *p, marker_visit visit) {
    uint64_t clock_us = (uint64_t)(qm_clock_ms(w, n) - back_ms) * 1000;

    visit(p, &w->nodes[n].memory.marker.until_ms, NULL, clock_us);
    visit(p, &w->nodes[n].disk.marker.until_ms, NULL, clock_us);
    for (uint8_t c = 0; c < QM_CLIENTS; c++) {
        qm_link *l = &w->link[c][n];
        visit(p, NULL, &l->member.marker.until_us, clock_us);
        for (uint8_t i = 0; i < l->n_queue; i++)
            visit(p, &l->queue[i].marker.until_ms, NULL, clock_us);
        for (uint8_t i = 0; i < l->n_stragglers; i++)
            visit(p, &l->stragglers[i].marker.until_ms, NULL, clock_us);
    }
}

/* When a node that votes was read matters only so far as others have lost their memory since. */
static uint64_t forget_reading(const qm_world *w, uint8_t c, uint64_t asked_ns) {
    uint64_t told_ns = qm_now_ns(w) - NS_PER_MS;

    for (uint8_t n = 0; n < QM_NODES; n++) {
        uint64_t loss_ns = w->link[c][n].member.loss_ns;
        if ((loss_ns > asked_ns) != (loss_ns > told_ns)) return asked_ns;
    }
    return told_ns;
}

static void forget_down(hf__member_state *m, uint64_t now_ns) {
    hf__member_state down = {.coming = m->coming, .jumped = m->jumped};

    down.max_ttl_ms = m->max_ttl_ms;
    down.jump_us = m->jump_us;
    down.jump_ns = m->jump_ns;
    if (m->jumped) {
        down.until_ns = m->until_ns > now_ns ? m->until_ns : now_ns;
        down.loss_ns = now_ns;
    }
    *m = down;
}

static void forget_times(qm_world *w, uint8_t c, uint8_t n, bool ordered) {
    hf__member_state *m = &w->link[c][n].member;
    uint64_t now_ns = qm_now_ns(w);
    uint64_t long_ago_ns = (uint64_t)(w->now_ms - LONG_AGO_MS) * NS_PER_MS;

    if (m->standing != HF__NODE_OUT && !m->jumped) m->until_ns = 0;
    if (m->standing != HF__NODE_OUT) m->outage = HF__OUT_NOT;
    if (m->standing == HF__NODE_VOTES) m->loss_ns = 0;
    if (m->standing != HF__NODE_BLANK) m->blank_ns = 0;
    if (m->again_ns <= now_ns) m->again_ns = 0;
    if (m->until_ns != 0 && m->until_ns < now_ns) m->until_ns = now_ns;
    if (m->blank_ns != 0 && m->blank_ns < long_ago_ns) m->blank_ns = long_ago_ns;
    if (ordered) return;
    if (m->loss_ns != 0 && m->loss_ns < long_ago_ns) m->loss_ns = long_ago_ns;
    if (m->standing == HF__NODE_VOTES) {
        m->asked_ns = forget_reading(w, c, m->asked_ns);
        if (m->asked_ns < long_ago_ns) m->asked_ns = long_ago_ns - NS_PER_MS;
        m->linked_ns = m->asked_ns;
        return;
    }
    if (m->linked_ns < long_ago_ns) m->linked_ns = long_ago_ns;
    if (m->asked_ns < m->linked_ns) m->asked_ns = m->linked_ns - NS_PER_MS;
}

/* The times of losses first: readings are compared with them. */
static void forget_members(const qm_setup *setup, qm_world *w) {
    uint64_t long_ago_ns = (uint64_t)(w->now_ms - LONG_AGO_MS) * NS_PER_MS;

    for (uint8_t c = 0; c < setup->clients; c++) {
        for (uint8_t n = 0; n < QM_NODES; n++) {
            hf__member_state *m = &w->link[c][n].member;
            /* All jumps that are seen here are seen within the time in which each is looked at. */
            if (m->jump_ns != 0 && m->jump_ns < long_ago_ns) m->jump_ns = long_ago_ns;
            if (m->standing == HF__NODE_DOWN) forget_down(m, qm_now_ns(w));
            if (m->standing == HF__NODE_VOTES) m->loss_ns = 0;
        }
        for (uint8_t n = 0; n < QM_NODES; n++)
            if (w->link[c][n].member.standing != HF__NODE_DOWN)
                forget_times(w, c, n, setup->ordered);
    }
}

/* A round that is long over is late, however late. */
static void forget_ages(const qm_setup *setup, qm_world *w) {
    int32_t long_ago_ms = w->now_ms - LONG_AGO_MS * 2;

    for (uint8_t c = 0; c < setup->clients; c++) {
        qm_client *cl = &w->clients[c];
        if (cl->phase == QM_IDLE || cl->sent_ms >= long_ago_ms) continue;
        cl->sent_ms = long_ago_ms;
        cl->round.bound_ns = qm_bound_ns(setup, c, long_ago_ms);
    }
    for (uint8_t i = 0; i < QM_CLIENTS * QM_NODES && !setup->ordered; i++) {
        qm_link *l = &w->link[i / QM_NODES][i % QM_NODES];
        int32_t clock_ms = qm_clock_ms(w, i % QM_NODES) - LONG_AGO_MS * 2;
        for (uint8_t k = 0; k < l->n_queue; k++) {
            qm_message *m = &l->queue[k];
            uint64_t least_ns = (uint64_t)long_ago_ms * NS_PER_MS;
            if (m->sent_ns < least_ns) m->sent_ns = least_ns;
            if (m->answered && m->clock_ms < clock_ms) m->clock_ms = clock_ms;
        }
    }
}

/* Where a node has a counter, and cannot lose it before its requests, nobody asks for a seed. */
static void forget_seeds(const qm_setup *setup, qm_world *w) {
    bool may_wipe = w->crashes < setup->crashes && (setup->losses & (1u << QM_WIPED)) != 0;

    for (uint8_t i = 0; i < QM_CLIENTS * QM_NODES && !may_wipe; i++) {
        qm_link *l = &w->link[i / QM_NODES][i % QM_NODES];
        const qm_node *node = &w->nodes[i % QM_NODES];
        if (node->memory.epoch != node->run) continue;
        for (uint8_t k = 0; k < l->n_queue; k++)
            l->queue[k].seed = 0;
        for (uint8_t k = 0; k < l->n_stragglers; k++)
            l->stragglers[k].seed = 0;
    }
}

static void forget(const qm_setup *setup, qm_world *w) {
    int32_t back_ms = (setup->jumps - w->jumps) * setup->jump_ms;
    bool aged = false;

    for (uint8_t i = 0; i < QM_CLIENTS * QM_NODES; i++)
        aged = aged || w->link[i / QM_NODES][i % QM_NODES].queue[0].aged;
    w->fresh = w->fresh && aged;
    forget_ages(setup, w);
    forget_seeds(setup, w);
    forget_members(setup, w);
    for (uint8_t n = 0; n < QM_NODES; n++) {
        qm_node *node = &w->nodes[n];
        past p = {.n = 0};

        if (node->memory.epoch != node->run) node->memory.epoch = 0;
        node->disk.epoch = 0;
        if (w->crashes >= setup->crashes) memset(&node->disk, 0, sizeof node->disk);
        for (uint8_t t = 1; t < QM_TOKENS; t++)
            if (node->disk.until_ms[t] <= qm_clock_ms(w, n)) node->disk.until_ms[t] = 0;
        visit_markers(w, n, back_ms, &p, visit_note);
        if (p.n > 0) visit_markers(w, n, back_ms, &p, visit_place);
    }
}

/* ---------------------------------------------------------------- instants */

/* Instants within a tick are numbered anew: only their order counts, and only within a client. */
typedef struct instants {
    uint64_t *of[64];
    int n;
} instants;

static void collect(qm_world *w, uint8_t c, instants *all) {
    all->n = 0;
    for (uint8_t n = 0; n < QM_NODES; n++) {
        qm_link *l = &w->link[c][n];
        if (l->member.asked_ns != 0) all->of[all->n++] = &l->member.asked_ns;
        if (l->member.linked_ns != 0) all->of[all->n++] = &l->member.linked_ns;
        if (l->member.loss_ns != 0) all->of[all->n++] = &l->member.loss_ns;
        for (uint8_t i = 0; i < l->n_queue; i++)
            if (l->queue[i].ask == QM_ASK_MARK) all->of[all->n++] = &l->queue[i].sent_ns;
    }
}

/* How many different ones of the same tick, or of those that are long ago, are before it. */
static uint64_t rank_instant(const instants *all, uint64_t at_ns, uint64_t long_ago_ns) {
    bool is_old = at_ns < long_ago_ns;
    uint64_t rank = 1;

    for (int j = 0; j < all->n; j++) {
        uint64_t other_ns = *all->of[j];
        bool counts = is_old || other_ns / NS_PER_MS == at_ns / NS_PER_MS;
        for (int k = 0; k < j; k++)
            counts = counts && *all->of[k] != other_ns;
        rank += counts && other_ns < at_ns;
    }
    return rank;
}

static void number_instants(const qm_setup *setup, qm_world *w) {
    uint64_t long_ago_ns = (uint64_t)(w->now_ms - LONG_AGO_MS) * NS_PER_MS;
    uint8_t last = 0;

    for (uint8_t c = 0; c < setup->clients; c++) {
        instants all;
        uint64_t numbered[64];

        collect(w, c, &all);
        for (int i = 0; i < all.n; i++) {
            uint64_t at_ns = *all.of[i];
            uint64_t rank = rank_instant(&all, at_ns, long_ago_ns);
            bool is_old = at_ns < long_ago_ns;
            numbered[i] = is_old ? long_ago_ns - (64 - rank) * NS_PER_MS
                                 : at_ns / NS_PER_MS * NS_PER_MS + rank;
            if (at_ns / NS_PER_MS == (uint64_t)w->now_ms && rank > last) last = (uint8_t)rank;
        }
        for (int i = 0; i < all.n; i++)
            *all.of[i] = numbered[i];
    }
    w->order = last;
}

/* ---------------------------------------------------------------- both ways */

size_t qm_pack(const qm_setup *setup, qm_world *w, uint8_t *out, uint8_t *order) {
    uint8_t columns[QM_NODES][QM_PACKED_MAX / 4];
    size_t sizes[QM_NODES];
    uint8_t by[QM_NODES] = {0, 1, 2};
    io o = {.packs = true, .setup = setup, .w = w};

    forget(setup, w);
    if (setup->ordered) number_instants(setup, w);
    for (uint8_t n = 0; n < QM_NODES; n++) {
        memset(columns[n], 0, 64);
        o.at = columns[n];
        pack_column(&o, n);
        sizes[n] = (size_t)(o.at - columns[n]);
        assert(sizes[n] <= sizeof columns[n]);
    }
    for (uint8_t i = 1; i < QM_NODES; i++) {
        for (uint8_t j = i; j > 0; j--) {
            uint8_t a = by[j - 1];
            uint8_t b = by[j];
            size_t shorter = sizes[a] < sizes[b] ? sizes[a] : sizes[b];
            int differ = memcmp(columns[a], columns[b], shorter);
            if (differ < 0 || (differ == 0 && sizes[a] <= sizes[b])) break;
            by[j - 1] = b;
            by[j] = a;
        }
    }
    o.at = out;
    pack_head(&o);
    for (uint8_t i = 0; i < QM_NODES; i++) {
        memcpy(o.at, columns[by[i]], sizes[by[i]]);
        o.at += sizes[by[i]];
        if (order != NULL) order[i] = by[i];
    }
    return (size_t)(o.at - out);
}

void qm_unpack(const qm_setup *setup, qm_world *w, const uint8_t *in) {
    /* Only read from: the description is one for both ways. */
    io o = {.at = (uint8_t *)(uintptr_t)in, .packs = false, .setup = setup, .w = w};

    memset(w, 0, sizeof *w);
    pack_head(&o);
    for (uint8_t n = 0; n < QM_NODES; n++)
        pack_column(&o, n);
}
