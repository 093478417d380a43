#include "pg/canceller.h"

static void next(hf__canceller *canceller);

/* On a thread of the pool. Whether it worked shows at the session. */
static void on_work(uv_work_t *work) {
    const hf__canceller *canceller = hf__of(work, hf__canceller, work);
    char why[256];

    (void)PQcancel(canceller->now, why, sizeof why);
}

static void on_worked(uv_work_t *work, int status) {
    hf__canceller *canceller = hf__of(work, hf__canceller, work);
    hf__cancelling *asker = canceller->asker;
    hf__scope *scope = canceller->scope;

    (void)status;
    PQfreeCancel(canceller->now);
    canceller->now = NULL;
    canceller->asker = NULL;
    canceller->busy = false;
    hf__scope_enter(scope);
    if (asker != NULL) {
        asker->cancel = NULL;
        asker->done(asker);
    }
    next(canceller);
    /* Last: the owner may go in this. */
    if (!canceller->busy && canceller->idle != NULL) canceller->idle(canceller);
    hf__scope_leave(scope);
}

static void next(hf__canceller *canceller) {
    hf__node *node = canceller->busy ? NULL : hf__list_pop(&canceller->line);

    if (node == NULL) return;
    canceller->asker = hf__of(node, hf__cancelling, node);
    canceller->now = canceller->asker->cancel;
    canceller->busy = true;
    uv_queue_work(canceller->loop, &canceller->work, on_work, on_worked);
}

void hf__canceller_init(hf__canceller *canceller, uv_loop_t *loop, hf__scope *scope) {
    canceller->loop = loop;
    canceller->scope = scope;
    hf__list_init(&canceller->line);
}

bool hf__canceller_ask(hf__canceller *canceller, hf__cancelling *cancelling,
                       const hf__pg_session *session) {
    cancelling->cancel = PQgetCancel(session->conn);
    if (cancelling->cancel == NULL) return false;
    hf__list_push(&canceller->line, &cancelling->node);
    next(canceller);
    return true;
}

void hf__canceller_forget(hf__canceller *canceller, hf__cancelling *cancelling) {
    if (cancelling->cancel == NULL) return;
    if (canceller->asker == cancelling) {
        canceller->asker = NULL;
    } else {
        hf__list_remove(&cancelling->node);
        PQfreeCancel(cancelling->cancel);
    }
    cancelling->cancel = NULL;
}
