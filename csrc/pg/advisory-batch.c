/*
 * The one session that most locks hang on, and the statements that it carries out: what is asked in
 * one turn of the loop, and while a statement is under way, goes into the next. So a lone lock is
 * asked for at once, and a hundred at a time share a round trip.
 */
#include "driver/postgres/error.h"
#include "pg/advisory-parts.h"

#include <assert.h>
#include <string.h>

#define STEADY_MS 1000 /* a session that lasted so long starts the pauses anew */
#define FAILURES_MAX 5 /* of statements in a row, then the session is ended */
#define INT2_TYPE 21
#define INT8_TYPE 20

/* ---------------------------------------------------------------- parameters, in binary */

static unsigned char *put16(unsigned char *at, uint16_t value) {
    *at++ = (unsigned char)(value >> 8);
    *at++ = (unsigned char)value;
    return at;
}

static unsigned char *put32(unsigned char *at, uint32_t value) {
    return put16(put16(at, (uint16_t)(value >> 16)), (uint16_t)value);
}

/* What comes before the elements of an array (src/backend/utils/adt/arrayfuncs.c). */
static void put_head(unsigned char *at, uint32_t element, uint32_t n) {
    at = put32(at, 1); /* dimensions */
    at = put32(at, 0); /* no NULL is among them */
    at = put32(at, element);
    at = put32(at, n);
    (void)put32(at, 1); /* the first index */
}

static void put_op(hf__advisory_batch *batch, int16_t op, int64_t id) {
    unsigned char *at = batch->ops + 20 + 6 * batch->n_ops;

    (void)put16(put32(at, 2), (uint16_t)op);
    at = put32(batch->ids + 20 + 12 * batch->n_ops, 8);
    at = put32(at, (uint32_t)((uint64_t)id >> 32));
    (void)put32(at, (uint32_t)(uint64_t)id);
    batch->n_ops++;
}

/* ---------------------------------------------------------------- answers */

static uint32_t ops_of(const hf__advisory_queue *q) {
    if (q->doubted) return 2;
    return (q->unlocked ? 1u : 0u) + (q->tried != HF__ADVISORY_NONE ? 1u : 0u);
}

/* A row of one boolean, in binary. */
static bool read_rows(const PGresult *result, uint32_t n, bool *answers) {
    if ((uint32_t)PQntuples(result) != n || PQnfields(result) != 1) return false;
    for (int row = 0; row < (int)n; row++) {
        if (PQgetlength(result, row, 0) != 1) return false;
        answers[row] = PQgetvalue(result, row, 0)[0] != 0;
    }
    return true;
}

static void end_session(hf__advisory *a, const hf_error *error) {
    if (a->session != NULL) hf__pg_session_fail(a->session, error);
}

/* Each queue hears of its part; when all have, each goes on. */
static void answer_all(hf__advisory_batch *batch, const bool *answers, const hf_error *error) {
    hf__node queues;
    hf__node *node;

    hf__list_init(&queues);
    hf__list_append(&queues, &batch->queues);
    for (node = queues.next; node != &queues; node = node->next) {
        hf__advisory_queue *q = hf__of(node, hf__advisory_queue, work);
        uint32_t n = ops_of(q);

        if (error != NULL)
            hf__advisory_failed(q, error);
        else
            hf__advisory_answer(q, answers);
        answers += n;
    }
    while ((node = hf__list_pop(&queues)) != NULL)
        hf__advisory_look(hf__of(node, hf__advisory_queue, work));
}

static void on_done(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__advisory_batch *batch = call->data;
    hf__advisory *a = batch->advisory;
    bool answers[HF__ADVISORY_OPS_MAX];
    hf_error nonsense;

    batch->busy = false;
    if (!hf__anchor_answered(&a->anchor)) return; /* then all queues are cut */
    if (error == NULL && !read_rows(result, batch->n_ops, answers)) {
        hf__error_set(&nonsense, HF_EPROTO, HF_RETRYABLE,
                      "PostgreSQL at %s gave no sensible answer when asked for advisory locks",
                      a->session->server.name);
        error = &nonsense;
    }
    a->failures = error == NULL ? 0 : a->failures + 1;
    if (a->failures > FAILURES_MAX) {
        end_session(a, error);
        return;
    }
    answer_all(batch, answers, error);
    hf__advisory_pump(a);
    hf__advisory_tell(a);
}

/* ---------------------------------------------------------------- sending */

static void fill(hf__advisory_batch *batch) {
    hf__advisory *a = batch->advisory;
    hf__node *node;
    int16_t ops[2];

    batch->n_ops = 0;
    while (batch->n_ops + 2 <= HF__ADVISORY_OPS_MAX && (node = hf__list_pop(&a->work)) != NULL) {
        hf__advisory_queue *q = hf__of(node, hf__advisory_queue, work);
        uint32_t n = hf__advisory_ops(q, ops);

        if (n == 0) continue; /* it may be gone */
        hf__list_push(&batch->queues, &q->work);
        for (uint32_t i = 0; i < n; i++)
            put_op(batch, ops[i], q->key.number);
    }
}

static void send_batch(hf__advisory_batch *batch) {
    static const int binary[] = {1, 1};
    hf__advisory *a = batch->advisory;
    uint32_t patience = a->config.command_ms;

    put_head(batch->ops, INT2_TYPE, batch->n_ops);
    put_head(batch->ids, INT8_TYPE, batch->n_ops);
    batch->values[0] = (const char *)batch->ops;
    batch->values[1] = (const char *)batch->ids;
    batch->lengths[0] = (int)(20 + 6 * batch->n_ops);
    batch->lengths[1] = (int)(20 + 12 * batch->n_ops);
    batch->call =
        (hf__pg_call){.statement = &hf__advisory_many,
                      .values = batch->values,
                      .lengths = batch->lengths,
                      .formats = binary,
                      .result_format = 1,
                      .timeout_ms = patience < HF__ANCHOR_BOUND_MS ? patience : HF__ANCHOR_BOUND_MS,
                      .done = on_done,
                      .data = batch};
    batch->busy = true;
    hf__anchor_send(&a->anchor, &batch->call);
}

/* ---------------------------------------------------------------- the session */

static void want(hf__advisory *a) {
    if (a->session != NULL || a->phase != HF__ADVISORY_OPEN || hf__timer_active(&a->retry)) return;
    a->session = hf__pg_session_new(&a->session_env, a);
    if (a->session != NULL)
        a->n_handles++;
    else
        hf__advisory_timer(a, &a->retry, hf__advisory_pause_ns(a, a->tries++));
}

static void on_retry(hf__timer *timer) {
    hf__advisory *a = hf__of(timer, hf__advisory, retry);

    hf__advisory_pump(a);
    hf__advisory_tell(a);
}

bool hf__advisory_is_pooled(hf__pg_session *session) {
    hf_error error;

    if (!session->server.pooled) return false;
    hf__error_set(&error, HF_ENOTSUP, 0,
                  "a pooler at %s lends connections for each transaction, and a lock would stay "
                  "behind in one: connect to the server itself, or, if it lends them for whole "
                  "sessions, say pooler=session in the URL",
                  session->server.name);
    hf__pg_session_fail(session, &error);
    return true;
}

static void on_ready(hf__pg_session *session) {
    hf__advisory *a = session->data;

    if (hf__advisory_is_pooled(session)) return;
    hf__anchor_set(&a->anchor, session);
    a->ready_ns = hf__advisory_now(a);
    a->failures = 0;
    hf__error_clear(&a->why);
    hf__advisory_pump(a);
    hf__advisory_tell(a);
}

static void on_down(hf__pg_session *session, const hf_error *error) {
    hf__advisory *a = session->data;
    uint64_t now = hf__advisory_now(a);
    bool was_ready = a->anchor.session != NULL;

    if (was_ready && now >= hf__add_ms(a->ready_ns, STEADY_MS)) a->tries = 0;
    a->session = NULL;
    a->why = *error;
    hf__anchor_unset(&a->anchor);
    hf__advisory_timer(a, &a->retry, hf__advisory_pause_ns(a, a->tries++));
    hf__advisory_cut(a, error, !was_ready && (error->flags & HF_RETRYABLE) == 0);
    hf__advisory_tell(a);
}

static void on_gone(void *data) {
    hf__advisory_let_go(data);
}

void hf__advisory_batch_init(hf__advisory *a) {
    hf__list_init(&a->work);
    hf__map_init(&a->queues, a->env.allocator);
    hf__anchor_init(&a->anchor, a->engine);
    a->retry.fire = on_retry;
    a->session_env =
        (hf__pg_session_env){.store = &a->env,
                             .config = &a->config,
                             .statement_ms = a->config.command_ms,
                             .refused_password = &a->refused_password,
                             .events = {.ready = on_ready, .down = on_down, .gone = on_gone}};
    for (size_t i = 0; i < HF__ADVISORY_BATCHES; i++) {
        a->batches[i].advisory = a;
        hf__list_init(&a->batches[i].queues);
    }
}

void hf__advisory_pump(hf__advisory *a) {
    if (!hf__list_empty(&a->work)) want(a);
    for (size_t i = 0; i < HF__ADVISORY_BATCHES; i++) {
        hf__advisory_batch *batch = &a->batches[i];

        if (a->anchor.session == NULL || hf__list_empty(&a->work)) return;
        if (batch->busy) continue;
        fill(batch);
        if (batch->n_ops > 0) send_batch(batch);
    }
}

void hf__advisory_batch_close(hf__advisory *a) {
    hf__pg_session *session = a->session;
    hf_error error;

    hf__advisory_timer_stop(a, &a->retry);
    if (session == NULL) return;
    if (session->n_sent > 0) {
        hf__error_set(&error, HF_ECLOSED, 0, NULL);
        hf__pg_session_fail(session, &error);
        hf__advisory_timer_stop(a, &a->retry);
        return;
    }
    a->session = NULL;
    hf__anchor_unset(&a->anchor);
    hf__pg_session_close(session);
}
