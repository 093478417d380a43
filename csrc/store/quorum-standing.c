#include "store/quorum-standing.h"

#include "util/url.h"

#include <assert.h>
#include <string.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define DRIFT_PARTS 2000                /* 500 ppm */
#define GRACE_PACE_NS (50 * NS_PER_MS)  /* between readings of a node that is blank */
#define IDLE_PACE_NS (1000 * NS_PER_MS) /* where there is no vote, and nothing to decide */
#define WATCH_PACE_NS (30000 * NS_PER_MS)
#define MISSED_PAUSE_NS (100 * NS_PER_MS)
#define MISSED_DOUBLINGS 6
#define OWN_CLOCK_PARTS 10 /* jumps that differ by less are one */

/* ---------------------------------------------------------------- marker */

static bool next_word(hf_slice *text, hf_slice *word) {
    const char *blank = text->len > 0 ? memchr(text->data, ' ', text->len) : NULL;
    size_t len = blank != NULL ? (size_t)(blank - text->data) : text->len;

    *word = (hf_slice){text->data, len};
    text->data += blank != NULL ? len + 1 : len;
    text->len -= blank != NULL ? len + 1 : len;
    return len > 0;
}

bool hf__marker_read(hf__marker *marker, hf_slice text) {
    hf_slice run;
    hf_slice max_ttl;
    hf_slice until;

    memset(marker, 0, sizeof *marker);
    if (text.len == 0) return true;
    if (text.len > HF__MARKER_MAX || text.data[text.len - 1] == ' ' || !next_word(&text, &run) ||
        !next_word(&text, &max_ttl) || !next_word(&text, &until) || text.len > 0 ||
        run.len >= sizeof marker->run_id)
        return false;
    memcpy(marker->run_id, run.data, run.len);
    return hf__parse_uint(max_ttl, 1, HF_TTL_MAX, &marker->max_ttl_ms) &&
           hf__parse_uint(until, 0, HF_INT_MAX, &marker->until_us);
}

/* ---------------------------------------------------------------- clock */

bool hf__node_clock_sample(hf__node_clock *clock, uint64_t sent_ns, uint64_t heard_ns,
                           uint64_t server_us) {
    int64_t low = (int64_t)server_us - (int64_t)(heard_ns / NS_PER_US);
    int64_t high = (int64_t)server_us - (int64_t)(sent_ns / NS_PER_US) + 1;
    uint64_t passed_us = heard_ns > clock->at_ns ? (heard_ns - clock->at_ns) / NS_PER_US : 0;
    int64_t drift = (int64_t)(passed_us / DRIFT_PARTS);
    int64_t old_low = clock->low_us - drift;
    int64_t old_high = clock->high_us + drift;

    clock->jump_us = 0;
    if (clock->known && low <= old_high + HF__CLOCK_TOLERANCE_US &&
        high >= old_low - HF__CLOCK_TOLERANCE_US) {
        bool meets = low <= old_high && high >= old_low;
        /* What is tolerated stays outside: else a clock that is too fast would be let pass a little
         * with each sample. */
        clock->low_us = meets && low > old_low ? low : old_low;
        clock->high_us = meets && high < old_high ? high : old_high;
        clock->at_ns += (uint64_t)drift * DRIFT_PARTS * NS_PER_US;
        return true;
    }
    if (clock->known) clock->jump_us = (low + high) / 2 - (clock->low_us + clock->high_us) / 2;
    clock->low_us = low;
    clock->high_us = high;
    clock->at_ns = heard_ns;
    if (clock->known) return false;
    clock->known = true;
    return true;
}

/* ---------------------------------------------------------------- standing */

static bool has_rule(const hf__membership *m) {
    return (m->rules & HF__RULE_QUARANTINE) != 0;
}

static bool is_blank(const hf__marker *marker) {
    return marker->run_id[0] == '\0';
}

static bool is_of_this_run(const hf__member_state *node) {
    return strcmp(node->marker.run_id, node->run_id) == 0;
}

void hf__membership_init(hf__membership *m, uint8_t n, uint64_t max_ttl_ms, uint8_t rules) {
    assert(n >= 1 && n <= HF__QUORUM_MAX);
    memset(m, 0, sizeof *m);
    m->n = n;
    m->rules = rules;
    m->max_ttl_ms = max_ttl_ms;
    for (uint8_t i = 0; i < n; i++)
        m->nodes[i].coming = true;
}

void hf__membership_up(hf__membership *m, uint8_t node, const char *run_id, uint64_t now_ns) {
    hf__member_state *s = &m->nodes[node];

    s->standing = HF__NODE_UNKNOWN;
    s->errand = HF__ERRAND_NONE;
    s->coming = false;
    s->linked_ns = now_ns;
    s->blank_ns = 0;
    s->again_ns = 0;
    s->misses = 0;
    memset(s->run_id, 0, sizeof s->run_id);
    strncpy(s->run_id, run_id, sizeof s->run_id - 1);
}

void hf__membership_down(hf__membership *m, uint8_t node) {
    hf__member_state *s = &m->nodes[node];

    s->standing = HF__NODE_DOWN;
    s->errand = HF__ERRAND_NONE;
    s->coming = false;
}

uint64_t hf__membership_most_ms(const hf__membership *m) {
    uint64_t most = m->max_ttl_ms;

    for (uint8_t i = 0; i < m->n; i++)
        if (m->nodes[i].max_ttl_ms > most) most = m->nodes[i].max_ttl_ms;
    return most;
}

bool hf__membership_votes(const hf__membership *m, uint8_t node) {
    const hf__member_state *s = &m->nodes[node];

    return s->standing == HF__NODE_VOTES &&
           (!has_rule(m) || s->marker.max_ttl_ms >= hf__membership_most_ms(m));
}

static void go_out(hf__membership *m, uint8_t node, hf__outage why, uint64_t until_ns) {
    hf__member_state *s = &m->nodes[node];

    if (s->standing != HF__NODE_OUT || s->outage == HF__OUT_NOT || why != HF__OUT_TOLD)
        s->outage = (uint8_t)why;
    s->standing = HF__NODE_OUT;
    s->until_ns = until_ns;
}

/* How long the marker, which is of this run, still says that there is no vote. One that was written
 * by somebody who knew only of a smaller maxTtl says so for too short a time. */
static uint64_t left_by_marker_ns(const hf__membership *m, hf__member_state *s,
                                  uint64_t server_us) {
    uint64_t most_ms = hf__membership_most_ms(m);
    uint64_t until_us = s->marker.until_us;
    uint64_t left_ns;

    s->is_short = until_us != 0 && s->marker.max_ttl_ms < most_ms;
    if (s->is_short) until_us += (most_ms - s->marker.max_ttl_ms) * 1000;
    if (until_us <= server_us || !has_rule(m)) {
        s->is_short = false;
        return 0;
    }
    left_ns = (until_us - server_us) * NS_PER_US;
    /* More than that means that the clock has gone back since: it is written anew, or it would take
     * as long as it has gone back. */
    if (left_ns > most_ms * NS_PER_MS) s->is_short = true;
    return left_ns < most_ms * NS_PER_MS ? left_ns : most_ms * NS_PER_MS;
}

/* The marker is of this run, and says from when on there is a vote. That of a clock that has jumped
 * is believed only if it is not over before what that jump asks for: it may be older. */
static void read_own(hf__membership *m, uint8_t node, uint64_t server_us, uint64_t now_ns) {
    hf__member_state *s = &m->nodes[node];
    uint64_t left_ns = left_by_marker_ns(m, s, server_us);
    hf__outage told = s->jumped ? HF__OUT_CLOCK : s->blank_ns != 0 ? HF__OUT_EMPTIED : HF__OUT_TOLD;

    if (left_ns > 0 && (!s->jumped || now_ns + left_ns >= s->until_ns)) {
        go_out(m, node, told, now_ns + left_ns);
        s->jumped = false;
    } else if (s->jumped) {
        if (s->standing != HF__NODE_OUT) go_out(m, node, HF__OUT_CLOCK, s->until_ns);
    } else if (s->standing == HF__NODE_OUT && s->outage == HF__OUT_CLOCK && now_ns < s->until_ns) {
        return; /* by a clock that jumped again it is over, by ours it is not */
    } else if (s->marker.max_ttl_ms < hf__membership_most_ms(m)) {
        s->standing = HF__NODE_UNKNOWN;
    } else {
        s->standing = HF__NODE_VOTES;
        s->outage = HF__OUT_NOT;
    }
}

void hf__membership_read(hf__membership *m, uint8_t node, const hf__marker *marker,
                         uint64_t server_us, uint64_t asked_ns, uint64_t now_ns) {
    hf__member_state *s = &m->nodes[node];

    if (s->standing == HF__NODE_DOWN) return;
    s->errand = HF__ERRAND_NONE;
    s->misses = 0;
    s->marker = *marker;
    s->asked_ns = asked_ns;
    if (marker->max_ttl_ms > s->max_ttl_ms) s->max_ttl_ms = marker->max_ttl_ms;
    if (is_blank(marker)) {
        if (s->standing != HF__NODE_BLANK) s->blank_ns = s->loss_ns = now_ns;
        s->standing = HF__NODE_BLANK;
    } else if (is_of_this_run(s)) {
        read_own(m, node, server_us, now_ns);
        s->blank_ns = 0;
    } else if (has_rule(m)) {
        s->loss_ns = s->linked_ns;
        go_out(m, node, HF__OUT_RESTARTED, now_ns + hf__membership_most_ms(m) * NS_PER_MS);
    } else {
        s->standing = HF__NODE_BLANK;
    }
}

void hf__membership_missed(hf__membership *m, uint8_t node, uint64_t now_ns) {
    hf__member_state *s = &m->nodes[node];

    s->errand = HF__ERRAND_NONE;
    s->again_ns = now_ns + (MISSED_PAUSE_NS << s->misses);
    if (s->misses < MISSED_DOUBLINGS) s->misses++;
}

void hf__membership_changed(hf__membership *m, uint8_t node) {
    if (m->nodes[node].standing == HF__NODE_VOTES) m->nodes[node].standing = HF__NODE_UNKNOWN;
}

void hf__membership_jumped(hf__membership *m, uint8_t node, int64_t jump_us, uint64_t now_ns) {
    hf__member_state *s = &m->nodes[node];

    if (!has_rule(m) || s->standing == HF__NODE_DOWN) return;
    s->jumped = true;
    s->jump_us = jump_us;
    s->jump_ns = now_ns;
    s->loss_ns = now_ns;
    go_out(m, node, HF__OUT_CLOCK, now_ns + hf__membership_most_ms(m) * NS_PER_MS);
}

/* It has not refused to say where it stands. */
static bool is_answering(const hf__member_state *s) {
    return s->misses == 0;
}

bool hf__membership_coming(const hf__membership *m, uint8_t node) {
    const hf__member_state *s = &m->nodes[node];

    if (s->coming) return true;
    if (s->standing == HF__NODE_VOTES) return !hf__membership_votes(m, node);
    return (s->standing == HF__NODE_UNKNOWN || s->standing == HF__NODE_BLANK) && is_answering(s);
}

/* ---------------------------------------------------------------- errands */

/* What is known of the others, for the judgement of a node without a marker. */
typedef struct hf__census {
    uint8_t blank;
    uint8_t marked;
    uint8_t open;       /* that may turn out to be either in a moment */
    uint64_t linked_ns; /* when the last of the blank ones was connected to */
    bool fresh;         /* all of their readings were asked for after that */
} hf__census;

static hf__census count_nodes(const hf__membership *m) {
    hf__census c = {.fresh = true};

    for (uint8_t i = 0; i < m->n; i++) {
        const hf__member_state *s = &m->nodes[i];

        c.open =
            (uint8_t)(c.open + (s->coming || (s->standing == HF__NODE_UNKNOWN && is_answering(s))));
        c.marked =
            (uint8_t)(c.marked + (s->standing == HF__NODE_OUT || s->standing == HF__NODE_VOTES));
        if (s->standing != HF__NODE_BLANK) continue;
        c.blank++;
        if (s->linked_ns > c.linked_ns) c.linked_ns = s->linked_ns;
    }
    for (uint8_t i = 0; i < m->n; i++)
        if (m->nodes[i].standing == HF__NODE_BLANK && m->nodes[i].asked_ns < c.linked_ns)
            c.fresh = false;
    return c;
}

static hf__errand read_if_due(const hf__member_state *s, uint64_t pace_ns, uint64_t now_ns) {
    return now_ns >= s->asked_ns + pace_ns ? HF__ERRAND_READ : HF__ERRAND_NONE;
}

/* Whether its loss is to be written down. */
static bool wants_bar(const hf__membership *m, const hf__member_state *s) {
    if (s->standing == HF__NODE_OUT) return s->jumped || s->is_short || !is_of_this_run(s);
    return s->standing == HF__NODE_BLANK && has_rule(m) && count_nodes(m).marked > 0;
}

/* Somebody may have brought in a greater maxTtl since the others were read, and a node without its
 * memory cannot say so: they are read anew before it is written for how long it has no vote. */
static hf__errand bar_when_fresh(const hf__membership *m, const hf__member_state *node) {
    uint8_t fresh = 0;

    for (uint8_t i = 0; i < m->n; i++) {
        const hf__member_state *s = &m->nodes[i];

        if (s == node) continue;
        if (s->coming) return HF__ERRAND_NONE;
        if (s->standing == HF__NODE_DOWN || !is_answering(s)) continue;
        if (s->standing == HF__NODE_UNKNOWN) return HF__ERRAND_NONE;
        if (s->asked_ns < node->loss_ns) return HF__ERRAND_NONE;
        fresh++;
    }
    return fresh + 1 >= hf__majority(m->n) ? HF__ERRAND_BAR : HF__ERRAND_NONE;
}

static bool is_stale(const hf__membership *m, const hf__member_state *node) {
    for (uint8_t i = 0; i < m->n; i++) {
        const hf__member_state *s = &m->nodes[i];
        if (s != node && s->loss_ns > node->asked_ns && wants_bar(m, s)) return true;
    }
    return false;
}

static hf__errand for_blank(const hf__membership *m, const hf__member_state *s, uint64_t now_ns) {
    hf__census c;
    uint64_t grace_ns = s->blank_ns + HF__STANDING_GRACE_NS;

    if (!has_rule(m)) return HF__ERRAND_FOUND;
    c = count_nodes(m);
    if (c.marked > 0) {
        if (s->asked_ns >= grace_ns) return bar_when_fresh(m, s);
        return read_if_due(s, now_ns < grace_ns ? GRACE_PACE_NS : 0, now_ns);
    }
    if (c.blank < hf__majority(m->n) || c.open > 0) return read_if_due(s, IDLE_PACE_NS, now_ns);
    if (s->asked_ns < c.linked_ns) return HF__ERRAND_READ;
    return c.fresh ? HF__ERRAND_FOUND : HF__ERRAND_NONE;
}

/* How often the clock of a node that votes is looked at though nobody locks: a client that had not
 * looked for long would take a jump that is long over for a new one. */
static uint64_t watch_pace_ns(const hf__membership *m) {
    uint64_t quarter_ns = m->max_ttl_ms * NS_PER_MS / 4;
    return quarter_ns < WATCH_PACE_NS ? quarter_ns : WATCH_PACE_NS;
}

static hf__errand choose(const hf__membership *m, const hf__member_state *s, uint64_t now_ns) {
    bool is_low = s->marker.max_ttl_ms < hf__membership_most_ms(m);

    if (s->standing != HF__NODE_DOWN && is_stale(m, s)) return HF__ERRAND_READ;
    switch ((hf__standing)s->standing) {
    case HF__NODE_DOWN: return HF__ERRAND_NONE;
    case HF__NODE_UNKNOWN:
        if (s->asked_ns < s->linked_ns || !is_low || !is_of_this_run(s)) return HF__ERRAND_READ;
        return HF__ERRAND_RAISE;
    case HF__NODE_BLANK: return for_blank(m, s, now_ns);
    case HF__NODE_OUT:
        if (wants_bar(m, s)) return bar_when_fresh(m, s);
        /* Until then its clock is watched: one that jumps would end this for who comes next. */
        return now_ns >= s->until_ns ? HF__ERRAND_READ : read_if_due(s, IDLE_PACE_NS, now_ns);
    case HF__NODE_VOTES:
        if (is_low && has_rule(m)) return HF__ERRAND_READ;
        return read_if_due(s, watch_pace_ns(m), now_ns);
    }
    return HF__ERRAND_NONE;
}

/* Whether all nodes that are there, a majority at least, have been seen to jump by as much as this
 * one, within the time in which each is looked at: then it is our own clock that has, or has stood
 * still, as that of a machine that was paused. */
static bool is_our_clock(const hf__membership *m, const hf__member_state *node) {
    int64_t size = node->jump_us < 0 ? -node->jump_us : node->jump_us;
    uint8_t same = 0;

    for (uint8_t i = 0; i < m->n; i++) {
        const hf__member_state *s = &m->nodes[i];
        int64_t apart = s->jump_us - node->jump_us;
        uint64_t between_ns =
            s->jump_ns > node->jump_ns ? s->jump_ns - node->jump_ns : node->jump_ns - s->jump_ns;

        if (s->standing == HF__NODE_DOWN || !is_answering(s)) continue;
        if (apart < 0) apart = -apart;
        if (s->jump_ns == 0 || between_ns > WATCH_PACE_NS ||
            apart > HF__CLOCK_TOLERANCE_US + size / OWN_CLOCK_PARTS)
            return false;
        same++;
    }
    return m->n > 1 && same >= hf__majority(m->n);
}

static void forgive(hf__membership *m) {
    for (uint8_t i = 0; i < m->n; i++) {
        hf__member_state *s = &m->nodes[i];

        if (!s->jumped) continue;
        s->jumped = false;
        s->outage = HF__OUT_NOT;
        if (s->standing == HF__NODE_OUT) s->standing = HF__NODE_UNKNOWN;
    }
}

hf__errand hf__membership_errand(hf__membership *m, uint8_t node, uint64_t now_ns) {
    hf__member_state *s = &m->nodes[node];

    if (s->jumped && is_our_clock(m, s)) forgive(m);
    if (s->errand != HF__ERRAND_NONE || now_ns < s->again_ns) return HF__ERRAND_NONE;
    s->errand = (uint8_t)choose(m, s, now_ns);
    return (hf__errand)s->errand;
}

static uint64_t pause_of(const hf__member_state *s, uint64_t now_ns) {
    bool in_grace = s->standing == HF__NODE_BLANK &&
                    now_ns < s->blank_ns + HF__STANDING_GRACE_NS + GRACE_PACE_NS;
    return in_grace ? GRACE_PACE_NS : IDLE_PACE_NS;
}

uint64_t hf__membership_wake(const hf__membership *m, uint64_t now_ns) {
    uint64_t at_ns = HF_FOREVER;

    for (uint8_t i = 0; i < m->n; i++) {
        const hf__member_state *s = &m->nodes[i];
        uint64_t each = HF_FOREVER;

        if (s->standing == HF__NODE_DOWN || s->errand != HF__ERRAND_NONE) continue;
        if (s->standing == HF__NODE_OUT)
            each =
                s->until_ns < s->asked_ns + IDLE_PACE_NS ? s->until_ns : s->asked_ns + IDLE_PACE_NS;
        else if (s->standing == HF__NODE_BLANK)
            each = s->asked_ns + GRACE_PACE_NS;
        else if (s->standing == HF__NODE_VOTES)
            each = s->asked_ns + watch_pace_ns(m);
        /* Where that has passed, others are waited for, who will be heard of. */
        if (each <= now_ns) each = now_ns + pause_of(s, now_ns);
        if (s->again_ns > now_ns) each = s->again_ns;
        if (each < at_ns) at_ns = each;
    }
    return at_ns;
}
