/* Answers that are lost or late, requests that land after their caller gave up. */
#include "support-faulty.h"
#include "support-host.h"

#include "prim/client.h"

#include <string.h>

static void faulty_open(host *h) {
    hf_error error;
    hf__url url;
    const char *why;
    plan_set(FAULT_NONE, HF_TAKE, 0, 0);
    host_open(h, "memory:");
    CHECK(hf__url_parse(&url, slice("memory:"), &h->engine->allocator, &why));
    hf_client_close(h->client, 0, NULL, NULL);
    hf_client_options options = HF_CLIENT_DEFAULTS;
    CHECK_INT(hf__client_new(h->engine, faulty_vtable(), &url, &options, &h->client, &error),
              HF_OK);
}

/* Waits until `*count` has reached `n`, looking between turns of the loop. */
static void until_count(host *h, const _Atomic int *count, int n) {
    for (int i = 0; i < 30000 && atomic_load(count) < n; i++)
        host_run_ms(h, 1);
    CHECK(atomic_load(count) >= n);
}

static void ask(host *h, held *l, uint64_t ttl_ms, uint64_t wait_ms) {
    static const hf_slice key = {"k", 1};
    hf_lock_options o = lock_options(&key, 1);
    o.ttl_ms = ttl_ms;
    o.wait_ms = wait_ms;
    CHECK_INT(held_ask(h, l, &o), HF_OK);
}

TEST(a_take_whose_answer_is_lost_is_undone) {
    host h;
    held l, next;
    faulty_open(&h);
    plan_set(LOSE_ANSWER, HF_TAKE, 1, 0);
    ask(&h, &l, 30000, 20000);
    hf_token first = *hf_lock_token(l.lock);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK); /* long before the lost one would have lapsed */
    CHECK(memcmp(&first, hf_lock_token(l.lock), sizeof(first)) != 0);
    CHECK_INT(atomic_load(&the_plan.drops_applied), 1);
    CHECK(hf_lock_held(l.lock));
    hf_lock_free(l.lock);
    ask(&h, &next, 30000, 20000);
    host_until(&h, &next.answered, 1);
    CHECK_INT(next.code, HF_OK);
    hf_lock_free(next.lock);
    host_close(&h);
}

TEST(a_take_that_lands_after_its_undo_is_dropped_too) {
    host h;
    held l;
    faulty_open(&h);
    plan_set(DELAY_REQUEST, HF_TAKE, 1, 300);
    ask(&h, &l, 2000, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_EUNAVAIL);
    hf_lock_free(l.lock);
    until_count(&h, &the_plan.ghosts, 1);
    CHECK_INT(atomic_load(&the_plan.ghosts_applied), 1); /* it did land, in nobody's name */
    until_count(&h, &the_plan.drops_applied, 1);         /* and was found and dropped */
    ask(&h, &l, 30000, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(a_delayed_undo_never_removes_a_later_take) {
    host h;
    held l, other;
    faulty_open(&h);
    plan_set(LOSE_REQUEST, HF_TAKE, 1, 0);
    ask(&h, &l, 1000, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_EUNAVAIL);
    ask(&h, &other, 30000, 0);
    host_until(&h, &other.answered, 1);
    CHECK_INT(other.code, HF_OK);
    host_run_ms(&h, 1500); /* the undo goes on for one time to live */
    CHECK(hf_lock_held(other.lock));
    CHECK_INT(atomic_load(&the_plan.drops_applied), 0);
    CHECK_INT(held_release(&other), HF_OK);
    host_until(&h, &other.released, 1);
    CHECK(other.was_held);
    hf_lock_free(other.lock);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(an_answer_later_than_the_validity_is_no_lock) {
    host h;
    held l, next;
    faulty_open(&h);
    plan_set(DELAY_ANSWER, HF_TAKE, 1, 200);
    ask(&h, &l, 100, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_EUNAVAIL);
    CHECK(!hf_lock_held(l.lock));
    hf_lock_free(l.lock);
    ask(&h, &next, 100, 10000);
    host_until(&h, &next.answered, 1);
    CHECK_INT(next.code, HF_OK);
    hf_lock_free(next.lock);
    host_close(&h);
}

TEST(a_lock_won_after_its_caller_gave_up_is_dropped) {
    host h;
    held l;
    faulty_open(&h);
    plan_set(DELAY_ANSWER, HF_TAKE, 1, 400);
    ask(&h, &l, 60000, HF_FOREVER);
    hf_lock_cancel(l.lock);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_ECANCELED);
    hf_lock_free(l.lock);
    until_count(&h, &the_plan.drops_applied, 1);
    ask(&h, &l, 30000, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(waiting_rides_out_an_outage) {
    host h;
    held l;
    faulty_open(&h);
    plan_set(REFUSE, HF_TAKE, 4, 0);
    ask(&h, &l, 30000, 20000);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    CHECK_INT(atomic_load(&the_plan.struck), 4);
    hf_lock_free(l.lock);
    plan_set(REFUSE, HF_TAKE, 1 << 20, 0);
    ask(&h, &l, 30000, 100);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_EUNAVAIL); /* and says so when it ends in one */
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(renewals_that_fail_cost_the_lock_only_at_its_deadline) {
    host h;
    held l;
    faulty_open(&h);
    ask(&h, &l, 300, 0);
    host_until(&h, &l.answered, 1);
    plan_set(REFUSE, HF_KEEP, 2, 0);
    until_count(&h, &the_plan.struck, 2);
    host_run_ms(&h, 600);
    CHECK(hf_lock_held(l.lock)); /* the third was in time */
    plan_set(REFUSE, HF_KEEP, 1 << 20, 0);
    host_until(&h, &l.lost, 1);
    CHECK(atomic_load(&the_plan.struck) > 1);
    CHECK(strstr(l.why.message, "renewed") != NULL);
    CHECK_INT(held_release(&l), HF_ELOST);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(a_renewal_answered_after_the_deadline_is_dropped) {
    host h;
    held l;
    faulty_open(&h);
    ask(&h, &l, 300, 0);
    host_until(&h, &l.answered, 1);
    plan_set(DELAY_ANSWER, HF_KEEP, 1 << 20, 1000);
    host_until(&h, &l.lost, 1);
    CHECK(!hf_lock_held(l.lock));
    until_count(&h, &the_plan.struck, 1);
    host_run_ms(&h, 1200);
    CHECK(!hf_lock_held(l.lock)); /* never back */
    CHECK_INT(l.lost, 1);
    hf_lock_free(l.lock);
    plan_set(FAULT_NONE, HF_KEEP, 0, 0);
    ask(&h, &l, 300, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(a_drop_whose_answer_is_lost_is_repeated) {
    host h;
    held l;
    faulty_open(&h);
    ask(&h, &l, 60000, 0);
    host_until(&h, &l.answered, 1);
    plan_set(LOSE_REQUEST, HF_DROP, 2, 0);
    CHECK_INT(held_release(&l), HF_OK);
    host_until(&h, &l.released, 1);
    CHECK_INT(l.release_code, HF_EUNAVAIL);
    hf_lock_free(l.lock);
    until_count(&h, &the_plan.drops_applied, 1);
    host_close(&h);
}

TEST(an_extension_during_a_renewal_is_sent_itself) {
    host h;
    held l;
    faulty_open(&h);
    plan_set(DELAY_ANSWER, HF_KEEP, 1, 200);
    ask(&h, &l, 900, 0);
    host_until(&h, &l.answered, 1);
    until_count(&h, &the_plan.struck, 1); /* a renewal is under way */
    CHECK_INT(held_extend(&l, 60000), HF_OK);
    host_until(&h, &l.extended, 1);
    CHECK_INT(l.extend_code, HF_OK);
    CHECK(hf_lock_remaining_ms(l.lock) > 50000);
    host_run_ms(&h, 1500);
    CHECK(hf_lock_held(l.lock));
    CHECK_INT(l.lost, 0);
    hf_lock_free(l.lock);
    host_close(&h);
}

TEST(a_drop_is_repeated_as_long_as_the_extended_lease_may_last) {
    host h;
    held l, next;
    faulty_open(&h);
    ask(&h, &l, 100, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(held_extend(&l, 60000), HF_OK);
    host_until(&h, &l.extended, 1);
    plan_set(REFUSE, HF_DROP, 6, 0);
    CHECK_INT(held_release(&l), HF_OK);
    host_until(&h, &l.released, 1);
    hf_lock_free(l.lock);
    ask(&h, &next, 60000, 20000);
    host_until(&h, &next.answered, 1);
    CHECK_INT(next.code, HF_OK);
    hf_lock_free(next.lock);
    host_close(&h);
}

static void on_client_closed(void *data) {
    ++*(int *)data;
}

TEST(an_undo_does_not_hold_up_closing) {
    host h;
    held l;
    int closed = 0;
    faulty_open(&h);
    plan_set(LOSE_REQUEST, HF_TAKE, 1, 0);
    ask(&h, &l, 60000, 0);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_EUNAVAIL);
    hf_lock_free(l.lock);
    host_run_ms(&h, 20);
    hf_client_close(h.client, HF_FOREVER, on_client_closed, &closed);
    host_until(&h, &closed, 1);
    host_close(&h);
}

typedef struct once_seen {
    int begun;
    int ended;
    hf_code code;
    uint32_t attempt;
} once_seen;

static void on_begun(void *data, hf_run *run, const hf_once_result *result) {
    once_seen *s = data;
    (void)run;
    s->begun++;
    s->code = result->error == NULL ? HF_OK : result->error->code;
    s->attempt = result->attempt;
}

static void on_ended(void *data, hf_run *run, const hf_error *error) {
    once_seen *s = data;
    (void)run;
    s->ended++;
    s->code = error == NULL ? HF_OK : error->code;
}

TEST(claims_and_finishes_survive_lost_answers) {
    host h;
    hf_run *run;
    hf_error error;
    once_seen s = {0};
    hf_once_options o = {.key = slice("pay"),
                         .ttl_ms = 60000,
                         .lease_ms = 30000,
                         .wait_ms = 10000,
                         .max_stall_ms = 60000};
    faulty_open(&h);
    plan_set(LOSE_ANSWER, HF_PUT, 2, 0);
    CHECK_INT(hf_once_begin(h.client, &o, on_begun, NULL, &s, &run, &error), HF_OK);
    host_until(&h, &s.begun, 1);
    CHECK_INT(s.code, HF_OK); /* its own claim, not another's in its way */
    CHECK_UINT(s.attempt, 1);
    plan_set(LOSE_ANSWER, HF_PUT, 2, 0);
    CHECK_INT(hf_run_finish(run, slice("1"), HF_JSON, false, on_ended, &s), HF_OK);
    host_until(&h, &s.ended, 1);
    CHECK_INT(s.code, HF_OK);
    CHECK_INT(atomic_load(&the_plan.struck), 2);
    hf_run_free(run);
    host_close(&h);
}

/* The claim arrives after its undo was answered; without another undo it would stand in the way for
 * its lease, and then look like a run that has crashed. */
TEST(a_claim_that_lands_after_its_undo_is_taken_back_too) {
    host h;
    hf_error error;
    hf_run *run;
    once_seen s = {0};
    hf_once_options o = {.key = slice("pay"),
                         .ttl_ms = 60000,
                         .lease_ms = 2000,
                         .max_stall_ms = 60000,
                         .fail_on_crash = true};

    faulty_open(&h);
    plan_set(DELAY_REQUEST, HF_PUT, 1, 300);
    CHECK_INT(hf_once_begin(h.client, &o, on_begun, NULL, &s, &run, &error), HF_OK);
    host_until(&h, &s.begun, 1);
    CHECK_INT(s.code, HF_EUNAVAIL);
    hf_run_free(run);
    until_count(&h, &the_plan.ghosts, 1);
    CHECK_INT(atomic_load(&the_plan.ghosts_applied), 1);
    o.wait_ms = 30000;
    s = (once_seen){0};
    CHECK_INT(hf_once_begin(h.client, &o, on_begun, NULL, &s, &run, &error), HF_OK);
    host_until(&h, &s.begun, 1);
    CHECK_INT(s.code, HF_OK);
    hf_run_free(run);
    host_close(&h);
}

static void count_done(hf_op *op) {
    ++*(int *)op->data;
}

/* What the last try says is not all: an earlier one may have landed. */
TEST(a_put_is_in_doubt_if_any_of_its_tries_was) {
    static const hf_slice key = {"k", 1};
    host h;
    hf_error error;
    int done = 0;
    hf_op op;

    faulty_open(&h);
    plan_set(LOSE_ANSWER, HF_PUT, 1, 0);
    hf_op_init(&op, HF_PUT, count_done, &done);
    op.space = HF_VALUES;
    op.keys = &key;
    op.n_keys = 1;
    op.value = slice("1");
    op.deadline_ns = hf__add_ms(hf__client_now(h.client), 300);
    CHECK_INT(hf_submit(h.client, &op, &error), HF_OK);
    until_count(&h, &the_plan.struck, 1);
    plan_set(REFUSE, HF_PUT, 1 << 20, 0);
    host_until(&h, &done, 1);
    CHECK(atomic_load(&the_plan.struck) > 0); /* it was refused after that, without a doubt */
    CHECK_INT(op.error.code, HF_EUNAVAIL);
    CHECK((op.error.flags & HF_OUTCOME_UNKNOWN) != 0);
    hf_op_reset(&op);
    host_close(&h);
}

TEST(a_claim_is_taken_back_if_any_of_its_tries_may_have_landed) {
    host h;
    hf_error error;
    hf_run *run;
    once_seen s = {0};
    hf_once_options o = {.key = slice("pay"),
                         .ttl_ms = 60000,
                         .lease_ms = 60000,
                         .max_stall_ms = 60000,
                         .wait_ms = 300,
                         .fail_on_crash = true};

    faulty_open(&h);
    plan_set(LOSE_ANSWER, HF_PUT, 1, 0);
    CHECK_INT(hf_once_begin(h.client, &o, on_begun, NULL, &s, &run, &error), HF_OK);
    until_count(&h, &the_plan.struck, 1);
    plan_set(REFUSE, HF_PUT, 1 << 20, 0);
    host_until(&h, &s.begun, 1);
    CHECK_INT(s.code, HF_EUNAVAIL);
    hf_run_free(run);
    plan_set(FAULT_NONE, HF_PUT, 0, 0);
    o.wait_ms = 5000;
    s = (once_seen){0};
    CHECK_INT(hf_once_begin(h.client, &o, on_begun, NULL, &s, &run, &error), HF_OK);
    host_until(&h, &s.begun, 1);
    CHECK_INT(s.code, HF_OK);
    hf_run_free(run);
    host_close(&h);
}
