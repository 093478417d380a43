/*
 * Lists on a quorum: what a majority of the nodes says is held. Each node is asked for a page, and
 * what lies below the last key of the shortest page is complete; where nothing there has a
 * majority, it goes on behind it.
 */
#include "store/quorum-store.h"
#include "store/stores.h"
#include "util/alloc.h"

#include <assert.h>
#include <string.h>

#define PATIENCE_MS 1000

typedef struct page {
    struct listing *listing;
    hf_op op;
    uint8_t node;
    bool is_open; /* it has not been answered */
    size_t at;    /* the first row that has not been merged */
    char after[HF_KEY_MAX];
} page;

typedef struct listing {
    hf__quorum *quorum;
    hf_op *op;       /* NULL: it has ended */
    hf__timer timer; /* when those who are silent are not waited for any more */
    char after[HF_KEY_MAX];
    size_t after_len;
    char text[HF_KEY_MAX];
    hf_slice key; /* in there: a page may come when the op has ended */
    uint8_t n_open;
    page pages[];
} listing;

static void on_page(hf_op *op);

/* False: nobody could be asked. */
static bool ask_all(listing *l) {
    hf__quorum *q = l->quorum;

    for (uint8_t i = 0; i < q->n; i++) {
        page *p = &l->pages[i];

        if (p->is_open) continue;
        p->listing = l;
        p->node = i;
        p->at = 0;
        hf_op_reset(&p->op);
        hf_op_init(&p->op, HF_LIST, on_page, p);
        if (!hf__quorum_can_ask(q, i)) {
            hf__error_set(&p->op.error, HF_EUNAVAIL, HF_RETRYABLE, NULL);
            continue;
        }
        p->op.space = HF_LEASES;
        p->op.keys = &l->key;
        p->op.limit = l->op->limit;
        p->op.flags = l->op->flags;
        memcpy(p->after, l->after, l->after_len);
        p->op.value = (hf_slice){p->after, l->after_len};
        p->is_open = true;
        l->n_open++;
        hf__quorum_asked(q, i);
        hf__store_submit(q->nodes[i].store, &p->op);
    }
    hf__timer_start(&q->timers, &l->timer, hf__add_ms(hf__quorum_now(q), PATIENCE_MS));
    return l->n_open > 0;
}

static void free_listing(listing *l) {
    hf__timer_stop(&l->quorum->timers, &l->timer);
    if (l->n_open > 0) return; /* with the last of them */
    for (uint8_t i = 0; i < l->quorum->n; i++)
        hf_op_reset(&l->pages[i].op);
    hf__free(l->quorum->base.env.allocator, l);
}

/* ---------------------------------------------------------------- merging */

static const hf_row *head_of(const page *p) {
    return !p->is_open && p->at < p->op.n_rows ? &p->op.rows[p->at] : NULL;
}

static bool has_row(const page *p, size_t at, hf_slice key) {
    return !p->is_open && at < p->op.n_rows && hf__slice_equal(p->op.rows[at].key, key);
}

/* The least key that a page goes on with; NULL: all are through. */
static const hf_row *least(const listing *l) {
    const hf_row *found = NULL;

    for (uint8_t i = 0; i < l->quorum->n; i++) {
        const hf_row *row = head_of(&l->pages[i]);
        if (row != NULL && (found == NULL || hf__slice_compare(row->key, found->key) < 0))
            found = row;
    }
    return found;
}

/* The greatest key up to which every page is whole; empty: nothing bounds it. */
static hf_slice bound_of(const listing *l) {
    hf_slice bound = {NULL, 0};

    for (uint8_t i = 0; i < l->quorum->n; i++) {
        const hf_op *op = &l->pages[i].op;
        hf_slice last;

        if (l->pages[i].is_open || op->n_rows == 0) continue;
        last = op->rows[op->n_rows - 1].key;
        if (bound.len == 0 || hf__slice_compare(last, bound) < 0) bound = last;
    }
    return bound;
}

/* One holder of the key at one node: how many nodes say the same, and the rest of it from them. */
static uint8_t gather(const listing *l, hf_slice key, const hf_token *token, hf_holder *holder) {
    hf__tally left = {0};
    hf__tally fences = {0};
    uint8_t majority = hf__majority(l->quorum->n);

    for (uint8_t i = 0; i < l->quorum->n; i++) {
        const page *p = &l->pages[i];

        for (size_t r = p->at; has_row(p, r, key); r++) {
            const hf_holder *each = &p->op.rows[r].holder;

            if (memcmp(&each->token, token, sizeof *token) != 0) continue;
            if (left.n == 0 || (holder->who[0] == '\0' && each->who[0] != '\0')) *holder = *each;
            hf__tally_add(&left, each->left_ms);
            hf__tally_add(&fences, each->fence);
            break;
        }
    }
    if (left.n == 0) return 0;
    holder->left_ms = hf__tally_reach(&left, majority);
    /* A node that was not counted may have proposed a greater one. */
    holder->fence = l->quorum->fencing ? hf__tally_reach(&fences, majority) : 0;
    return left.n;
}

/* Whether an earlier page has shown that holder already. */
static bool was_seen(const listing *l, uint8_t before, hf_slice key, const hf_token *token) {
    for (uint8_t i = 0; i < before; i++) {
        const page *p = &l->pages[i];
        for (size_t r = p->at; has_row(p, r, key); r++)
            if (memcmp(&p->op.rows[r].holder.token, token, sizeof *token) == 0) return true;
    }
    return false;
}

/* All holders of the key that a majority of nodes knows. False when memory is out. */
static bool merge_key(listing *l, hf_slice key) {
    for (uint8_t i = 0; i < l->quorum->n; i++) {
        const page *p = &l->pages[i];

        for (size_t r = p->at; has_row(p, r, key); r++) {
            const hf_token *token = &p->op.rows[r].holder.token;
            hf_holder holder;

            if (was_seen(l, i, key, token) ||
                gather(l, key, token, &holder) < hf__majority(l->quorum->n))
                continue;
            if (!hf__op_add_row(l->op, key, &holder)) return false;
        }
    }
    return true;
}

static void skip_key(listing *l, hf_slice key) {
    for (uint8_t i = 0; i < l->quorum->n; i++) {
        page *p = &l->pages[i];
        while (has_row(p, p->at, key))
            p->at++;
    }
}

/* True: it is to be asked for more. */
static bool merge(listing *l) {
    hf_slice bound = bound_of(l);
    const hf_row *row;

    while ((row = least(l)) != NULL && hf__slice_compare(row->key, bound) <= 0) {
        hf_slice key = row->key;

        if (l->op->n_rows > 0 && l->op->n_rows >= l->op->limit) return false;
        if (!merge_key(l, key)) return false;
        skip_key(l, key);
    }
    if (l->op->n_rows > 0 || bound.len == 0 || (l->op->flags & HF_OP_EXACT)) return false;
    memcpy(l->after, bound.data, bound.len);
    l->after_len = bound.len;
    return true;
}

/* ---------------------------------------------------------------- answers */

static void fail(listing *l) {
    hf__quorum *q = l->quorum;
    hf_vote *votes = hf__op_new_votes(l->op, q->n);

    for (uint8_t i = 0; votes != NULL && i < q->n; i++) {
        const hf_error *error = &l->pages[i].op.error;

        memcpy(votes[i].node, q->nodes[i].name, sizeof votes[i].node);
        votes[i].kind = error->code == HF_OK ? HF_VOTE_FOR : HF_VOTE_DOWN;
        votes[i].error = *error;
        if (l->pages[i].is_open) {
            votes[i].kind = HF_VOTE_DOWN;
            hf__error_set(&votes[i].error, HF_EUNAVAIL, HF_RETRYABLE,
                          "%s did not answer within %d ms", q->nodes[i].name, PATIENCE_MS);
        }
        if (error->code != HF_OK && !hf__quorum_can_ask(q, i)) hf__quorum_why(q, i, &votes[i]);
    }
    hf__quorum_fail(q, l->op, false);
}

/* In a callback only. */
static void finish(listing *l) {
    hf__quorum *q = l->quorum;
    hf_op *op = l->op;
    uint8_t answered = 0;

    for (uint8_t i = 0; i < q->n; i++)
        answered =
            (uint8_t)(answered + (!l->pages[i].is_open && l->pages[i].op.error.code == HF_OK));
    if (answered < hf__majority(q->n)) {
        fail(l);
    } else if (merge(l)) {
        if (ask_all(l)) return;
        fail(l);
    } else {
        op->applied = op->error.code == HF_OK;
    }
    l->op = NULL;
    free_listing(l);
    hf__quorum_end(q, op);
}

/* What a majority says is enough. */
static void on_timeout(hf__timer *timer) {
    listing *l = hf__of(timer, listing, timer);

    for (uint8_t i = 0; i < l->quorum->n; i++)
        if (l->pages[i].is_open) l->quorum->nodes[i].silent = true;
    finish(l);
}

static void on_page(hf_op *op) {
    page *p = op->data;
    listing *l = p->listing;
    hf__scope *scope = l->quorum->base.env.scope;

    hf__scope_enter(scope);
    p->is_open = false;
    l->n_open--;
    hf__quorum_answered(l->quorum, p->node, op->error.code != HF_OK ? &op->error : NULL);
    if (l->op == NULL)
        free_listing(l);
    else if (l->n_open == 0)
        finish(l);
    hf__scope_leave(scope);
}

bool hf__quorum_list(hf__quorum *q, hf_op *op) {
    listing *l = hf__zalloc(q->base.env.allocator, sizeof *l + q->n * sizeof(page));

    if (l == NULL) {
        hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return false;
    }
    assert(op->value.len <= sizeof l->after && op->keys[0].len <= sizeof l->text);
    l->quorum = q;
    l->op = op;
    l->timer.fire = on_timeout;
    if (op->value.len > 0) memcpy(l->after, op->value.data, op->value.len);
    l->after_len = op->value.len;
    l->key = (hf_slice){l->text, op->keys[0].len};
    if (l->key.len > 0) memcpy(l->text, op->keys[0].data, l->key.len);
    if (ask_all(l)) return true;
    fail(l);
    free_listing(l);
    return false;
}
