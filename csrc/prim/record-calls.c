/*
 * Looking at records and forgetting them.
 */
#include "prim/record.h"
#include "prim/request.h"

#include "util/alloc.h"

#include <string.h>

typedef struct call {
    hf__request request;
    hf_op op;
    hf_slice key;
    void (*got)(void *data, const hf_record *record, const hf_error *error);
    void (*forgot)(void *data, bool existed, const hf_error *error);
    void *data;
} call;

static hf_code start(hf_client *client, hf_slice key, hf_verb verb, hf__again again,
                     void (*done)(hf__request *request), const call *what, hf_error *error) {
    if (hf__client_accepts(client, error) != HF_OK || hf__check_key(key, error) != HF_OK)
        return error->code;
    if (!(client->store->caps & HF_CAP_ENTRIES)) return hf__client_no_entries(client, error);
    call *c = hf__alloc(&client->engine->allocator, sizeof(*c) + key.len);
    if (c == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    *c = *what;
    memcpy(c + 1, key.data, key.len);
    c->key = (hf_slice){(char *)(c + 1), key.len};
    hf_op_init(&c->op, verb, NULL, NULL);
    c->op.space = HF_RECORDS;
    c->op.keys = &c->key;
    c->op.n_keys = 1;
    uint64_t until = hf__add_ms(hf__client_now(client), HF__RETRY_MS);
    hf__request_start(&c->request, client, &c->op, again, until, done, c);
    return HF_OK;
}

static void call_free(call *c) {
    hf_op_reset(&c->op);
    hf__free(&c->request.client->engine->allocator, c);
}

static void on_got(hf__request *request) {
    call *c = request->data;
    const hf_entry *entry = &c->op.entry;
    hf_error error = c->op.error;
    hf_record record = {.present = entry->present,
                        .claimed = entry->claimed,
                        .format = entry->format,
                        .attempt = entry->attempt,
                        .lease_left_ms = entry->lease_left_ms,
                        .kept_left_ms = entry->kept_left_ms,
                        .stored_us = entry->stored_us};
    hf__record read;
    if (error.code == HF_OK && entry->present) {
        if (hf__record_read(c->op.out, &read)) {
            record.is_error = read.is_error;
            record.fingerprint = read.fingerprint;
            record.value = read.value;
        } else {
            hf__error_set(&error, HF_EPROTO, 0, "the record of \"%.*s\" cannot be read",
                          hf__shown(c->key), c->key.data);
        }
    }
    if (error.code != HF_OK)
        c->got(c->data, NULL, &error);
    else
        c->got(c->data, &record, NULL);
    call_free(c);
}

hf_code hf_record_get(hf_client *client, hf_slice key,
                      void (*cb)(void *data, const hf_record *record, const hf_error *error),
                      void *data, hf_error *error) {
    call what = {.got = cb, .data = data};
    return start(client, key, HF_GET, HF__AGAIN_ALWAYS, on_got, &what, error);
}

static void on_forgot(hf__request *request) {
    call *c = request->data;
    hf_error error = c->op.error;
    c->forgot(c->data, c->op.applied, error.code != HF_OK ? &error : NULL);
    call_free(c);
}

hf_code hf_record_forget(hf_client *client, hf_slice key,
                         void (*cb)(void *data, bool existed, const hf_error *error), void *data,
                         hf_error *error) {
    call what = {.forgot = cb, .data = data};
    return start(client, key, HF_DEL, HF__AGAIN_CLEAN, on_forgot, &what, error);
}
