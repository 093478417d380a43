/*
 * Where the master is: asked of the Sentinels, one after another, until one knows (Redis
 * documentation, "Guidelines for Redis clients with support for Redis Sentinel"). That the server
 * found says of itself that it is the master is seen by the session with it.
 */
#include "driver/redis/deployment.h"
#include "driver/redis/error.h"
#include "util/alloc.h"

#include <string.h>

struct hf__sentinel {
    hf__redis_node *node;
    hf__session *session;
    hf__redis_call call;
    uint32_t host;
    uint32_t n_asked;
};

static bool ask_next(hf__sentinel *search);

static void leave_session(hf__sentinel *search) {
    if (search->session == NULL) return;
    search->session->data = search->node->redis; /* which outlives the search */
    hf__session_close(search->session);
    search->session = NULL;
}

void hf__sentinel_stop(hf__sentinel *search) {
    const hf_allocator *allocator = search->node->redis->env.allocator;

    leave_session(search);
    hf__free(allocator, search);
}

static void give_up(hf__sentinel *search, const hf_error *last) {
    hf__redis_node *node = search->node;
    const hf__redis *redis = node->redis;
    hf_error error = *last;

    hf__sentinel_stop(search);
    hf__error_set(&error, last->code, last->flags,
                  "none of the %zu Sentinels could tell where \"%.*s\" is; the last of them: %s",
                  redis->config.n_hosts, hf__shown(redis->config.master), redis->config.master.data,
                  last->message);
    hf__redis_node_failed(node, &error);
}

static void go_on(hf__sentinel *search, const hf_error *why) {
    if (search->n_asked >= search->node->redis->config.n_hosts || !ask_next(search))
        give_up(search, why);
}

static void on_down(hf__session *session, const hf_error *error) {
    hf__sentinel *search = session->data;

    /* It closes itself after this. */
    session->data = search->node->redis;
    search->session = NULL;
    go_on(search, error);
}

static hf_code encode(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                      hf_error *error) {
    const hf__sentinel *search = call->data;

    (void)server;
    (void)error;
    hf__resp_begin(out, 3);
    hf__resp_text(out, "SENTINEL");
    hf__resp_text(out, "GET-MASTER-ADDR-BY-NAME");
    hf__resp_slice(out, search->node->redis->config.master);
    return HF_OK;
}

static void on_ready(hf__session *session) {
    hf__sentinel *search = session->data;

    search->call = (hf__redis_call){.encode = encode, .data = search};
    hf__list_push(&session->unsent, &search->call.node);
    hf__redis_flush_later(search->node->redis, session);
}

static bool read_address(const hf__reply *reply, hf__address *address) {
    uint64_t port;

    if (reply->type != HF__REPLY_ARRAY || reply->n_items != 2 ||
        reply->items[0].type != HF__REPLY_STRING || reply->items[1].type != HF__REPLY_STRING)
        return false;
    if (!hf__parse_uint(reply->items[1].text, 1, 65535, &port)) return false;
    if (reply->items[0].text.len == 0 || reply->items[0].text.len >= sizeof address->host)
        return false;
    memset(address, 0, sizeof *address);
    memcpy(address->host, reply->items[0].text.data, reply->items[0].text.len);
    address->port = (uint16_t)port;
    return true;
}

static void on_answer(hf__session *session, hf__redis_call *call, const hf__reply *reply,
                      const hf_error *error) {
    hf__sentinel *search = session->data;
    hf__redis_node *node = search->node;
    hf__address address;
    hf_error unknown;

    (void)call;
    if (error != NULL && reply == NULL) return; /* `down` follows */
    if (error == NULL && read_address(reply, &address)) {
        node->redis->sentinel = search->host;
        hf__sentinel_stop(search);
        hf__redis_node_found(node, &address);
        return;
    }
    if (error == NULL) {
        hf__error_set(&unknown, HF_EUNAVAIL, HF_RETRYABLE,
                      "the Sentinel %s knows no master of that name", session->server.name);
        error = &unknown;
    }
    hf_error why = *error;
    leave_session(search);
    go_on(search, &why);
}

static void on_gone(void *data) {
    hf__redis_let_go(data);
}

const hf__session_events hf__sentinel_events = {
    .ready = on_ready,
    .answer = on_answer,
    .down = on_down,
    .gone = on_gone,
};

static bool ask_next(hf__sentinel *search) {
    hf__redis *redis = search->node->redis;

    search->host = (redis->sentinel + search->n_asked) % (uint32_t)redis->config.n_hosts;
    search->n_asked++;
    search->session = hf__session_new(&redis->sentinel_env, HF__SESSION_SENTINEL,
                                      &redis->config.hosts[search->host], search);
    if (search->session == NULL) return false;
    hf__redis_hold(redis);
    return true;
}

hf__sentinel *hf__sentinel_ask(hf__redis_node *node) {
    const hf_allocator *allocator = node->redis->env.allocator;
    hf__sentinel *search = hf__zalloc(allocator, sizeof *search);

    if (search == NULL) return NULL;
    search->node = node;
    if (ask_next(search)) return search;
    hf__free(allocator, search);
    return NULL;
}
