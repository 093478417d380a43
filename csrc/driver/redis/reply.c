#include "driver/redis/reply.h"

#include "core/op.h"
#include "util/alloc.h"

#include <assert.h>
#include <hiredis/read.h>
#include <string.h>

enum {
    DEPTH_MAX = 8,           /* arrays within arrays */
    ELEMENTS_MAX = 1 << 16,  /* of one array */
    CHUNK_BYTES = 8192 - 64, /* of memory that is used again */
    ALIGNMENT = sizeof(int64_t)
};

/* Memory is handed out from the newest chunk and taken back all at once. */
typedef struct chunk {
    struct chunk *before;
    size_t used;
    size_t size;
    int64_t room[];
} chunk;

struct hf__reply_reader {
    const hf_allocator *allocator;
    redisReader *parser;
    chunk *chunks; /* the last of them, of CHUNK_BYTES, stays */
    size_t bytes;  /* handed out for the answer that is being read */
    hf_code failed;
    const char *why;
    hf__reply root;
};

/* ---------------------------------------------------------------- memory */

static void *stop(hf__reply_reader *r, hf_code code, const char *why) {
    r->failed = code;
    r->why = why;
    return NULL;
}

static void *get(hf__reply_reader *r, size_t size) {
    size_t need = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    chunk *top = r->chunks;

    if (need > HF__REPLY_BYTES_MAX - r->bytes)
        return stop(r, HF_EPROTO, "an answer of the server is too long");
    if (top == NULL || top->size - top->used < need) {
        size_t room = need > CHUNK_BYTES ? need : CHUNK_BYTES;
        top = hf__alloc(r->allocator, sizeof *top + room);
        if (top == NULL) return stop(r, HF_ENOMEM, "");
        *top = (chunk){.before = r->chunks, .size = room};
        r->chunks = top;
    }
    r->bytes += need;
    top->used += need;
    return (char *)top->room + top->used - need;
}

static void clear(hf__reply_reader *r) {
    while (r->chunks != NULL && (r->chunks->before != NULL || r->chunks->size > CHUNK_BYTES)) {
        chunk *before = r->chunks->before;
        hf__free(r->allocator, r->chunks);
        r->chunks = before;
    }
    if (r->chunks != NULL) r->chunks->used = 0;
    r->bytes = 0;
}

/* ---------------------------------------------------------------- what the parser calls */

/* The place of the value that is being read: within its array, or the root. */
static hf__reply *place(const redisReadTask *task) {
    hf__reply_reader *r = task->privdata;
    const hf__reply *array = task->parent != NULL ? task->parent->obj : NULL;

    if (array == NULL) return &r->root;
    assert(task->idx >= 0 && (size_t)task->idx < array->n_items);
    return (hf__reply *)(uintptr_t)&array->items[task->idx];
}

static void *create_string(const redisReadTask *task, char *text, size_t len) {
    hf__reply_reader *r = task->privdata;
    hf__reply *reply = place(task);
    hf__reply_type type = HF__REPLY_STRING;
    char *copy;

    if (task->type == REDIS_REPLY_STATUS)
        type = HF__REPLY_STATUS;
    else if (task->type == REDIS_REPLY_ERROR)
        type = HF__REPLY_ERROR;
    else if (task->type != REDIS_REPLY_STRING)
        return stop(r, HF_EPROTO, "the server answered in another version of its protocol");
    copy = get(r, len + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    *reply = (hf__reply){.type = type, .text = {copy, len}};
    return reply;
}

static void *create_array(const redisReadTask *task, size_t n) {
    hf__reply_reader *r = task->privdata;
    hf__reply *reply = place(task);
    hf__reply *items = NULL;
    size_t depth = 0;

    if (task->type != REDIS_REPLY_ARRAY)
        return stop(r, HF_EPROTO, "the server answered in another version of its protocol");
    for (const redisReadTask *above = task->parent; above != NULL; above = above->parent)
        depth++;
    if (depth >= DEPTH_MAX) return stop(r, HF_EPROTO, "an answer of the server is nested too deep");
    if (n > 0) {
        items = get(r, n * sizeof *items);
        if (items == NULL) return NULL;
        memset(items, 0, n * sizeof *items);
    }
    *reply = (hf__reply){.type = HF__REPLY_ARRAY, .items = items, .n_items = n};
    return reply;
}

static void *create_integer(const redisReadTask *task, long long value) {
    hf__reply *reply = place(task);

    *reply = (hf__reply){.type = HF__REPLY_INTEGER, .integer = value};
    return reply;
}

static void *create_nil(const redisReadTask *task) {
    hf__reply *reply = place(task);

    *reply = (hf__reply){.type = HF__REPLY_NIL};
    return reply;
}

static void *create_double(const redisReadTask *task, double value, char *text, size_t len) {
    (void)value;
    (void)text;
    (void)len;
    return stop(task->privdata, HF_EPROTO,
                "the server answered in another version of its protocol");
}

static void *create_bool(const redisReadTask *task, int value) {
    (void)value;
    return stop(task->privdata, HF_EPROTO,
                "the server answered in another version of its protocol");
}

/* All goes at once, with `clear`. */
static void free_nothing(void *reply) {
    (void)reply;
}

/* The parser does not change it, though its type does not say so. */
static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createDouble = create_double,
    .createNil = create_nil,
    .createBool = create_bool,
    .freeObject = free_nothing,
};

/* ---------------------------------------------------------------- the reader */

hf__reply_reader *hf__reply_reader_new(const hf_allocator *allocator) {
    hf__reply_reader *r = hf__zalloc(allocator, sizeof *r);

    if (r == NULL) return NULL;
    r->allocator = allocator;
    r->parser = redisReaderCreateWithFunctions(&functions);
    if (r->parser == NULL) {
        hf__free(allocator, r);
        return NULL;
    }
    r->parser->privdata = r;
    r->parser->maxelements = ELEMENTS_MAX;
    return r;
}

void hf__reply_reader_free(hf__reply_reader *r) {
    if (r == NULL) return;
    redisReaderFree(r->parser);
    clear(r);
    hf__free(r->allocator, r->chunks);
    hf__free(r->allocator, r);
}

bool hf__reply_feed(hf__reply_reader *r, const char *data, size_t len, hf_error *error) {
    /* A line without an end is looked through again each time: the bound keeps that short too. */
    if (r->parser->len - r->parser->pos + len > HF__REPLY_BYTES_MAX) {
        hf__error_set(error, HF_EPROTO, 0, "an answer of the server is too long");
        return false;
    }
    if (redisReaderFeed(r->parser, data, len) == REDIS_OK) return true;
    hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    return false;
}

static int fail(hf__reply_reader *r, hf_error *error) {
    if (r->failed == HF_OK && r->parser->err == REDIS_ERR_OOM) stop(r, HF_ENOMEM, "");
    if (r->failed == HF_OK) stop(r, HF_EPROTO, "what the server sent is no Redis protocol");
    if (r->failed == HF_ENOMEM)
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    else
        hf__error_set(error, r->failed, 0, "%s", r->why);
    return -1;
}

int hf__reply_next(hf__reply_reader *r, const hf__reply **reply, hf_error *error) {
    void *found = NULL;

    /* What is half read lives in the chunks: they are cleared between two answers only. */
    if (r->failed != HF_OK) return fail(r, error);
    if (r->parser->ridx == -1) clear(r);
    if (redisReaderGetReply(r->parser, &found) != REDIS_OK) return fail(r, error);
    if (found == NULL) return 0;
    assert(found == &r->root);
    *reply = &r->root;
    return 1;
}

bool hf__reply_equals(const hf__reply *reply, const char *text) {
    return hf__reply_is_text(reply) && hf__slice_is(reply->text, text);
}
