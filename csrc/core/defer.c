#include "core/defer.h"

#include "util/list.h"

#include <assert.h>

static void on_turn(uv_idle_t *idle) {
    hf__defer *defer = hf__of(idle, hf__defer, idle);

    /* Stopped first: a `done` may push more, which start it again, or close and free all this. */
    uv_idle_stop(idle);
    hf__op_finish(defer->scope, &defer->ops);
}

void hf__defer_init(hf__defer *defer, uv_loop_t *loop, hf__scope *scope) {
    *defer = (hf__defer){.scope = scope};
    uv_idle_init(loop, &defer->idle);
    uv_unref((uv_handle_t *)&defer->idle);
}

void hf__defer_push(hf__defer *defer, hf_op *op) {
    hf__op_push(&defer->ops, op);
    uv_idle_start(&defer->idle, on_turn); /* does nothing when it runs already */
}

static void on_closed(uv_handle_t *handle) {
    hf__defer *defer = hf__of(handle, hf__defer, idle);

    if (defer->closed != NULL) defer->closed(defer->closed_data);
}

void hf__defer_close(hf__defer *defer, void (*closed)(void *data), void *data) {
    assert(defer->ops.first == NULL);
    defer->closed = closed;
    defer->closed_data = data;
    uv_close((uv_handle_t *)&defer->idle, on_closed);
}
