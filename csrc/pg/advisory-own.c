/*
 * Locks that have a session of their own, and wait on it in the server's queue. Giving up takes the
 * statement back there, and then ends the session, and with it what was granted in that moment.
 */
#include "driver/postgres/error.h"
#include "pg/advisory-parts.h"

#include <assert.h>
#include <string.h>

#define CONNECTING_MAX 1 /* at a time: so they keep their order, and one name is looked up */
#define IDLE_MAX 2       /* sessions that are kept for later */
#define IDLE_MS 10000    /* and for how long */
#define PATIENCE_MS 1000 /* after it was taken back, a statement ends within this */

struct hf__own {
    hf__advisory *advisory;
    hf_pg_lock *lock; /* NULL: it is nobody's */
    enum {
        OWN_IN_LINE, /* is to connect */
        OWN_PAUSING, /* connects again later */
        OWN_CONNECTING,
        OWN_ASKING,
        OWN_ASSURING, /* granted, and it is made sure that it still is */
        OWN_HOLDING,
        OWN_UNLOCKING,
        OWN_CANCELLING,
        OWN_IDLE,
        OWN_ENDED
    } state;
    hf__pg_session *session; /* NULL: none; else ready, or on its way there */
    hf__anchor anchor;
    uint32_t n_sessions; /* that are not gone yet */
    uint32_t tries;
    uint64_t sent_ns;
    hf_error why; /* it could not be had; HF_OK: it could */
    hf__pg_call call;
    hf__advisory_params params;
    hf__cancelling cancelling;
    hf__timer timer;
    hf__node node; /* in advisory->owns */
    hf__node line;
};

static void connect_next(hf__advisory *a);
static void on_timer(hf__timer *timer);

/* ---------------------------------------------------------------- life */

static void free_if_gone(hf__own *own) {
    hf__advisory *a = own->advisory;

    if (own->state != OWN_ENDED || own->n_sessions > 0) return;
    hf__list_remove(&own->node);
    a->n_owns--;
    hf__free(a->env.allocator, own);
}

static void leave_state(hf__own *own) {
    hf__advisory *a = own->advisory;

    hf__advisory_timer_stop(a, &own->timer);
    own->timer.fire = on_timer;
    hf__canceller_forget(&a->canceller, &own->cancelling);
    hf__list_remove(&own->line);
    if (own->state == OWN_IDLE) a->n_idle--;
    if (own->state == OWN_CONNECTING) {
        a->n_connecting--;
        connect_next(a);
    }
}

/* Ends its session, if there is one; what the server has for it goes with that. */
static void end(hf__own *own) {
    hf__pg_session *session = own->session;
    hf_error error;

    if (own->state == OWN_ENDED) return;
    assert(own->lock == NULL);
    leave_state(own);
    own->state = OWN_ENDED;
    own->session = NULL;
    hf__anchor_unset(&own->anchor);
    if (session != NULL && session->n_sent > 0) {
        hf__error_set(&error, HF_ECANCELED, 0, NULL);
        hf__pg_session_fail(session, &error);
    } else if (session != NULL) {
        hf__pg_session_close(session);
    }
    free_if_gone(own);
}

static void on_timer(hf__timer *timer) {
    hf__own *own = hf__of(timer, hf__own, timer);

    if (own->state == OWN_PAUSING) {
        own->state = OWN_IN_LINE;
        hf__list_push(&own->advisory->line, &own->line);
        connect_next(own->advisory);
    } else {
        end(own); /* idle for long, or it was not taken back */
    }
}

/* Lets go of the lock, and keeps the session for the next if that is wanted. */
static void retire(hf__own *own) {
    hf__advisory *a = own->advisory;

    own->lock = NULL;
    if (own->anchor.session == NULL || a->n_idle >= IDLE_MAX || a->phase != HF__ADVISORY_OPEN) {
        end(own);
        return;
    }
    own->state = OWN_IDLE;
    a->n_idle++;
    hf__advisory_timer(a, &own->timer, hf__add_ms(hf__advisory_now(a), IDLE_MS));
}

/* Its lock does not wait any more. The session is of no use, or to be kept (`keep`). */
static void refuse(hf__own *own, uint32_t news, const hf_error *error, bool keep) {
    hf_pg_lock *lock = own->lock;

    own->lock = NULL;
    lock->own = NULL;
    hf__advisory_refused(lock, news, error);
    if (keep)
        retire(own);
    else
        end(own);
}

/* ---------------------------------------------------------------- holding */

static void hold(hf__own *own) {
    own->state = OWN_HOLDING;
    hf__anchor_hold(&own->anchor);
    hf__advisory_granted(own->lock);
    hf__advisory_tell(own->advisory);
}

static void on_assured(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__own *own = call->data;

    (void)result;
    (void)error;
    if (own->state == OWN_ASSURING && hf__anchor_answered(&own->anchor)) hold(own);
}

/* A statement that waited says only that the session was alive some time since it was sent. */
static void assure(hf__own *own) {
    own->state = OWN_ASSURING;
    own->call = (hf__pg_call){.statement = &hf__anchor_beat, .done = on_assured, .data = own};
    hf__anchor_send(&own->anchor, &own->call);
}

static bool is_true(const PGresult *result) {
    return PQntuples(result) == 1 && PQnfields(result) == 1 && PQgetvalue(result, 0, 0)[0] == 't';
}

static void on_asked(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__own *own = call->data;
    hf__advisory *a = own->advisory;

    if (own->session == NULL || own->session->state != HF__PG_READY) return; /* `down` follows */
    if (own->state == OWN_CANCELLING) {
        end(own);
        return;
    }
    assert(own->state == OWN_ASKING);
    if (error != NULL) {
        refuse(own, HF__NEWS_FAILED, error, false);
        hf__advisory_tell(a);
    } else if (own->lock->wait_ms == 0 && !is_true(result)) {
        refuse(own, HF__NEWS_TIMED_OUT, NULL, true);
        hf__advisory_tell(a);
    } else if (hf__anchor_knows(&own->anchor, own->sent_ns)) {
        hold(own);
    } else {
        assure(own);
    }
}

static void ask(hf__own *own) {
    hf_pg_lock *lock = own->lock;
    bool waits = lock->wait_ms != 0;

    own->state = OWN_ASKING;
    hf__error_clear(&own->why);
    hf__advisory_params_set(&own->params, &lock->id);
    own->call = (hf__pg_call){
        .statement = hf__advisory_statement(waits ? HF__ADVISORY_LOCK : HF__ADVISORY_TRY,
                                            lock->shared, lock->id.pair),
        .values = own->params.values,
        .timeout_ms = waits ? UINT32_MAX : 0,
        .done = on_asked,
        .data = own};
    own->sent_ns = hf__advisory_now(own->advisory);
    hf__pg_session_send(own->session, &own->call);
}

static void on_unlocked(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    hf__own *own = call->data;
    hf__advisory *a = own->advisory;
    hf_pg_lock *lock = own->lock;
    bool had = error == NULL && is_true(result);

    if (!hf__anchor_answered(&own->anchor)) return;
    hf__advisory_released(lock, error != NULL ? HF__NEWS_RELEASED
                                : had         ? HF__NEWS_RELEASED
                                              : HF__NEWS_NOT_HAD);
    own->lock = NULL;
    /* If the server failed to unlock it, the end of the session will. */
    if (had)
        retire(own);
    else
        end(own);
    hf__advisory_tell(a);
}

void hf__own_unlock(hf_pg_lock *lock) {
    hf__own *own = lock->own;

    assert(own->state == OWN_HOLDING);
    hf__anchor_drop(&own->anchor);
    own->state = OWN_UNLOCKING;
    own->call = (hf__pg_call){
        .statement = hf__advisory_statement(HF__ADVISORY_UNLOCK, lock->shared, lock->id.pair),
        .values = own->params.values,
        .done = on_unlocked,
        .data = own};
    hf__anchor_send(&own->anchor, &own->call);
}

bool hf__own_holds(hf_pg_lock *lock) {
    return hf__anchor_holds(&lock->own->anchor);
}

/* ---------------------------------------------------------------- the session */

static void begin_session(hf__own *own) {
    hf__advisory *a = own->advisory;

    own->session = hf__pg_session_new(&a->own_env, own);
    if (own->session == NULL) {
        own->state = OWN_PAUSING;
        hf__advisory_timer(a, &own->timer, hf__advisory_pause_ns(a, own->tries++));
        return;
    }
    own->state = OWN_CONNECTING;
    own->n_sessions++;
    a->n_connecting++;
    a->n_handles++;
}

static void connect_next(hf__advisory *a) {
    hf__node *node;

    while (a->n_connecting < CONNECTING_MAX && (node = hf__list_pop(&a->line)) != NULL)
        begin_session(hf__of(node, hf__own, line));
}

static void on_ready(hf__pg_session *session) {
    hf__own *own = session->data;

    if (hf__advisory_is_pooled(session)) return;
    hf__anchor_set(&own->anchor, session);
    own->tries = 0;
    leave_state(own);
    ask(own);
}

static void lose(hf__own *own, const hf_error *error) {
    hf_pg_lock *lock = own->lock;

    own->lock = NULL;
    if (own->state == OWN_HOLDING) {
        hf__anchor_drop(&own->anchor);
        hf__advisory_lost(lock, error);
    } else {
        hf__advisory_released(lock, HF__NEWS_IN_DOUBT);
    }
    end(own);
}

/* The lock goes on waiting, if it may, for another session. */
static void try_again(hf__own *own, const hf_error *error) {
    hf__advisory *a = own->advisory;

    if (own->lock->wait_ms == 0 || (error->flags & HF_RETRYABLE) == 0 ||
        a->phase != HF__ADVISORY_OPEN) {
        refuse(own, HF__NEWS_FAILED, error, false);
        return;
    }
    own->why = *error;
    leave_state(own);
    own->state = OWN_PAUSING;
    hf__advisory_timer(a, &own->timer, hf__advisory_pause_ns(a, own->tries++));
}

static void on_down(hf__pg_session *session, const hf_error *error) {
    hf__own *own = session->data;
    hf__advisory *a = own->advisory;

    if (own->state == OWN_ENDED) return;
    own->session = NULL;
    hf__anchor_unset(&own->anchor);
    if (own->lock == NULL)
        end(own);
    else if (own->state == OWN_HOLDING || own->state == OWN_UNLOCKING)
        lose(own, error);
    else
        try_again(own, error);
    hf__advisory_tell(a);
}

static void on_gone(void *data) {
    hf__own *own = data;
    hf__advisory *a = own->advisory;

    own->n_sessions--;
    free_if_gone(own);
    hf__advisory_let_go(a);
}

/* ---------------------------------------------------------------- in and out */

/* Whether it worked shows in the answer to what was to be taken back. */
static void on_cancelled(hf__cancelling *cancelling) {
    hf__own *own = hf__of(cancelling, hf__own, cancelling);
    hf__advisory *a = own->advisory;

    hf__advisory_timer(a, &own->timer, hf__add_ms(hf__advisory_now(a), PATIENCE_MS));
}

static hf__own *own_new(hf__advisory *a) {
    hf__own *own = hf__zalloc(a->env.allocator, sizeof *own);

    if (own == NULL) return NULL;
    own->advisory = a;
    own->timer.fire = on_timer;
    own->cancelling.done = on_cancelled;
    hf__anchor_init(&own->anchor, a->engine);
    hf__list_init(&own->line);
    hf__list_push(&a->owns, &own->node);
    a->n_owns++;
    return own;
}

/* The one that was used last: the others may end. */
static hf__own *find_idle(hf__advisory *a) {
    for (hf__node *node = a->owns.prev; node != &a->owns; node = node->prev) {
        hf__own *own = hf__of(node, hf__own, node);

        if (own->state == OWN_IDLE) return own;
    }
    return NULL;
}

/* From the next turn, since its call may end at once. */
static void on_start(hf__timer *timer) {
    hf__own *own = hf__of(timer, hf__own, timer);

    own->timer.fire = on_timer;
    ask(own);
}

bool hf__own_start(hf_pg_lock *lock) {
    hf__advisory *a = lock->advisory;
    hf__own *own = find_idle(a);
    bool was_idle = own != NULL;

    if (own == NULL) own = own_new(a);
    if (own == NULL) return false;
    own->lock = lock;
    lock->own = own;
    if (was_idle) {
        leave_state(own);
        own->state = OWN_ASKING;
        own->timer.fire = on_start;
        hf__advisory_timer(a, &own->timer, 0);
        return true;
    }
    own->state = OWN_IN_LINE;
    hf__list_push(&a->line, &own->line);
    connect_next(a);
    return true;
}

void hf__own_give_up(hf_pg_lock *lock) {
    hf__own *own = lock->own;
    hf__advisory *a = own->advisory;
    bool was_idle = !a->canceller.busy;

    lock->own = NULL;
    own->lock = NULL;
    if (own->state != OWN_ASKING || own->session->n_sent == 0) {
        end(own);
        return;
    }
    own->state = OWN_CANCELLING;
    if (!hf__canceller_ask(&a->canceller, &own->cancelling, own->session)) {
        end(own); /* the server notices by itself, somewhat later */
        return;
    }
    if (was_idle) a->n_handles++;
}

uint32_t hf__own_reason(const hf_pg_lock *lock, const hf_error **error) {
    const hf__own *own = lock->own;

    *error = NULL;
    if (own->state == OWN_ASKING) return HF__NEWS_TIMED_OUT;
    if (own->why.code == HF_OK) return 0;
    *error = &own->why;
    return HF__NEWS_FAILED;
}

bool hf__own_is_pid(const hf__advisory *a, int pid) {
    for (const hf__node *node = a->owns.next; node != &a->owns; node = node->next) {
        const hf__own *own = hf__of((hf__node *)(uintptr_t)node, hf__own, node);

        if (own->anchor.session != NULL && own->anchor.session->server.pid == pid) return true;
    }
    return false;
}

static void on_canceller_idle(hf__canceller *canceller) {
    hf__advisory_let_go(hf__of(canceller, hf__advisory, canceller));
}

void hf__own_init(hf__advisory *a) {
    hf__list_init(&a->owns);
    hf__list_init(&a->line);
    hf__canceller_init(&a->canceller, a->engine);
    a->canceller.idle = on_canceller_idle;
    a->own_env =
        (hf__pg_session_env){.store = &a->env,
                             .config = &a->config,
                             .refused_password = &a->refused_password,
                             .events = {.ready = on_ready, .down = on_down, .gone = on_gone}};
}

void hf__own_close(hf__advisory *a) {
    hf_error error;
    hf__node *next;

    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    for (hf__node *node = a->owns.next; node != &a->owns; node = next) {
        hf__own *own = hf__of(node, hf__own, node);

        next = node->next;
        if (own->lock == NULL)
            end(own);
        else if (own->session != NULL)
            hf__pg_session_fail(own->session, &error); /* `down` does the rest */
    }
}
