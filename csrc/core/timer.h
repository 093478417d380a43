/*
 * Timers on the engine's clock, which counts suspend (libuv's timers do not): a heap, one
 * descriptor, and a look at the clock in every loop turn. One loop, its thread only.
 */
#ifndef HF_CORE_TIMER_H
#define HF_CORE_TIMER_H

#include "core/op.h"
#include "util/clock.h"
#include "util/heap.h"
#include "util/list.h"

#include <uv.h>

typedef struct hf__timer {
    hf__heap_node node;
    void (*fire)(struct hf__timer *timer);
} hf__timer;

typedef struct hf__timers {
    const hf_clock *clock;
    hf__scope *scope; /* NULL: no bracket */
    hf__heap heap;
    uint64_t armed_ns;  /* when the descriptor fires; HF_FOREVER: not armed */
    uint64_t firing_ns; /* the time of the look that is firing timers now; 0: none is */
#ifdef __linux__
    int fd;
    uv_poll_t handle;
#else
    uv_timer_t handle;
#endif
    uv_check_t check;
    int open_handles;
    void (*closed)(void *data);
    void *closed_data;
} hf__timers;

/* 0 or a negative errno as libuv's. The handles are unreferenced. */
int hf__timers_init(hf__timers *timers, uv_loop_t *loop, const hf_clock *clock, hf__scope *scope);
/* Forgets all timers and closes the handles; then calls `closed` (may be NULL). */
void hf__timers_close(hf__timers *timers, void (*closed)(void *data), void *data);

/* (Re)starts: `fire` runs once, when the clock has reached `at_ns`, never inside this call.
 * `timer` is zeroed before its first start. HF_FOREVER stops it. */
void hf__timer_start(hf__timers *timers, hf__timer *timer, uint64_t at_ns);
void hf__timer_stop(hf__timers *timers, hf__timer *timer);

static inline bool hf__timer_active(const hf__timer *timer) {
    return hf__heap_in(&timer->node);
}

#endif
