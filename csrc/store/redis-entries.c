/*
 * Entries in Redis: what the scripts get, put, del, add and renew are given, and what they answer.
 * How an entry is written there is told in redis/entry.part.lua.
 */
#include "store/redis-store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEAD 137 /* bytes of an entry before the lock key and the value */

/* Longer than that is for ever: 2^52 ms. */
#define TTL_MOST_MS UINT64_C(4503599627370496)

/* ---------------------------------------------------------------- reading one */

/* Reads `digits` digits at `*at`, and skips one more byte. */
static bool read_digits(const char **at, size_t digits, uint64_t *value) {
    if (!hf__parse_uint((hf_slice){*at, digits}, 0, UINT64_MAX, value)) return false;
    *at += digits + 1;
    return true;
}

static uint64_t left_ms(uint64_t until_ms, uint64_t now_ms) {
    return until_ms > now_ms ? until_ms - now_ms : 0;
}

/* Fills op->entry and op->out. False: it makes no sense. */
static bool read_entry(hf_op *op, uint64_t now_ms, hf_slice text) {
    hf_entry *e = &op->entry;
    const char *at = text.data;
    uint64_t attempt;
    uint64_t lease;
    uint64_t kept;
    uint64_t lock;
    char state;

    if (text.len < HEAD || !read_digits(&at, 16, &e->version) || !read_digits(&at, 10, &attempt))
        return false;
    state = at[0];
    if ((state != 'p' && state != 'c') || (at[1] != '0' && at[1] != '1')) return false;
    e->format = (uint8_t)(at[1] - '0');
    at += 3;
    if (!hf__redis_read_token((hf_slice){at, 32}, &e->token)) return false;
    at += 33;
    if (!read_digits(&at, 16, &lease) || !read_digits(&at, 16, &kept) ||
        !read_digits(&at, 16, &e->stored_us) || !read_digits(&at, 16, &e->fence) ||
        !read_digits(&at, 4, &lock) || text.len - HEAD < lock || attempt > UINT32_MAX)
        return false;
    e->present = true;
    e->claimed = state == 'c';
    e->attempt = (uint32_t)attempt;
    e->lease_left_ms = e->claimed ? left_ms(lease, now_ms) : 0;
    e->kept_left_ms = kept == 0 ? HF_FOREVER : left_ms(kept, now_ms);
    return hf__op_set_out(op, text.data + HEAD + lock, text.len - HEAD - lock);
}

/* A number and a text: now, and an entry, empty if there is none. */
static bool answer_entry(hf_op *op, const hf__reply *now, const hf__reply *entry) {
    if (now->type != HF__REPLY_INTEGER || now->integer < 0 || entry->type != HF__REPLY_STRING)
        return false;
    if (entry->text.len == 0) return true;
    if (read_entry(op, (uint64_t)now->integer, entry->text)) return true;
    memset(&op->entry, 0, sizeof op->entry);
    return op->error.code == HF_ENOMEM;
}

/* ---------------------------------------------------------------- commands */

/* Where data may be removed at any time an entry is worth nothing. */
static hf_code check_server(const hf__redis_instance *s, const hf__redis_server *server,
                            hf_error *error) {
    if (!server->evicts || s->allow_eviction) return HF_OK;
    return hf__error_set(error, HF_ENOTSUP, 0,
                         "Redis at %s removes data when its memory is full (maxmemory-policy %s): "
                         "set maxmemory-policy to noeviction, or allowEviction to true if values "
                         "and records may vanish",
                         server->name, server->policy);
}

/* The head of a script's command for the op's one key. */
static hf_code begin(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                     uint32_t n_args, hf_error *error) {
    hf__redis_task *task = call->data;
    const hf_op *op = task->op;
    char letter = op->space == HF_RECORDS ? 'r' : 'v';
    hf__redis_name name;

    if (check_server(task->store, server, error) != HF_OK) return error->code;
    if (!hf__redis_companion(&task->store->names, op->keys[0], letter, &name))
        return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    hf__redis_begin(task, server, out, 1, n_args);
    hf__resp_slice(out, hf__redis_name_slice(&name));
    hf__resp_int(out, call->nonce);
    return HF_OK;
}

/* The second to the seventh argument of put, del and add (write.part.lua). */
static void put_conditions(const hf_op *op, hf__buffer *out) {
    bool possible = op->if_version <= HF_INT_MAX;

    hf__resp_token(out, &op->token);
    hf__resp_int(out, op->condition);
    hf__resp_int(out, possible ? (int64_t)op->if_version : 0); /* which no entry has */
    hf__resp_slice(out, op->fence_key);
    hf__resp_int(out, op->fence_key.len > 0 ? (int64_t)op->fence_in : 0);
    hf__resp_text(out, (op->flags & HF_OP_WANT_ENTRY) != 0 ? "e" : "");
}

static void put_ms(hf__buffer *out, uint64_t ms) {
    hf__resp_int(out, ms < TTL_MOST_MS ? (int64_t)ms : 0);
}

/* This instance's, if it has a watch on the entry. */
static void put_channel(const hf__redis_task *task, hf__buffer *out) {
    hf__redis_instance *s = task->store;

    hf__resp_bytes(out, s->channel, hf__redis_is_watched(s, task->op) ? s->channel_len : 0);
}

static hf_code encode_get(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                          hf_error *error) {
    if (begin(call, server, out, 2, error) != HF_OK) return error->code;
    put_channel(call->data, out);
    return HF_OK;
}

static hf_code encode_put(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                          hf_error *error) {
    const hf__redis_task *task = call->data;
    const hf_op *op = task->op;

    if (begin(call, server, out, 13, error) != HF_OK) return error->code;
    put_conditions(op, out);
    hf__resp_int(out, op->format);
    hf__resp_int(out, op->lease_ms < TTL_MOST_MS ? (int64_t)op->lease_ms : (int64_t)TTL_MOST_MS);
    put_ms(out, op->ttl_ms);
    hf__resp_text(out, (op->flags & HF_OP_KEEP_TTL) != 0 ? "k" : "");
    hf__resp_slice(out, op->value);
    put_channel(task, out);
    return HF_OK;
}

static hf_code encode_del(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                          hf_error *error) {
    if (begin(call, server, out, 7, error) != HF_OK) return error->code;
    put_conditions(((hf__redis_task *)call->data)->op, out);
    return HF_OK;
}

static int64_t clamp(int64_t n) {
    if (n > HF_INT_MAX) return INT64_C(1) + HF_INT_MAX;
    return n < -HF_INT_MAX ? -HF_INT_MAX - INT64_C(1) : n;
}

static bool is_within(const hf_op *op, int64_t sum) {
    if (sum > HF_INT_MAX || sum < -HF_INT_MAX) return false;
    if ((op->flags & HF_OP_HAS_MIN) != 0 && sum < op->min) return false;
    return (op->flags & HF_OP_HAS_MAX) == 0 || sum <= op->max;
}

/* Scripts count in doubles. What they add is therefore given in two parts, each of which is a safe
 * integer or leads out of bounds whatever it is added to. */
static hf_code encode_add(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                          hf_error *error) {
    const hf_op *op = ((hf__redis_task *)call->data)->op;
    bool has_min = (op->flags & HF_OP_HAS_MIN) != 0;
    bool has_max = (op->flags & HF_OP_HAS_MAX) != 0;
    int64_t sum;

    if (begin(call, server, out, 13, error) != HF_OK) return error->code;
    put_conditions(op, out);
    if (!__builtin_add_overflow(op->initial, op->delta, &sum) && is_within(op, sum))
        hf__resp_int(out, sum);
    else
        hf__resp_text(out, "");
    hf__resp_int(out, op->delta / 2);
    hf__resp_int(out, op->delta - op->delta / 2);
    hf__resp_int(out, has_min ? clamp(op->min) : -HF_INT_MAX);
    hf__resp_int(out, has_max ? clamp(op->max) : HF_INT_MAX);
    put_ms(out, op->ttl_ms);
    return HF_OK;
}

static hf_code encode_renew(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                            hf_error *error) {
    const hf_op *op = ((hf__redis_task *)call->data)->op;

    if (begin(call, server, out, 3, error) != HF_OK) return error->code;
    hf__resp_token(out, &op->token);
    hf__resp_int(out, op->ttl_ms < TTL_MOST_MS ? (int64_t)op->ttl_ms : (int64_t)TTL_MOST_MS);
    return HF_OK;
}

/* ---------------------------------------------------------------- answers */

/* nonce, now, entry. */
static bool answer_get(hf__redis_task *task, const hf__reply *reply) {
    hf_op *op = task->op;

    if (!hf__redis_has_shape(reply, 2, 1)) return false;
    if (!answer_entry(op, &reply->items[1], &reply->items[2])) return false;
    op->applied = op->error.code == HF_OK;
    return true;
}

/* nonce, 0, why, the newest fence, now, entry. */
static bool answer_refusal(hf_op *op, const hf__reply *reply) {
    const hf__reply *item = reply->items;

    if (!hf__redis_has_shape(reply, 5, 1) || item[2].integer < HF_REFUSED_OWNER ||
        item[2].integer > HF_REFUSED_TYPE || item[3].integer < 0)
        return false;
    hf__redis_refuse(op, (hf_refusal)item[2].integer);
    if (op->refused == HF_REFUSED_FENCE) op->fence = (uint64_t)item[3].integer;
    if (!answer_entry(op, &item[4], &item[5])) return false;
    if (op->error.code != HF_OK) op->refused = HF_NOT_REFUSED;
    return true;
}

/* The first two of an answer. False: it is told. */
static bool has_landed(hf__redis_task *task, const hf__reply *reply, bool *sensible) {
    hf_op *op = task->op;

    *sensible = reply->n_items >= 2 && reply->items[1].type == HF__REPLY_INTEGER;
    if (!*sensible) return false;
    if (reply->items[1].integer == 0) {
        *sensible = answer_refusal(op, reply);
        return false;
    }
    if (reply->items[1].integer == 1) return true;
    *sensible = reply->items[1].integer == -1 && reply->n_items == 2;
    hf__error_set(&op->error, HF_EIO, 0,
                  "the versions of \"%.*s\" have reached 2^53: the clock of Redis at %s is wrong",
                  hf__shown(op->keys[0]), op->keys[0].data, task->server->name);
    return false;
}

static bool is_safe(const hf__reply *reply) {
    return reply->integer >= -HF_INT_MAX && reply->integer <= HF_INT_MAX;
}

/* nonce, 1, version, attempt. */
static bool answer_put(hf__redis_task *task, const hf__reply *reply) {
    const hf__reply *item = reply->items;
    hf_op *op = task->op;
    bool sensible;

    if (!has_landed(task, reply, &sensible)) return sensible;
    if (!hf__redis_has_shape(reply, 4, 0) || item[2].integer < 0 || !is_safe(&item[2]) ||
        item[3].integer < 0 || item[3].integer > UINT32_MAX)
        return false;
    op->applied = true;
    op->version = (uint64_t)item[2].integer;
    op->attempt = (uint32_t)item[3].integer;
    return true;
}

/* nonce, 1. */
static bool answer_del(hf__redis_task *task, const hf__reply *reply) {
    bool sensible;

    if (!has_landed(task, reply, &sensible)) return sensible;
    task->op->applied = hf__redis_has_shape(reply, 2, 0);
    return task->op->applied;
}

/* nonce, 1, version, sum. */
static bool answer_add(hf__redis_task *task, const hf__reply *reply) {
    const hf__reply *item = reply->items;
    hf_op *op = task->op;
    bool sensible;

    if (!has_landed(task, reply, &sensible)) return sensible;
    if (!hf__redis_has_shape(reply, 4, 0) || item[2].integer < 0 || !is_safe(&item[2]) ||
        !is_safe(&item[3]))
        return false;
    op->applied = true;
    op->version = (uint64_t)item[2].integer;
    op->sum = item[3].integer;
    return true;
}

/* ---------------------------------------------------------------- the five */

typedef struct verb {
    hf_code (*encode)(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                      hf_error *error);
    bool (*answer)(hf__redis_task *task, const hf__reply *reply);
    int script;
} verb;

static bool begin_verb(hf__redis_instance *s, hf_op *op, const verb *v) {
    hf__redis_task *task;

    if (op->fence_in > HF_INT_MAX && op->fence_key.len > 0) {
        hf__error_set(&op->error, HF_EINVAL, 0, "a fence is a number below 2^53");
        return false;
    }
    task = hf__redis_task_new(s, op);
    if (task == NULL) return false;
    task->call.encode = v->encode;
    task->answer = v->answer;
    if (v->script == HF__LUA_renew) task->call.timeout_ms = hf__redis_keep_timeout(op->ttl_ms);
    hf__redis_send_task(task, v->script, op->keys[0]);
    return true;
}

bool hf__redis_get(hf__redis_instance *s, hf_op *op) {
    return begin_verb(s, op, &(verb){encode_get, answer_get, HF__LUA_get});
}

bool hf__redis_put(hf__redis_instance *s, hf_op *op) {
    return begin_verb(s, op, &(verb){encode_put, answer_put, HF__LUA_put});
}

bool hf__redis_del(hf__redis_instance *s, hf_op *op) {
    return begin_verb(s, op, &(verb){encode_del, answer_del, HF__LUA_del});
}

bool hf__redis_add(hf__redis_instance *s, hf_op *op) {
    return begin_verb(s, op, &(verb){encode_add, answer_add, HF__LUA_add});
}

bool hf__redis_renew(hf__redis_instance *s, hf_op *op) {
    return begin_verb(s, op, &(verb){encode_renew, hf__redis_answer_owner, HF__LUA_renew});
}
