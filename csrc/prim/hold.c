/*
 * Locks that are held: until when, made longer, lost, released, handed over.
 */
#include "prim/lock.h"

#include "util/alloc.h"

#include <assert.h>

/* ---------------------------------------------------------------- votes */

static void set_votes(hf_lock *lock, hf_vote *votes, size_t n) {
    hf__free(&lock->allocator, lock->votes);
    assert(n <= UINT16_MAX);
    lock->votes = votes;
    lock->n_votes = (uint16_t)n;
}

void hf__lock_note_votes(hf_lock *lock, hf_op *op) {
    set_votes(lock, op->votes, op->n_votes);
    op->votes = NULL;
    op->n_votes = 0;
}

/* ---------------------------------------------------------------- the end of holding */

static void tell_extensions(hf_lock *lock) {
    hf_error error;
    hf__error_set(&error, HF_ELOST, 0, NULL);
    hf__extension *extension;
    while ((extension = lock->extensions) != NULL) {
        lock->extensions = extension->next;
        if (extension->ask.votes != NULL)
            set_votes(lock, extension->ask.votes, extension->ask.n_votes);
        if (extension->cb != NULL) extension->cb(extension->data, lock, &error);
        hf__free(&lock->allocator, extension);
        hf__client_end(hf__lock_client(lock));
    }
}

static void on_extensions_due(hf__timer *timer) {
    hf_lock *lock = hf__of(timer, hf_lock, lease.timer);
    hf_client *client = hf__lock_client(lock);
    tell_extensions(lock);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

/* Ends holding: what the keeper does not answer any more is answered from the lease's timer, which
 * watches over nothing now. */
static bool end_holding(hf_lock *lock, bool drop) {
    hf_client *client = hf__lock_client(lock);
    hf__lease *lease = &lock->lease;
    lock->state = HF__ENDED;
    bool was_joined = lease->joined;
    bool held = hf__engine_end(client->engine, lease, drop);
    if (lease->joined) {
        hf__lock_ref(lock); /* until the keeper lets go */
        hf__client_hold(client);
    } else if (was_joined && lock->extensions != NULL) {
        hf__lock_ref(lock);
        hf__client_hold(client);
        lease->timer.fire = on_extensions_due;
        hf__client_timer(client, &lease->timer, 0);
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
    hf__error_set(error, HF_ELOST, 0, "the lock \"%.*s\"%s was lost: %s", hf__shown(key), key.data,
                  hf__lock_more(lock).text,
                  reasons[why == HF__LOSS_NONE ? HF__LOSS_DEADLINE : why]);
}

/* Lets a lost lease go. What the store may still have is dropped: by the keeper, where it knows
 * the lease (it already has where it was the one to end it), else from here. */
static void end_lost(hf_lock *lock, hf__loss why) {
    bool ours = why == HF__LOSS_DEADLINE || why == HF__LOSS_HOLD || why == HF__LOSS_CLOSED;
    bool joined = lock->lease.joined;
    end_holding(lock, ours);
    if (ours && !joined) hf__attempt_forget(lock); /* without memory it lapses */
    hf__queues_leave(lock);
}

static void on_lost(hf__lease *lease, hf__loss why) {
    hf_lock *lock = hf__of(lease, hf_lock, lease);
    hf_client *client = hf__lock_client(lock);
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
    hf_client *client = hf__lock_client(lock);
    lease->joined = false;
    if (lock->state == HF__HELD) {
        on_lost(lease, HF__LOSS_CLOSED);
        return;
    }
    tell_extensions(lock);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

static void on_extended(hf__lease *lease, hf__extend *extend) {
    hf_lock *lock = hf__of(lease, hf_lock, lease);
    hf_client *client = hf__lock_client(lock);
    hf__extension *extension = lock->extensions;
    hf_error error;
    assert(&extension->ask == extend);
    lock->extensions = extension->next;
    set_votes(lock, extend->votes, extend->n_votes);
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

const hf__lease_owner hf__lock_owner = {.lost = on_lost, .extended = on_extended, .left = on_left};

/* ---------------------------------------------------------------- holding */

bool hf__lock_hold(hf_lock *lock, const hf__attempt *attempt) {
    hf__lease *lease = &lock->lease;
    lease->hold_end_ns = hf__add_ms(attempt->sent_ns, lock->wait->max_hold_ms);
    if (!hf__engine_start(hf__lock_client(lock)->engine, lease, attempt->op.ttl_ms,
                          attempt->sent_ns))
        return false;
    lock->state = HF__HELD;
    lock->fence = attempt->op.fence;
    return true;
}

bool hf_lock_held(hf_lock *lock) {
    return lock->state == HF__HELD &&
           hf__lease_live(&lock->lease, hf__client_now(hf__lock_client(lock)));
}

uint64_t hf_lock_remaining_ms(hf_lock *lock) {
    if (!hf_lock_held(lock)) return 0;
    uint64_t deadline = atomic_load(&lock->lease.deadline_ns);
    uint64_t now = hf__client_now(hf__lock_client(lock));
    return deadline > now ? (deadline - now) / HF_NS_PER_MS : 0;
}

const hf_token *hf_lock_token(const hf_lock *lock) {
    return &lock->lease.token;
}

uint64_t hf_lock_fence(const hf_lock *lock) {
    return lock->fence;
}

size_t hf_lock_votes(const hf_lock *lock, const hf_vote **votes) {
    *votes = lock->votes;
    return lock->n_votes;
}

/* ---------------------------------------------------------------- extend */

hf_code hf_lock_extend(hf_lock *lock, uint64_t ttl_ms,
                       void (*cb)(void *data, hf_lock *lock, const hf_error *error), void *data) {
    hf_error error;
    if (ttl_ms < HF_TTL_MIN) return HF_EINVAL;
    if (!hf_lock_held(lock)) return HF_ELOST;
    if (ttl_ms > hf__lock_client(lock)->store->max_ttl_ms) return HF_EINVAL;
    hf__extension *extension = hf__zalloc(&lock->allocator, sizeof(*extension));
    if (extension == NULL) return HF_ENOMEM;
    extension->ask.ttl_ms = ttl_ms;
    extension->ask.wants_votes = lock->wants_votes;
    extension->cb = cb;
    extension->data = data;
    hf__extension **last = &lock->extensions;
    while (*last != NULL)
        last = &(*last)->next;
    if (last == &lock->extensions && hf__engine_extend(hf__lock_client(lock)->engine, &lock->lease,
                                                       &extension->ask, &error) != HF_OK) {
        hf__free(&lock->allocator, extension);
        return error.code;
    }
    *last = extension;
    if (ttl_ms > lock->ttl_ms) lock->ttl_ms = ttl_ms; /* for as long a drop may be needed */
    hf__client_begin(hf__lock_client(lock));
    return HF_OK;
}

/* ---------------------------------------------------------------- release */

static void tell(hf__release release, hf_lock *lock, bool was_held, const hf_error *error) {
    if (release.cb != NULL && !lock->freed) release.cb(release.data, lock, was_held, error);
}

void hf__lock_tell(hf__released *news) {
    hf_lock *lock = news->lock;
    hf_client *client = hf__lock_client(lock);
    const hf_error *error = &news->error;
    tell(news->release, lock, error->code == HF_OK, error->code != HF_OK ? error : NULL);
    hf__lock_unref(lock);
    hf__client_end(client);
}

static void on_dropped(hf_op *op) {
    hf__attempt *attempt = op->data;
    hf_lock *lock = attempt->lock;
    hf_client *client = hf__lock_client(lock);
    hf__release release = attempt->release;
    hf_error error = op->error;
    bool had = op->applied;
    hf__lock_note_votes(lock, op);
    hf__lock_ref(lock);
    hf__client_hold(client);
    if (error.code != HF_OK)
        hf__attempt_undo(attempt, false);
    else
        hf__attempt_free(attempt);
    tell(release, lock, had, error.code != HF_OK ? &error : NULL);
    hf__lock_unref(lock);
    hf__client_end(client);
    hf__client_unhold(client);
}

void hf__lock_handed_over(hf__attempt *attempt, hf__released *news) {
    hf_lock *lock = attempt->from;
    const hf_error *why = &attempt->op.error;
    *news = (hf__released){.lock = lock, .release = attempt->release};
    attempt->from = NULL;
    if (why->code == HF_OK && attempt->op.applied) return;
    hf__attempt *drop = hf__attempt_new(lock, HF_DROP, on_dropped);
    if (drop == NULL) {
        hf__error_set(&news->error, HF_ENOMEM, 0, NULL); /* the lease lapses */
    } else if ((why->flags & HF_OUTCOME_UNKNOWN) != 0) {
        news->error = *why;
        hf__attempt_undo(drop, false);
    } else {
        drop->release = news->release;
        news->lock = NULL;
        hf__client_submit(hf__lock_client(lock), &drop->op);
        hf__lock_unref(lock); /* the drop has one of its own */
    }
}

/* What carries the release to the store: the take of who comes next, or a drop. NULL without
 * memory: then the keeper drops it, or the lease lapses. */
static hf__attempt *start_release(hf_lock *lock) {
    hf_lock *heir = hf__queues_heir(lock);
    hf__attempt *attempt = heir != NULL ? hf__lock_take_over(heir, lock) : NULL;
    if (attempt != NULL) return attempt;
    attempt = hf__attempt_new(lock, HF_DROP, on_dropped);
    if (attempt != NULL) hf__client_submit(hf__lock_client(lock), &attempt->op);
    return attempt;
}

hf_code hf_lock_release(hf_lock *lock,
                        void (*cb)(void *data, hf_lock *lock, bool was_held, const hf_error *error),
                        void *data) {
    if (lock->state != HF__HELD) return HF_ELOST;
    hf_client *client = hf__lock_client(lock);
    hf__attempt *attempt = hf_lock_held(lock) ? start_release(lock) : NULL;
    hf__client_hold(client);
    hf__lock_ref(lock);
    bool held = end_holding(lock, attempt == NULL);
    if (attempt != NULL) {
        attempt->release = (hf__release){cb, data};
        hf__client_begin(client);
    }
    hf__queues_leave(lock); /* whoever is next goes to the store right behind the drop */
    hf__lock_unref(lock);
    hf__client_unhold(client);
    if (attempt == NULL) return held ? HF_ENOMEM : HF_ELOST;
    return HF_OK;
}
