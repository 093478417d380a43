/*
 * The system's clocks, and the id of this boot.
 */
#ifndef HF_UTIL_CLOCK_H
#define HF_UTIL_CLOCK_H

#include "holdfast.h"

#define HF_NS_PER_MS UINT64_C(1000000)

/* CLOCK_BOOTTIME (elsewhere the monotonic clock that counts sleep), CLOCK_REALTIME, and the boot
 * id, read once. Any thread. */
const hf_clock *hf__clock_system(void);

static inline uint64_t hf__now_ns(const hf_clock *clock) {
    return clock->boot_ns(clock->data);
}

static inline uint64_t hf__real_us(const hf_clock *clock) {
    return clock->real_us(clock->data);
}

/* a + ms, without wrapping; HF_FOREVER stays for ever. */
uint64_t hf__add_ms(uint64_t at_ns, uint64_t ms);
/* The whole milliseconds from `now` to `then`, rounded up; 0 if past. */
uint64_t hf__ms_until(uint64_t now_ns, uint64_t then_ns);

#endif
