/*
 * Leases in SQLite: the admission rule. Every op looks first and writes only when it is sure to
 * land, so that a refusal writes nothing (but a mark, if it was asked for one).
 */
#include "store/sqlite-store.h"
#include "util/clock.h"

#include <assert.h>
#include <string.h>

/* What a look at the keys of a take has found. */
struct verdict {
    uint32_t own;           /* of the op's keys, held by its token */
    uint32_t replaced;      /* held exclusively by replace_token */
    uint32_t replaced_keys; /* how many that token took together */
    uint64_t fence;         /* of its own holds, the newest */
    uint64_t until;         /* and when the first of them lapses */
    uint64_t left_ns;       /* until the first of those in the way lapses */
    uint64_t seen;          /* what a watch of the last key compares */
    uint64_t noted; /* until when this instance is noted as waiting for all of them; 0: it is not */
    bool noted_any; /* for some of them */
    bool awaited;   /* another instance is noted */
    uint64_t refusing; /* keys that refuse it, as bits */
    bool refused;
    bool told;       /* op->holder names a holder in the way, not only a mark */
    bool marked;     /* there is a mark on the last key */
    uint64_t lapsed; /* keys with rows whose time is up, as bits */
};

static uint64_t mix(uint64_t v) {
    v ^= v >> 33;
    v *= UINT64_C(0xff51afd7ed558ccd);
    v ^= v >> 33;
    v *= UINT64_C(0xc4ceb9fe1a85ec53);
    return v ^ v >> 33;
}

/* Holders add up, in any order; marks of whoever count once. */
static uint64_t seen_holder(uint64_t fence, uint32_t limit) {
    return mix(fence) + limit;
}

static uint64_t seen_in_all(uint64_t holders, bool marked) {
    return (holders + (marked ? UINT64_C(0x9e3779b97f4a7c16) : 0)) | 1;
}

/* A row that only says that an instance waits for the key; its token is the instance's. */
static bool is_note(sqlite3_stmt *st) {
    return hf__column_u64(st, HF__LEASE_LIMIT) == 0 && hf__column_u64(st, HF__LEASE_KEYS) == 0;
}

static void copy_text(char *to, size_t size, hf_slice s) {
    size_t len = s.len < size ? s.len : size - 1;
    if (len > 0) memcpy(to, s.data, len);
    to[len] = '\0';
}

static bool same_token(sqlite3_stmt *st, const hf_token *token) {
    hf_slice s = hf__column_slice(st, HF__LEASE_TOKEN);
    return s.len == sizeof token->bytes && memcmp(s.data, token->bytes, s.len) == 0;
}

static void describe(const hf__sqlite_instance *s, sqlite3_stmt *st, hf_holder *holder) {
    hf_slice token = hf__column_slice(st, HF__LEASE_TOKEN);

    memset(holder, 0, sizeof *holder);
    if (token.len == sizeof holder->token.bytes) memcpy(holder->token.bytes, token.data, token.len);
    holder->fence = hf__column_u64(st, HF__LEASE_FENCE);
    holder->left_ms = hf__ms_until(s->turn.now_ns, hf__column_u64(st, HF__LEASE_UNTIL));
    holder->since_us = hf__column_u64(st, HF__LEASE_SINCE);
    holder->limit = (uint32_t)hf__column_u64(st, HF__LEASE_LIMIT);
    copy_text(holder->who, sizeof holder->who, hf__column_slice(st, HF__LEASE_WHO));
    copy_text(holder->note, sizeof holder->note, hf__column_slice(st, HF__LEASE_NOTE));
}

/* ---------------------------------------------------------------- take */

/* The rows of one key, as they come. */
struct look {
    uint64_t noted;   /* until when this instance is noted; 0: it is not */
    uint32_t holders; /* without the op's own and the one it replaces */
    uint32_t least;   /* of their limits and the op's */
    uint64_t first;   /* when the first of them lapses */
    uint64_t mark;    /* when the first mark in the way lapses; 0: none is */
    uint64_t seen;
    bool marked;
    bool told;        /* `*teller` is one in the way here */
    bool told_holder; /* and no mark */
    hf_holder *teller;
};

static void look_at_row(hf__sqlite_instance *s, hf_op *op, sqlite3_stmt *st, struct look *look,
                        struct verdict *v) {
    uint64_t until = hf__column_u64(st, HF__LEASE_UNTIL);
    uint32_t limit = (uint32_t)hf__column_u64(st, HF__LEASE_LIMIT);
    uint64_t fence = hf__column_u64(st, HF__LEASE_FENCE);
    bool own = same_token(st, &op->token);

    if (limit == 0) {
        look->marked = true;
        if (own || op->limit == 1) return;
        if (look->mark == 0 || until < look->mark) look->mark = until;
    } else {
        look->seen += seen_holder(fence, limit);
        if (own) {
            v->own++;
            if (fence > v->fence) v->fence = fence;
            if (until < v->until) v->until = until;
            return;
        }
        if (limit == 1 && same_token(st, &op->replace_token)) {
            v->replaced++;
            v->replaced_keys = (uint32_t)hf__column_u64(st, HF__LEASE_KEYS);
            return;
        }
        look->holders++;
        if (limit < look->least) look->least = limit;
        if (until < look->first) look->first = until;
    }
    /* One is told of, and of a mark only where nothing else is in the way. */
    if (op->holder == NULL || v->told || look->told_holder || (look->told && limit == 0)) return;
    describe(s, st, look->teller);
    look->told = true;
    look->told_holder = limit > 0;
}

static void look_at_note(const hf__sqlite_instance *s, sqlite3_stmt *st, struct look *look,
                         struct verdict *v) {
    if (same_token(st, &s->self))
        look->noted = hf__column_u64(st, HF__LEASE_UNTIL);
    else
        v->awaited = true;
}

/* Looks at the rows of key number `i`. */
static int look_at(hf__sqlite_instance *s, hf_op *op, uint32_t i, struct verdict *v) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_OF_KEY);
    hf_holder teller; /* who counts only if the key turns out not to be open */
    struct look look = {.least = op->limit, .first = UINT64_MAX, .teller = &teller};
    bool full;

    hf__bind_text(st, 1, op->keys[i]);
    while (sqlite3_step(st) == SQLITE_ROW) {
        if (hf__column_u64(st, HF__LEASE_UNTIL) <= s->turn.now_ns)
            v->lapsed |= UINT64_C(1) << i;
        else if (is_note(st))
            look_at_note(s, st, &look, v);
        else
            look_at_row(s, op, st, &look, v);
    }
    v->seen = look.seen;
    v->marked = look.marked;
    v->noted_any = v->noted_any || look.noted != 0;
    if (look.noted < v->noted) v->noted = look.noted;
    full = look.holders + UINT64_C(1) > look.least;
    if ((look.mark != 0 || full) && look.told && !v->told) *op->holder = teller;
    if (look.mark != 0 || full) v->refusing |= UINT64_C(1) << i;
    if (look.mark != 0) {
        v->refused = true;
        if (look.mark - s->turn.now_ns < v->left_ns) v->left_ns = look.mark - s->turn.now_ns;
    }
    if (full) {
        v->refused = true;
        v->told = true;
        if (look.first - s->turn.now_ns < v->left_ns) v->left_ns = look.first - s->turn.now_ns;
    }
    return sqlite3_reset(st);
}

/* What a row says beside its key and the times of its op. */
struct row {
    const hf_token *token;
    uint64_t until;
    uint64_t fence;
    uint32_t limit;
    uint32_t n_keys;
};

static int put_row(hf__sqlite_instance *s, const hf_op *op, hf_slice key, const struct row *row) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_PUT);

    hf__bind_text(st, 1, key);
    hf__bind_blob(st, 2, row->token->bytes, sizeof row->token->bytes);
    hf__bind_u64(st, 3, row->until);
    hf__bind_u64(st, 4, row->limit);
    hf__bind_u64(st, 5, row->fence);
    hf__bind_u64(st, 6, s->turn.now_us);
    hf__bind_u64(st, 7, row->n_keys);
    hf__bind_text(st, 8, op->who);
    hf__bind_text(st, 9, op->note);
    return hf__sqlite_run(st);
}

static int put_rows(hf__sqlite_instance *s, const hf_op *op, const struct row *row) {
    int rc = SQLITE_OK;

    for (uint32_t i = 0; rc == SQLITE_OK && i < op->n_keys; i++)
        rc = put_row(s, op, op->keys[i], row);
    return rc;
}

static int remove_lease(hf__sqlite_instance *s, hf_slice key, const hf_token *token) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_REMOVE);

    hf__bind_text(st, 1, key);
    hf__bind_blob(st, 2, token->bytes, sizeof token->bytes);
    return hf__sqlite_run(st);
}

/* Renews (or drops, by the statement given) one key if it is held; `held` tells. */
static int change_owned(hf__sqlite_instance *s, sqlite3_stmt *st, const hf_op *op, hf_slice key,
                        bool *held) {
    int rc;

    hf__bind_text(st, 1, key);
    hf__bind_blob(st, 2, op->token.bytes, sizeof op->token.bytes);
    hf__bind_u64(st, 3, s->turn.now_ns);
    rc = hf__sqlite_run(st);
    *held = rc == SQLITE_OK && sqlite3_changes(s->conn.db) > 0;
    return rc;
}

static int lengthen(hf__sqlite_instance *s, const hf_op *op, uint64_t until) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_LENGTHEN);
    int rc = SQLITE_OK;
    bool held;

    hf__bind_u64(st, 4, until);
    for (uint32_t i = 0; rc == SQLITE_OK && i < op->n_keys; i++)
        rc = change_owned(s, st, op, op->keys[i], &held);
    return rc;
}

/* The take was answered before, and the answer may have been lost: it is the same lease. */
static int take_again(hf__sqlite_instance *s, hf_op *op, const struct verdict *v) {
    uint64_t until = hf__sqlite_until(s->turn.now_ns, op->ttl_ms);

    op->applied = true;
    op->fence = v->fence;
    op->awaited = v->awaited;
    return v->until < until ? lengthen(s, op, until) : SQLITE_OK;
}

/* That this instance waits is noted for as long as its next attempt is off; anew only when half of
 * that has gone by, so that on a busy key most refusals write nothing. */
static int note_waiting(hf__sqlite_instance *s, const hf_op *op, const struct verdict *v) {
    struct row note = {.token = &s->self, .until = s->turn.now_ns + v->left_ns};

    if (v->noted >= s->turn.now_ns + v->left_ns / 2) return SQLITE_OK;
    return put_rows(s, op, &note);
}

static int refuse_held(hf__sqlite_instance *s, hf_op *op, const struct verdict *v) {
    uint64_t ttl_ms = op->ttl_ms < HF__INTENT_MS ? op->ttl_ms : HF__INTENT_MS;
    bool mark = (op->flags & HF_OP_INTENT) != 0 && op->limit == 1;
    int rc = SQLITE_OK;

    hf__sqlite_refuse(op, HF_REFUSED_HELD);
    op->left_ms = hf__ms_until(0, v->left_ns);
    /* What the watch of this key compares with; of several keys, those that refuse. */
    op->stamp = op->n_keys == 1 ? seen_in_all(v->seen, v->marked || mark) : v->refusing;
    if (mark) {
        struct row row = {.token = &op->token, .n_keys = op->n_keys};
        row.until = hf__sqlite_until(s->turn.now_ns, ttl_ms);
        rc = put_rows(s, op, &row);
    }
    if (rc == SQLITE_OK && (op->flags & HF_OP_WAIT) != 0) rc = note_waiting(s, op, v);
    return rc;
}

/* How many keys the token holds in all. */
static int count_held(hf__sqlite_instance *s, const hf_token *token, uint64_t *n) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_COUNT_TOKEN);

    hf__bind_blob(st, 1, token->bytes, sizeof token->bytes);
    hf__bind_u64(st, 2, s->turn.now_ns);
    if (sqlite3_step(st) == SQLITE_ROW) *n = hf__column_u64(st, 0);
    return sqlite3_reset(st);
}

/* Whether replace_token holds the op's keys, each exclusively, and nothing else. As long as it has
 * all that it took together, that is known without a search. */
static int replaces(hf__sqlite_instance *s, const hf_op *op, const struct verdict *v,
                    bool *exactly) {
    uint64_t n = v->replaced_keys;
    int rc = SQLITE_OK;

    *exactly = false;
    if (op->limit != 1 || v->replaced != op->n_keys) return SQLITE_OK;
    if (n != op->n_keys) rc = count_held(s, &op->replace_token, &n);
    *exactly = rc == SQLITE_OK && n == op->n_keys;
    return rc;
}

static int remove_lapsed(hf__sqlite_instance *s, hf_slice key) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_REMOVE_LAPSED);

    hf__bind_text(st, 1, key);
    hf__bind_u64(st, 2, s->turn.now_ns);
    return hf__sqlite_run(st);
}

static int admit(hf__sqlite_instance *s, hf_op *op, const struct verdict *v) {
    uint64_t fence = hf__sqlite_next(s);
    struct row row = {.token = &op->token, .fence = fence, .limit = op->limit};
    int rc = SQLITE_OK;

    row.until = hf__sqlite_until(s->turn.now_ns, op->ttl_ms);
    row.n_keys = op->n_keys;
    if (fence == 0) {
        hf__error_set(&op->error, HF_EIO, 0, "fences have reached 2^53: the clock is wrong");
        return SQLITE_OK;
    }
    for (uint32_t i = 0; rc == SQLITE_OK && i < op->n_keys; i++) {
        if (v->lapsed & UINT64_C(1) << i) rc = remove_lapsed(s, op->keys[i]);
        if (rc == SQLITE_OK && v->replaced > 0)
            rc = remove_lease(s, op->keys[i], &op->replace_token);
        if (rc == SQLITE_OK && v->noted_any) rc = remove_lease(s, op->keys[i], &s->self);
        /* Takes the place of the token's own mark, too. */
        if (rc == SQLITE_OK) rc = put_row(s, op, op->keys[i], &row);
    }
    op->awaited = v->awaited;
    op->applied = rc == SQLITE_OK;
    op->fence = fence;
    return rc;
}

int hf__sqlite_take(hf__sqlite_instance *s, hf_op *op) {
    struct verdict v = {.until = UINT64_MAX, .left_ns = UINT64_MAX, .noted = UINT64_MAX};
    int rc = SQLITE_OK;
    bool exactly;

    assert(op->n_keys >= 1 && op->n_keys <= HF_KEYS_MAX && op->limit >= 1);
    for (uint32_t i = 0; rc == SQLITE_OK && i < op->n_keys; i++)
        rc = look_at(s, op, i, &v);
    if (rc != SQLITE_OK) return rc;
    if (v.own == op->n_keys) return take_again(s, op, &v);
    if (v.own > 0) {
        hf__error_set(&op->error, HF_EINVAL, 0, "the token holds some of the keys already");
        return SQLITE_OK;
    }
    if (!hf__token_is_zero(&op->replace_token)) {
        rc = replaces(s, op, &v, &exactly);
        if (rc == SQLITE_OK && !exactly) hf__sqlite_refuse(op, HF_REFUSED_OWNER);
        return rc == SQLITE_OK && exactly ? admit(s, op, &v) : rc;
    }
    return v.refused ? refuse_held(s, op, &v) : admit(s, op, &v);
}

/* ---------------------------------------------------------------- keep, drop */

static int owns(hf__sqlite_instance *s, const hf_op *op, hf_slice key, bool *held) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_OWNED);

    hf__bind_text(st, 1, key);
    hf__bind_blob(st, 2, op->token.bytes, sizeof op->token.bytes);
    hf__bind_u64(st, 3, s->turn.now_ns);
    *held = sqlite3_step(st) == SQLITE_ROW;
    return sqlite3_reset(st);
}

int hf__sqlite_keep(hf__sqlite_instance *s, hf_op *op) {
    uint64_t until = hf__sqlite_until(s->turn.now_ns, op->ttl_ms);
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_RENEW);
    bool held = true;
    int rc = SQLITE_OK;

    /* Of several keys, none is renewed unless all are held. */
    for (uint32_t i = 0; op->n_keys > 1 && rc == SQLITE_OK && held && i < op->n_keys; i++)
        rc = owns(s, op, op->keys[i], &held);
    hf__bind_u64(st, 4, until);
    for (uint32_t i = 0; rc == SQLITE_OK && held && i < op->n_keys; i++)
        rc = change_owned(s, st, op, op->keys[i], &held);
    if (rc == SQLITE_OK && !held) hf__sqlite_refuse(op, HF_REFUSED_OWNER);
    op->applied = rc == SQLITE_OK && held;
    return rc;
}

int hf__sqlite_drop(hf__sqlite_instance *s, hf_op *op) {
    bool all = true;
    int rc = SQLITE_OK;

    for (uint32_t i = 0; rc == SQLITE_OK && i < op->n_keys; i++) {
        bool held;
        rc = change_owned(s, hf__st(s, HF__ST_LEASE_DROP), op, op->keys[i], &held);
        if (rc != SQLITE_OK || held) continue;
        /* A mark, or a lease whose time was up. */
        rc = remove_lease(s, op->keys[i], &op->token);
        all = false;
    }
    if (rc == SQLITE_OK && !all) hf__sqlite_refuse(op, HF_REFUSED_OWNER);
    op->applied = rc == SQLITE_OK && all;
    return rc;
}

/* ---------------------------------------------------------------- list */

static int count_holders(hf__sqlite_instance *s, hf_slice key, uint64_t *n) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_COUNT_KEY);

    hf__bind_text(st, 1, key);
    hf__bind_u64(st, 2, s->turn.now_ns);
    if (sqlite3_step(st) == SQLITE_ROW) *n = hf__column_u64(st, 0);
    return sqlite3_reset(st);
}

/* Whether the holders of the key in the row at hand still fit. The first key always does, or a
 * list could never get past it. */
static int fits(hf__sqlite_instance *s, const hf_op *op, hf_slice key, bool *fit) {
    uint64_t n = 0;
    int rc;

    *fit = true;
    if (op->n_rows == 0 || hf__slice_equal(op->rows[op->n_rows - 1].key, key)) return SQLITE_OK;
    rc = count_holders(s, key, &n);
    *fit = op->n_rows + n <= op->limit;
    return rc;
}

int hf__sqlite_list(hf__sqlite_instance *s, hf_op *op) {
    bool exact = (op->flags & HF_OP_EXACT) != 0;
    hf_slice prefix = op->keys[0];
    hf_slice from = !exact && hf__slice_compare(op->value, prefix) > 0 ? op->value : prefix;
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_LIST);
    int rc = SQLITE_OK;
    bool fit = true;
    hf_holder holder;

    op->applied = true;
    if (op->limit == 0) return SQLITE_OK;
    hf__bind_text(st, 1, from);
    hf__bind_u64(st, 2, s->turn.now_ns);
    while (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
        hf_slice key = hf__column_slice(st, HF__LEASE_KEY);

        if (exact ? !hf__slice_equal(key, prefix) : !hf__slice_starts(key, prefix)) break;
        if (!exact && op->value.len > 0 && hf__slice_compare(key, op->value) <= 0) continue;
        if (!exact) rc = fits(s, op, key, &fit);
        if (rc != SQLITE_OK || !fit) break;
        describe(s, st, &holder);
        if (!hf__op_add_row(op, key, &holder)) break;
    }
    op->applied = op->error.code == HF_OK;
    if (rc != SQLITE_OK) {
        (void)sqlite3_reset(st);
        return rc;
    }
    return sqlite3_reset(st);
}

/* ---------------------------------------------------------------- watching */

int hf__sqlite_check_lease(hf__sqlite_instance *s, hf__sqlite_check *check) {
    sqlite3_stmt *st = hf__st(s, HF__ST_LEASE_OF_KEY);
    uint64_t seen = 0;
    bool marked = false;

    check->excluded = false;
    hf__bind_text(st, 1, check->key);
    while (sqlite3_step(st) == SQLITE_ROW) {
        uint32_t limit = (uint32_t)hf__column_u64(st, HF__LEASE_LIMIT);

        if (hf__column_u64(st, HF__LEASE_UNTIL) <= s->turn.now_ns || is_note(st)) continue;
        if (limit == 0) {
            marked = true;
            continue;
        }
        seen += seen_holder(hf__column_u64(st, HF__LEASE_FENCE), limit);
        check->excluded = check->excluded || limit == 1;
    }
    check->seen = seen_in_all(seen, marked);
    return sqlite3_reset(st);
}
