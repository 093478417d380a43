/* The Redis store against the store contract, by way of a Sentinel. */
#include "conformance.h"
#include "store/stores.h"
#include "support-redis.h"

static void fresh(char *url, size_t size) {
    redis_through_sentinel();
    redis_fresh(url, size);
}

static const store_subject hf__subject = {
    .vt = &hf__redis_store,
    .fresh = fresh,
    .set_clock = redis_set_clock,
    .lasts = true,
};

HF_CONFORMANCE_TESTS()
