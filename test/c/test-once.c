/* Run once, by the public interface. Two hosts on one file stand for two processes. */
#include "support-host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct ran {
    hf_run *run;
    int begun;
    hf_code code;
    bool replay;
    bool is_error;
    uint32_t attempt;
    uint64_t fence;
    uint64_t left_ms;
    char value[64];
    int lost;
    int ended;
    hf_code end_code;
} ran;

static void on_begun(void *data, hf_run *run, const hf_once_result *result) {
    ran *r = data;
    r->run = run;
    r->begun++;
    r->code = result->error == NULL ? HF_OK : result->error->code;
    r->replay = result->replay;
    r->is_error = result->is_error;
    r->attempt = result->attempt;
    r->fence = result->fence;
    r->left_ms = result->left_ms;
    snprintf(r->value, sizeof(r->value), "%.*s", (int)result->value.len,
             result->value.len > 0 ? result->value.data : "");
}

static void on_lost(void *data, hf_run *run, const hf_error *why) {
    ran *r = data;
    (void)run;
    (void)why;
    r->lost++;
}

static void on_ended(void *data, hf_run *run, const hf_error *error) {
    ran *r = data;
    (void)run;
    r->ended++;
    r->end_code = error == NULL ? HF_OK : error->code;
}

static hf_once_options options_of(const char *key) {
    return (hf_once_options){.key = slice(key),
                             .ttl_ms = 60000,
                             .lease_ms = 30000,
                             .wait_ms = 10000,
                             .max_stall_ms = 60000};
}

static void begin(host *h, ran *r, const hf_once_options *o) {
    hf_error error;
    memset(r, 0, sizeof(*r));
    CHECK_INT(hf_once_begin(h->client, o, on_begun, on_lost, r, &r->run, &error), HF_OK);
    CHECK_INT(r->begun, 0);
}

static void begin_and_wait(host *h, ran *r, const hf_once_options *o) {
    begin(h, r, o);
    host_until(h, &r->begun, 1);
}

static void finish(host *h, ran *r, const char *value) {
    CHECK_INT(hf_run_finish(r->run, slice(value), HF_JSON, false, on_ended, r), HF_OK);
    host_until(h, &r->ended, 1);
}

TEST(runs_once_and_replays) {
    const char *urls[] = {"memory:", "sqlite:"};
    for (int i = 0; i < 2; i++) {
        host h;
        ran a, b;
        hf_once_options o = options_of("pay");
        host_open(&h, urls[i]);
        begin_and_wait(&h, &a, &o);
        CHECK_INT(a.code, HF_OK);
        CHECK(!a.replay);
        CHECK_UINT(a.attempt, 1);
        CHECK(a.fence > 0);
        CHECK(hf_run_held(a.run));
        begin(&h, &b, &o); /* waits for the first */
        host_run_ms(&h, 50);
        CHECK_INT(b.begun, 0);
        finish(&h, &a, "42");
        CHECK_INT(a.end_code, HF_OK);
        host_until(&h, &b.begun, 1);
        CHECK(b.replay);
        CHECK_STR(b.value, "42");
        hf_run_free(b.run);
        hf_run_free(a.run);
        begin_and_wait(&h, &a, &o);
        CHECK(a.replay);
        CHECK_INT(hf_run_finish(a.run, slice("x"), HF_JSON, false, NULL, NULL), HF_ELOST);
        hf_run_free(a.run);
        host_close(&h);
    }
}

TEST(tells_that_it_runs_elsewhere) {
    host h;
    ran a, b;
    hf_once_options o = options_of("pay");
    host_open(&h, "memory:");
    begin_and_wait(&h, &a, &o);
    o.wait_ms = 0;
    begin_and_wait(&h, &b, &o);
    CHECK_INT(b.code, HF_EINPROGRESS);
    CHECK(b.left_ms > 0 && b.left_ms <= 30000);
    hf_run_free(b.run);
    o.wait_ms = 40;
    begin_and_wait(&h, &b, &o);
    CHECK_INT(b.code, HF_EINPROGRESS);
    hf_run_free(b.run);
    begin(&h, &b, &o);
    hf_run_cancel(b.run);
    host_until(&h, &b.begun, 1);
    CHECK_INT(b.code, HF_ECANCELED);
    hf_run_free(b.run);
    begin(&h, &b, &o);
    hf_run_free(b.run); /* without waiting for the answer */
    CHECK_INT(hf_run_abandon(a.run, on_ended, &a), HF_OK);
    host_until(&h, &a.ended, 1);
    CHECK_INT(a.end_code, HF_OK);
    hf_run_free(a.run);
    begin_and_wait(&h, &a, &o); /* anew */
    CHECK_INT(a.code, HF_OK);
    CHECK(!a.replay);
    CHECK_UINT(a.attempt, 1);
    hf_run_free(a.run);
    host_close(&h);
}

TEST(keeps_operations_apart_by_fingerprint) {
    host h;
    ran a, b;
    hf_once_options o = options_of("pay"), other = o;
    o.fingerprint = slice("one");
    other.fingerprint = slice("two");
    host_open(&h, "memory:");
    begin_and_wait(&h, &a, &o);
    begin_and_wait(&h, &b, &other);
    CHECK_INT(b.code, HF_EMISMATCH); /* while it runs */
    hf_run_free(b.run);
    finish(&h, &a, "1");
    hf_run_free(a.run);
    begin_and_wait(&h, &b, &other);
    CHECK_INT(b.code, HF_EMISMATCH); /* and when it is done */
    hf_run_free(b.run);
    begin_and_wait(&h, &b, &o);
    CHECK(b.replay);
    hf_run_free(b.run);
    host_close(&h);
}

TEST(takes_over_from_a_crashed_run) {
    host dead, h;
    ran a, b;
    hf_once_options o = options_of("pay");
    o.lease_ms = 200;
    host_open(&dead, "sqlite:");
    host_open(&h, "sqlite:");
    begin_and_wait(&dead, &a, &o);
    hf_run_free(a.run); /* nobody renews or finishes it */
    host_run_ms(&dead, 1);
    begin(&h, &b, &o);
    host_until(&h, &b.begun, 1);
    CHECK_INT(b.code, HF_OK);
    CHECK_UINT(b.attempt, 2);
    CHECK(b.fence > a.fence);
    finish(&h, &b, "2");
    CHECK_INT(b.end_code, HF_OK);
    hf_run_free(b.run);
    host_close(&h);
    host_close(&dead);
}

TEST(refuses_to_run_again_where_told_to) {
    host h;
    ran a, b;
    hf_once_options o = options_of("pay");
    o.lease_ms = 100;
    o.fail_on_crash = true;
    host_open(&h, "sqlite:");
    begin_and_wait(&h, &a, &o);
    hf_run_free(a.run);
    begin_and_wait(&h, &b, &o); /* waits for the lease to lapse */
    CHECK_INT(b.code, HF_ECRASHED);
    hf_run_free(b.run);
    host_close(&h);
}

TEST(a_late_finish_is_refused) {
    host frozen, h;
    ran a, b;
    hf_once_options o = options_of("pay");
    o.lease_ms = 200;
    o.max_stall_ms = 100; /* the keeper gives up soon after the loop stops turning */
    host_open(&frozen, "sqlite:");
    host_open(&h, "sqlite:");
    begin_and_wait(&frozen, &a, &o);
    begin(&h, &b, &o);
    host_until(&h, &b.begun, 1); /* while the first loop does not turn */
    CHECK_INT(b.code, HF_OK);
    CHECK_UINT(b.attempt, 2);
    CHECK(!hf_run_held(a.run));
    CHECK_INT(hf_run_finish(a.run, slice("zombie"), HF_JSON, false, on_ended, &a), HF_OK);
    host_until(&frozen, &a.ended, 1);
    CHECK_INT(a.end_code, HF_ELOST);
    finish(&h, &b, "mine");
    CHECK_INT(b.end_code, HF_OK);
    hf_run_free(b.run);
    begin_and_wait(&h, &b, &o);
    CHECK_STR(b.value, "mine");
    hf_run_free(b.run);
    hf_run_free(a.run);
    host_close(&frozen);
    host_close(&h);
}

TEST(a_finish_after_a_lapse_counts_if_nobody_took_over) {
    host h;
    ran a;
    hf_once_options o = options_of("pay");
    o.lease_ms = 200;
    o.max_stall_ms = 100;
    host_open(&h, "sqlite:");
    begin_and_wait(&h, &a, &o);
    usleep(1000000);
    CHECK(!hf_run_held(a.run));
    host_until(&h, &a.lost, 1);
    finish(&h, &a, "late");
    CHECK_INT(a.end_code, HF_OK);
    hf_run_free(a.run);
    begin_and_wait(&h, &a, &o);
    CHECK(a.replay);
    CHECK_STR(a.value, "late");
    hf_run_free(a.run);
    host_close(&h);
}

TEST(is_renewed_while_it_runs) {
    host h, other;
    ran a, b;
    hf_once_options o = options_of("pay");
    o.lease_ms = 150;
    host_open(&h, "sqlite:");
    host_open(&other, "sqlite:");
    begin_and_wait(&h, &a, &o);
    usleep(1000000); /* blocked: the keeper renews */
    CHECK(hf_run_held(a.run));
    o.wait_ms = 0;
    begin_and_wait(&other, &b, &o);
    CHECK_INT(b.code, HF_EINPROGRESS);
    hf_run_free(b.run);
    finish(&h, &a, "1");
    hf_run_free(a.run);
    host_close(&other);
    host_close(&h);
}

typedef struct seen {
    int got;
    hf_record record;
    bool existed;
    hf_code code;
} seen;

static void on_record(void *data, const hf_record *record, const hf_error *error) {
    seen *s = data;
    s->got++;
    s->code = error == NULL ? HF_OK : error->code;
    if (record != NULL) s->record = *record;
}

static void on_forgot(void *data, bool existed, const hf_error *error) {
    seen *s = data;
    s->got++;
    s->existed = existed;
    s->code = error == NULL ? HF_OK : error->code;
}

TEST(shows_and_forgets_records) {
    host h;
    ran a;
    seen s = {0};
    hf_error error;
    hf_once_options o = options_of("pay");
    host_open(&h, "sqlite:");
    CHECK_INT(hf_record_get(h.client, slice("pay"), on_record, &s, &error), HF_OK);
    host_until(&h, &s.got, 1);
    CHECK(!s.record.present);
    begin_and_wait(&h, &a, &o);
    CHECK_INT(hf_record_get(h.client, slice("pay"), on_record, &s, &error), HF_OK);
    host_until(&h, &s.got, 2);
    CHECK(s.record.present && s.record.claimed);
    CHECK(s.record.lease_left_ms > 0);
    CHECK_INT(hf_record_forget(h.client, slice("pay"), on_forgot, &s, &error), HF_OK);
    host_until(&h, &s.got, 3);
    CHECK(s.existed);
    finish(&h, &a, "1"); /* forgotten: refused */
    CHECK_INT(a.end_code, HF_ELOST);
    hf_run_free(a.run);
    CHECK_INT(hf_record_forget(h.client, slice("pay"), on_forgot, &s, &error), HF_OK);
    host_until(&h, &s.got, 4);
    CHECK(!s.existed);
    host_close(&h);
}

static void on_client_closed(void *data) {
    ++*(int *)data;
}

TEST(closing_does_not_wait_for_a_run_that_was_given_back) {
    host h;
    ran a, b;
    int closed = 0;
    hf_once_options o = options_of("pay");
    host_open(&h, "memory:");
    begin_and_wait(&h, &a, &o);
    host_run_ms(&h, 20);
    hf_run_free(a.run);
    host_run_ms(&h, 50); /* the keeper has let it go, and lingers without reading of the next */
    o = options_of("other");
    begin_and_wait(&h, &b, &o);
    CHECK_INT(b.code, HF_OK);
    hf_client_close(h.client, HF_FOREVER, on_client_closed, &closed);
    host_run_ms(&h, 5);
    CHECK_INT(closed, 0);
    hf_run_free(b.run);
    host_until(&h, &closed, 1);
    host_close(&h);
}
