/*
 * What the memory store keeps: one table per client, shared by its instances. Every function here
 * is called with the table's mutex (hf__shared.lock) held; that is the one lock, and it is never
 * held while foreign code runs, but for the allocator and the clock.
 */
#ifndef HF_STORE_MEMORY_TABLE_H
#define HF_STORE_MEMORY_TABLE_H

#include "core/op.h"
#include "core/store.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/map.h"

typedef struct hf__mem_table {
    hf__map locks;      /* key -> what is held and waited for under it, and its fence counter */
    hf__map owners;     /* token -> what it holds */
    hf__heap lock_due;  /* locks by when something of them lapses */
    hf__map entries[3]; /* by hf_space; the first is empty */
    hf__heap entry_due; /* entries by when they expire, or are forgotten */
    hf__node instances; /* of the store, for their watches */
    uint64_t version;   /* the last one given */
    const hf_allocator *allocator;
} hf__mem_table;

/* One turn of work on the table: at one instant. */
typedef struct hf__mem_turn {
    hf__mem_table *table;
    uint64_t now_ns;
    uint64_t now_us; /* CLOCK_REALTIME */
} hf__mem_turn;

/* Each carries out one op and fills its results. */
void hf__mem_take(const hf__mem_turn *turn, hf_op *op);
void hf__mem_keep(const hf__mem_turn *turn, hf_op *op);
void hf__mem_drop(const hf__mem_turn *turn, hf_op *op);
void hf__mem_list(const hf__mem_turn *turn, hf_op *op);
void hf__mem_get(const hf__mem_turn *turn, hf_op *op);
void hf__mem_put(const hf__mem_turn *turn, hf_op *op);
void hf__mem_del(const hf__mem_turn *turn, hf_op *op);
void hf__mem_add(const hf__mem_turn *turn, hf_op *op);
/* Renews a claim (keep of an entry). */
void hf__mem_keep_entry(const hf__mem_turn *turn, hf_op *op);

/* Remove up to `limit` things whose time is up; how many there were. */
uint32_t hf__mem_sweep_leases(const hf__mem_turn *turn, uint32_t limit);
uint32_t hf__mem_sweep_entries(const hf__mem_turn *turn, uint32_t limit);

/* Free everything of their kind. */
void hf__mem_free_leases(hf__mem_table *table);
void hf__mem_free_entries(hf__mem_table *table);

/* Hints every instance's watches of `key`. */
void hf__mem_changed(hf__mem_table *table, hf_space space, hf_slice key);

static inline void hf__mem_refuse(hf_op *op, hf_refusal why) {
    op->applied = false;
    op->refused = (uint8_t)why;
}

static inline void hf__mem_out_of_memory(hf_op *op) {
    op->applied = false;
    op->refused = HF_NOT_REFUSED;
    hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
}

#endif
