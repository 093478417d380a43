/*
 * Who is next for an id on the one session, and what the server is asked for it.
 *
 * A session's locks are counted there, and it is granted what it has already: the server does not
 * tell callers of one session apart. So it is asked for one lock of an id at a time, for the first
 * who waits here, and if that is a shared one, for all those behind him that are, too. What is let
 * go of here passes to the next without the server, for half a second in a row; then it is
 * unlocked, and not tried again for longer than others elsewhere sleep between two tries.
 */
#include "pg/advisory-parts.h"

#include <assert.h>
#include <string.h>

#define POLL_MIN_MS 5
#define POLL_MAX_MS 50
#define TURN_MS 500 /* how long an id stays here while others here wait for it */
#define REST_MS 55

static void on_retry(hf__timer *timer) {
    hf__advisory_look(hf__of(timer, hf__advisory_queue, retry));
}

/* ---------------------------------------------------------------- life */

static hf__advisory_queue *queue_get(hf__advisory *a, const hf_pg_id *id) {
    hf__advisory_queue *q;
    hf__advisory_queue wanted = {.key = {id->number, id->pair}};
    hf_slice key = {(const char *)&wanted.key, sizeof wanted.key};
    hf__map_node *node;

    if (id->pair)
        wanted.key.number =
            (int64_t)((uint64_t)(uint32_t)id->first << 32 | (uint64_t)(uint32_t)id->second);
    node = hf__map_get(&a->queues, key);
    if (node != NULL) return hf__of(node, hf__advisory_queue, node);
    q = hf__zalloc(a->env.allocator, sizeof *q);
    if (q == NULL) return NULL;
    q->key = wanted.key;
    if (!hf__map_insert(&a->queues, &q->node, (hf_slice){(const char *)&q->key, sizeof q->key})) {
        hf__free(a->env.allocator, q);
        return NULL;
    }
    q->advisory = a;
    q->retry.fire = on_retry;
    hf__list_init(&q->waiting);
    hf__list_init(&q->holding);
    hf__list_init(&q->releasing);
    hf__list_init(&q->work);
    return q;
}

static void forget_failure(hf__advisory_queue *q) {
    hf__free(q->advisory->env.allocator, q->failure);
    q->failure = NULL;
}

/* Goes when there is nothing any more that it is for. */
static void tidy(hf__advisory_queue *q) {
    hf__advisory *a = q->advisory;

    if (q->sent || q->in_doubt || q->have != HF__ADVISORY_NONE || !hf__list_empty(&q->waiting) ||
        !hf__list_empty(&q->releasing))
        return;
    assert(hf__list_empty(&q->holding));
    hf__list_remove(&q->work);
    hf__advisory_timer_stop(a, &q->retry);
    forget_failure(q);
    hf__map_remove(&a->queues, &q->node);
    hf__free(a->env.allocator, q);
}

/* ---------------------------------------------------------------- order */

static hf_pg_lock *lock_at(hf__node *node) {
    return hf__of(node, hf_pg_lock, node);
}

static hf_pg_lock *head_of(const hf__advisory_queue *q) {
    hf__node *node = hf__list_first(&q->waiting);

    return node != NULL ? lock_at(node) : NULL;
}

static hf__advisory_mode mode_of(const hf_pg_lock *lock) {
    return lock->shared ? HF__ADVISORY_SHARED : HF__ADVISORY_EXCLUSIVE;
}

static bool turn_is_over(const hf__advisory_queue *q) {
    return hf__advisory_now(q->advisory) >= hf__add_ms(q->turn_ns, TURN_MS);
}

/* Whether what the session has will do for the lock. Those who share may always join: who holds it
 * may be waiting for them. */
static bool can_hold(const hf__advisory_queue *q, const hf_pg_lock *lock) {
    if (q->sent || q->in_doubt || q->have != mode_of(lock)) return false;
    if (q->advisory->phase != HF__ADVISORY_OPEN) return false;
    if (q->n_holding > 0 ? !lock->shared : turn_is_over(q)) return false;
    return hf__anchor_holds(&q->advisory->anchor);
}

static void end_releasing(hf__advisory_queue *q, uint32_t news) {
    hf__node *node;

    while ((node = hf__list_pop(&q->releasing)) != NULL)
        hf__advisory_released(lock_at(node), news);
}

static void hold(hf__advisory_queue *q, hf_pg_lock *lock) {
    hf__list_remove(&lock->node);
    hf__list_push(&q->holding, &lock->node);
    q->n_holding++;
    hf__anchor_hold(&q->advisory->anchor);
    hf__advisory_granted(lock);
}

static void admit(hf__advisory_queue *q) {
    hf_pg_lock *lock;

    while ((lock = head_of(q)) != NULL && can_hold(q, lock))
        hold(q, lock);
    if (q->n_holding > 0) end_releasing(q, HF__NEWS_RELEASED);
}

/* Whether there is something to ask the server, or to tell it. */
static bool wants(const hf__advisory_queue *q) {
    if (q->sent) return false;
    if (q->in_doubt) return true;
    if (q->have != HF__ADVISORY_NONE) return q->n_holding == 0;
    return !hf__list_empty(&q->waiting) && !hf__timer_active(&q->retry);
}

void hf__advisory_look(hf__advisory_queue *q) {
    hf__advisory *a = q->advisory;

    admit(q);
    if (!wants(q)) {
        tidy(q);
        return;
    }
    if (q->queued) return;
    q->queued = true;
    hf__list_push(&a->work, &q->work);
    hf__advisory_wake(a);
}

/* ---------------------------------------------------------------- asking */

static int16_t op_of(const hf__advisory_queue *q, int what, hf__advisory_mode mode) {
    int shared = mode == HF__ADVISORY_SHARED ? HF__ADVISORY_OP_SHARED : 0;

    return (int16_t)(what + shared + (q->key.pair != 0 ? HF__ADVISORY_OP_PAIR : 0));
}

uint32_t hf__advisory_ops(hf__advisory_queue *q, int16_t ops[2]) {
    const hf_pg_lock *head = head_of(q);
    uint32_t n = 0;

    q->queued = false;
    q->tried = HF__ADVISORY_NONE;
    q->doubted = q->in_doubt;
    q->unlocked = q->rests = false;
    if (!wants(q)) {
        tidy(q);
        return 0;
    }
    q->sent = true;
    if (q->doubted) {
        ops[0] = op_of(q, HF__ADVISORY_OP_UNLOCK, HF__ADVISORY_EXCLUSIVE);
        ops[1] = op_of(q, HF__ADVISORY_OP_UNLOCK, HF__ADVISORY_SHARED);
        return 2;
    }
    if (q->have != HF__ADVISORY_NONE) {
        q->unlocked = true;
        q->rests = turn_is_over(q);
        ops[n++] = op_of(q, HF__ADVISORY_OP_UNLOCK, q->have);
    }
    if (head != NULL && !q->rests) {
        q->tried = mode_of(head);
        ops[n++] = op_of(q, HF__ADVISORY_OP_TRY, q->tried);
    }
    return n;
}

static void rest(hf__advisory_queue *q, uint64_t ms) {
    hf__advisory *a = q->advisory;

    hf__advisory_timer(a, &q->retry, hf__add_ms(hf__advisory_now(a), ms));
}

/* Those for whom the server was asked just now, and who do not wait. */
static void refuse_attempts(hf__advisory_queue *q, hf__advisory_mode mode, uint32_t news,
                            const hf_error *error) {
    hf__node *next;

    for (hf__node *node = q->waiting.next; node != &q->waiting; node = next) {
        hf_pg_lock *lock = lock_at(node);

        next = node->next;
        if (mode_of(lock) != mode) return;
        if (lock->wait_ms == 0) hf__advisory_refused(lock, news, error);
        if (mode == HF__ADVISORY_EXCLUSIVE) return;
    }
}

static void refused(hf__advisory_queue *q) {
    uint64_t high = q->polls > 3 ? POLL_MAX_MS : (uint64_t)POLL_MIN_MS << q->polls;

    q->polls++;
    rest(q, hf__random_between(high / 2 + 1, high));
    refuse_attempts(q, q->tried, HF__NEWS_TIMED_OUT, NULL);
}

static void granted(hf__advisory_queue *q) {
    q->have = q->tried;
    q->polls = 0;
    q->turn_ns = hf__advisory_now(q->advisory);
}

static void unlocked(hf__advisory_queue *q, bool had) {
    hf__advisory *a = q->advisory;
    uint64_t number = (uint64_t)q->key.number;

    q->have = HF__ADVISORY_NONE;
    if (!had && hf__list_empty(&q->releasing)) {
        a->warns = true;
        a->not_had = (hf_pg_id){.pair = q->key.pair != 0,
                                .number = q->key.number,
                                .first = (int32_t)(uint32_t)(number >> 32),
                                .second = (int32_t)(uint32_t)number};
    }
    end_releasing(q, had ? HF__NEWS_RELEASED : HF__NEWS_NOT_HAD);
}

void hf__advisory_answer(hf__advisory_queue *q, const bool *answers) {
    q->sent = false;
    if (q->doubted) {
        q->in_doubt = false;
        q->have = HF__ADVISORY_NONE;
        end_releasing(q, HF__NEWS_RELEASED);
        return;
    }
    if (q->unlocked) unlocked(q, *answers++);
    if (q->rests) rest(q, REST_MS);
    if (q->tried == HF__ADVISORY_NONE) return;
    q->answered_ns = hf__advisory_now(q->advisory);
    forget_failure(q);
    if (*answers)
        granted(q);
    else
        refused(q);
}

static void keep_failure(hf__advisory_queue *q, const hf_error *error) {
    const hf_allocator *allocator = q->advisory->env.allocator;

    if (q->failure == NULL) q->failure = hf__alloc(allocator, sizeof *q->failure);
    if (q->failure != NULL) *q->failure = *error;
}

static void refuse_all(hf__advisory_queue *q, const hf_error *error) {
    hf_pg_lock *lock;

    while ((lock = head_of(q)) != NULL)
        hf__advisory_refused(lock, HF__NEWS_FAILED, error);
}

/* How far the server has come before it failed nobody knows: what it took stays taken. */
void hf__advisory_failed(hf__advisory_queue *q, const hf_error *error) {
    q->sent = false;
    q->in_doubt = true;
    if (q->tried == HF__ADVISORY_NONE) return;
    if ((error->flags & HF_RETRYABLE) == 0) {
        refuse_all(q, error);
        return;
    }
    keep_failure(q, error);
    q->polls = 4;
    rest(q, POLL_MAX_MS);
    refuse_attempts(q, q->tried, HF__NEWS_FAILED, error);
}

/* ---------------------------------------------------------------- the end of the session */

static void cut(hf__advisory_queue *q, const hf_error *error, bool refuse) {
    hf__node *node;
    hf__node *next;

    hf__list_remove(&q->work); /* of a batch, too */
    q->queued = q->sent = q->in_doubt = false;
    q->have = HF__ADVISORY_NONE;
    hf__advisory_timer_stop(q->advisory, &q->retry);
    end_releasing(q, HF__NEWS_IN_DOUBT);
    while ((node = hf__list_pop(&q->holding)) != NULL) {
        q->n_holding--;
        hf__anchor_drop(&q->advisory->anchor);
        hf__advisory_lost(lock_at(node), error);
    }
    for (node = q->waiting.next; node != &q->waiting; node = next) {
        hf_pg_lock *lock = lock_at(node);

        next = node->next;
        if (refuse || lock->wait_ms == 0) hf__advisory_refused(lock, HF__NEWS_FAILED, error);
    }
    hf__advisory_look(q);
}

void hf__advisory_cut(hf__advisory *a, const hf_error *error, bool refuse) {
    hf__map_node *next;

    for (hf__map_node *node = hf__map_next(&a->queues, NULL); node != NULL; node = next) {
        next = hf__map_next(&a->queues, node);
        cut(hf__of(node, hf__advisory_queue, node), error, refuse);
    }
}

/* ---------------------------------------------------------------- in and out */

/* Whether the server is asked, now or in this very moment, for the lock too. */
static bool is_asked_for(const hf__advisory_queue *q, const hf_pg_lock *lock) {
    const hf_pg_lock *head = head_of(q);

    if (q->n_holding > 0 || hf__timer_active(&q->retry)) return false;
    if (head == lock) return true;
    for (hf__node *node = q->waiting.next; node != &lock->node; node = node->next) {
        if (!lock_at(node)->shared) return false;
    }
    return lock->shared;
}

bool hf__advisory_join(hf_pg_lock *lock) {
    hf__advisory_queue *q = queue_get(lock->advisory, &lock->id);

    if (q == NULL) return false;
    lock->queue = q;
    hf__list_push(&q->waiting, &lock->node);
    if (head_of(q) == lock && lock->wait_ms == 0) hf__advisory_timer_stop(q->advisory, &q->retry);
    hf__advisory_look(q);
    if (lock->state != HF__ADVISORY_WAITING || lock->wait_ms != 0 || is_asked_for(q, lock))
        return true;
    hf__advisory_refused(lock, HF__NEWS_TIMED_OUT | (q->n_holding > 0 ? HF__NEWS_HELD_HERE : 0u),
                         NULL);
    return true;
}

void hf__advisory_leave(hf_pg_lock *lock) {
    hf__advisory_queue *q = lock->queue;
    const hf_pg_lock *head = head_of(q);
    bool was_head = head == lock;

    lock->queue = NULL;
    hf__list_remove(&lock->node);
    /* That others have it says nothing of who wants something else. */
    if (was_head && (head = head_of(q)) != NULL && head->shared != lock->shared)
        hf__advisory_timer_stop(q->advisory, &q->retry);
}

void hf__advisory_unlock(hf_pg_lock *lock) {
    hf__advisory_queue *q = lock->queue;

    hf__list_remove(&lock->node);
    q->n_holding--;
    hf__anchor_drop(&q->advisory->anchor);
    hf__list_push(&q->releasing, &lock->node);
    if (q->n_holding > 0) end_releasing(q, HF__NEWS_RELEASED);
    hf__advisory_look(q);
}

uint32_t hf__advisory_reason(const hf_pg_lock *lock, const hf_error **error) {
    const hf__advisory_queue *q = lock->queue;
    const hf__advisory *a = q->advisory;

    *error = NULL;
    if (q->n_holding > 0) return HF__NEWS_TIMED_OUT | HF__NEWS_HELD_HERE;
    if (a->anchor.session == NULL && a->why.code != HF_OK) {
        *error = &a->why;
        return HF__NEWS_FAILED;
    }
    if (q->failure != NULL) {
        *error = q->failure;
        return HF__NEWS_FAILED;
    }
    if (head_of(q) == lock && q->answered_ns < lock->asked_ns) return 0;
    return HF__NEWS_TIMED_OUT;
}
