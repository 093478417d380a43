#include "pg/advisory-sql.h"

#include <inttypes.h>
#include <stdio.h>

#define ARRAY_OF_INT2 1005
#define ARRAY_OF_INT8 1016
#define INT8 20
#define INT4 23

static const Oid number_types[] = {INT8};
static const Oid pair_types[] = {INT4, INT4};

#define NUMBER(name) \
    { .sql = "SELECT pg_catalog." name "($1)", .n_params = 1, .types = number_types, }
#define PAIR(name) \
    { .sql = "SELECT pg_catalog." name "($1, $2)", .n_params = 2, .types = pair_types, }
#define BOTH(name)                                       \
    {                                                    \
        {NUMBER(name), PAIR(name)}, {                    \
            NUMBER(name "_shared"), PAIR(name "_shared") \
        }                                                \
    }

/* By verb, shared, pair. */
static const hf__pg_statement statements[HF__ADVISORY_VERBS][2][2] = {
    [HF__ADVISORY_LOCK] = BOTH("pg_advisory_lock"),
    [HF__ADVISORY_TRY] = BOTH("pg_try_advisory_lock"),
    [HF__ADVISORY_UNLOCK] = BOTH("pg_advisory_unlock"),
    [HF__ADVISORY_XACT_LOCK] = BOTH("pg_advisory_xact_lock"),
    [HF__ADVISORY_XACT_TRY] = BOTH("pg_try_advisory_xact_lock"),
};

const hf__pg_statement *hf__advisory_statement(hf__advisory_verb verb, bool shared, bool pair) {
    return &statements[verb][shared][pair];
}

void hf__advisory_params_set(hf__advisory_params *params, const hf_pg_id *id) {
    size_t size = sizeof params->texts[0];

    if (id->pair) {
        snprintf(params->texts[0], size, "%" PRId32, id->first);
        snprintf(params->texts[1], size, "%" PRId32, id->second);
    } else {
        snprintf(params->texts[0], size, "%" PRId64, id->number);
    }
    params->values[0] = params->texts[0];
    params->values[1] = params->texts[1];
}

/* A function in FROM gives its rows in order, and each is worked out as it passes. Shifting to and
 * fro makes the lower half of a bigint an int with its sign. */
#define HALVES "((o.id >> 32)::int4, (o.id << 32 >> 32)::int4)"

static const Oid many_types[] = {ARRAY_OF_INT2, ARRAY_OF_INT8};

const hf__pg_statement hf__advisory_many = {
    .sql = "SELECT CASE o.op"
           " WHEN 0 THEN pg_catalog.pg_try_advisory_lock(o.id)"
           " WHEN 1 THEN pg_catalog.pg_try_advisory_lock_shared(o.id)"
           " WHEN 2 THEN pg_catalog.pg_advisory_unlock(o.id)"
           " WHEN 3 THEN pg_catalog.pg_advisory_unlock_shared(o.id)"
           " WHEN 4 THEN pg_catalog.pg_try_advisory_lock" HALVES
           " WHEN 5 THEN pg_catalog.pg_try_advisory_lock_shared" HALVES
           " WHEN 6 THEN pg_catalog.pg_advisory_unlock" HALVES
           " WHEN 7 THEN pg_catalog.pg_advisory_unlock_shared" HALVES
           " END FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2))"
           " WITH ORDINALITY AS o (op, id, place)",
    .n_params = 2,
    .types = many_types,
    .number = 2,
};

/* A bigint is told by its halves, too: objsubid says which of the two it is. `waitstart` came with
 * PostgreSQL 14; a column that may not be there is read out of the whole row. */
const hf__pg_statement hf__advisory_holders = {
    .sql = "SELECT l.objsubid = 2, l.classid::int8, l.objid::int8, l.mode = 'ShareLock', l.granted,"
           " l.pid, COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.query_start)"
           " * 1000, -1)::int8,"
           " COALESCE(EXTRACT(epoch FROM pg_catalog.clock_timestamp()"
           " - (pg_catalog.to_jsonb(l) ->> 'waitstart')::timestamptz) * 1000, -1)::int8,"
           " COALESCE(a.application_name, '')"
           " FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
           " WHERE l.locktype = 'advisory' AND l.database = (SELECT d.oid FROM"
           " pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
           " ORDER BY 1, l.classid, l.objid, l.granted DESC, 8 DESC, l.pid",
};
