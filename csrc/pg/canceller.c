#include "pg/canceller.h"
#include "driver/postgres/error.h"
#include "util/alloc.h"

#include <pthread.h>
#include <signal.h>

/* A request on its way. It belongs to its thread when it has been given up, else to the loop; so
 * it is none of the engine's memory. */
typedef struct hf__cancel_job {
    hf__msg msg;
    hf__mailbox *mailbox;
    hf__canceller *canceller; /* NULL: given up, and the thread had done it already */
    PGcancel *cancel;
    uv_mutex_t mutex;
    bool given_up;
    bool told;
} hf__cancel_job;

static void next(hf__canceller *canceller);

static void free_job(hf__cancel_job *job) {
    PQfreeCancel(job->cancel);
    uv_mutex_destroy(&job->mutex);
    hf__free(hf__allocator_libc(), job);
}

/* ---------------------------------------------------------------- the thread */

static void *thread_main(void *arg) {
    hf__cancel_job *job = arg;
    char why[256];
    bool given_up;

    (void)PQcancel(job->cancel, why, sizeof why); /* whether it worked shows at the session */
    uv_mutex_lock(&job->mutex);
    given_up = job->given_up;
    job->told = !given_up;
    if (job->told) hf__mailbox_post(job->mailbox, &job->msg, 1, 0);
    uv_mutex_unlock(&job->mutex);
    if (given_up) free_job(job);
    return NULL;
}

/* The host's handlers of signals run on the host's threads. */
static bool start_thread(hf__cancel_job *job) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int rc;

    if (pthread_attr_init(&attributes) != 0) return false;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, &attributes, thread_main, job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return rc == 0;
}

/* ---------------------------------------------------------------- the loop */

static void on_told(hf__msg *msg, uint32_t bits) {
    hf__cancel_job *job = hf__of(msg, hf__cancel_job, msg);
    hf__canceller *canceller = job->canceller;
    hf__cancelling *asker;

    (void)bits;
    uv_mutex_lock(&job->mutex); /* it has left the thread */
    uv_mutex_unlock(&job->mutex);
    free_job(job);
    if (canceller == NULL) return;
    asker = canceller->asker;
    canceller->asker = NULL;
    canceller->job = NULL;
    if (asker != NULL) {
        asker->cancel = NULL;
        asker->done(asker);
    }
    next(canceller);
}

static void give_up(hf__canceller *canceller) {
    hf__cancel_job *job = canceller->job;
    bool told;

    canceller->job = NULL;
    uv_mutex_lock(&job->mutex);
    job->given_up = true;
    job->canceller = NULL;
    told = job->told;
    uv_mutex_unlock(&job->mutex);
    /* Where it cannot be taken back it is being read. */
    if (told && hf__mailbox_recall(job->mailbox, &job->msg, 1)) free_job(job);
}

static void on_late(hf__timer *timer) {
    hf__canceller *canceller = hf__of(timer, hf__canceller, timer);
    hf__cancelling *asker = canceller->asker;
    hf_error error;

    if (canceller->job != NULL) give_up(canceller);
    canceller->asker = NULL;
    if (asker != NULL) asker->cancel = NULL;
    if (asker != NULL && asker->session != NULL) {
        hf__pg_unreachable(&error, asker->session->server.name, "it was not to be told to cancel");
        hf__pg_session_fail(asker->session, &error);
    } else if (asker != NULL) {
        asker->done(asker);
    }
    next(canceller);
}

static void finish(hf__canceller *canceller) {
    hf__timer_stop(&canceller->engine->timers, &canceller->timer);
    if (!canceller->busy) return;
    canceller->busy = false;
    hf__engine_unref(canceller->engine);
    /* Last: the owner may go in this. */
    if (canceller->idle != NULL) canceller->idle(canceller);
}

static hf__cancel_job *job_new(hf__canceller *canceller, PGcancel *cancel) {
    hf__cancel_job *job = hf__zalloc(hf__allocator_libc(), sizeof *job);

    if (job == NULL) return NULL;
    if (uv_mutex_init(&job->mutex) != 0) {
        hf__free(hf__allocator_libc(), job);
        return NULL;
    }
    hf__msg_init(&job->msg, on_told);
    job->mailbox = &canceller->engine->mailbox;
    job->canceller = canceller;
    job->cancel = cancel;
    return job;
}

static void next(hf__canceller *canceller) {
    hf__node *node = canceller->job == NULL ? hf__list_pop(&canceller->line) : NULL;
    hf_engine *engine = canceller->engine;
    uint64_t until;

    if (canceller->job != NULL) return;
    if (node == NULL) {
        finish(canceller);
        return;
    }
    if (!canceller->busy) hf__engine_ref(engine);
    canceller->busy = true;
    canceller->asker = hf__of(node, hf__cancelling, node);
    until = hf__add_ms(hf__now_ns(&engine->clock), HF__CANCEL_BOUND_MS);
    canceller->job = job_new(canceller, canceller->asker->cancel);
    if (canceller->job != NULL && !start_thread(canceller->job)) {
        canceller->job->cancel = NULL;
        free_job(canceller->job);
        canceller->job = NULL;
    }
    if (canceller->job == NULL) {
        /* Without a thread the server is not told; in a moment the session is ended. */
        PQfreeCancel(canceller->asker->cancel);
        until = 0;
    }
    hf__timer_start(&engine->timers, &canceller->timer, until);
}

void hf__canceller_init(hf__canceller *canceller, hf_engine *engine) {
    canceller->engine = engine;
    canceller->timer.fire = on_late;
    hf__list_init(&canceller->line);
}

bool hf__canceller_ask(hf__canceller *canceller, hf__cancelling *cancelling,
                       hf__pg_session *session) {
    cancelling->cancel = PQgetCancel(session->conn);
    if (cancelling->cancel == NULL) return false;
    cancelling->session = session;
    hf__list_push(&canceller->line, &cancelling->node);
    if (!canceller->busy) next(canceller);
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
