/*
 * What a Redis server answers, as a tree in one piece of memory that is used again for the next
 * answer. hiredis' parser finds the parts (hiredis/read.h); what it makes of them is ours: bounded
 * in depth, in elements and in bytes, so that nothing a server sends can exhaust the stack or the
 * memory of a client. One thread.
 */
#ifndef HF_DRIVER_REDIS_REPLY_H
#define HF_DRIVER_REDIS_REPLY_H

#include "core/error.h"

typedef enum hf__reply_type {
    HF__REPLY_NIL = 0,
    HF__REPLY_INTEGER,
    HF__REPLY_STRING,
    HF__REPLY_STATUS,
    HF__REPLY_ERROR,
    HF__REPLY_ARRAY
} hf__reply_type;

/* One value. Valid until the next call on its reader. */
typedef struct hf__reply {
    hf__reply_type type;
    int64_t integer;
    hf_slice text;                 /* string, status, error; a NUL follows it */
    const struct hf__reply *items; /* array */
    size_t n_items;
} hf__reply;

typedef struct hf__reply_reader hf__reply_reader;

#define HF__REPLY_BYTES_MAX (8u << 20) /* of one answer */

/* NULL when memory is out. */
hf__reply_reader *hf__reply_reader_new(const hf_allocator *allocator);
void hf__reply_reader_free(hf__reply_reader *reader);
/* Takes bytes in. False: memory is out, or an answer is too long; `error` is set. */
bool hf__reply_feed(hf__reply_reader *reader, const char *data, size_t len, hf_error *error);
/* The next answer that is complete. 1: `reply` is set; 0: more bytes are needed; -1: what came is
 * no RESP2 (HF_EPROTO), or memory is out; then the reader is of no more use. */
int hf__reply_next(hf__reply_reader *reader, const hf__reply **reply, hf_error *error);

static inline bool hf__reply_is_text(const hf__reply *reply) {
    return reply->type == HF__REPLY_STRING || reply->type == HF__REPLY_STATUS;
}

/* Whether `reply` is text and reads `text`. */
bool hf__reply_equals(const hf__reply *reply, const char *text);

#endif
