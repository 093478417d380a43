/* The quorum store against the store contract, on three real servers. */
#include "conformance.h"
#include "store/stores.h"
#include "support-redis.h"

static void fresh(char *url, size_t size) {
    redis_as_quorum(3);
    redis_fresh(url, size);
}

static const store_subject hf__subject = {
    .vt = &hf__quorum_store,
    .fresh = fresh,
    .set_clock = redis_set_clock,
    .lasts = true,
};

HF_CONFORMANCE_TESTS()
