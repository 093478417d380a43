/* Any bytes as what a Redis server sends, in pieces of any length: read as answers within bounds,
 * or refused with an error. */
#include "driver/redis/reply.h"
#include "util/alloc.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds) {
    if (!holds) abort();
}

/* Reads every byte that the answer says is there. */
static size_t walk(const hf__reply *reply, size_t depth) {
    size_t sum = 0;

    demand(depth <= 8);
    if (reply->type == HF__REPLY_ARRAY) {
        for (size_t i = 0; i < reply->n_items; i++)
            sum += walk(&reply->items[i], depth + 1);
    } else if (reply->type != HF__REPLY_NIL && reply->type != HF__REPLY_INTEGER) {
        demand(reply->text.data[reply->text.len] == '\0');
        for (size_t i = 0; i < reply->text.len; i++)
            sum += (uint8_t)reply->text.data[i];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    hf__reply_reader *reader = hf__reply_reader_new(hf__allocator_libc());
    const hf__reply *reply;
    size_t piece = size > 0 ? data[0] % 16 + (size_t)1 : 1;
    hf_error error;
    int status = 0;

    demand(reader != NULL);
    for (size_t at = 0; at < size && status == 0; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        if (!hf__reply_feed(reader, (const char *)data + at, n, &error)) break;
        while ((status = hf__reply_next(reader, &reply, &error)) == 1)
            demand(walk(reply, 0) <= 255 * (size + 1)); /* every byte is read */
        if (status < 0) demand(error.code == HF_EPROTO && error.message[0] != '\0');
    }
    /* Once it has failed it stays so. */
    if (status < 0) demand(hf__reply_next(reader, &reply, &error) < 0);
    hf__reply_reader_free(reader);
    return 0;
}
