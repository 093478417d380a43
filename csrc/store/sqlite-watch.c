/*
 * Watches: how a waiter learns that another process has let go.
 *
 * Every commit of any process writes to the log, so one file-system event on it (inotify, kqueue)
 * wakes all who wait, at no cost to those who do not. An event only says that something has
 * happened: one read-only look at the watched keys, in a work item, tells which of them it was.
 * While a key is held exclusively a change of holders is no news: nobody could take it.
 *
 * Where others write thousands of times a second, events must not cost a waiter its processor: the
 * first one ends the watching of the log, until it is time for a look. Then the log is watched
 * again, and after that the look is made: nothing falls between them.
 *
 * A lost event must not mean a lost waiter: while there are watches, a slow poll looks too; a
 * quicker one where events cannot be had.
 *
 * What a watch compares with is what the last refused take (or get) of its key saw, or the last
 * look. As ops and looks are answered one after the other, nothing falls between those either.
 */
#include "store/sqlite-store.h"
#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define PAUSE_MS 3      /* between two looks */
#define PAUSE_MS_BUSY 8 /* after FRUITLESS_MAX of them in a row that found nothing */
#define FRUITLESS_MAX 16
#define CALM_MS 50        /* without an event: then it starts anew */
#define POLL_MS 1000      /* with events */
#define POLL_BLIND_MS 100 /* without */
#define QUIET_MAX 2       /* polls without a watch until the handles rest */

static bool has_watches(const hf__sqlite_instance *s) {
    return !hf__list_empty(&s->watches) || !hf__list_empty(&s->fresh);
}

/* ---------------------------------------------------------------- when to look */

static void on_throttle(uv_timer_t *timer) {
    hf__sqlite_instance *s = hf__of(timer, hf__sqlite_instance, throttle);
    hf__sqlite_wake(s);
}

/* Something may have changed: look now, or as soon as it is time. */
static void look_soon(hf__sqlite_instance *s) {
    uint64_t since;
    uint64_t pause;

    if (!has_watches(s)) return;
    s->want_check = true;
    if (uv_is_active((uv_handle_t *)&s->throttle)) return;
    since = (uv_hrtime() - s->checked_ns) / HF_NS_PER_MS;
    if (since >= CALM_MS) s->fruitless = 0;
    pause = s->fruitless >= FRUITLESS_MAX ? PAUSE_MS_BUSY : PAUSE_MS;
    if (since >= pause)
        hf__sqlite_wake(s);
    else
        uv_timer_start(&s->throttle, on_throttle, pause - since, 0);
}

static void disarm(hf__sqlite_instance *s) {
    if (s->armed) uv_fs_event_stop(&s->events);
    s->armed = false;
}

static void on_event(uv_fs_event_t *events, const char *name, int kind, int status) {
    hf__sqlite_instance *s = hf__of(events, hf__sqlite_instance, events);

    (void)name;
    (void)kind;
    (void)status;
    disarm(s);
    look_soon(s);
}

/* Between two turns of the worker only: reads the connection. */
static void arm(hf__sqlite_instance *s) {
    assert(!s->working);
    if (s->armed && s->generation == s->opened) return;
    disarm(s);
    if (s->conn.db == NULL) return;
    s->generation = s->opened;
    s->armed = uv_fs_event_start(&s->events, on_event, s->conn.wal_path, 0) == 0;
    s->blind = !s->armed;
}

static void on_poll(uv_timer_t *timer);

static void start_poll(hf__sqlite_instance *s) {
    uint64_t ms = s->blind ? POLL_BLIND_MS : POLL_MS;

    /* Processes that wait for the same must not all ask at once. */
    uv_timer_start(&s->poll, on_poll, hf__random_between(ms * 3 / 4, ms * 5 / 4), 0);
}

static void on_poll(uv_timer_t *timer) {
    hf__sqlite_instance *s = hf__of(timer, hf__sqlite_instance, poll);

    if (!has_watches(s) && ++s->quiet >= QUIET_MAX) {
        disarm(s);
        return;
    }
    if (!s->working) arm(s);
    look_soon(s);
    start_poll(s);
}

/* ---------------------------------------------------------------- the seam */

void hf__sqlite_watch(hf_store *store, hf__watch *watch) {
    hf__sqlite_instance *s = hf__of(store, hf__sqlite_instance, base);

    assert(s->closing == NULL);
    watch->seen = 0;
    hf__list_push(&s->fresh, &watch->node);
    s->quiet = 0;
    hf__sqlite_handles(s);
    /* While the worker has its turn, it is done at the end of that: before it begins the take that
     * follows. Where a look is due, that comes after the take, and arms first. */
    if (!s->working && !s->want_check) arm(s);
    if (!uv_is_active((uv_handle_t *)&s->poll)) start_poll(s);
}

void hf__sqlite_unwatch(hf_store *store, hf__watch *watch) {
    (void)store;
    hf__list_remove(&watch->node);
}

/* ---------------------------------------------------------------- around the worker's turn */

static size_t measure(const hf__node *list, size_t *bytes) {
    size_t n = 0;

    for (const hf__node *node = list->next; node != list; node = node->next, n++)
        *bytes += hf__of((hf__node *)(uintptr_t)node, hf__watch, node)->key.len;
    return n;
}

static void copy_questions(hf__sqlite_instance *s, const hf__node *list, char **text) {
    for (hf__node *node = list->next; node != list; node = node->next) {
        const hf__watch *watch = hf__of(node, hf__watch, node);
        hf__sqlite_check *check = &s->checks[s->n_checks++];

        if (watch->key.len > 0) memcpy(*text, watch->key.data, watch->key.len);
        *check = (hf__sqlite_check){
            .watch = watch, .key = {*text, watch->key.len}, .space = watch->space};
        *text += watch->key.len;
    }
}

void hf__sqlite_watch_before(hf__sqlite_instance *s) {
    size_t bytes = 0;
    size_t n;
    char *text;

    if (!has_watches(s)) s->want_check = false;
    if (!s->want_check) return;
    if (uv_is_active((uv_handle_t *)&s->throttle)) return;
    n = measure(&s->fresh, &bytes) + measure(&s->watches, &bytes);
    s->checks = hf__alloc(s->base.env.allocator, n * sizeof *s->checks + bytes);
    if (s->checks == NULL) return; /* the poll asks again */
    arm(s);
    s->want_check = false;
    s->checked_ns = uv_hrtime();
    text = (char *)&s->checks[n];
    /* In the order in which the answers will look for them. */
    copy_questions(s, &s->watches, &text);
    copy_questions(s, &s->fresh, &text);
}

/* What a refused take or a get saw is what the watches of its key have seen. */
static void learn(hf__sqlite_instance *s, hf__node *list, const hf_op *op) {
    hf__node *next;

    for (hf__node *node = list->next; node != list; node = next) {
        hf__watch *watch = hf__of(node, hf__watch, node);

        next = node->next;
        if (watch->space != op->space || !hf__slice_equal(watch->key, op->keys[0])) continue;
        watch->seen = op->stamp;
        if (list != &s->fresh) continue;
        hf__list_remove(node);
        hf__list_push(&s->watches, node);
    }
}

/* Of a refused take of several keys it is known which of them were in the way, but not what a look
 * at each would have seen: they are news as soon as somebody could take them. */
static void forget(hf__node *list, const hf_op *op) {
    for (hf__node *node = list->next; node != list; node = node->next) {
        hf__watch *watch = hf__of(node, hf__watch, node);

        if (watch->space != op->space) continue;
        for (uint32_t i = 0; i < op->n_keys; i++) {
            bool refusing = (op->stamp >> i & 1) != 0;
            if (refusing && hf__slice_equal(watch->key, op->keys[i])) watch->seen = 0;
        }
    }
}

static void learn_all(hf__sqlite_instance *s) {
    if (!has_watches(s)) return;
    for (hf_op *op = s->batch.first; op != NULL; op = op->next) {
        if (op->stamp == 0 || (op->verb != HF_TAKE && op->verb != HF_GET)) continue;
        if (op->n_keys > 1) {
            forget(&s->watches, op);
            forget(&s->fresh, op);
        } else {
            learn(s, &s->watches, op);
            learn(s, &s->fresh, op);
        }
        op->stamp = 0;
    }
}

/* Moves those that have news to `news`. */
static void compare(hf__sqlite_instance *s, hf__node *list, size_t *at, hf__node *news) {
    hf__node *next;

    for (hf__node *node = list->next; node != list; node = next) {
        hf__watch *watch = hf__of(node, hf__watch, node);
        size_t i = *at;

        next = node->next;
        /* Both are in the same order; a watch that is not there came later. */
        while (i < s->n_checks && s->checks[i].watch != watch)
            i++;
        if (i == s->n_checks) continue;
        *at = i + 1;
        if (!s->checks_failed && (s->checks[i].excluded || s->checks[i].seen == watch->seen))
            continue;
        if (!s->checks_failed) watch->seen = s->checks[i].seen;
        hf__list_remove(node);
        hf__list_push(news, node);
    }
}

static void fire(hf__sqlite_instance *s, hf__node *news) {
    hf__node *node;

    if (hf__list_empty(news)) return;
    hf__scope_enter(s->base.env.scope);
    while ((node = hf__list_pop(news)) != NULL) {
        hf__watch *watch = hf__of(node, hf__watch, node);
        hf__list_push(watch->seen == 0 ? &s->fresh : &s->watches, node);
        watch->fire(watch);
    }
    hf__scope_leave(s->base.env.scope);
}

void hf__sqlite_watch_after(hf__sqlite_instance *s) {
    bool late = has_watches(s) && s->generation != s->opened;
    size_t at = 0;
    hf__node news;

    hf__list_init(&news);
    if (s->checks != NULL) {
        compare(s, &s->watches, &at, &news);
        compare(s, &s->fresh, &at, &news);
        s->fruitless = hf__list_empty(&news) ? s->fruitless + 1 : 0;
        hf__free(s->base.env.allocator, s->checks);
        s->checks = NULL;
        s->n_checks = 0;
    }
    learn_all(s);
    if (has_watches(s) && !s->want_check) arm(s);
    if (late) {
        /* The file was opened, or opened again, in the turn that has ended: what happened since was
         * not watched. */
        hf__list_append(&news, &s->watches);
        hf__list_append(&news, &s->fresh);
    }
    fire(s, &news);
    if (s->want_check) look_soon(s);
}

/* ---------------------------------------------------------------- life */

void hf__sqlite_watch_init(hf__sqlite_instance *s) {
    uv_loop_t *loop = s->base.env.loop;

    (void)uv_fs_event_init(loop, &s->events);
    (void)uv_timer_init(loop, &s->throttle);
    (void)uv_timer_init(loop, &s->poll);
    uv_unref((uv_handle_t *)&s->events);
    uv_unref((uv_handle_t *)&s->throttle);
    uv_unref((uv_handle_t *)&s->poll);
}

void hf__sqlite_watch_stop(hf__sqlite_instance *s) {
    disarm(s);
    s->want_check = false;
    uv_timer_stop(&s->throttle);
    uv_timer_stop(&s->poll);
}
