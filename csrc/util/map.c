#include "util/map.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

static uint64_t rotate(uint64_t x, unsigned by) {
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* One round for every word, three at the end: enough for a table, where the hash is never shown. */
uint64_t hf__hash(const uint64_t seed[2], hf_slice key) {
    uint64_t v[4] = {seed[0] ^ UINT64_C(0x736f6d6570736575), seed[1] ^ UINT64_C(0x646f72616e646f6d),
                     seed[0] ^ UINT64_C(0x6c7967656e657261),
                     seed[1] ^ UINT64_C(0x7465646279746573)};
    uint64_t word;
    size_t at = 0;

    for (; key.len - at >= 8; at += 8) {
        memcpy(&word, key.data + at, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)key.len << 56;
    for (unsigned i = 0; at < key.len; at++, i += 8)
        word |= (uint64_t)(uint8_t)key.data[at] << i;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void hf__map_init(hf__map *map, const hf_allocator *allocator) {
    *map = (hf__map){.allocator = allocator};
    /* Without randomness the seed stays zero: the table still works, only its order could be
     * chosen. */
    if (!hf__random(map->seed, sizeof map->seed)) memset(map->seed, 0, sizeof map->seed);
}

void hf__map_fini(hf__map *map) {
    hf__free(map->allocator, map->buckets);
    map->buckets = NULL;
    map->n_buckets = 0;
    map->count = 0;
}

static hf__map_node **bucket(const hf__map *map, uint64_t at) {
    return &map->buckets[at & (map->n_buckets - 1)];
}

hf__map_node *hf__map_get(const hf__map *map, hf_slice key) {
    hf__map_node *node;
    uint64_t at;

    if (map->count == 0) return NULL;
    at = hf__hash(map->seed, key);
    for (node = *bucket(map, at); node != NULL; node = node->next) {
        if (node->hash != at || node->key.len != key.len) continue;
        if (key.len == 0 || memcmp(node->key.data, key.data, key.len) == 0) return node;
    }
    return NULL;
}

static bool grow(hf__map *map) {
    size_t old = map->n_buckets;
    hf__map_node **before = map->buckets;
    size_t n = old == 0 ? 16 : old * 2;
    hf__map_node **after = hf__zalloc(map->allocator, n * sizeof(hf__map_node *));

    if (after == NULL) return false;
    map->buckets = after;
    map->n_buckets = n;
    for (size_t i = 0; i < old; i++) {
        hf__map_node *node = before[i];
        while (node != NULL) {
            hf__map_node *next = node->next;
            hf__map_node **to = bucket(map, node->hash);
            node->next = *to;
            *to = node;
            node = next;
        }
    }
    hf__free(map->allocator, before);
    return true;
}

bool hf__map_insert(hf__map *map, hf__map_node *node, hf_slice key) {
    hf__map_node **to;

    if (map->count >= map->n_buckets && !grow(map) && map->n_buckets == 0) return false;
    node->key = key;
    node->hash = hf__hash(map->seed, key);
    to = bucket(map, node->hash);
    node->next = *to;
    *to = node;
    map->count++;
    return true;
}

void hf__map_remove(hf__map *map, hf__map_node *node) {
    hf__map_node **at = bucket(map, node->hash);

    while (*at != node) {
        assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    map->count--;
}

hf__map_node *hf__map_next(const hf__map *map, const hf__map_node *node) {
    size_t at = 0;

    if (node != NULL) {
        if (node->next != NULL) return node->next;
        at = (size_t)(node->hash & (map->n_buckets - 1)) + 1;
    }
    for (; at < map->n_buckets; at++) {
        if (map->buckets[at] != NULL) return map->buckets[at];
    }
    return NULL;
}
