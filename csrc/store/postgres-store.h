/*
 * The PostgreSQL store, as its own files see it. How it works as a whole is told in
 * store/postgres.c, what it keeps, and what happens to that, in store/postgres/schema.sql.
 */
#ifndef HF_STORE_POSTGRES_STORE_H
#define HF_STORE_POSTGRES_STORE_H

#include "core/defer.h"
#include "core/store.h"
#include "driver/postgres/postgres.h"
#include "store/watchers.h"
#include "util/buffer.h"

#define HF__POSTGRES_VERSION 1   /* of the schema */
#define HF__POSTGRES_NAME_MAX 40 /* bytes of the schema's name */
#define HF__POSTGRES_PARAMS_MAX 18
/* Types of parameters (src/include/catalog/pg_type.dat). */
enum { HF__POSTGRES_BYTEA = 17, HF__POSTGRES_INT8 = 20, HF__POSTGRES_INT2, HF__POSTGRES_INT4 = 23 };
/* Longer than that is for ever: 2^52 ms. */
#define HF__POSTGRES_MS_MOST UINT64_C(4503599627370496)
#define HF__POSTGRES_FLAG_WATCHED 65536 /* leave our channel where it is refused */
#define HF__POSTGRES_FLAG_HOLDER 131072 /* tell one holder */

typedef struct hf__postgres_instance hf__postgres_instance;
typedef struct hf__postgres_batch hf__postgres_batch;

/* What is asked in one statement: many ops of one kind, or one list, sweep or ping. */
struct hf__postgres_batch {
    hf__pg_call call;
    hf__postgres_instance *store;
    hf__op_list ops;
    uint32_t n_ops;
    bool again; /* it has been sent before the schema was there */
    bool (*answer)(hf__postgres_batch *batch, const PGresult *result);
    /* The parameters, in binary, one behind another. */
    hf__buffer bytes;
    size_t starts[HF__POSTGRES_PARAMS_MAX + 1];
    uint32_t n_params;
    bool in_array; /* its last parameter is one */
    const char *values[HF__POSTGRES_PARAMS_MAX];
    int lengths[HF__POSTGRES_PARAMS_MAX];
    hf__node node; /* of those under way, or free */
};

/* For each op of a batch, as `op`. */
#define HF__POSTGRES_EACH(batch) \
    for (const hf_op *op = (batch)->ops.first; op != NULL; op = op->next)

enum {
    HF__POSTGRES_LEASES,
    HF__POSTGRES_ENTRIES,
    HF__POSTGRES_LIST,
    HF__POSTGRES_SWEEP,
    HF__POSTGRES_PING,
    HF__POSTGRES_CHECK,
    HF__POSTGRES_STATEMENTS
};

struct hf__postgres_instance {
    hf_store base;
    hf__pg *pg;
    char schema[HF__POSTGRES_NAME_MAX + 1];
    bool relaxed; /* leases need not survive a crash of the server */
    char *sql;    /* of the statements */
    hf__pg_statement statements[HF__POSTGRES_STATEMENTS];
    hf_token self; /* names this instance where it waits */
    char channel[32];
    char server_name[HF__HOST_MAX + 16]; /* for messages */
    bool again; /* what is sent next was sent before the schema was there */

    enum {
        HF__POSTGRES_UNKNOWN, /* whether the schema is there */
        HF__POSTGRES_LOOKING,
        HF__POSTGRES_MAKING,
        HF__POSTGRES_THERE
    } state;
    hf__pg_call gate;         /* looks for the schema, or makes it */
    hf__pg_statement *making; /* what that takes; NULL: nothing is being made */
    size_t n_making;
    char *making_text;

    hf__op_list queue;  /* accepted, not sent */
    hf__op_list locked; /* found others at their entry: to be tried again soon */
    hf__node batches;   /* under way */
    hf__node free_batches;
    size_t n_batches;
    size_t n_free;
    size_t n_busy;    /* ops that have not ended */
    uv_idle_t idle;   /* active while there is something to be sent */
    uv_timer_t poll;  /* for watches that nobody would tell */
    uv_timer_t retry; /* for `locked` */
    uint32_t polls;
    hf__defer defer;
    bool has_handles;
    uint32_t n_handles; /* to be closed */
    hf__op_list late;   /* given after close */
    hf_op *closing;
    hf_op drained; /* behind the last op that is deferred */

    hf__watchers watchers;
    bool listens;
};

static inline hf__postgres_instance *hf__postgres_self(hf_store *store) {
    return hf__of(store, hf__postgres_instance, base);
}

/* ---- postgres.c */

/* Tells, of an answer, that it makes no sense. */
void hf__postgres_nonsense(const hf__postgres_instance *s, hf_op *op);
/* Sees to it that the queue is looked at soon. */
void hf__postgres_wake(hf__postgres_instance *s);

static inline void hf__postgres_refuse(hf_op *op, hf_refusal why) {
    op->applied = false;
    op->refused = (uint8_t)why;
}

/* ---- postgres-params.c: parameters and results in binary */

/* Begins an array of `n` elements of that type, as a parameter of its own. */
void hf__postgres_array(hf__postgres_batch *batch, Oid element, size_t n);
/* Elements of an array, or, after hf__postgres_scalar, the one value. */
void hf__postgres_put16(hf__postgres_batch *batch, int16_t value);
void hf__postgres_put32(hf__postgres_batch *batch, int32_t value);
void hf__postgres_put64(hf__postgres_batch *batch, int64_t value);
void hf__postgres_put_bytes(hf__postgres_batch *batch, const void *data, size_t len);
void hf__postgres_scalar(hf__postgres_batch *batch);
/* Once all are there. False: memory was out. */
bool hf__postgres_params_end(hf__postgres_batch *batch);

/* A field of a row; a NULL is 0, false or empty. */
int64_t hf__postgres_int(const PGresult *result, int row, int column);
hf_slice hf__postgres_bytes(const PGresult *result, int row, int column);
bool hf__postgres_token(const PGresult *result, int row, int column, hf_token *token);

/* ---- postgres-leases.c, postgres-entries.c: what a batch is asked and answered */

void hf__postgres_encode_leases(hf__postgres_batch *batch);
bool hf__postgres_answer_leases(hf__postgres_batch *batch, const PGresult *result);
void hf__postgres_encode_list(hf__postgres_batch *batch);
bool hf__postgres_answer_list(hf__postgres_batch *batch, const PGresult *result);
void hf__postgres_encode_entries(hf__postgres_batch *batch);
bool hf__postgres_answer_entries(hf__postgres_batch *batch, const PGresult *result);

/* ---- postgres-schema.c */

/* Writes the statements with the schema's name. HF_ENOMEM. */
hf_code hf__postgres_statements_init(hf__postgres_instance *s, hf_error *error);
void hf__postgres_statements_fini(hf__postgres_instance *s);
/* Looks whether the schema is there, and makes it if not; then wakes the queue, or fails it. */
void hf__postgres_look(hf__postgres_instance *s);
/* postgres.c: the queue's ops end with that error. */
void hf__postgres_fail_queue(hf__postgres_instance *s, const hf_error *error);

/* ---- postgres-watch.c */

void hf__postgres_watch(hf_store *store, hf__watch *watch);
void hf__postgres_unwatch(hf_store *store, hf__watch *watch);
bool hf__postgres_is_watched(const hf__postgres_instance *s, const hf_op *op);
/* A watch could not be armed: it is fired soon. */
void hf__postgres_unarmed(hf__postgres_instance *s);
void hf__postgres_notified(void *data, hf_slice payload);
void hf__postgres_listening(void *data);

#endif
