/* The Redis store on a Cluster against the store contract: of one node, whose clock can then be set
 * without the others taking it for dead. Keys of one lock must lie in one slot, so all do. */
#include "conformance.h"
#include "store/stores.h"
#include "support-redis.h"

#include <string.h>

static void fresh(char *url, size_t size) {
    redis_as_cluster(1);
    redis_fresh(url, size);
    strncat(url, "?prefix={conformance}:", size - strlen(url) - 1);
}

static const store_subject hf__subject = {
    .vt = &hf__redis_store,
    .fresh = fresh,
    .set_clock = redis_set_clock,
    .lasts = true,
};

HF_CONFORMANCE_TESTS()
