/*
 * The statements of the PostgreSQL store, and its schema, which the first process to need it makes:
 * in one transaction, the first statement of which takes a lock: any number may come at once.
 */
#include "store/postgres-schema.h"
#include "driver/postgres/error.h"
#include "store/postgres-store.h"
#include "util/alloc.h"

#include <ctype.h>
#include <string.h>

static const char *const texts[HF__POSTGRES_STATEMENTS] = {
    [HF__POSTGRES_LEASES] = "SELECT * FROM holdfast.leases($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
                            " $11, $12, $13)",
    [HF__POSTGRES_ENTRIES] = "SELECT * FROM holdfast.entries($1, $2, $3, $4, $5, $6, $7, $8, $9,"
                             " $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    [HF__POSTGRES_LIST] = "SELECT * FROM holdfast.list($1, $2, $3, $4)",
    [HF__POSTGRES_SWEEP] = "SELECT holdfast.sweep($1)",
    [HF__POSTGRES_PING] = "SELECT version FROM holdfast.meta",
    [HF__POSTGRES_CHECK] = "SELECT version FROM holdfast.meta",
};

static const int n_params[HF__POSTGRES_STATEMENTS] = {
    [HF__POSTGRES_LEASES] = 13,
    [HF__POSTGRES_ENTRIES] = 18,
    [HF__POSTGRES_LIST] = 4,
    [HF__POSTGRES_SWEEP] = 1,
};

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

/* Writes `text` to `to`, the schema's name in place of ours; returns how long that is. `to` NULL:
 * only that. */
static size_t name_schema(const char *text, const char *schema, char *to) {
    static const char ours[] = "holdfast";
    size_t ours_len = sizeof ours - 1;
    size_t schema_len = strlen(schema);
    size_t len = 0;

    for (const char *at = text; *at != '\0';) {
        bool here = strncmp(at, ours, ours_len) == 0 && !is_word(at[ours_len]) &&
                    (at == text || !is_word(at[-1]));
        size_t n = here ? schema_len : 1;

        if (to != NULL) memcpy(to + len, here ? schema : at, n);
        len += n;
        at += here ? ours_len : 1;
    }
    if (to != NULL) to[len] = '\0';
    return len;
}

hf_code hf__postgres_statements_init(hf__postgres_instance *s, hf_error *error) {
    size_t size = 0;
    char *at;

    for (size_t i = 0; i < HF__POSTGRES_STATEMENTS; i++)
        size += name_schema(texts[i], s->schema, NULL) + 1;
    s->sql = hf__alloc(s->base.env.allocator, size);
    if (s->sql == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    at = s->sql;
    for (size_t i = 0; i < HF__POSTGRES_STATEMENTS; i++) {
        s->statements[i] = (hf__pg_statement){.sql = at, .n_params = n_params[i]};
        s->statements[i].number = (uint8_t)(i + 1);
        at += name_schema(texts[i], s->schema, at) + 1;
    }
    /* It is asked where nothing can be prepared yet. */
    s->statements[HF__POSTGRES_CHECK].number = 0;
    return HF_OK;
}

static void forget_making(hf__postgres_instance *s) {
    hf__free(s->base.env.allocator, s->making);
    hf__free(s->base.env.allocator, s->making_text);
    s->making = NULL;
    s->making_text = NULL;
}

void hf__postgres_statements_fini(hf__postgres_instance *s) {
    forget_making(s);
    hf__free(s->base.env.allocator, s->sql);
}

/* ---------------------------------------------------------------- making it */

static void on_answer(hf__pg_call *call, const PGresult *result, const hf_error *error);

static void ask(hf__postgres_instance *s) {
    s->gate.statement = &s->statements[HF__POSTGRES_CHECK];
    s->gate.result_format = 1;
    s->gate.done = on_answer;
    s->gate.data = s;
    hf__pg_send(s->pg, &s->gate);
}

/* One statement of the schema after another. False when memory is out. */
static bool prepare_making(hf__postgres_instance *s) {
    const hf_allocator *allocator = s->base.env.allocator;
    size_t n = 0;
    size_t size = 0;
    char *at;

    for (; hf__postgres_schema[n] != NULL; n++)
        size += name_schema(hf__postgres_schema[n], s->schema, NULL) + 1;
    s->making = hf__zalloc(allocator, n * sizeof *s->making);
    s->making_text = hf__alloc(allocator, size);
    if (s->making == NULL || s->making_text == NULL) {
        forget_making(s);
        return false;
    }
    at = s->making_text;
    for (size_t i = 0; i < n; i++) {
        s->making[i].sql = at;
        at += name_schema(hf__postgres_schema[i], s->schema, at) + 1;
    }
    s->gate.before = s->making;
    s->gate.n_before = n;
    return true;
}

static void make(hf__postgres_instance *s) {
    hf_error error;

    s->state = HF__POSTGRES_MAKING;
    if (prepare_making(s)) {
        ask(s);
        return;
    }
    s->state = HF__POSTGRES_UNKNOWN;
    hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
    hf__postgres_fail_queue(s, &error);
}

static bool check_version(const hf__postgres_instance *s, const PGresult *result, hf_error *error) {
    int64_t version;

    if (PQntuples(result) != 1 || PQnfields(result) != 1) {
        hf__error_set(
            error, HF_ESCHEMA, 0,
            "the schema \"%s\" in PostgreSQL at %s is not Holdfast's: name another as the "
            "option `schema`",
            s->schema, s->server_name);
        return false;
    }
    version = hf__postgres_int(result, 0, 0);
    if (version <= HF__POSTGRES_VERSION) return true;
    hf__error_set(error, HF_ESCHEMA, 0,
                  "the schema \"%s\" in PostgreSQL at %s is of version %lld, and this Holdfast "
                  "knows up to %d: install a newer one",
                  s->schema, s->server_name, (long long)version, HF__POSTGRES_VERSION);
    return false;
}

static void on_answer(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__postgres_instance *s = call->data;
    bool was_made = s->state == HF__POSTGRES_MAKING;
    hf_error why;

    call->before = NULL;
    call->n_before = 0;
    forget_making(s);
    if (error != NULL && hf__pg_error_is_missing(error) && !was_made) {
        make(s);
        return;
    }
    if (error == NULL && check_version(s, result, &why)) {
        s->state = HF__POSTGRES_THERE;
        hf__postgres_wake(s);
        return;
    }
    if (error != NULL) why = *error;
    /* Nothing of the ops has been sent. */
    why.flags &= ~HF_OUTCOME_UNKNOWN;
    s->state = HF__POSTGRES_UNKNOWN;
    hf__postgres_fail_queue(s, &why);
}

void hf__postgres_look(hf__postgres_instance *s) {
    s->state = HF__POSTGRES_LOOKING;
    ask(s);
}
