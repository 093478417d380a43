/*
 * A Cluster: a map from slots to nodes, asked for when it is needed and put right by what the nodes
 * answer (Redis Cluster specification, "Redirection and resharding").
 */
#include "driver/redis/deployment.h"
#include "driver/redis/error.h"
#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define REFRESH_MIN_MS 50
#define REFRESH_MAX_MS 200

struct hf__cluster {
    hf__redis *redis;
    hf__redis_node **nodes;
    uint16_t n_nodes;
    uint16_t cap;
    uint16_t masters[HF__REDIS_NODES_MAX]; /* numbers of the nodes that hold slots, in order */
    uint16_t n_masters;
    uint16_t slots[HF__REDIS_SLOTS]; /* the number of a node, plus 1; 0: not known */
    bool mapped;                     /* there has been a map */
    hf__node unrouted;               /* calls that wait for one */
    hf__redis_call ask;
    bool asking;
    uint16_t cursor;  /* who is asked next */
    uint16_t n_asked; /* in this round */
    uv_timer_t timer; /* until the next round */
};

static void ask(hf__cluster *c);

/* ---------------------------------------------------------------- nodes */

static hf__redis_node *find_node(const hf__cluster *c, const hf__address *address,
                                 uint16_t *number) {
    for (uint16_t i = 0; i < c->n_nodes; i++) {
        const hf__address *other = &c->nodes[i]->address;
        if (other->port != address->port || strcmp(other->host, address->host) != 0) continue;
        *number = i;
        return c->nodes[i];
    }
    return NULL;
}

/* NULL when memory is out, or there are too many. */
static hf__redis_node *need_node(hf__cluster *c, const hf__address *address, uint16_t *number) {
    hf__redis_node *node = find_node(c, address, number);

    if (node != NULL) return node;
    if (c->n_nodes == HF__REDIS_NODES_MAX) return NULL;
    if (c->n_nodes == c->cap) {
        uint16_t cap = (uint16_t)(c->cap == 0 ? 16 : c->cap * 2);
        hf__redis_node **nodes =
            hf__resize(c->redis->env.allocator, c->nodes, cap * sizeof(hf__redis_node *));
        if (nodes == NULL) return NULL;
        c->nodes = nodes;
        c->cap = cap;
    }
    node = hf__redis_node_new(c->redis, HF__SESSION_COMMANDS);
    if (node == NULL) return NULL;
    node->address = *address;
    *number = c->n_nodes;
    c->nodes[c->n_nodes++] = node;
    return node;
}

static bool is_idle(const hf__redis_node *node) {
    return hf__list_empty(&node->waiting) &&
           (node->session == NULL ||
            (hf__list_empty(&node->session->unsent) && hf__list_empty(&node->session->sent) &&
             hf__list_empty(&node->session->again)));
}

/* What waits at a node that holds no slot any more is routed anew, but for what ASK sent there. */
static void call_back(hf__cluster *c, hf__redis_node *node) {
    hf__node batch;
    hf__node *at;

    hf__list_init(&batch);
    hf__list_append(&batch, &node->waiting);
    while ((at = hf__list_pop(&batch)) != NULL) {
        bool stays = hf__of(at, hf__redis_call, node)->asking;
        hf__list_push(stays ? &node->waiting : &c->unrouted, at);
    }
}

/* Nodes that hold no slot are not needed, but for one that is still to answer. Those to ask first
 * are found again by their host. */
static void retire_unneeded(hf__cluster *c) {
    uint16_t moved[HF__REDIS_NODES_MAX];
    bool needed[HF__REDIS_NODES_MAX] = {false};
    uint16_t kept = 0;

    for (uint16_t i = 0; i < c->n_masters; i++)
        needed[c->masters[i]] = true;
    for (uint16_t i = 0; i < c->n_nodes; i++) {
        hf__redis_node *node = c->nodes[i];
        if (!needed[i]) call_back(c, node);
        if (!needed[i] && is_idle(node)) {
            hf__redis_node_retire(node);
            continue;
        }
        moved[i] = kept;
        c->nodes[kept++] = node;
    }
    c->n_nodes = kept;
    for (uint16_t i = 0; i < c->n_masters; i++)
        c->masters[i] = moved[c->masters[i]];
    for (uint32_t i = 0; i < HF__REDIS_SLOTS; i++) {
        if (c->slots[i] != 0) c->slots[i] = (uint16_t)(moved[c->slots[i] - 1] + 1);
    }
}

static void need_hosts(hf__cluster *c) {
    uint16_t number;

    for (size_t i = 0; i < c->redis->config.n_hosts; i++)
        (void)need_node(c, &c->redis->config.hosts[i], &number);
}

/* ---------------------------------------------------------------- routes */

/* NULL: not known. */
static hf__redis_node *route(const hf__cluster *c, const hf__redis_call *call) {
    uint16_t number;

    if (!c->mapped || c->n_masters == 0) return NULL;
    if (call->server > 0)
        return call->server <= c->n_masters ? c->nodes[c->masters[call->server - 1]] : NULL;
    if (call->slot != HF__REDIS_ANY) {
        number = c->slots[call->slot % HF__REDIS_SLOTS];
        return number == 0 ? NULL : c->nodes[number - 1];
    }
    for (uint16_t i = 0; i < c->n_masters; i++) {
        if (hf__redis_node_ready(c->nodes[c->masters[i]])) return c->nodes[c->masters[i]];
    }
    return c->nodes[c->masters[0]];
}

void hf__cluster_send(hf__cluster *c, hf__redis_call *call) {
    hf__redis_node *node = route(c, call);

    if (node != NULL) {
        hf__redis_node_send(node, call);
        return;
    }
    hf__list_push(&c->unrouted, &call->node);
    ask(c);
}

/* Sends on what waited; what has no place even now fails. */
static void settle(hf__cluster *c, const hf_error *why) {
    hf__node batch;
    hf__node *at;
    hf_error error;

    if (why == NULL)
        hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE,
                      "no server of the cluster holds the slot of this key: see CLUSTER INFO");
    hf__list_init(&batch);
    hf__list_append(&batch, &c->unrouted);
    while ((at = hf__list_pop(&batch)) != NULL) {
        hf__redis_call *call = hf__of(at, hf__redis_call, node);
        hf__redis_node *node = route(c, call);
        if (node != NULL)
            hf__redis_node_send(node, call);
        else
            hf__redis_end(c->redis, call, NULL, why != NULL ? why : &error);
    }
}

/* ---------------------------------------------------------------- the map */

static hf_code encode_ask(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                          hf_error *error) {
    (void)call;
    (void)server;
    (void)error;
    hf__resp_begin(out, 2);
    hf__resp_text(out, "CLUSTER");
    hf__resp_text(out, "SLOTS");
    return HF_OK;
}

/* One of the map's rows: first slot, last slot, the master (host, port, ...), replicas. A host that
 * is not told is the one that was asked. */
static bool read_row(hf__cluster *c, const hf__reply *row, const char *asked) {
    const hf__reply *master;
    hf__address address;
    uint16_t number;

    if (row->type != HF__REPLY_ARRAY || row->n_items < 3) return false;
    master = &row->items[2];
    if (row->items[0].type != HF__REPLY_INTEGER || row->items[1].type != HF__REPLY_INTEGER ||
        row->items[0].integer < 0 || row->items[1].integer >= HF__REDIS_SLOTS ||
        master->type != HF__REPLY_ARRAY || master->n_items < 2 ||
        master->items[1].type != HF__REPLY_INTEGER || master->items[1].integer < 1 ||
        master->items[1].integer > 65535)
        return false;
    memset(&address, 0, sizeof address);
    if (hf__reply_is_text(&master->items[0]) && master->items[0].text.len > 0 &&
        !hf__reply_equals(&master->items[0], "?")) {
        if (master->items[0].text.len >= sizeof address.host) return false;
        memcpy(address.host, master->items[0].text.data, master->items[0].text.len);
    } else {
        memcpy(address.host, asked, strlen(asked) + 1);
    }
    address.port = (uint16_t)master->items[1].integer;
    if (need_node(c, &address, &number) == NULL) return false;
    for (int64_t slot = row->items[0].integer; slot <= row->items[1].integer; slot++)
        c->slots[slot] = (uint16_t)(number + 1);
    return true;
}

static void list_masters(hf__cluster *c) {
    bool holds[HF__REDIS_NODES_MAX] = {false};

    c->n_masters = 0;
    for (uint32_t i = 0; i < HF__REDIS_SLOTS; i++) {
        if (c->slots[i] != 0) holds[c->slots[i] - 1] = true;
    }
    for (uint16_t i = 0; i < c->n_nodes; i++) {
        if (holds[i]) c->masters[c->n_masters++] = i;
    }
}

static bool read_map(hf__cluster *c, const hf__reply *map, const char *asked) {
    if (map->type != HF__REPLY_ARRAY || map->n_items > HF__REDIS_SLOTS) return false;
    memset(c->slots, 0, sizeof c->slots);
    for (size_t i = 0; i < map->n_items; i++) {
        if (!read_row(c, &map->items[i], asked)) return false;
    }
    list_masters(c);
    c->mapped = true;
    return true;
}

static void on_timer(uv_timer_t *timer) {
    hf__cluster *c = hf__of(timer, hf__cluster, timer);
    hf__scope *scope = c->redis->env.scope;

    hf__scope_enter(scope);
    ask(c);
    hf__scope_leave(scope);
}

static void ask_later(hf__cluster *c) {
    if (c->asking || c->redis->closing || uv_is_active((uv_handle_t *)&c->timer)) return;
    uv_timer_start(&c->timer, on_timer, hf__random_between(REFRESH_MIN_MS, REFRESH_MAX_MS), 0);
}

static void on_map(hf__redis_call *call, const hf__reply *reply, const hf_error *error) {
    hf__cluster *c = call->data;
    const hf__session *session = call->conn;
    char asked[HF__HOST_MAX] = "";
    hf_error why;

    c->asking = false;
    if (error == NULL) {
        memcpy(asked, session->address.host, sizeof asked);
        if (read_map(c, reply, asked)) {
            c->n_asked = 0;
            retire_unneeded(c);
            settle(c, NULL);
            return;
        }
        hf__error_set(&why, HF_EPROTO, HF_RETRYABLE,
                      "the server %s answered CLUSTER SLOTS with something else",
                      session->server.name);
        error = &why;
    }
    if (c->n_asked < c->n_nodes) {
        ask(c);
        return;
    }
    c->n_asked = 0;
    settle(c, error);
    /* No server of the map answers: they may all have moved, and their names lead to where. */
    need_hosts(c);
    ask_later(c);
}

/* Asks one node, the next at each try: what one does not know another may. */
static void ask(hf__cluster *c) {
    if (c->asking || c->redis->closing) return;
    if (c->n_asked == 0 && c->n_masters == 0) need_hosts(c);
    if (c->n_nodes == 0) {
        ask_later(c);
        return;
    }
    uv_timer_stop(&c->timer);
    c->asking = true;
    c->n_asked++;
    c->ask = (hf__redis_call){.encode = encode_ask, .done = on_map, .data = c};
    hf__list_init(&c->ask.node);
    c->redis->n_calls++;
    hf__redis_node_send(c->nodes[c->cursor++ % c->n_nodes], &c->ask);
}

/* ---------------------------------------------------------------- what nodes tell */

/* "MOVED 3999 127.0.0.1:6381"; without a host it is that of who answered. */
static bool read_redirect(hf_slice text, const hf__redis_node *from, uint16_t *slot,
                          hf__address *address) {
    const char *end = text.data + text.len;
    const char *first = memchr(text.data, ' ', text.len);
    const char *second = first == NULL ? NULL : memchr(first + 1, ' ', (size_t)(end - first - 1));
    const char *colon = NULL;
    uint64_t number;
    uint64_t port;

    if (second == NULL) return false;
    if (!hf__parse_uint((hf_slice){first + 1, (size_t)(second - first - 1)}, 0, HF__REDIS_SLOTS - 1,
                        &number))
        return false;
    *slot = (uint16_t)number;
    /* IPv6 addresses come without brackets: the last colon it is. */
    for (const char *at = second + 1; at < end; at++) {
        if (*at == ':') colon = at;
    }
    if (colon == NULL ||
        !hf__parse_uint((hf_slice){colon + 1, (size_t)(end - colon - 1)}, 1, 65535, &port))
        return false;
    memset(address, 0, sizeof *address);
    if (colon - second - 1 >= (ptrdiff_t)sizeof address->host) return false;
    if (colon == second + 1)
        memcpy(address->host, from->address.host, sizeof address->host);
    else
        memcpy(address->host, second + 1, (size_t)(colon - second - 1));
    address->port = (uint16_t)port;
    return true;
}

bool hf__cluster_redirect(hf__cluster *c, hf__redis_node *from, hf__redis_call *call,
                          hf_slice text) {
    bool moved = hf__redis_begins(text, "MOVED");
    hf__address address;
    hf__redis_node *node;
    uint16_t number;
    uint16_t slot;

    if (hf__redis_begins(text, "CLUSTERDOWN")) ask_later(c);
    if (!moved && !hf__redis_begins(text, "ASK")) return false;
    if (moved) ask_later(c);
    if (call->redirects >= HF__REDIS_REDIRECTS_MAX) return false;
    if (!read_redirect(text, from, &slot, &address)) return false;
    node = need_node(c, &address, &number);
    if (node == NULL) return false;
    call->redirects++;
    call->sent = false; /* who redirects has done nothing */
    call->asking = !moved;
    if (moved) {
        c->slots[slot] = (uint16_t)(number + 1);
        list_masters(c);
    }
    hf__redis_node_send(node, call);
    return true;
}

void hf__cluster_ready(hf__cluster *c) {
    if (!c->mapped) ask(c);
}

void hf__cluster_down(hf__cluster *c) {
    /* Another may have taken its place. */
    ask_later(c);
}

bool hf__cluster_any(const hf__cluster *c, hf__address *address) {
    if (c->n_masters > 0) {
        /* Spread over the servers, and another one at the next try. */
        uint64_t n = hf__random_between(0, (uint64_t)c->n_masters - 1);
        *address = c->nodes[c->masters[n]]->address;
        return true;
    }
    if (c->n_nodes == 0) return false;
    *address = c->nodes[0]->address;
    return true;
}

uint16_t hf__cluster_servers(const hf__cluster *c) {
    return c->n_masters > 0 ? c->n_masters : 1;
}

/* ---------------------------------------------------------------- life */

hf__cluster *hf__cluster_new(hf__redis *redis) {
    hf__cluster *c = hf__zalloc(redis->env.allocator, sizeof *c);

    if (c == NULL) return NULL;
    c->redis = redis;
    hf__list_init(&c->unrouted);
    uv_timer_init(redis->env.loop, &c->timer);
    uv_unref((uv_handle_t *)&c->timer);
    hf__redis_hold(redis);
    return c;
}

void hf__cluster_open(hf__cluster *c) {
    ask(c);
}

static void on_timer_closed(uv_handle_t *handle) {
    hf__redis_let_go(hf__of(handle, hf__cluster, timer)->redis);
}

void hf__cluster_retire(hf__cluster *c) {
    assert(hf__list_empty(&c->unrouted));
    if (c->asking) {
        hf__list_remove(&c->ask.node);
        c->redis->n_calls--;
    }
    for (uint16_t i = 0; i < c->n_nodes; i++)
        hf__redis_node_retire(c->nodes[i]);
    c->n_nodes = 0;
    uv_close((uv_handle_t *)&c->timer, on_timer_closed);
}

void hf__cluster_free(hf__cluster *c) {
    const hf_allocator *allocator = c->redis->env.allocator;

    hf__free(allocator, c->nodes);
    hf__free(allocator, c);
}
