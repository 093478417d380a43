/* The quorum store against the store contract, on three real servers. */
#include "conformance.h"
#include "store/stores.h"
#include "support-redis.h"

static void fresh(char *url, size_t size) {
    redis_as_quorum(3);
    redis_fresh(url, size);
}

/* An op ends when two of the nodes have answered. What the third has been sent it does before the
 * time passes: it answers a later question after it. */
static void set_clock(uint64_t real_us) {
    for (size_t i = 0; i < 3; i++)
        CHECK_STR(redis_do_at(i, "PING"), "PONG");
    redis_set_clock(real_us);
}

static const store_subject hf__subject = {
    .vt = &hf__quorum_store,
    .fresh = fresh,
    .set_clock = set_clock,
    .lasts = true,
};

HF_CONFORMANCE_TESTS()
