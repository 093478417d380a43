#include "support-model.h"

#include "core/store.h"
#include "support-rig.h"
#include "util/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- time */

static void end_hold(model_key *key, model_hold *hold, uint64_t ended_ns) {
    hold->held = false;
    if (ended_ns > key->ended_ns) key->ended_ns = ended_ns;
}

void model_set_time(model *m, uint64_t now_ns, uint64_t wall_us) {
    m->now_ns = now_ns;
    m->wall_us = wall_us;
    for (size_t k = 0; k < PROGRAM_KEYS; k++) {
        for (size_t t = 1; t <= PROGRAM_TOKENS; t++) {
            model_hold *hold = &m->keys[k].by[t];
            if (hold->held && hold->until_ns <= now_ns) end_hold(&m->keys[k], hold, hold->until_ns);
            if (hold->mark_ns <= now_ns) hold->mark_ns = 0;
        }
    }
}

void model_reboot(model *m, bool lasts, uint64_t now_ns, uint64_t wall_us) {
    for (size_t k = 0; k < PROGRAM_KEYS; k++) {
        memset(m->keys[k].by, 0, sizeof m->keys[k].by);
        m->keys[k].ended_ns = now_ns;
        m->keys[k].forgotten = m->keys[k].forgotten || !lasts;
    }
    model_set_time(m, now_ns, wall_us);
}

uint64_t model_next_deadline(const model *m) {
    uint64_t next = UINT64_MAX;

    for (size_t k = 0; k < PROGRAM_KEYS; k++) {
        for (size_t t = 1; t <= PROGRAM_TOKENS; t++) {
            const model_hold *hold = &m->keys[k].by[t];
            if (hold->held && hold->until_ns < next) next = hold->until_ns;
            if (hold->mark_ns > 0 && hold->mark_ns < next) next = hold->mark_ns;
        }
    }
    return next == UINT64_MAX ? 0 : next;
}

static uint64_t after_ms(const model *m, uint64_t ms) {
    return m->now_ns + ms * HF_NS_PER_MS;
}

static uint64_t left_ms(const model *m, uint64_t until_ns) {
    return (until_ns - m->now_ns + HF_NS_PER_MS - 1) / HF_NS_PER_MS;
}

/* ---------------------------------------------------------------- take */

/* What stands against one key's take. */
typedef struct obstacle {
    bool full;   /* by its holders */
    bool marked; /* by one who waits */
    uint64_t first_ns;
} obstacle;

static void come_first(obstacle *o, uint64_t until_ns) {
    if (until_ns < o->first_ns) o->first_ns = until_ns;
}

/* The admission rule. */
static obstacle judge(const model *m, const step *s, size_t k) {
    obstacle o = {.first_ns = UINT64_MAX};
    uint32_t least = s->limit;
    uint32_t count = 0;

    for (size_t t = 1; t <= PROGRAM_TOKENS; t++) {
        const model_hold *hold = &m->keys[k].by[t];
        if (t == s->token || !hold->held) continue;
        count++;
        if (hold->limit < least) least = hold->limit;
    }
    o.full = count + 1 > least;
    for (size_t t = 1; t <= PROGRAM_TOKENS; t++) {
        const model_hold *hold = &m->keys[k].by[t];
        if (t == s->token) continue;
        if (o.full && hold->held) come_first(&o, hold->until_ns);
        if (s->limit == 1 || hold->mark_ns == 0) continue;
        o.marked = true;
        come_first(&o, hold->mark_ns);
    }
    return o;
}

/* How many of the step's keys the token holds; `fence` gets the newest of theirs. */
static size_t count_held(const model *m, const step *s, uint8_t token, uint64_t *fence) {
    size_t n = 0;

    *fence = 0;
    for (size_t i = 0; i < s->n_keys; i++) {
        const model_hold *hold = &m->keys[s->keys[i]].by[token];
        if (!hold->held) continue;
        n++;
        if (hold->fence > *fence) *fence = hold->fence;
    }
    return n;
}

/* Whether replace_token holds the step's keys, each exclusively, and nothing else. */
static bool holds_exactly(const model *m, const step *s) {
    uint64_t fence;
    size_t all = 0;

    for (size_t k = 0; k < PROGRAM_KEYS; k++) {
        const model_hold *hold = &m->keys[k].by[s->replace];
        if (!hold->held) continue;
        if (hold->limit != 1) return false;
        all++;
    }
    return all == s->n_keys && count_held(m, s, s->replace, &fence) == all;
}

/* Whether it came by them in one take, which took no others. */
static bool took_exactly(const model *m, const step *s) {
    const model_hold *first = &m->keys[s->keys[0]].by[s->replace];

    for (size_t i = 1; i < s->n_keys; i++) {
        if (m->keys[s->keys[i]].by[s->replace].take != first->take) return false;
    }
    return first->taken == s->n_keys;
}

/* Whether the token to be replaced holds these keys: the contract leaves open whether that is a
 * hand-over where it also holds others, or did not come by these in one take. */
static bool holds_all(const model *m, const step *s) {
    for (size_t i = 0; i < s->n_keys; i++) {
        const model_hold *hold = &m->keys[s->keys[i]].by[s->replace];
        if (!hold->held || hold->limit != 1) return false;
    }
    return true;
}

/* What every next fence of a key must exceed. A counter may be gone a day after the last lease;
 * then, and in a store that has lost its memory, the wall clock takes its place. */
static uint64_t fence_floor(const model *m, size_t k) {
    const model_key *key = &m->keys[k];
    bool gone = key->forgotten || m->now_ns - key->ended_ns >= HF__COUNTER_MS * HF_NS_PER_MS;

    for (size_t t = 1; t <= PROGRAM_TOKENS; t++)
        gone = gone && !key->by[t].held;
    return gone && m->own_clock && m->wall_us - 1 < key->fence ? m->wall_us - 1 : key->fence;
}

static void expect_admission(const model *m, const step *s, expectation *e) {
    uint64_t first_ns = UINT64_MAX;

    e->applied = true;
    for (size_t i = 0; i < s->n_keys; i++) {
        obstacle o = judge(m, s, s->keys[i]);
        if (!o.full && !o.marked) continue;
        e->marked = e->marked || o.marked;
        e->applied = false;
        if (o.first_ns < first_ns) first_ns = o.first_ns;
    }
    if (e->applied) return;
    e->refused = HF_REFUSED_HELD;
    e->left_ms = left_ms(m, first_ns);
}

static void expect_take(const model *m, const step *s, expectation *e) {
    uint64_t fence;
    size_t own = count_held(m, s, s->token, &fence);

    if (own == s->n_keys) {
        e->applied = true;
        e->again = true;
        e->fence = fence;
        return;
    }
    if (own > 0) {
        e->code = HF_EINVAL;
        return;
    }
    if (s->replace > 0) {
        e->applied = s->limit == 1 && holds_exactly(m, s) && took_exactly(m, s);
        if (!e->applied) e->refused = HF_REFUSED_OWNER;
        e->either = !e->applied && s->limit == 1 && holds_all(m, s);
    } else {
        expect_admission(m, s, e);
    }
    for (size_t i = 0; (e->applied || e->either) && i < s->n_keys; i++) {
        uint64_t above = fence_floor(m, s->keys[i]);
        if (above > e->above) e->above = above;
    }
}

static void apply_take(model *m, const step *s, const expectation *e, const hf_op *op) {
    bool applied = e->applied || (e->either && op->applied);
    bool mark = s->intent && s->limit == 1 && e->refused == HF_REFUSED_HELD;
    uint64_t until_ns = after_ms(m, s->ttl_ms);

    m->takes += applied && !e->again;
    for (size_t i = 0; i < s->n_keys; i++) {
        model_key *key = &m->keys[s->keys[i]];
        model_hold *hold = &key->by[s->token];

        if (mark)
            hold->mark_ns = after_ms(m, s->ttl_ms < HF__INTENT_MS ? s->ttl_ms : HF__INTENT_MS);
        if (!applied) continue;
        if (e->again) {
            if (hold->until_ns < until_ns) hold->until_ns = until_ns;
            continue;
        }
        if (s->replace > 0) end_hold(key, &key->by[s->replace], m->now_ns);
        *hold = (model_hold){.held = true,
                             .until_ns = until_ns,
                             .fence = op->fence,
                             .since_us = m->wall_us,
                             .limit = s->limit,
                             .take = m->takes,
                             .taken = s->n_keys};
        key->fence = op->fence;
        key->forgotten = false;
    }
}

/* Whether a refused take was told of one who is in its way: of a holder where the key is full;
 * where only a mark is, of who left it, or of those whom that one waits for. */
static bool is_in_the_way(const model *m, const step *s, const hf_holder *told) {
    for (size_t i = 0; i < s->n_keys; i++) {
        obstacle o = judge(m, s, s->keys[i]);
        if (!o.full && !o.marked) continue;
        for (int t = 1; t <= PROGRAM_TOKENS; t++) {
            const model_hold *hold = &m->keys[s->keys[i]].by[t];
            hf_token token = token_of(t);

            if (t == s->token || !hf__token_equal(&token, &told->token)) continue;
            if (hold->held && told->fence == hold->fence && told->limit == hold->limit &&
                told->left_ms <= left_ms(m, hold->until_ns) &&
                told->left_ms + m->slack_ms >= left_ms(m, hold->until_ns))
                return true;
            if (hold->mark_ns > 0 && s->limit > 1 && told->left_ms <= left_ms(m, hold->mark_ns) &&
                told->left_ms + m->slack_ms >= left_ms(m, hold->mark_ns))
                return true;
        }
    }
    return false;
}

/* ---------------------------------------------------------------- keep, drop */

static void expect_owner(const model *m, const step *s, expectation *e) {
    uint64_t fence;

    e->applied = count_held(m, s, s->token, &fence) == s->n_keys;
    if (!e->applied) e->refused = HF_REFUSED_OWNER;
}

static void apply_owner(model *m, const step *s, bool applied) {
    for (size_t i = 0; i < s->n_keys; i++) {
        model_key *key = &m->keys[s->keys[i]];
        model_hold *hold = &key->by[s->token];

        if (s->kind == STEP_KEEP) {
            if (applied) hold->until_ns = after_ms(m, s->ttl_ms);
            continue;
        }
        hold->mark_ns = 0;
        if (hold->held) end_hold(key, hold, m->now_ns);
    }
}

/* ---------------------------------------------------------------- list */

static bool is_listed(const step *s, size_t k) {
    const char *prefix = s->n_keys > 0 ? program_key(s->keys[0]) : "";
    const char *key = program_key(k);

    if (s->exact) return strcmp(key, prefix) == 0;
    return strncmp(key, prefix, strlen(prefix)) == 0 && k >= s->after;
}

static bool is_row(const model *m, size_t k, const hf_row *row) {
    for (int t = 1; t <= PROGRAM_TOKENS; t++) {
        const model_hold *hold = &m->keys[k].by[t];
        hf_token token = token_of(t);
        uint64_t left;

        if (!hf__token_equal(&token, &row->holder.token)) continue;
        left = hold->held ? left_ms(m, hold->until_ns) : 0;
        return hold->held && row->holder.fence == hold->fence && row->holder.limit == hold->limit &&
               row->holder.left_ms <= left && row->holder.left_ms + m->slack_ms >= left &&
               (!m->own_clock || row->holder.since_us == hold->since_us);
    }
    return false;
}

static bool is_key(const hf_row *row, const char *key) {
    return hf__slice_equal(row->key, slice_of(key));
}

static bool are_different(const hf_row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (hf__token_equal(&rows[i].holder.token, &rows[j].holder.token)) return false;
        }
    }
    return true;
}

static size_t count_holders(const model *m, size_t k) {
    size_t n = 0;

    for (size_t t = 1; t <= PROGRAM_TOKENS; t++)
        n += m->keys[k].by[t].held;
    return n;
}

/* Whole keys in their order, from the first that there is, and no more than asked for but for the
 * first. A page may be shorter than it could be, as long as there is something on it. */
static bool check_rows(const model *m, const step *s, const hf_op *op, char *why, size_t size) {
    size_t at = 0;

    for (size_t k = 0; k < PROGRAM_KEYS; k++) {
        size_t n = is_listed(s, k) ? count_holders(m, k) : 0;

        if (n == 0) continue;
        if (at == op->n_rows && at > 0) return true;
        for (size_t i = at; i < at + n; i++) {
            if (i < op->n_rows && is_key(&op->rows[i], program_key(k)) &&
                is_row(m, k, &op->rows[i]))
                continue;
            snprintf(why, size, "\"%s\" has %zu holders, and row %zu is none of them",
                     program_key(k), n, i + 1);
            return false;
        }
        if (!are_different(&op->rows[at], n)) {
            snprintf(why, size, "\"%s\" has a holder twice", program_key(k));
            return false;
        }
        if (at > 0 && at + n > s->limit) {
            snprintf(why, size, "more rows than asked for");
            return false;
        }
        at += n;
    }
    if (at == op->n_rows) return true;
    snprintf(why, size, "row %zu should not be there", at + 1);
    return false;
}

/* ---------------------------------------------------------------- every step */

void model_expect(const model *m, const step *s, expectation *e) {
    memset(e, 0, sizeof *e);
    switch ((step_kind)s->kind) {
    case STEP_TAKE: expect_take(m, s, e); break;
    case STEP_KEEP:
    case STEP_DROP: expect_owner(m, s, e); break;
    default: e->applied = true; break;
    }
}

void model_apply(model *m, const step *s, const expectation *e, const hf_op *op) {
    if (s->kind == STEP_TAKE)
        apply_take(m, s, e, op);
    else if (s->kind == STEP_KEEP || s->kind == STEP_DROP)
        apply_owner(m, s, e->applied);
}

static bool check_fence(const model *m, const expectation *e, const hf_op *op, char *why,
                        size_t size) {
    if ((m->caps & HF_CAP_FENCES) == 0) return true;
    if (e->again && op->fence != e->fence) {
        snprintf(why, size, "the take's fence was %" PRIu64, e->fence);
        return false;
    }
    if (!e->again && (op->fence <= e->above || op->fence > HF_INT_MAX)) {
        snprintf(why, size, "a fence must be above %" PRIu64, e->above);
        return false;
    }
    return true;
}

bool model_check(const model *m, const step *s, const expectation *e, const hf_op *op, char *why,
                 size_t size) {
    if (e->either && op->applied) return check_fence(m, e, op, why, size);
    snprintf(why, size, "not what was expected");
    if (op->error.code != e->code || op->applied != e->applied || op->refused != e->refused)
        return false;
    if (s->kind == STEP_TAKE && e->applied) return check_fence(m, e, op, why, size);
    if (s->kind == STEP_TAKE) {
        snprintf(why, size, "the time left is wrong");
        if (op->left_ms > e->left_ms || op->left_ms + m->slack_ms < e->left_ms) return false;
        snprintf(why, size, "the holder named is not in the way");
        return e->refused != HF_REFUSED_HELD || is_in_the_way(m, s, op->holder);
    }
    if (s->kind == STEP_LIST) return check_rows(m, s, op, why, size);
    snprintf(why, size, "more than asked for");
    return s->kind != STEP_SWEEP || op->swept <= s->limit;
}

uint32_t model_saw(const step *s, const expectation *e, const hf_op *op) {
    switch ((step_kind)s->kind) {
    case STEP_TAKE:
        if (e->code != HF_OK) return MODEL_SAW_TAKE_OF_SOME;
        if (e->again) return MODEL_SAW_TAKE_AGAIN;
        if (s->replace > 0) return e->applied ? MODEL_SAW_HAND_OVER : MODEL_SAW_HAND_OVER_REFUSED;
        if (e->applied) return MODEL_SAW_TAKE;
        return MODEL_SAW_TAKE_REFUSED | (e->marked ? MODEL_SAW_MARK_IN_THE_WAY : 0);
    case STEP_KEEP: return e->applied ? MODEL_SAW_KEEP : MODEL_SAW_KEEP_REFUSED;
    case STEP_DROP: return e->applied ? MODEL_SAW_DROP : MODEL_SAW_DROP_REFUSED;
    case STEP_LIST: return op->n_rows > 0 ? MODEL_SAW_ROWS : 0;
    case STEP_SWEEP: return op->swept > 0 ? MODEL_SAW_SWEPT : 0;
    default: return 0;
    }
}

/* ---------------------------------------------------------------- text */

static const char *refusal_text(unsigned refused) {
    return refused == HF_REFUSED_HELD ? "held" : refused == HF_REFUSED_OWNER ? "not owned" : "?";
}

void expectation_text(const step *s, const expectation *e, char *text, size_t size) {
    if (e->code != HF_OK)
        snprintf(text, size, "%s", hf_code_name(e->code));
    else if (e->refused == HF_REFUSED_HELD)
        snprintf(text, size, "refused: held, %" PRIu64 " ms left", e->left_ms);
    else if (!e->applied)
        snprintf(text, size, "refused: %s", refusal_text(e->refused));
    else if (s->kind != STEP_TAKE)
        snprintf(text, size, "applied");
    else if (e->again)
        snprintf(text, size, "applied again, fence %" PRIu64, e->fence);
    else
        snprintf(text, size, "applied, a fence above %" PRIu64, e->above);
}

static void rows_text(const hf_op *op, char *text, size_t size) {
    size_t at = (size_t)snprintf(text, size, "%zu rows:", op->n_rows);

    for (size_t i = 0; i < op->n_rows && at < size; i++) {
        const hf_row *row = &op->rows[i];
        at += (size_t)snprintf(text + at, size - at,
                               " [%.*s token %d, fence %" PRIu64 ", limit %" PRIu32 ", %" PRIu64
                               " ms]",
                               (int)row->key.len, row->key.data, row->holder.token.bytes[15],
                               row->holder.fence, row->holder.limit, row->holder.left_ms);
    }
}

void outcome_text(const hf_op *op, char *text, size_t size) {
    if (op->error.code != HF_OK)
        snprintf(text, size, "%s: %s", hf_code_name(op->error.code), op->error.message);
    else if (op->refused == HF_REFUSED_HELD)
        snprintf(text, size, "refused: held, %" PRIu64 " ms left, by token %d", op->left_ms,
                 op->holder->token.bytes[15]);
    else if (!op->applied)
        snprintf(text, size, "refused: %s", refusal_text(op->refused));
    else if (op->verb == HF_TAKE)
        snprintf(text, size, "applied, fence %" PRIu64, op->fence);
    else if (op->verb == HF_LIST)
        rows_text(op, text, size);
    else
        snprintf(text, size, "applied");
}
