/*
 * What the server said, in the terms of holdfast.h.
 */
#include "pg/sql-parts.h"

#include <stdlib.h>
#include <string.h>

#define FIELDS_HERE 32 /* more of them need memory of their own */

/* ---------------------------------------------------------------- refusals */

static hf_slice field(const PGresult *said, int code) {
    const char *text = PQresultErrorField(said, code);

    return (hf_slice){text, text == NULL ? 0 : strlen(text)};
}

/* Errors after which the same may succeed: of serialization, a deadlock, a lock not available. */
static bool may_pass(const char *state) {
    return strcmp(state, "40001") == 0 || strcmp(state, "40P01") == 0 ||
           strcmp(state, "55P03") == 0;
}

void hf__answer_error(hf_error *error, const PGresult *said) {
    const char *state = PQresultErrorField(said, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(said, PG_DIAG_MESSAGE_PRIMARY);
    uint32_t flags = 0;

    /* What libpq itself says, or what ends a connection, the driver has put well. */
    if (state == NULL || text == NULL || error->code == HF_ENOMEM) return;
    if (may_pass(state)) flags |= HF_RETRYABLE;
    if (strcmp(state, "40003") == 0) flags |= HF_OUTCOME_UNKNOWN;
    hf__error_set(error, HF_ESQL, flags, "%s", text);
    memcpy(error->state, state, strnlen(state, sizeof error->state - 1));
}

/* Whatever reason the server had to hang up, a time limit of its own for instance. */
void hf__answer_broken(hf_error *error) {
    if (error->state[0] != '\0') error->code = HF_EUNAVAIL;
}

void hf__answer_failure(hf_pg_failure *failure, const PGresult *said) {
    const char *position = PQresultErrorField(said, PG_DIAG_STATEMENT_POSITION);

    *failure = (hf_pg_failure){
        .severity = field(said, PG_DIAG_SEVERITY_NONLOCALIZED),
        .detail = field(said, PG_DIAG_MESSAGE_DETAIL),
        .hint = field(said, PG_DIAG_MESSAGE_HINT),
        .schema = field(said, PG_DIAG_SCHEMA_NAME),
        .table = field(said, PG_DIAG_TABLE_NAME),
        .column = field(said, PG_DIAG_COLUMN_NAME),
        .data_type = field(said, PG_DIAG_DATATYPE_NAME),
        .constraint = field(said, PG_DIAG_CONSTRAINT_NAME),
        .where = field(said, PG_DIAG_CONTEXT),
        .routine = field(said, PG_DIAG_SOURCE_FUNCTION),
        .position = position == NULL ? 0 : (int32_t)strtol(position, NULL, 10),
    };
}

/* ---------------------------------------------------------------- rows */

/* libpq takes results that it only reads as such that it may write. */
static PGresult *writable(const PGresult *result) {
    return (PGresult *)(uintptr_t)result;
}

/* "INSERT 0 1" is an INSERT, and "CREATE TABLE" what it is. */
static hf_slice command_of(const PGresult *result) {
    const char *text = PQcmdStatus(writable(result));
    size_t len = strlen(text);
    size_t end = strcspn(text, "0123456789");

    if (end < len) len = end > 0 ? end - 1 : 0;
    return (hf_slice){text, len};
}

static int64_t affected_by(const PGresult *result) {
    const char *text = PQcmdTuples(writable(result));

    return text[0] == '\0' ? -1 : (int64_t)strtoll(text, NULL, 10);
}

static void describe(hf_pg_field *out, const PGresult *result, int i) {
    const char *name = PQfname(result, i);

    *out = (hf_pg_field){.name = {name, strlen(name)},
                         .table = PQftable(result, i),
                         .column = PQftablecol(result, i),
                         .type = PQftype(result, i),
                         .size = PQfsize(result, i),
                         .modifier = PQfmod(result, i)};
}

bool hf__answer_rows(hf_pg_query *query, const PGresult *result) {
    hf_pg_field few[FIELDS_HERE];
    hf_pg_field *fields = few;
    int n = PQnfields(result);
    hf_pg_rows rows;

    if (n > FIELDS_HERE) fields = hf__alloc(&query->allocator, (size_t)n * sizeof *fields);
    if (fields == NULL) return false;
    for (int i = 0; i < n; i++)
        describe(&fields[i], result, i);
    rows = (hf_pg_rows){.fields = fields,
                        .n_fields = (size_t)n,
                        .n_rows = (size_t)PQntuples(result),
                        .affected = affected_by(result),
                        .command = command_of(result),
                        .native = result};
    query->cb(query->data, query, &rows, NULL, NULL);
    if (fields != few) hf__free(&query->allocator, fields);
    return true;
}

hf_slice hf_pg_rows_value(const hf_pg_rows *rows, size_t row, size_t column) {
    const PGresult *result = rows->native;
    int r = (int)row;
    int c = (int)column;

    if (PQgetisnull(result, r, c)) return (hf_slice){NULL, 0};
    return (hf_slice){PQgetvalue(result, r, c), (size_t)PQgetlength(result, r, c)};
}
