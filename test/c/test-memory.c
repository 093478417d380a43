/* The memory store against the store contract. */
#include "conformance.h"
#include "store/stores.h"

#include <stdio.h>

static void fresh(char *url, size_t size) {
    snprintf(url, size, "memory:");
}

static const store_subject hf__subject = {
    .vt = &hf__memory_store,
    .fresh = fresh,
    .own_clock = true,
};

HF_CONFORMANCE_TESTS()
