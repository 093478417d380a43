/*
 * Inside of statements and transactions: what sql.c (the beginning and the end), query.c (one
 * statement), transaction.c, answer.c (what the server said, in the terms of holdfast.h) and
 * keyword.c share.
 *
 * Nothing is sent, and no callback runs, within a call of the host's: what it leads to is noted as
 * news or work, and done in the loop's next turn. What the server has answered is told at once,
 * within the event that has brought it, for it lives no longer than that.
 */
#ifndef HF_PG_SQL_PARTS_H
#define HF_PG_SQL_PARTS_H

#include "pg/pool.h"
#include "pg/sql.h"
#include "util/alloc.h"

#define HF__SQL_WAITING_MAX 200000u /* statements and transactions of one client */
#define HF__SQL_PIPELINE_MAX 100u   /* statements of a transaction that are under way */

/* Something to be told, or done, in the next turn. */
typedef struct hf__news {
    void (*tell)(struct hf__news *news);
    hf__node node;
} hf__news;

/* Why something is to end before the server has said so. */
typedef enum hf__cause {
    HF__CAUSE_NONE,
    HF__CAUSE_CANCELLED,
    HF__CAUSE_TIMED_OUT,
    HF__CAUSE_CLOSED
} hf__cause;

struct hf_pg_query {
    hf_allocator allocator;
    hf__sql *sql;  /* NULL: it has ended, and that has been told */
    hf_pg_tx *tx;  /* NULL: it is a transaction of its own */
    uint32_t refs; /* the user's, and the sql's */
    enum {
        HF__QUERY_WAITING, /* for a session, or for its turn */
        HF__QUERY_SENT,
        HF__QUERY_UNDOING, /* the transaction that it has begun */
        HF__QUERY_ENDED
    } state;
    hf__cause cause;
    bool freed;
    uint32_t timeout_ms;
    hf__pool_user user; /* without a transaction */
    hf__node node;      /* in sql->queries, or a list of its transaction, until it has ended */
    hf__news news;
    hf__timer timer;
    hf_error error; /* to be told */
    hf__pg_statement statement;
    hf__pg_call call;
    hf_pg_query_cb cb;
    void *data;
};

struct hf_pg_tx {
    hf_allocator allocator;
    hf__sql *sql; /* NULL: it has ended, or the client has */
    uint32_t refs;
    enum {
        HF__TX_WAITING, /* for a session */
        HF__TX_OPEN,
        HF__TX_ENDING,
        HF__TX_ENDED
    } state;
    bool freed;
    bool told;      /* that it has begun */
    bool counts;    /* keeps the loop alive */
    bool commits;   /* when it ends */
    bool sent;      /* its BEGIN */
    bool in_block;  /* and that has been answered */
    bool in_commit; /* COMMIT has been sent */
    hf_error why;   /* it has failed, or is to; HF_OK: it has not */
    hf__pool_user user;
    hf__node node;    /* in sql->txs */
    hf__node queries; /* that are still to be sent */
    hf__node under_way;
    uint32_t n_under_way;
    uint64_t timeout_ms;
    char begin_sql[64];
    hf__pg_statement begin;
    hf__pg_call control; /* COMMIT or ROLLBACK */
    bool controlling;    /* which is under way */
    hf__news news;
    hf__news work;
    hf__timer timer;
    void (*begun)(void *data, hf_pg_tx *tx, const hf_error *error);
    void *data;
    void (*ended)(void *data, hf_pg_tx *tx, const hf_error *error, const hf_pg_failure *failure);
    void *ended_data;
};

struct hf__sql {
    hf_engine *engine;
    hf__store_env env;
    hf__pg_config config;
    hf__pool pool;
    hf__node queries;   /* without a transaction, that have not ended */
    hf__node txs;       /* that have not ended, or have and it is to be told */
    uint32_t n_queries; /* all that have not been told */
    uint32_t n_txs;
    hf__node news;
    uv_idle_t idle; /* active while there is something for the next turn */
    bool has_idle;
    enum { HF__SQL_OPEN, HF__SQL_DRAINING, HF__SQL_CLOSING } phase;
    void (*closed)(void *data);
    void *data;
};

/* ---- sql.c */

void hf__sql_wake(hf__sql *sql);
/* To be told in the next turn; once until then. */
void hf__sql_note(hf__sql *sql, hf__news *news);
void hf__sql_timer(hf__sql *sql, hf__timer *timer, uint64_t ms);
void hf__sql_timer_stop(hf__sql *sql, hf__timer *timer);
/* Whether one more may ask. */
hf_code hf__sql_accepts(const hf__sql *sql, hf_error *error);

/* ---- query.c */

/* A statement, copied, which is nowhere yet. */
hf_pg_query *hf__query_new(hf__sql *sql, const hf_pg_statement *statement, hf_pg_query_cb cb,
                           void *data, hf_error *error);
/* Sends it, on the session of `user`; answers go to `done`. */
void hf__query_send(hf_pg_query *query, const hf__pool_user *user,
                    void (*done)(hf__pg_call *call, const PGresult *result, const hf_error *error));
/* What the driver tells of it, as its user is to hear it; true if `said` belongs to that. */
bool hf__query_judge(const hf_pg_query *query, hf_error *error, const PGresult *said);
/* Ends it, out of all lists. The first tells it now, the second in the next turn. `result`
 * NULL: with `error`, and then what the server said of it or NULL. */
void hf__query_end(hf_pg_query *query, const PGresult *result, const hf_error *error,
                   const PGresult *said);
void hf__query_end_later(hf_pg_query *query, const hf_error *error);
/* What ends it early, as an error. */
void hf__query_explain(const hf_pg_query *query, hf_error *error);

/* ---- transaction.c */

/* One of its statements is to be cancelled, or has gone. */
void hf__tx_look(hf_pg_tx *tx);
/* Whether something has to happen before the client can be closed. */
bool hf__tx_is_busy(const hf_pg_tx *tx);
/* It ends with this: what is under way is cancelled, the rest is not begun, all is rolled back. */
void hf__tx_fail(hf_pg_tx *tx, const hf_error *error);
/* The client is gone: it has ended, and knows that. */
void hf__tx_orphan(hf_pg_tx *tx);

/* ---- answer.c */

/* The session broke: `error` is the driver's, and says that and no more. */
void hf__answer_broken(hf_error *error);
/* What the server said of a statement of the user's: `error` is the driver's, and becomes that. */
void hf__answer_error(hf_error *error, const PGresult *said);
/* Tells what the statement came to. False: memory is out, and nothing was told. */
bool hf__answer_rows(hf_pg_query *query, const PGresult *result);
void hf__answer_failure(hf_pg_failure *failure, const PGresult *said);

/* ---- keyword.c */

/* Whether the statement begins or ends a transaction. */
bool hf__sql_controls(hf_slice sql);

#endif
