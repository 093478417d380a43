/*
 * The watches of an instance by what they watch, for a store that is told a name when something has
 * changed. The same name leads to all watches of one key; watches that have no line, for want of
 * memory, hear only what everyone is told. One loop, its thread only.
 */
#ifndef HF_STORE_WATCHERS_H
#define HF_STORE_WATCHERS_H

#include "core/store.h"
#include "util/map.h"

typedef struct hf__watchers {
    hf__map lines;     /* of watches, by name */
    hf__node in_order; /* the same */
    hf__node lost;     /* watches without a line */
    bool closed;       /* nothing fires any more */
    const hf_allocator *allocator;
} hf__watchers;

void hf__watchers_init(hf__watchers *w, const hf_allocator *allocator);
void hf__watchers_fini(hf__watchers *w);
/* Forgets all: no watch is armed from now on, nor will one be. */
void hf__watchers_close(hf__watchers *w);

/* `name` NULL: memory was out already. */
void hf__watchers_add(hf__watchers *w, hf__watch *watch, const hf_slice *name);
/* Harmless if everything was forgotten. */
void hf__watchers_remove(hf__watchers *w, hf__watch *watch);
bool hf__watchers_has(const hf__watchers *w, hf_slice name);
bool hf__watchers_empty(const hf__watchers *w);

/* Fires the watches of that name, or all. A watch may close the store, or come and go. */
void hf__watchers_fire(hf__watchers *w, hf_slice name, hf__scope *scope);
void hf__watchers_fire_all(hf__watchers *w, hf__scope *scope);

#endif
