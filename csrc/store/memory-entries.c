/*
 * Entries of the memory store: values and records.
 *
 * An entry that was deleted or has expired while it remembered a fence stays as a tombstone: the
 * memory of the fence, without a value.
 */
#include "store/memory-table.h"

#include "util/alloc.h"
#include "util/clock.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

typedef struct mem_entry {
    hf__map_node node;
    hf__heap_node due; /* in table->entry_due: when it expires or, a tombstone, is forgotten */
    hf_space space;
    bool is_tombstone;
    bool claimed;
    uint8_t format;
    uint32_t attempt;
    hf_token token;
    uint64_t version;
    uint64_t lease_until;
    uint64_t kept_until; /* HF_FOREVER: does not expire; a tombstone's: when it died */
    uint64_t stored_us;
    hf_slice value;     /* owned */
    hf_slice fence_key; /* owned; empty: no fence is remembered */
    uint64_t fence;
    char key[];
} mem_entry;

static mem_entry *find(const hf__mem_table *table, const hf_op *op) {
    hf__map_node *node = hf__map_get(&table->entries[op->space], op->keys[0]);
    return node == NULL ? NULL : hf__of(node, mem_entry, node);
}

/* `entry` may be NULL in the questions that follow. */
static bool is_present(const mem_entry *entry, uint64_t now_ns) {
    return entry != NULL && !entry->is_tombstone && entry->kept_until > now_ns;
}

static uint64_t forgotten_at(const mem_entry *entry) {
    return hf__add_ms(entry->kept_until, HF__TOMBSTONE_MS);
}

static bool remembers_fence(const mem_entry *entry, uint64_t now_ns) {
    return entry != NULL && entry->fence_key.len > 0 && forgotten_at(entry) > now_ns;
}

static bool is_claimable(const mem_entry *entry, uint64_t now_ns) {
    return !is_present(entry, now_ns) || (entry->claimed && entry->lease_until <= now_ns);
}

static void free_slice(const hf__mem_table *table, hf_slice *s) {
    hf__free(table->allocator, (void *)(uintptr_t)s->data);
    *s = (hf_slice){NULL, 0};
}

static void free_entry(hf__mem_table *table, mem_entry *entry) {
    hf__heap_remove(&table->entry_due, &entry->due);
    hf__map_remove(&table->entries[entry->space], &entry->node);
    free_slice(table, &entry->value);
    free_slice(table, &entry->fence_key);
    hf__free(table->allocator, entry);
}

/* After any change of its times. */
static void settle(hf__mem_table *table, mem_entry *entry) {
    hf__heap_remove(&table->entry_due, &entry->due);
    entry->due.at = entry->is_tombstone ? forgotten_at(entry) : entry->kept_until;
    if (entry->due.at != HF_FOREVER) hf__heap_insert(&table->entry_due, &entry->due);
}

/* Leaves nothing of a present entry but its fence; without one it goes whole. */
static void bury(hf__mem_table *table, mem_entry *entry, uint64_t died_ns) {
    if (entry->fence_key.len == 0) {
        free_entry(table, entry);
        return;
    }
    free_slice(table, &entry->value);
    entry->is_tombstone = true;
    entry->claimed = false;
    entry->kept_until = died_ns;
    settle(table, entry);
}

/* op->entry and op->out, of an entry that may be absent. False when memory is out. */
static bool tell(const hf__mem_turn *turn, const mem_entry *entry, hf_op *op) {
    if (!is_present(entry, turn->now_ns)) return true;
    if (!hf__op_set_out(op, entry->value.data, entry->value.len)) {
        hf__mem_out_of_memory(op);
        return false;
    }
    op->entry = (hf_entry){
        .present = true,
        .claimed = entry->claimed,
        .format = entry->format,
        .attempt = entry->attempt,
        .version = entry->version,
        .lease_left_ms = entry->claimed ? hf__ms_until(turn->now_ns, entry->lease_until) : 0,
        .kept_left_ms = hf__ms_until(turn->now_ns, entry->kept_until),
        .stored_us = entry->stored_us,
        .fence = entry->fence,
        .token = entry->token,
    };
    return true;
}

static bool refuse(const hf__mem_turn *turn, const mem_entry *entry, hf_op *op, hf_refusal why) {
    hf__mem_refuse(op, why);
    if ((op->flags & HF_OP_WANT_ENTRY) != 0) tell(turn, entry, op);
    return false;
}

static hf_refusal judge_fence(const hf__mem_turn *turn, const mem_entry *entry, const hf_op *op) {
    if (op->fence_key.len == 0 || !remembers_fence(entry, turn->now_ns)) return HF_NOT_REFUSED;
    if (!hf__slice_equal(entry->fence_key, op->fence_key)) return HF_REFUSED_FENCE_KEY;
    return entry->fence > op->fence_in ? HF_REFUSED_FENCE : HF_NOT_REFUSED;
}

static hf_refusal judge_condition(const hf__mem_turn *turn, const mem_entry *entry,
                                  const hf_op *op) {
    bool present = is_present(entry, turn->now_ns);

    switch ((hf_condition)op->condition) {
    case HF_IF_ANY: return HF_NOT_REFUSED;
    case HF_IF_ABSENT: return present ? HF_REFUSED_PRESENT : HF_NOT_REFUSED;
    case HF_IF_VERSION:
        return present && entry->version == op->if_version ? HF_NOT_REFUSED : HF_REFUSED_VERSION;
    case HF_IF_TOKEN:
        return present && hf__token_equal(&entry->token, &op->token) ? HF_NOT_REFUSED
                                                                     : HF_REFUSED_OWNER;
    case HF_IF_CLAIMABLE:
        return is_claimable(entry, turn->now_ns) ? HF_NOT_REFUSED : HF_REFUSED_PRESENT;
    }
    return HF_REFUSED_VERSION;
}

/* Whether condition and fence allow the write; else the op is refused. */
static bool judge(const hf__mem_turn *turn, const mem_entry *entry, hf_op *op) {
    hf_refusal why = judge_fence(turn, entry, op);

    if (why == HF_REFUSED_FENCE) op->fence = entry->fence;
    if (why == HF_NOT_REFUSED) why = judge_condition(turn, entry, op);
    return why == HF_NOT_REFUSED || refuse(turn, entry, op, why);
}

static mem_entry *add_entry(hf__mem_table *table, const hf_op *op) {
    hf_slice key = op->keys[0];
    mem_entry *entry = hf__zalloc(table->allocator, sizeof *entry + key.len);

    if (entry == NULL) return NULL;
    memcpy(entry->key, key.data, key.len);
    entry->space = (hf_space)op->space;
    entry->is_tombstone = true;
    if (hf__map_insert(&table->entries[entry->space], &entry->node,
                       (hf_slice){entry->key, key.len}))
        return entry;
    hf__free(table->allocator, entry);
    return NULL;
}

/* All that a write needs, made before anything is changed. */
typedef struct draft {
    mem_entry *entry;
    hf_slice value;
    hf_slice fence_key; /* empty: what is remembered stays */
} draft;

static bool copy_slice(const hf__mem_table *table, hf_slice from, hf_slice *to) {
    char *copy = NULL;

    if (from.len > 0) {
        copy = hf__copy(table->allocator, from);
        if (copy == NULL) return false;
    }
    *to = (hf_slice){copy, from.len};
    return true;
}

/* False, with op->error set and nothing left behind, when memory is out. */
static bool prepare(const hf__mem_turn *turn, mem_entry *entry, hf_op *op, hf_slice value,
                    draft *made) {
    hf__mem_table *table = turn->table;

    *made = (draft){.entry = entry};
    if (copy_slice(table, value, &made->value) &&
        copy_slice(table, op->fence_key, &made->fence_key)) {
        if (entry == NULL) made->entry = add_entry(table, op);
        if (made->entry != NULL) return true;
    }
    free_slice(table, &made->value);
    free_slice(table, &made->fence_key);
    hf__mem_out_of_memory(op);
    return false;
}

/* Puts the new value in place, and the fence; the rest is the caller's. */
static void commit(const hf__mem_turn *turn, const draft *made, hf_op *op) {
    mem_entry *entry = made->entry;

    /* What is forgotten must not come back to life with the entry. */
    if (made->fence_key.len > 0 || !remembers_fence(entry, turn->now_ns)) {
        free_slice(turn->table, &entry->fence_key);
        entry->fence_key = made->fence_key;
        entry->fence = made->fence_key.len > 0 ? op->fence_in : 0;
    }
    free_slice(turn->table, &entry->value);
    entry->value = made->value;
    entry->is_tombstone = false;
    entry->token = op->token;
    entry->version = ++turn->table->version;
    entry->stored_us = turn->now_us;
    op->version = entry->version;
    op->applied = true;
}

static uint64_t kept_until(const hf__mem_turn *turn, const hf_op *op) {
    return op->ttl_ms == 0 ? HF_FOREVER : hf__add_ms(turn->now_ns, op->ttl_ms);
}

void hf__mem_get(const hf__mem_turn *turn, hf_op *op) {
    if (op->keys[0].len == 0 || tell(turn, find(turn->table, op), op)) op->applied = true;
}

/* The put has landed before, and its answer may have been lost. */
static bool has_landed(const hf__mem_turn *turn, const mem_entry *entry, const hf_op *op) {
    return is_present(entry, turn->now_ns) && hf__token_equal(&entry->token, &op->token) &&
           !(op->condition == HF_IF_TOKEN && entry->claimed);
}

void hf__mem_put(const hf__mem_turn *turn, hf_op *op) {
    mem_entry *entry = find(turn->table, op);
    bool present = is_present(entry, turn->now_ns);
    uint32_t attempt = 1;
    draft made;

    if (has_landed(turn, entry, op)) {
        op->applied = true;
        op->version = entry->version;
        op->attempt = entry->attempt;
        return;
    }
    if (!judge(turn, entry, op)) return;
    if (present && op->condition == HF_IF_CLAIMABLE) attempt = entry->attempt + 1;
    if (present && op->condition == HF_IF_TOKEN) attempt = entry->attempt;
    if (!prepare(turn, entry, op, op->value, &made)) return;
    commit(turn, &made, op);
    entry = made.entry;
    entry->format = op->format;
    entry->attempt = op->attempt = attempt;
    entry->claimed = op->lease_ms > 0;
    entry->lease_until = entry->claimed ? hf__add_ms(turn->now_ns, op->lease_ms) : 0;
    if (!present || (op->flags & HF_OP_KEEP_TTL) == 0) entry->kept_until = kept_until(turn, op);
    settle(turn->table, entry);
    hf__mem_changed(turn->table, entry->space, entry->node.key);
}

void hf__mem_del(const hf__mem_turn *turn, hf_op *op) {
    mem_entry *entry = find(turn->table, op);
    hf_slice fence_key = {NULL, 0};

    if (!is_present(entry, turn->now_ns)) {
        hf_refusal why = judge_fence(turn, entry, op);
        if (why == HF_REFUSED_FENCE) op->fence = entry->fence;
        hf__mem_refuse(op, why == HF_NOT_REFUSED ? HF_REFUSED_VERSION : why);
        return;
    }
    if (!judge(turn, entry, op)) return;
    if (op->fence_key.len > 0) {
        if (!copy_slice(turn->table, op->fence_key, &fence_key)) {
            hf__mem_out_of_memory(op);
            return;
        }
        free_slice(turn->table, &entry->fence_key);
        entry->fence_key = fence_key;
        entry->fence = op->fence_in;
    }
    op->applied = true;
    hf__mem_changed(turn->table, entry->space, entry->node.key);
    bury(turn->table, entry, turn->now_ns);
}

/* Reads an integer as JSON writes it: -?(0|[1-9][0-9]*), within the safe ones. */
static bool read_integer(hf_slice text, int64_t *value) {
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t at = negative ? 1 : 0;
    int64_t n = 0;

    if (at == text.len || (text.data[at] == '0' && text.len > at + 1)) return false;
    for (; at < text.len; at++) {
        if (text.data[at] < '0' || text.data[at] > '9') return false;
        n = n * 10 + (text.data[at] - '0');
        if (n > HF_INT_MAX) return false;
    }
    *value = negative ? -n : n;
    return true;
}

/* The sum; or why not. */
static hf_refusal add_up(const mem_entry *entry, bool present, hf_op *op, int64_t *sum) {
    int64_t base = op->initial;

    if (present) {
        if (entry->format != HF_JSON || entry->claimed || !read_integer(entry->value, &base))
            return HF_REFUSED_TYPE;
    }
    if (__builtin_add_overflow(base, op->delta, sum)) return HF_REFUSED_BOUNDS;
    if (*sum > HF_INT_MAX || *sum < -HF_INT_MAX) return HF_REFUSED_BOUNDS;
    if ((op->flags & HF_OP_HAS_MIN) != 0 && *sum < op->min) return HF_REFUSED_BOUNDS;
    if ((op->flags & HF_OP_HAS_MAX) != 0 && *sum > op->max) return HF_REFUSED_BOUNDS;
    return HF_NOT_REFUSED;
}

void hf__mem_add(const hf__mem_turn *turn, hf_op *op) {
    mem_entry *entry = find(turn->table, op);
    bool present = is_present(entry, turn->now_ns);
    hf_refusal why;
    char text[24];
    int64_t sum;
    int len;
    draft made;

    if (!judge(turn, entry, op)) return;
    why = add_up(entry, present, op, &sum);
    if (why != HF_NOT_REFUSED) {
        refuse(turn, entry, op, why);
        return;
    }
    len = snprintf(text, sizeof text, "%lld", (long long)sum);
    if (!prepare(turn, entry, op, (hf_slice){text, (size_t)len}, &made)) return;
    commit(turn, &made, op);
    op->sum = sum;
    entry = made.entry;
    if (!present) {
        entry->format = HF_JSON;
        entry->attempt = 1;
        entry->claimed = false;
        entry->kept_until = kept_until(turn, op);
    }
    settle(turn->table, entry);
    hf__mem_changed(turn->table, entry->space, entry->node.key);
}

void hf__mem_keep_entry(const hf__mem_turn *turn, hf_op *op) {
    mem_entry *entry = find(turn->table, op);

    if (!is_present(entry, turn->now_ns) || !entry->claimed || entry->lease_until <= turn->now_ns ||
        !hf__token_equal(&entry->token, &op->token)) {
        hf__mem_refuse(op, HF_REFUSED_OWNER);
        return;
    }
    entry->lease_until = hf__add_ms(turn->now_ns, op->ttl_ms);
    op->applied = true;
}

uint32_t hf__mem_sweep_entries(const hf__mem_turn *turn, uint32_t limit) {
    hf__mem_table *table = turn->table;
    uint32_t swept = 0;
    hf__heap_node *node;

    while (swept < limit && (node = hf__heap_min(&table->entry_due)) != NULL &&
           node->at <= turn->now_ns) {
        mem_entry *entry = hf__of(node, mem_entry, due);

        if (entry->is_tombstone)
            free_entry(table, entry);
        else
            bury(table, entry, entry->kept_until);
        swept++;
    }
    return swept;
}

void hf__mem_free_entries(hf__mem_table *table) {
    for (size_t i = 0; i < 3; i++) {
        hf__map_node *node;
        while ((node = hf__map_next(&table->entries[i], NULL)) != NULL)
            free_entry(table, hf__of(node, mem_entry, node));
        hf__map_fini(&table->entries[i]);
    }
}
