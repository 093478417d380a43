#include "util/alloc.h"

#include <stdlib.h>
#include <string.h>

static void *libc_resize(void *data, void *p, size_t size) {
    (void)data;
    if (size > 0) return realloc(p, size);
    free(p);
    return NULL;
}

const hf_allocator *hf__allocator_libc(void) {
    static const hf_allocator libc = {.resize = libc_resize, .data = NULL};
    return &libc;
}

void *hf__alloc(const hf_allocator *a, size_t size) {
    /* Nothing is still something: NULL must mean that memory is out. */
    return a->resize(a->data, NULL, size > 0 ? size : 1);
}

void *hf__zalloc(const hf_allocator *a, size_t size) {
    void *p = hf__alloc(a, size);
    if (p != NULL) memset(p, 0, size);
    return p;
}

void *hf__resize(const hf_allocator *a, void *p, size_t size) {
    return a->resize(a->data, p, size > 0 ? size : 1);
}

void hf__free(const hf_allocator *a, void *p) {
    if (p != NULL) a->resize(a->data, p, 0);
}

char *hf__copy(const hf_allocator *a, hf_slice s) {
    char *p = hf__alloc(a, s.len + 1);
    if (p == NULL) return NULL;
    if (s.len > 0) memcpy(p, s.data, s.len);
    p[s.len] = '\0';
    return p;
}
