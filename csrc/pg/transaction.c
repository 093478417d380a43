/*
 * A transaction of the user's. BEGIN goes out with the first statement; those behind it wait until
 * that is answered, for if BEGIN were to fail they would be transactions of their own. From then on
 * each is sent at once.
 *
 * One that fails (its time is up, it is cancelled) is rolled back as soon as the server has
 * answered what is under way; its user hears of that from what is next: a statement, or the end.
 */
#include "driver/postgres/error.h"
#include "pg/sql-parts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const hf__pg_statement commit = {.sql = "COMMIT"};
static const hf__pg_statement rollback = {.sql = "ROLLBACK"};

/* ---------------------------------------------------------------- references */

static void unref(hf_pg_tx *tx) {
    hf_allocator allocator = tx->allocator;

    assert(tx->refs > 0);
    if (--tx->refs == 0) hf__free(&allocator, tx);
}

static void count(hf_pg_tx *tx) {
    tx->counts = true;
    hf__engine_ref(tx->sql->engine);
}

static void uncount(hf_pg_tx *tx) {
    if (tx->counts) hf__engine_unref(tx->sql->engine);
    tx->counts = false;
}

/* It has ended, and everything is told. */
static void leave(hf_pg_tx *tx) {
    hf__sql *sql = tx->sql;

    uncount(tx);
    hf__sql_timer_stop(sql, &tx->timer);
    hf__list_remove(&tx->node);
    hf__list_remove(&tx->work.node);
    hf__list_remove(&tx->news.node);
    sql->n_txs--;
    tx->sql = NULL;
    unref(tx);
}

void hf__tx_orphan(hf_pg_tx *tx) {
    assert(tx->state == HF__TX_OPEN && tx->why.code != HF_OK && tx->user.seat == NULL);
    leave(tx);
}

bool hf__tx_is_busy(const hf_pg_tx *tx) {
    return tx->state != HF__TX_OPEN || tx->user.seat != NULL || tx->why.code == HF_OK;
}

/* ---------------------------------------------------------------- the end */

static void finish(hf_pg_tx *tx, const hf_error *error, const PGresult *said) {
    hf_pg_failure failure;

    assert(tx->user.seat == NULL && tx->state == HF__TX_ENDING);
    tx->state = HF__TX_ENDED;
    if (said != NULL) hf__answer_failure(&failure, said);
    if (!tx->freed && tx->ended != NULL)
        tx->ended(tx->ended_data, tx, error, said != NULL ? &failure : NULL);
    leave(tx);
}

/* For one that has no session any more. */
static void finish_failed(hf_pg_tx *tx) {
    finish(tx, tx->why.code != HF_OK ? &tx->why : NULL, NULL);
}

static void give_back(hf_pg_tx *tx) {
    hf__pool_give_back(&tx->user);
    hf__sql_wake(tx->sql);
}

/* It never began, for its user. */
static void end_unbegun(hf_pg_tx *tx) {
    if (tx->user.seat != NULL) give_back(tx);
    tx->state = HF__TX_ENDED;
    hf__sql_note(tx->sql, &tx->news);
}

static void end_queries(hf__node *list, const hf_error *why) {
    hf__node *node;
    hf_error error;

    while ((node = hf__list_first(list)) != NULL) {
        hf_pg_query *q = hf__of(node, hf_pg_query, node);

        error = *why;
        error.flags &= ~HF_OUTCOME_UNKNOWN; /* that is for the commit */
        if (q->cause != HF__CAUSE_NONE) hf__query_explain(q, &error);
        hf__query_end_later(q, &error);
    }
}

void hf__tx_fail(hf_pg_tx *tx, const hf_error *error) {
    if (tx->state == HF__TX_ENDED || tx->why.code != HF_OK) return;
    if (tx->controlling && !tx->in_commit) return; /* it is being rolled back */
    tx->why = *error;
    if (tx->state == HF__TX_WAITING) {
        hf__pool_leave(&tx->sql->pool, &tx->user);
        end_unbegun(tx);
    } else if (!tx->told) {
        end_unbegun(tx);
    } else {
        end_queries(&tx->queries, error);
        hf__tx_look(tx);
    }
}

/* ---------------------------------------------------------------- sending */

static bool is_ready(const hf_pg_tx *tx) {
    return tx->user.seat != NULL && tx->user.seat->session->state == HF__PG_READY;
}

static void on_answer(hf__pg_call *call, const PGresult *result, const hf_error *error);
static void on_control(hf__pg_call *call, const PGresult *result, const hf_error *error);

/* What is sent while a request to cancel is under way might be hit by it. */
static bool may_send(const hf_pg_tx *tx) {
    return is_ready(tx) && tx->why.code == HF_OK && (!tx->sent || tx->in_block) &&
           tx->n_under_way < HF__SQL_PIPELINE_MAX && hf__pool_is_calm(&tx->user);
}

static void send_queries(hf_pg_tx *tx) {
    hf__node *node;

    while (may_send(tx) && (node = hf__list_pop(&tx->queries)) != NULL) {
        hf_pg_query *q = hf__of(node, hf_pg_query, node);

        if (!tx->sent) {
            q->call.before = &tx->begin;
            q->call.n_before = 1;
        }
        tx->sent = true;
        tx->n_under_way++;
        hf__list_push(&tx->under_way, &q->node);
        hf__query_send(q, &tx->user, on_answer);
    }
}

static void send_control(hf_pg_tx *tx, const hf__pg_statement *statement) {
    tx->controlling = true;
    tx->in_commit = statement == &commit;
    tx->control = (hf__pg_call){.statement = statement,
                                .timeout_ms = tx->in_commit ? UINT32_MAX : 0,
                                .done = on_control,
                                .data = tx};
    hf__pg_session_send(tx->user.seat->session, &tx->control);
}

/* Rolls back, or has nothing to roll back, when nothing is under way any more. */
static void wind_up(hf_pg_tx *tx) {
    if (tx->n_under_way > 0 || tx->controlling) return;
    if (tx->in_block) {
        send_control(tx, &rollback);
        return;
    }
    give_back(tx);
    if (tx->state == HF__TX_ENDING) finish_failed(tx);
}

static void end_orderly(hf_pg_tx *tx) {
    if (tx->controlling || !hf__list_empty(&tx->queries)) return;
    if (!tx->sent || !tx->commits) {
        wind_up(tx);
        return;
    }
    if (!may_send(tx)) return;
    /* If it has ended already, nothing is unknown. */
    if (tx->n_under_way == 0) hf__pg_session_read(tx->user.seat->session);
    if (may_send(tx)) send_control(tx, &commit);
}

/* Goes on: sends what may be sent, ends what is to end. From the loop; last of all, for the
 * transaction may be gone after it. */
static void go_on(hf_pg_tx *tx) {
    if (tx->state == HF__TX_ENDING && tx->user.seat == NULL) {
        finish_failed(tx);
        return;
    }
    if (!is_ready(tx)) return; /* it waits, has ended, or is about to be unseated */
    send_queries(tx);
    if (!is_ready(tx)) return;
    if (tx->why.code != HF_OK)
        wind_up(tx);
    else if (tx->state == HF__TX_ENDING)
        end_orderly(tx);
}

static void on_work(hf__news *news) {
    go_on(hf__of(news, hf_pg_tx, work));
}

static void interrupt(hf_pg_tx *tx) {
    const hf__node *first = hf__list_first(&tx->under_way);
    bool is_wanted = tx->why.code != HF_OK && (first != NULL || tx->in_commit);

    if (first != NULL &&
        hf__of((hf__node *)(uintptr_t)first, hf_pg_query, node)->cause != HF__CAUSE_NONE)
        is_wanted = true;
    if (is_wanted && is_ready(tx) && tx->user.seat->session->n_sent > 0)
        hf__pool_interrupt(&tx->user);
}

void hf__tx_look(hf_pg_tx *tx) {
    interrupt(tx);
    hf__sql_note(tx->sql, &tx->work);
}

/* ---------------------------------------------------------------- answers */

/* Whether the session has broken: then the user is told when it is unseated. */
static bool is_broken(const hf__pg_call *call, const hf_error *error) {
    return error != NULL && error != &call->error;
}

/* Statements that end transactions are refused before; this is for what nobody has thought of. */
static void note_block(hf_pg_tx *tx, const hf_error *error) {
    const hf__pg_session *session = tx->user.seat->session;
    PGTransactionStatusType status = PQtransactionStatus(session->conn);
    hf_error why;

    if (session->state != HF__PG_READY || session->n_sent > 0) return;
    if (status == PQTRANS_INTRANS || status == PQTRANS_INERROR) {
        tx->in_block = true;
        return;
    }
    if (tx->in_block || error == NULL)
        hf__error_set(&why, HF_EINVAL, 0, "one of its own statements has ended the transaction");
    else
        why = *error; /* of BEGIN */
    tx->in_block = false;
    hf__tx_fail(tx, &why);
}

/* True: `said` belongs to it. */
static bool judge(const hf_pg_tx *tx, const hf_pg_query *q, hf_error *error, const PGresult *said) {
    bool is_of_failure = hf__pg_error_is(error, "57014") || hf__pg_error_is(error, "25P02");

    if (tx->why.code == HF_OK || q->cause != HF__CAUSE_NONE || !is_of_failure)
        return hf__query_judge(q, error, said);
    *error = tx->why;
    return false;
}

static void on_answer(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf_pg_query *q = call->data;
    hf_pg_tx *tx = q->tx;
    hf_error why;
    bool told = false;

    if (is_broken(call, error)) return;
    tx->refs++;
    tx->n_under_way--;
    if (q->cause != HF__CAUSE_NONE || tx->why.code != HF_OK) hf__pool_calm(&tx->user);
    if (error != NULL) {
        why = *error;
        told = judge(tx, q, &why, result);
        why.flags &= ~HF_OUTCOME_UNKNOWN; /* that is for the commit */
    }
    note_block(tx, error != NULL ? &why : NULL);
    if (error == NULL)
        hf__query_end(q, result, NULL, NULL);
    else
        hf__query_end(q, NULL, &why, told ? result : NULL);
    if (tx->sql != NULL) {
        interrupt(tx);
        go_on(tx);
    }
    unref(tx);
}

static void on_committed(hf_pg_tx *tx, const PGresult *result, const hf_error *error) {
    hf_error why;
    const PGresult *said = NULL;

    if (error == NULL && strcmp(PQcmdStatus((PGresult *)(uintptr_t)result), "COMMIT") == 0) {
        finish(tx, NULL, NULL);
        return;
    }
    if (error == NULL) {
        hf__error_set(&why, HF_ESQL, 0,
                      "the transaction was rolled back: an earlier statement of it had failed");
        memcpy(why.state, "25P02", sizeof "25P02");
    } else {
        why = *error;
        hf__answer_error(&why, result);
        if (why.code == HF_ESQL) said = result;
    }
    if (tx->why.code != HF_OK && (error == NULL || hf__pg_error_is(&why, "57014"))) {
        why = tx->why;
        said = NULL;
    }
    finish(tx, &why, said);
}

static void on_control(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf_pg_tx *tx = call->data;
    hf__pool *pool = &tx->sql->pool;

    if (is_broken(call, error)) return;
    tx->controlling = false;
    tx->in_block = false;
    hf__pool_give_back(&tx->user); /* closed, if it has not been rolled back */
    hf__pool_pump(pool);
    if (tx->in_commit)
        on_committed(tx, result, error);
    else if (tx->state == HF__TX_ENDING)
        finish_failed(tx);
}

/* ---------------------------------------------------------------- the session */

static void on_seated(hf__pool_user *user) {
    hf_pg_tx *tx = hf__of(user, hf_pg_tx, user);

    tx->state = HF__TX_OPEN;
    hf__sql_note(tx->sql, &tx->news);
}

static void on_refused(hf__pool_user *user, const hf_error *error) {
    hf_pg_tx *tx = hf__of(user, hf_pg_tx, user);

    tx->why = *error;
    end_unbegun(tx);
}

static void on_unseated(hf__pool_user *user, const hf_error *error) {
    hf_pg_tx *tx = hf__of(user, hf_pg_tx, user);
    bool unknown = tx->controlling && tx->in_commit;

    if (tx->why.code == HF_OK && unknown) {
        hf__error_set(&tx->why, HF_EUNAVAIL, HF_RETRYABLE,
                      "the answer never came, and whether it was committed is not known: %s",
                      error->message);
        memcpy(tx->why.state, error->state, sizeof tx->why.state);
    } else if (tx->why.code == HF_OK && (tx->commits || !tx->controlling)) {
        tx->why = *error;
        hf__answer_broken(&tx->why);
    }
    tx->why.flags &= ~HF_OUTCOME_UNKNOWN;
    if (unknown) tx->why.flags |= HF_OUTCOME_UNKNOWN;
    tx->controlling = false;
    tx->n_under_way = 0;
    end_queries(&tx->under_way, &tx->why);
    end_queries(&tx->queries, &tx->why);
    if (!tx->told)
        end_unbegun(tx);
    else
        hf__sql_note(tx->sql, &tx->work);
}

static void on_calmed(hf__pool_user *user) {
    hf__tx_look(hf__of(user, hf_pg_tx, user));
}

/* ---------------------------------------------------------------- in and out */

static void on_news(hf__news *news) {
    hf_pg_tx *tx = hf__of(news, hf_pg_tx, news);
    bool failed = tx->state == HF__TX_ENDED;

    tx->refs++;
    tx->told = true;
    uncount(tx);
    if (!tx->freed) tx->begun(tx->data, tx, failed ? &tx->why : NULL);
    if (failed) leave(tx);
    unref(tx);
}

static void on_timer(hf__timer *timer) {
    hf_pg_tx *tx = hf__of(timer, hf_pg_tx, timer);
    hf_error error;

    hf__error_set(&error, HF_ETIMEDOUT, HF_RETRYABLE,
                  "the transaction was not over within its %" PRIu64 " ms%s", tx->timeout_ms,
                  tx->state == HF__TX_WAITING ? ": no connection of the pool was free" : "");
    hf__tx_fail(tx, &error);
}

static void write_begin(hf_pg_tx *tx, const hf_pg_tx_options *options) {
    static const char *const levels[] = {"", " ISOLATION LEVEL READ COMMITTED",
                                         " ISOLATION LEVEL REPEATABLE READ",
                                         " ISOLATION LEVEL SERIALIZABLE"};

    snprintf(tx->begin_sql, sizeof tx->begin_sql, "BEGIN%s%s", levels[options->isolation],
             options->read_only ? " READ ONLY" : "");
    tx->begin.sql = tx->begin_sql;
}

static hf_pg_tx *tx_new(hf__sql *sql, const hf_pg_tx_options *options) {
    hf_pg_tx *tx = hf__zalloc(sql->env.allocator, sizeof *tx);

    if (tx == NULL) return NULL;
    tx->allocator = *sql->env.allocator;
    tx->sql = sql;
    tx->refs = 2;
    tx->timeout_ms = options->timeout_ms;
    write_begin(tx, options);
    tx->user = (hf__pool_user){
        .seated = on_seated, .refused = on_refused, .unseated = on_unseated, .calmed = on_calmed};
    hf__list_init(&tx->user.node);
    hf__list_init(&tx->queries);
    hf__list_init(&tx->under_way);
    hf__list_init(&tx->news.node);
    hf__list_init(&tx->work.node);
    tx->news.tell = on_news;
    tx->work.tell = on_work;
    tx->timer.fire = on_timer;
    return tx;
}

hf_code hf__sql_begin(hf__sql *sql, const hf_pg_tx_options *options,
                      void (*begun)(void *data, hf_pg_tx *tx, const hf_error *error), void *data,
                      hf_pg_tx **out, hf_error *error) {
    hf_pg_tx *tx;

    if ((unsigned)options->isolation > HF_PG_SERIALIZABLE)
        return hf__error_set(error, HF_EINVAL, 0, "there is no such isolation");
    if (hf__sql_accepts(sql, error) != HF_OK) return error->code;
    tx = tx_new(sql, options);
    if (tx == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    tx->begun = begun;
    tx->data = data;
    hf__list_push(&sql->txs, &tx->node);
    sql->n_txs++;
    count(tx);
    if (tx->timeout_ms != HF_FOREVER) hf__sql_timer(sql, &tx->timer, tx->timeout_ms);
    hf__pool_ask(&sql->pool, &tx->user);
    *out = tx;
    return HF_OK;
}

hf_code hf_pg_tx_run(hf_pg_tx *tx, const hf_pg_statement *statement, hf_pg_query_cb cb, void *data,
                     hf_pg_query **out, hf_error *error) {
    hf_pg_query *q;

    if (tx->why.code != HF_OK) {
        *error = tx->why;
        return error->code;
    }
    if (tx->state != HF__TX_OPEN || !tx->told)
        return hf__error_set(error, HF_EINVAL, 0, "the transaction is not open (any more)");
    if (hf__sql_controls(statement->sql))
        return hf__error_set(error, HF_EINVAL, 0,
                             "a transaction is ended by its own call, not by a statement in it; "
                             "savepoints (SAVEPOINT, ROLLBACK TO) are statements");
    q = hf__query_new(tx->sql, statement, cb, data, error);
    if (q == NULL) return error->code;
    q->tx = tx;
    hf__list_push(&tx->queries, &q->node);
    hf__sql_note(tx->sql, &tx->work);
    *out = q;
    return HF_OK;
}

static void begin_end(hf_pg_tx *tx, bool commits) {
    tx->state = HF__TX_ENDING;
    tx->commits = commits;
    count(tx);
    hf__sql_note(tx->sql, &tx->work);
}

hf_code hf_pg_tx_end(hf_pg_tx *tx, bool commits,
                     void (*cb)(void *data, hf_pg_tx *tx, const hf_error *error,
                                const hf_pg_failure *failure),
                     void *data) {
    if (tx->state != HF__TX_OPEN || !tx->told) return HF_EINVAL;
    if (tx->sql == NULL) {
        tx->state = HF__TX_ENDED;
        return HF_ECLOSED;
    }
    tx->ended = cb;
    tx->ended_data = data;
    begin_end(tx, commits);
    return HF_OK;
}

void hf_pg_tx_cancel(hf_pg_tx *tx) {
    hf_error error;

    if (tx->sql == NULL) return;
    hf__error_set(&error, HF_ECANCELED, 0, "the transaction was cancelled");
    hf__tx_fail(tx, &error);
}

void hf_pg_tx_free(hf_pg_tx *tx) {
    tx->freed = true;
    if (tx->state == HF__TX_WAITING || tx->state == HF__TX_OPEN) {
        hf_pg_tx_cancel(tx);
        if (tx->sql != NULL && tx->state == HF__TX_OPEN) begin_end(tx, false);
    }
    unref(tx);
}
