/*
 * A growing byte buffer. After a failed growth it stays as it was and `failed` is set, so that a
 * series of appends is checked once, at its end.
 */
#ifndef HF_UTIL_BUFFER_H
#define HF_UTIL_BUFFER_H

#include "holdfast.h"

typedef struct hf__buffer {
    char *data;
    size_t len;
    size_t cap;
    bool failed;
    const hf_allocator *allocator;
} hf__buffer;

void hf__buffer_init(hf__buffer *b, const hf_allocator *allocator);
void hf__buffer_fini(hf__buffer *b);
void hf__buffer_put(hf__buffer *b, const void *data, size_t len);
void hf__buffer_u8(hf__buffer *b, uint8_t v);
void hf__buffer_u32(hf__buffer *b, uint32_t v); /* little-endian */
/* Gives the bytes to the caller and empties the buffer. */
char *hf__buffer_take(hf__buffer *b, size_t *len);

#endif
