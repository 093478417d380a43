#include "util/buffer.h"

#include "util/alloc.h"

#include <string.h>

void hf__buffer_init(hf__buffer *b, const hf_allocator *allocator) {
    *b = (hf__buffer){.allocator = allocator};
}

void hf__buffer_fini(hf__buffer *b) {
    hf__free(b->allocator, b->data);
    hf__buffer_init(b, b->allocator);
}

/* Room for `more` bytes behind what is there. */
static bool reserve(hf__buffer *b, size_t more) {
    size_t cap = b->cap < 64 ? 64 : b->cap;
    char *data;

    if (b->failed) return false;
    if (more <= b->cap - b->len) return true;
    if (more > SIZE_MAX / 2 - b->len) {
        b->failed = true;
        return false;
    }
    while (cap - b->len < more)
        cap *= 2;
    data = hf__resize(b->allocator, b->data, cap);
    if (data == NULL) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void hf__buffer_put(hf__buffer *b, const void *data, size_t len) {
    if (len == 0 || !reserve(b, len)) return;
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

void hf__buffer_u8(hf__buffer *b, uint8_t v) {
    hf__buffer_put(b, &v, 1);
}

void hf__buffer_u32(hf__buffer *b, uint32_t v) {
    uint8_t bytes[4];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(v >> (8 * i));
    hf__buffer_put(b, bytes, sizeof bytes);
}

char *hf__buffer_take(hf__buffer *b, size_t *len) {
    char *data = b->data;

    *len = b->len;
    hf__buffer_init(b, b->allocator);
    return data;
}
