#include "core/op.h"

#include "core/error.h"
#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

void hf_op_init(hf_op *op, hf_verb verb, hf_op_cb done, void *data) {
    memset(op, 0, sizeof *op);
    op->verb = (uint8_t)verb;
    op->done = done;
    op->data = data;
    op->n_keys = 1;
}

static const hf_allocator *allocator_of(const hf_op *op) {
    return op->allocator != NULL ? op->allocator : hf__allocator_libc();
}

static void free_rows(hf_op *op) {
    const hf_allocator *a = allocator_of(op);

    for (size_t i = 0; i < op->n_rows; i++)
        hf__free(a, (void *)(uintptr_t)op->rows[i].key.data);
    hf__free(a, op->rows);
    op->rows = NULL;
    op->n_rows = 0;
    op->stamp = 0;
}

static void free_votes(hf_op *op) {
    hf__free(allocator_of(op), op->votes);
    op->votes = NULL;
    op->n_votes = 0;
}

static void free_out(hf_op *op) {
    hf__free(allocator_of(op), (void *)(uintptr_t)op->out.data);
    op->out = (hf_slice){NULL, 0};
}

void hf_op_reset(hf_op *op) {
    assert(op->phase == HF__OP_FREE);
    free_rows(op);
    free_votes(op);
    free_out(op);
    hf__error_clear(&op->error);
    op->applied = false;
    op->awaited = false;
    op->refused = HF_NOT_REFUSED;
    op->fence = 0;
    op->version = 0;
    op->attempt = 0;
    op->swept = 0;
    op->left_ms = 0;
    op->sum = 0;
    memset(&op->entry, 0, sizeof op->entry);
}

bool hf_token_random(hf_token *token) {
    do {
        if (!hf__random(token->bytes, sizeof token->bytes)) return false;
    } while (hf__token_is_zero(token)); /* zero means none */
    return true;
}

void hf__op_push(hf__op_list *list, hf_op *op) {
    op->next = NULL;
    if (list->last != NULL)
        list->last->next = op;
    else
        list->first = op;
    list->last = op;
}

hf_op *hf__op_pop(hf__op_list *list) {
    hf_op *op = list->first;

    if (op == NULL) return NULL;
    list->first = op->next;
    if (list->first == NULL) list->last = NULL;
    op->next = NULL;
    return op;
}

void hf__op_append(hf__op_list *to, hf__op_list *from) {
    if (from->first == NULL) return;
    if (to->last != NULL)
        to->last->next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    *from = (hf__op_list){NULL, NULL};
}

bool hf__op_remove(hf__op_list *list, hf_op *op) {
    hf_op *before = NULL;

    for (hf_op *at = list->first; at != NULL; before = at, at = at->next) {
        if (at != op) continue;
        if (before != NULL)
            before->next = op->next;
        else
            list->first = op->next;
        if (list->last == op) list->last = before;
        op->next = NULL;
        return true;
    }
    return false;
}

bool hf__op_set_out(hf_op *op, const void *data, size_t len) {
    char *copy = NULL;

    if (len > 0) {
        copy = hf__copy(allocator_of(op), (hf_slice){data, len});
        if (copy == NULL) {
            hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
            return false;
        }
    }
    free_out(op);
    op->out = (hf_slice){copy, len};
    return true;
}

/* Room for one more row. */
static bool reserve_row(hf_op *op) {
    size_t cap = op->rows == NULL ? 0 : (size_t)op->stamp;
    hf_row *rows;

    if (op->n_rows < cap) return true;
    cap = cap == 0 ? 8 : cap * 2;
    rows = hf__resize(allocator_of(op), op->rows, cap * sizeof(hf_row));
    if (rows == NULL) return false;
    op->rows = rows;
    op->stamp = cap;
    return true;
}

bool hf__op_add_row(hf_op *op, hf_slice key, const hf_holder *holder) {
    const hf_allocator *a = allocator_of(op);
    char *copy = hf__copy(a, key);

    if (copy == NULL || !reserve_row(op)) {
        hf__free(a, copy);
        free_rows(op);
        hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return false;
    }
    op->rows[op->n_rows++] = (hf_row){.key = {copy, key.len}, .holder = *holder};
    return true;
}

hf_vote *hf__op_new_votes(hf_op *op, size_t n) {
    free_votes(op);
    op->votes = hf__alloc(allocator_of(op), n * sizeof(hf_vote));
    op->n_votes = op->votes != NULL ? n : 0;
    return op->votes;
}

void hf__scope_enter(hf__scope *scope) {
    if (scope == NULL) return;
    if (scope->depth++ == 0 && scope->enter != NULL) scope->enter(scope->data);
}

void hf__scope_leave(hf__scope *scope) {
    if (scope == NULL) return;
    assert(scope->depth > 0);
    if (--scope->depth == 0 && scope->leave != NULL) scope->leave(scope->data);
}

void hf__op_finish(hf__scope *scope, hf__op_list *list) {
    /* The list may lie in what the last `done` frees. */
    hf__op_list ops = *list;
    hf_op *op;

    *list = (hf__op_list){NULL, NULL};
    if (ops.first == NULL) return;
    hf__scope_enter(scope);
    while ((op = hf__op_pop(&ops)) != NULL) {
        assert(op->phase == HF__OP_PENDING);
        op->phase = HF__OP_FREE;
        op->done(op);
    }
    hf__scope_leave(scope);
}

void hf__op_finish_close(hf__scope *scope, hf__op_list *late, hf_op *closing) {
    hf__op_list last = {NULL, NULL};
    hf_error error;
    hf_op *op;

    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    while (late->first != NULL) {
        hf__op_list failed = {NULL, NULL};
        while ((op = hf__op_pop(late)) != NULL)
            hf__op_fail(&failed, op, &error);
        hf__op_finish(scope, &failed);
    }
    closing->applied = true;
    hf__op_push(&last, closing);
    hf__op_finish(scope, &last);
}

void hf__op_fail(hf__op_list *list, hf_op *op, const hf_error *error) {
    op->error = *error;
    op->applied = false;
    hf__op_push(list, op);
}

bool hf__token_equal(const hf_token *a, const hf_token *b) {
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0 && !hf__token_is_zero(a);
}

bool hf__token_is_zero(const hf_token *t) {
    static const hf_token zero;
    return memcmp(t->bytes, zero.bytes, sizeof zero.bytes) == 0;
}
