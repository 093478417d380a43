/*
 * The worker's side: a batch of ops becomes one transaction.
 *
 * Every op looks first and then writes, so an SQLite error in the middle is rare (no memory, no
 * space, a bad disk). The whole transaction is then rolled back, since an op may have written half
 * of what it wanted, and where another try makes sense its ops run again, each in a transaction of
 * its own: so one that fails changes nothing and disturbs nobody, and no savepoints are paid for.
 */
#include "store/sqlite-store.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* What is known of a range of ops: from `first` up to `end`, which is not one of them. */
struct range {
    hf_op *first;
    hf_op *end;
    bool writes;
    bool durable;
    uint64_t busy_ms; /* how long they will wait for other processes */
};

static bool is_write(const hf_op *op) {
    return op->verb != HF_GET && op->verb != HF_LIST && op->verb != HF_OPEN;
}

/* What a holder has dies with the machine; what is stored does not. */
static bool is_durable(const hf_op *op) {
    return op->verb == HF_PUT || op->verb == HF_DEL || op->verb == HF_ADD;
}

static struct range survey(const hf__sqlite_instance *s, hf_op *first, hf_op *end) {
    struct range r = {.first = first, .end = end};
    uint64_t now = hf__now_ns(s->base.env.clock);
    uint64_t latest = 0;

    for (hf_op *op = first; op != end; op = op->next) {
        uint64_t left = op->deadline_ns == 0 ? HF_FOREVER : hf__ms_until(now, op->deadline_ns);
        if (left > latest) latest = left;
        r.writes = r.writes || is_write(op);
        r.durable = r.durable || is_durable(op);
    }
    r.busy_ms = latest < s->busy_ms ? latest : s->busy_ms;
    return r;
}

static void fail(struct range r, const hf_error *error) {
    for (hf_op *op = r.first; op != r.end; op = op->next) {
        op->error = *error;
        op->applied = false;
        op->refused = HF_NOT_REFUSED;
        /* Reading leaves nothing in doubt. */
        if (!is_write(op)) op->error.flags &= ~HF_OUTCOME_UNKNOWN;
    }
}

/* Takes back what the ops have been told. */
static void forget(struct range r) {
    for (hf_op *op = r.first; op != r.end; op = op->next) {
        op->phase = HF__OP_FREE;
        hf_op_reset(op);
        op->phase = HF__OP_PENDING;
    }
}

/* ---------------------------------------------------------------- the file's one row */

uint64_t hf__sqlite_next(hf__sqlite_instance *s) {
    if (s->turn.counter >= HF_INT_MAX) return 0;
    s->turn.changed = true;
    return ++s->turn.counter;
}

static const char *boot_id(const hf__sqlite_instance *s) {
    const char *id = s->base.env.clock->boot_id;
    return id != NULL ? id : hf__clock_system()->boot_id;
}

/* Once the file was of our boot, and as long as that lasts, only another machine can have changed
 * it: one of a file system that we took for a local one. To take the file back would end that one's
 * leases. */
static bool is_shared(const hf__sqlite_instance *s, hf_error *error) {
    if (strcmp(s->seen_boot, boot_id(s)) != 0) return false;
    hf__error_set(error, HF_ENETFS, 0,
                  "%s is also used by another machine, whose locks and ours cannot see each other: "
                  "give each its own file, or use a server",
                  hf__sqlite_shown(s->path));
    return true;
}

/* All leases are of another boot, and so are the epoch's claims. */
static int begin_epoch(hf__sqlite_instance *s) {
    s->turn.epoch++;
    s->turn.counter = hf__next_fence(s->turn.counter, false, s->turn.now_us);
    s->turn.changed = true;
    return hf__sqlite_run(hf__st(s, HF__ST_LEASE_CLEAR));
}

/* Reads the row, at the start of every transaction. */
static int begin_turn(hf__sqlite_instance *s, bool writes, hf_error *error) {
    sqlite3_stmt *st = hf__st(s, HF__ST_META_GET);
    const char *boot = boot_id(s);
    bool same_boot = false;
    uint64_t version = 0;
    int rc;

    s->turn = (hf__sqlite_turn){.now_ns = hf__now_ns(s->base.env.clock),
                                .now_us = hf__real_us(s->base.env.clock)};
    if (sqlite3_step(st) == SQLITE_ROW) {
        hf_slice id = hf__column_slice(st, 3);
        version = hf__column_u64(st, 0);
        s->turn.counter = hf__column_u64(st, 1);
        s->turn.epoch = hf__column_u64(st, 2);
        same_boot = hf__slice_equal(id, (hf_slice){boot, strlen(boot)});
    }
    rc = sqlite3_reset(st);
    if (rc != SQLITE_OK) return rc;
    if (version == 0) return SQLITE_CORRUPT;
    if (version > HF__SQLITE_VERSION) {
        hf__error_set(error, HF_ESCHEMA, 0,
                      "%s has been migrated by a newer version of Holdfast: update this program",
                      hf__sqlite_shown(s->path));
        return SQLITE_ERROR;
    }
    if (same_boot) {
        (void)snprintf(s->seen_boot, sizeof s->seen_boot, "%s", boot);
        return SQLITE_OK;
    }
    if (is_shared(s, error)) return SQLITE_ERROR;
    if (writes) return begin_epoch(s);
    /* Nothing to be read is of this boot. */
    s->turn.now_ns = INT64_MAX;
    s->turn.epoch++;
    return SQLITE_OK;
}

static int end_turn(hf__sqlite_instance *s) {
    sqlite3_stmt *st = hf__st(s, HF__ST_META_SET);
    const char *boot = boot_id(s);

    if (!s->turn.changed) return SQLITE_OK;
    hf__bind_u64(st, 1, s->turn.counter);
    hf__bind_u64(st, 2, s->turn.epoch);
    hf__bind_text(st, 3, (hf_slice){boot, strlen(boot)});
    return hf__sqlite_run(st);
}

/* ---------------------------------------------------------------- ops */

static int sweep_with(hf__sqlite_instance *s, hf_op *op, enum hf__sqlite_statement name,
                      uint64_t now) {
    sqlite3_stmt *st = hf__st(s, name);
    int rc;

    if (op->swept >= op->limit) return SQLITE_OK;
    hf__bind_u64(st, 1, now);
    hf__bind_u64(st, 2, op->limit - op->swept);
    rc = hf__sqlite_run(st);
    if (rc == SQLITE_OK) op->swept += (uint32_t)sqlite3_changes(s->conn.db);
    return rc;
}

static int sweep(hf__sqlite_instance *s, hf_op *op) {
    int rc = sweep_with(s, op, HF__ST_LEASE_SWEEP, s->turn.now_ns);

    hf__bind_u64(hf__st(s, HF__ST_ENTRY_BURY), 3, HF__TOMBSTONE_MS);
    if (rc == SQLITE_OK) rc = sweep_with(s, op, HF__ST_ENTRY_SWEEP, s->turn.now_us);
    if (rc == SQLITE_OK) rc = sweep_with(s, op, HF__ST_ENTRY_BURY, s->turn.now_us);
    op->applied = rc == SQLITE_OK;
    return rc;
}

static int carry_out(hf__sqlite_instance *s, hf_op *op) {
    op->stamp = 0;
    switch ((hf_verb)op->verb) {
    case HF_TAKE: return hf__sqlite_take(s, op);
    case HF_KEEP:
        return op->space == HF_LEASES ? hf__sqlite_keep(s, op) : hf__sqlite_keep_claim(s, op);
    case HF_DROP: return hf__sqlite_drop(s, op);
    case HF_GET: return hf__sqlite_get(s, op);
    case HF_PUT: return hf__sqlite_put(s, op);
    case HF_DEL: return hf__sqlite_del(s, op);
    case HF_ADD: return hf__sqlite_add(s, op);
    case HF_LIST: return hf__sqlite_list(s, op);
    case HF_SWEEP: return sweep(s, op);
    case HF_OPEN: op->applied = true; return SQLITE_OK;
    case HF_CLOSE: break;
    }
    assert(false && "a verb that the queue does not take");
    return SQLITE_MISUSE;
}

/* ---------------------------------------------------------------- the connection */

static hf_code ensure_open(hf__sqlite_instance *s, hf_error *error) {
    hf__error_clear(error);
    if (s->conn.broken) hf__sqlite_close(&s->conn);
    if (s->conn.db != NULL) {
        if (!hf__sqlite_moved(&s->conn)) return HF_OK;
        /* What was in it is out of reach: say so, and go on with what stands at the path now. */
        hf__sqlite_close(&s->conn);
        s->moved = true;
    }
    s->seen_boot[0] = '\0';
    if (hf__sqlite_open(&s->conn, &s->file, s->busy_ms, error) == HF_OK) s->opened++;
    return error->code;
}

/* ---------------------------------------------------------------- transactions */

/* Runs all within the transaction that has been begun. False: it was rolled back, for `error`. */
static bool run_all(hf__sqlite_instance *s, struct range r, hf_error *error) {
    int rc = begin_turn(s, r.writes, error);

    for (hf_op *op = r.first; rc == SQLITE_OK && op != r.end; op = op->next)
        rc = carry_out(s, op);
    if (rc == SQLITE_OK) rc = end_turn(s);
    if (rc == SQLITE_OK) return true;
    if (error->code == HF_OK) (void)hf__sqlite_error(&s->conn, rc, error);
    hf__sqlite_rollback(&s->conn);
    return false;
}

/* One transaction. True when the ops have their results, or their error; false, with nothing done,
 * when each should be tried on its own. */
static bool attempt(hf__sqlite_instance *s, hf_op *first, hf_op *end) {
    struct range r = survey(s, first, end);
    hf_error error;

    if (ensure_open(s, &error) != HF_OK ||
        hf__sqlite_begin(&s->conn, r.writes, r.durable, r.busy_ms, &error) != HF_OK) {
        fail(r, &error);
        return true;
    }
    if (run_all(s, r, &error) && hf__sqlite_commit(&s->conn, &error) == HF_OK) return true;
    forget(r);
    /* What one op asks for may be too much where others are modest: a large value, a page that is
     * damaged. A disk that fails, fails for all. */
    if (first->next != end && (error.code == HF_ENOMEM || error.code == HF_EFULL ||
                               error.code == HF_ENOTADB || error.code == HF_ETOOBIG))
        return false;
    fail(r, &error);
    return true;
}

void hf__sqlite_run_batch(hf__sqlite_instance *s) {
    if (attempt(s, s->batch.first, NULL)) return;
    for (hf_op *op = s->batch.first; op != NULL; op = op->next)
        (void)attempt(s, op, op->next);
}

/* ---------------------------------------------------------------- watching */

static int answer_all(hf__sqlite_instance *s, hf_error *error) {
    int rc = begin_turn(s, false, error);

    for (size_t i = 0; rc == SQLITE_OK && i < s->n_checks; i++) {
        hf__sqlite_check *check = &s->checks[i];
        rc = check->space == HF_LEASES ? hf__sqlite_check_lease(s, check)
                                       : hf__sqlite_check_entry(s, check);
    }
    return rc;
}

void hf__sqlite_run_checks(hf__sqlite_instance *s) {
    hf_error error;

    s->checks_failed = true;
    if (ensure_open(s, &error) != HF_OK) return;
    if (hf__sqlite_begin(&s->conn, false, false, s->busy_ms, &error) != HF_OK) return;
    s->checks_failed = answer_all(s, &error) != SQLITE_OK;
    hf__sqlite_rollback(&s->conn);
}
