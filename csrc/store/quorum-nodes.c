/*
 * The nodes of a quorum: connecting, and the errands by which it is found out whether they have a
 * vote (quorum-standing.h).
 */
#include "store/quorum-store.h"
#include "store/stores.h"
#include "util/alloc.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_LEAST_MS 1000
#define PROBE_NS (1000 * HF_NS_PER_MS)
#define REOPEN_MS 1000
#define SILENT_OPEN 256 /* questions without an answer, for */
#define SILENT_NS (100 * HF_NS_PER_MS)

/* ---------------------------------------------------------------- making them */

static hf_code refuse(hf_error *error, size_t index, const char *why) {
    return hf__error_set(error, HF_EINVAL, 0, "node %zu of the quorum %s", index + 1, why);
}

static bool next_url(hf_slice *list, hf_slice *url) {
    while (list->len > 0 && *list->data == ' ') {
        list->data++;
        list->len--;
    }
    url->data = list->data;
    url->len = 0;
    while (url->len < list->len && url->data[url->len] != ' ')
        url->len++;
    list->data += url->len;
    list->len -= url->len;
    return url->len > 0;
}

static bool is_sentinel(const hf__url *url) {
    return memmem(url->scheme.data, url->scheme.len, "sentinel", 8) != NULL;
}

static bool is_unix(const hf__url *url) {
    return hf__slice_is(url->scheme, "unix");
}

static uint32_t port_of(const hf__url *url) {
    return url->port != 0 ? url->port : is_sentinel(url) ? 26379u : 6379u;
}

static void name_node(hf__quorum_node *node) {
    const hf__url *url = &node->url;
    const char *host = url->host.len > 0 ? url->host.data : "127.0.0.1";
    bool is_list = strchr(host, ',') != NULL;
    bool is_v6 = !is_list && strchr(host, ':') != NULL;
    int size = sizeof node->name;
    int len;

    if (is_unix(url)) {
        (void)snprintf(node->name, (size_t)size, "%s", url->path.data);
        return;
    }
    if (is_list)
        len = snprintf(node->name, (size_t)size, "%.50s", host);
    else
        len = snprintf(node->name, (size_t)size, is_v6 ? "[%.48s]:%u" : "%.50s:%u", host,
                       port_of(url));
    if (is_sentinel(url))
        (void)snprintf(node->name + len, (size_t)(size - len), "/%s", url->path.data);
}

/* By what is written; that two names lead to one server shows when they are connected to. */
static bool is_same_place(const hf__url *a, const hf__url *b) {
    bool by_path = is_unix(a) || is_sentinel(a);

    return hf__slice_equal(a->host, b->host) && port_of(a) == port_of(b) &&
           is_unix(a) == is_unix(b) && is_sentinel(a) == is_sentinel(b) &&
           (!by_path || hf__slice_equal(a->path, b->path));
}

static bool is_twice(const hf__quorum *q, const hf__quorum_node *node) {
    for (uint8_t i = 0; i < node->index; i++)
        if (is_same_place(&q->nodes[i].url, &node->url)) return true;
    return false;
}

/* The parameters of a node are those of Redis; what is the quorum's stands in front of them all. */
static hf_code check_url(const hf__quorum *q, const hf__quorum_node *node, hf_error *error) {
    const hf__url *url = &node->url;
    size_t i = node->index;

    if (!hf__has_word(hf__redis_store.schemes, url->scheme))
        return refuse(error, i,
                      "is no Redis: its URL must be a redis: or rediss: one, or the like");
    if (memmem(url->scheme.data, url->scheme.len, "cluster", 7) != NULL)
        return refuse(error, i, "is a Cluster: the nodes of a quorum are single servers");
    for (size_t p = 0; p < url->n_params; p++) {
        hf_slice name = url->params[p].name;
        if (!hf__store_takes(&hf__redis_store, name))
            return hf__error_set(
                error, HF_EINVAL, 0,
                "node %zu of the quorum has a parameter \"%.*s\", which is none of a "
                "Redis node",
                i + 1, hf__shown(name), name.data);
    }
    if (is_twice(q, node))
        return refuse(error, i, "is the same server as another: each has one vote");
    return HF_OK;
}

/* What stands in front of all URLs holds for each that does not say otherwise. */
static hf_code add_params(const hf__quorum *q, hf__quorum_node *node, hf_error *error) {
    const hf__url *all = q->base.env.url;
    hf_slice own;

    for (size_t i = 0; i < all->n_params; i++) {
        hf_slice name = all->params[i].name;

        if (!hf__store_takes(&hf__redis_store, name) ||
            hf__url_param_get(&node->url, name.data, &own))
            continue;
        if (node->url.n_params == HF_URL_PARAMS_MAX)
            return refuse(error, node->index, "has too many parameters");
        node->url.params[node->url.n_params++] = all->params[i];
    }
    return HF_OK;
}

static void on_connected(void *data, const hf__redis_server *server);
static void on_down(void *data, const hf_error *error);

static hf_code node_new(hf__quorum *q, uint8_t index, hf_slice text, hf_error *error) {
    hf__quorum_node *node = &q->nodes[index];
    hf__store_env env = q->base.env;
    uint64_t patience = 2 * q->timeout_ms;
    const char *why;

    node->quorum = q;
    node->index = index;
    hf__list_init(&node->debts);
    if (!hf__url_parse(&node->url, text, env.allocator, &why)) {
        if (strcmp(why, HF__URL_NOMEM) == 0) return hf__error_set(error, HF_ENOMEM, 0, NULL);
        return hf__error_set(error, HF_EINVAL, 0, "node %d of the quorum is not valid: %s",
                             index + 1, why);
    }
    name_node(node);
    if (check_url(q, node, error) != HF_OK || add_params(q, node, error) != HF_OK)
        return error->code;
    env.url = &node->url;
    node->store = hf__store_new(&hf__redis_store, &env, error);
    if (node->store == NULL) return error->code;
    if (patience < PATIENCE_LEAST_MS) patience = PATIENCE_LEAST_MS;
    node->member = (hf__redis_member){.patience_ms = (uint32_t)patience,
                                      .connected = on_connected,
                                      .down = on_down,
                                      .data = node};
    if (!hf__redis_join(node->store, &node->member))
        return refuse(error, index, "is a Cluster: the nodes of a quorum are single servers");
    hf__error_set(&node->error, HF_EUNAVAIL, HF_RETRYABLE, "%s has not been connected to yet",
                  node->name);
    return HF_OK;
}

hf_code hf__quorum_nodes_new(hf__quorum *q, hf_error *error) {
    hf_slice list = q->base.env.url->path;
    hf_slice rest = list;
    hf_slice url;
    size_t n = 0;

    while (next_url(&rest, &url))
        n++;
    if (n == 0 || n > HF__QUORUM_MAX)
        return hf__error_set(error, HF_EINVAL, 0,
                             "a quorum has 1 to %d nodes, as \"quorum:redis://a redis://b ...\"; "
                             "this one has %zu",
                             HF__QUORUM_MAX, n);
    q->nodes = hf__zalloc(q->base.env.allocator, n * sizeof *q->nodes);
    if (q->nodes == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    for (rest = list; next_url(&rest, &url);) {
        q->n++;
        if (node_new(q, (uint8_t)(q->n - 1), url, error) != HF_OK) return error->code;
    }
    return HF_OK;
}

void hf__quorum_nodes_free(hf__quorum *q) {
    for (uint8_t i = 0; i < q->n; i++) {
        if (q->nodes[i].store != NULL) hf__store_free(q->nodes[i].store);
        hf__url_free(&q->nodes[i].url, q->base.env.allocator);
    }
    hf__free(q->base.env.allocator, q->nodes);
}

static void open_node(hf__quorum_node *node);
static void on_hush(hf__timer *timer);

static void on_reopen(hf__timer *timer) {
    open_node(hf__of(timer, hf__quorum_node, reopen));
}

/* Connections are made, and made anew, by themselves, but where there was not even the memory to
 * begin with. */
static void on_opened(hf_op *op) {
    hf__quorum_node *node = op->data;
    hf__quorum *q = node->quorum;
    bool starved = op->error.code == HF_ENOMEM;

    if (starved) node->error = op->error;
    hf_op_reset(op);
    if (!starved || q->is_over || q->broken ||
        q->membership.nodes[node->index].standing != HF__NODE_DOWN)
        return;
    hf__membership_down(&q->membership, node->index);
    hf__timer_start(&q->timers, &node->reopen, hf__add_ms(hf__quorum_now(q), REOPEN_MS));
    hf__quorum_look(q);
}

static void open_node(hf__quorum_node *node) {
    node->reopen.fire = on_reopen;
    node->hush.fire = on_hush;
    hf_op_init(&node->open_op, HF_OPEN, on_opened, node);
    hf__store_submit(node->store, &node->open_op);
}

void hf__quorum_nodes_open(hf__quorum *q) {
    for (uint8_t i = 0; i < q->n; i++)
        open_node(&q->nodes[i]);
}

/* ---------------------------------------------------------------- what is told of them */

static uint8_t state_of(const hf__member_state *state) {
    switch ((hf__standing)state->standing) {
    case HF__NODE_DOWN: return state->coming ? HF_NODE_UNKNOWN : HF_NODE_DOWN;
    case HF__NODE_UNKNOWN:
    case HF__NODE_BLANK: return state->misses > 0 ? HF_NODE_DOWN : HF_NODE_UNKNOWN;
    case HF__NODE_OUT: return HF_NODE_QUARANTINED;
    case HF__NODE_VOTES: return HF_NODE_VOTING;
    }
    return HF_NODE_UNKNOWN;
}

static uint8_t reason_of(const hf__member_state *state) {
    if (state->standing != HF__NODE_OUT) return HF_NODE_NO_REASON;
    switch ((hf__outage)state->outage) {
    case HF__OUT_NOT: return HF_NODE_NO_REASON;
    case HF__OUT_RESTARTED: return HF_NODE_RESTARTED;
    case HF__OUT_EMPTIED: return HF_NODE_EMPTIED;
    case HF__OUT_CLOCK: return HF_NODE_CLOCK;
    case HF__OUT_TOLD: return HF_NODE_TOLD;
    }
    return HF_NODE_NO_REASON;
}

static void describe(const hf__quorum *q, uint8_t index, hf_node *out) {
    const hf__member_state *state = &q->membership.nodes[index];

    memset(out, 0, sizeof *out);
    memcpy(out->name, q->nodes[index].name, sizeof out->name);
    out->state = state_of(state);
    out->reason = reason_of(state);
    if (state->standing == HF__NODE_OUT)
        out->left_ms = hf__ms_until(hf__quorum_now(q), state->until_ns);
}

size_t hf__quorum_nodes(hf_store *store, hf_node *nodes, size_t max) {
    const hf__quorum *q = hf__quorum_self(store);

    for (uint8_t i = 0; i < q->n && i < max; i++)
        describe(q, i, &nodes[i]);
    return q->n;
}

/* An operator should know that a node has no vote. What another client found out it has told. */
static void warn(hf__quorum *q, const hf__quorum_node *node, const hf_node *now) {
    static const char *const reasons[] = {
        [HF_NODE_RESTARTED] = "it was started again, and may have lost what it promised",
        [HF_NODE_EMPTIED] = "it was emptied, or is new in this quorum",
        [HF_NODE_CLOCK] = "its clock has jumped, and leases may have ended before their time",
    };
    const hf__store_env *env = &q->base.env;
    hf_error error;

    if (env->warn == NULL || env->blocking || now->state != HF_NODE_QUARANTINED ||
        now->reason == HF_NODE_NO_REASON || now->reason == HF_NODE_TOLD)
        return;
    hf__error_set(&error, HF_EQUORUM, HF_RETRYABLE,
                  "the node %s of the quorum has no vote for %llu s: %s", node->name,
                  (unsigned long long)((now->left_ms + 999) / 1000), reasons[now->reason]);
    env->warn(env->warn_data, &error);
}

static void tell(hf__quorum *q, uint8_t index) {
    const hf__store_env *env = &q->base.env;
    hf__quorum_node *node = &q->nodes[index];
    hf_node now;

    describe(q, index, &now);
    /* What passes in a moment is nothing to tell. */
    if (now.state == HF_NODE_UNKNOWN ||
        (now.state == node->told.state && now.reason == node->told.reason))
        return;
    node->told = now;
    hf__scope_enter(env->scope);
    if (env->node != NULL) env->node(env->warn_data, &now);
    warn(q, node, &now);
    hf__scope_leave(env->scope);
}

/* ---------------------------------------------------------------- errands */

static void on_marked(hf_op *op) {
    hf__quorum_node *node = hf__of(hf__of(op, hf__redis_mark, op), hf__quorum_node, mark);
    hf__quorum *q = node->quorum;
    hf__redis_mark *mark = &node->mark;
    uint64_t now = hf__quorum_now(q);
    hf__marker marker;
    bool makes_sense =
        op->error.code == HF_OK && hf__marker_read(&marker, (hf_slice){mark->text, mark->len});

    hf__quorum_answered(q, node->index, op->error.code != HF_OK ? &op->error : NULL);
    if (op->error.code != HF_OK)
        node->error = op->error;
    else if (!makes_sense)
        hf__error_set(
            &node->error, HF_EPROTO, 0,
            "the marker of the quorum on %s makes no sense: has something else written it?",
            node->name);
    hf_op_reset(op);
    if (q->is_over) return;
    if (makes_sense) {
        memcpy(node->member.marker, mark->text, mark->len + 1);
        node->member.marker_len = mark->len;
        (void)hf__quorum_clock(q, node->index, node->mark_ns, mark->server_us);
        hf__membership_read(&q->membership, node->index, &marker, mark->server_us, node->mark_ns,
                            now);
    } else {
        hf__membership_missed(&q->membership, node->index, now);
    }
    hf__quorum_look(q);
}

static void send_errand(hf__quorum *q, hf__quorum_node *node, hf__errand errand) {
    hf__redis_mark *mark = &node->mark;

    hf_op_init(&mark->op, HF_GET, on_marked, NULL);
    mark->errand = errand;
    mark->max_ttl_ms = hf__membership_most_ms(&q->membership);
    memcpy(node->run_id, q->membership.nodes[node->index].run_id, sizeof node->run_id);
    mark->run_id = node->run_id;
    node->mark_ns = hf__quorum_now(q);
    hf__quorum_asked(q, node->index);
    hf__redis_errand(node->store, mark);
}

void hf__quorum_look(hf__quorum *q) {
    uint64_t now = hf__quorum_now(q);

    if (q->is_over || q->broken) return;
    for (uint8_t i = 0; i < q->n; i++) {
        hf__quorum_node *node = &q->nodes[i];
        hf__errand errand;

        /* That of the connection before has not come back yet. */
        if (node->mark.op.phase == HF__OP_PENDING) continue;
        errand = hf__membership_errand(&q->membership, i, now);
        if (errand != HF__ERRAND_NONE) send_errand(q, node, errand);
    }
    for (uint8_t i = 0; i < q->n; i++)
        tell(q, i);
    hf__timer_start(&q->timers, &q->wake, hf__membership_wake(&q->membership, now));
    hf__quorum_changed(q);
}

void hf__quorum_probe(hf__quorum *q, uint8_t index) {
    hf__quorum_node *node = &q->nodes[index];
    hf__member_state *state = &q->membership.nodes[index];
    uint64_t now = hf__quorum_now(q);

    if (state->standing != HF__NODE_VOTES || state->errand != HF__ERRAND_NONE ||
        node->mark.op.phase == HF__OP_PENDING || now < state->asked_ns + PROBE_NS)
        return;
    state->errand = HF__ERRAND_READ;
    send_errand(q, node, HF__ERRAND_READ);
}

/* ---------------------------------------------------------------- connections */

/* Two names of one server must not give it two votes. */
static bool check_is_other(hf__quorum *q, hf__quorum_node *node, const char *run_id) {
    node->twin = false;
    for (uint8_t i = 0; i < q->n; i++) {
        const hf__member_state *other = &q->membership.nodes[i];

        if (i == node->index || other->standing == HF__NODE_DOWN ||
            strcmp(other->run_id, run_id) != 0)
            continue;
        node->twin = true;
        memcpy(node->run_id, other->run_id, sizeof node->run_id);
        hf__error_set(&node->error, HF_EINVAL, 0,
                      "%s is the same server as %s, and has one vote: give each node its own",
                      node->name, q->nodes[i].name);
        return false;
    }
    return true;
}

static void on_connected(void *data, const hf__redis_server *server) {
    hf__quorum_node *node = data;
    hf__quorum *q = node->quorum;

    if (q->is_over) return;
    node->links++;
    node->n_open = 0;
    node->silent = false;
    if (server->run_id[0] == '\0') {
        hf__error_set(&node->error, HF_EACCES, 0,
                      "%s does not tell its run_id: allow its user the command INFO", node->name);
        hf__membership_down(&q->membership, node->index);
    } else if (check_is_other(q, node, server->run_id)) {
        hf__membership_up(&q->membership, node->index, server->run_id, hf__quorum_now(q));
    } else {
        hf__membership_down(&q->membership, node->index);
    }
    hf__quorum_look(q);
    hf__quorum_debts_pay(q, node->index);
}

static void on_down(void *data, const hf_error *error) {
    hf__quorum_node *node = data;
    hf__quorum *q = node->quorum;

    if (q->is_over) return;
    node->error = *error;
    node->error.flags &= ~HF_OUTCOME_UNKNOWN;
    node->twin = false;
    if (q->membership.nodes[node->index].standing != HF__NODE_DOWN)
        node->down_ns = hf__quorum_now(q);
    hf__membership_down(&q->membership, node->index);
    /* One that is the same server by another name may have the vote now. */
    for (uint8_t i = 0; i < q->n; i++) {
        hf__quorum_node *other = &q->nodes[i];

        if (other->twin && check_is_other(q, other, other->run_id))
            hf__membership_up(&q->membership, i, other->run_id, hf__quorum_now(q));
    }
    hf__quorum_look(q);
}

/* ---------------------------------------------------------------- asking */

bool hf__quorum_can_ask(const hf__quorum *q, uint8_t index) {
    return hf__membership_votes(&q->membership, index) && !q->nodes[index].silent;
}

static bool is_hushed(const hf__quorum_node *node, uint64_t now) {
    return node->n_open >= SILENT_OPEN && now >= node->heard_ns + SILENT_NS;
}

/* The answers may have been there, unread, while the loop was stuck: by now they are read. */
static void on_hush(hf__timer *timer) {
    hf__quorum_node *node = hf__of(timer, hf__quorum_node, hush);

    if (is_hushed(node, hf__quorum_now(node->quorum))) node->silent = true;
}

void hf__quorum_asked(hf__quorum *q, uint8_t index) {
    hf__quorum_node *node = &q->nodes[index];
    uint64_t now = hf__quorum_now(q);

    if (node->n_open++ == 0) node->heard_ns = now;
    if (is_hushed(node, now) && !node->silent && !hf__timer_active(&node->hush))
        hf__timer_start(&q->timers, &node->hush, now + HF_NS_PER_MS);
}

void hf__quorum_answered(hf__quorum *q, uint8_t index, const hf_error *error) {
    hf__quorum_node *node = &q->nodes[index];

    if (node->n_open > 0) node->n_open--;
    if (error != NULL && error->state[0] == '\0') return; /* no word of the server's */
    node->heard_ns = node->answered_ns = hf__quorum_now(q);
    if (!node->silent) return;
    node->silent = false;
    hf__quorum_changed(q);
}

uint64_t hf__quorum_common_us(const hf__quorum *q) {
    int64_t now_us = (int64_t)(hf__quorum_now(q) / 1000);
    hf__tally shown = {0};

    for (uint8_t i = 0; i < q->n; i++) {
        const hf__node_clock *clock = &q->nodes[i].clock;
        int64_t us = clock->low_us + (clock->high_us - clock->low_us) / 2 + now_us;

        if (clock->known) hf__tally_add(&shown, us > 0 ? (uint64_t)us : 0);
    }
    if (shown.n < hf__majority(q->n)) return 0;
    /* As many as may be wrong are passed over: what is left is not below all that are right. */
    return hf__tally_reach(&shown, (uint8_t)(shown.n - (q->n - hf__majority(q->n))));
}

bool hf__quorum_clock(hf__quorum *q, uint8_t index, uint64_t sent_ns, uint64_t server_us) {
    uint64_t now = hf__quorum_now(q);

    if (hf__node_clock_sample(&q->nodes[index].clock, sent_ns, now, server_us)) return true;
    hf__membership_jumped(&q->membership, index, q->nodes[index].clock.jump_us, now);
    return hf__membership_votes(&q->membership, index);
}
