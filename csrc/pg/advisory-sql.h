/*
 * The statements of advisory locks, by what they do, for whom, and the space of the id: one
 * parameter, a bigint, or two, each an int, as text. Constant; any thread.
 */
#ifndef HF_PG_ADVISORY_SQL_H
#define HF_PG_ADVISORY_SQL_H

#include "driver/postgres/session.h"

typedef enum hf__advisory_verb {
    HF__ADVISORY_LOCK,      /* waits; until it is unlocked, or the session ends */
    HF__ADVISORY_TRY,       /* answers whether it is locked now */
    HF__ADVISORY_UNLOCK,    /* answers whether it was locked by this session */
    HF__ADVISORY_XACT_LOCK, /* waits; until the transaction ends */
    HF__ADVISORY_XACT_TRY,
    HF__ADVISORY_VERBS
} hf__advisory_verb;

/* In text; they are not prepared. */
const hf__pg_statement *hf__advisory_statement(hf__advisory_verb verb, bool shared, bool pair);

/* Its parameters, in place as long as the call. */
typedef struct hf__advisory_params {
    char texts[2][24];
    const char *values[2];
} hf__advisory_params;

void hf__advisory_params_set(hf__advisory_params *params, const hf_pg_id *id);

/* Many at once, in binary: an int2[] of HF__ADVISORY_OPS and a bigint[] of ids, of a pair the first
 * in the upper half. A row for each with one boolean, done in this order. */
enum {
    HF__ADVISORY_OP_TRY = 0,
    HF__ADVISORY_OP_UNLOCK = 2,
    HF__ADVISORY_OP_SHARED = 1, /* is added */
    HF__ADVISORY_OP_PAIR = 4    /* likewise */
};
extern const hf__pg_statement hf__advisory_many;

/* Who holds what and who waits in this database: see advisory-list.c. */
extern const hf__pg_statement hf__advisory_holders;

#endif
