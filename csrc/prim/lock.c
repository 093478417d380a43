/*
 * Locks: waiting in order, taking, holding, losing, releasing.
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
static void on_extended(hf__lease *lease, hf__extend *extend);

/* ---------------------------------------------------------------- references */

void hf__lock_ref(hf_lock *lock) {
    lock->refs++;
}

static void forget_refused(hf_lock *lock) {
    hf__attempt *attempt = lock->refused;
    lock->refused = NULL;
    if (attempt != NULL) hf__attempt_free(attempt);
}

void hf__lock_unref(hf_lock *lock) {
    assert(lock->refs > 0);
    if (--lock->refs > 0) return;
    assert(lock->state == HF__ENDED && lock->attempt == NULL && lock->refused == NULL);
    hf_allocator allocator = lock->allocator;
    hf__free(&allocator, lock->failure);
    hf__free(&allocator, lock);
}

/* ---------------------------------------------------------------- telling */

/* Who is in the way, as far as this lock, or the one ahead of it that asks for both, was told. */
static const hf_holder *known_holder(const hf_lock *lock) {
    if (lock->refused != NULL) return &lock->refused->holder;
    if (!lock->queued) return NULL;
    const hf__node *first = hf__list_first(&lock->places[0].queue->waiting);
    const hf_lock *ahead = hf__of(first, hf__place, node)->lock;
    return ahead->refused != NULL ? &ahead->refused->holder : NULL;
}

/* Nobody waits for this drop. */
static void on_gone(hf_op *op) {
    hf__attempt_free(op->data);
}

/* A refused attempt may have left a mark in its token's name. It goes before another token
 * tries, and when nobody will. */
static void drop_mark(hf_lock *lock) {
    if (!lock->marked) return;
    lock->marked = false;
    hf__attempt *attempt = hf__attempt_new(lock, HF_DROP, on_gone);
    if (attempt != NULL) hf__client_submit(lock->client, &attempt->op);
}

/* Ends waiting without a lock. An attempt that is under way keeps its place until it is
 * answered. */
static void end_waiting(hf_lock *lock, const hf_error *error) {
    hf_client *client = lock->client;
    hf_lock_result result = {.error = error,
                             .holder = known_holder(lock),
                             .held_here = hf__queues_held_here(lock),
                             .waited_ms = (hf__client_now(client) - lock->asked_ns) / HF_NS_PER_MS};
    assert(lock->state == HF__WAITING);
    lock->state = HF__ENDED;
    client->n_waiting--;
    hf__list_remove(&lock->waiter.node);
    hf__timer_stop(&client->engine->timers, &lock->timer);
    hf__lock_ref(lock);
    hf__client_hold(client);
    if (lock->attempt != NULL) {
        client->vt->cancel(client->store, &lock->attempt->op);
    } else {
        drop_mark(lock);
        hf__queues_leave(lock);
    }
    if (lock->acquired != NULL) lock->acquired(lock->data, lock, &result);
    forget_refused(lock);
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
    const hf_slice *key = &lock->lease.keys[0];
    if (lock->failed != HF_OK) {
        hf__error_set(&error, lock->failed, 0, NULL);
        end_waiting(lock, lock->failure != NULL ? lock->failure : &error);
        return;
    }
    if (lock->attempt != NULL && lock->refused == NULL) {
        hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE,
                      "the %s store did not answer in time when asked for the lock \"%.*s\"",
                      lock->client->vt->name, hf__shown(*key), key->data);
    } else {
        hf__error_set(&error, HF_ETIMEDOUT, HF_RETRYABLE,
                      "the lock \"%.*s\" was not free within %llu ms", hf__shown(*key), key->data,
                      (unsigned long long)lock->wait_ms);
    }
    end_waiting(lock, &error);
}

/* ---------------------------------------------------------------- waiting */

static void sleep_until_next(hf_lock *lock) {
    uint64_t at = lock->retry_ns < lock->wait_ns ? lock->retry_ns : lock->wait_ns;
    hf__client_timer(lock->client, &lock->timer, at);
}

/* Tries again after `ms`, or sooner when told. */
static void sleep_ms(hf_lock *lock, uint64_t ms) {
    lock->retry_ns = hf__add_ms(hf__client_now(lock->client), ms);
    sleep_until_next(lock);
}

/* Asks for a look at the lock in the next turn. */
static void look_soon(hf_lock *lock) {
    hf__client_timer(lock->client, &lock->timer, 0);
}

static bool draw_token(hf_lock *lock) {
    if (lock->rounds == 0) return true; /* drawn when it was made */
    return hf_token_random(&lock->lease.token);
}

/* Keeps why the last attempt got no answer, for when the wait ends. Without memory for the whole
 * of it, the code alone. */
static void note_failure(hf_lock *lock, const hf_error *error) {
    lock->failed = error->code;
    if (lock->failure == NULL) lock->failure = hf__alloc(&lock->allocator, sizeof(*lock->failure));
    if (lock->failure != NULL) *lock->failure = *error;
    forget_refused(lock);
}

static void clear_failure(hf_lock *lock) {
    lock->failed = HF_OK;
    hf__free(&lock->allocator, lock->failure);
    lock->failure = NULL;
}

static void fail_later(hf_lock *lock, hf_code code, const char *why) {
    hf_error error;
    hf__error_set(&error, code, 0, why != NULL ? "%s" : NULL, why);
    note_failure(lock, &error);
    lock->wait_ns = 0;
    look_soon(lock);
}

static void start_attempt(hf_lock *lock) {
    hf_client *client = lock->client;
    drop_mark(lock);
    if (!draw_token(lock)) {
        fail_later(lock, HF_EIO, "the system has no randomness to give");
        return;
    }
    hf__attempt *attempt = hf__attempt_new(lock, HF_TAKE, on_take);
    if (attempt == NULL) {
        fail_later(lock, HF_ENOMEM, NULL);
        return;
    }
    hf_op *op = &attempt->op;
    op->limit = lock->limit;
    op->note = lock->note;
    op->who = (hf_slice){client->engine->who, strlen(client->engine->who)};
    op->holder = &attempt->holder;
    /* Only readers in the way make a mark useful: an exclusive holder keeps readers out by
     * itself. */
    if (lock->limit == 1 && lock->refused != NULL && lock->refused->holder.limit > 1) {
        op->flags |= HF_OP_INTENT;
        lock->marked = true;
    }
    attempt->watched = lock->rounds > 0 && hf__queues_watch(lock);
    lock->rounds++;
    lock->attempt = attempt;
    lock->retry_ns = HF_FOREVER;
    hf__queues_set_taking(lock, true);
    if (lock->wait_ms != 0) sleep_until_next(lock);
    hf__client_submit(client, op);
}

void hf__lock_try(hf_lock *lock) {
    if (lock->state != HF__WAITING || lock->cancelled || lock->attempt != NULL ||
        !hf__queues_ready(lock))
        return;
    start_attempt(lock);
}

void hf__lock_hint(hf_lock *lock) {
    if (lock->attempt != NULL)
        lock->attempt->hinted = true;
    else
        hf__lock_try(lock);
}

static void on_timer(hf__timer *timer) {
    hf_lock *lock = hf__of(timer, hf_lock, timer);
    uint64_t now = hf__client_now(lock->client);
    assert(lock->state == HF__WAITING);
    if (now < lock->wait_ns) {
        hf__lock_try(lock);
        if (lock->attempt != NULL) return;
        lock->retry_ns = HF_FOREVER; /* not its turn: who is ahead will wake it */
        sleep_until_next(lock);
        return;
    }
    /* A first attempt is given a moment more: without its answer nobody can say that the key is
     * held. */
    if (lock->attempt != NULL && lock->refused == NULL && !lock->graced) {
        lock->graced = true;
        lock->wait_ns = hf__add_ms(now, GRACE_MS);
        sleep_until_next(lock);
        return;
    }
    time_out(lock);
}

/* ---------------------------------------------------------------- holding */

static void tell_extensions(hf_lock *lock) {
    hf_error error;
    hf__error_set(&error, HF_ELOST, 0, NULL);
    hf__extension *extension;
    while ((extension = lock->extensions) != NULL) {
        lock->extensions = extension->next;
        if (extension->cb != NULL) extension->cb(extension->data, lock, &error);
        hf__free(&lock->allocator, extension);
        hf__client_end(lock->client);
    }
}

static void on_extensions_due(hf__timer *timer) {
    hf_lock *lock = hf__of(timer, hf_lock, timer);
    hf_client *client = lock->client;
    tell_extensions(lock);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

/* Ends holding: what the keeper does not answer any more is answered from the timer. */
static bool end_holding(hf_lock *lock, bool drop) {
    hf_client *client = lock->client;
    lock->state = HF__ENDED;
    hf__list_remove(&lock->waiter.node);
    bool was_joined = lock->lease.joined;
    bool held = hf__engine_end(client->engine, &lock->lease, drop);
    if (lock->lease.joined) {
        hf__lock_ref(lock); /* until the keeper lets go */
        hf__client_hold(client);
    } else if (was_joined && lock->extensions != NULL) {
        hf__lock_ref(lock);
        hf__client_hold(client);
        lock->timer.fire = on_extensions_due;
        look_soon(lock);
    }
    return held;
}

static void loss_error(const hf_lock *lock, hf__loss why, hf_error *error) {
    static const char *const reasons[] = {
        [HF__LOSS_DEADLINE] = "it could not be renewed before its time to live ended",
        [HF__LOSS_REFUSED] = "the store no longer has it: its data was lost, or it was removed",
        [HF__LOSS_HOLD] = "it has been held for maxHold",
        [HF__LOSS_STALL] = "the event loop was blocked for longer than maxStall",
        [HF__LOSS_CLOSED] = "the client was closed",
    };
    hf_slice key = lock->lease.keys[0];
    hf__error_set(error, HF_ELOST, 0, "the lock \"%.*s\" was lost: %s", hf__shown(key), key.data,
                  reasons[why == HF__LOSS_NONE ? HF__LOSS_DEADLINE : why]);
}

/* Lets a lost lease go. What the store may still have is dropped: by the keeper, where it knows
 * the lease (it already has where it was the one to end it), else from here. */
static void end_lost(hf_lock *lock, hf__loss why) {
    bool ours = why == HF__LOSS_DEADLINE || why == HF__LOSS_HOLD || why == HF__LOSS_CLOSED;
    hf__attempt *attempt = NULL;
    if (ours && !lock->lease.joined) attempt = hf__attempt_new(lock, HF_DROP, on_gone);
    end_holding(lock, ours);
    if (attempt != NULL) hf__client_submit(lock->client, &attempt->op);
    hf__queues_leave(lock);
}

static void on_lost(hf__lease *lease, hf__loss why) {
    hf_lock *lock = hf__of(lease, hf_lock, lease);
    hf_client *client = lock->client;
    hf_error error;
    if (lock->state != HF__HELD) return;
    hf__lock_ref(lock);
    hf__client_hold(client);
    end_lost(lock, why);
    loss_error(lock, why, &error);
    if (lock->lost != NULL) lock->lost(lock->data, lock, &error);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

/* The keeper has let go: as the owner told it, or, of a lock that counts as held here, as the
 * end of the process did (hf_engine_exit). */
static void on_left(hf__lease *lease) {
    hf_lock *lock = hf__of(lease, hf_lock, lease);
    hf_client *client = lock->client;
    lease->joined = false;
    if (lock->state == HF__HELD) {
        on_lost(lease, HF__LOSS_CLOSED);
        return;
    }
    tell_extensions(lock);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

/* The client is being closed and the time for holders is up. */
static void stop_holding(hf__waiter *waiter) {
    hf_lock *lock = hf__of(waiter, hf_lock, waiter);
    hf__lease_end(&lock->lease, HF__LOSS_CLOSED);
    on_lost(&lock->lease, HF__LOSS_CLOSED);
}

static void stop_waiting(hf__waiter *waiter) {
    hf_error error;
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    end_waiting(hf__of(waiter, hf_lock, waiter), &error);
}

/* The store has granted it. False if that came so late that it was never held. */
static bool hold(hf_lock *lock, hf__attempt *attempt) {
    hf_client *client = lock->client;
    hf__lease *lease = &lock->lease;
    lease->hold_end_ns = hf__add_ms(attempt->sent_ns, lock->max_hold_ms);
    if (!hf__engine_start(client->engine, lease, attempt->op.ttl_ms, attempt->sent_ns))
        return false;
    lock->state = HF__HELD;
    lock->fence = attempt->op.fence;
    client->n_waiting--;
    hf__list_remove(&lock->waiter.node);
    lock->waiter.stop = stop_holding;
    hf__list_push(&client->holding, &lock->waiter.node);
    hf__timer_stop(&client->engine->timers, &lock->timer);
    hf__queues_hold(lock);
    return true;
}

/* ---------------------------------------------------------------- the answer to a take */

static void granted(hf_lock *lock, hf__attempt *attempt) {
    hf_client *client = lock->client;
    if (attempt->parted || !hold(lock, attempt)) {
        hf__attempt_undo(attempt, false);
        if (lock->wait_ms == 0)
            fail_later(lock, HF_EUNAVAIL, "the store granted the lock too late to hold it");
        else
            look_soon(lock);
        return;
    }
    hf_lock_result result = {.waited_ms = (hf__client_now(client) - lock->asked_ns) / HF_NS_PER_MS};
    hf__lock_ref(lock);
    forget_refused(lock);
    hf__attempt_free(attempt);
    hf__queues_next(lock);
    if (lock->acquired != NULL) lock->acquired(lock->data, lock, &result);
    hf__lock_unref(lock);
    hf__client_end(client);
}

static void refused(hf_lock *lock, hf__attempt *attempt) {
    uint64_t left_ms = attempt->op.left_ms;
    bool again = attempt->hinted;
    bool watched = attempt->watched;
    forget_refused(lock);
    lock->refused = attempt;
    lock->failures = 0;
    clear_failure(lock);
    if (lock->wait_ms == 0) {
        lock->wait_ns = 0;
        look_soon(lock);
    } else if (again || (!watched && lock->client->vt->watch != NULL)) {
        lock->retry_ns = 0; /* now that it is watched, what came before the watch shows */
        look_soon(lock);
    } else if (watched) {
        sleep_ms(lock, left_ms + hf__random_between(1, SLACK_MS));
    } else {
        uint64_t poll_ms = hf__random_between(POLL_LOW_MS, POLL_HIGH_MS);
        sleep_ms(lock, left_ms < poll_ms ? left_ms + 1 : poll_ms);
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
    if (lock->wait_ms == 0 || !(error.flags & HF_RETRYABLE)) {
        end_waiting(lock, &error);
        return;
    }
    sleep_ms(lock, hf__backoff_ms(lock->failures++, 25));
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
    if (lock->state == HF__WAITING) {
        end_cancelled(lock);
    } else {
        drop_mark(lock);
        hf__queues_leave(lock);
    }
}

static void on_take(hf_op *op) {
    hf__attempt *attempt = op->data;
    hf_lock *lock = attempt->lock;
    hf__lock_ref(lock);
    hf__client_hold(lock->client);
    hf_client *client = lock->client;
    lock->attempt = NULL;
    hf__list_remove(&attempt->node); /* of client->sent: it has come back */
    hf__queues_set_taking(lock, false);
    if (lock->state != HF__WAITING || lock->cancelled)
        orphaned(lock, attempt);
    else if (op->error.code != HF_OK)
        failed(lock, attempt);
    else if (op->applied)
        granted(lock, attempt);
    else
        refused(lock, attempt);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

/* ---------------------------------------------------------------- acquire */

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
    if (o->ttl_ms < HF_TTL_MIN || o->ttl_ms > HF_TTL_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "ttl is %d ms to 24 h", HF_TTL_MIN);
    if (o->max_hold_ms < HF_TTL_MIN)
        return hf__error_set(error, HF_EINVAL, 0, "maxHold is at least %d ms", HF_TTL_MIN);
    if (o->max_stall_ms == 0)
        return hf__error_set(error, HF_EINVAL, 0, "maxStall is at least 1 ms");
    if (o->limit == 0) return hf__error_set(error, HF_EINVAL, 0, "permits is at least 1");
    if (o->note.len > HF_NOTE_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a note has up to %d bytes", HF_NOTE_MAX);
    if (!(client->vt->caps & HF_CAP_LEASES) ||
        (o->limit != 1 && !(client->vt->caps & HF_CAP_SHARED)))
        return hf__error_set(error, HF_ENOTSUP, 0, "the %s store has no such locks",
                             client->vt->name);
    return HF_OK;
}

/* One allocation: the lock, its places, the key slices, and the bytes of keys and note. */
static hf_lock *lock_new(hf_client *client, const hf_lock_options *o) {
    const hf_allocator *allocator = &client->engine->allocator;
    size_t bytes = o->note.len;
    for (size_t i = 0; i < o->n_keys; i++)
        bytes += o->keys[i].len;
    size_t places = o->n_keys * sizeof(hf__place);
    size_t slices = o->n_keys * sizeof(hf_slice);
    hf_lock *lock = hf__zalloc(allocator, sizeof(*lock) + places + slices + bytes);
    if (lock == NULL) return NULL;
    lock->places = (hf__place *)(void *)(lock + 1);
    hf_slice *keys = (hf_slice *)(void *)((char *)lock->places + places);
    char *p = (char *)keys + slices;
    for (size_t i = 0; i < o->n_keys; i++) {
        memcpy(p, o->keys[i].data, o->keys[i].len);
        keys[i] = (hf_slice){p, o->keys[i].len};
        p += o->keys[i].len;
        hf__list_init(&lock->places[i].node);
    }
    if (o->note.len > 0) memcpy(p, o->note.data, o->note.len);
    lock->note = (hf_slice){p, o->note.len};
    lock->lease.keys = keys;
    lock->lease.n_keys = (uint32_t)o->n_keys;
    return lock;
}

static void fill(hf_lock *lock, hf_client *client, const hf_lock_options *o) {
    hf__lease *lease = &lock->lease;
    hf__lease_init(lease);
    lease->space = HF_LEASES;
    lease->renew = o->renew;
    lease->link = &client->link;
    lease->max_stall_ms = o->max_stall_ms;
    lease->hold_end_ns = HF_FOREVER;
    lease->on_lost = on_lost;
    lease->on_extended = on_extended;
    lease->on_left = on_left;
    lock->waiter.stop = stop_waiting;
    hf__list_init(&lock->waiter.node);
    lock->client = client;
    lock->allocator = client->engine->allocator;
    lock->refs = 1;
    lock->limit = o->limit;
    lock->timer.fire = on_timer;
    lock->asked_ns = hf__client_now(client);
    lock->wait_ms = o->wait_ms;
    lock->wait_ns = o->wait_ms == 0 ? HF_FOREVER : hf__add_ms(lock->asked_ns, o->wait_ms);
    lock->retry_ns = HF_FOREVER;
    lock->ttl_ms = o->ttl_ms;
    lock->max_hold_ms = o->max_hold_ms;
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
    hf_lock *lock = lock_new(client, options);
    if (lock == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    fill(lock, client, options);
    if (!hf_token_random(&lock->lease.token)) {
        hf__free(&client->engine->allocator, lock);
        return hf__error_set(error, HF_EIO, 0, "the system has no randomness to give");
    }
    if (!hf__queues_join(lock)) {
        hf__free(&client->engine->allocator, lock);
        return hf__error_set(error, HF_ENOMEM, 0, NULL);
    }
    lock->acquired = acquired;
    lock->lost = lost;
    lock->data = data;
    hf__list_push(&client->waiting, &lock->waiter.node);
    client->n_waiting++;
    hf__client_begin(client);
    *out = lock;
    hf__lock_try(lock);
    if (lock->attempt != NULL || hf__timer_active(&lock->timer)) return HF_OK;
    if (lock->wait_ms == 0) {
        lock->wait_ns = 0; /* somebody here is ahead: nothing is asked of the store */
        look_soon(lock);
    } else {
        sleep_until_next(lock);
    }
    return HF_OK;
}

static void on_cancelled(hf__timer *timer) {
    end_cancelled(hf__of(timer, hf_lock, timer));
}

void hf_lock_cancel(hf_lock *lock) {
    if (lock->state != HF__WAITING) return;
    lock->cancelled = true;
    lock->timer.fire = on_cancelled;
    look_soon(lock);
}

/* ---------------------------------------------------------------- what is held */

bool hf_lock_held(hf_lock *lock) {
    return lock->state == HF__HELD && hf__lease_live(&lock->lease, hf__client_now(lock->client));
}

uint64_t hf_lock_remaining_ms(hf_lock *lock) {
    if (!hf_lock_held(lock)) return 0;
    uint64_t deadline = atomic_load(&lock->lease.deadline_ns);
    uint64_t now = hf__client_now(lock->client);
    return deadline > now ? (deadline - now) / HF_NS_PER_MS : 0;
}

const hf_token *hf_lock_token(const hf_lock *lock) {
    return &lock->lease.token;
}

uint64_t hf_lock_fence(const hf_lock *lock) {
    return lock->fence;
}

size_t hf_lock_waiters(hf_client *client, hf_slice key, hf_waiter *waiters, size_t max) {
    size_t count = 0;
    uint64_t now = hf__client_now(client);
    hf__map_node *node = hf__map_get(&client->queues, key);
    if (node == NULL) return 0;
    const hf__queue *queue = hf__of(node, hf__queue, node);
    for (hf__node *n = queue->waiting.next; n != &queue->waiting; n = n->next) {
        const hf_lock *lock = hf__of(n, hf__place, node)->lock;
        if (lock->state != HF__WAITING) continue;
        if (count++ >= max) continue;
        waiters[count - 1] = (hf_waiter){.waited_ms = (now - lock->asked_ns) / HF_NS_PER_MS,
                                         .limit = lock->limit,
                                         .note = lock->note};
    }
    return count;
}

/* ---------------------------------------------------------------- extend */

static void on_extended(hf__lease *lease, hf__extend *extend) {
    hf_lock *lock = hf__of(lease, hf_lock, lease);
    hf_client *client = lock->client;
    hf__extension *extension = lock->extensions;
    hf_error error;
    assert(&extension->ask == extend);
    lock->extensions = extension->next;
    hf__lock_ref(lock);
    if (lock->state == HF__HELD) hf__engine_look(client->engine, lease);
    if (lock->extensions != NULL && lock->state == HF__HELD &&
        hf__engine_extend(client->engine, lease, &lock->extensions->ask, &error) != HF_OK)
        tell_extensions(lock); /* the process has ended: the keeper lets it go */
    if (extension->cb != NULL)
        extension->cb(extension->data, lock, extend->done ? NULL : &extend->error);
    hf__free(&lock->allocator, extension);
    hf__lock_unref(lock);
    hf__client_end(client);
}

hf_code hf_lock_extend(hf_lock *lock, uint64_t ttl_ms,
                       void (*cb)(void *data, hf_lock *lock, const hf_error *error), void *data) {
    hf_error error;
    if (ttl_ms < HF_TTL_MIN || ttl_ms > HF_TTL_MAX) return HF_EINVAL;
    if (!hf_lock_held(lock)) return HF_ELOST;
    hf__extension *extension = hf__zalloc(&lock->allocator, sizeof(*extension));
    if (extension == NULL) return HF_ENOMEM;
    extension->ask.ttl_ms = ttl_ms;
    extension->cb = cb;
    extension->data = data;
    hf__extension **last = &lock->extensions;
    while (*last != NULL)
        last = &(*last)->next;
    if (last == &lock->extensions &&
        hf__engine_extend(lock->client->engine, &lock->lease, &extension->ask, &error) != HF_OK) {
        hf__free(&lock->allocator, extension);
        return error.code;
    }
    *last = extension;
    if (ttl_ms > lock->ttl_ms) lock->ttl_ms = ttl_ms; /* for as long a drop may be needed */
    hf__client_begin(lock->client);
    return HF_OK;
}

/* ---------------------------------------------------------------- release */

static void on_dropped(hf_op *op) {
    hf__attempt *attempt = op->data;
    hf_lock *lock = attempt->lock;
    hf_client *client = lock->client;
    hf_error error = op->error;
    bool had = op->applied;
    hf__lock_ref(lock);
    hf__client_hold(client);
    if (error.code != HF_OK)
        hf__attempt_undo(attempt, false);
    else
        hf__attempt_free(attempt);
    if (lock->released != NULL)
        lock->released(lock->released_data, lock, had, error.code != HF_OK ? &error : NULL);
    hf__lock_unref(lock);
    hf__client_end(client);
    hf__client_unhold(client);
}

hf_code hf_lock_release(hf_lock *lock,
                        void (*cb)(void *data, hf_lock *lock, bool was_held, const hf_error *error),
                        void *data) {
    if (lock->state != HF__HELD) return HF_ELOST;
    hf_client *client = lock->client;
    bool live = hf_lock_held(lock);
    hf__attempt *attempt = live ? hf__attempt_new(lock, HF_DROP, on_dropped) : NULL;
    hf__client_hold(client);
    hf__lock_ref(lock);
    /* Without memory for the drop the keeper does it, or the lease lapses. */
    bool held = end_holding(lock, attempt == NULL);
    if (attempt != NULL) {
        lock->released = cb;
        lock->released_data = data;
        hf__client_begin(client);
        hf__client_submit(client, &attempt->op);
    }
    hf__queues_leave(lock); /* whoever is next goes to the store right behind the drop */
    hf__lock_unref(lock);
    hf__client_unhold(client);
    if (attempt == NULL) return held ? HF_ENOMEM : HF_ELOST;
    return HF_OK;
}

void hf_lock_free(hf_lock *lock) {
    lock->acquired = NULL;
    lock->lost = NULL;
    lock->released = NULL;
    if (lock->state == HF__WAITING)
        end_cancelled(lock);
    else if (lock->state == HF__HELD)
        hf_lock_release(lock, NULL, NULL);
    hf__lock_unref(lock);
}
