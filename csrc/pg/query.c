/*
 * One statement of the user's: copied, sent, told of, given up.
 */
#include "driver/postgres/error.h"
#include "pg/sql-parts.h"

#include <assert.h>
#include <string.h>

#define SIZE_MAX_BYTES 0x3fffffffu /* of a statement and of a parameter, at the server: 1 GiB */

static const hf__pg_statement rollback = {.sql = "ROLLBACK"};

/* ---------------------------------------------------------------- copying */

static hf_code check_text(hf_slice text, bool binary, const char *what, size_t number,
                          hf_error *error) {
    char name[32] = "the statement";

    if (number > 0) snprintf(name, sizeof name, "%s$%zu", what, number);
    if (text.len > SIZE_MAX_BYTES)
        return hf__error_set(error, HF_ETOOBIG, 0, "%s has %zu bytes: PostgreSQL takes 1 GiB", name,
                             text.len);
    if (!binary && text.len > 0 && memchr(text.data, '\0', text.len) != NULL)
        return hf__error_set(error, HF_EINVAL, 0,
                             "%s has a NUL in it, which PostgreSQL's texts cannot have", name);
    return HF_OK;
}

static hf_code check(const hf_pg_statement *statement, hf_error *error) {
    if (statement->n_params > HF_PG_PARAMS_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a statement has at most %d parameters",
                             HF_PG_PARAMS_MAX);
    if (check_text(statement->sql, false, "", 0, error) != HF_OK) return error->code;
    for (size_t i = 0; i < statement->n_params; i++) {
        const hf_pg_param *param = &statement->params[i];

        if (check_text(param->value, param->binary, "parameter ", i + 1, error) != HF_OK)
            return error->code;
    }
    return HF_OK;
}

/* Behind the handle: addresses, lengths and formats of the parameters, then all texts, each with a
 * NUL behind. */
static size_t size_of(const hf_pg_statement *statement) {
    size_t n = statement->n_params;
    size_t size = sizeof(hf_pg_query) + n * (sizeof(char *) + 2 * sizeof(int));

    size += statement->sql.len + 1;
    for (size_t i = 0; i < n; i++)
        size += statement->params[i].value.len + 1;
    return size;
}

static char *put(char **at, hf_slice text) {
    char *start = *at;

    if (text.len > 0) memcpy(start, text.data, text.len);
    start[text.len] = '\0';
    *at = start + text.len + 1;
    return start;
}

static void copy(hf_pg_query *q, const hf_pg_statement *statement) {
    size_t n = statement->n_params;
    const char **values = (const char **)(void *)(q + 1);
    int *lengths = (int *)(void *)(values + n);
    int *formats = lengths + n;
    char *at = (char *)(formats + n);

    for (size_t i = 0; i < n; i++) {
        const hf_pg_param *param = &statement->params[i];

        values[i] = param->value.data == NULL ? NULL : put(&at, param->value);
        lengths[i] = (int)param->value.len;
        formats[i] = param->binary ? 1 : 0;
    }
    q->statement = (hf__pg_statement){.sql = put(&at, statement->sql), .n_params = (int)n};
    q->call = (hf__pg_call){.statement = &q->statement,
                            .values = values,
                            .lengths = lengths,
                            .formats = formats,
                            .timeout_ms = UINT32_MAX,
                            .data = q};
}

/* ---------------------------------------------------------------- the end */

static void unref(hf_pg_query *q) {
    hf_allocator allocator = q->allocator;

    assert(q->refs > 0);
    if (--q->refs == 0) hf__free(&allocator, q);
}

/* It is out of everything, but has still to be told. */
static void part(hf_pg_query *q) {
    assert(q->state != HF__QUERY_ENDED);
    q->state = HF__QUERY_ENDED;
    hf__sql_timer_stop(q->sql, &q->timer);
    hf__list_remove(&q->node);
}

static void forget(hf_pg_query *q) {
    q->sql->n_queries--;
    hf__engine_unref(q->sql->engine);
    q->sql = NULL;
    unref(q);
}

static void tell_error(hf_pg_query *q, const hf_error *error, const PGresult *said) {
    hf_pg_failure failure;

    if (said != NULL) hf__answer_failure(&failure, said);
    q->cb(q->data, q, NULL, error, said != NULL ? &failure : NULL);
}

void hf__query_end(hf_pg_query *q, const PGresult *result, const hf_error *error,
                   const PGresult *said) {
    part(q);
    if (q->freed) {
        forget(q);
        return;
    }
    if (result == NULL) {
        tell_error(q, error, said);
    } else if (!hf__answer_rows(q, result)) {
        hf__error_set(&q->error, HF_ENOMEM, HF_OUTCOME_UNKNOWN, NULL);
        tell_error(q, &q->error, NULL);
    }
    forget(q);
}

static void on_news(hf__news *news) {
    hf_pg_query *q = hf__of(news, hf_pg_query, news);

    if (!q->freed) tell_error(q, &q->error, NULL);
    forget(q);
}

void hf__query_end_later(hf_pg_query *q, const hf_error *error) {
    part(q);
    if (error != &q->error) q->error = *error;
    hf__sql_note(q->sql, &q->news);
}

void hf__query_explain(const hf_pg_query *q, hf_error *error) {
    switch (q->cause) {
    case HF__CAUSE_CLOSED: hf__error_set(error, HF_ECLOSED, 0, NULL); return;
    case HF__CAUSE_TIMED_OUT:
        hf__error_set(error, HF_ETIMEDOUT, HF_RETRYABLE,
                      "the statement was not done within its %u ms", (unsigned)q->timeout_ms);
        return;
    default: hf__error_set(error, HF_ECANCELED, 0, "the statement was cancelled"); return;
    }
}

bool hf__query_judge(const hf_pg_query *q, hf_error *error, const PGresult *said) {
    if (q->cause != HF__CAUSE_NONE && hf__pg_error_is(error, "57014")) {
        hf__query_explain(q, error);
        return false;
    }
    if (said == NULL) return false;
    hf__answer_error(error, said);
    return error->code == HF_ESQL;
}

/* ---------------------------------------------------------------- giving up */

static void stop(hf_pg_query *q, hf__cause cause) {
    if (q->state == HF__QUERY_WAITING) {
        q->cause = cause;
        hf__query_explain(q, &q->error);
        if (q->tx == NULL) hf__pool_leave(&q->sql->pool, &q->user);
        hf__query_end_later(q, &q->error);
        if (q->tx != NULL) hf__tx_look(q->tx);
    } else if (q->state == HF__QUERY_SENT && q->cause == HF__CAUSE_NONE) {
        q->cause = cause;
        if (q->tx != NULL)
            hf__tx_look(q->tx);
        else
            hf__pool_interrupt(&q->user);
    }
}

static void on_timer(hf__timer *timer) {
    stop(hf__of(timer, hf_pg_query, timer), HF__CAUSE_TIMED_OUT);
}

void hf_pg_query_cancel(hf_pg_query *q) {
    stop(q, HF__CAUSE_CANCELLED);
}

void hf_pg_query_free(hf_pg_query *q) {
    q->freed = true;
    stop(q, HF__CAUSE_CANCELLED);
    unref(q);
}

/* ---------------------------------------------------------------- a transaction of its own */

void hf__query_send(hf_pg_query *q, const hf__pool_user *user,
                    void (*done)(hf__pg_call *call, const PGresult *result,
                                 const hf_error *error)) {
    q->state = HF__QUERY_SENT;
    q->call.done = done;
    hf__pg_session_send(user->seat->session, &q->call);
}

static void give_back(hf_pg_query *q) {
    hf__pool *pool = &q->sql->pool;

    hf__pool_give_back(&q->user);
    hf__pool_pump(pool);
}

/* Whether the session has broken: then `error` is not what the server said, and the user is told
 * when it is unseated. */
static bool is_broken(const hf__pg_call *call, const hf_error *error) {
    return error != NULL && error != &call->error;
}

static void on_undone(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf_pg_query *q = call->data;
    hf_error why = q->error;

    (void)result;
    if (is_broken(call, error)) return;
    give_back(q);
    hf__query_end(q, NULL, &why, NULL);
}

/* It was BEGIN, or the like: nobody would end that. */
static void undo(hf_pg_query *q) {
    q->state = HF__QUERY_UNDOING;
    hf__error_set(
        &q->error, HF_EINVAL, 0,
        "the statement began a transaction, which has been undone: use a transaction's own "
        "call, for the next statement may run on another connection");
    q->call = (hf__pg_call){.statement = &rollback, .done = on_undone, .data = q};
    hf__pg_session_send(q->user.seat->session, &q->call);
}

static void on_done(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf_pg_query *q = call->data;
    const hf__pg_session *session = q->user.seat->session;
    hf_error why;
    bool told;

    if (is_broken(call, error)) {
        q->error = *error;
        return;
    }
    if (session->state == HF__PG_READY && PQtransactionStatus(session->conn) != PQTRANS_IDLE) {
        hf__pool_calm(&q->user);
        undo(q);
        return;
    }
    if (error != NULL) why = *error;
    give_back(q);
    if (error == NULL) {
        hf__query_end(q, result, NULL, NULL);
        return;
    }
    told = hf__query_judge(q, &why, result);
    hf__query_end(q, NULL, &why, told ? result : NULL);
}

static void on_seated(hf__pool_user *user) {
    hf__query_send(hf__of(user, hf_pg_query, user), user, on_done);
}

static void on_refused(hf__pool_user *user, const hf_error *error) {
    hf__query_end_later(hf__of(user, hf_pg_query, user), error);
}

static void on_unseated(hf__pool_user *user, const hf_error *error) {
    hf_pg_query *q = hf__of(user, hf_pg_query, user);

    (void)error; /* its call has ended with what that means for it */
    if (q->state == HF__QUERY_SENT && q->cause != HF__CAUSE_NONE) {
        hf__query_explain(q, &q->error);
        q->error.flags |= HF_OUTCOME_UNKNOWN;
    } else if (q->state == HF__QUERY_SENT) {
        hf__answer_broken(&q->error);
    }
    hf__query_end_later(q, &q->error);
}

/* Nothing is to be kept calm: it has one statement. */
static void on_calmed(hf__pool_user *user) {
    (void)user;
}

/* ---------------------------------------------------------------- the beginning */

hf_pg_query *hf__query_new(hf__sql *sql, const hf_pg_statement *statement, hf_pg_query_cb cb,
                           void *data, hf_error *error) {
    hf_pg_query *q;

    if (hf__sql_accepts(sql, error) != HF_OK || check(statement, error) != HF_OK) return NULL;
    q = hf__zalloc(sql->env.allocator, size_of(statement));
    if (q == NULL) {
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return NULL;
    }
    copy(q, statement);
    q->allocator = *sql->env.allocator;
    q->sql = sql;
    q->refs = 2;
    q->cb = cb;
    q->data = data;
    q->timeout_ms = statement->timeout_ms;
    q->news.tell = on_news;
    q->timer.fire = on_timer;
    hf__list_init(&q->node);
    hf__list_init(&q->news.node);
    hf__list_init(&q->user.node);
    sql->n_queries++;
    hf__engine_ref(sql->engine);
    if (q->timeout_ms != 0) hf__sql_timer(sql, &q->timer, q->timeout_ms);
    return q;
}

hf_code hf__sql_query(hf__sql *sql, const hf_pg_statement *statement, hf_pg_query_cb cb, void *data,
                      hf_pg_query **out, hf_error *error) {
    hf_pg_query *q = hf__query_new(sql, statement, cb, data, error);

    if (q == NULL) return error->code;
    q->user.seated = on_seated;
    q->user.refused = on_refused;
    q->user.unseated = on_unseated;
    q->user.calmed = on_calmed;
    hf__list_push(&sql->queries, &q->node);
    hf__pool_ask(&sql->pool, &q->user);
    *out = q;
    return HF_OK;
}
