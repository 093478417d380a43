/*
 * Takes back statements that are under way at the server. libpq can do that only by waiting, for as
 * long as the server, or what stands before it, likes; so each request has a thread of its own, one
 * at a time, which is left behind when it takes too long. One loop, its thread only.
 */
#ifndef HF_PG_CANCELLER_H
#define HF_PG_CANCELLER_H

#include "core/engine.h"
#include "driver/postgres/session.h"

#define HF__CANCEL_BOUND_MS 2000 /* so long a request is waited for */

typedef struct hf__canceller {
    hf_engine *engine;
    hf__node line;
    struct hf__cancel_job *job;
    bool busy;
    struct hf__cancelling *asker; /* of the request under way; NULL: it has lost interest */
    hf__timer timer;
    /* No request is under way any more. May be NULL. */
    void (*idle)(struct hf__canceller *canceller);
} hf__canceller;

/* One request. Zeroed before its first use; in place until `done` or hf__canceller_forget. */
typedef struct hf__cancelling {
    /* The server has been told, or cannot be: the call ends soon, or not. Once, in a later turn;
     * not where the request took too long: it may come at any time then, and the session is failed
     * instead, if it is still there. */
    void (*done)(struct hf__cancelling *cancelling);
    hf__node node;
    hf__pg_session *session; /* the owner's to set to NULL when it is over */
    PGcancel *cancel;        /* NULL: nothing is asked */
} hf__cancelling;

void hf__canceller_init(hf__canceller *canceller, hf_engine *engine);
/* Takes back what the session, which is ready, carries out now. False: memory is out. */
bool hf__canceller_ask(hf__canceller *canceller, hf__cancelling *cancelling,
                       hf__pg_session *session);
/* `done` will not run. The session is over, or is ended now: the request may still come. Harmless
 * if nothing was asked. */
void hf__canceller_forget(hf__canceller *canceller, hf__cancelling *cancelling);

#endif
