/*
 * Values: checked here, decided by the store.
 */
#include "prim/request.h"

#include "util/alloc.h"

#include <assert.h>

static hf_code check_key(const hf_op *op, hf_error *error) {
    if (op->verb == HF_SWEEP) return HF_OK;
    if (op->n_keys != 1)
        return hf__error_set(error, HF_EINVAL, 0, "a value has one key; %u were given", op->n_keys);
    bool may_be_empty = op->verb == HF_GET || (op->verb == HF_LIST && !(op->flags & HF_OP_EXACT));
    if (op->keys[0].len == 0 && may_be_empty) return HF_OK;
    return hf__check_key(op->keys[0], error);
}

static bool is_ping(const hf_op *op) {
    return op->verb == HF_GET && op->n_keys == 1 && op->keys[0].len == 0;
}

static hf_code check(const hf_client *client, const hf_op *op, hf_error *error) {
    switch (op->verb) {
    case HF_GET:
    case HF_PUT:
    case HF_DEL:
    case HF_ADD:
    case HF_LIST:
    case HF_SWEEP: break;
    default: return hf__error_set(error, HF_EINVAL, 0, "this operation has a function of its own");
    }
    if (op->verb != HF_SWEEP && op->space != (op->verb == HF_LIST ? HF_LEASES : HF_VALUES))
        return hf__error_set(error, HF_EINVAL, 0, "this operation is not for that namespace");
    if (op->space == HF_VALUES && op->verb != HF_SWEEP && !is_ping(op) &&
        !(client->store->caps & HF_CAP_ENTRIES))
        return hf__client_no_entries(client, error);
    if (!hf__store_has(client->vt, (hf_verb)op->verb))
        return hf__error_set(error, HF_ENOTSUP, 0, "the %s store has no such operation",
                             client->vt->name);
    if (check_key(op, error) != HF_OK) return error->code;
    if (op->fence_key.len > 0 && hf__check_key(op->fence_key, error) != HF_OK) return error->code;
    if (op->verb == HF_LIST && op->value.len > HF_KEY_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a list goes on after a key: up to %d bytes",
                             HF_KEY_MAX);
    if (op->value.len > HF_VALUE_MAX)
        return hf__error_set(error, HF_ETOOBIG, 0,
                             "a value has up to %u bytes; the one for \"%.*s\" has %zu",
                             HF_VALUE_MAX, op->n_keys > 0 ? hf__shown(op->keys[0]) : 0,
                             op->n_keys > 0 ? op->keys[0].data : "", op->value.len);
    return HF_OK;
}

static hf__again again_of(const hf_op *op) {
    switch (op->verb) {
    case HF_GET:
    case HF_PUT:
    case HF_LIST: return HF__AGAIN_ALWAYS;
    case HF_DEL: return HF__AGAIN_CLEAN;
    default: return HF__AGAIN_NEVER;
    }
}

static void on_done(hf__request *request) {
    hf_op *op = request->op;
    hf__free(&request->client->engine->allocator, request);
    op->done(op);
}

hf_code hf_submit(hf_client *client, hf_op *op, hf_error *error) {
    if (hf__client_accepts(client, error) != HF_OK || check(client, op, error) != HF_OK)
        return error->code;
    if (op->verb == HF_PUT && hf__token_is_zero(&op->token) &&
        !hf__engine_token(client->engine, &op->token))
        return hf__error_set(error, HF_EIO, 0, "the system has no randomness to give");
    hf__request *request = hf__alloc(&client->engine->allocator, sizeof(*request));
    if (request == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    uint64_t until = op->deadline_ns;
    if (until == 0) until = hf__add_ms(hf__client_now(client), HF__RETRY_MS);
    hf__request_start(request, client, op, again_of(op), until, on_done, NULL);
    return HF_OK;
}
