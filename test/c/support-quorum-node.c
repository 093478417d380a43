/* What a node does: the scripts of the quorum store, in C. */
#include "support-quorum-model.h"

#include <string.h>

int32_t qm_clock_ms(const qm_world *w, uint8_t node) {
    const qm_node *n = &w->nodes[node];
    return (int32_t)((int64_t)w->now_ms * n->rate / 1000) + n->offset_ms;
}

bool qm_same_marker(const qm_marker *a, const qm_marker *b) {
    return a->run == b->run && a->max_ms == b->max_ms && a->until_ms == b->until_ms;
}

int32_t qm_ttl_ms(const qm_setup *setup, uint8_t token) {
    return setup->ttl_ms[qm_owner(token)];
}

void qm_expire(qm_world *w, uint8_t node) {
    qm_memory *m = &w->nodes[node].memory;
    int32_t clock_ms = qm_clock_ms(w, node);

    for (uint8_t t = 1; t < QM_TOKENS; t++)
        if (m->until_ms[t] <= clock_ms) m->until_ms[t] = 0;
}

/* The admission rule: whoever is in the way of a token. */
static bool is_admitted(const qm_setup *setup, const qm_memory *m, uint8_t token) {
    bool shared = setup->shared[qm_owner(token)];
    uint8_t readers = 0;

    for (uint8_t t = 1; t < QM_TOKENS; t++) {
        if (t == token || m->until_ms[t] == 0) continue;
        if (!shared || !setup->shared[qm_owner(t)]) return false;
        readers++;
    }
    return setup->permits == 0 || readers < setup->permits;
}

/* A counter of another run may be an old one: then a clock decides, which has gone on since. */
static uint32_t next_fence(const qm_setup *setup, const qm_node *node, uint32_t seed) {
    uint32_t next = node->memory.counter + 1;

    if (node->memory.epoch == node->run || (setup->faults & QM_NO_EPOCH) != 0) return next;
    return next > seed ? next : seed;
}

static void take(qm_scene *s, uint8_t node, qm_message *message) {
    qm_world *w = s->world;
    qm_memory *m = &w->nodes[node].memory;

    if (!is_admitted(s->setup, m, message->token)) {
        message->ballot = HF__VOTE_AGAINST;
        return;
    }
    if (s->setup->fencing && m->until_ms[message->token] == 0) {
        m->counter = next_fence(s->setup, &w->nodes[node], message->seed);
        m->epoch = w->nodes[node].run;
    }
    m->until_ms[message->token] = qm_clock_ms(w, node) + qm_ttl_ms(s->setup, message->token);
    message->ballot = HF__VOTE_FOR;
    message->fence = m->counter;
}

static void raise_fence(qm_scene *s, uint8_t node, qm_message *message) {
    qm_memory *m = &s->world->nodes[node].memory;

    message->ballot = m->until_ms[message->token] != 0 ? HF__VOTE_FOR : HF__VOTE_AGAINST;
    if (message->ballot != HF__VOTE_FOR) return;
    if (message->fence > m->counter) m->counter = message->fence;
    m->epoch = s->world->nodes[node].run;
}

static void keep(qm_scene *s, uint8_t node, qm_message *message) {
    qm_memory *m = &s->world->nodes[node].memory;

    message->ballot = m->until_ms[message->token] != 0 ? HF__VOTE_FOR : HF__VOTE_AGAINST;
    if (message->ballot == HF__VOTE_FOR)
        m->until_ms[message->token] =
            qm_clock_ms(s->world, node) + qm_ttl_ms(s->setup, message->token);
}

static void drop(qm_scene *s, uint8_t node, qm_message *message) {
    qm_memory *m = &s->world->nodes[node].memory;

    if ((s->setup->faults & QM_BLIND_DROP) != 0) memset(m->until_ms, 0, sizeof m->until_ms);
    m->until_ms[message->token] = 0;
    message->ballot = HF__VOTE_FOR;
}

/* Errands compare and set, and tell what is there then. */
static void mark(qm_scene *s, uint8_t node, qm_message *message) {
    qm_node *n = &s->world->nodes[node];
    qm_marker *marker = &n->memory.marker;

    if (message->errand != HF__ERRAND_READ && qm_same_marker(marker, &message->marker)) {
        if (message->errand == HF__ERRAND_FOUND) {
            *marker = (qm_marker){n->run, message->span_ms, 0};
            s->saw |= QM_SAW_FOUNDED;
        } else if (message->errand == HF__ERRAND_RAISE) {
            marker->max_ms = message->span_ms;
        } else {
            s->saw |= QM_SAW_BARRED;
            *marker = (qm_marker){n->run, message->span_ms,
                                  qm_clock_ms(s->world, node) + message->span_ms};
        }
    }
    message->marker = *marker;
}

/* ---------------------------------------------------------------- told */

static const char *const asked[] = {
    [QM_ASK_TAKE] = "take", [QM_ASK_RAISE] = "fence", [QM_ASK_KEEP] = "keep",
    [QM_ASK_DROP] = "drop", [QM_ASK_MARK] = "errand",
};
static const char *const errands[] = {
    [HF__ERRAND_NONE] = "none",   [HF__ERRAND_READ] = "read", [HF__ERRAND_FOUND] = "found",
    [HF__ERRAND_RAISE] = "raise", [HF__ERRAND_BAR] = "bar",
};
static const char *const ballots[] = {
    [HF__VOTE_OPEN] = "-",
    [HF__VOTE_FOR] = "yes",
    [HF__VOTE_AGAINST] = "no",
    [HF__VOTE_NONE] = "another marker",
};

static void tell(qm_scene *s, uint8_t node, const qm_message *m) {
    if (s->story == NULL) return;
    fprintf(s->story, "; n%d does ", s->names[node]);
    if (m->ask == QM_ASK_MARK) {
        fprintf(s->story, "%s: its marker is ", errands[m->errand]);
        if (m->marker.run == 0)
            fprintf(s->story, "none");
        else
            fprintf(s->story, "(run %d, max %d, until %d)", m->marker.run, m->marker.max_ms,
                    m->marker.until_ms == 0 ? 0 : m->marker.until_ms - m->clock_ms);
        return;
    }
    fprintf(s->story, "%s of t%d: %s", asked[m->ask], m->token, ballots[m->ballot]);
    if (s->setup->fencing && m->ballot == HF__VOTE_FOR &&
        (m->ask == QM_ASK_TAKE || m->ask == QM_ASK_RAISE))
        fprintf(s->story, ", %u", m->fence);
}

void qm_serve(qm_scene *s, uint8_t node, qm_message *message) {
    qm_world *w = s->world;
    bool votes = message->ask != QM_ASK_DROP && message->ask != QM_ASK_MARK;
    bool unmarked = votes && !qm_same_marker(&message->marker, &w->nodes[node].memory.marker) &&
                    (s->setup->faults & QM_UNMARKED) == 0;

    qm_expire(w, node);
    message->answered = true;
    message->clock_ms = qm_clock_ms(w, node);
    if (unmarked) {
        message->unmarked = true;
        message->ballot = HF__VOTE_NONE;
        s->saw |= QM_SAW_UNMARKED;
    } else {
        switch ((qm_ask)message->ask) {
        case QM_ASK_TAKE: take(s, node, message); break;
        case QM_ASK_RAISE: raise_fence(s, node, message); break;
        case QM_ASK_KEEP: keep(s, node, message); break;
        case QM_ASK_DROP: drop(s, node, message); break;
        case QM_ASK_MARK: mark(s, node, message); break;
        }
    }
    tell(s, node, message);
}

void qm_lose(qm_scene *s, uint8_t node, qm_loss loss) {
    qm_node *n = &s->world->nodes[node];

    if (loss == QM_OLD)
        n->memory = n->disk;
    else
        memset(&n->memory, 0, sizeof n->memory);
    if (loss != QM_WIPED) n->run++;
    qm_expire(s->world, node);
}
