#include "store/quorum-store.h"

#include <assert.h>

void hf__tally_add(hf__tally *tally, uint64_t value) {
    uint8_t at = tally->n++;

    assert(tally->n <= HF__QUORUM_MAX);
    for (; at > 0 && tally->values[at - 1] < value; at--)
        tally->values[at] = tally->values[at - 1];
    tally->values[at] = value;
}

uint64_t hf__tally_reach(const hf__tally *tally, uint8_t count) {
    assert(tally->n > 0 && count > 0);
    return tally->values[(count < tally->n ? count : tally->n) - 1];
}
