#include "util/clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

static uint64_t boot_ns(void *data) {
    (void)data;
#ifdef __APPLE__
    /* On this system the raw monotonic clock goes on while the machine sleeps. */
    return clock_gettime_nsec_np(CLOCK_MONOTONIC_RAW);
#else
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
#endif
}

static uint64_t real_us(void *data) {
    struct timespec now;
    (void)data;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000) + (uint64_t)now.tv_nsec / 1000;
}

/* The one thing of a process that is read once and never changes. */
static char boot_id[64];
static hf_clock system_clock = {.boot_ns = boot_ns, .real_us = real_us, .boot_id = boot_id};

static size_t read_boot_id(void) {
#ifdef __APPLE__
    size_t len = sizeof boot_id - 1;
    return sysctlbyname("kern.bootsessionuuid", boot_id, &len, NULL, 0) == 0 ? len : 0;
#else
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len;

    if (fd < 0) return 0;
    len = read(fd, boot_id, sizeof boot_id - 1);
    close(fd);
    return len > 0 ? (size_t)len : 0;
#endif
}

static void init_boot_id(void) {
    size_t len = read_boot_id();

    while (len > 0 && (boot_id[len - 1] == '\n' || boot_id[len - 1] == '\0'))
        len--;
    boot_id[len] = '\0';
    if (len > 0) return;
    /* Every process of the machine must come to the same name, and a wrong "another boot" would end
     * leases that are held: where the system does not tell, all boots are one. */
    for (const char *p = "unknown"; *p != '\0'; p++)
        boot_id[len++] = *p;
    boot_id[len] = '\0';
}

const hf_clock *hf__clock_system(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, init_boot_id);
    return &system_clock;
}

uint64_t hf__add_ms(uint64_t at_ns, uint64_t ms) {
    if (ms > (UINT64_MAX - at_ns) / HF_NS_PER_MS) return HF_FOREVER;
    return at_ns + ms * HF_NS_PER_MS;
}

uint64_t hf__ms_until(uint64_t now_ns, uint64_t then_ns) {
    if (then_ns == HF_FOREVER) return HF_FOREVER;
    if (then_ns <= now_ns) return 0;
    return (then_ns - now_ns - 1) / HF_NS_PER_MS + 1;
}
