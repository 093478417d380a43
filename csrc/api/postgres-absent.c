/*
 * In place of postgres.c where the build has found no libpq: there is no client of a postgres: URL,
 * so no handle either.
 */
#include "core/error.h"

#ifdef HF_WITHOUT_LIBPQ

void hf_pg_lock_cancel(hf_pg_lock *lock) {
    (void)lock;
}

bool hf_pg_lock_held(hf_pg_lock *lock) {
    (void)lock;
    return false;
}

hf_code hf_pg_lock_release(hf_pg_lock *lock,
                           void (*cb)(void *data, hf_pg_lock *lock, bool was_held,
                                      const hf_error *error),
                           void *data) {
    (void)lock;
    (void)cb;
    (void)data;
    return HF_ELOST;
}

void hf_pg_lock_free(hf_pg_lock *lock) {
    (void)lock;
}

hf_code hf_pg_lock_acquire(hf_client *client, const hf_pg_lock_options *options,
                           void (*acquired)(void *data, hf_pg_lock *lock,
                                            const hf_pg_lock_result *result),
                           void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                           void *data, hf_pg_lock **out, hf_error *error) {
    (void)client;
    (void)options;
    (void)acquired;
    (void)lost;
    (void)data;
    (void)out;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

hf_code hf_pg_holders(hf_client *client,
                      void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                 const hf_error *error),
                      void *data, hf_error *error) {
    (void)client;
    (void)cb;
    (void)data;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

hf_code hf_pg_query_run(hf_client *client, const hf_pg_statement *statement, hf_pg_query_cb cb,
                        void *data, hf_pg_query **out, hf_error *error) {
    (void)client;
    (void)statement;
    (void)cb;
    (void)data;
    (void)out;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

hf_slice hf_pg_rows_value(const hf_pg_rows *rows, size_t row, size_t field) {
    (void)rows;
    (void)row;
    (void)field;
    return (hf_slice){NULL, 0};
}

void hf_pg_query_cancel(hf_pg_query *query) {
    (void)query;
}

void hf_pg_query_free(hf_pg_query *query) {
    (void)query;
}

hf_code hf_pg_tx_begin(hf_client *client, const hf_pg_tx_options *options,
                       void (*begun)(void *data, hf_pg_tx *tx, const hf_error *error), void *data,
                       hf_pg_tx **out, hf_error *error) {
    (void)client;
    (void)options;
    (void)begun;
    (void)data;
    (void)out;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

hf_code hf_pg_tx_run(hf_pg_tx *tx, const hf_pg_statement *statement, hf_pg_query_cb cb, void *data,
                     hf_pg_query **out, hf_error *error) {
    (void)tx;
    (void)statement;
    (void)cb;
    (void)data;
    (void)out;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

hf_code hf_pg_tx_end(hf_pg_tx *tx, bool commit,
                     void (*cb)(void *data, hf_pg_tx *tx, const hf_error *error,
                                const hf_pg_failure *failure),
                     void *data) {
    (void)tx;
    (void)commit;
    (void)cb;
    (void)data;
    return HF_ENOTSUP;
}

void hf_pg_tx_cancel(hf_pg_tx *tx) {
    (void)tx;
}

void hf_pg_tx_free(hf_pg_tx *tx) {
    (void)tx;
}

#endif
