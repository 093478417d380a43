/*
 * Ends ops in the next turn of a loop: how a result that is known at once still runs `done`
 * outside of submit. One loop, its thread only.
 */
#ifndef HF_CORE_DEFER_H
#define HF_CORE_DEFER_H

#include "core/op.h"

#include <uv.h>

typedef struct hf__defer {
    uv_idle_t idle; /* active only while ops wait, so that the loop does not sleep */
    hf__op_list ops;
    hf__scope *scope;
    void (*closed)(void *data);
    void *closed_data;
} hf__defer;

/* `scope` may be NULL. Never fails. The handle is unreferenced: who waits keeps the loop alive. */
void hf__defer_init(hf__defer *defer, uv_loop_t *loop, hf__scope *scope);
/* `op` ends in the next turn, with what is in its out fields. */
void hf__defer_push(hf__defer *defer, hf_op *op);
/* Nothing may be waiting. Calls `closed` when the handle is gone (may be NULL). */
void hf__defer_close(hf__defer *defer, void (*closed)(void *data), void *data);

#endif
