/*
 * The SQLite store, as its own files see it. How it works as a whole is told in store/sqlite.c,
 * what it keeps in store/sqlite-schema.c.
 *
 * A store has two sides. The loop's side owns the queue, the handles and the watches. The worker's
 * side owns the connection and the batch in hand: it is a libuv work item, or, where the thread may
 * block, the loop's own thread. `working` says whose turn it is; only one side ever touches the
 * other's fields, and the hand-over is libuv's.
 */
#ifndef HF_STORE_SQLITE_STORE_H
#define HF_STORE_SQLITE_STORE_H

#include "core/store.h"
#include "driver/sqlite.h"
#include "util/clock.h"

/* The statements; their text is in sqlite-schema.c, in the same order. */
#define HF__SQLITE_STATEMENTS(X) \
    X(META_GET)                  \
    X(META_SET)                  \
    X(LEASE_CLEAR)               \
    X(LEASE_OF_KEY)              \
    X(LEASE_PUT)                 \
    X(LEASE_OWNED)               \
    X(LEASE_RENEW)               \
    X(LEASE_LENGTHEN)            \
    X(LEASE_DROP)                \
    X(LEASE_REMOVE)              \
    X(LEASE_REMOVE_LAPSED)       \
    X(LEASE_COUNT_TOKEN)         \
    X(LEASE_LIST)                \
    X(LEASE_COUNT_KEY)           \
    X(LEASE_SWEEP)               \
    X(ENTRY_GET)                 \
    X(ENTRY_VALUE)               \
    X(ENTRY_PUT)                 \
    X(ENTRY_REMOVE)              \
    X(ENTRY_RENEW)               \
    X(ENTRY_BURY)                \
    X(ENTRY_SWEEP)

enum hf__sqlite_statement {
#define X(name) HF__ST_##name,
    HF__SQLITE_STATEMENTS(X)
#undef X
        HF__ST_COUNT
};

/* Fields common to every statement that selects whole leases: column numbers. */
enum {
    HF__LEASE_KEY,
    HF__LEASE_TOKEN,
    HF__LEASE_UNTIL,
    HF__LEASE_LIMIT,
    HF__LEASE_FENCE,
    HF__LEASE_SINCE,
    HF__LEASE_KEYS,
    HF__LEASE_WHO,
    HF__LEASE_NOTE
};

/* One transaction, as the ops in it see it. */
typedef struct hf__sqlite_turn {
    uint64_t now_ns;  /* leases count by this; INT64_MAX where they are all of another boot */
    uint64_t now_us;  /* CLOCK_REALTIME */
    uint64_t counter; /* the last fence or version given */
    uint64_t epoch;   /* grows with every boot that the file sees */
    bool changed;     /* the row of `meta` must be written */
} hf__sqlite_turn;

/* One question of the watches: has what they saw changed? */
typedef struct hf__sqlite_check {
    const hf__watch *watch; /* only compared; the worker does not follow it */
    hf_slice key;           /* a copy, behind the array */
    uint8_t space;
    bool excluded; /* held exclusively: no take could be admitted */
    uint64_t seen;
} hf__sqlite_check;

typedef struct hf__sqlite_instance {
    hf_store base;
    hf__sqlite_file file;
    char *path;
    uint64_t busy_ms;
    hf_token self; /* names this instance where it waits */

    /* The loop's side. */
    hf__op_list queue;     /* accepted, not begun */
    hf__op_list cancelled; /* to be ended in the next turn */
    hf_op *closing;
    uv_idle_t idle; /* active while there is something to begin */
    uv_work_t work;
    uv_fs_event_t events; /* on the log: every commit of any process writes to it */
    uv_timer_t throttle;  /* runs until the next check may be made */
    uv_timer_t poll;      /* runs while there are watches */
    uint32_t n_handles;   /* not closed yet */
    bool has_handles;
    bool working;
    bool armed;      /* `events` is active */
    bool blind;      /* it cannot be */
    bool want_check; /* something may have changed since the last check began */
    bool want_checkpoint;
    uint32_t quiet;      /* turns of `poll` without a watch */
    uint32_t fruitless;  /* checks in a row that found nothing */
    uint64_t checked_ns; /* uv_hrtime of the last check */
    uint64_t generation; /* of the connection that `events` watches */
    int checkpoint_step; /* frames in the log that call for a checkpoint */
    int checkpoint_at;   /* and for the next one */
    hf__node watches;
    hf__node fresh; /* watches that have seen nothing yet */

    /* The worker's side while `working`, else the loop's. */
    hf__op_list batch;
    hf__sqlite conn;
    hf__sqlite_turn turn;
    uint64_t opened;    /* counts connections */
    char seen_boot[64]; /* our boot id, once the open file was found to be of this boot */
    bool moved;         /* the file was found replaced: to be told */
    hf__sqlite_check *checks;
    size_t n_checks;
    bool checks_failed;
    bool close_connection;
    bool checkpoint;
} hf__sqlite_instance;

/* sqlite-schema.c */
extern const char *const hf__sqlite_schema[];
extern const char *const hf__sqlite_sql[];
#define HF__SQLITE_APPLICATION 0x48466c64 /* "HFld" */
#define HF__SQLITE_VERSION 1

static inline sqlite3_stmt *hf__st(const hf__sqlite_instance *s, enum hf__sqlite_statement name) {
    return s->conn.statements[name];
}

/* sqlite-batch.c: the worker's side. Runs `batch`; each op has its result afterwards, none is
 * ended. */
void hf__sqlite_run_batch(hf__sqlite_instance *s);
/* Answers `checks`. */
void hf__sqlite_run_checks(hf__sqlite_instance *s);

/* An instant that SQLite's signed integers can hold. */
static inline uint64_t hf__sqlite_until(uint64_t now_ns, uint64_t ms) {
    uint64_t until = hf__add_ms(now_ns, ms);
    return until > INT64_MAX ? INT64_MAX : until;
}

static inline void hf__sqlite_refuse(hf_op *op, hf_refusal why) {
    op->applied = false;
    op->refused = (uint8_t)why;
}

/* One op each, within a transaction. They return an SQLite code: anything but SQLITE_OK asks for
 * the whole transaction to be rolled back. What is the op's own affair they put into it. */
int hf__sqlite_take(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_keep(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_drop(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_list(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_get(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_put(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_del(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_add(hf__sqlite_instance *s, hf_op *op);
int hf__sqlite_keep_claim(hf__sqlite_instance *s, hf_op *op);

/* The next number, for a fence or a version: above all that this file has given. 0 when there is
 * none. */
uint64_t hf__sqlite_next(hf__sqlite_instance *s);

/* What a watch compares: never 0, and equal as long as nothing of interest has changed. */
int hf__sqlite_check_lease(hf__sqlite_instance *s, hf__sqlite_check *check);
int hf__sqlite_check_entry(hf__sqlite_instance *s, hf__sqlite_check *check);

/* sqlite-watch.c: the loop's side. */
void hf__sqlite_watch(hf_store *store, hf__watch *watch);
void hf__sqlite_unwatch(hf_store *store, hf__watch *watch);
void hf__sqlite_watch_init(hf__sqlite_instance *s);
/* Copies the questions for the worker, if it is time to ask. */
void hf__sqlite_watch_before(hf__sqlite_instance *s);
/* Takes the answers, and what refused ops have seen, and fires. Before ops are ended. */
void hf__sqlite_watch_after(hf__sqlite_instance *s);
/* Stops the handles. */
void hf__sqlite_watch_stop(hf__sqlite_instance *s);

/* sqlite.c: makes sure that the worker gets a turn soon; and that the handles are there. */
void hf__sqlite_wake(hf__sqlite_instance *s);
void hf__sqlite_handles(hf__sqlite_instance *s);

#endif
