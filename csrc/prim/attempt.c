/*
 * One op of a lock at the store, and the undoing of takes.
 *
 * A take whose answer never came may have landed, or may yet land. Its token is dropped until
 * one time to live has passed since the store first said that it heard: whatever was on its way
 * by then has arrived or has lapsed. The token is never used again. None of this keeps the loop
 * alive.
 */
#include "prim/lock.h"

#include "util/alloc.h"

#include <assert.h>
#include <string.h>

#define FREE_MAX 256
#define PAUSE_MS 50

hf__attempt *hf__attempt_new(hf_lock *lock, hf_verb verb, hf_op_cb done) {
    hf_client *client = hf__lock_client(lock);
    hf__attempt *attempt = client->free_attempts;
    if (attempt != NULL) {
        client->free_attempts = attempt->next_free;
        client->n_free_attempts--;
    } else {
        attempt = hf__alloc(&client->engine->allocator, sizeof(*attempt));
        if (attempt == NULL) return NULL;
    }
    attempt->next_free = NULL;
    attempt->watched = false;
    attempt->hinted = false;
    attempt->parted = false;
    attempt->from = NULL;
    attempt->release = (hf__release){NULL, NULL};
    attempt->unknown = false;
    attempt->tries = 0;
    attempt->until_ns = HF_FOREVER;
    attempt->timer = (hf__timer){0};
    hf__list_push(&client->sent, &attempt->node);
    hf_op_init(&attempt->op, verb, done, attempt);
    attempt->op.space = HF_LEASES;
    attempt->op.keys = lock->lease.keys;
    attempt->op.n_keys = lock->lease.n_keys;
    attempt->op.token = lock->lease.token;
    attempt->op.ttl_ms = lock->ttl_ms;
    if (lock->wants_votes) attempt->op.flags |= HF_OP_VOTES;
    attempt->lock = lock;
    attempt->sent_ns = hf__client_now(client);
    hf__lock_ref(lock);
    hf__client_hold(client);
    return attempt;
}

void hf__attempt_free(hf__attempt *attempt) {
    hf_lock *lock = attempt->lock;
    hf_client *client = hf__lock_client(lock);
    assert(attempt->from == NULL);
    hf_op_reset(&attempt->op);
    hf__list_remove(&attempt->node);
    if (client->n_free_attempts < FREE_MAX) {
        attempt->next_free = client->free_attempts;
        client->free_attempts = attempt;
        client->n_free_attempts++;
    } else {
        hf__free(&client->engine->allocator, attempt);
    }
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

void hf__attempt_done(hf_op *op) {
    hf__attempt_free(op->data);
}

bool hf__attempt_forget(hf_lock *lock) {
    hf__attempt *attempt = hf__attempt_new(lock, HF_DROP, hf__attempt_done);
    if (attempt == NULL) return false;
    hf__client_submit(hf__lock_client(lock), &attempt->op);
    return true;
}

void hf__attempts_free(hf_client *client) {
    hf__attempt *next;
    for (hf__attempt *attempt = client->free_attempts; attempt != NULL; attempt = next) {
        next = attempt->next_free;
        hf__free(&client->engine->allocator, attempt);
    }
    client->free_attempts = NULL;
}

/* ---------------------------------------------------------------- undo */

static void undo_over(hf__attempt *attempt) {
    hf__lock_client(attempt->lock)->n_undos--;
    hf__attempt_free(attempt);
}

static void on_undone(hf_op *op) {
    hf__attempt *attempt = op->data;
    hf_client *client = hf__lock_client(attempt->lock);
    uint64_t now = hf__client_now(client);
    uint64_t ttl_ms = attempt->op.ttl_ms;
    bool heard = op->error.code == HF_OK;
    /* A take that is known to have landed lapses by itself; one that is not may land at any
     * time, so only the store's word ends this. */
    if (attempt->until_ns == HF_FOREVER && heard)
        attempt->until_ns = hf__add_ms(now, attempt->unknown ? ttl_ms : 0);
    bool over = heard ? now >= attempt->until_ns
                      : !attempt->unknown && now >= hf__add_ms(attempt->sent_ns, ttl_ms);
    if (over || client->phase > HF__DRAINING) {
        undo_over(attempt);
        return;
    }
    uint64_t pause_ms = hf__backoff_ms(attempt->tries++, PAUSE_MS);
    uint64_t at = hf__add_ms(now, pause_ms);
    hf__client_timer(client, &attempt->timer, at < attempt->until_ns ? at : attempt->until_ns);
}

static void send_drop(hf__attempt *attempt) {
    hf_op *op = &attempt->op;
    hf_token token = op->token;
    uint64_t ttl_ms = op->ttl_ms;
    hf_op_reset(op);
    hf_op_init(op, HF_DROP, on_undone, attempt);
    op->keys = attempt->lock->lease.keys;
    op->n_keys = attempt->lock->lease.n_keys;
    op->token = token;
    op->ttl_ms = ttl_ms;
    hf__client_submit(hf__lock_client(attempt->lock), op);
}

static void on_undo_due(hf__timer *timer) {
    send_drop(hf__of(timer, hf__attempt, timer));
}

void hf__attempt_undo(hf__attempt *attempt, bool unknown) {
    hf_client *client = hf__lock_client(attempt->lock);
    attempt->unknown = unknown;
    attempt->timer.fire = on_undo_due;
    hf__list_remove(&attempt->node);
    hf__list_push(&client->undos, &attempt->node);
    client->n_undos++;
    send_drop(attempt);
}

void hf__undo_stop_all(hf_client *client) {
    hf__node *next;
    for (hf__node *node = client->undos.next; node != &client->undos; node = next) {
        hf__attempt *attempt = hf__of(node, hf__attempt, node);
        next = node->next;
        if (!hf__timer_active(&attempt->timer))
            continue; /* its drop is under way, and is the last */
        hf__timer_stop(&client->engine->timers, &attempt->timer);
        undo_over(attempt);
    }
}

/* ---------------------------------------------------------------- the end of the process */

/* A token for the keeper to drop, since the loop will not bring the store to do it. */
typedef struct parting {
    hf__lease lease;
    hf_lock *lock; /* whose keys it borrows */
} parting;

static void on_parted(hf__lease *lease) {
    parting *p = hf__of(lease, parting, lease);
    hf_lock *lock = p->lock;
    hf_client *client = hf__lock_client(lock);
    hf__free(&client->engine->allocator, p);
    hf__lock_unref(lock);
    hf__client_unhold(client);
}

static const hf__lease_owner parting_owner = {.left = on_parted};

/* Without memory the lease lapses. */
static bool part_token(hf_lock *lock, const hf_token *token, uint64_t ttl_ms) {
    hf_client *client = hf__lock_client(lock);
    parting *p = hf__zalloc(&client->engine->allocator, sizeof(*p));
    if (p == NULL) return false;
    hf__lease_init(&p->lease);
    p->lock = lock;
    p->lease.token = *token;
    p->lease.keys = lock->lease.keys;
    p->lease.n_keys = lock->lease.n_keys;
    p->lease.space = HF_LEASES;
    p->lease.link = &client->link;
    p->lease.ttl_ms = ttl_ms;
    p->lease.hold_end_ns = HF_FOREVER;
    p->lease.max_stall_ms = HF_FOREVER;
    p->lease.owner = &parting_owner;
    if (!hf__engine_hand_over(client->engine, &p->lease)) {
        hf__free(&client->engine->allocator, p);
        return false;
    }
    hf__lock_ref(lock);
    hf__client_hold(client);
    return true;
}

void hf__attempts_exit(hf_client *client) {
    hf__node *const lists[] = {&client->sent, &client->undos};
    for (size_t i = 0; i < 2; i++)
        for (hf__node *node = lists[i]->next; node != lists[i]; node = node->next) {
            hf__attempt *attempt = hf__of(node, hf__attempt, node);
            attempt->parted = part_token(attempt->lock, &attempt->op.token, attempt->op.ttl_ms);
            if (attempt->from != NULL)
                part_token(attempt->from, &attempt->from->lease.token, attempt->op.ttl_ms);
        }
}
