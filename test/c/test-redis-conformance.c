/* The Redis store against the store contract, on a real server. */
#include "conformance.h"
#include "store/stores.h"
#include "support-redis.h"

static const store_subject hf__subject = {
    .vt = &hf__redis_store,
    .fresh = redis_fresh,
    .set_clock = redis_set_clock,
    .lasts = true,
};

HF_CONFORMANCE_TESTS()
