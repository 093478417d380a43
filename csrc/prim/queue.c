#include "prim/lock.h"

#include "util/alloc.h"

#include <assert.h>
#include <string.h>

static void on_hint(hf__watch *watch) {
    hf__queue *queue = hf__of(watch, hf__queue, watch);
    hf__node *first = hf__list_first(&queue->waiting);
    if (first != NULL) hf__lock_hint(hf__of(first, hf__place, node)->lock);
}

static hf__queue *queue_new(hf_client *client, hf_slice key) {
    hf__queue *queue = hf__zalloc(&client->engine->allocator, sizeof(*queue) + key.len);
    if (queue == NULL) return NULL;
    memcpy(queue->key, key.data, key.len);
    queue->client = client;
    hf__list_init(&queue->waiting);
    hf__list_init(&queue->holding);
    hf_slice own = {queue->key, key.len};
    queue->watch = (hf__watch){.fire = on_hint, .key = own, .space = HF_LEASES};
    hf__list_init(&queue->watch.node);
    if (!hf__map_insert(&client->queues, &queue->node, own)) {
        hf__free(&client->engine->allocator, queue);
        return NULL;
    }
    return queue;
}

/* A queue lives as long as somebody is in it; hints are wanted as long as somebody waits. */
static void queue_tidy(hf__queue *queue) {
    hf_client *client = queue->client;
    bool waiting = !hf__list_empty(&queue->waiting);
    if (queue->watching && !waiting) {
        client->vt->unwatch(client->store, &queue->watch);
        queue->watching = false;
    }
    if (waiting || !hf__list_empty(&queue->holding)) return;
    hf__map_remove(&client->queues, &queue->node);
    hf__free(&client->engine->allocator, queue);
}

static hf__queue *queue_get(hf_client *client, hf_slice key) {
    hf__map_node *node = hf__map_get(&client->queues, key);
    return node != NULL ? hf__of(node, hf__queue, node) : queue_new(client, key);
}

bool hf__queues_join(hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__place *place = &lock->places[i];
        place->queue = queue_get(lock->client, lock->lease.keys[i]);
        if (place->queue == NULL) {
            while (i-- > 0) {
                hf__list_remove(&lock->places[i].node);
                queue_tidy(lock->places[i].queue);
            }
            return false;
        }
        place->lock = lock;
        hf__list_push(&place->queue->waiting, &place->node);
    }
    lock->queued = true;
    return true;
}

static bool compatible(const hf__queue *queue, uint32_t limit) {
    uint64_t count = 1;
    for (hf__node *node = queue->holding.next; node != &queue->holding; node = node->next) {
        const hf_lock *holder = hf__of(node, hf__place, node)->lock;
        limit = holder->limit < limit ? holder->limit : limit;
        if (++count > limit) return false;
    }
    return true;
}

bool hf__queues_ready(const hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        const hf__place *place = &lock->places[i];
        if (place->queue->taking || hf__list_first(&place->queue->waiting) != &place->node ||
            !compatible(place->queue, lock->limit))
            return false;
    }
    return true;
}

bool hf__queues_held_here(const hf_lock *lock) {
    if (!lock->queued) return false;
    for (uint32_t i = 0; i < lock->lease.n_keys; i++)
        if (!compatible(lock->places[i].queue, lock->limit)) return true;
    return false;
}

void hf__queues_hold(hf_lock *lock) {
    assert(lock->queued);
    lock->queued = false;
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__place *place = &lock->places[i];
        hf__list_remove(&place->node);
        hf__list_push(&place->queue->holding, &place->node);
        queue_tidy(place->queue);
    }
}

void hf__queues_set_taking(hf_lock *lock, bool taking) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++)
        lock->places[i].queue->taking = taking;
}

bool hf__queues_watch(hf_lock *lock) {
    hf_client *client = lock->client;
    if (client->vt->watch == NULL) return false;
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__queue *queue = lock->places[i].queue;
        if (!queue->watching) client->vt->watch(client->store, &queue->watch);
        queue->watching = true;
    }
    return true;
}

void hf__queues_next(hf_lock *lock) {
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__node *first = hf__list_first(&lock->places[i].queue->waiting);
        if (first != NULL) hf__lock_try(hf__of(first, hf__place, node)->lock);
    }
}

void hf__queues_leave(hf_lock *lock) {
    lock->queued = false;
    for (uint32_t i = 0; i < lock->lease.n_keys; i++) {
        hf__place *place = &lock->places[i];
        hf__queue *queue = place->queue;
        hf__list_remove(&place->node);
        hf__node *first = hf__list_first(&queue->waiting);
        if (first != NULL) hf__lock_try(hf__of(first, hf__place, node)->lock);
        queue_tidy(queue);
        place->queue = NULL;
    }
}
