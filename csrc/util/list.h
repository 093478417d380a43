/*
 * Doubly linked circular list, intrusive. A node that is in no list points to itself.
 */
#ifndef HF_UTIL_LIST_H
#define HF_UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct hf__node {
    struct hf__node *prev;
    struct hf__node *next;
} hf__node;

/* The struct of type `type` whose member `member` is at `ptr`. */
#define hf__of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void hf__list_init(hf__node *head) {
    head->prev = head;
    head->next = head;
}

static inline bool hf__list_empty(const hf__node *head) {
    return head->next == head;
}

static inline void hf__list_push(hf__node *head, hf__node *node) {
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Leaves `node` in no list; harmless if it is in none. */
static inline void hf__list_remove(hf__node *node) {
    node->prev->next = node->next;
    node->next->prev = node->prev;
    hf__list_init(node);
}

static inline hf__node *hf__list_first(const hf__node *head) {
    return head->next == head ? NULL : head->next;
}

static inline hf__node *hf__list_pop(hf__node *head) {
    hf__node *node = hf__list_first(head);
    if (node != NULL) hf__list_remove(node);
    return node;
}

/* Moves all of `from` behind `to`. */
static inline void hf__list_append(hf__node *to, hf__node *from) {
    if (hf__list_empty(from)) return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    hf__list_init(from);
}

#endif
