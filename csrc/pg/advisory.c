/*
 * Advisory locks: what their users ask and are told, and the end of it all.
 */
#include "pg/advisory-parts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GRACE_MS 1000 /* how long past its wait a first attempt may be under way */
#define PAUSE_MIN_MS 25
#define PAUSE_MAX_MS 2000

/* ---------------------------------------------------------------- names */

/* An id as messages show it. */
typedef struct shown_id {
    char text[32];
} shown_id;

static shown_id show_id(const hf_pg_id *id) {
    shown_id shown;

    if (id->pair)
        snprintf(shown.text, sizeof shown.text, "(%" PRId32 ", %" PRId32 ")", id->first,
                 id->second);
    else
        snprintf(shown.text, sizeof shown.text, "%" PRId64, id->number);
    return shown;
}

/* ---------------------------------------------------------------- references */

static void unref(hf_pg_lock *lock) {
    hf_allocator allocator = lock->allocator;

    assert(lock->refs > 0);
    if (--lock->refs > 0) return;
    hf__free(&allocator, lock->failure);
    hf__free(&allocator, lock);
}

static void count(hf_pg_lock *lock) {
    lock->counts = true;
    hf__engine_ref(lock->advisory->engine);
}

static void uncount(hf_pg_lock *lock) {
    if (lock->counts) hf__engine_unref(lock->advisory->engine);
    lock->counts = false;
}

/* ---------------------------------------------------------------- news */

static void note(hf_pg_lock *lock, uint32_t news) {
    hf__advisory *a = lock->advisory;

    lock->news |= news;
    if (hf__list_empty(&lock->told)) hf__list_push(&a->news, &lock->told);
    hf__advisory_wake(a);
}

static void keep_failure(hf_pg_lock *lock, const hf_error *error) {
    if (lock->failure == NULL) lock->failure = hf__alloc(&lock->allocator, sizeof *lock->failure);
    if (lock->failure != NULL) *lock->failure = *error;
}

static void leave_waiting(hf_pg_lock *lock) {
    hf__advisory *a = lock->advisory;

    assert(lock->state == HF__ADVISORY_WAITING);
    hf__advisory_timer_stop(a, &lock->timer);
    a->n_waiting--;
}

void hf__advisory_granted(hf_pg_lock *lock) {
    leave_waiting(lock);
    lock->state = HF__ADVISORY_HELD;
    lock->advisory->n_open++;
    note(lock, HF__NEWS_ACQUIRED);
}

void hf__advisory_refused(hf_pg_lock *lock, uint32_t news, const hf_error *error) {
    leave_waiting(lock);
    lock->state = HF__ADVISORY_ENDED;
    hf__list_remove(&lock->all);
    if (error != NULL) keep_failure(lock, error); /* it may lie in what goes now */
    if (lock->own != NULL) hf__own_give_up(lock);
    if (lock->queue != NULL) hf__advisory_leave(lock);
    note(lock, news);
}

static void end_open(hf_pg_lock *lock, uint32_t news) {
    lock->state = HF__ADVISORY_ENDED;
    lock->queue = NULL;
    lock->own = NULL;
    lock->advisory->n_open--;
    hf__list_remove(&lock->all);
    note(lock, news);
}

void hf__advisory_lost(hf_pg_lock *lock, const hf_error *error) {
    assert(lock->state == HF__ADVISORY_HELD);
    keep_failure(lock, error);
    end_open(lock, HF__NEWS_LOST);
}

void hf__advisory_released(hf_pg_lock *lock, uint32_t news) {
    assert(lock->state == HF__ADVISORY_RELEASING);
    end_open(lock, news);
}

/* ---------------------------------------------------------------- telling */

static void explain_time_out(const hf_pg_lock *lock, uint32_t news, hf_error *error) {
    shown_id id = show_id(&lock->id);

    hf__error_set(error, HF_ETIMEDOUT, HF_RETRYABLE,
                  "the advisory lock %s was not free within %" PRIu64 " ms%s", id.text,
                  lock->wait_ms, news & HF__NEWS_HELD_HERE ? ": held by this process" : "");
}

static void explain_refusal(const hf_pg_lock *lock, uint32_t news, hf_error *error) {
    if (news & HF__NEWS_TIMED_OUT)
        explain_time_out(lock, news, error);
    else if (news & HF__NEWS_CANCELLED)
        hf__error_set(error, HF_ECANCELED, 0, NULL);
    else if (news & HF__NEWS_CLOSED)
        hf__error_set(error, HF_ECLOSED, 0, NULL);
    else if (lock->failure != NULL)
        *error = *lock->failure;
    else
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    /* A lock whose session is gone is nobody's: nothing is in doubt. */
    error->flags &= ~HF_OUTCOME_UNKNOWN;
}

static void tell_answer(hf_pg_lock *lock, uint32_t news) {
    hf_error error;
    hf_pg_lock_result result = {.held_here = (news & HF__NEWS_HELD_HERE) != 0,
                                .waited_ms = (hf__advisory_now(lock->advisory) - lock->asked_ns) /
                                             HF_NS_PER_MS};

    uncount(lock);
    if (lock->freed) return;
    if (news & HF__NEWS_REFUSALS) {
        explain_refusal(lock, news, &error);
        result.error = &error;
    }
    lock->acquired(lock->data, lock, &result);
}

static void tell_loss(hf_pg_lock *lock) {
    shown_id id = show_id(&lock->id);
    const hf_error *failure = lock->failure;
    hf_error error;

    if (lock->freed || lock->lost == NULL) return;
    hf__error_set(&error, HF_ELOST, 0,
                  "the advisory lock %s was lost with its session: %.140s; to go on, lock it again",
                  id.text, failure != NULL ? failure->message : "memory is out");
    if (failure != NULL) memcpy(error.state, failure->state, sizeof error.state);
    lock->lost(lock->data, lock, &error);
}

static void explain_release(const hf_pg_lock *lock, uint32_t news, hf_error *error) {
    shown_id id = show_id(&lock->id);

    hf__error_clear(error);
    if (news & HF__NEWS_NOT_HAD)
        hf__error_set(
            error, HF_ELOST, 0,
            "the advisory lock %s was not there any more when it was released: the server "
            "says that this session did not have it",
            id.text);
    else if (news & HF__NEWS_IN_DOUBT)
        hf__error_set(error, HF_EUNAVAIL, HF_OUTCOME_UNKNOWN,
                      "the session ended while the advisory lock %s was released: at the latest it "
                      "is free when the server notices that",
                      id.text);
}

static void tell_release(hf_pg_lock *lock, uint32_t news) {
    hf_error error;

    uncount(lock);
    if (lock->freed || lock->released == NULL) return;
    explain_release(lock, news, &error);
    lock->released(lock->released_data, lock, (news & HF__NEWS_RELEASED) != 0,
                   error.code != HF_OK ? &error : NULL);
}

static void tell_lock(hf_pg_lock *lock) {
    uint32_t news = lock->news;

    lock->news = 0;
    lock->refs++;
    if (news & (HF__NEWS_ACQUIRED | HF__NEWS_REFUSALS)) tell_answer(lock, news);
    if (news & HF__NEWS_LOST) tell_loss(lock);
    if (news & (HF__NEWS_RELEASED | HF__NEWS_NOT_HAD | HF__NEWS_IN_DOUBT)) tell_release(lock, news);
    if (lock->state == HF__ADVISORY_ENDED && lock->news == 0 && lock->advisory != NULL) {
        lock->advisory = NULL;
        unref(lock);
    }
    unref(lock);
}

static void warn_not_had(hf__advisory *a) {
    shown_id id = show_id(&a->not_had);
    hf_error error;

    a->warns = false;
    hf__error_set(
        &error, HF_ELOST, 0,
        "the advisory lock %s was not there any more when it was unlocked: the server says "
        "that this session did not have it",
        id.text);
    if (a->env.warn != NULL) a->env.warn(a->env.warn_data, &error);
}

/* Only what there is now: who is told may ask for more, which is for the next turn. */
void hf__advisory_tell(hf__advisory *a) {
    hf__node batch;
    hf__node *node;

    if (a->warns) warn_not_had(a);
    hf__list_init(&batch);
    hf__list_append(&batch, &a->news);
    while ((node = hf__list_pop(&batch)) != NULL)
        tell_lock(hf__of(node, hf_pg_lock, told));
    hf__advisory_settle(a);
}

static void on_idle(uv_idle_t *idle) {
    hf__advisory *a = hf__of(idle, hf__advisory, idle);
    hf__scope *scope = a->env.scope;

    uv_idle_stop(idle);
    hf__scope_enter(scope);
    hf__advisory_pump(a);
    hf__advisory_tell(a);
    hf__scope_leave(scope);
}

static void open_handles(hf__advisory *a) {
    if (a->has_handles) return;
    a->has_handles = true;
    a->n_handles++;
    uv_idle_init(a->env.loop, &a->idle);
    uv_unref((uv_handle_t *)&a->idle);
}

void hf__advisory_wake(hf__advisory *a) {
    if (a->phase == HF__ADVISORY_CLOSING) return;
    open_handles(a);
    uv_idle_start(&a->idle, on_idle); /* does nothing when it runs already */
}

/* ---------------------------------------------------------------- waiting */

static void stop_waiting(hf_pg_lock *lock, uint32_t news, const hf_error *error) {
    hf__advisory_queue *q = lock->queue;

    hf__advisory_refused(lock, news, error);
    if (q != NULL) hf__advisory_look(q);
}

static void on_timer(hf__timer *timer) {
    hf_pg_lock *lock = hf__of(timer, hf_pg_lock, timer);
    hf__advisory *a = lock->advisory;
    const hf_error *why = NULL;
    hf_error error;
    uint32_t news =
        lock->own != NULL ? hf__own_reason(lock, &why) : hf__advisory_reason(lock, &why);

    /* Without the first answer nobody can say that it is held. */
    if (news == 0 && !lock->graced) {
        lock->graced = true;
        hf__advisory_timer(a, &lock->timer, hf__add_ms(hf__advisory_now(a), GRACE_MS));
        return;
    }
    if (news == 0) {
        hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE,
                      "PostgreSQL did not answer in time when asked for an advisory lock");
        why = &error;
        news = HF__NEWS_FAILED;
    }
    stop_waiting(lock, news, why);
    hf__advisory_tell(a);
}

static hf_pg_lock *lock_new(hf__advisory *a, const hf_pg_lock_options *options) {
    hf_pg_lock *lock = hf__zalloc(a->env.allocator, sizeof *lock);

    if (lock == NULL) return NULL;
    lock->allocator = *a->env.allocator;
    lock->advisory = a;
    lock->refs = 2;
    lock->shared = options->shared;
    lock->id = options->id;
    lock->wait_ms = options->wait_ms;
    lock->asked_ns = hf__advisory_now(a);
    lock->until_ns = hf__add_ms(lock->asked_ns, lock->wait_ms);
    lock->timer.fire = on_timer;
    hf__list_init(&lock->node);
    hf__list_init(&lock->told);
    hf__list_push(&a->locks, &lock->all);
    a->n_waiting++;
    return lock;
}

/* One that was never told of. */
static void lock_undo(hf_pg_lock *lock) {
    lock->advisory->n_waiting--;
    hf__list_remove(&lock->all);
    hf__free(&lock->allocator, lock);
}

hf_code hf__advisory_acquire(hf__advisory *a, const hf_pg_lock_options *options,
                             void (*acquired)(void *data, hf_pg_lock *lock,
                                              const hf_pg_lock_result *result),
                             void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                             void *data, hf_pg_lock **out, hf_error *error) {
    hf_pg_lock *lock;

    assert(a->phase == HF__ADVISORY_OPEN);
    if (a->n_waiting >= HF__ADVISORY_WAITING_MAX ||
        (options->dedicated && a->n_owns >= HF__ADVISORY_OWN_MAX))
        return hf__error_set(error, HF_EOVERLOAD, HF_RETRYABLE,
                             "%u callers wait for advisory locks of this client, and %u sessions "
                             "are dedicated to one; wait for some of them first",
                             a->n_waiting, a->n_owns);
    lock = lock_new(a, options);
    if (lock == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    if (!(options->dedicated ? hf__own_start(lock) : hf__advisory_join(lock))) {
        lock_undo(lock);
        return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    }
    lock->acquired = acquired;
    lock->lost = lost;
    lock->data = data;
    count(lock);
    if (lock->state == HF__ADVISORY_WAITING && lock->wait_ms != 0)
        hf__advisory_timer(a, &lock->timer, lock->until_ns);
    *out = lock;
    return HF_OK;
}

void hf_pg_lock_cancel(hf_pg_lock *lock) {
    if (lock->state == HF__ADVISORY_WAITING) stop_waiting(lock, HF__NEWS_CANCELLED, NULL);
}

/* ---------------------------------------------------------------- holding */

bool hf_pg_lock_held(hf_pg_lock *lock) {
    if (lock->state != HF__ADVISORY_HELD) return false;
    if (lock->own != NULL) return hf__own_holds(lock);
    return hf__anchor_holds(&lock->advisory->anchor);
}

hf_code hf_pg_lock_release(hf_pg_lock *lock,
                           void (*cb)(void *data, hf_pg_lock *lock, bool was_held,
                                      const hf_error *error),
                           void *data) {
    if (!hf_pg_lock_held(lock)) return HF_ELOST;
    lock->state = HF__ADVISORY_RELEASING;
    lock->released = cb;
    lock->released_data = data;
    if (!lock->counts) count(lock);
    if (lock->own != NULL)
        hf__own_unlock(lock);
    else
        hf__advisory_unlock(lock);
    return HF_OK;
}

void hf_pg_lock_free(hf_pg_lock *lock) {
    lock->freed = true;
    if (lock->state == HF__ADVISORY_WAITING)
        stop_waiting(lock, HF__NEWS_CANCELLED, NULL);
    else if (lock->state == HF__ADVISORY_HELD)
        (void)hf_pg_lock_release(lock, NULL, NULL);
    unref(lock);
}

/* ---------------------------------------------------------------- life */

/* At most 25 ms, 50 ms and so on, at least half of that: those who lost the same server must not
 * all come back at once. */
uint64_t hf__advisory_pause_ns(const hf__advisory *a, uint32_t tries) {
    uint64_t high = tries > 6 ? PAUSE_MAX_MS : (uint64_t)PAUSE_MIN_MS << tries;

    if (high > PAUSE_MAX_MS) high = PAUSE_MAX_MS;
    return hf__add_ms(hf__advisory_now(a), hf__random_between(high / 2, high));
}

hf_code hf__advisory_new(hf_engine *engine, const hf__store_env *env, void (*closed)(void *data),
                         void *data, hf__advisory **out, hf_error *error) {
    hf__advisory *a = hf__zalloc(env->allocator, sizeof *a);

    if (a == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    a->engine = engine;
    a->env = *env;
    a->closed = closed;
    a->data = data;
    if (hf__pg_config_read(&a->config, &a->env, error) != HF_OK) {
        hf__free(env->allocator, a);
        return error->code;
    }
    hf__list_init(&a->locks);
    hf__list_init(&a->news);
    hf__advisory_batch_init(a);
    hf__own_init(a);
    *out = a;
    return HF_OK;
}

static void on_idle_closed(uv_handle_t *handle) {
    hf__advisory_let_go(hf__of(handle, hf__advisory, idle));
}

void hf__advisory_let_go(hf__advisory *a) {
    hf_allocator allocator = *a->env.allocator;
    void (*closed)(void *data) = a->closed;
    void *data = a->data;

    assert(a->n_handles > 0);
    if (--a->n_handles > 0 || a->phase != HF__ADVISORY_CLOSING) return;
    assert(hf__list_empty(&a->locks) && hf__list_empty(&a->news) && a->n_owns == 0);
    hf__map_fini(&a->queues);
    hf__free(&allocator, a->lister);
    hf__pg_config_fini(&a->config, &allocator);
    hf__free(&allocator, a);
    closed(data);
}

/* Also from within a call of the user's: nothing is told here. */
void hf__advisory_settle(hf__advisory *a) {
    if (a->phase != HF__ADVISORY_DRAINING || a->n_open > 0 || !hf__list_empty(&a->news)) return;
    a->phase = HF__ADVISORY_CLOSING;
    hf__advisory_batch_close(a);
    hf__own_close(a);
    hf__advisory_list_close(a);
    uv_close((uv_handle_t *)&a->idle, on_idle_closed);
}

void hf__advisory_drain(hf__advisory *a) {
    hf__node *next;

    assert(a->phase == HF__ADVISORY_OPEN);
    open_handles(a);
    a->phase = HF__ADVISORY_DRAINING;
    for (hf__node *node = a->locks.next; node != &a->locks; node = next) {
        hf_pg_lock *lock = hf__of(node, hf_pg_lock, all);

        next = node->next;
        if (lock->state == HF__ADVISORY_WAITING) stop_waiting(lock, HF__NEWS_CLOSED, NULL);
    }
    hf__advisory_wake(a);
}

void hf__advisory_force(hf__advisory *a) {
    hf_error error;

    if (a->phase != HF__ADVISORY_DRAINING) return;
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    if (a->session != NULL) hf__pg_session_fail(a->session, &error);
    hf__own_close(a);
    hf__advisory_list_close(a);
    hf__advisory_wake(a);
}
