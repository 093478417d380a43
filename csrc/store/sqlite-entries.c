/*
 * Entries in SQLite: values and records. Every op reads the row, decides, and writes once, within
 * the write transaction of its batch: nothing can come in between.
 */
#include "store/sqlite-store.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define US_PER_MS UINT64_C(1000)

enum { PLAIN = 0, CLAIMED = 1, TOMBSTONE = 2 };

/* A row, but for its value. */
struct row {
    bool exists;
    bool present;   /* and neither deleted nor expired */
    bool remembers; /* a fence, still */
    bool lapsed;    /* a claim whose lease is past */
    uint8_t state;
    uint8_t format;
    uint32_t attempt;
    uint64_t version;
    uint64_t claim_until; /* 0 if past */
    uint64_t kept_until;  /* 0: for ever */
    uint64_t stored;
    uint64_t fence;
    hf_token token;
    size_t fence_key_len;
    char fence_key[HF_KEY_MAX];
};

enum {
    COL_STATE,
    COL_FORMAT,
    COL_VERSION,
    COL_TOKEN,
    COL_ATTEMPT,
    COL_CLAIM_UNTIL,
    COL_EPOCH,
    COL_KEPT_UNTIL,
    COL_STORED,
    COL_FENCE,
    COL_FENCE_KEY
};

/* An expired entry's fence is remembered for a day, as a deleted one's is: a tombstone is one kept
 * for so long. */
static bool remembers(const struct row *row, uint64_t now_us) {
    uint64_t until = row->kept_until;

    if (row->fence_key_len == 0) return false;
    if (row->state != TOMBSTONE) until += HF__TOMBSTONE_MS * US_PER_MS;
    return row->kept_until == 0 || until > now_us;
}

static void read_row(const hf__sqlite_instance *s, sqlite3_stmt *st, struct row *row) {
    hf_slice token = hf__column_slice(st, COL_TOKEN);
    hf_slice fence_key = hf__column_slice(st, COL_FENCE_KEY);

    row->exists = true;
    row->state = (uint8_t)hf__column_u64(st, COL_STATE);
    row->format = (uint8_t)hf__column_u64(st, COL_FORMAT);
    row->attempt = (uint32_t)hf__column_u64(st, COL_ATTEMPT);
    row->version = hf__column_u64(st, COL_VERSION);
    row->kept_until = hf__column_u64(st, COL_KEPT_UNTIL);
    row->stored = hf__column_u64(st, COL_STORED);
    row->fence = hf__column_u64(st, COL_FENCE);
    if (token.len == sizeof row->token.bytes) memcpy(row->token.bytes, token.data, token.len);
    if (fence_key.len <= sizeof row->fence_key) {
        row->fence_key_len = fence_key.len;
        if (fence_key.len > 0) memcpy(row->fence_key, fence_key.data, fence_key.len);
    }
    row->present =
        row->state != TOMBSTONE && (row->kept_until == 0 || row->kept_until > s->turn.now_us);
    row->remembers = remembers(row, s->turn.now_us);
    if (row->state == CLAIMED && hf__column_u64(st, COL_EPOCH) == s->turn.epoch &&
        hf__column_u64(st, COL_CLAIM_UNTIL) > s->turn.now_ns)
        row->claim_until = hf__column_u64(st, COL_CLAIM_UNTIL);
    row->lapsed = row->state == CLAIMED && row->claim_until == 0;
}

static int get_row(hf__sqlite_instance *s, uint8_t space, hf_slice key, struct row *row) {
    sqlite3_stmt *st = hf__st(s, HF__ST_ENTRY_GET);

    /* All but the bytes of a fence key, of which fence_key_len counts. */
    memset(row, 0, offsetof(struct row, fence_key));
    hf__bind_u64(st, 1, space);
    hf__bind_text(st, 2, key);
    if (sqlite3_step(st) == SQLITE_ROW) read_row(s, st, row);
    return sqlite3_reset(st);
}

static void describe(const hf__sqlite_instance *s, const struct row *row, hf_entry *entry) {
    memset(entry, 0, sizeof *entry);
    if (!row->present) return;
    entry->present = true;
    entry->claimed = row->state == CLAIMED;
    entry->format = row->format;
    entry->attempt = row->attempt;
    entry->version = row->version;
    if (row->claim_until > 0) entry->lease_left_ms = hf__ms_until(s->turn.now_ns, row->claim_until);
    entry->kept_left_ms = HF_FOREVER;
    if (row->kept_until > 0)
        entry->kept_left_ms = (row->kept_until - s->turn.now_us + US_PER_MS - 1) / US_PER_MS;
    entry->stored_us = row->stored;
    entry->fence = row->remembers ? row->fence : 0;
    entry->token = row->token;
}

/* The value of a row goes to op->out; a failure of that is the op's error. */
static int get_value(hf__sqlite_instance *s, hf_op *op) {
    sqlite3_stmt *st = hf__st(s, HF__ST_ENTRY_VALUE);

    hf__bind_u64(st, 1, op->space);
    hf__bind_text(st, 2, op->keys[0]);
    if (sqlite3_step(st) == SQLITE_ROW) {
        hf_slice value = hf__column_slice(st, 0);
        (void)hf__op_set_out(op, value.data, value.len);
    }
    return sqlite3_reset(st);
}

static int show(hf__sqlite_instance *s, hf_op *op, const struct row *row) {
    describe(s, row, &op->entry);
    return row->present ? get_value(s, op) : SQLITE_OK;
}

int hf__sqlite_get(hf__sqlite_instance *s, hf_op *op) {
    struct row row;
    int rc;

    op->applied = true;
    /* A ping: the transaction has read the file. */
    if (op->keys[0].len == 0) return SQLITE_OK;
    rc = get_row(s, op->space, op->keys[0], &row);
    if (rc == SQLITE_OK) {
        op->stamp = row.present ? row.version : 1;
        rc = show(s, op, &row);
    }
    op->applied = op->error.code == HF_OK;
    return rc;
}

/* ---------------------------------------------------------------- conditions */

static int refuse(hf__sqlite_instance *s, hf_op *op, const struct row *row, hf_refusal why) {
    hf__sqlite_refuse(op, why);
    if ((op->flags & HF_OP_WANT_ENTRY) == 0) return SQLITE_OK;
    return show(s, op, row);
}

static hf_refusal judge_fence(hf_op *op, const struct row *row) {
    hf_slice key = {row->fence_key, row->fence_key_len};

    if (op->fence_key.len == 0 || !row->remembers) return HF_NOT_REFUSED;
    if (!hf__slice_equal(key, op->fence_key)) return HF_REFUSED_FENCE_KEY;
    if (row->fence <= op->fence_in) return HF_NOT_REFUSED;
    op->fence = row->fence;
    return HF_REFUSED_FENCE;
}

static hf_refusal judge(hf_op *op, const struct row *row) {
    hf_refusal why = judge_fence(op, row);

    if (why != HF_NOT_REFUSED) return why;
    switch ((hf_condition)op->condition) {
    case HF_IF_ANY: break;
    case HF_IF_ABSENT:
        if (row->present) return HF_REFUSED_PRESENT;
        break;
    case HF_IF_VERSION:
        if (!row->present || row->version != op->if_version) return HF_REFUSED_VERSION;
        break;
    case HF_IF_TOKEN:
        if (!row->present || !hf__token_equal(&row->token, &op->token)) return HF_REFUSED_OWNER;
        break;
    case HF_IF_CLAIMABLE:
        if (row->present && !row->lapsed) return HF_REFUSED_PRESENT;
        break;
    }
    return HF_NOT_REFUSED;
}

/* ---------------------------------------------------------------- writing */

static uint64_t real_until(const hf__sqlite_instance *s, uint64_t ms) {
    uint64_t most = ((uint64_t)INT64_MAX - s->turn.now_us) / US_PER_MS;
    return s->turn.now_us + (ms < most ? ms : most) * US_PER_MS;
}

/* A write with a fence remembers it; one without leaves what is remembered. */
static void remember(const hf_op *op, struct row *row) {
    if (op->fence_key.len > 0) {
        assert(op->fence_key.len <= sizeof row->fence_key);
        row->fence_key_len = op->fence_key.len;
        memcpy(row->fence_key, op->fence_key.data, op->fence_key.len);
        row->fence = op->fence_in;
    } else if (!row->remembers) {
        row->fence_key_len = 0;
        row->fence = 0;
    }
}

static int write_row(hf__sqlite_instance *s, const hf_op *op, const struct row *row,
                     hf_slice value) {
    sqlite3_stmt *st = hf__st(s, HF__ST_ENTRY_PUT);

    hf__bind_u64(st, 1, op->space);
    hf__bind_text(st, 2, op->keys[0]);
    hf__bind_u64(st, 3, row->state);
    hf__bind_u64(st, 4, row->format);
    hf__bind_u64(st, 5, row->version);
    hf__bind_blob(st, 6, row->token.bytes, sizeof row->token.bytes);
    hf__bind_u64(st, 7, row->attempt);
    hf__bind_u64(st, 8, row->claim_until);
    hf__bind_u64(st, 9, s->turn.epoch);
    if (row->kept_until > 0)
        hf__bind_u64(st, 10, row->kept_until);
    else
        sqlite3_bind_null(st, 10);
    hf__bind_u64(st, 11, s->turn.now_us);
    hf__bind_u64(st, 12, row->fence);
    hf__bind_text(st, 13, (hf_slice){row->fence_key, row->fence_key_len});
    hf__bind_blob(st, 14, value.data, value.len);
    return hf__sqlite_run(st);
}

/* Gives `row` its new version; false, with the op's error set, when there is none left. */
static bool give_version(hf__sqlite_instance *s, hf_op *op, struct row *row) {
    row->version = hf__sqlite_next(s);
    if (row->version > 0) return true;
    hf__error_set(&op->error, HF_EIO, 0, "versions have reached 2^53: the clock is wrong");
    return false;
}

/* What a put makes of the row that is there. */
static void become(const hf__sqlite_instance *s, const hf_op *op, struct row *row) {
    bool takes_over = row->present && op->condition == HF_IF_CLAIMABLE;
    bool finishes = row->present && op->condition == HF_IF_TOKEN;

    row->attempt = takes_over ? row->attempt + 1 : finishes ? row->attempt : 1;
    if (!row->present || (op->flags & HF_OP_KEEP_TTL) == 0)
        row->kept_until = op->ttl_ms > 0 ? real_until(s, op->ttl_ms) : 0;
    row->state = op->lease_ms > 0 ? CLAIMED : PLAIN;
    row->claim_until = op->lease_ms > 0 ? hf__sqlite_until(s->turn.now_ns, op->lease_ms) : 0;
    row->format = op->format;
    row->token = op->token;
    remember(op, row);
}

int hf__sqlite_put(hf__sqlite_instance *s, hf_op *op) {
    struct row row;
    hf_refusal why;
    int rc = get_row(s, op->space, op->keys[0], &row);
    bool claim;

    if (rc != SQLITE_OK) return rc;
    claim = row.state == CLAIMED;
    /* It has landed before, and the answer may have been lost. */
    if (row.present && hf__token_equal(&row.token, &op->token) &&
        !(op->condition == HF_IF_TOKEN && claim)) {
        op->applied = true;
        op->version = row.version;
        op->attempt = row.attempt;
        return SQLITE_OK;
    }
    why = judge(op, &row);
    if (why != HF_NOT_REFUSED) return refuse(s, op, &row, why);
    become(s, op, &row);
    if (!give_version(s, op, &row)) return SQLITE_OK;
    rc = write_row(s, op, &row, op->value);
    op->applied = rc == SQLITE_OK;
    op->version = row.version;
    op->attempt = row.attempt;
    return rc;
}

int hf__sqlite_del(hf__sqlite_instance *s, hf_op *op) {
    sqlite3_stmt *st = hf__st(s, HF__ST_ENTRY_REMOVE);
    struct row row;
    hf_refusal why;
    int rc = get_row(s, op->space, op->keys[0], &row);

    if (rc != SQLITE_OK) return rc;
    why = row.present ? judge(op, &row) : judge_fence(op, &row);
    if (why == HF_NOT_REFUSED && !row.present) why = HF_REFUSED_VERSION;
    if (why != HF_NOT_REFUSED) return refuse(s, op, &row, why);
    remember(op, &row);
    if (row.fence_key_len > 0) {
        row.state = TOMBSTONE;
        row.claim_until = 0;
        row.kept_until = real_until(s, HF__TOMBSTONE_MS);
        rc = write_row(s, op, &row, (hf_slice){NULL, 0});
    } else {
        hf__bind_u64(st, 1, op->space);
        hf__bind_text(st, 2, op->keys[0]);
        rc = hf__sqlite_run(st);
    }
    op->applied = rc == SQLITE_OK;
    return rc;
}

/* ---------------------------------------------------------------- add */

/* Decimal text, as JSON writes an integer. */
static bool parse_integer(hf_slice text, int64_t *value) {
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t at = negative ? 1 : 0;
    int64_t n = 0;

    if (at == text.len || text.len - at > 16) return false;
    if (text.data[at] == '0' && text.len - at > 1) return false;
    for (; at < text.len; at++) {
        if (text.data[at] < '0' || text.data[at] > '9') return false;
        n = n * 10 + (text.data[at] - '0');
    }
    *value = negative ? -n : n;
    return n <= HF_INT_MAX;
}

/* The integer that an entry holds; `is_one` false if it holds something else. */
static int get_integer(hf__sqlite_instance *s, const hf_op *op, const struct row *row,
                       int64_t *value, bool *is_one) {
    sqlite3_stmt *st = hf__st(s, HF__ST_ENTRY_VALUE);

    *is_one = false;
    if (row->format != HF_JSON || row->state == CLAIMED) return SQLITE_OK;
    hf__bind_u64(st, 1, op->space);
    hf__bind_text(st, 2, op->keys[0]);
    if (sqlite3_step(st) == SQLITE_ROW) *is_one = parse_integer(hf__column_slice(st, 0), value);
    return sqlite3_reset(st);
}

static bool within(const hf_op *op, int64_t base, int64_t *sum) {
    if (__builtin_add_overflow(base, op->delta, sum)) return false;
    if (*sum > HF_INT_MAX || *sum < -HF_INT_MAX) return false;
    if ((op->flags & HF_OP_HAS_MIN) != 0 && *sum < op->min) return false;
    return (op->flags & HF_OP_HAS_MAX) == 0 || *sum <= op->max;
}

static int write_sum(hf__sqlite_instance *s, hf_op *op, struct row *row, int64_t sum) {
    char text[24];
    int len = snprintf(text, sizeof text, "%lld", (long long)sum);
    int rc;

    if (!row->present) {
        row->attempt = 1;
        row->kept_until = op->ttl_ms > 0 ? real_until(s, op->ttl_ms) : 0;
    }
    row->state = PLAIN;
    row->claim_until = 0;
    row->format = HF_JSON;
    row->token = op->token;
    remember(op, row);
    if (!give_version(s, op, row)) return SQLITE_OK;
    rc = write_row(s, op, row, (hf_slice){text, (size_t)len});
    op->applied = rc == SQLITE_OK;
    op->sum = sum;
    op->version = row->version;
    return rc;
}

int hf__sqlite_add(hf__sqlite_instance *s, hf_op *op) {
    struct row row;
    int64_t base = op->initial;
    int64_t sum;
    bool is_one = true;
    hf_refusal why;
    int rc = get_row(s, op->space, op->keys[0], &row);

    if (rc != SQLITE_OK) return rc;
    why = judge(op, &row);
    if (why != HF_NOT_REFUSED) return refuse(s, op, &row, why);
    if (row.present) rc = get_integer(s, op, &row, &base, &is_one);
    if (rc != SQLITE_OK) return rc;
    if (!is_one) return refuse(s, op, &row, HF_REFUSED_TYPE);
    if (!within(op, base, &sum)) return refuse(s, op, &row, HF_REFUSED_BOUNDS);
    return write_sum(s, op, &row, sum);
}

/* ---------------------------------------------------------------- claims, watching */

int hf__sqlite_keep_claim(hf__sqlite_instance *s, hf_op *op) {
    sqlite3_stmt *st = hf__st(s, HF__ST_ENTRY_RENEW);
    int rc;

    hf__bind_u64(st, 1, op->space);
    hf__bind_text(st, 2, op->keys[0]);
    hf__bind_blob(st, 3, op->token.bytes, sizeof op->token.bytes);
    hf__bind_u64(st, 4, s->turn.now_ns);
    hf__bind_u64(st, 5, s->turn.epoch);
    hf__bind_u64(st, 6, hf__sqlite_until(s->turn.now_ns, op->ttl_ms));
    hf__bind_u64(st, 7, s->turn.now_us);
    rc = hf__sqlite_run(st);
    op->applied = rc == SQLITE_OK && sqlite3_changes(s->conn.db) > 0;
    if (rc == SQLITE_OK && !op->applied) hf__sqlite_refuse(op, HF_REFUSED_OWNER);
    return rc;
}

int hf__sqlite_check_entry(hf__sqlite_instance *s, hf__sqlite_check *check) {
    struct row row;
    int rc = get_row(s, check->space, check->key, &row);

    check->excluded = false;
    check->seen = row.present ? row.version : 1;
    return rc;
}
