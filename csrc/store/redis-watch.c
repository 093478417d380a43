/*
 * Watches: how a waiter learns that a key may be free, or its entry another.
 *
 * Every instance has one channel. Who is refused leaves it with the key; whoever changes the key
 * publishes, to each channel that it finds there, the name under which it found it. That name leads
 * to the watches.
 *
 * What may be lost with a connection: when the channel is listened to again, everyone looks.
 */
#include "store/redis-store.h"

/* Of the place where waiters leave their channel. False when memory is out. */
static bool name_of(hf__redis_instance *s, hf_slice key, uint8_t space, hf__redis_name *name) {
    static const char letters[] = {'w', 'V', 'R'};

    return hf__redis_companion(&s->names, key, letters[space], name);
}

void hf__redis_watch(hf_store *store, hf__watch *watch) {
    hf__redis_instance *s = hf__redis_self(store);
    hf__redis_name name;
    hf_slice slice;
    bool named;

    if (s->closing == NULL && !s->listens)
        s->listens = hf__redis_listen(s->redis, (hf_slice){s->channel, s->channel_len});
    named = name_of(s, watch->key, watch->space, &name);
    if (named) slice = hf__redis_name_slice(&name);
    hf__watchers_add(&s->watchers, watch, named ? &slice : NULL);
}

void hf__redis_unwatch(hf_store *store, hf__watch *watch) {
    hf__watchers_remove(&hf__redis_self(store)->watchers, watch);
}

bool hf__redis_is_watched(hf__redis_instance *s, const hf_op *op) {
    hf__redis_name name;

    if (hf__watchers_empty(&s->watchers)) return false;
    for (uint32_t i = 0; i < op->n_keys; i++) {
        if (!name_of(s, op->keys[i], op->space, &name)) return false;
        if (hf__watchers_has(&s->watchers, hf__redis_name_slice(&name))) return true;
    }
    return false;
}

void hf__redis_message(hf__redis_instance *s, hf_slice payload) {
    hf__watchers_fire(&s->watchers, payload, s->base.env.scope);
}

void hf__redis_listening(hf__redis_instance *s) {
    hf__watchers_fire_all(&s->watchers, s->base.env.scope);
}
