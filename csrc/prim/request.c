#include "prim/request.h"

#define PAUSE_MS 20

static void submit(hf__request *request) {
    hf__list_remove(&request->waiter.node);
    hf_op_reset(request->op);
    hf__client_submit(request->client, request->op);
}

static void on_due(hf__timer *timer) {
    submit(hf__of(timer, hf__request, timer));
}

static void finish(hf__request *request) {
    hf_client *client = request->client;
    hf_op *op = request->op;
    op->done = request->op_done;
    op->data = request->op_data;
    /* That the last try surely did nothing says nothing about those before it. */
    if (request->in_doubt && op->error.code != HF_OK) op->error.flags |= HF_OUTCOME_UNKNOWN;
    request->done(request);
    hf__client_end(client);
}

/* The client is closed while it pauses: the last failure stands. */
static void stop(hf__waiter *waiter) {
    hf__request *request = hf__of(waiter, hf__request, waiter);
    hf__timer_stop(&request->client->engine->timers, &request->timer);
    finish(request);
}

static bool may_retry(const hf__request *request, const hf_error *error) {
    if (error->code == HF_OK || !(error->flags & HF_RETRYABLE)) return false;
    if (request->again == HF__AGAIN_NEVER || request->client->phase >= HF__FORCING) return false;
    return request->again == HF__AGAIN_ALWAYS || hf__error_is_transient(error);
}

static void on_done(hf_op *op) {
    hf__request *request = op->data;
    hf_client *client = request->client;
    if ((op->error.flags & HF_OUTCOME_UNKNOWN) != 0) request->in_doubt = true;
    uint64_t at = hf__add_ms(hf__client_now(client), hf__backoff_ms(request->tries++, PAUSE_MS));
    if (!may_retry(request, &op->error) || at >= request->until_ns) {
        finish(request);
        return;
    }
    hf__list_push(&client->requests, &request->waiter.node);
    hf__client_timer(client, &request->timer, at);
}

void hf__request_start(hf__request *request, hf_client *client, hf_op *op, hf__again again,
                       uint64_t until_ns, void (*done)(hf__request *request), void *data) {
    *request = (hf__request){.client = client,
                             .op = op,
                             .done = done,
                             .data = data,
                             .until_ns = until_ns,
                             .again = again,
                             .op_done = op->done,
                             .op_data = op->data};
    request->waiter.stop = stop;
    hf__list_init(&request->waiter.node);
    request->timer.fire = on_due;
    op->done = on_done;
    op->data = request;
    hf__client_begin(client);
    hf__client_submit(client, op);
}
