#include "driver/postgres/error.h"

#include <string.h>

typedef struct meaning {
    const char *state; /* SQLSTATE, or a class of two letters */
    hf_code code;
    uint32_t flags;
    const char *advice;
} meaning;

/* PostgreSQL manual, appendix A; the first that fits. */
static const meaning meanings[] = {
    {"08", HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN, NULL},
    {"0A000", HF_ENOTSUP, 0, NULL},
    {"22", HF_EINVAL, 0, NULL},
    {"25006", HF_EREADONLY, HF_RETRYABLE,
     "it is a standby, or only for reading: name the primary, or several hosts and "
     "target_session_attrs=read-write"},
    {"26000", HF_EUNAVAIL, HF_RETRYABLE, "it has lost what was prepared: the next try may succeed"},
    {"28", HF_EACCES, 0, NULL},
    {"3D000", HF_ENOENT, 0, "there is no such database: create it, or name another"},
    {"40001", HF_EBUSY, HF_RETRYABLE, NULL},
    {"40003", HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN, NULL},
    {"40P01", HF_EBUSY, HF_RETRYABLE, NULL},
    {"42501", HF_EACCES, 0,
     "the user may not do this: run what `holdfast schema postgres` prints as the owner of the "
     "database, and grant the user what it says"},
    {"3F000", HF_ESCHEMA, HF_RETRYABLE, "Holdfast's schema is not there (any more)"},
    {"42P01", HF_ESCHEMA, HF_RETRYABLE, "Holdfast's tables are not there (any more)"},
    {"42883", HF_ESCHEMA, HF_RETRYABLE, "Holdfast's functions are not there (any more)"},
    {"53100", HF_EFULL, HF_RETRYABLE, "its disk is full"},
    {"53200", HF_EUNAVAIL, HF_RETRYABLE, "it is out of memory"},
    {"53300", HF_EUNAVAIL, HF_RETRYABLE,
     "all its connections are taken: raise max_connections, or put a pooler in between"},
    {"53", HF_EUNAVAIL, HF_RETRYABLE, NULL},
    {"55P03", HF_EBUSY, HF_RETRYABLE, NULL},
    {"57014", HF_EUNAVAIL, HF_RETRYABLE, "it took longer than statement_timeout allows"},
    {"57P", HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN, NULL},
    {"58", HF_EIO, HF_RETRYABLE, NULL},
    {"XX", HF_EPROTO, HF_RETRYABLE, "its data, or it itself, is damaged: see its log"},
    {"", HF_EPROTO, 0, NULL},
};

static const meaning *find(const char *state) {
    const meaning *m = meanings;

    while (strncmp(m->state, state, strlen(m->state)) != 0)
        m++;
    return m;
}

static int first_line(const char *text) {
    size_t len = strcspn(text, "\n");

    return len > 120 ? 120 : (int)len;
}

static void set_state(hf_error *error, const char *state) {
    size_t len = strnlen(state, sizeof error->state - 1);

    memcpy(error->state, state, len);
    error->state[len] = '\0';
}

void hf__pg_error(hf_error *error, const PGresult *result, const char *server) {
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const meaning *m;

    if (text == NULL) text = "nothing that makes sense";
    m = find(state != NULL ? state : "");
    if (m->advice != NULL)
        hf__error_set(error, m->code, m->flags, "PostgreSQL at %s answered \"%.*s\": %s", server,
                      first_line(text), text, m->advice);
    else
        hf__error_set(error, m->code, m->flags, "PostgreSQL at %s answered \"%.*s\"", server,
                      first_line(text), text);
    if (state != NULL) set_state(error, state);
}

void hf__pg_unreachable(hf_error *error, const char *server, const char *why) {
    hf__error_set(error, HF_EUNAVAIL, HF_RETRYABLE, "could not reach PostgreSQL at %s: %s", server,
                  why);
}

/* libpq gives no SQLSTATE of these; the words are of the server (whose language they may be in) and
 * of libpq. What is not known by them is taken for a failure that passes. */
static const struct {
    const char *part;
    const char *state;
    hf_code code;
    uint32_t flags;
} phrases[] = {
    {"password authentication failed", "28P01", HF_EACCES, 0},
    {"authentication failed", "28000", HF_EACCES, 0},
    {"no password supplied", "28P01", HF_EACCES, 0},
    {"no pg_hba.conf entry", "28000", HF_EACCES, 0},
    {"role \"", "28000", HF_EACCES, 0},
    {"is not permitted to log in", "28000", HF_EACCES, 0},
    {"database \"", "3D000", HF_ENOENT, 0},
    {"too many clients", "53300", HF_EUNAVAIL, HF_RETRYABLE},
    {"too many connections", "53300", HF_EUNAVAIL, HF_RETRYABLE},
    {"remaining connection slots", "53300", HF_EUNAVAIL, HF_RETRYABLE},
    {"starting up", "57P03", HF_EUNAVAIL, HF_RETRYABLE},
    {"shutting down", "57P03", HF_EUNAVAIL, HF_RETRYABLE},
    {"in recovery mode", "57P03", HF_EUNAVAIL, HF_RETRYABLE},
    {"certificate", "", HF_EACCES, 0},
    {"SSL", "", HF_EUNAVAIL, HF_RETRYABLE},
};

void hf__pg_error_connection(hf_error *error, const PGconn *conn, const char *server) {
    const char *text = PQerrorMessage(conn);
    const char *failed = strstr(text, "failed: ");
    int len;

    if (failed != NULL) text = failed + strlen("failed: ");
    if (strncmp(text, "FATAL:  ", 8) == 0) text += 8;
    len = first_line(text);
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        if (memmem(text, (size_t)len, phrases[i].part, strlen(phrases[i].part)) == NULL) continue;
        hf__error_set(error, phrases[i].code, phrases[i].flags,
                      "PostgreSQL at %s does not let us in: %.*s", server, len, text);
        set_state(error, phrases[i].state);
        return;
    }
    hf__error_set(error, HF_EUNAVAIL, HF_RETRYABLE, "could not reach PostgreSQL at %s: %.*s",
                  server, len, len > 0 ? text : "the connection broke");
}

bool hf__pg_error_is(const hf_error *error, const char *state) {
    return strcmp(error->state, state) == 0;
}

bool hf__pg_error_is_password(const hf_error *error) {
    return hf__pg_error_is(error, "28P01");
}

bool hf__pg_error_is_missing(const hf_error *error) {
    return error->code == HF_ESCHEMA || hf__pg_error_is(error, "26000");
}
