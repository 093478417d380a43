/* The PostgreSQL store against the store contract, on a real server. */
#include "conformance.h"
#include "store/stores.h"
#include "support-postgres.h"

static const store_subject hf__subject = {
    .vt = &hf__postgres_store,
    .fresh = postgres_fresh,
    .set_clock = postgres_set_clock,
    .lasts = true,
    .save = postgres_save,
    .restore = postgres_restore,
};

HF_CONFORMANCE_TESTS()
