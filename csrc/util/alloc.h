/*
 * Allocation through the engine's allocator.
 */
#ifndef HF_UTIL_ALLOC_H
#define HF_UTIL_ALLOC_H

#include "holdfast.h"

/* malloc, realloc and free. */
const hf_allocator *hf__allocator_libc(void);

void *hf__alloc(const hf_allocator *a, size_t size);  /* NULL when memory is out */
void *hf__zalloc(const hf_allocator *a, size_t size); /* zeroed */
void *hf__resize(const hf_allocator *a, void *p, size_t size);
void hf__free(const hf_allocator *a, void *p); /* NULL is fine */

/* Copies of bytes with a NUL behind; NULL when memory is out. */
char *hf__copy(const hf_allocator *a, hf_slice s);

#endif
