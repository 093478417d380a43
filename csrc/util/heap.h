/*
 * Min-heap by a 64-bit number, intrusive: inserting allocates nothing and cannot fail. A pairing
 * heap (Fredman, Sedgewick, Sleator, Tarjan: The Pairing Heap, 1986).
 */
#ifndef HF_UTIL_HEAP_H
#define HF_UTIL_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct hf__heap_node {
    uint64_t at; /* the order; changed only while not in a heap */
    struct hf__heap_node *child;
    struct hf__heap_node *next;
    /* Parent of a first child, else left sibling; itself when root; NULL when in no heap. */
    struct hf__heap_node *prev;
} hf__heap_node;

typedef struct hf__heap {
    hf__heap_node *root;
} hf__heap;

static inline bool hf__heap_in(const hf__heap_node *node) {
    return node->prev != NULL;
}

static inline hf__heap_node *hf__heap_min(const hf__heap *heap) {
    return heap->root;
}

/* `node` must be zeroed or removed before. */
void hf__heap_insert(hf__heap *heap, hf__heap_node *node);
/* Harmless if `node` is in no heap. */
void hf__heap_remove(hf__heap *heap, hf__heap_node *node);

#endif
