/*
 * Watches: how a waiter learns that a key may be free, or its entry another.
 *
 * Every instance has one channel. Who is refused leaves it with the key; whoever changes the key
 * publishes, to each channel that it finds there, the name under which it found it. That name leads
 * to the watches: each has a line of them.
 *
 * What may be lost with a connection: when the channel is listened to again, everyone looks.
 */
#include "store/redis-store.h"
#include "util/alloc.h"

#include <assert.h>
#include <string.h>

typedef struct line {
    hf__map_node node;
    hf__node in_order; /* of the store's */
    hf__node watches;
    bool telling; /* it must stay in place */
    char name[];
} line;

static line *line_of(const hf__watch *watch) {
    return (line *)(uintptr_t)watch->seen;
}

/* Of the place where waiters leave their channel. False when memory is out. */
static bool name_of(hf__redis_instance *s, hf_slice key, uint8_t space, hf__redis_name *name) {
    static const char letters[] = {'w', 'V', 'R'};

    return hf__redis_companion(&s->names, key, letters[space], name);
}

void hf__redis_watch_init(hf__redis_instance *s) {
    hf__map_init(&s->lines, s->base.env.allocator);
    hf__list_init(&s->in_order);
    hf__list_init(&s->lost);
}

static void free_line(hf__redis_instance *s, line *l) {
    hf__list_remove(&l->in_order);
    hf__map_remove(&s->lines, &l->node);
    hf__free(s->base.env.allocator, l);
}

void hf__redis_watch_forget(hf__redis_instance *s) {
    hf__node *next;

    for (hf__node *node = s->in_order.next; node != &s->in_order; node = next) {
        line *l = hf__of(node, line, in_order);

        next = node->next;
        while (hf__list_pop(&l->watches) != NULL) {
        }
        if (!l->telling) free_line(s, l);
    }
    while (hf__list_pop(&s->lost) != NULL) {
    }
}

void hf__redis_watch_fini(hf__redis_instance *s) {
    hf__redis_watch_forget(s);
    hf__map_fini(&s->lines);
}

static line *find_line(hf__redis_instance *s, hf_slice name) {
    hf__map_node *node = hf__map_get(&s->lines, name);
    return node == NULL ? NULL : hf__of(node, line, node);
}

/* The line of that name; NULL when memory is out. */
static line *get_line(hf__redis_instance *s, const hf__redis_name *name) {
    line *l = find_line(s, hf__redis_name_slice(name));

    if (l != NULL) return l;
    l = hf__zalloc(s->base.env.allocator, sizeof *l + name->len);
    if (l == NULL) return NULL;
    memcpy(l->name, name->text, name->len);
    hf__list_init(&l->watches);
    if (!hf__map_insert(&s->lines, &l->node, (hf_slice){l->name, name->len})) {
        hf__free(s->base.env.allocator, l);
        return NULL;
    }
    hf__list_push(&s->in_order, &l->in_order);
    return l;
}

void hf__redis_watch(hf_store *store, hf__watch *watch) {
    hf__redis_instance *s = hf__redis_self(store);
    hf__redis_name name;
    line *l = NULL;

    hf__list_init(&watch->node);
    watch->seen = 0;
    if (s->closing != NULL) return;
    if (!s->listens)
        s->listens = hf__redis_listen(s->redis, (hf_slice){s->channel, s->channel_len});
    if (name_of(s, watch->key, watch->space, &name)) l = get_line(s, &name);
    /* Its hints are lost, but for those that everyone is given. */
    if (l == NULL) {
        hf__list_push(&s->lost, &watch->node);
        return;
    }
    watch->seen = (uintptr_t)l;
    hf__list_push(&l->watches, &watch->node);
}

void hf__redis_unwatch(hf_store *store, hf__watch *watch) {
    hf__redis_instance *s = hf__redis_self(store);
    line *l = line_of(watch);

    if (hf__list_empty(&watch->node)) return; /* the store was closed */
    hf__list_remove(&watch->node);
    if (l != NULL && hf__list_empty(&l->watches) && !l->telling) free_line(s, l);
}

bool hf__redis_is_watched(hf__redis_instance *s, const hf_op *op) {
    hf__redis_name name;

    if (s->lines.count == 0) return false;
    for (uint32_t i = 0; i < op->n_keys; i++) {
        if (!name_of(s, op->keys[i], op->space, &name)) return false;
        if (find_line(s, hf__redis_name_slice(&name)) != NULL) return true;
    }
    return false;
}

/* Fires those that are in the list now. One of them may close the store: then the rest are gone. */
static void fire_all(hf__redis_instance *s, hf__node *watches) {
    hf__node batch;
    hf__node *node;

    hf__list_init(&batch);
    hf__list_append(&batch, watches);
    while ((node = hf__list_pop(&batch)) != NULL) {
        hf__watch *watch = hf__of(node, hf__watch, node);

        if (s->closing != NULL) continue;
        hf__list_push(watches, node);
        watch->fire(watch);
    }
}

static void tell(hf__redis_instance *s, line *l) {
    l->telling = true;
    fire_all(s, &l->watches);
    l->telling = false;
    if (hf__list_empty(&l->watches)) free_line(s, l);
}

void hf__redis_message(hf__redis_instance *s, hf_slice payload) {
    hf__scope *scope = s->base.env.scope;
    line *l = find_line(s, payload);

    if (l == NULL) return;
    hf__scope_enter(scope);
    tell(s, l);
    hf__scope_leave(scope);
}

void hf__redis_listening(hf__redis_instance *s) {
    hf__scope *scope = s->base.env.scope;
    hf__node batch;
    hf__node *node;

    hf__list_init(&batch);
    hf__list_append(&batch, &s->in_order);
    hf__scope_enter(scope);
    while ((node = hf__list_pop(&batch)) != NULL) {
        hf__list_push(&s->in_order, node);
        tell(s, hf__of(node, line, in_order));
    }
    fire_all(s, &s->lost);
    hf__scope_leave(scope);
}
