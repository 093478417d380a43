/*
 * Watches on a quorum: one at each node, and what they tell comes to one hint. A release reaches
 * the nodes one after another; who tries at the first word finds the others not free yet. So the
 * hint is given when a majority has told, or a moment after the first.
 *
 * A split vote is one that nobody has won. Those who took part try again after a random time,
 * longer with every split: whoever is first then finds all nodes free (antirez, "Distributed Locks
 * with Redis", section "Retry on failure").
 */
#include "store/quorum-store.h"
#include "store/stores.h"
#include "util/alloc.h"
#include "util/random.h"

#include <string.h>

#define GATHER_NS (10 * HF_NS_PER_MS) /* from the first node's word to the hint */
#define SPLIT_MS 4                    /* the first pause is up to that */
#define SPLIT_DOUBLINGS 6

typedef struct line line;

typedef struct node_watch {
    hf__watch watch;
    line *line;
    bool told;
} node_watch;

struct line {
    hf__quorum *quorum;
    hf__watch *watch; /* whom it is for */
    hf__node node;    /* in the store's list */
    hf__timer timer;  /* when to tell */
    uint8_t n_told;
    uint8_t splits;    /* in a row */
    uint64_t split_ns; /* nobody is told before that */
    node_watch nodes[];
};

static line *line_of(const hf__watch *watch) {
    return (line *)(uintptr_t)watch->seen;
}

static void on_due(hf__timer *timer) {
    line *l = hf__of(timer, line, timer);
    hf__watch *watch = l->watch;

    l->n_told = 0;
    for (uint8_t i = 0; i < l->quorum->n; i++)
        l->nodes[i].told = false;
    watch->fire(watch);
}

static void on_told(hf__watch *inner) {
    node_watch *at = hf__of(inner, node_watch, watch);
    line *l = at->line;
    hf__quorum *q = l->quorum;
    uint64_t now = hf__quorum_now(q);
    uint64_t when;

    if (at->told) return;
    at->told = true;
    l->n_told++;
    when = l->n_told >= hf__majority(q->n) ? now : now + GATHER_NS;
    if (when < l->split_ns) when = l->split_ns;
    if (!hf__timer_active(&l->timer) || when < l->timer.node.at)
        hf__timer_start(&q->timers, &l->timer, when);
}

void hf__quorum_watch(hf_store *store, hf__watch *watch) {
    hf__quorum *q = hf__quorum_self(store);
    line *l;

    hf__list_init(&watch->node);
    watch->seen = 0;
    if (q->closing != NULL || !q->has_handles || q->broken) return;
    /* Without memory nobody is told: who waits looks again by itself. */
    l = hf__zalloc(q->base.env.allocator, sizeof *l + q->n * sizeof(node_watch));
    if (l == NULL) return;
    l->quorum = q;
    l->watch = watch;
    l->timer.fire = on_due;
    watch->seen = (uintptr_t)l;
    hf__list_push(&q->watches, &l->node);
    for (uint8_t i = 0; i < q->n; i++) {
        node_watch *at = &l->nodes[i];

        at->line = l;
        at->watch = (hf__watch){.fire = on_told, .key = watch->key, .space = watch->space};
        q->nodes[i].store->vt->watch(q->nodes[i].store, &at->watch);
    }
}

static void line_free(line *l) {
    hf__quorum *q = l->quorum;

    for (uint8_t i = 0; i < q->n; i++)
        q->nodes[i].store->vt->unwatch(q->nodes[i].store, &l->nodes[i].watch);
    hf__timer_stop(&q->timers, &l->timer);
    hf__list_remove(&l->node);
    l->watch->seen = 0;
    hf__free(q->base.env.allocator, l);
}

void hf__quorum_unwatch(hf_store *store, hf__watch *watch) {
    (void)store;
    if (watch->seen != 0) line_free(line_of(watch));
}

void hf__quorum_watch_forget(hf__quorum *q) {
    hf__node *node;

    while ((node = hf__list_first(&q->watches)) != NULL)
        line_free(hf__of(node, line, node));
}

static bool is_of(const line *l, const hf_op *op) {
    for (uint32_t i = 0; i < op->n_keys; i++)
        if (hf__slice_equal(l->watch->key, op->keys[i])) return true;
    return false;
}

uint64_t hf__quorum_watch_split(hf__quorum *q, const hf_op *op) {
    uint64_t now = hf__quorum_now(q);
    uint64_t most_ms = SPLIT_MS;
    uint64_t pause_ms;
    line *lines[HF_KEYS_MAX];
    size_t n = 0;

    for (hf__node *node = q->watches.next; node != &q->watches && n < HF_KEYS_MAX;
         node = node->next) {
        line *l = hf__of(node, line, node);

        if (!is_of(l, op)) continue;
        if (now > l->split_ns + 1000 * HF_NS_PER_MS) l->splits = 0;
        if ((uint64_t)SPLIT_MS << l->splits > most_ms) most_ms = (uint64_t)SPLIT_MS << l->splits;
        if (l->splits < SPLIT_DOUBLINGS) l->splits++;
        lines[n++] = l;
    }
    pause_ms = hf__random_between(1, most_ms);
    for (size_t i = 0; i < n; i++) {
        lines[i]->split_ns = hf__add_ms(now, pause_ms);
        if (hf__timer_active(&lines[i]->timer) && lines[i]->timer.node.at < lines[i]->split_ns)
            hf__timer_start(&q->timers, &lines[i]->timer, lines[i]->split_ns);
    }
    return pause_ms;
}
