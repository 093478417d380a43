/*
 * The public way to a client: from a URL to a store.
 */
#include "prim/client.h"
#include "prim/request.h"
#include "store/registry.h"
#include "util/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* The first scheme of each store, as "memory: sqlite:". */
static void list_schemes(char *text, size_t size) {
    size_t len = 0;
    for (size_t i = 0; hf__stores[i] != NULL; i++) {
        const char *schemes = hf__stores[i]->schemes;
        int first = (int)strcspn(schemes, " ");
        int put = snprintf(text + len, size - len, "%s%.*s:", len > 0 ? " " : "", first, schemes);
        len += (size_t)put;
        assert(len < size);
    }
}

static hf_code no_store(hf_slice scheme, hf_error *error) {
    char schemes[128] = "";
    list_schemes(schemes, sizeof(schemes));
    return hf__error_set(error, HF_ENOTSUP, 0,
                         "there is no store for \"%.*s:\" in this version; it has %s",
                         hf__shown(scheme), scheme.data, schemes);
}

hf_code hf_client_open(hf_engine *engine, hf_slice url, const hf_client_options *options,
                       hf_client **out, hf_error *error) {
    hf_client_options given = options != NULL ? *options : HF_CLIENT_DEFAULTS;
    hf__url parsed;
    const char *why;
    if (given.handoffs > HF_HANDOFFS_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "handoffs is 0 to %d", HF_HANDOFFS_MAX);
    if (engine->closing) return hf__error_set(error, HF_ECLOSED, 0, "the engine is being closed");
    if (!hf__url_parse(&parsed, url, &engine->allocator, &why))
        return strcmp(why, HF__URL_NOMEM) == 0
                   ? hf__error_set(error, HF_ENOMEM, 0, NULL)
                   : hf__error_set(error, HF_EINVAL, 0, "the URL is not valid: %s", why);
    const hf_store_vtable *vt = hf__store_find(parsed.scheme);
    if (vt == NULL) {
        hf_code code = no_store(parsed.scheme, error);
        hf__url_free(&parsed, &engine->allocator);
        return code;
    }
    return hf__client_new(engine, vt, &parsed, &given, out, error);
}

/* ---------------------------------------------------------------- connect */

typedef struct connecting {
    hf__request request;
    hf_op op;
    hf_slice key;
    void (*cb)(void *data, const hf_error *error, const hf_vote *votes, size_t n_votes);
    void *data;
} connecting;

static void on_connected(hf__request *request) {
    connecting *c = request->data;
    const hf_error *error = &c->op.error;
    if (c->cb != NULL)
        c->cb(c->data, error->code != HF_OK ? error : NULL, c->op.votes, c->op.n_votes);
    hf_op_reset(&c->op);
    hf__free(&request->client->engine->allocator, c);
}

/* Whether the store works is best known by asking it something. */
hf_code hf_client_connect(hf_client *client,
                          void (*cb)(void *data, const hf_error *error, const hf_vote *votes,
                                     size_t n_votes),
                          void *data) {
    hf_error error;
    if (hf__client_accepts(client, &error) != HF_OK) return error.code;
    hf_verb verb = client->vt->get != NULL ? HF_GET : HF_LIST;
    connecting *c = hf__zalloc(&client->engine->allocator, sizeof(*c));
    if (c == NULL) return HF_ENOMEM;
    c->cb = cb;
    c->data = data;
    hf_op_init(&c->op, verb, NULL, NULL);
    c->op.space = verb == HF_GET ? HF_VALUES : HF_LEASES;
    c->op.limit = 1;
    c->op.keys = &c->key;
    c->op.n_keys = 1;
    hf__request_start(&c->request, client, &c->op, HF__AGAIN_NEVER, 0, on_connected, c);
    return HF_OK;
}

uint32_t hf_client_caps(const hf_client *client) {
    return client->store->caps;
}

uint64_t hf_client_max_ttl_ms(const hf_client *client) {
    return client->store->max_ttl_ms;
}

size_t hf_client_nodes(hf_client *client, hf_node *nodes, size_t max) {
    if (client->vt->nodes == NULL || client->phase >= HF__CLOSING) return 0;
    return client->vt->nodes(client->store, nodes, max);
}

const char *hf_client_store(const hf_client *client) {
    return client->vt->name;
}
