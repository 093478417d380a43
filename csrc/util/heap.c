#include "util/heap.h"

/* The smaller of two roots takes the other as its first child. Both are roots without siblings. */
static hf__heap_node *meld(hf__heap_node *a, hf__heap_node *b) {
    if (a == NULL) return b;
    if (b == NULL) return a;
    if (b->at < a->at) {
        hf__heap_node *t = a;
        a = b;
        b = t;
    }
    b->next = a->child;
    if (b->next != NULL) b->next->prev = b;
    b->prev = a;
    a->child = b;
    a->next = NULL;
    return a;
}

/* Makes one tree of a list of siblings: melds neighbours from left to right, then the pairs from
 * right to left. The pairs are stacked through `next`, so there is no recursion however long the
 * list is. */
static hf__heap_node *meld_siblings(hf__heap_node *node) {
    hf__heap_node *pairs = NULL;
    hf__heap_node *root = NULL;

    while (node != NULL) {
        hf__heap_node *a = node;
        hf__heap_node *b = a->next;

        node = b != NULL ? b->next : NULL;
        a->next = NULL;
        if (b != NULL) b->next = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs != NULL) {
        hf__heap_node *rest = pairs->next;

        pairs->next = NULL;
        root = meld(root, pairs);
        pairs = rest;
    }
    return root;
}

static void set_root(hf__heap *heap, hf__heap_node *root) {
    heap->root = root;
    if (root != NULL) root->prev = root;
}

void hf__heap_insert(hf__heap *heap, hf__heap_node *node) {
    node->child = NULL;
    node->next = NULL;
    set_root(heap, meld(heap->root, node));
}

void hf__heap_remove(hf__heap *heap, hf__heap_node *node) {
    hf__heap_node *below;

    if (node->prev == NULL) return;
    below = meld_siblings(node->child);
    if (heap->root == node) {
        set_root(heap, below);
    } else {
        if (node->prev->child == node)
            node->prev->child = node->next;
        else
            node->prev->next = node->next;
        if (node->next != NULL) node->next->prev = node->prev;
        set_root(heap, meld(heap->root, below));
    }
    node->child = NULL;
    node->next = NULL;
    node->prev = NULL;
}
