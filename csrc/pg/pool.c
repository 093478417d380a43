#include "pg/pool.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>

/* At a time: a name is looked up on a thread that the whole process shares with us. */
#define CONNECTING_MAX 2
#define DELIVERY_MS 5000 /* a request to cancel has been delivered within this */
#define PATIENCE_MS 1000 /* and after that, the statement has ended within this */
#define PAUSE_MIN_MS 25
#define PAUSE_MAX_MS 2000
#define STALE_MS 1 /* a session that was idle for longer is looked at before it is lent */

static void on_timer(hf__timer *timer);
static void on_cancelled(hf__cancelling *cancelling);

static uint64_t now_ns(const hf__pool *pool) {
    return hf__now_ns(&pool->engine->clock);
}

static void set_timer(hf__pool *pool, hf__timer *timer, uint64_t ms) {
    hf__timer_start(&pool->engine->timers, timer, hf__add_ms(now_ns(pool), ms));
}

static void stop_timer(hf__pool *pool, hf__timer *timer) {
    hf__timer_stop(&pool->engine->timers, timer);
}

/* ---------------------------------------------------------------- seats */

static void let_go(hf__pool *pool) {
    assert(pool->n_handles > 0);
    if (--pool->n_handles > 0 || !pool->closing) return;
    stop_timer(pool, &pool->retry);
    pool->gone(pool);
}

/* A cancel of its statement may still be in line. */
static void free_if_gone(hf__seat *seat) {
    if (seat->state != HF__SEAT_ENDED || seat->there || seat->cancelling.cancel != NULL) return;
    hf__list_remove(&seat->node);
    hf__free(seat->pool->session_env.store->allocator, seat);
}

/* It counts no more; its session is over, or about to be closed. */
static void end_seat(hf__seat *seat) {
    hf__pool *pool = seat->pool;

    assert(seat->state != HF__SEAT_ENDED);
    stop_timer(pool, &seat->timer);
    hf__list_remove(&seat->idle);
    if (seat->state == HF__SEAT_CONNECTING) pool->n_connecting--;
    seat->state = HF__SEAT_ENDED;
    seat->session = NULL;
    seat->cancelling.session = NULL;
    pool->n_seats--;
}

static void close_seat(hf__seat *seat) {
    hf__pg_session *session = seat->session;

    end_seat(seat);
    hf__pg_session_close(session);
}

static bool begin_seat(hf__pool *pool) {
    hf__seat *seat = hf__zalloc(pool->session_env.store->allocator, sizeof *seat);

    if (seat == NULL) return false;
    seat->session = hf__pg_session_new(&pool->session_env, seat);
    if (seat->session == NULL) {
        hf__free(pool->session_env.store->allocator, seat);
        return false;
    }
    seat->pool = pool;
    seat->there = true;
    seat->timer.fire = on_timer;
    seat->cancelling.done = on_cancelled;
    hf__list_init(&seat->idle);
    hf__list_push(&pool->seats, &seat->node);
    pool->n_seats++;
    pool->n_connecting++;
    pool->n_handles++;
    return true;
}

static void rest(hf__seat *seat) {
    hf__pool *pool = seat->pool;

    seat->state = HF__SEAT_IDLE;
    seat->idle_ns = now_ns(pool);
    hf__list_push(&pool->idle, &seat->idle);
    set_timer(pool, &seat->timer, pool->idle_ms);
}

/* ---------------------------------------------------------------- lending */

static hf__pool_user *next_user(hf__pool *pool) {
    hf__node *node = hf__list_pop(&pool->waiting);

    if (node == NULL) return NULL;
    pool->n_waiting--;
    return hf__of(node, hf__pool_user, node);
}

/* The one that was used last: the others may end. What broke since then is noticed here. */
static hf__seat *take_idle(hf__pool *pool) {
    hf__node *node;

    while ((node = pool->idle.prev) != &pool->idle) {
        hf__seat *seat = hf__of(node, hf__seat, idle);

        if (now_ns(pool) >= hf__add_ms(seat->idle_ns, STALE_MS)) hf__pg_session_read(seat->session);
        if (seat->state != HF__SEAT_IDLE) continue;
        hf__list_remove(&seat->idle);
        stop_timer(pool, &seat->timer);
        seat->state = HF__SEAT_TAKEN;
        return seat;
    }
    return NULL;
}

static void lend(hf__pool *pool) {
    hf__seat *seat;

    while (pool->n_waiting > 0 && (seat = take_idle(pool)) != NULL) {
        seat->user = next_user(pool);
        seat->user->seat = seat;
        seat->user->seated(seat->user);
    }
}

/* 25 ms, 50 ms and so on, at least half of that. */
static void hold_off(hf__pool *pool) {
    uint64_t high = pool->tries > 6 ? PAUSE_MAX_MS : (uint64_t)PAUSE_MIN_MS << pool->tries;

    pool->tries++;
    if (high > PAUSE_MAX_MS) high = PAUSE_MAX_MS;
    set_timer(pool, &pool->retry, hf__random_between(high / 2, high));
}

static void connect_more(hf__pool *pool) {
    while (!pool->closing && pool->n_connecting < CONNECTING_MAX &&
           pool->n_connecting < pool->n_waiting && pool->n_seats < pool->max &&
           !hf__timer_active(&pool->retry)) {
        if (begin_seat(pool)) continue;
        hold_off(pool);
        return;
    }
}

/* Not within itself: a session may break while it is lent, and its user ask again. */
void hf__pool_pump(hf__pool *pool) {
    if (pool->pumping || pool->closing) return;
    pool->pumping = true;
    lend(pool);
    connect_more(pool);
    pool->pumping = false;
}

static void on_retry(hf__timer *timer) {
    hf__pool *pool = hf__of(timer, hf__pool, retry);
    hf__node *next;

    if (!pool->closing) {
        hf__pool_pump(pool);
        return;
    }
    for (hf__node *node = pool->seats.next; node != &pool->seats; node = next) {
        hf__seat *seat = hf__of(node, hf__seat, node);

        next = node->next;
        if (pool->canceller.asker == &seat->cancelling) continue;
        hf__canceller_forget(&pool->canceller, &seat->cancelling);
        free_if_gone(seat);
    }
}

/* ---------------------------------------------------------------- events of a session */

static void on_ready(hf__pg_session *session) {
    hf__seat *seat = session->data;
    hf__pool *pool = seat->pool;

    pool->n_connecting--;
    pool->tries = 0;
    rest(seat);
    hf__pool_pump(pool);
}

static void refuse_all(hf__pool *pool, const hf_error *error) {
    hf__pool_user *user;
    uint32_t n = pool->n_waiting;

    while (n-- > 0 && (user = next_user(pool)) != NULL)
        user->refused(user, error);
}

/* As long as somebody has a session there will be one for those who wait. */
static void on_down(hf__pg_session *session, const hf_error *error) {
    hf__seat *seat = session->data;
    hf__pool *pool = seat->pool;
    hf__pool_user *user = seat->user;
    bool was_connecting = seat->state == HF__SEAT_CONNECTING;
    hf_error why = *error;

    end_seat(seat);
    seat->user = NULL;
    if (user != NULL) {
        user->seat = NULL;
        user->unseated(user, error);
    }
    if (was_connecting && pool->n_seats > 0) {
        hold_off(pool);
    } else if (was_connecting) {
        why.flags &= ~HF_OUTCOME_UNKNOWN; /* nothing was sent */
        refuse_all(pool, &why);
    }
    pool->wake(pool);
}

static void on_gone(void *data) {
    hf__seat *seat = data;
    hf__pool *pool = seat->pool;

    seat->there = false;
    free_if_gone(seat);
    let_go(pool);
}

/* ---------------------------------------------------------------- users */

void hf__pool_ask(hf__pool *pool, hf__pool_user *user) {
    assert(user->seat == NULL && !pool->closing);
    hf__list_push(&pool->waiting, &user->node);
    pool->n_waiting++;
    pool->wake(pool);
}

void hf__pool_leave(hf__pool *pool, hf__pool_user *user) {
    assert(!hf__list_empty(&user->node));
    hf__list_remove(&user->node);
    pool->n_waiting--;
}

static bool is_good(const hf__seat *seat) {
    return !seat->interrupted && !seat->pool->closing &&
           PQtransactionStatus(seat->session->conn) == PQTRANS_IDLE;
}

void hf__pool_give_back(hf__pool_user *user) {
    hf__seat *seat = user->seat;

    hf__pool_calm(user);
    user->seat = NULL;
    seat->user = NULL;
    if (seat->session->state != HF__PG_READY) return; /* `down` follows */
    assert(seat->state == HF__SEAT_TAKEN && seat->session->n_sent == 0);
    if (is_good(seat))
        rest(seat);
    else
        close_seat(seat);
}

/* ---------------------------------------------------------------- cancelling */

void hf__pool_interrupt(hf__pool_user *user) {
    hf__seat *seat = user->seat;
    hf__pool *pool = seat->pool;
    bool was_idle = !pool->canceller.busy;

    if (seat->session->state != HF__PG_READY) return;
    if (seat->cancelling.cancel != NULL || hf__timer_active(&seat->timer)) return;
    seat->interrupted = seat->interrupting = true;
    set_timer(pool, &seat->timer, DELIVERY_MS);
    if (hf__canceller_ask(&pool->canceller, &seat->cancelling, seat->session) && was_idle)
        pool->n_handles++;
}

void hf__pool_calm(hf__pool_user *user) {
    hf__seat *seat = user->seat;

    seat->interrupting = false;
    stop_timer(seat->pool, &seat->timer);
    if (seat->pool->canceller.asker != &seat->cancelling)
        hf__canceller_forget(&seat->pool->canceller, &seat->cancelling);
}

bool hf__pool_is_calm(const hf__pool_user *user) {
    return user->seat->cancelling.cancel == NULL;
}

/* Whether it worked shows in the answer to what was to be cancelled. */
static void on_cancelled(hf__cancelling *cancelling) {
    hf__seat *seat = hf__of(cancelling, hf__seat, cancelling);

    if (seat->state == HF__SEAT_ENDED) {
        free_if_gone(seat);
        return;
    }
    if (seat->interrupting) set_timer(seat->pool, &seat->timer, PATIENCE_MS);
    if (seat->user != NULL) seat->user->calmed(seat->user);
}

static void on_canceller_idle(hf__canceller *canceller) {
    let_go(hf__of(canceller, hf__pool, canceller));
}

static void on_timer(hf__timer *timer) {
    hf__seat *seat = hf__of(timer, hf__seat, timer);
    hf_error error;

    if (seat->state == HF__SEAT_IDLE) {
        close_seat(seat);
        return;
    }
    hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE,
                  "PostgreSQL at %s has not answered a request to cancel its statement",
                  seat->session->server.name);
    hf__pg_session_fail(seat->session, &error);
}

/* ---------------------------------------------------------------- life */

void hf__pool_init(hf__pool *pool, hf_engine *engine, const hf__store_env *env,
                   const hf__pg_config *config) {
    pool->engine = engine;
    pool->max = config->pool_max;
    pool->idle_ms = config->idle_ms;
    hf__list_init(&pool->waiting);
    hf__list_init(&pool->seats);
    hf__list_init(&pool->idle);
    pool->retry.fire = on_retry;
    hf__canceller_init(&pool->canceller, engine);
    pool->canceller.idle = on_canceller_idle;
    pool->session_env =
        (hf__pg_session_env){.store = env,
                             .config = config,
                             .plain = true,
                             .refused_password = &pool->refused_password,
                             .events = {.ready = on_ready, .down = on_down, .gone = on_gone}};
}

/* What the server is still at is cancelled there, if that takes no time: its answer is nobody's. */
static void cut(hf__seat *seat, const hf_error *error) {
    if (seat->user != NULL && seat->session->n_sent > 0) hf__pool_interrupt(seat->user);
    hf__pg_session_fail(seat->session, error);
}

void hf__pool_force(hf__pool *pool, const hf_error *error) {
    hf__node *next;

    for (hf__node *node = pool->seats.next; node != &pool->seats; node = next) {
        hf__seat *seat = hf__of(node, hf__seat, node);

        next = node->next;
        if (seat->state == HF__SEAT_TAKEN) cut(seat, error);
    }
}

void hf__pool_close(hf__pool *pool) {
    hf__node *next;
    hf_error error;

    assert(pool->n_waiting == 0 && !pool->closing);
    pool->closing = true;
    pool->n_handles++;
    set_timer(pool, &pool->retry, PATIENCE_MS);
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    for (hf__node *node = pool->seats.next; node != &pool->seats; node = next) {
        hf__seat *seat = hf__of(node, hf__seat, node);

        next = node->next;
        assert(seat->user == NULL);
        if (seat->state == HF__SEAT_ENDED || seat->state == HF__SEAT_TAKEN) continue;
        if (seat->session->n_sent > 0)
            hf__pg_session_fail(seat->session, &error);
        else
            close_seat(seat);
    }
    let_go(pool);
}
