#include "store/watchers.h"

#include "core/op.h"
#include "util/alloc.h"

#include <string.h>

typedef struct line {
    hf__map_node node;
    hf__node in_order;
    hf__node watches;
    bool telling; /* it must stay in place */
    char name[];
} line;

static line *line_of(const hf__watch *watch) {
    return (line *)(uintptr_t)watch->seen;
}

void hf__watchers_init(hf__watchers *w, const hf_allocator *allocator) {
    memset(w, 0, sizeof *w);
    w->allocator = allocator;
    hf__map_init(&w->lines, allocator);
    hf__list_init(&w->in_order);
    hf__list_init(&w->lost);
}

static void free_line(hf__watchers *w, line *l) {
    hf__list_remove(&l->in_order);
    hf__map_remove(&w->lines, &l->node);
    hf__free(w->allocator, l);
}

void hf__watchers_close(hf__watchers *w) {
    hf__node *next;

    w->closed = true;
    for (hf__node *node = w->in_order.next; node != &w->in_order; node = next) {
        line *l = hf__of(node, line, in_order);

        next = node->next;
        while (hf__list_pop(&l->watches) != NULL) {
        }
        if (!l->telling) free_line(w, l);
    }
    while (hf__list_pop(&w->lost) != NULL) {
    }
}

void hf__watchers_fini(hf__watchers *w) {
    hf__watchers_close(w);
    hf__map_fini(&w->lines);
}

static line *find_line(const hf__watchers *w, hf_slice name) {
    hf__map_node *node = hf__map_get(&w->lines, name);
    return node == NULL ? NULL : hf__of(node, line, node);
}

/* The line of that name; NULL when memory is out. */
static line *get_line(hf__watchers *w, hf_slice name) {
    line *l = find_line(w, name);

    if (l != NULL) return l;
    l = hf__zalloc(w->allocator, sizeof *l + name.len);
    if (l == NULL) return NULL;
    memcpy(l->name, name.data, name.len);
    hf__list_init(&l->watches);
    if (!hf__map_insert(&w->lines, &l->node, (hf_slice){l->name, name.len})) {
        hf__free(w->allocator, l);
        return NULL;
    }
    hf__list_push(&w->in_order, &l->in_order);
    return l;
}

void hf__watchers_add(hf__watchers *w, hf__watch *watch, const hf_slice *name) {
    line *l = NULL;

    hf__list_init(&watch->node);
    watch->seen = 0;
    if (w->closed) return;
    if (name != NULL) l = get_line(w, *name);
    watch->seen = (uintptr_t)l;
    hf__list_push(l != NULL ? &l->watches : &w->lost, &watch->node);
}

void hf__watchers_remove(hf__watchers *w, hf__watch *watch) {
    line *l = line_of(watch);

    if (hf__list_empty(&watch->node)) return; /* the store was closed */
    hf__list_remove(&watch->node);
    if (l != NULL && hf__list_empty(&l->watches) && !l->telling) free_line(w, l);
}

bool hf__watchers_has(const hf__watchers *w, hf_slice name) {
    return w->lines.count > 0 && find_line(w, name) != NULL;
}

bool hf__watchers_empty(const hf__watchers *w) {
    return w->lines.count == 0 && hf__list_empty(&w->lost);
}

/* Fires those that are in the list now. One of them may close the store: then the rest are gone. */
static void fire_list(hf__watchers *w, hf__node *watches) {
    hf__node batch;
    hf__node *node;

    hf__list_init(&batch);
    hf__list_append(&batch, watches);
    while ((node = hf__list_pop(&batch)) != NULL) {
        hf__watch *watch = hf__of(node, hf__watch, node);

        if (w->closed) continue;
        hf__list_push(watches, node);
        watch->fire(watch);
    }
}

static void tell(hf__watchers *w, line *l) {
    l->telling = true;
    fire_list(w, &l->watches);
    l->telling = false;
    if (hf__list_empty(&l->watches)) free_line(w, l);
}

void hf__watchers_fire(hf__watchers *w, hf_slice name, hf__scope *scope) {
    line *l = find_line(w, name);

    if (l == NULL) return;
    hf__scope_enter(scope);
    tell(w, l);
    hf__scope_leave(scope);
}

void hf__watchers_fire_all(hf__watchers *w, hf__scope *scope) {
    hf__node batch;
    hf__node *node;

    hf__list_init(&batch);
    hf__list_append(&batch, &w->in_order);
    hf__scope_enter(scope);
    while ((node = hf__list_pop(&batch)) != NULL) {
        hf__list_push(&w->in_order, node);
        tell(w, hf__of(node, line, in_order));
    }
    fire_list(w, &w->lost);
    hf__scope_leave(scope);
}
