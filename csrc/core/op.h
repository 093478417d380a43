/*
 * What the core and the stores do with an hf_op beside reading its fields.
 *
 * Life of an op: free -> pending (submitted) -> free again (its done has run). `next` chains ops
 * into lists; it belongs to whoever the op is with: to the caller before submit, to the store
 * until finish.
 */
#ifndef HF_CORE_OP_H
#define HF_CORE_OP_H

#include "holdfast.h"

struct uv_loop_s;

enum { HF__OP_FREE = 0, HF__OP_PENDING = 1 };

/* A list of ops in order of submission. */
typedef struct hf__op_list {
    hf_op *first;
    hf_op *last;
} hf__op_list;

void hf__op_push(hf__op_list *list, hf_op *op);
hf_op *hf__op_pop(hf__op_list *list); /* NULL when empty */
/* Moves all of `from` behind `to`. */
void hf__op_append(hf__op_list *to, hf__op_list *from);
/* Takes `op` out; false if it is not in the list. O(n). */
bool hf__op_remove(hf__op_list *list, hf_op *op);

/* Copies `value` to op->out (freed by hf_op_reset). False when memory is out: then op->error is
 * HF_ENOMEM and what it had stays. Any thread. */
bool hf__op_set_out(hf_op *op, const void *data, size_t len);

/* Appends a row to op->rows; copies key and holder. False when memory is out: error set, all rows
 * gone. Any thread. `op->stamp` holds the capacity while a list is filled. */
bool hf__op_add_row(hf_op *op, hf_slice key, const hf_holder *holder);

/* Room for the votes of `n` nodes, to be filled in. NULL when memory is out: there are none. Any
 * thread. */
hf_vote *hf__op_new_votes(hf_op *op, size_t n);

/* The bracket in which callbacks run (hf_engine_options.enter and leave); one per loop. */
typedef struct hf__scope {
    void (*enter)(void *data);
    void (*leave)(void *data);
    void *data;
    uint32_t depth;
} hf__scope;

/* May nest: only the outermost pair reaches the host. `scope` may be NULL. */
void hf__scope_enter(hf__scope *scope);
void hf__scope_leave(hf__scope *scope);

/* Ends every op of the list: each `done` runs once, within one bracket. On the loop's thread,
 * never from within a vtable call. `done` may submit, free or reuse its op. Every store ends its
 * ops here. */
void hf__op_finish(hf__scope *scope, hf__op_list *list);

/* The end of a store: what came too late, also from their callbacks, ends with HF_ECLOSED, and then
 * the op that closed it, which has done so. As hf__op_finish. */
void hf__op_finish_close(hf__scope *scope, hf__op_list *late, hf_op *closing);

/* Fails `op` with the error given, in place, and pushes it to `list`. */
void hf__op_fail(hf__op_list *list, hf_op *op, const hf_error *error);

/* True if both name the same holder; an all-zero token equals nothing. */
bool hf__token_equal(const hf_token *a, const hf_token *b);
bool hf__token_is_zero(const hf_token *t);

static inline bool hf__slice_equal(hf_slice a, hf_slice b) {
    return a.len == b.len && (a.len == 0 || __builtin_memcmp(a.data, b.data, a.len) == 0);
}

static inline bool hf__slice_is(hf_slice s, const char *text) {
    return hf__slice_equal(s, (hf_slice){text, __builtin_strlen(text)});
}

static inline bool hf__slice_starts(hf_slice s, hf_slice prefix) {
    return s.len >= prefix.len && hf__slice_equal((hf_slice){s.data, prefix.len}, prefix);
}

/* In the order of bytes: below, at or above 0. */
static inline int hf__slice_compare(hf_slice a, hf_slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : __builtin_memcmp(a.data, b.data, len);

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

#endif
