/*
 * Statements and transactions of the user's, of one client: what csrc/api/postgres.c makes of them.
 * What they are to their user is told in holdfast.h, whose functions on an hf_pg_query and on an
 * hf_pg_tx are implemented here too. Loop's thread only; nothing here needs libpq's headers.
 */
#ifndef HF_PG_SQL_H
#define HF_PG_SQL_H

#include "core/engine.h"
#include "core/store.h"

typedef struct hf__sql hf__sql;

/* No I/O. What `env` points to, and the engine, outlive it. `closed` runs once, in a later turn
 * than hf__sql_drain, when everything has ended; then it is freed. Errors: HF_EINVAL, HF_ENOMEM. */
hf_code hf__sql_new(hf_engine *engine, const hf__store_env *env, void (*closed)(void *data),
                    void *data, hf__sql **out, hf_error *error);
/* Nobody asks any more, but transactions that are open go on. When all has ended, the sessions are
 * closed. */
void hf__sql_drain(hf__sql *sql);
/* After that: what has not ended is cancelled, and ends with HF_ECLOSED. */
void hf__sql_force(hf__sql *sql);

/* As hf_pg_query_run and hf_pg_tx_begin, of a client that accepts. */
hf_code hf__sql_query(hf__sql *sql, const hf_pg_statement *statement, hf_pg_query_cb cb, void *data,
                      hf_pg_query **out, hf_error *error);
hf_code hf__sql_begin(hf__sql *sql, const hf_pg_tx_options *options,
                      void (*begun)(void *data, hf_pg_tx *tx, const hf_error *error), void *data,
                      hf_pg_tx **out, hf_error *error);

#endif
