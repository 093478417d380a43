/*
 * The decisions of the quorum store, in every order in which things can happen to three nodes and
 * up to three clients, to a depth: docs/quorum-proof.md says what that shows. Where a rule, or an
 * assumption, is taken away, the search must find what then goes wrong.
 *
 * HF_EXPLORE_DEPTH=n goes to that depth instead, and to 5 million worlds at most: a minute for each
 * test. HF_EXPLORE_SHOW=1 prints the shortest way to what goes wrong without each rule.
 */
#include "harness.h"
#include "support-quorum-search.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    USUAL_WORLDS = 60000, /* at most, so that a wrong depth does not take for ever */
    FINDING_WORLDS = 400000,
    LONG_WORLDS = 5000000
};

/* ---------------------------------------------------------------- beginnings */

/* c0 has the lock of n0 and n1, its request to n2 is on its way. */
static const qm_action held[] = {
    {QM_TAKE, 0, 0, 0}, {QM_STEP, 0, 0, 0}, {QM_STEP, 0, 1, 0}, {QM_NOTHING, 0, 0, 0}};

/* c0 holds on n0 and n1, and n1 was started again. Both have read its marker, and write that it is
 * out: c0 first, then its clock jumps, then c1. */
static const qm_action two_bars[] = {
    {QM_TAKE, 0, 0, 0}, {QM_STEP, 0, 0, 0}, {QM_STEP, 0, 1, 0}, {QM_CRASH, 0, 1, QM_OLD},
    {QM_LINK, 0, 1, 0}, {QM_STEP, 0, 1, 0}, {QM_LINK, 1, 1, 0}, {QM_STEP, 1, 1, 0},
    {QM_STEP, 0, 1, 0}, {QM_JUMP, 0, 1, 0}, {QM_STEP, 1, 1, 0}, {QM_NOTHING, 0, 0, 0}};

/* c1 has seen that two nodes are blank; then c0 has founded the quorum. */
static const qm_action late_founder[] = {{QM_LINK, 1, 0, 0}, {QM_LINK, 1, 1, 0},
                                         {QM_LINK, 0, 0, 0}, {QM_LINK, 0, 1, 0},
                                         {QM_LINK, 0, 2, 0}, {QM_NOTHING, 0, 0, 0}};

/* Both have seen that all are blank, and c0's founding came first; it holds on n0 and n1. */
static const qm_action two_founders[] = {
    {QM_STEP, 0, 0, 0},   {QM_STEP, 0, 1, 0}, {QM_STEP, 0, 2, 0}, {QM_STEP, 1, 0, 0},
    {QM_STEP, 1, 1, 0},   {QM_STEP, 1, 2, 0}, {QM_STEP, 0, 0, 0}, {QM_STEP, 0, 1, 0},
    {QM_STEP, 0, 2, 0},   {QM_TAKE, 0, 0, 0}, {QM_STEP, 0, 0, 0}, {QM_STEP, 0, 1, 0},
    {QM_NOTHING, 0, 0, 0}};

/* ---------------------------------------------------------------- setups */

static void set_ttl(qm_setup *s, int32_t ttl_ms) {
    for (uint8_t c = 0; c < QM_CLIENTS; c++)
        s->ttl_ms[c] = s->max_ms[c] = ttl_ms;
}

/* All is well, and one attempt each; two seconds are the time to live, and maxTtl. */
static qm_setup usual(uint8_t clients) {
    qm_setup s = {.clients = clients,
                  .rules = HF__RULES_ALL,
                  .tick_ms = {1000, 1000},
                  .prompt = true,
                  .late = 1,
                  .attempts = 1};

    set_ttl(&s, 2000);
    return s;
}

static qm_setup with_losses(qm_setup s, uint8_t crashes, uint8_t losses) {
    s.crashes = crashes;
    s.losses = losses;
    return s;
}

enum { ANY_LOSS = 1u << QM_EMPTY | 1u << QM_OLD | 1u << QM_WIPED };

static qm_setup with_jumps(qm_setup s, uint8_t jumps, int32_t jump_ms) {
    s.jumps = jumps;
    s.jump_ms = jump_ms;
    return s;
}

/* Clocks of nodes that are 1 % off, and instants just before and after a lease ends by them. */
static qm_setup with_drift(qm_setup s) {
    set_ttl(&s, 3000);
    s.rate[0] = 1010;
    s.rate[1] = 1000;
    s.rate[2] = 990;
    s.tick_ms[0] = 980;
    s.tick_ms[1] = 20;
    return s;
}

/* ---------------------------------------------------------------- searches */

static uint32_t told_depth(void) {
    const char *text = getenv("HF_EXPLORE_DEPTH");
    return text != NULL ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

static void print(const qm_figures *f) {
    printf("    %" PRIu32 " worlds, %" PRIu64 " actions, depth %" PRIu32 "%s, %.1f s\n", f->states,
           f->transitions, f->depth, f->exhausted ? " (all there is)" : "", f->seconds);
    if (f->cut > 0) printf("    %" PRIu64 " actions had no room\n", f->cut);
}

/* Nothing goes wrong to that depth, which is reached, and the search has come by what it is for. */
static void holds(const qm_setup *s, uint32_t depth, uint32_t must_see) {
    uint32_t told = told_depth();
    qm_figures f =
        qm_search(s, told != 0 ? told : depth, told != 0 ? LONG_WORLDS : USUAL_WORLDS, stdout);

    print(&f);
    CHECK_STR(qm_broken_text(f.broken), qm_broken_text(QM_SOUND));
    CHECK_UINT(f.saw & must_see, must_see);
    if (told == 0) CHECK(f.exhausted || f.depth == depth);
}

/* Without what is left out, that goes wrong. */
static void breaks(const qm_setup *s, qm_broken broken) {
    FILE *story = getenv("HF_EXPLORE_SHOW") != NULL ? stdout : NULL;
    qm_figures f = qm_search(s, UINT32_MAX, FINDING_WORLDS, story);

    print(&f);
    if (f.broken != QM_SOUND)
        printf("    %s, in %" PRIu32 " actions\n", qm_broken_text(f.broken), f.length);
    CHECK_STR(qm_broken_text(f.broken), qm_broken_text(broken));
}

/* ---------------------------------------------------------------- all rules on */

TEST(two_clients_lock_again_and_again) {
    qm_setup s = usual(2);

    s.attempts = 2;
    s.renewals = 1;
    holds(&s, 10, QM_SAW_WON | QM_SAW_RENEWED | QM_SAW_REPAIRED | QM_SAW_LATE);
}

TEST(three_clients_lock) {
    qm_setup s = usual(3);

    s.renewals = 1;
    holds(&s, 8, QM_SAW_WON | QM_SAW_RENEWED);
}

TEST(a_node_loses_its_memory) {
    qm_setup s = with_losses(usual(2), 1, ANY_LOSS);

    s.late = 0;
    s.renewals = 1;
    s.beginning = held;
    holds(&s, 99, QM_SAW_WON | QM_SAW_BARRED | QM_SAW_RENEWED | QM_SAW_UNMARKED | QM_SAW_BACK);
}

TEST(two_nodes_lose_their_memory) {
    qm_setup s = with_losses(usual(2), 2, ANY_LOSS);

    s.late = 0;
    s.beginning = held;
    holds(&s, 10, QM_SAW_WON | QM_SAW_BARRED);
}

TEST(a_node_loses_its_memory_before_three) {
    qm_setup s = with_losses(usual(3), 1, ANY_LOSS);

    s.beginning = held;
    holds(&s, 7, QM_SAW_WON | QM_SAW_BARRED);
}

TEST(old_requests_arrive_late_and_twice) {
    qm_setup s = usual(2);

    s.attempts = 2;
    s.renewals = 1;
    s.links = 1;
    s.repeats = 1;
    holds(&s, 7, QM_SAW_WON | QM_SAW_RENEWED);
}

TEST(a_client_crashes) {
    qm_setup s = with_losses(usual(2), 1, ANY_LOSS);

    s.late = 0;
    s.attempts = 2;
    s.deaths = 1;
    holds(&s, 7, QM_SAW_WON);
}

TEST(errands_are_slow) {
    qm_setup s = with_losses(usual(2), 1, ANY_LOSS);

    s.prompt = false;
    s.late = 2;
    s.beginning = held;
    holds(&s, 6, QM_SAW_BARRED);
}

TEST(a_clock_jumps) {
    qm_setup s = with_jumps(usual(2), 1, 2000);

    s.attempts = 2;
    s.renewals = 1;
    s.beginning = held;
    holds(&s, 7, QM_SAW_JUMP | QM_SAW_BARRED | QM_SAW_RENEWED);
}

TEST(clocks_jump_twice) {
    qm_setup s = with_jumps(usual(2), 2, 2000);

    s.beginning = held;
    holds(&s, 10, QM_SAW_JUMP | QM_SAW_BARRED);
}

TEST(a_clock_jumps_in_the_quarantine) {
    qm_setup s = with_losses(with_jumps(usual(2), 1, 1000), 1, 1u << QM_OLD);

    set_ttl(&s, 3000);
    s.late = 0;
    s.beginning = held;
    holds(&s, 8, QM_SAW_JUMP | QM_SAW_BARRED | QM_SAW_BACK);
}

TEST(a_clock_jumps_while_two_write_the_quarantine) {
    qm_setup s = with_losses(with_jumps(usual(2), 1, 1000), 1, 1u << QM_OLD);

    set_ttl(&s, 3000);
    s.late = 0;
    s.prompt = false;
    s.beginning = two_bars;
    holds(&s, 6, QM_SAW_WON | QM_SAW_BARRED);
}

TEST(fences_of_two_clients) {
    qm_setup s = usual(2);

    s.fencing = true;
    s.attempts = 2;
    holds(&s, 9, QM_SAW_WON | QM_SAW_NEXT);
}

TEST(fences_of_three_clients) {
    qm_setup s = usual(3);

    s.fencing = true;
    holds(&s, 8, QM_SAW_WON | QM_SAW_NEXT);
}

TEST(fences_when_a_node_loses_its_memory) {
    qm_setup s = with_losses(usual(2), 1, ANY_LOSS);

    s.fencing = true;
    s.late = 0;
    s.saves = 1;
    s.beginning = held;
    holds(&s, 9, QM_SAW_WON | QM_SAW_NEXT | QM_SAW_BARRED);
}

TEST(fences_of_a_new_key) {
    qm_setup s = usual(3);

    s.fencing = s.uncounted = true;
    s.late = 0;
    holds(&s, 8, QM_SAW_WON | QM_SAW_NEXT);
}

/* That of n0 goes far behind the others, or ahead: far is more than maxTtl. */
static void with_a_wrong_clock(int32_t apart_ms) {
    qm_setup s = with_losses(usual(2), 1, ANY_LOSS);

    s.fencing = s.uncounted = true;
    s.late = 0;
    s.apart_ms[0] = apart_ms;
    s.beginning = held;
    holds(&s, 8, QM_SAW_WON | QM_SAW_BARRED);
}

TEST(fences_by_a_clock_that_is_behind) {
    with_a_wrong_clock(-9000);
}

TEST(fences_by_a_clock_that_is_ahead) {
    with_a_wrong_clock(9000);
}

TEST(readers_and_a_writer) {
    qm_setup s = usual(3);

    s.renewals = 1;
    s.shared[1] = s.shared[2] = true;
    holds(&s, 8, QM_SAW_WON | QM_SAW_TOGETHER);
}

TEST(readers_and_a_writer_with_fences) {
    qm_setup s = usual(3);

    s.fencing = true;
    s.late = 0;
    s.shared[1] = s.shared[2] = true;
    holds(&s, 8, QM_SAW_WON | QM_SAW_TOGETHER);
}

TEST(readers_and_a_writer_when_a_node_loses_its_memory) {
    qm_setup s = with_losses(usual(3), 1, ANY_LOSS);

    s.late = 0;
    s.shared[0] = s.shared[1] = true;
    s.beginning = held;
    holds(&s, 7, QM_SAW_WON | QM_SAW_TOGETHER | QM_SAW_BARRED);
}

TEST(a_quorum_is_founded) {
    qm_setup s = with_losses(usual(2), 1, 1u << QM_EMPTY);

    s.late = 0;
    s.blank = s.ordered = true;
    s.apart[0] = s.apart[1] = 7;
    s.beginning = late_founder;
    holds(&s, 10, QM_SAW_WON | QM_SAW_BARRED);
}

TEST(two_found_a_quorum) {
    qm_setup s = with_losses(usual(2), 1, 1u << QM_EMPTY);

    s.late = 0;
    s.prompt = false;
    s.blank = s.ordered = true;
    s.beginning = two_founders;
    holds(&s, 6, QM_SAW_WON);
}

/* c1's maxTtl is greater, and so is its time to live; c0 has read the markers before. */
static qm_setup with_greater_ttl(void) {
    qm_setup s = with_losses(usual(2), 1, ANY_LOSS);

    s.late = 0;
    s.attempts = 2;
    s.ttl_ms[1] = s.max_ms[1] = 4000;
    return s;
}

TEST(a_greater_max_ttl_is_brought_in) {
    qm_setup s = with_greater_ttl();

    holds(&s, 8, QM_SAW_WON | QM_SAW_BARRED | QM_SAW_UNMARKED);
}

TEST(a_greater_max_ttl_is_brought_in_and_a_node_loses_its_memory) {
    static const qm_action held_for_long[] = {{QM_TAKE, 1, 0, 0}, {QM_STEP, 1, 0, 0},
                                              {QM_STEP, 1, 1, 0}, {QM_CRASH, 0, 1, QM_OLD},
                                              {QM_LINK, 0, 1, 0}, {QM_NOTHING, 0, 0, 0}};
    qm_setup s = with_greater_ttl();

    s.beginning = held_for_long;
    holds(&s, 10, QM_SAW_WON | QM_SAW_UNMARKED | QM_SAW_BACK);
}

TEST(clocks_drift) {
    qm_setup s = with_drift(usual(2));

    s.late = 0;
    s.renewals = 1;
    s.beginning = held;
    holds(&s, 9, QM_SAW_WON | QM_SAW_RENEWED);
}

/* ---------------------------------------------------------------- a rule left out */

TEST(without_quarantine) {
    qm_setup s = with_losses(usual(2), 1, 1u << QM_EMPTY);

    s.rules = HF__RULES_ALL & ~HF__RULE_QUARANTINE;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_validity) {
    qm_setup s = usual(2);

    s.rules = HF__RULES_ALL & ~HF__RULE_VALIDITY;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_write_back) {
    qm_setup s = usual(3);

    s.rules = HF__RULES_ALL & ~HF__RULE_WRITE_BACK;
    s.fencing = true;
    s.late = 0;
    breaks(&s, QM_FENCE_BACK);
}

TEST(without_a_look_at_the_marker) {
    qm_setup s = with_losses(usual(2), 1, 1u << QM_WIPED);

    s.faults = QM_UNMARKED;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_a_majority) {
    qm_setup s = usual(2);

    s.faults = QM_HALF;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_a_margin_for_drift) {
    qm_setup s = with_drift(usual(2));

    s.late = 0;
    s.beginning = held;
    s.faults = QM_NO_MARGIN;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_a_look_at_the_owner) {
    qm_setup s = usual(2);

    s.attempts = 2;
    s.faults = QM_BLIND_DROP;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_a_look_at_clocks) {
    qm_setup s = with_jumps(usual(2), 1, 2000);

    s.faults = QM_NO_CLOCKS;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_a_look_at_clocks_in_renewals) {
    /* c0 renews on n0, and c1 has the vote of n2; c0's first request to n2 is still on its way. */
    static const qm_action renewing[] = {
        {QM_TAKE, 0, 0, 0}, {QM_STEP, 0, 0, 0}, {QM_STEP, 0, 1, 0},
        {QM_TICK, 0, 0, 0}, {QM_KEEP, 0, 0, 0}, {QM_STEP, 0, 0, 0},
        {QM_TAKE, 1, 0, 0}, {QM_STEP, 1, 2, 0}, {QM_NOTHING, 0, 0, 0}};
    qm_setup s = with_jumps(usual(2), 1, 2000);

    s.late = 0;
    s.renewals = 1;
    s.beginning = renewing;
    s.faults = QM_BLIND_KEEP;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_memory_of_clocks) {
    qm_setup s = with_jumps(usual(2), 1, 2000);

    s.late = 0;
    s.attempts = 2;
    s.links = 1;
    s.beginning = held;
    s.faults = QM_SHORT_CLOCKS;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(without_epochs) {
    qm_setup s = with_losses(usual(2), 1, 1u << QM_EMPTY);

    s.fencing = true;
    s.late = 0;
    s.beginning = held;
    s.faults = QM_NO_EPOCH;
    breaks(&s, QM_FENCE_BACK);
}

TEST(without_a_majority_for_fences) {
    qm_setup s = usual(3);

    s.fencing = true;
    s.late = 0;
    s.faults = QM_ONE_RAISES;
    breaks(&s, QM_FENCE_BACK);
}

/* ---------------------------------------------------------------- an assumption left out */

TEST(permits_are_not_kept) {
    qm_setup s = usual(3);

    s.permits = 2;
    s.shared[0] = s.shared[1] = s.shared[2] = true;
    breaks(&s, QM_TOO_MANY);
}

TEST(a_majority_is_emptied) {
    qm_setup s = with_losses(usual(2), 2, 1u << QM_EMPTY);

    s.late = 0;
    s.beginning = held;
    s.apart[1] = 1u << 2;
    s.faults = QM_ANY_LOSS;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(a_clock_jumps_and_comes_back_unseen) {
    qm_setup s = with_jumps(usual(2), 2, 2000);

    s.late = 0;
    s.beginning = held;
    s.faults = QM_ANY_JUMP;
    breaks(&s, QM_TWO_WRITERS);
}

/* And c1 cannot reach the third. */
TEST(two_clocks_jump_by_the_same) {
    qm_setup s = with_jumps(usual(2), 2, 2000);

    s.late = 0;
    s.attempts = 2;
    s.beginning = held;
    s.apart[1] = 1u << 2;
    s.faults = QM_SAME_JUMP;
    breaks(&s, QM_TWO_WRITERS);
}

TEST(a_node_is_emptied_as_it_runs_while_two_found) {
    qm_setup s = with_losses(usual(2), 1, 1u << QM_WIPED);

    s.late = 0;
    s.prompt = false;
    s.blank = s.ordered = true;
    s.beginning = two_founders;
    breaks(&s, QM_TWO_WRITERS);
}

/* n0's clock is wrong, and c1 has seen it and one other. */
TEST(fences_by_too_few_clocks) {
    static const qm_action held_by_the_first[] = {
        {QM_TAKE, 0, 0, 0}, {QM_STEP, 0, 0, 0}, {QM_STEP, 0, 1, 0}, {QM_NOTHING, 0, 0, 0}};
    qm_setup s = with_losses(usual(2), 1, 1u << QM_OLD);

    s.fencing = s.uncounted = true;
    s.late = 0;
    s.apart[0] = 1u << 2;
    s.apart_ms[0] = 9000;
    s.beginning = held_by_the_first;
    breaks(&s, QM_FENCE_BACK);
}
