/*
 * Debts: a token that a node may still have, though its holder has let it go or never won it. The
 * node is told at once if there is a connection, and again when there is a new one. What was sent
 * on a connection that broke may arrive after the drop that went over the next: it is told again,
 * until one time to live has passed since it first heard. Nothing waits for this.
 */
#include "store/quorum-store.h"
#include "util/alloc.h"

#include <string.h>

/* Of a node; more lapse by themselves. A node that stands still is owed what it was asked before it
 * was called silent: some thousands on a busy client, each time, for a time to live. */
#define DEBTS_MAX 65536
#define LATEST 64
#define AGAIN_MS 100

typedef struct hf__debt {
    hf_op op;
    hf__timer timer;
    hf__node node; /* in the list of its node */
    hf__quorum *quorum;
    uint8_t index;
    bool again; /* once more, though it has heard */
    bool heard; /* it has said so once */
    uint32_t tries;
    uint64_t links; /* the connection on which what is owed may be on its way */
    uint64_t ttl_ms;
    uint64_t until_ns;
    hf_token token;
    uint32_t n_keys;
    hf_slice keys[];
} hf__debt;

static void debt_free(hf__debt *debt) {
    hf__quorum *q = debt->quorum;

    hf__timer_stop(&q->timers, &debt->timer);
    hf__list_remove(&debt->node);
    q->nodes[debt->index].n_debts--;
    hf__free(q->base.env.allocator, debt);
}

static void on_paid(hf_op *op);

static void tell(hf__debt *debt) {
    hf__quorum_node *node = &debt->quorum->nodes[debt->index];

    hf__timer_stop(&debt->quorum->timers, &debt->timer);
    hf_op_init(&debt->op, HF_DROP, on_paid, debt);
    debt->op.space = HF_LEASES;
    debt->op.keys = debt->keys;
    debt->op.n_keys = debt->n_keys;
    debt->op.token = debt->token;
    debt->op.ttl_ms = debt->ttl_ms;
    hf__quorum_asked(debt->quorum, debt->index);
    hf__store_submit(node->store, &debt->op);
}

static void on_due(hf__timer *timer) {
    hf__debt *debt = hf__of(timer, hf__debt, timer);

    if (debt->quorum->membership.nodes[debt->index].standing == HF__NODE_DOWN) {
        /* The next connection pays it, if there is one in time. */
        if (hf__quorum_now(debt->quorum) >= debt->until_ns)
            debt_free(debt);
        else
            hf__timer_start(&debt->quorum->timers, timer, debt->until_ns);
        return;
    }
    tell(debt);
}

static void tell_again(hf__debt *debt, uint64_t now) {
    uint32_t doublings = debt->tries < 6 ? debt->tries : 6;
    uint64_t at = hf__add_ms(now, (uint64_t)AGAIN_MS << doublings);

    debt->tries++;
    hf__timer_start(&debt->quorum->timers, &debt->timer, at < debt->until_ns ? at : debt->until_ns);
}

static void on_paid(hf_op *op) {
    hf__debt *debt = op->data;
    hf__quorum *q = debt->quorum;
    hf__quorum_node *node = &q->nodes[debt->index];
    uint64_t now = hf__quorum_now(q);
    bool paid = op->error.code == HF_OK;
    bool in_order = node->links == debt->links;

    hf__quorum_answered(q, debt->index, paid ? NULL : &op->error);
    hf_op_reset(op);
    if (paid && !debt->heard && !in_order) debt->until_ns = hf__add_ms(now, debt->ttl_ms);
    if (paid) debt->heard = true;
    if (q->is_over || (paid && in_order && !debt->again) || now >= debt->until_ns) {
        debt_free(debt);
        return;
    }
    if (paid) debt->again = false;
    tell_again(debt, now);
}

static hf__debt *debt_new(hf__quorum *q, const hf_slice *keys, uint32_t n_keys) {
    size_t size = sizeof(hf__debt) + n_keys * sizeof(hf_slice);
    hf__debt *debt;
    char *at;

    for (uint32_t i = 0; i < n_keys; i++)
        size += keys[i].len;
    debt = hf__alloc(q->base.env.allocator, size);
    if (debt == NULL) return NULL;
    memset(debt, 0, sizeof *debt);
    at = (char *)(debt->keys + n_keys);
    for (uint32_t i = 0; i < n_keys; i++) {
        memcpy(at, keys[i].data, keys[i].len);
        debt->keys[i] = (hf_slice){at, keys[i].len};
        at += keys[i].len;
    }
    debt->n_keys = n_keys;
    debt->quorum = q;
    debt->timer.fire = on_due;
    return debt;
}

/* Told of the latest only: to owe it twice does no harm. */
static bool is_owed(const hf__quorum_node *node, const hf_token *token) {
    const hf__node *at = node->debts.prev;

    for (uint32_t i = 0; i < LATEST && at != &node->debts; i++, at = at->prev)
        if (hf__token_equal(&hf__of(at, hf__debt, node)->token, token)) return true;
    return false;
}

void hf__quorum_owe(hf__quorum *q, uint8_t index, const hf_slice *keys, uint32_t n_keys,
                    const hf_token *token, uint64_t ttl_ms, bool again) {
    hf__quorum_node *node = &q->nodes[index];
    bool is_down = q->membership.nodes[index].standing == HF__NODE_DOWN;
    uint64_t now = hf__quorum_now(q);
    hf__debt *debt;

    if (ttl_ms == 0) ttl_ms = q->base.max_ttl_ms;
    if (q->is_over || node->n_debts >= DEBTS_MAX || is_owed(node, token)) return;
    /* What it has had since before it was lost has lapsed. */
    if (is_down && now >= hf__add_ms(node->down_ns, ttl_ms)) return;
    debt = debt_new(q, keys, n_keys);
    if (debt == NULL) return;
    debt->index = index;
    debt->token = *token;
    debt->ttl_ms = ttl_ms;
    debt->again = again;
    debt->links = node->links;
    debt->until_ns = hf__add_ms(now, ttl_ms);
    node->n_debts++;
    hf__list_push(&node->debts, &debt->node);
    if (again)
        tell_again(debt, now);
    else if (is_down)
        hf__timer_start(&q->timers, &debt->timer, debt->until_ns);
    else
        tell(debt);
}

void hf__quorum_debts_pay(hf__quorum *q, uint8_t index) {
    hf__node *next;
    hf__node *debts = &q->nodes[index].debts;

    for (hf__node *node = debts->next; node != debts; node = next) {
        hf__debt *debt = hf__of(node, hf__debt, node);

        next = node->next;
        if (debt->op.phase != HF__OP_PENDING) tell(debt);
    }
}

void hf__quorum_debts_forget(hf__quorum *q, uint8_t index) {
    hf__node *next;
    hf__node *debts = &q->nodes[index].debts;

    for (hf__node *node = debts->next; node != debts; node = next) {
        hf__debt *debt = hf__of(node, hf__debt, node);

        next = node->next;
        if (debt->op.phase != HF__OP_PENDING) debt_free(debt);
    }
}
