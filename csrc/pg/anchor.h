/*
 * A session that locks hang on, and whether they do: a session that has ended has let go of all its
 * locks, and the server may know that before its client does.
 *
 * The server ends a session whose client it has not heard of for 10 s (tcp_user_timeout and
 * keepalives, which driver/postgres/session.c sets there). It has heard of this one at the latest
 * when it read the last statement that it has answered. So the session counts as alive for 8 s
 * from the sending of that statement, and not a moment longer, whatever becomes of the network, of
 * the clocks' drift or of this process; a trivial statement is sent when nothing else has been for
 * 2 s. After that the session is ended from here: its locks are lost, and never come back.
 *
 * That a loop was stuck for 6 to 8 s has the same end. The kernel goes on answering the server's
 * keepalives meanwhile, so most likely the locks are still there; but "most likely" is for no lock.
 * What has come before is read first, though: an answer counts from when its statement was sent.
 *
 * One loop, its thread only.
 */
#ifndef HF_PG_ANCHOR_H
#define HF_PG_ANCHOR_H

#include "core/engine.h"
#include "driver/postgres/session.h"

#define HF__ANCHOR_BEAT_MS 2000
#define HF__ANCHOR_BOUND_MS 8000
#define HF__ANCHOR_SENT_MAX 4 /* statements under way at a time */

typedef struct hf__anchor {
    hf_engine *engine;
    hf__pg_session *session; /* NULL: there is none that is ready */
    uint32_t n_held;         /* locks; they are whose anchor it is */

    /* the anchor's */
    uint64_t known_ns; /* when the last statement that was answered was sent */
    uint64_t last_ns;  /* when the last one was */
    uint64_t sent[HF__ANCHOR_SENT_MAX];
    uint32_t n_sent;
    bool over; /* it has been seen to be too late */
    bool beating;
    hf__pg_call beat;
    hf__timer timer;
} hf__anchor;

/* The trivial statement. */
extern const hf__pg_statement hf__anchor_beat;

/* `anchor` is zeroed, and the engine outlives it. */
void hf__anchor_init(hf__anchor *anchor, hf_engine *engine);
/* Has a session, which is ready and has answered nothing yet but its greeting. */
void hf__anchor_set(hf__anchor *anchor, hf__pg_session *session);
/* Has none any more: it is over, or about to be closed. What is held is the owner's affair. */
void hf__anchor_unset(hf__anchor *anchor);

/* Sends a call by hf__pg_session_send. One of HF__ANCHOR_SENT_MAX - 1 at most. */
void hf__anchor_send(hf__anchor *anchor, hf__pg_call *call);
/* To be called first in `done` of each call: the server has answered it. False: the answer never
 * came, for the session is over; or it came so late that the session counts as over, and has been
 * ended within this call. */
bool hf__anchor_answered(hf__anchor *anchor);
/* The same for a call that was sent at `sent_ns` without hf__anchor_send, as one that waits is;
 * but if that is too long ago, nothing happens beside the answer `false`. */
bool hf__anchor_knows(hf__anchor *anchor, uint64_t sent_ns);

/* One more, or one less, hangs on it. */
void hf__anchor_hold(hf__anchor *anchor);
void hf__anchor_drop(hf__anchor *anchor);
/* Whether what hangs on it is held: exact at any instant, also within one long callback. Once
 * false, it stays so. Runs no callback. */
bool hf__anchor_holds(hf__anchor *anchor);

#endif
