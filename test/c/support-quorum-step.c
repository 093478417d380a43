/* What can happen in the model of a quorum, and what comes of it. */
#include "support-quorum-model.h"

#include <assert.h>
#include <string.h>

/* ---------------------------------------------------------------- the beginning */

static void begin_node(const qm_setup *setup, qm_node *node, uint8_t n) {
    node->run = 1;
    node->rate = setup->rate[n] != 0 ? setup->rate[n] : 1000;
    node->offset_ms = setup->apart_ms[n];
    if (setup->blank) return;
    /* A new quorum was founded by one who had this maxTtl. */
    node->memory.marker = (qm_marker){1, setup->max_ms[0], 0};
    node->memory.epoch = !setup->uncounted;
    node->disk = node->memory;
}

/* Every client is connected, and has read all markers; or is about to. */
static void begin_link(const qm_setup *setup, qm_world *w, uint8_t c, uint8_t n) {
    qm_scene scene = {.setup = setup, .world = w};
    qm_link *l = &w->link[c][n];
    int64_t apart_us = (int64_t)(qm_clock_ms(w, n) - w->now_ms) * 1000;

    if ((setup->apart[c] & 1u << n) != 0) {
        /* Where there is a quorum already, it could not be reached. */
        if (!setup->blank) qm_link_down(&scene, c, n);
        return;
    }
    l->clock = (hf__node_clock){
        .known = true, .low_us = apart_us, .high_us = apart_us + 1000, .at_ns = qm_now_ns(w)};
    qm_link_up(&scene, c, n);
    if (!setup->prompt && !setup->blank && l->n_queue > 0) {
        qm_serve(&scene, n, &l->queue[0]);
        qm_hear(&scene, c, n);
    }
}

void qm_begin(const qm_setup *setup, qm_world *w) {
    memset(w, 0, sizeof *w);
    w->now_ms = QM_START_MS;
    for (uint8_t n = 0; n < QM_NODES; n++)
        begin_node(setup, &w->nodes[n], n);
    for (uint8_t c = 0; c < setup->clients; c++) {
        qm_scene scene = {.setup = setup, .world = w};
        qm_client_dies(&scene, c);
    }
    for (uint8_t c = 0; c < setup->clients; c++)
        for (uint8_t n = 0; n < QM_NODES; n++)
            begin_link(setup, w, c, n);
}

/* ---------------------------------------------------------------- what is possible */

static bool is_like(const qm_setup *setup, uint8_t a, uint8_t b) {
    return setup->shared[a] == setup->shared[b] && setup->ttl_ms[a] == setup->ttl_ms[b] &&
           setup->max_ms[a] == setup->max_ms[b];
}

/* Clients that are alike begin in the order of their numbers: any other is the same, renamed. */
static bool may_take(const qm_setup *setup, const qm_world *w, uint8_t c) {
    const qm_client *cl = &w->clients[c];
    uint8_t voting = 0;

    if (cl->phase != QM_IDLE || cl->holds || cl->attempts >= setup->attempts) return false;
    for (uint8_t i = 0; i < c; i++)
        if (is_like(setup, i, c) && w->clients[i].attempts == 0) return false;
    for (uint8_t n = 0; n < QM_NODES; n++)
        voting = (uint8_t)(voting + (w->link[c][n].member.standing == HF__NODE_VOTES));
    return voting >= ((setup->faults & QM_HALF) != 0 ? 1 : hf__majority(QM_NODES));
}

static const qm_message *next_request(const qm_link *l) {
    for (uint8_t i = 0; i < l->n_queue; i++)
        if (!l->queue[i].answered) return &l->queue[i];
    return NULL;
}

/* Answers that say no are never late: what they may change, a request that is late changes, too. */
static bool may_serve_only(const qm_setup *setup, const qm_world *w, uint8_t c, uint8_t n) {
    const qm_message *m = next_request(&w->link[c][n]);

    if (m == NULL || !m->awaited || w->late >= setup->late) return false;
    return m->ask == QM_ASK_MARK ? !setup->prompt : w->clients[c].phase != QM_IDLE;
}

/* An answer that arrives sooner within its tick makes a client hold sooner, and nobody else can
 * tell the difference: so it arrives first thing in a tick. Where errands are slow there is an
 * order among all answers, which may matter. */
static bool may_hear(const qm_setup *setup, const qm_world *w, const qm_link *l) {
    if (l->n_queue == 0 || !l->queue[0].answered) return false;
    return !setup->prompt || (l->queue[0].aged && w->fresh);
}

/* Whether it has anything left to do. */
static bool is_done(const qm_setup *setup, const qm_client *cl) {
    return cl->phase == QM_IDLE && !cl->holds && cl->attempts >= setup->attempts;
}

static bool may_lose(const qm_setup *setup, const qm_world *w, uint8_t n, uint8_t loss) {
    uint8_t blank = 0;

    if (w->crashes >= setup->crashes || (setup->losses & (1u << loss)) == 0) return false;
    for (uint8_t i = 0; i < QM_NODES; i++) {
        const qm_memory *m = loss == QM_OLD && i == n ? &w->nodes[i].disk : &w->nodes[i].memory;
        blank = (uint8_t)(blank + (m->marker.run == 0 || (loss != QM_OLD && i == n)));
    }
    return blank <= QM_NODES - hf__majority(QM_NODES) || (setup->faults & QM_ANY_LOSS) != 0;
}

/* Whether every client is connected to every node at all times. */
static bool is_all_linked(const qm_setup *setup) {
    for (uint8_t c = 0; c < setup->clients; c++)
        if (setup->apart[c] != 0) return false;
    return setup->crashes == 0 && setup->links == 0 && setup->deaths == 0;
}

/* A clock that goes away and comes back before anyone has looked is beyond what can be seen; and
 * where all that a client is connected to jump by the same, that is its own clock for it. */
static bool may_jump(const qm_setup *setup, const qm_world *w, uint8_t n, bool back) {
    int32_t offset_ms = w->nodes[n].offset_ms;
    int32_t then_ms = offset_ms + (back ? -setup->jump_ms : setup->jump_ms);
    bool any = (setup->faults & QM_SAME_JUMP) != 0 || is_all_linked(setup);

    if (w->jumps >= setup->jumps) return false;
    for (uint8_t i = 0; i < QM_NODES && !any; i++)
        if (i != n && w->nodes[i].offset_ms != 0 && w->nodes[i].offset_ms == then_ms) return false;
    for (uint8_t c = 0; c < setup->clients && (setup->faults & QM_ANY_JUMP) == 0; c++) {
        const hf__node_clock *clock = &w->link[c][n].clock;
        int64_t apart_us = (int64_t)offset_ms * 1000;
        if (clock->known && (apart_us < clock->low_us || apart_us > clock->high_us)) return false;
    }
    return true;
}

static bool has_pending_errand(const qm_link *l) {
    for (uint8_t i = 0; i < l->n_queue; i++)
        if (l->queue[i].ask == QM_ASK_MARK && l->queue[i].awaited) return true;
    return false;
}

bool qm_is_possible(const qm_setup *setup, const qm_world *w, qm_action a) {
    const qm_client *cl = &w->clients[a.client];
    const qm_link *l = &w->link[a.client][a.node];

    switch ((qm_kind)a.kind) {
    case QM_TICK: return true;
    case QM_TAKE: return may_take(setup, w, a.client);
    case QM_KEEP: return cl->holds && cl->phase == QM_IDLE && cl->renewals < setup->renewals;
    case QM_RELEASE: return cl->holds;
    case QM_ABANDON:
        return cl->phase == QM_TAKING ||
               (cl->phase == QM_KEEPING && cl->renewals < setup->renewals);
    case QM_DIE: return w->deaths < setup->deaths && cl->attempts > 0;
    case QM_STEP: return next_request(l) != NULL;
    case QM_SERVE: return may_serve_only(setup, w, a.client, a.node);
    case QM_HEAR: return may_hear(setup, w, l);
    case QM_STRAGGLER: return l->n_stragglers > 0 && (a.arg == 0 || w->repeats < setup->repeats);
    case QM_LINK: return l->up ? w->links < setup->links && l->n_queue > 0 : !is_done(setup, cl);
    case QM_MISS: return !setup->prompt && has_pending_errand(l);
    case QM_CRASH: return may_lose(setup, w, a.node, a.arg);
    case QM_JUMP: return may_jump(setup, w, a.node, a.arg == 1);
    case QM_SAVE: return w->saves < setup->saves;
    case QM_NOTHING:
    case QM_KINDS: break;
    }
    return false;
}

/* How many clients, nodes and variants an action of this kind has to name. */
static void count_choices(const qm_setup *setup, uint8_t kind, uint8_t *clients, uint8_t *nodes,
                          uint8_t *args) {
    bool of_client = kind >= QM_TAKE && kind <= QM_MISS;
    bool of_node = kind >= QM_STEP && kind != QM_TICK;

    *clients = of_client ? setup->clients : 1;
    *nodes = of_node ? QM_NODES : 1;
    *args = kind == QM_CRASH ? QM_LOSSES : kind == QM_STRAGGLER || kind == QM_JUMP ? 2 : 1;
}

bool qm_next(const qm_setup *setup, const qm_world *w, qm_action *a) {
    do {
        uint8_t clients;
        uint8_t nodes;
        uint8_t args;

        count_choices(setup, a->kind, &clients, &nodes, &args);
        if (a->kind != QM_NOTHING && ++a->arg < args) continue;
        a->arg = 0;
        if (a->kind != QM_NOTHING && ++a->node < nodes) continue;
        a->node = 0;
        if (a->kind != QM_NOTHING && ++a->client < clients) continue;
        a->client = 0;
        if (++a->kind == QM_KINDS) return false;
    } while (!qm_is_possible(setup, w, *a));
    return true;
}

/* ---------------------------------------------------------------- what comes of it */

static void tick(qm_scene *s) {
    qm_world *w = s->world;

    w->now_ms += s->setup->tick_ms[w->ticks];
    w->ticks ^= s->setup->tick_ms[0] != s->setup->tick_ms[1];
    w->order = 0;
    for (uint8_t i = 0; i < QM_CLIENTS * QM_NODES; i++) {
        qm_link *l = &w->link[i / QM_NODES][i % QM_NODES];
        for (uint8_t k = 0; k < l->n_queue; k++)
            l->queue[k].aged = l->queue[k].answered;
    }
    for (uint8_t n = 0; n < QM_NODES; n++)
        qm_expire(w, n);
    for (uint8_t c = 0; c < s->setup->clients; c++)
        qm_client_ticks(s, c);
}

/* Answers that nobody waits for need not arrive. */
static void serve(qm_scene *s, uint8_t c, uint8_t n, bool hear) {
    qm_link *l = &s->world->link[c][n];
    qm_client *cl = &s->world->clients[c];
    uint8_t at = 0;
    bool useless;

    while (l->queue[at].answered)
        at++;
    qm_serve(s, n, &l->queue[at]);
    if (!hear && l->queue[at].ask != QM_ASK_MARK && l->queue[at].ballot != HF__VOTE_FOR &&
        l->queue[at].ask != QM_ASK_DROP)
        s->pointless = true;
    useless = !l->queue[at].awaited || (l->queue[at].ask == QM_ASK_KEEP && cl->phase == QM_IDLE &&
                                        l->queue[at].ballot != HF__VOTE_AGAINST);
    if (l->queue[at].ask == QM_ASK_TAKE && !l->queue[at].awaited && cl->holds &&
        l->queue[at].ballot == HF__VOTE_FOR)
        s->saw |= QM_SAW_REPAIRED;
    if (useless) {
        memmove(&l->queue[at], &l->queue[at + 1],
                sizeof l->queue[0] * (size_t)(l->n_queue - at - 1));
        memset(&l->queue[--l->n_queue], 0, sizeof l->queue[0]);
    } else if (hear && at == 0) {
        qm_hear(s, c, n);
    } else {
        s->world->late = (uint8_t)(s->world->late + (s->setup->late != QM_ANY));
    }
}

static void straggle(qm_scene *s, uint8_t c, uint8_t n, bool again) {
    qm_link *l = &s->world->link[c][n];
    qm_message message = l->stragglers[0];

    qm_serve(s, n, &message);
    if (again) {
        s->world->repeats++;
        return;
    }
    memmove(&l->stragglers[0], &l->stragglers[1],
            sizeof l->stragglers[0] * (size_t)(l->n_stragglers - 1));
    memset(&l->stragglers[--l->n_stragglers], 0, sizeof l->stragglers[0]);
}

/* What has been sent and not served may still arrive: as much as there is room for, the rest is
 * lost. */
static void leave_stragglers(qm_scene *s, uint8_t c, uint8_t n) {
    qm_link *l = &s->world->link[c][n];

    for (uint8_t i = 0; i < l->n_queue && l->n_stragglers < QM_STRAGGLERS; i++) {
        qm_message m = l->queue[i];
        if (m.answered || (m.ask == QM_ASK_MARK && m.errand == HF__ERRAND_READ)) continue;
        m.awaited = false;
        m.sent_ns = 0;
        l->stragglers[l->n_stragglers++] = m;
    }
}

static void link_again(qm_scene *s, uint8_t c, uint8_t n) {
    if (s->world->link[c][n].up) {
        s->world->links++;
        leave_stragglers(s, c, n);
        qm_link_down(s, c, n);
    }
    qm_link_up(s, c, n);
}

static void die(qm_scene *s, uint8_t c) {
    s->world->deaths++;
    for (uint8_t n = 0; n < QM_NODES; n++)
        leave_stragglers(s, c, n);
    qm_client_dies(s, c);
}

static void crash(qm_scene *s, uint8_t n, qm_loss loss) {
    qm_world *w = s->world;

    w->crashes++;
    qm_lose(s, n, loss);
    if (loss == QM_WIPED) return;
    for (uint8_t c = 0; c < s->setup->clients; c++) {
        qm_link *l = &w->link[c][n];
        memset(l->stragglers, 0, sizeof l->stragglers);
        l->n_stragglers = 0;
        if (l->up) qm_link_down(s, c, n);
    }
}

static void jump(qm_scene *s, uint8_t n, bool back) {
    qm_world *w = s->world;

    w->jumps++;
    w->nodes[n].offset_ms += back ? -s->setup->jump_ms : s->setup->jump_ms;
    qm_expire(w, n);
}

/* ---------------------------------------------------------------- what must hold */

static void judge(qm_scene *s) {
    const qm_setup *setup = s->setup;
    qm_world *w = s->world;
    int writers = 0;
    int readers = 0;

    if (w->broken != QM_SOUND) return;
    for (uint8_t c = 0; c < setup->clients; c++) {
        if (!w->clients[c].holds || w->now_ms >= w->clients[c].bound_ms) continue;
        readers += setup->shared[c];
        writers += !setup->shared[c];
    }
    if (readers > 1) s->saw |= QM_SAW_TOGETHER;
    if (writers > 1) w->broken = QM_TWO_WRITERS;
    if (writers > 0 && readers > 0) w->broken = QM_READER_AND_WRITER;
    if (setup->permits > 0 && readers > setup->permits) w->broken = QM_TOO_MANY;
}

/* ---------------------------------------------------------------- told */

static const char *const losses[] = {
    [QM_EMPTY] = "is started again, empty",
    [QM_OLD] = "is started again, with an old copy",
    [QM_WIPED] = "is emptied",
};

static void tell(const qm_scene *s, qm_action a) {
    int c = a.client;
    int n = s->names[a.node];

    switch ((qm_kind)a.kind) {
    case QM_TICK: fprintf(s->story, "time passes"); break;
    case QM_TAKE: fprintf(s->story, "c%d asks for the lock", c); break;
    case QM_KEEP: fprintf(s->story, "c%d renews", c); break;
    case QM_RELEASE: fprintf(s->story, "c%d releases", c); break;
    case QM_ABANDON: fprintf(s->story, "c%d waits no longer", c); break;
    case QM_DIE: fprintf(s->story, "c%d crashes, and begins anew", c); break;
    case QM_STEP: fprintf(s->story, "c%d's request reaches n%d, the answer c%d", c, n, c); break;
    case QM_SERVE: fprintf(s->story, "c%d's request reaches n%d, the answer is late", c, n); break;
    case QM_HEAR: fprintf(s->story, "n%d's answer reaches c%d", n, c); break;
    case QM_STRAGGLER:
        fprintf(s->story, "an old request of c%d reaches n%d%s", c, n,
                a.arg == 1 ? ", not for the last time" : "");
        break;
    case QM_LINK: fprintf(s->story, "c%d connects to n%d", c, n); break;
    case QM_MISS: fprintf(s->story, "c%d gives up its errand at n%d", c, n); break;
    case QM_CRASH: fprintf(s->story, "n%d %s", n, losses[a.arg]); break;
    case QM_JUMP:
        fprintf(s->story, "n%d's clock jumps %s %d ms", n, a.arg ? "back" : "ahead",
                s->setup->jump_ms);
        break;
    case QM_SAVE: fprintf(s->story, "n%d keeps a copy", n); break;
    case QM_NOTHING:
    case QM_KINDS: break;
    }
}

/* A drop that arrives late frees late, which lets others do less: so it does not wait. */
static void serve_drops(qm_scene *s) {
    for (uint8_t c = 0; c < s->setup->clients; c++) {
        for (uint8_t n = 0; n < QM_NODES; n++) {
            const qm_message *m = next_request(&s->world->link[c][n]);
            for (; m != NULL && m->ask == QM_ASK_DROP; m = next_request(&s->world->link[c][n]))
                serve(s, c, n, false);
        }
    }
}

void qm_act(qm_scene *s, qm_action a) {
    assert(qm_is_possible(s->setup, s->world, a));
    if (s->story != NULL) tell(s, a);
    if (s->setup->ordered) s->world->order++;
    s->world->fresh = a.kind == QM_TICK || (a.kind == QM_HEAR && s->world->fresh);
    switch ((qm_kind)a.kind) {
    case QM_TICK: tick(s); break;
    case QM_TAKE: qm_begin_take(s, a.client); break;
    case QM_KEEP: qm_begin_keep(s, a.client); break;
    case QM_RELEASE: qm_release(s, a.client); break;
    case QM_ABANDON: qm_abandon(s, a.client); break;
    case QM_DIE: die(s, a.client); break;
    case QM_STEP: serve(s, a.client, a.node, true); break;
    case QM_SERVE: serve(s, a.client, a.node, false); break;
    case QM_HEAR: qm_hear(s, a.client, a.node); break;
    case QM_STRAGGLER: straggle(s, a.client, a.node, a.arg == 1); break;
    case QM_LINK: link_again(s, a.client, a.node); break;
    case QM_MISS: qm_miss(s, a.client, a.node); break;
    case QM_CRASH: crash(s, a.node, (qm_loss)a.arg); break;
    case QM_JUMP: jump(s, a.node, a.arg == 1); break;
    case QM_SAVE:
        s->world->saves++;
        s->world->nodes[a.node].disk = s->world->nodes[a.node].memory;
        break;
    case QM_NOTHING:
    case QM_KINDS: assert(false);
    }
    serve_drops(s);
    judge(s);
}

const char *qm_broken_text(qm_broken broken) {
    static const char *const texts[] = {
        [QM_SOUND] = "nothing",
        [QM_TWO_WRITERS] = "two hold it exclusively",
        [QM_READER_AND_WRITER] = "one holds it exclusively, another one shares it",
        [QM_TOO_MANY] = "more hold it than it has permits",
        [QM_FENCE_BACK] = "a fence that is not greater than an earlier one",
    };
    return texts[broken];
}
