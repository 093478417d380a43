/*
 * Leases in Redis: what the scripts take, keep, drop are given, and what they answer.
 */
#include "store/redis-store.h"
#include "util/clock.h"
#include "util/random.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TTL_MOST_MS UINT64_C(31536000000000) /* a thousand years */
#define KEEP_MS 250                          /* a renewal's answer is waited for so long at least */
#define EPOCH_DIGITS 12

/* Where nobody will tell of the release: when to look again. */
#define BLIND_LEAST_MS 150
#define BLIND_MOST_MS 250
#define DEAF_LEAST_MS 400
#define DEAF_MOST_MS 600

/* keep's answer where one of the keys is shared. */
enum { SHARES = 2 };

/* take's answers beside 1 and 0. */
enum { NOT_THE_OWNER = -1, HOLDS_SOME = -2, FENCES_USED_UP = -3, NO_VOTE = -4 };

/* ---------------------------------------------------------------- commands */

/* Each key as two words: its lease and its state. False when memory is out. */
bool hf__redis_put_keys(hf__redis_instance *s, const hf_op *op, hf__buffer *out) {
    for (uint32_t i = 0; i < op->n_keys; i++) {
        hf__redis_name name;

        hf__redis_lease_name(&s->names, op->keys[i], &name);
        hf__resp_slice(out, hf__redis_name_slice(&name));
        if (!hf__redis_companion(&s->names, op->keys[i], 's', &name)) return false;
        hf__resp_slice(out, hf__redis_name_slice(&name));
    }
    return true;
}

static uint64_t ttl_of(const hf_op *op) {
    if (op->ttl_ms < 2) return 2; /* Redis knows no shorter one */
    return op->ttl_ms < TTL_MOST_MS ? op->ttl_ms : TTL_MOST_MS;
}

/* How long the lease and the state last, as the scripts want to have it. */
static void put_ttl(const hf_op *op, hf__buffer *out) {
    hf__resp_int(out, (int64_t)(ttl_of(op) - 1));
    hf__resp_int(out, (int64_t)(ttl_of(op) + HF__COUNTER_MS));
}

/* The server's epoch: of its process, and of its data. A master that was cut off and came back as a
 * replica has lost what it wrote last, though its process is the same: should it be the master once
 * more, it has another history. Of each 12 digits tell enough. */
void hf__redis_put_epoch(const hf__redis_server *server, hf__buffer *out) {
    char text[2 * EPOCH_DIGITS + 1];
    int len = snprintf(text, sizeof text, "%.*s%.*s", EPOCH_DIGITS, server->run_id, EPOCH_DIGITS,
                       server->replid);

    if (server->run_id[0] != '\0' && server->replid[0] != '\0')
        hf__resp_bytes(out, text, (size_t)len);
    else
        hf__resp_text(out, "-");
}

/* What others are told of the holder: how many keys it took together, its limit, since when, and
 * who it is. hf__redis_read_holder reads it. */
static void put_info(const hf__redis_instance *s, const hf_op *op, hf__buffer *out) {
    size_t who = op->who.len < HF_WHO_MAX ? op->who.len : HF_WHO_MAX - 1;
    size_t note = op->note.len <= HF_NOTE_MAX ? op->note.len : HF_NOTE_MAX;
    char text[80 + HF_WHO_MAX + HF_NOTE_MAX];
    int len = snprintf(text, 80, "%" PRIu32 " %" PRIu32 " %" PRIu64 " %zu ", op->n_keys, op->limit,
                       hf__real_us(s->base.env.clock), who);
    size_t at = (size_t)len;

    if (who > 0) memcpy(text + at, op->who.data, who);
    if (note > 0) memcpy(text + at + who, op->note.data, note);
    hf__resp_bytes(out, text, at + who + note);
}

static hf_code out_of_memory(hf_error *error) {
    return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
}

static hf_code encode_take(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    hf__redis_task *task = call->data;
    hf__redis_instance *s = task->store;
    const hf_op *op = task->op;
    bool replaces = !hf__token_is_zero(&op->replace_token);
    bool is_plain = op->n_keys == 1 && op->limit == 1 && !replaces;
    bool waits = (op->flags & HF_OP_WAIT) != 0 || hf__redis_is_watched(s, op);
    bool marks = (op->flags & HF_OP_INTENT) != 0;

    hf__redis_begin(task, server, out, 2 * op->n_keys,
                    (is_plain ? 8u : 10u) + (s->member != NULL ? 3u : 0u));
    if (!hf__redis_put_keys(s, op, out)) return out_of_memory(error);
    hf__resp_int(out, call->nonce);
    hf__resp_token(out, &op->token);
    put_ttl(op, out);
    hf__redis_put_epoch(server, out);
    hf__resp_bytes(out, s->channel, s->channel_len);
    put_info(s, op, out);
    hf__resp_text(out, marks ? (waits ? "iw" : "i") : (waits ? "w" : ""));
    if (!is_plain) {
        hf__resp_int(out, op->limit);
        if (replaces)
            hf__resp_token(out, &op->replace_token);
        else
            hf__resp_text(out, "");
    }
    if (s->member == NULL) return HF_OK;
    hf__redis_put_marker(s, out);
    if (op->fence_in > 0)
        hf__resp_int(out, (int64_t)op->fence_in);
    else
        hf__resp_text(out, "");
    return HF_OK;
}

static hf_code encode_keep(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    hf__redis_task *task = call->data;

    hf__redis_begin(task, server, out, 2 * task->op->n_keys, task->store->member != NULL ? 5 : 4);
    if (!hf__redis_put_keys(task->store, task->op, out)) return out_of_memory(error);
    hf__resp_int(out, call->nonce);
    hf__resp_token(out, &task->op->token);
    put_ttl(task->op, out);
    if (task->store->member != NULL) hf__resp_text(out, "clock");
    return HF_OK;
}

static hf_code encode_drop(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    hf__redis_task *task = call->data;

    hf__redis_begin(task, server, out, 2 * task->op->n_keys, 2);
    if (!hf__redis_put_keys(task->store, task->op, out)) return out_of_memory(error);
    hf__resp_int(out, call->nonce);
    hf__resp_token(out, &task->op->token);
    return HF_OK;
}

/* ---------------------------------------------------------------- answers */

/* Reads a number and the blank behind it. */
static bool read_number(hf_slice *text, uint64_t *value) {
    const char *blank = text->len > 0 ? memchr(text->data, ' ', text->len) : NULL;
    size_t len;

    if (blank == NULL) return false;
    len = (size_t)(blank - text->data);
    if (!hf__parse_uint((hf_slice){text->data, len}, 0, UINT64_MAX, value)) return false;
    text->data += len + 1;
    text->len -= len + 1;
    return true;
}

static bool skip_word(hf_slice *text) {
    const char *blank = text->len > 0 ? memchr(text->data, ' ', text->len) : NULL;
    size_t len;

    if (blank == NULL) return false;
    len = (size_t)(blank - text->data) + 1;
    text->data += len;
    text->len -= len;
    return true;
}

static int hex_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool hf__redis_read_token(hf_slice text, hf_token *token) {
    if (text.len != 2 * sizeof token->bytes) return false;
    for (size_t i = 0; i < sizeof token->bytes; i++) {
        int high = hex_of(text.data[2 * i]);
        int low = hex_of(text.data[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        token->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* `text` begins with a holder's info (put_info). */
static bool read_info(hf_slice text, hf_holder *holder) {
    uint64_t n_keys;
    uint64_t limit;
    uint64_t who;

    if (!read_number(&text, &n_keys) || !read_number(&text, &limit) ||
        !read_number(&text, &holder->since_us) || !read_number(&text, &who))
        return false;
    if (limit > UINT32_MAX || who >= HF_WHO_MAX || who > text.len || text.len - who > HF_NOTE_MAX)
        return false;
    holder->limit = (uint32_t)limit;
    memcpy(holder->who, text.data, who);
    memcpy(holder->note, text.data + who, text.len - who);
    return true;
}

bool hf__redis_read_holder(hf_slice token, int64_t left_ms, hf_slice text, hf_holder *holder) {
    memset(holder, 0, sizeof *holder);
    holder->left_ms = left_ms < 0 ? HF_FOREVER : (uint64_t)left_ms;
    holder->limit = 1;
    if (token.len == 0) {
        snprintf(holder->who, sizeof holder->who, "another program than Holdfast");
        return true;
    }
    if (!hf__redis_read_token(token, &holder->token)) return false;
    if (text.len == 0) return true; /* nothing is kept of one who waits */
    /* Fence, epoch, token, info. */
    return read_number(&text, &holder->fence) && skip_word(&text) && skip_word(&text) &&
           read_info(text, holder);
}

/* A number of milliseconds that the core may count on. */
static uint64_t at_most(uint64_t ms, uint64_t least, uint64_t most) {
    uint64_t cap = hf__random_between(least, most);
    return ms < cap ? ms : cap;
}

/* nonce, 0, time left, whether nobody will tell; one in the way: token, time left, what is told. */
static bool answer_refusal(hf__redis_task *task, const hf__reply *reply) {
    hf__redis_instance *s = task->store;
    const hf__reply *item = reply->items;
    hf_op *op = task->op;
    hf_holder holder;

    if (reply->n_items != 7 || item[2].type != HF__REPLY_INTEGER ||
        item[3].type != HF__REPLY_INTEGER || item[4].type != HF__REPLY_STRING ||
        item[5].type != HF__REPLY_INTEGER || item[6].type != HF__REPLY_STRING ||
        !hf__redis_read_holder(item[4].text, item[5].integer, item[6].text, &holder))
        return false;
    hf__redis_refuse(op, HF_REFUSED_HELD);
    op->left_ms = item[2].integer < 0 ? HF_FOREVER : (uint64_t)item[2].integer;
    if (item[3].integer != 0)
        op->left_ms = at_most(op->left_ms, BLIND_LEAST_MS, BLIND_MOST_MS);
    else if (!hf__redis_hears(s->redis) && hf__redis_is_watched(s, op))
        op->left_ms = at_most(op->left_ms, DEAF_LEAST_MS, DEAF_MOST_MS);
    if (op->holder != NULL) *op->holder = holder;
    return true;
}

static bool answer_take(hf__redis_task *task, const hf__reply *reply) {
    const hf__reply *item = reply->items;
    hf_op *op = task->op;

    if (reply->n_items < 2 || item[1].type != HF__REPLY_INTEGER) return false;
    if (item[1].integer < 0 && reply->n_items > 2) return false;
    switch (item[1].integer) {
    case 1:
        if (!hf__redis_has_shape(reply, 4, 0) || item[2].integer < 0 ||
            item[2].integer > HF_INT_MAX)
            return false;
        op->applied = true;
        op->fence = (uint64_t)item[2].integer;
        op->awaited = item[3].integer != 0;
        return true;
    case 0: return answer_refusal(task, reply);
    case NOT_THE_OWNER: hf__redis_refuse(op, HF_REFUSED_OWNER); return true;
    case HOLDS_SOME:
        hf__error_set(&op->error, HF_EINVAL, 0, "the token holds some of the keys already");
        return true;
    case FENCES_USED_UP:
        hf__error_set(&op->error, HF_EIO, 0,
                      "the fences of \"%.*s\" have reached 2^53: the clock of Redis at %s is wrong",
                      hf__shown(op->keys[0]), op->keys[0].data, task->server->name);
        return true;
    default: return false;
    }
}

/* Of keep and drop: whether the token held all. */
bool hf__redis_answer_owner(hf__redis_task *task, const hf__reply *reply) {
    int64_t answer;

    if (!hf__redis_has_shape(reply, 2, 0)) return false;
    answer = reply->items[1].integer;
    task->op->applied = answer == 1 || answer == SHARES;
    if (!task->op->applied) hf__redis_refuse(task->op, HF_REFUSED_OWNER);
    if (answer == SHARES && task->store->member != NULL && task->op->owner != NULL)
        ((hf__redis_vote *)task->op->owner)->is_shared = true;
    return task->op->applied || answer == 0;
}

/* ---------------------------------------------------------------- the three */

/* As a node of a quorum: the server's clock comes last, or tells beside the marker that there is no
 * vote. */
static bool answer_vote(hf__redis_task *task, const hf__reply *reply) {
    hf__redis_vote *vote = task->op->owner;
    hf__reply take = *reply;

    if (reply->n_items == 4 && reply->items[1].type == HF__REPLY_INTEGER &&
        reply->items[1].integer == NO_VOTE) {
        vote->is_void = true;
        hf__redis_refuse(task->op, HF_REFUSED_OWNER);
        return hf__redis_read_clock(&reply->items[2], &vote->server_us);
    }
    /* A vote replaces nobody. */
    if (reply->n_items < 3 || reply->items[1].integer == NOT_THE_OWNER ||
        !hf__redis_read_clock(&reply->items[reply->n_items - 1], &vote->server_us))
        return false;
    take.n_items--;
    return answer_take(task, &take);
}

bool hf__redis_take(hf__redis_instance *s, hf_op *op) {
    hf__redis_task *task = hf__redis_task_new(s, op);

    assert(op->n_keys >= 1 && op->n_keys <= HF_KEYS_MAX && op->limit >= 1);
    if (task == NULL) return false;
    task->call.encode = encode_take;
    task->call.by_history = true; /* its fence */
    task->answer = s->member != NULL ? answer_vote : answer_take;
    hf__redis_send_task(task, s->member != NULL ? HF__LUA_vote : HF__LUA_take, op->keys[0]);
    return true;
}

uint32_t hf__redis_keep_timeout(uint64_t ttl_ms) {
    uint64_t ms = ttl_ms / 3;

    if (ms < KEEP_MS) return KEEP_MS;
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* As a node of a quorum: the server's clock comes last. */
static bool answer_kept(hf__redis_task *task, const hf__reply *reply) {
    hf__redis_vote *vote = task->op->owner;
    hf__reply kept = *reply;

    if (reply->n_items != 3 || !hf__redis_read_clock(&reply->items[2], &vote->server_us))
        return false;
    kept.n_items = 2;
    return hf__redis_answer_owner(task, &kept);
}

bool hf__redis_keep(hf__redis_instance *s, hf_op *op) {
    hf__redis_task *task = hf__redis_task_new(s, op);

    assert(op->n_keys >= 1 && op->n_keys <= HF_KEYS_MAX);
    if (task == NULL) return false;
    task->call.encode = encode_keep;
    task->call.timeout_ms = hf__redis_keep_timeout(op->ttl_ms);
    task->answer = s->member != NULL ? answer_kept : hf__redis_answer_owner;
    hf__redis_send_task(task, HF__LUA_keep, op->keys[0]);
    return true;
}

bool hf__redis_drop(hf__redis_instance *s, hf_op *op) {
    hf__redis_task *task = hf__redis_task_new(s, op);

    assert(op->n_keys >= 1 && op->n_keys <= HF_KEYS_MAX);
    if (task == NULL) return false;
    task->call.encode = encode_drop;
    task->answer = hf__redis_answer_owner;
    hf__redis_send_task(task, HF__LUA_drop, op->keys[0]);
    return true;
}
