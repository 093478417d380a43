/*
 * Takes back statements that are under way at the server. libpq can do that only by waiting, so it
 * goes to the pool of threads, one at a time. One loop, its thread only.
 */
#ifndef HF_PG_CANCELLER_H
#define HF_PG_CANCELLER_H

#include "driver/postgres/session.h"

typedef struct hf__canceller {
    uv_loop_t *loop;
    hf__scope *scope;
    hf__node line;
    uv_work_t work;
    bool busy;
    PGcancel *now;
    struct hf__cancelling *asker; /* of that; NULL: it has lost interest */
    /* No request is under way any more. May be NULL. */
    void (*idle)(struct hf__canceller *canceller);
} hf__canceller;

/* One request. Zeroed before its first use; in place until `done` or hf__canceller_forget. */
typedef struct hf__cancelling {
    /* The server has been told, or cannot be: the call ends soon, or not. Once, in a later turn. */
    void (*done)(struct hf__cancelling *cancelling);
    hf__node node;
    PGcancel *cancel;
} hf__cancelling;

void hf__canceller_init(hf__canceller *canceller, uv_loop_t *loop, hf__scope *scope);
/* Takes back what the session, which is ready, carries out now. False: memory is out. */
bool hf__canceller_ask(hf__canceller *canceller, hf__cancelling *cancelling,
                       const hf__pg_session *session);
/* `done` will not run. Harmless if nothing was asked. */
void hf__canceller_forget(hf__canceller *canceller, hf__cancelling *cancelling);

#endif
