#include "util/random.h"

#include "util/clock.h"

#include <errno.h>
#include <sys/random.h>
#include <unistd.h>

bool hf__random(void *p, size_t n) {
    uint8_t *at = p;

    while (n > 0) {
        size_t chunk = n < 256 ? n : 256; /* what both calls give in one piece */
#ifdef __APPLE__
        if (getentropy(at, chunk) != 0) return false;
#else
        ssize_t got = getrandom(at, chunk, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        chunk = (size_t)got;
#endif
        at += chunk;
        n -= chunk;
    }
    return true;
}

uint64_t hf__random_between(uint64_t low, uint64_t high) {
    uint64_t range = high - low + 1;
    uint64_t bits;

    if (!hf__random(&bits, sizeof bits)) bits = hf__now_ns(hf__clock_system());
    /* range is 0 when all 64 bits are asked for. The bias of the remainder is below 2^-64 *
     * range. */
    return range == 0 ? bits : low + bits % range;
}
