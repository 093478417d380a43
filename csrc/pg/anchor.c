#include "pg/anchor.h"

#include <assert.h>
#include <string.h>

const hf__pg_statement hf__anchor_beat = {.sql = "SELECT 1", .number = 1};

static uint64_t now_ns(const hf__anchor *anchor) {
    return hf__now_ns(&anchor->engine->clock);
}

static bool is_known(const hf__anchor *anchor) {
    return !anchor->over && now_ns(anchor) < hf__add_ms(anchor->known_ns, HF__ANCHOR_BOUND_MS);
}

static void end_late(hf__anchor *anchor) {
    hf_error error;

    anchor->over = true;
    hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE | HF_OUTCOME_UNKNOWN,
                  "PostgreSQL at %s has not been heard of for %d ms, or the event loop was blocked "
                  "for that long: the server may have ended the session",
                  anchor->session->server.name, HF__ANCHOR_BOUND_MS);
    hf__pg_session_fail(anchor->session, &error);
}

/* ---------------------------------------------------------------- beating */

/* When to look again: for the next beat, or at the end. */
static void watch(hf__anchor *anchor) {
    uint64_t end = hf__add_ms(anchor->known_ns, HF__ANCHOR_BOUND_MS);
    uint64_t beat = hf__add_ms(anchor->last_ns, HF__ANCHOR_BEAT_MS);
    uint64_t at = anchor->beating || beat > end ? end : beat;

    hf__timer_start(&anchor->engine->timers, &anchor->timer, anchor->over ? 0 : at);
}

static void on_beat(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__anchor *anchor = call->data;

    (void)result;
    (void)error; /* that it was answered is all that counts */
    anchor->beating = false;
    if (hf__anchor_answered(anchor) && anchor->n_held > 0) watch(anchor);
}

static void beat(hf__anchor *anchor) {
    anchor->beat = (hf__pg_call){.statement = &hf__anchor_beat, .done = on_beat, .data = anchor};
    anchor->beating = true;
    hf__anchor_send(anchor, &anchor->beat);
}

static void on_timer(hf__timer *timer) {
    hf__anchor *anchor = hf__of(timer, hf__anchor, timer);

    if (anchor->session == NULL || anchor->n_held == 0) return;
    if (!is_known(anchor)) {
        /* The loop may have been away, and what has come is not read yet. */
        hf__pg_session_read(anchor->session);
        if (anchor->session == NULL || anchor->n_held == 0) return;
        if (!is_known(anchor)) {
            end_late(anchor);
            return;
        }
    }
    if (!anchor->beating && now_ns(anchor) >= hf__add_ms(anchor->last_ns, HF__ANCHOR_BEAT_MS)) {
        beat(anchor);
        if (anchor->session == NULL) return;
    }
    watch(anchor);
}

/* ---------------------------------------------------------------- the interface */

void hf__anchor_init(hf__anchor *anchor, hf_engine *engine) {
    anchor->engine = engine;
    anchor->timer.fire = on_timer;
}

void hf__anchor_set(hf__anchor *anchor, hf__pg_session *session) {
    assert(anchor->session == NULL && anchor->n_held == 0);
    anchor->session = session;
    anchor->known_ns = anchor->last_ns = 0;
    anchor->n_sent = 0;
    anchor->over = anchor->beating = false;
}

void hf__anchor_unset(hf__anchor *anchor) {
    anchor->session = NULL;
    anchor->over = true;
    hf__timer_stop(&anchor->engine->timers, &anchor->timer);
}

void hf__anchor_send(hf__anchor *anchor, hf__pg_call *call) {
    assert(anchor->session != NULL && anchor->n_sent < HF__ANCHOR_SENT_MAX);
    anchor->last_ns = now_ns(anchor);
    anchor->sent[anchor->n_sent++] = anchor->last_ns;
    hf__pg_session_send(anchor->session, call);
}

/* Answers come in the order of the calls. */
bool hf__anchor_answered(hf__anchor *anchor) {
    if (anchor->session == NULL || anchor->session->state != HF__PG_READY) return false;
    assert(anchor->n_sent > 0);
    if (anchor->sent[0] > anchor->known_ns) anchor->known_ns = anchor->sent[0];
    anchor->n_sent--;
    memmove(anchor->sent, anchor->sent + 1, anchor->n_sent * sizeof *anchor->sent);
    if (is_known(anchor)) return true;
    end_late(anchor);
    return false;
}

bool hf__anchor_knows(hf__anchor *anchor, uint64_t sent_ns) {
    if (anchor->session == NULL || anchor->session->state != HF__PG_READY) return false;
    if (sent_ns > anchor->known_ns) anchor->known_ns = sent_ns;
    return is_known(anchor);
}

void hf__anchor_hold(hf__anchor *anchor) {
    assert(anchor->session != NULL);
    if (anchor->n_held++ == 0) watch(anchor);
}

void hf__anchor_drop(hf__anchor *anchor) {
    assert(anchor->n_held > 0);
    if (--anchor->n_held == 0) hf__timer_stop(&anchor->engine->timers, &anchor->timer);
}

bool hf__anchor_holds(hf__anchor *anchor) {
    if (anchor->session == NULL || anchor->over) return false;
    if (is_known(anchor)) return true;
    if (anchor->n_sent > 0 && hf__pg_session_peek(anchor->session)) {
        anchor->known_ns = anchor->sent[0];
        if (is_known(anchor)) return true;
    }
    anchor->over = true;
    watch(anchor); /* in the next turn the session is ended, and its locks' owners are told */
    return false;
}
