#include "store/redis-store.h"

#include <assert.h>
#include <string.h>

bool hf__redis_join(hf_store *store, const hf__redis_member *member) {
    hf__redis_instance *s = hf__redis_self(store);

    assert(!s->has_handles);
    if (hf__redis_is_cluster(s->redis)) return false;
    s->member = member;
    return true;
}

/* ---------------------------------------------------------------- the marker */

static void name_marker(const hf__redis_instance *s, hf__redis_name *name) {
    static const char behind[] = "\0quorum";
    hf_slice prefix = s->names.prefix;

    if (prefix.len > 0) memcpy(name->text, prefix.data, prefix.len);
    memcpy(name->text + prefix.len, behind, sizeof behind - 1);
    name->len = prefix.len + sizeof behind - 1;
}

void hf__redis_put_marker(const hf__redis_instance *s, hf__buffer *out) {
    hf__redis_name name;

    name_marker(s, &name);
    hf__resp_slice(out, hf__redis_name_slice(&name));
    hf__resp_bytes(out, s->member->marker, s->member->marker_len);
}

static hf_code encode_mark(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    hf__redis_task *task = call->data;
    const hf__redis_instance *s = task->store;
    const hf__redis_mark *mark = hf__of(task->op, hf__redis_mark, op);
    bool writes = mark->errand != HF__ERRAND_READ;
    hf__redis_name name;

    /* What could not be sent before the connection broke goes out on the next. */
    if (writes && strcmp(server->run_id, mark->run_id) != 0)
        return hf__error_set(error, HF_EUNAVAIL, HF_RETRYABLE,
                             "%s was started again before its marker could be written",
                             server->name);
    hf__redis_begin(task, server, out, 1, writes ? 5 : 1);
    name_marker(s, &name);
    hf__resp_slice(out, hf__redis_name_slice(&name));
    hf__resp_int(out, call->nonce);
    if (!writes) return HF_OK;
    hf__resp_bytes(out, s->member->marker, s->member->marker_len);
    hf__resp_text(out, server->run_id);
    hf__resp_int(out, (int64_t)mark->max_ttl_ms);
    if (mark->errand == HF__ERRAND_RAISE)
        hf__resp_text(out, "");
    else
        hf__resp_int(out, mark->errand == HF__ERRAND_BAR ? (int64_t)mark->max_ttl_ms : 0);
    return HF_OK;
}

bool hf__redis_read_clock(const hf__reply *item, uint64_t *us) {
    if (item->type != HF__REPLY_INTEGER || item->integer < 0 || item->integer > HF_INT_MAX)
        return false;
    *us = (uint64_t)item->integer;
    return true;
}

static bool answer_mark(hf__redis_task *task, const hf__reply *reply) {
    hf__redis_mark *mark = hf__of(task->op, hf__redis_mark, op);
    const hf__reply *item = reply->items;

    if (!hf__redis_has_shape(reply, 2, 1) || item[2].text.len > HF__MARKER_MAX ||
        !hf__redis_read_clock(&item[1], &mark->server_us))
        return false;
    mark->len = item[2].text.len;
    if (mark->len > 0) memcpy(mark->text, item[2].text.data, mark->len);
    mark->text[mark->len] = '\0';
    task->op->applied = true;
    return true;
}

static bool begin_mark(hf__redis_instance *s, hf_op *op) {
    hf__redis_task *task = hf__redis_task_new(s, op);

    if (task == NULL) return false;
    task->call.encode = encode_mark;
    task->answer = answer_mark;
    hf__redis_send_task(task, HF__LUA_mark, (hf_slice){NULL, 0});
    return true;
}

void hf__redis_errand(hf_store *store, hf__redis_mark *mark) {
    hf__redis_start(hf__redis_self(store), &mark->op, begin_mark);
}

/* ---------------------------------------------------------------- fences */

static hf_code encode_raise(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                            hf_error *error) {
    hf__redis_task *task = call->data;
    const hf_op *op = task->op;

    hf__redis_begin(task, server, out, 2 * op->n_keys, 6);
    if (!hf__redis_put_keys(task->store, op, out))
        return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    hf__resp_int(out, call->nonce);
    hf__resp_token(out, &op->token);
    hf__redis_put_epoch(server, out);
    hf__resp_int(out, (int64_t)op->fence_in);
    hf__redis_put_marker(task->store, out);
    return HF_OK;
}

static bool begin_raise(hf__redis_instance *s, hf_op *op) {
    hf__redis_task *task = hf__redis_task_new(s, op);

    if (task == NULL) return false;
    task->call.encode = encode_raise;
    task->call.by_history = true;
    task->answer = hf__redis_answer_owner;
    hf__redis_send_task(task, HF__LUA_raise, op->keys[0]);
    return true;
}

void hf__redis_raise(hf_store *store, hf_op *op) {
    hf__redis_start(hf__redis_self(store), op, begin_raise);
}
