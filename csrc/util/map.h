/*
 * Hash table from a byte string to an intrusive entry. Keys come from users: the hash is keyed
 * with random bytes (SipHash-1-3; Aumasson and Bernstein, 2012), so that nobody can choose them
 * to collide.
 */
#ifndef HF_UTIL_MAP_H
#define HF_UTIL_MAP_H

#include "holdfast.h"

typedef struct hf__map_node {
    struct hf__map_node *next;
    uint64_t hash;
    hf_slice key; /* borrowed: lives as long as the node is in the map */
} hf__map_node;

typedef struct hf__map {
    hf__map_node **buckets;
    size_t n_buckets; /* 0 or a power of two */
    size_t count;
    uint64_t seed[2];
    const hf_allocator *allocator;
} hf__map;

/* The hash itself, for tables of another shape. `seed` is random. */
uint64_t hf__hash(const uint64_t seed[2], hf_slice key);

void hf__map_init(hf__map *map, const hf_allocator *allocator);
/* Frees the table, not the nodes. */
void hf__map_fini(hf__map *map);
hf__map_node *hf__map_get(const hf__map *map, hf_slice key);
/* Sets node->key and inserts; the key must not be present. False when memory is out (only for
 * the first bucket array: a table that cannot grow goes on, slower). */
bool hf__map_insert(hf__map *map, hf__map_node *node, hf_slice key);
void hf__map_remove(hf__map *map, hf__map_node *node);
/* Every node in turn, in no order: start with NULL. The node returned may be removed before the
 * next call only if the caller fetched its successor first. */
hf__map_node *hf__map_next(const hf__map *map, const hf__map_node *node);

#endif
