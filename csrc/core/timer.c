#include "core/timer.h"

#include <assert.h>
#include <errno.h>

#ifdef __linux__
#include <sys/timerfd.h>
#include <unistd.h>
#else
static void on_tick(uv_timer_t *handle);
#endif

/* Fires what is due now. What is started meanwhile waits for the next look, also where it is due
 * already: who acts again and again from its own timer must not keep the loop. */
static void run_due(hf__timers *timers) {
    hf__heap_node *min = hf__heap_min(&timers->heap);
    if (min == NULL) return;
    uint64_t now = hf__now_ns(timers->clock);
    if (min->at > now) return;
    hf__scope_enter(timers->scope);
    timers->firing_ns = now;
    while ((min = hf__heap_min(&timers->heap)) != NULL && min->at <= now) {
        hf__timer *timer = hf__of(min, hf__timer, node);
        hf__heap_remove(&timers->heap, min);
        timer->fire(timer);
    }
    timers->firing_ns = 0;
    hf__scope_leave(timers->scope);
}

/* The descriptor counts from now: an injected clock then only decides what is due, not when to
 * look. */
static void arm(hf__timers *timers, uint64_t at_ns) {
    uint64_t now = hf__now_ns(timers->clock);
    uint64_t wait = at_ns > now ? at_ns - now : 1;
    timers->armed_ns = at_ns;
#ifdef __linux__
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(wait / 1000000000u),
                                           .tv_nsec = (long)(wait % 1000000000u)}};
    int rc = timerfd_settime(timers->fd, 0, &spec, NULL);
    assert(rc == 0);
    (void)rc;
#else
    uv_timer_start(&timers->handle, on_tick, (wait + HF_NS_PER_MS - 1) / HF_NS_PER_MS, 0);
#endif
}

static void rearm(hf__timers *timers) {
    hf__heap_node *min = hf__heap_min(&timers->heap);
    timers->armed_ns = HF_FOREVER;
    if (min != NULL) arm(timers, min->at);
}

#ifdef __linux__
static void on_readable(uv_poll_t *handle, int status, int events) {
    hf__timers *timers = hf__of(handle, hf__timers, handle);
    uint64_t count;
    (void)status;
    (void)events;
    /* Only clears the descriptor; how often it fired says nothing. */
    if (read(timers->fd, &count, sizeof(count)) < 0 && errno != EAGAIN) return;
    run_due(timers);
    rearm(timers);
}

static int open_handle(hf__timers *timers, uv_loop_t *loop) {
    timers->fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timers->fd < 0) return -errno;
    int rc = uv_poll_init(loop, &timers->handle, timers->fd);
    if (rc == 0) rc = uv_poll_start(&timers->handle, UV_READABLE, on_readable);
    if (rc != 0) close(timers->fd);
    return rc;
}
#else
static void on_tick(uv_timer_t *handle) {
    hf__timers *timers = hf__of(handle, hf__timers, handle);
    run_due(timers);
    rearm(timers);
}

static int open_handle(hf__timers *timers, uv_loop_t *loop) {
    return uv_timer_init(loop, &timers->handle);
}
#endif

static void on_check(uv_check_t *check) {
    run_due(hf__of(check, hf__timers, check));
}

int hf__timers_init(hf__timers *timers, uv_loop_t *loop, const hf_clock *clock, hf__scope *scope) {
    *timers = (hf__timers){.clock = clock, .scope = scope, .armed_ns = HF_FOREVER};
    int rc = open_handle(timers, loop);
    if (rc != 0) return rc;
    uv_check_init(loop, &timers->check);
    uv_check_start(&timers->check, on_check);
    uv_unref((uv_handle_t *)&timers->handle);
    uv_unref((uv_handle_t *)&timers->check);
    return 0;
}

static void on_closed(uv_handle_t *handle) {
    hf__timers *timers = handle->data;
    if (--timers->open_handles > 0) return;
#ifdef __linux__
    close(timers->fd);
#endif
    if (timers->closed != NULL) timers->closed(timers->closed_data);
}

void hf__timers_close(hf__timers *timers, void (*closed)(void *data), void *data) {
    hf__heap_node *node;
    while ((node = hf__heap_min(&timers->heap)) != NULL)
        hf__heap_remove(&timers->heap, node);
    timers->closed = closed;
    timers->closed_data = data;
    timers->open_handles = 2;
    timers->handle.data = timers;
    timers->check.data = timers;
    uv_close((uv_handle_t *)&timers->handle, on_closed);
    uv_close((uv_handle_t *)&timers->check, on_closed);
}

void hf__timer_start(hf__timers *timers, hf__timer *timer, uint64_t at_ns) {
    assert(timer->fire != NULL);
    hf__heap_remove(&timers->heap, &timer->node);
    if (at_ns == HF_FOREVER) return;
    if (timers->firing_ns != 0 && at_ns <= timers->firing_ns) at_ns = timers->firing_ns + 1;
    timer->node.at = at_ns;
    hf__heap_insert(&timers->heap, &timer->node);
    /* Removing never disarms: one look too many costs less than a system call each time. */
    if (at_ns < timers->armed_ns) arm(timers, at_ns);
}

void hf__timer_stop(hf__timers *timers, hf__timer *timer) {
    hf__heap_remove(&timers->heap, &timer->node);
}
