/* The wall clock may be set while locks are held: they are kept in the time since boot. */
#include "support-host.h"

#include <stdatomic.h>
#include <time.h>

#define DAY_US UINT64_C(86400000000)

static const char *const urls[] = {"memory:", "sqlite:"};

/* Both threads of an engine read the clock. */
static _Atomic uint64_t wall_us = UINT64_C(1800000000000000);

static uint64_t since_boot_ns(void *data) {
    struct timespec now;

    (void)data;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t read_wall_us(void *data) {
    (void)data;
    return atomic_load(&wall_us);
}

static hf_code try_once(host *h, const char *key) {
    hf_slice k = slice(key);
    hf_lock_options o = lock_options(&k, 1);
    held l;

    o.wait_ms = 0;
    CHECK_INT(held_ask(h, &l, &o), HF_OK);
    host_until(h, &l.answered, 1);
    hf_lock_free(l.lock);
    return l.code;
}

/* Holds a lock while the clock jumps by `by_us`, over several renewals. */
static void jump_while_held(host *h, int64_t by_us) {
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    uint64_t fence;
    held l;

    o.ttl_ms = 1000; /* a busy machine has time to renew it */
    CHECK_INT(held_ask(h, &l, &o), HF_OK);
    host_until(h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    fence = hf_lock_fence(l.lock);
    atomic_fetch_add(&wall_us, (uint64_t)by_us);
    CHECK_INT(try_once(h, "k"), HF_ETIMEDOUT);
    host_run_ms(h, 2500);
    CHECK(hf_lock_held(l.lock));
    CHECK_INT(l.lost, 0);
    CHECK_INT(try_once(h, "k"), HF_ETIMEDOUT);
    hf_lock_free(l.lock);
    held_take(h, &l, "k");
    CHECK(hf_lock_fence(l.lock) > fence);
    hf_lock_free(l.lock);
}

TEST(a_wall_clock_that_is_set_moves_no_lock_and_no_fence) {
    hf_clock clock = {.boot_ns = since_boot_ns, .real_us = read_wall_us};

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        hf_engine_options options = {.clock = &clock};
        host h;

        host_open_with(&h, urls[i], &options);
        jump_while_held(&h, (int64_t)DAY_US);
        jump_while_held(&h, -(int64_t)(400 * DAY_US));
        host_close(&h);
    }
}
