#include "prim/lock.h"

#include "util/alloc.h"

#include <assert.h>
#include <string.h>

#define ROUND_MAX 256 /* locks of one key that go to the store together */
/* How long a key is left to others whose turn it is: enough to hear that it is free, and to take
 * it. Also how long a turn is remembered when nobody is left here. */
#define YIELD_MS 12

/* One key: who holds it here, who waits for it here, in order. There is one for every lock that is
 * held, so what only waiting or watching needs is the line's. */
struct hf__queue {
    hf__map_node node; /* its key is the line's, or that of one of the locks in the queue */
    hf__node waiting;
    hf__node holding;
    uint32_t n_holding;
    uint32_t least;   /* of the limits of those who hold; HF_SHARED where nobody does */
    uint32_t n_least; /* how many of them have it */
    uint32_t round;   /* how many may be at the store together, 1 to ROUND_MAX */
    hf__line *line;   /* NULL until needed */
};

/* How a key is shared with others elsewhere: the watch for their releases, and whose turn it is. A
 * turn is a series of takes of this engine while others are known to wait; it ends with a refusal,
 * or by yielding. */
struct hf__line {
    hf__queue *queue;
    hf_client *client;
    hf__watch watch;
    hf__timer timer;  /* ends yielding, or remembering */
    uint32_t takes;   /* of our turn */
    uint64_t turn_ns; /* when it began */
    bool watching;
    bool yielding; /* nobody here goes to the store */
    char key[];
};

static hf_lock *lock_at(const hf__node *node) {
    return hf__of((hf__node *)(uintptr_t)node, hf__place, node)->lock;
}

static hf_slice *key_of(const hf__place *place) {
    const hf_lock *lock = place->lock;
    return (hf_slice *)(uintptr_t)&lock->lease.keys[place - lock->places];
}

/* ---------------------------------------------------------------- life of a queue */

static hf__queue *queue_new(hf_client *client, hf_slice key) {
    hf__queue *queue = hf__zalloc(&client->engine->allocator, sizeof(*queue));
    if (queue == NULL) return NULL;
    hf__list_init(&queue->waiting);
    hf__list_init(&queue->holding);
    queue->least = HF_SHARED;
    queue->round = ROUND_MAX;
    if (!hf__map_insert(&client->queues, &queue->node, key)) {
        hf__free(&client->engine->allocator, queue);
        return NULL;
    }
    return queue;
}

static hf__queue *queue_get(hf_client *client, hf_slice key) {
    hf__map_node *node = hf__map_get(&client->queues, key);
    return node != NULL ? hf__of(node, hf__queue, node) : queue_new(client, key);
}

static void queue_free(hf_client *client, hf__queue *queue) {
    hf__line *line = queue->line;
    hf__map_remove(&client->queues, &queue->node);
    if (line != NULL) {
        hf__timer_stop(&client->engine->timers, &line->timer);
        hf__free(&client->engine->allocator, line);
    }
    hf__free(&client->engine->allocator, queue);
}

/* A queue lives as long as somebody is in it, or our turn is remembered; hints are wanted as long
 * as somebody waits. */
static void queue_tidy(hf_client *client, hf__queue *queue) {
    bool waiting = !hf__list_empty(&queue->waiting);
    hf__line *line = queue->line;
    if (line != NULL && line->watching && !waiting) {
        client->vt->unwatch(client->store, &line->watch);
        line->watching = false;
    }
    if (waiting || queue->n_holding > 0) return;
    if (line != NULL && line->takes > 0 && !hf__timer_active(&line->timer) &&
        client->phase == HF__OPEN) {
        uint64_t now = hf__client_now(client);
        hf__client_timer(client, &line->timer, hf__add_ms(now, YIELD_MS));
    }
    if (line == NULL || !hf__timer_active(&line->timer)) queue_free(client, queue);
}

void hf__queues_close(hf_client *client) {
    hf__map_node *node;
    while ((node = hf__map_next(&client->queues, NULL)) != NULL) {
        hf__queue *queue = hf__of(node, hf__queue, node);
        assert(hf__list_empty(&queue->waiting) && queue->n_holding == 0);
        queue_free(client, queue);
    }
}

/* ---------------------------------------------------------------- who may go */

static bool is_yielding(const hf__queue *queue) {
    return queue->line != NULL && queue->line->yielding;
}

/* Whether the lock keeps those behind it back: its last attempt failed, and it is for it to try
 * again first. One that waits for another of its keys does not. */
static bool keeps_back(const hf_lock *lock) {
    return lock->wait->attempt == NULL && lock->wait->rounds > 0;
}

/* A walk along a queue from its head, as far as the next may go if those ahead did. */
struct walk {
    uint64_t count; /* holders, and waiters so far */
    uint32_t least; /* of their limits */
    uint32_t going; /* waiters so far that are at the store */
    uint32_t steps;
};

static struct walk walk_from(const hf__queue *queue) {
    return (struct walk){.count = queue->n_holding, .least = queue->least};
}

/* Whether the next in the queue, `lock`, may go to the store as far as this key is concerned. */
static bool walk_admits(struct walk *walk, const hf__queue *queue, const hf_lock *lock) {
    if (lock->limit < walk->least) walk->least = lock->limit;
    return ++walk->count <= walk->least && walk->going < queue->round && walk->steps++ < ROUND_MAX;
}

/* Whether anybody behind `lock` may go. */
static bool walk_passes(struct walk *walk, const hf_lock *lock) {
    if (lock->wait->attempt != NULL) walk->going++;
    return !keeps_back(lock);
}

static bool may_go(const hf__place *place) {
    const hf__queue *queue = place->queue;
    struct walk walk = walk_from(queue);
    if (is_yielding(queue)) return false;
    for (const hf__node *node = queue->waiting.next;; node = node->next) {
        const hf_lock *lock = lock_at(node);
        if (!walk_admits(&walk, queue, lock)) return false;
        if (node == &place->node) return true;
        if (!walk_passes(&walk, lock)) return false;
    }
}

bool hf__queues_ready(const hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++)
        if (!may_go(&lock->places[i])) return false;
    return true;
}

bool hf__queues_held_here(const hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        const hf__queue *queue = lock->places[i].queue;
        if (queue == NULL) return false;
        uint32_t least = lock->limit < queue->least ? lock->limit : queue->least;
        if (queue->n_holding + UINT64_C(1) > least) return true;
    }
    return false;
}

const hf_holder *hf__queues_known_holder(const hf_lock *lock) {
    const hf__queue *queue = lock->places[0].queue;
    if (queue == NULL || hf__list_empty(&queue->waiting)) return NULL;
    const hf__attempt *refused = lock_at(queue->waiting.next)->wait->refused;
    return refused != NULL ? &refused->holder : NULL;
}

/* Those at the head of the queue go, or are told what a watch has said, one behind the other, as
 * far as may_go lets them. */
static void queue_each(hf__queue *queue, void (*go)(hf_lock *lock)) {
    struct walk walk = walk_from(queue);
    for (hf__node *node = queue->waiting.next; node != &queue->waiting; node = node->next) {
        hf_lock *lock = lock_at(node);
        if (!walk_admits(&walk, queue, lock)) return;
        go(lock);
        if (!walk_passes(&walk, lock)) return;
    }
}

static void queue_try(hf__queue *queue) {
    queue_each(queue, hf__lock_try);
}

void hf__queues_next(hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++)
        queue_try(lock->places[i].queue);
}

/* ---------------------------------------------------------------- turns */

static void on_hint(hf__watch *watch) {
    queue_each(hf__of(watch, hf__line, watch)->queue, hf__lock_hint);
}

static void on_turn_over(hf__timer *timer) {
    hf__line *line = hf__of(timer, hf__line, timer);
    hf_client *client = line->client;
    hf__queue *queue = line->queue;
    line->yielding = false;
    line->takes = 0;
    queue_try(queue);
    queue_tidy(client, queue);
}

/* NULL when memory is out. */
static hf__line *line_of(hf_client *client, hf__queue *queue) {
    if (queue->line != NULL) return queue->line;
    hf_slice key = queue->node.key;
    hf__line *line = hf__zalloc(&client->engine->allocator, sizeof(*line) + key.len);
    if (line == NULL) return NULL;
    memcpy(line->key, key.data, key.len);
    queue->node.key.data = line->key;
    line->queue = queue;
    line->client = client;
    line->watch = (hf__watch){.fire = on_hint, .key = queue->node.key, .space = HF_LEASES};
    hf__list_init(&line->watch.node);
    line->timer.fire = on_turn_over;
    queue->line = line;
    return line;
}

static void turn_goes_on(hf_client *client, hf__queue *queue, bool awaited) {
    if (!awaited) {
        if (queue->line != NULL && !queue->line->yielding) queue->line->takes = 0;
        return;
    }
    hf__line *line = line_of(client, queue); /* without memory for it, others wait for luck */
    if (line == NULL) return;
    hf__timer_stop(&client->engine->timers, &line->timer);
    if (line->takes++ == 0) line->turn_ns = hf__client_now(client);
}

static bool is_turn_over(const hf_client *client, const hf__line *line) {
    if (line == NULL || line->takes == 0) return false;
    return line->takes > client->options.handoffs ||
           hf__client_now(client) >= hf__add_ms(line->turn_ns, client->options.handoff_ms);
}

/* Somebody here has let go: if our turn is over, it is that of the others. */
static void turn_may_end(hf_client *client, hf__line *line) {
    if (!is_turn_over(client, line) || line->yielding) return;
    line->yielding = true;
    hf__client_timer(client, &line->timer, hf__add_ms(hf__client_now(client), YIELD_MS));
}

/* ---------------------------------------------------------------- in and out */

/* The key must outlive the lock that lent it. */
static void lend_key(hf__queue *queue, const hf__place *from) {
    if (queue->node.key.data != key_of(from)->data) return;
    const hf__node *node = hf__list_first(&queue->holding);
    if (node == NULL) node = hf__list_first(&queue->waiting);
    if (node != NULL) queue->node.key = *key_of(hf__of(node, hf__place, node));
}

static void place_remove(hf__place *place) {
    hf__queue *queue = place->queue;
    hf__list_remove(&place->node);
    lend_key(queue, place);
}

static void start_holding(hf__queue *queue, hf__place *place) {
    uint32_t limit = place->lock->limit;
    hf__list_remove(&place->node);
    hf__list_push(&queue->holding, &place->node);
    queue->n_holding++;
    if (limit > queue->least) return;
    queue->n_least = limit < queue->least ? 1 : queue->n_least + 1;
    queue->least = limit;
}

static void stop_holding(hf__queue *queue, hf__place *place) {
    place_remove(place);
    queue->n_holding--;
    if (place->lock->limit > queue->least || --queue->n_least > 0) return;
    queue->least = HF_SHARED;
    for (hf__node *node = queue->holding.next; node != &queue->holding; node = node->next) {
        uint32_t limit = lock_at(node)->limit;
        if (limit < queue->least) queue->n_least = 0;
        if (limit <= queue->least) queue->n_least++;
        if (limit < queue->least) queue->least = limit;
    }
}

bool hf__queues_join(hf_lock *lock) {
    hf_client *client = hf__lock_client(lock);
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__place *place = &lock->places[i];
        place->queue = queue_get(client, lock->lease.keys[i]);
        if (place->queue == NULL) {
            while (i-- > 0) {
                place_remove(&lock->places[i]);
                queue_tidy(client, lock->places[i].queue);
            }
            return false;
        }
        hf__list_push(&place->queue->waiting, &place->node);
        hf__line *line = place->queue->line;
        if (line != NULL && !line->yielding) hf__timer_stop(&client->engine->timers, &line->timer);
    }
    return true;
}

void hf__queues_hold(hf_lock *lock, bool awaited) {
    hf_client *client = hf__lock_client(lock);
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__queue *queue = lock->places[i].queue;
        start_holding(queue, &lock->places[i]);
        queue->round = queue->round < ROUND_MAX / 2 ? queue->round * 2 : ROUND_MAX;
        turn_goes_on(client, queue, awaited);
        queue_tidy(client, queue);
    }
}

void hf__queues_refused(hf_lock *lock, bool refused) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__queue *queue = lock->places[i].queue;
        queue->round = 1;
        if (refused && queue->line != NULL && !queue->line->yielding) queue->line->takes = 0;
    }
}

void hf__queues_leave(hf_lock *lock) {
    hf_client *client = hf__lock_client(lock);
    bool held = lock->wait == NULL;
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__queue *queue = lock->places[i].queue;
        if (!held) {
            place_remove(&lock->places[i]);
            continue;
        }
        stop_holding(queue, &lock->places[i]);
        turn_may_end(client, queue->line);
    }
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__queue *queue = lock->places[i].queue;
        lock->places[i].queue = NULL;
        queue_try(queue);
        queue_tidy(client, queue);
    }
}

/* Who is first at every key of `lock`, and asks for no other, asks for just these. */
hf_lock *hf__queues_heir(const hf_lock *lock) {
    const hf_client *client = hf__lock_client(lock);
    const hf__node *first = hf__list_first(&lock->places[0].queue->waiting);
    if (first == NULL || lock->limit != 1 || !(client->store->caps & HF_CAP_HAND_OVER)) return NULL;
    hf_lock *heir = lock_at(first);
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        const hf__queue *queue = lock->places[i].queue;
        if (is_yielding(queue) || is_turn_over(client, queue->line)) return NULL;
        first = hf__list_first(&queue->waiting);
        if (first == NULL || lock_at(first) != heir) return NULL;
    }
    if (heir->lease.n_keys != lock->lease.n_keys || heir->limit != 1) return NULL;
    if (heir->state != HF__WAITING || heir->wait->cancelled || heir->wait->attempt != NULL)
        return NULL;
    return heir;
}

/* ---------------------------------------------------------------- watching */

bool hf__queues_watched(const hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        const hf__line *line = lock->places[i].queue->line;
        if (line == NULL || !line->watching) return false;
    }
    return true;
}

bool hf__queues_watch(hf_lock *lock) {
    hf_client *client = hf__lock_client(lock);
    if (client->vt->watch == NULL) return false;
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__line *line = line_of(client, lock->places[i].queue);
        if (line == NULL) return false;
        if (!line->watching) client->vt->watch(client->store, &line->watch);
        line->watching = true;
    }
    return true;
}

/* ---------------------------------------------------------------- looking */

size_t hf_lock_waiters(hf_client *client, hf_slice key, hf_waiter *waiters, size_t max) {
    size_t count = 0;
    uint64_t now = hf__client_now(client);
    hf__map_node *node = hf__map_get(&client->queues, key);
    if (node == NULL) return 0;
    hf__queue *queue = hf__of(node, hf__queue, node);
    for (hf__node *n = queue->waiting.next; n != &queue->waiting; n = n->next) {
        const hf_lock *lock = lock_at(n);
        if (lock->state != HF__WAITING) continue;
        if (count++ >= max) continue;
        waiters[count - 1] = (hf_waiter){.waited_ms = (now - lock->wait->asked_ns) / HF_NS_PER_MS,
                                         .limit = lock->limit,
                                         .note = lock->wait->note};
    }
    return count;
}
