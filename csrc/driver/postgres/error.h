/*
 * What PostgreSQL and libpq say of failures, in our terms.
 */
#ifndef HF_DRIVER_POSTGRES_ERROR_H
#define HF_DRIVER_POSTGRES_ERROR_H

#include "core/error.h"

#include <libpq-fe.h>

/* Of an error that the server has answered; its SQLSTATE goes to `state`. */
void hf__pg_error(hf_error *error, const PGresult *result, const char *server);
/* Of a connection that could not be made, or broke. */
void hf__pg_error_connection(hf_error *error, const PGconn *conn, const char *server);
void hf__pg_unreachable(hf_error *error, const char *server, const char *why);

/* Whether the server has refused the password. */
bool hf__pg_error_is_password(const hf_error *error);
/* Whether what is ours there is missing: tables, functions, what was prepared. */
bool hf__pg_error_is_missing(const hf_error *error);
bool hf__pg_error_is(const hf_error *error, const char *state);

#endif
