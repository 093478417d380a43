/*
 * Locks: waiting in order and taking. What is held is hold.c's.
 *
 * Callbacks never run inside a call of the user's: what is known at once is told from the lock's
 * timer, in the next turn.
 */
#include "prim/lock.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define GRACE_MS 1000  /* how long past its wait a first attempt may be under way */
#define POLL_LOW_MS 25 /* between attempts where the store cannot tell of a release */
#define POLL_HIGH_MS 75
#define SLACK_MS 5 /* past a holder's end, so that one look is enough */

static void on_timer(hf__timer *timer);
static void on_take(hf_op *op);

/* ---------------------------------------------------------------- references */

void hf__lock_ref(hf_lock *lock) {
    lock->refs++;
}

void hf__lock_unref(hf_lock *lock) {
    assert(lock->refs > 0);
    if (--lock->refs > 0) return;
    assert(lock->state == HF__ENDED && lock->wait == NULL);
    hf_allocator allocator = lock->allocator;
    hf__free(&allocator, lock->votes);
    hf__free(&allocator, lock);
}

static void forget_refused(hf__wait *wait) {
    hf__attempt *attempt = wait->refused;
    wait->refused = NULL;
    if (attempt != NULL) hf__attempt_free(attempt);
}

/* Waiting is over: nothing of it is under way any more. */
static void wait_free(hf_lock *lock) {
    hf__wait *wait = lock->wait;
    assert(wait->attempt == NULL && !hf__timer_active(&wait->timer));
    forget_refused(wait);
    lock->wait = NULL;
    hf__free(&lock->allocator, wait->failure);
    hf__free(&lock->allocator, wait);
}

/* ---------------------------------------------------------------- telling */

/* A refused attempt may have left a mark in its token's name. It goes when nobody tries any
 * more. */
static void drop_mark(hf_lock *lock) {
    if (lock->wait->marked) hf__attempt_forget(lock); /* without memory it lapses */
    lock->wait->marked = false;
}

/* Its caller has its answer, and the store its own. */
static void leave_queues(hf_lock *lock) {
    drop_mark(lock);
    forget_refused(lock->wait);
    hf__queues_leave(lock);
    wait_free(lock);
}

/* Ends waiting without a lock. An attempt that is under way keeps its place until it is
 * answered. */
static void end_waiting(hf_lock *lock, const hf_error *error) {
    hf_client *client = hf__lock_client(lock);
    hf__wait *wait = lock->wait;
    const hf_holder *holder =
        wait->refused != NULL ? &wait->refused->holder : hf__queues_known_holder(lock);
    hf_holder copy;
    hf_error told = *error; /* it may lie in what goes */
    hf_lock_result result = {.error = &told,
                             .held_here = hf__queues_held_here(lock),
                             .waited_ms = (hf__client_now(client) - wait->asked_ns) / HF_NS_PER_MS,
                             .votes = lock->votes,
                             .n_votes = lock->n_votes};
    assert(lock->state == HF__WAITING);
    if (holder != NULL) {
        copy = *holder;
        result.holder = &copy;
    }
    void (*acquired)(void *, hf_lock *, const hf_lock_result *) = wait->acquired;
    wait->acquired = NULL;
    lock->state = HF__ENDED;
    client->n_waiting--;
    hf__list_remove(&wait->waiter.node);
    hf__timer_stop(&client->engine->timers, &wait->timer);
    hf__lock_ref(lock);
    hf__client_hold(client);
    if (wait->attempt != NULL)
        client->vt->cancel(client->store, &wait->attempt->op);
    else
        leave_queues(lock);
    if (acquired != NULL) acquired(lock->data, lock, &result);
    hf__lock_unref(lock);
    hf__client_end(client);
    hf__client_unhold(client);
}

static void end_cancelled(hf_lock *lock) {
    hf_error error;
    hf__error_set(&error, HF_ECANCELED, 0, NULL);
    end_waiting(lock, &error);
}

static void time_out(hf_lock *lock) {
    hf_error error;
    const hf__wait *wait = lock->wait;
    const hf_slice *key = &lock->lease.keys[0];
    const hf__more more = hf__lock_more(lock);
    if (wait->failed != HF_OK) {
        hf__error_set(&error, wait->failed, 0, NULL);
        end_waiting(lock, wait->failure != NULL ? wait->failure : &error);
        return;
    }
    if (wait->attempt != NULL && wait->refused == NULL) {
        hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE,
                      "the %s store did not answer in time when asked for the lock \"%.*s\"%s",
                      hf__lock_client(lock)->vt->name, hf__shown(*key), key->data, more.text);
    } else {
        hf__error_set(&error, HF_ETIMEDOUT, HF_RETRYABLE,
                      "the lock \"%.*s\"%s was not free within %llu ms", hf__shown(*key), key->data,
                      more.text, (unsigned long long)wait->wait_ms);
    }
    end_waiting(lock, &error);
}

/* ---------------------------------------------------------------- waiting */

static void sleep_until_next(hf_lock *lock) {
    hf__wait *wait = lock->wait;
    uint64_t at = wait->retry_ns < wait->until_ns ? wait->retry_ns : wait->until_ns;
    hf__client_timer(hf__lock_client(lock), &wait->timer, at);
}

/* Tries again after `ms`, or sooner when told. */
static void sleep_ms(hf_lock *lock, uint64_t ms) {
    lock->wait->retry_ns = hf__add_ms(hf__client_now(hf__lock_client(lock)), ms);
    sleep_until_next(lock);
}

/* Asks for a look at the lock in the next turn. */
static void look_soon(hf_lock *lock) {
    hf__client_timer(hf__lock_client(lock), &lock->wait->timer, 0);
}

/* Keeps why the last attempt got no answer, for when the wait ends. Without memory for the whole
 * of it, the code alone. */
static void note_failure(hf_lock *lock, const hf_error *error) {
    hf__wait *wait = lock->wait;
    wait->failed = error->code;
    if (wait->failure == NULL) wait->failure = hf__alloc(&lock->allocator, sizeof(*wait->failure));
    if (wait->failure != NULL) *wait->failure = *error;
    forget_refused(wait);
}

static void clear_failure(hf_lock *lock) {
    lock->wait->failed = HF_OK;
    hf__free(&lock->allocator, lock->wait->failure);
    lock->wait->failure = NULL;
}

static void fail_later(hf_lock *lock, hf_code code, const char *why) {
    hf_error error;
    hf__error_set(&error, code, 0, why != NULL ? "%s" : NULL, why);
    note_failure(lock, &error);
    lock->wait->until_ns = 0;
    look_soon(lock);
}

/* What a take asks for, beside what every attempt carries. */
static void fill_take(hf_lock *lock, hf__attempt *attempt) {
    hf__wait *wait = lock->wait;
    const hf_engine *engine = hf__lock_client(lock)->engine;
    hf_op *op = &attempt->op;
    op->limit = lock->limit;
    op->note = wait->note;
    op->who = (hf_slice){engine->who, strlen(engine->who)};
    op->holder = &attempt->holder;
    if (wait->wait_ms != 0) op->flags |= HF_OP_WAIT;
    /* Only readers in the way make a mark useful: an exclusive holder keeps readers out by
     * itself. */
    if (lock->limit == 1 && wait->refused != NULL && wait->refused->holder.limit > 1) {
        op->flags |= HF_OP_INTENT;
        wait->marked = true;
    }
}

/* A take with a new token, but for the first time. NULL, and `code` says why. */
static hf__attempt *new_take(hf_lock *lock, hf_code *code) {
    *code = HF_EIO;
    if (lock->wait->rounds > 0 &&
        !hf__engine_token(hf__lock_client(lock)->engine, &lock->lease.token))
        return NULL;
    *code = HF_ENOMEM;
    hf__attempt *attempt = hf__attempt_new(lock, HF_TAKE, on_take);
    if (attempt != NULL) fill_take(lock, attempt);
    return attempt;
}

static void send_take(hf_lock *lock, hf__attempt *attempt) {
    hf__wait *wait = lock->wait;
    attempt->watched = hf__queues_watched(lock) || (wait->rounds > 0 && hf__queues_watch(lock));
    wait->rounds++;
    wait->attempt = attempt;
    wait->retry_ns = HF_FOREVER;
    if (wait->wait_ms != 0) sleep_until_next(lock);
    hf__client_submit(hf__lock_client(lock), &attempt->op);
}

/* Goes to the store, to take over what `from` holds unless that is NULL. The mark of the last
 * attempt goes right behind this one, so that readers find no gap between the two. */
static hf__attempt *start_take(hf_lock *lock, hf_lock *from, hf_code *code) {
    hf__attempt *mark =
        lock->wait->marked ? hf__attempt_new(lock, HF_DROP, hf__attempt_done) : NULL;
    lock->wait->marked = false;
    hf__attempt *attempt = new_take(lock, code);
    if (attempt != NULL && from != NULL) {
        attempt->op.replace_token = from->lease.token;
        attempt->from = from;
        hf__lock_ref(from);
    }
    if (attempt != NULL) send_take(lock, attempt);
    if (mark != NULL) hf__client_submit(hf__lock_client(lock), &mark->op);
    return attempt;
}

hf__attempt *hf__lock_take_over(hf_lock *lock, hf_lock *from) {
    hf_code code;
    return start_take(lock, from, &code);
}

void hf__lock_try(hf_lock *lock) {
    if (lock->state != HF__WAITING || lock->wait->cancelled || lock->wait->attempt != NULL ||
        !hf__queues_ready(lock))
        return;
    hf_code code;
    if (start_take(lock, NULL, &code) != NULL) return;
    fail_later(lock, code, code == HF_EIO ? "the system has no randomness to give" : NULL);
}

void hf__lock_hint(hf_lock *lock) {
    if (lock->wait->attempt != NULL)
        lock->wait->attempt->hinted = true;
    else
        hf__lock_try(lock);
}

static void on_timer(hf__timer *timer) {
    hf__wait *wait = hf__of(timer, hf__wait, timer);
    hf_lock *lock = wait->lock;
    uint64_t now = hf__client_now(hf__lock_client(lock));
    assert(lock->state == HF__WAITING);
    if (now < wait->until_ns) {
        hf__lock_try(lock);
        if (wait->attempt != NULL) return;
        wait->retry_ns = HF_FOREVER; /* not its turn: who is ahead will wake it */
        sleep_until_next(lock);
        return;
    }
    /* A first attempt is given a moment more: without its answer nobody can say that the key is
     * held. */
    if (wait->attempt != NULL && wait->refused == NULL && !wait->graced) {
        wait->graced = true;
        wait->until_ns = hf__add_ms(now, GRACE_MS);
        sleep_until_next(lock);
        return;
    }
    time_out(lock);
}

static void stop_waiting(hf__waiter *waiter) {
    hf_error error;
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    end_waiting(hf__of(waiter, hf__wait, waiter)->lock, &error);
}

/* ---------------------------------------------------------------- the answer to a take */

static void granted(hf_lock *lock, hf__attempt *attempt) {
    hf_client *client = hf__lock_client(lock);
    hf__wait *wait = lock->wait;
    bool awaited = attempt->op.awaited;
    if (attempt->parted || !hf__lock_hold(lock, attempt)) {
        hf__attempt_undo(attempt, false);
        if (wait->wait_ms == 0)
            fail_later(lock, HF_EUNAVAIL, "the store granted the lock too late to hold it");
        else
            look_soon(lock);
        return;
    }
    hf_lock_result result = {.waited_ms = (hf__client_now(client) - wait->asked_ns) / HF_NS_PER_MS};
    void (*acquired)(void *, hf_lock *, const hf_lock_result *) = wait->acquired;
    client->n_waiting--;
    hf__list_remove(&wait->waiter.node);
    hf__timer_stop(&client->engine->timers, &wait->timer);
    hf__lock_ref(lock);
    wait_free(lock);
    hf__attempt_free(attempt);
    hf__queues_hold(lock, awaited);
    hf__queues_next(lock);
    if (acquired != NULL) acquired(lock->data, lock, &result);
    hf__lock_unref(lock);
    hf__client_end(client);
}

/* How long to sleep at most, watched: a mark that lapsed would let readers in who came later, one
 * after the other. */
static uint64_t longest_ms(const hf_lock *lock) {
    if (!lock->wait->marked) return HF_FOREVER;
    return (lock->ttl_ms < HF__INTENT_MS ? lock->ttl_ms : HF__INTENT_MS) / 2;
}

/* When a lock that was refused is tried again, unless it is told to sooner. */
static void retry_refused(hf_lock *lock, const hf__attempt *attempt) {
    const hf_client *client = hf__lock_client(lock);
    hf__wait *wait = lock->wait;
    uint64_t left_ms = attempt->op.left_ms;
    if (attempt->hinted || (!attempt->watched && client->vt->watch != NULL && wait->rounds == 1)) {
        wait->retry_ns = 0; /* now that it is watched, what came before the watch shows */
        look_soon(lock);
    } else if (attempt->watched) {
        uint64_t ms = left_ms + hf__random_between(1, SLACK_MS);
        uint64_t most_ms = longest_ms(lock);
        sleep_ms(lock, ms < most_ms ? ms : most_ms);
    } else {
        uint64_t poll_ms = hf__random_between(POLL_LOW_MS, POLL_HIGH_MS);
        sleep_ms(lock, left_ms < poll_ms ? left_ms + 1 : poll_ms);
    }
}

static void refused(hf_lock *lock, hf__attempt *attempt) {
    hf__wait *wait = lock->wait;
    wait->failures = 0;
    clear_failure(lock);
    if (attempt->op.refused == HF_REFUSED_OWNER) {
        /* There was nothing to take over any more: it asks like everybody else. */
        hf__attempt_free(attempt);
        wait->retry_ns = 0;
        look_soon(lock);
        return;
    }
    forget_refused(wait);
    wait->refused = attempt;
    hf__queues_refused(lock, true);
    if (wait->wait_ms == 0) {
        wait->until_ns = 0;
        look_soon(lock);
    } else {
        retry_refused(lock, attempt);
    }
}

static void failed(hf_lock *lock, hf__attempt *attempt) {
    hf_error error = attempt->op.error;
    bool unknown = (error.flags & HF_OUTCOME_UNKNOWN) != 0;
    if (unknown)
        hf__attempt_undo(attempt, true);
    else
        hf__attempt_free(attempt);
    note_failure(lock, &error);
    hf__queues_refused(lock, false);
    if (lock->wait->wait_ms == 0 || !(error.flags & HF_RETRYABLE)) {
        end_waiting(lock, &error);
        return;
    }
    sleep_ms(lock, hf__backoff_ms(lock->wait->failures++, 25));
}

/* Its caller does not want it any more. */
static void orphaned(hf_lock *lock, hf__attempt *attempt) {
    const hf_op *op = &attempt->op;
    bool unknown = (op->error.flags & HF_OUTCOME_UNKNOWN) != 0;
    /* Before the queues move: whoever is next goes to the store right behind the drop. */
    if (unknown || (op->error.code == HF_OK && op->applied))
        hf__attempt_undo(attempt, unknown);
    else
        hf__attempt_free(attempt);
    if (lock->state == HF__WAITING)
        end_cancelled(lock);
    else
        leave_queues(lock);
}

static void on_take(hf_op *op) {
    hf__attempt *attempt = op->data;
    hf_lock *lock = attempt->lock;
    hf_client *client = hf__lock_client(lock);
    hf__released news;
    hf__lock_note_votes(lock, op);
    hf__lock_ref(lock);
    hf__client_hold(client);
    lock->wait->attempt = NULL;
    hf__list_remove(&attempt->node); /* of client->sent: it has come back */
    news.lock = NULL;
    if (attempt->from != NULL) hf__lock_handed_over(attempt, &news);
    if (lock->state != HF__WAITING || lock->wait->cancelled)
        orphaned(lock, attempt);
    else if (op->error.code != HF_OK)
        failed(lock, attempt);
    else if (op->applied)
        granted(lock, attempt);
    else
        refused(lock, attempt);
    if (news.lock != NULL) hf__lock_tell(&news);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

/* ---------------------------------------------------------------- acquire */

static hf_code check_limit(const hf_client *client, uint32_t limit, hf_error *error) {
    uint32_t caps = client->store->caps;
    bool counted = limit != 1 && limit != HF_SHARED;
    if (counted && (caps & HF_CAP_SHARED) && !(caps & HF_CAP_PERMITS))
        return hf__error_set(
            error, HF_ENOTSUP, 0,
            "the %s store cannot count permits: each node would admit so many, and "
            "majorities of nodes more than that together",
            client->vt->name);
    if (!(caps & HF_CAP_LEASES) || (limit != 1 && !(caps & HF_CAP_SHARED)) ||
        (counted && !(caps & HF_CAP_PERMITS)))
        return hf__error_set(error, HF_ENOTSUP, 0, "the %s store has no such locks",
                             client->vt->name);
    return HF_OK;
}

static hf_code check_options(const hf_client *client, const hf_lock_options *o, hf_error *error) {
    if (o->n_keys < 1 || o->n_keys > HF_KEYS_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a lock has 1 to %d keys; this one has %zu",
                             HF_KEYS_MAX, o->n_keys);
    for (size_t i = 0; i < o->n_keys; i++) {
        if (hf__check_key(o->keys[i], error) != HF_OK) return error->code;
        for (size_t j = 0; j < i; j++)
            if (hf__slice_equal(o->keys[i], o->keys[j]))
                return hf__error_set(error, HF_EINVAL, 0, "the key \"%.*s\" is given twice",
                                     hf__shown(o->keys[i]), o->keys[i].data);
    }
    if (o->ttl_ms < HF_TTL_MIN || o->ttl_ms > client->store->max_ttl_ms)
        return hf__error_set(error, HF_EINVAL, 0, "ttl is %d to %llu ms", HF_TTL_MIN,
                             (unsigned long long)client->store->max_ttl_ms);
    if (o->max_hold_ms < HF_TTL_MIN)
        return hf__error_set(error, HF_EINVAL, 0, "maxHold is at least %d ms", HF_TTL_MIN);
    if (o->max_stall_ms == 0)
        return hf__error_set(error, HF_EINVAL, 0, "maxStall is at least 1 ms");
    if (o->limit == 0) return hf__error_set(error, HF_EINVAL, 0, "permits is at least 1");
    if (o->note.len > HF_NOTE_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a note has up to %d bytes", HF_NOTE_MAX);
    return check_limit(client, o->limit, error);
}

/* One allocation, but for what waiting needs. */
static hf_lock *lock_new(hf_client *client, const hf_lock_options *o) {
    const hf_allocator *allocator = &client->engine->allocator;
    size_t bytes = o->note.len;
    for (size_t i = 0; i < o->n_keys; i++)
        bytes += o->keys[i].len;
    size_t places = o->n_keys * sizeof(hf__place);
    size_t slices = o->n_keys * sizeof(hf_slice);
    hf_lock *lock = hf__zalloc(allocator, sizeof(*lock) + places + slices + bytes);
    if (lock == NULL) return NULL;
    lock->wait = hf__zalloc(allocator, sizeof(*lock->wait));
    if (lock->wait == NULL) {
        hf__free(allocator, lock);
        return NULL;
    }
    hf_slice *keys = (hf_slice *)(void *)((char *)lock->places + places);
    char *p = (char *)keys + slices;
    for (size_t i = 0; i < o->n_keys; i++) {
        memcpy(p, o->keys[i].data, o->keys[i].len);
        keys[i] = (hf_slice){p, o->keys[i].len};
        p += o->keys[i].len;
        lock->places[i].lock = lock;
        hf__list_init(&lock->places[i].node);
    }
    if (o->note.len > 0) memcpy(p, o->note.data, o->note.len);
    lock->wait->note = (hf_slice){p, o->note.len};
    lock->lease.keys = keys;
    lock->lease.n_keys = (uint8_t)o->n_keys;
    return lock;
}

static void fill(hf_lock *lock, hf_client *client, const hf_lock_options *o) {
    hf__lease *lease = &lock->lease;
    hf__wait *wait = lock->wait;
    hf__lease_init(lease);
    lease->space = HF_LEASES;
    lease->renew = o->renew;
    lease->link = &client->link;
    lease->max_stall_ms = o->max_stall_ms;
    lease->hold_end_ns = HF_FOREVER;
    lease->owner = &hf__lock_owner;
    lock->allocator = client->engine->allocator;
    lock->refs = 1;
    lock->limit = o->limit;
    lock->wants_votes = o->votes;
    lock->ttl_ms = o->ttl_ms;
    wait->lock = lock;
    wait->waiter.stop = stop_waiting;
    hf__list_init(&wait->waiter.node);
    wait->timer.fire = on_timer;
    wait->asked_ns = hf__client_now(client);
    wait->wait_ms = o->wait_ms;
    wait->until_ns = o->wait_ms == 0 ? HF_FOREVER : hf__add_ms(wait->asked_ns, o->wait_ms);
    wait->retry_ns = HF_FOREVER;
    wait->max_hold_ms = o->max_hold_ms;
}

/* A lock that is in its queues, or NULL with `error` set. */
static hf_lock *lock_make(hf_client *client, const hf_lock_options *o, hf_error *error) {
    hf_lock *lock = lock_new(client, o);
    if (lock == NULL) {
        hf__error_set(error, HF_ENOMEM, 0, NULL);
        return NULL;
    }
    fill(lock, client, o);
    bool random = hf__engine_token(client->engine, &lock->lease.token);
    if (random && hf__queues_join(lock)) return lock;
    if (random)
        hf__error_set(error, HF_ENOMEM, 0, NULL);
    else
        hf__error_set(error, HF_EIO, 0, "the system has no randomness to give");
    hf__free(&client->engine->allocator, lock->wait);
    hf__free(&client->engine->allocator, lock);
    return NULL;
}

hf_code hf_lock_acquire(hf_client *client, const hf_lock_options *options,
                        void (*acquired)(void *data, hf_lock *lock, const hf_lock_result *result),
                        void (*lost)(void *data, hf_lock *lock, const hf_error *why), void *data,
                        hf_lock **out, hf_error *error) {
    if (hf__client_accepts(client, error) != HF_OK ||
        check_options(client, options, error) != HF_OK)
        return error->code;
    if (client->n_waiting >= HF__WAITING_MAX || client->n_undos >= HF__UNDOS_MAX)
        return hf__error_set(error, HF_EOVERLOAD, HF_RETRYABLE,
                             "%u callers wait for locks of this client and %u takes are being "
                             "undone; wait for some of them first",
                             client->n_waiting, client->n_undos);
    if (options->renew && hf__client_need_keeper(client, error) != HF_OK) return error->code;
    hf_lock *lock = lock_make(client, options, error);
    if (lock == NULL) return error->code;
    hf__wait *wait = lock->wait;
    wait->acquired = acquired;
    lock->lost = lost;
    lock->data = data;
    hf__list_push(&client->waiting, &wait->waiter.node);
    client->n_waiting++;
    hf__client_begin(client);
    *out = lock;
    hf__lock_try(lock);
    if (wait->attempt != NULL || hf__timer_active(&wait->timer)) return HF_OK;
    if (wait->wait_ms == 0) {
        wait->until_ns = 0; /* somebody here is ahead: nothing is asked of the store */
        look_soon(lock);
    } else {
        sleep_until_next(lock);
    }
    return HF_OK;
}

static void on_cancelled(hf__timer *timer) {
    end_cancelled(hf__of(timer, hf__wait, timer)->lock);
}

void hf_lock_cancel(hf_lock *lock) {
    if (lock->state != HF__WAITING) return;
    lock->wait->cancelled = true;
    lock->wait->timer.fire = on_cancelled;
    look_soon(lock);
}

void hf_lock_free(hf_lock *lock) {
    lock->freed = true;
    lock->lost = NULL;
    if (lock->state == HF__WAITING) {
        lock->wait->acquired = NULL;
        end_cancelled(lock);
    } else if (lock->state == HF__HELD) {
        hf_lock_release(lock, NULL, NULL);
    }
    hf__lock_unref(lock);
}
