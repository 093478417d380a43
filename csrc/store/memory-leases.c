/*
 * Leases of the memory store: the admission rule.
 *
 * A lock is one key: its holds, the intent marks on it, and its fence counter, which outlives them.
 * An owner is one token: its holds and marks. Holds that have lapsed stay in place until the lock
 * is looked at for a take, or swept; everything that reads them judges by their time.
 */
#include "store/memory-table.h"

#include "util/alloc.h"
#include "util/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef struct mem_lock {
    hf__map_node node;
    hf__heap_node
        due; /* in table->lock_due: when the first of its holds or marks lapses, or itself */
    hf__heap by_time;  /* holds by when they lapse */
    hf__heap by_limit; /* holds by their limit */
    hf__heap marks;    /* by when they lapse */
    hf__node holds;    /* in order of admission */
    uint32_t n_holds;
    uint32_t n_marks;
    uint64_t counter;   /* the newest fence; 0: never taken */
    uint64_t idle_from; /* when its last hold ended */
    char key[];
} mem_lock;

typedef struct mem_owner {
    hf__map_node node;
    hf_token token;
    hf__node holds;
    hf__node marks;
} mem_owner;

/* A hold, or an intent mark, of one owner on one lock. */
typedef struct mem_hold {
    hf__heap_node by_time; /* `at`: when it lapses */
    hf__heap_node by_limit;
    hf__node in_lock;
    hf__node in_owner;
    mem_lock *lock;
    mem_owner *owner;
    uint64_t fence;
    uint64_t since_us;
    uint32_t limit;
    bool is_mark;
    uint8_t who_len;
    uint16_t note_len;
    char text[]; /* who, then note */
} mem_hold;

static mem_lock *find_lock(const hf__mem_table *table, hf_slice key) {
    hf__map_node *node = hf__map_get(&table->locks, key);
    return node == NULL ? NULL : hf__of(node, mem_lock, node);
}

static mem_owner *find_owner(const hf__mem_table *table, const hf_token *token) {
    hf_slice key = {(const char *)token->bytes, sizeof token->bytes};
    hf__map_node *node = hf__map_get(&table->owners, key);
    return node == NULL ? NULL : hf__of(node, mem_owner, node);
}

/* What `owner` (may be NULL) has on `lock` in one of its lists. */
static mem_hold *find_in(const hf__node *list, const mem_lock *lock) {
    for (hf__node *node = list->next; node != list; node = node->next) {
        mem_hold *hold = hf__of(node, mem_hold, in_owner);
        if (hold->lock == lock) return hold;
    }
    return NULL;
}

static mem_hold *find_live(const mem_owner *owner, const mem_lock *lock, uint64_t now_ns) {
    mem_hold *hold = owner == NULL ? NULL : find_in(&owner->holds, lock);
    return hold != NULL && hold->by_time.at > now_ns ? hold : NULL;
}

static mem_lock *add_lock(hf__mem_table *table, hf_slice key) {
    mem_lock *lock = hf__zalloc(table->allocator, sizeof *lock + key.len);

    if (lock == NULL) return NULL;
    memcpy(lock->key, key.data, key.len);
    hf__list_init(&lock->holds);
    if (hf__map_insert(&table->locks, &lock->node, (hf_slice){lock->key, key.len})) return lock;
    hf__free(table->allocator, lock);
    return NULL;
}

static mem_owner *add_owner(hf__mem_table *table, const hf_token *token) {
    mem_owner *owner = find_owner(table, token);
    hf_slice key;

    if (owner != NULL) return owner;
    owner = hf__zalloc(table->allocator, sizeof *owner);
    if (owner == NULL) return NULL;
    owner->token = *token;
    hf__list_init(&owner->holds);
    hf__list_init(&owner->marks);
    key = (hf_slice){(const char *)owner->token.bytes, sizeof owner->token.bytes};
    if (hf__map_insert(&table->owners, &owner->node, key)) return owner;
    hf__free(table->allocator, owner);
    return NULL;
}

static void free_owner_if_idle(hf__mem_table *table, mem_owner *owner) {
    if (owner == NULL || !hf__list_empty(&owner->holds) || !hf__list_empty(&owner->marks)) return;
    hf__map_remove(&table->owners, &owner->node);
    hf__free(table->allocator, owner);
}

static void free_lock(hf__mem_table *table, mem_lock *lock) {
    hf__heap_remove(&table->lock_due, &lock->due);
    hf__map_remove(&table->locks, &lock->node);
    hf__free(table->allocator, lock);
}

/* After any change of a lock: it is due when the first thing of it lapses. One that was never taken
 * and has nothing on it goes at once. */
static void settle(hf__mem_table *table, mem_lock *lock) {
    const hf__heap_node *hold = hf__heap_min(&lock->by_time);
    const hf__heap_node *mark = hf__heap_min(&lock->marks);
    uint64_t at = HF_FOREVER;

    if (hold == NULL && mark == NULL) {
        if (lock->counter == 0) {
            free_lock(table, lock);
            return;
        }
        at = hf__add_ms(lock->idle_from, HF__COUNTER_MS);
    }
    if (hold != NULL) at = hold->at;
    if (mark != NULL && mark->at < at) at = mark->at;
    if (hf__heap_in(&lock->due) && lock->due.at == at) return;
    hf__heap_remove(&table->lock_due, &lock->due);
    lock->due.at = at;
    hf__heap_insert(&table->lock_due, &lock->due);
}

/* Takes a hold or mark out and frees it; its owner stays. */
static void end_hold(hf__mem_table *table, mem_hold *hold, uint64_t now_ns) {
    mem_lock *lock = hold->lock;

    if (hold->is_mark) {
        hf__heap_remove(&lock->marks, &hold->by_time);
        lock->n_marks--;
    } else {
        uint64_t ended = hold->by_time.at < now_ns ? hold->by_time.at : now_ns;
        if (ended > lock->idle_from) lock->idle_from = ended;
        hf__heap_remove(&lock->by_time, &hold->by_time);
        hf__heap_remove(&lock->by_limit, &hold->by_limit);
        hf__list_remove(&hold->in_lock);
        lock->n_holds--;
    }
    hf__list_remove(&hold->in_owner);
    hf__free(table->allocator, hold);
}

/* Ends up to `limit` of what has lapsed on a lock; how many there were. */
static uint32_t prune(const hf__mem_turn *turn, mem_lock *lock, uint32_t limit) {
    hf__heap *const heaps[] = {&lock->by_time, &lock->marks};
    uint32_t ended = 0;

    for (size_t i = 0; i < 2; i++) {
        hf__heap_node *node;
        while (ended < limit && (node = hf__heap_min(heaps[i])) != NULL &&
               node->at <= turn->now_ns) {
            mem_hold *hold = hf__of(node, mem_hold, by_time);
            mem_owner *owner = hold->owner;
            end_hold(turn->table, hold, turn->now_ns);
            free_owner_if_idle(turn->table, owner);
            ended++;
        }
    }
    return ended;
}

/* Moves the end of a hold or mark that is in its lock. */
static void set_until(hf__mem_table *table, mem_hold *hold, uint64_t until_ns) {
    hf__heap *heap = hold->is_mark ? &hold->lock->marks : &hold->lock->by_time;

    hf__heap_remove(heap, &hold->by_time);
    hold->by_time.at = until_ns;
    hf__heap_insert(heap, &hold->by_time);
    settle(table, hold->lock);
}

static void describe(const mem_hold *hold, uint64_t now_ns, hf_holder *holder) {
    memset(holder, 0, sizeof *holder);
    holder->token = hold->owner->token;
    holder->fence = hold->fence;
    holder->left_ms = hf__ms_until(now_ns, hold->by_time.at);
    holder->since_us = hold->since_us;
    holder->limit = hold->limit;
    memcpy(holder->who, hold->text, hold->who_len);
    memcpy(holder->note, hold->text + hold->who_len, hold->note_len);
}

/* ---- take */

/* One take on its way. */
typedef struct attempt {
    const hf__mem_turn *turn;
    hf_op *op;
    mem_lock *locks[HF_KEYS_MAX]; /* by op->keys; NULL where the key has none */
    mem_hold *fresh;              /* holds or marks made in advance, chained by in_lock.next */
} attempt;

static mem_hold *new_hold(const attempt *a, bool is_mark) {
    const hf_op *op = a->op;
    size_t who = op->who.len < HF_WHO_MAX ? op->who.len : HF_WHO_MAX - 1;
    size_t note = op->note.len <= HF_NOTE_MAX ? op->note.len : HF_NOTE_MAX;
    mem_hold *hold = hf__zalloc(a->turn->table->allocator, sizeof *hold + who + note);

    if (hold == NULL) return NULL;
    hold->since_us = a->turn->now_us;
    hold->limit = op->limit;
    hold->is_mark = is_mark;
    hold->who_len = (uint8_t)who;
    hold->note_len = (uint16_t)note;
    if (who > 0) memcpy(hold->text, op->who.data, who);
    if (note > 0) memcpy(hold->text + who, op->note.data, note);
    return hold;
}

/* Makes everything that the op may need before anything is changed: the locks that are missing, its
 * owner, and one hold or mark per key. False, with nothing left behind, when memory is out. */
static mem_owner *prepare(attempt *a, bool marks) {
    hf__mem_table *table = a->turn->table;
    mem_owner *owner = add_owner(table, &a->op->token);
    bool failed = owner == NULL;

    for (uint32_t i = 0; i < a->op->n_keys && !failed; i++) {
        mem_hold *hold = new_hold(a, marks);
        if (a->locks[i] == NULL) a->locks[i] = add_lock(table, a->op->keys[i]);
        failed = hold == NULL || a->locks[i] == NULL;
        if (hold == NULL) break;
        hold->in_lock.next = a->fresh == NULL ? NULL : &a->fresh->in_lock;
        a->fresh = hold;
    }
    if (!failed) return owner;
    while (a->fresh != NULL) {
        hf__node *next = a->fresh->in_lock.next;
        hf__free(table->allocator, a->fresh);
        a->fresh = next == NULL ? NULL : hf__of(next, mem_hold, in_lock);
    }
    free_owner_if_idle(table, owner);
    return NULL;
}

static mem_hold *pop_fresh(attempt *a) {
    mem_hold *hold = a->fresh;
    hf__node *next;

    assert(hold != NULL);
    next = hold->in_lock.next;
    a->fresh = next == NULL ? NULL : hf__of(next, mem_hold, in_lock);
    return hold;
}

static void settle_all(const attempt *a) {
    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        if (a->locks[i] != NULL) settle(a->turn->table, a->locks[i]);
    }
}

/* Who waited has come in, or has gone. */
static void end_mark(hf__mem_table *table, const mem_owner *owner, const mem_lock *lock,
                     uint64_t now_ns) {
    mem_hold *mark = find_in(&owner->marks, lock);

    if (mark == NULL) return;
    end_hold(table, mark, now_ns);
    hf__mem_changed(table, HF_LEASES, lock->node.key);
}

/* How many of the keys the op's token holds; `fence` gets the newest of theirs. */
static uint32_t count_own(const attempt *a, const mem_owner *owner, uint64_t *fence) {
    uint32_t n = 0;

    *fence = 0;
    for (uint32_t i = 0; i < a->op->n_keys && owner != NULL; i++) {
        const mem_hold *hold = a->locks[i] == NULL ? NULL : find_in(&owner->holds, a->locks[i]);
        if (hold == NULL) continue;
        if (hold->fence > *fence) *fence = hold->fence;
        n++;
    }
    return n;
}

/* The take was answered before, and the answer may have been lost: it is the same lease. */
static void take_again(attempt *a, const mem_owner *owner, uint64_t fence) {
    uint64_t until = hf__add_ms(a->turn->now_ns, a->op->ttl_ms);

    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        mem_hold *hold = find_in(&owner->holds, a->locks[i]);

        assert(hold != NULL);
        if (hold->by_time.at < until) set_until(a->turn->table, hold, until);
    }
    a->op->applied = true;
    a->op->fence = fence;
}

/* Whether `owner` holds the op's keys, each exclusively, and nothing else. */
static bool holds_exactly(const attempt *a, const mem_owner *owner) {
    uint32_t live = 0;

    if (owner == NULL) return false;
    for (hf__node *node = owner->holds.next; node != &owner->holds; node = node->next) {
        const mem_hold *hold = hf__of(node, mem_hold, in_owner);
        if (hold->by_time.at <= a->turn->now_ns) continue;
        if (hold->limit != 1) return false;
        live++;
    }
    if (live != a->op->n_keys) return false;
    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        if (a->locks[i] == NULL || find_live(owner, a->locks[i], a->turn->now_ns) == NULL)
            return false;
    }
    return true;
}

/* The first to lapse of the marks of others than `owner` (may be NULL); NULL if there is none. */
static const hf__heap_node *first_mark(mem_lock *lock, const mem_owner *owner) {
    mem_hold *own = owner == NULL ? NULL : find_in(&owner->marks, lock);
    const hf__heap_node *first;

    if (own != NULL) hf__heap_remove(&lock->marks, &own->by_time);
    first = hf__heap_min(&lock->marks);
    if (own != NULL) hf__heap_insert(&lock->marks, &own->by_time);
    return first;
}

/* The admission rule, for one key. False with op->left_ms lowered to when the first of those in the
 * way lapses. The lock has been pruned, and the op's token, whose `owner` may be NULL, has no hold
 * on it. */
static bool admits(const attempt *a, const mem_owner *owner, mem_lock *lock) {
    hf_op *op = a->op;
    const hf__heap_node *least = hf__heap_min(&lock->by_limit);
    bool full = least != NULL && (lock->n_holds >= least->at || lock->n_holds >= op->limit);
    const hf__heap_node *mark = NULL;
    uint64_t left;

    if (op->limit > 1 && lock->n_marks > 0) mark = first_mark(lock, owner);
    if (full) {
        left = hf__ms_until(a->turn->now_ns, hf__heap_min(&lock->by_time)->at);
        if (left < op->left_ms) op->left_ms = left;
    }
    if (mark != NULL) {
        left = hf__ms_until(a->turn->now_ns, mark->at);
        if (left < op->left_ms) op->left_ms = left;
    }
    return !full && mark == NULL;
}

/* Tells of one holder in the way; of one who waits, where only marks are. */
static void tell_holder(const attempt *a, const mem_owner *owner, mem_lock *lock) {
    const hf__heap_node *first = hf__heap_min(&lock->by_time);

    if (a->op->holder == NULL) return;
    if (first == NULL) first = first_mark(lock, owner);
    describe(hf__of((hf__heap_node *)(uintptr_t)first, mem_hold, by_time), a->turn->now_ns,
             a->op->holder);
}

/* Whether every key admits the op; else it is refused and told why. */
static bool judge(attempt *a, const mem_owner *owner) {
    mem_lock *in_the_way = NULL;

    a->op->left_ms = HF_FOREVER;
    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        mem_lock *lock = a->locks[i];
        if (lock == NULL || admits(a, owner, lock)) continue;
        if (in_the_way == NULL || (in_the_way->n_holds == 0 && lock->n_holds > 0))
            in_the_way = lock;
    }
    if (in_the_way == NULL) {
        a->op->left_ms = 0;
        return true;
    }
    hf__mem_refuse(a->op, HF_REFUSED_HELD);
    tell_holder(a, owner, in_the_way);
    return false;
}

/* Leaves or renews the op's intent mark on each key. */
static void leave_marks(attempt *a) {
    hf__mem_table *table = a->turn->table;
    uint64_t ttl_ms = a->op->ttl_ms < HF__INTENT_MS ? a->op->ttl_ms : HF__INTENT_MS;
    uint64_t until = hf__add_ms(a->turn->now_ns, ttl_ms);
    mem_owner *owner = prepare(a, true);

    if (owner == NULL) {
        hf__mem_out_of_memory(a->op);
        a->op->left_ms = 0;
        return;
    }
    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        mem_hold *mark = pop_fresh(a);
        mem_hold *before = find_in(&owner->marks, a->locks[i]);

        if (before != NULL) end_hold(table, before, a->turn->now_ns);
        mark->lock = a->locks[i];
        mark->owner = owner;
        hf__list_push(&owner->marks, &mark->in_owner);
        hf__list_init(&mark->in_lock);
        mark->by_time.at = until;
        hf__heap_insert(&mark->lock->marks, &mark->by_time);
        mark->lock->n_marks++;
    }
}

/* One number above all that any of the keys has had. */
static uint64_t next_fence(const attempt *a) {
    uint64_t fence = 0;

    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        uint64_t counter = a->locks[i]->counter;
        /* Within one process the epoch stays; a counter that is missing is one of another epoch. */
        uint64_t next = hf__next_fence(counter, counter > 0, a->turn->now_us);
        if (next > fence) fence = next;
    }
    return fence;
}

static void admit(attempt *a, mem_owner *replaced) {
    hf__mem_table *table = a->turn->table;
    uint64_t now_ns = a->turn->now_ns;
    mem_owner *owner = prepare(a, false);

    if (owner == NULL) {
        hf__mem_out_of_memory(a->op);
        return;
    }
    a->op->fence = next_fence(a);
    for (uint32_t i = 0; i < a->op->n_keys; i++) {
        mem_lock *lock = a->locks[i];
        mem_hold *hold = pop_fresh(a);

        if (replaced != NULL) end_hold(table, find_in(&replaced->holds, lock), now_ns);
        end_mark(table, owner, lock, now_ns);
        hold->lock = lock;
        hold->owner = owner;
        hold->fence = lock->counter = a->op->fence;
        hold->by_time.at = hf__add_ms(now_ns, a->op->ttl_ms);
        hold->by_limit.at = hold->limit;
        hf__list_push(&owner->holds, &hold->in_owner);
        hf__list_push(&lock->holds, &hold->in_lock);
        hf__heap_insert(&lock->by_time, &hold->by_time);
        hf__heap_insert(&lock->by_limit, &hold->by_limit);
        lock->n_holds++;
    }
    free_owner_if_idle(table, replaced);
    a->op->applied = true;
}

/* The locks are found and pruned. */
static void decide(attempt *a) {
    hf_op *op = a->op;
    mem_owner *owner = find_owner(a->turn->table, &op->token);
    mem_owner *replaced = NULL;
    uint64_t fence;
    uint32_t own = count_own(a, owner, &fence);

    if (owner != NULL && own == op->n_keys) {
        take_again(a, owner, fence);
        return;
    }
    if (own > 0) {
        hf__error_set(&op->error, HF_EINVAL, 0, "the token holds some of the keys already");
        return;
    }
    if (!hf__token_is_zero(&op->replace_token)) {
        replaced = find_owner(a->turn->table, &op->replace_token);
        if (op->limit != 1 || !holds_exactly(a, replaced)) {
            hf__mem_refuse(op, HF_REFUSED_OWNER);
            return;
        }
    } else if (!judge(a, owner)) {
        if ((op->flags & HF_OP_INTENT) != 0 && op->limit == 1) leave_marks(a);
        return;
    }
    admit(a, replaced);
}

void hf__mem_take(const hf__mem_turn *turn, hf_op *op) {
    attempt a = {.turn = turn, .op = op};

    assert(op->n_keys >= 1 && op->n_keys <= HF_KEYS_MAX && op->limit >= 1);
    for (uint32_t i = 0; i < op->n_keys; i++) {
        a.locks[i] = find_lock(turn->table, op->keys[i]);
        if (a.locks[i] != NULL) prune(turn, a.locks[i], UINT32_MAX);
    }
    decide(&a);
    settle_all(&a);
}

/* ---- keep, drop */

void hf__mem_keep(const hf__mem_turn *turn, hf_op *op) {
    const mem_owner *owner = find_owner(turn->table, &op->token);
    uint64_t until = hf__add_ms(turn->now_ns, op->ttl_ms);
    mem_hold *holds[HF_KEYS_MAX];

    assert(op->n_keys >= 1 && op->n_keys <= HF_KEYS_MAX);
    for (uint32_t i = 0; i < op->n_keys; i++) {
        const mem_lock *lock = owner == NULL ? NULL : find_lock(turn->table, op->keys[i]);
        holds[i] = lock == NULL ? NULL : find_live(owner, lock, turn->now_ns);
        if (holds[i] == NULL) {
            hf__mem_refuse(op, HF_REFUSED_OWNER);
            return;
        }
    }
    for (uint32_t i = 0; i < op->n_keys; i++)
        set_until(turn->table, holds[i], until);
    op->applied = true;
}

void hf__mem_drop(const hf__mem_turn *turn, hf_op *op) {
    mem_owner *owner = find_owner(turn->table, &op->token);
    uint32_t ended = 0;

    for (uint32_t i = 0; i < op->n_keys && owner != NULL; i++) {
        mem_lock *lock = find_lock(turn->table, op->keys[i]);
        mem_hold *hold;

        if (lock == NULL) continue;
        end_mark(turn->table, owner, lock, turn->now_ns);
        hold = find_live(owner, lock, turn->now_ns);
        if (hold != NULL) {
            end_hold(turn->table, hold, turn->now_ns);
            hf__mem_changed(turn->table, HF_LEASES, lock->node.key);
            ended++;
        }
        settle(turn->table, lock);
    }
    free_owner_if_idle(turn->table, owner);
    op->applied = ended == op->n_keys;
    if (!op->applied) hf__mem_refuse(op, HF_REFUSED_OWNER);
}

/* ---- list */

static int compare_locks(const void *a, const void *b) {
    const mem_lock *const *x = a;
    const mem_lock *const *y = b;

    return hf__slice_compare((*x)->node.key, (*y)->node.key);
}

static size_t count_live(const hf__mem_turn *turn, const mem_lock *lock) {
    size_t live = 0;

    for (hf__node *node = lock->holds.next; node != &lock->holds; node = node->next)
        live += hf__of(node, mem_hold, in_lock)->by_time.at > turn->now_ns;
    return live;
}

static bool is_listed(const hf__mem_turn *turn, const mem_lock *lock, const hf_op *op) {
    hf_slice prefix = op->keys[0];
    hf_slice key = lock->node.key;

    if (!hf__slice_starts(key, prefix)) return false;
    if (op->value.len > 0 && hf__slice_compare(key, op->value) <= 0) return false;
    return count_live(turn, lock) > 0;
}

/* Puts `lock` into a heap of at most `cap` locks with the greatest key first, which it leaves again
 * when `cap` smaller ones have come: no more is kept than can be answered. */
static size_t select_lock(const mem_lock **heap, size_t n, size_t cap, const mem_lock *lock) {
    size_t at;

    if (n < cap) {
        for (at = n++; at > 0 && compare_locks(&lock, &heap[(at - 1) / 2]) > 0; at = (at - 1) / 2)
            heap[at] = heap[(at - 1) / 2];
        heap[at] = lock;
        return n;
    }
    if (compare_locks(&lock, &heap[0]) > 0) return n;
    for (at = 0;;) {
        size_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && compare_locks(&heap[child + 1], &heap[child]) > 0) child++;
        if (compare_locks(&heap[child], &lock) <= 0) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = lock;
    return n;
}

/* Adds the live holders of a key. False when memory is out. */
static bool add_rows(const hf__mem_turn *turn, const mem_lock *lock, hf_op *op) {
    hf_holder holder;

    for (hf__node *node = lock->holds.next; node != &lock->holds; node = node->next) {
        const mem_hold *hold = hf__of(node, mem_hold, in_lock);
        if (hold->by_time.at <= turn->now_ns) continue;
        describe(hold, turn->now_ns, &holder);
        if (!hf__op_add_row(op, lock->node.key, &holder)) {
            op->applied = false;
            return false;
        }
    }
    return true;
}

/* Adds the selected keys in order, and none in part. The first is given whole even if it is more
 * than was asked for: no list could pass it otherwise. */
static void add_page(const hf__mem_turn *turn, const mem_lock **found, size_t n, hf_op *op) {
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && op->n_rows + count_live(turn, found[i]) > op->limit) return;
        if (!add_rows(turn, found[i], op)) return;
    }
}

void hf__mem_list(const hf__mem_turn *turn, hf_op *op) {
    hf__mem_table *table = turn->table;
    size_t cap = op->limit < table->locks.count ? op->limit : table->locks.count;
    const mem_lock **found;
    const mem_lock *lock;
    size_t n = 0;

    op->applied = true;
    if (cap == 0) return;
    if ((op->flags & HF_OP_EXACT) != 0) {
        lock = find_lock(table, op->keys[0]);
        if (lock != NULL) add_rows(turn, lock, op);
        return;
    }
    found = hf__alloc(table->allocator, cap * sizeof(mem_lock *));
    if (found == NULL) {
        hf__mem_out_of_memory(op);
        return;
    }
    for (hf__map_node *node = hf__map_next(&table->locks, NULL); node != NULL;
         node = hf__map_next(&table->locks, node)) {
        lock = hf__of(node, mem_lock, node);
        if (is_listed(turn, lock, op)) n = select_lock(found, n, cap, lock);
    }
    qsort(found, n, sizeof found[0], compare_locks);
    add_page(turn, found, n, op);
    hf__free(table->allocator, found);
}

/* ---- upkeep */

uint32_t hf__mem_sweep_leases(const hf__mem_turn *turn, uint32_t limit) {
    hf__mem_table *table = turn->table;
    uint32_t swept = 0;
    hf__heap_node *node;

    while (swept < limit && (node = hf__heap_min(&table->lock_due)) != NULL &&
           node->at <= turn->now_ns) {
        mem_lock *lock = hf__of(node, mem_lock, due);

        /* Due with nothing on it: its counter's time is up. */
        if (lock->n_holds == 0 && lock->n_marks == 0) {
            free_lock(table, lock);
            swept++;
            continue;
        }
        swept += prune(turn, lock, limit - swept);
        settle(table, lock);
    }
    return swept;
}

void hf__mem_free_leases(hf__mem_table *table) {
    const hf__mem_turn end = {.table = table, .now_ns = UINT64_MAX};
    hf__map_node *node;

    while ((node = hf__map_next(&table->locks, NULL)) != NULL) {
        mem_lock *lock = hf__of(node, mem_lock, node);
        prune(&end, lock, UINT32_MAX);
        free_lock(table, lock);
    }
    hf__map_fini(&table->locks);
    hf__map_fini(&table->owners);
}
