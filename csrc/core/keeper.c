/*
 * One turn of the keeper reads its messages, looks for a stalled host, starts what is due and
 * sleeps until the next thing is. A lease is in one of these states:
 *
 *   waiting   in `due` (by its next renewal) and in `leases`
 *   busy      a renewal is under way; in `leases`
 *   lost      in neither; in `drops` while its token is to be dropped
 *
 * and it leaves, whatever its state, when its owner has said so and no op of it is under way.
 */
#include "core/keeper.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <signal.h>

enum { JOIN = 1, LEAVE = 2, EXTEND = 4, DROP = 8 };     /* to the keeper, about a lease */
enum { LOST = 1, LEFT = 2, EXTENDED = 4, RENEWED = 8 }; /* to the loop, about a lease */
enum { CLOSE = 1, CLOSED = 2, WARNED = 4, STOP = 8, FLUSH = 16, PING = 32, PARK = 64 }; /* others */
enum { K_BUSY = 1, K_LOST = 2, K_LEAVING = 4, K_EXTEND = 8, K_DROP = 16, K_RETRY = 32 };

#define PING_MIN_NS (25 * HF_NS_PER_MS)
#define PING_MAX_NS (5000 * HF_NS_PER_MS)
#define LINGER_NS (1000 * HF_NS_PER_MS) /* after the last lease came or went */
#define TOGETHER_NS (2 * HF_NS_PER_MS)  /* renewals this close to due go along */

typedef struct job {
    hf_op op;
    hf__keeper *keeper;
    hf__lease *lease;
    uint64_t sent_ns;
    uint64_t ttl_ms;
    bool extends; /* it carries the change that the owner waits for */
    struct job *next;
} job;

struct hf__keeper {
    hf__keeper_env env;
    uv_thread_t thread;
    uv_loop_t loop;
    hf__mailbox mailbox;
    hf__timers timers;
    hf__timer tick;

    hf__heap due;
    hf__node leases;
    hf__node drops;
    uint64_t linger_ns; /* until when it stays up for more short locks */
    uint32_t dropping;  /* leases with K_DROP */

    job jobs[HF__KEEPER_JOBS];
    job *free_jobs;
    hf__op_list chain; /* ops of one link and verb, about to be submitted */
    hf_store *chain_store;

    hf__msg ping; /* to the loop, which answers by reading it */
    _Atomic bool ping_answered;
    _Atomic uint64_t alive_ns; /* when the loop last handed a lease over */
    uint64_t pinged_ns;
    uint64_t min_stall_ns;

    hf__msg stop;
    hf__msg flush;
    hf__msg park;
    uv_mutex_t flush_mutex;
    uv_cond_t flush_cond;
    bool flush_wanted; /* the keeper's */
    /* under flush_mutex */
    bool flushed;
    bool parking; /* it is to stand still */
    bool parked;  /* and does */
};

static uint64_t now_of(const hf__keeper *keeper) {
    return hf__now_ns(keeper->env.clock);
}

static void tell(hf__keeper *keeper, hf__lease *lease, uint32_t bits) {
    hf__mailbox_post(keeper->env.loop_mailbox, &lease->to_loop, bits, 0);
}

/* ---------------------------------------------------------------- links */

static void on_warning(void *data, const hf_error *error) {
    hf__link *link = data;
    uv_mutex_lock(&link->mutex);
    link->warning = *error;
    uv_mutex_unlock(&link->mutex);
    hf__mailbox_post(link->keeper->env.loop_mailbox, &link->to_loop, WARNED, 0);
}

static void on_opened(hf_op *op) {
    if (op->error.code != HF_OK) on_warning(op->data, &op->error);
    hf_op_reset(op);
}

/* The link's instance, made when first needed; NULL while memory is out. */
static hf_store *link_store(hf__keeper *keeper, hf__link *link) {
    if (link->store != NULL) return link->store;
    hf_error error;
    link->env.loop = &keeper->loop;
    link->env.mailbox = &keeper->mailbox;
    link->env.scope = NULL;
    link->env.blocking = true;
    link->env.warn = on_warning;
    link->env.warn_data = link;
    link->store = hf__store_new(link->vt, &link->env, &error);
    if (link->store == NULL) return NULL;
    hf_op_init(&link->open_op, HF_OPEN, on_opened, link);
    hf__store_submit(link->store, &link->open_op);
    return link->store;
}

static void on_closed(hf_op *op) {
    hf__link *link = op->data;
    hf_op_reset(op);
    hf__store_free(link->store);
    link->store = NULL;
    hf__mailbox_post(link->keeper->env.loop_mailbox, &link->to_loop, CLOSED, 0);
}

static void link_close(hf__msg *msg, uint32_t bits) {
    hf__link *link = hf__of(msg, hf__link, to_keeper);
    (void)bits;
    if (link->store == NULL) {
        hf__mailbox_post(link->keeper->env.loop_mailbox, &link->to_loop, CLOSED, 0);
        return;
    }
    hf_op_init(&link->close_op, HF_CLOSE, on_closed, link);
    hf__store_submit(link->store, &link->close_op);
}

static void link_news(hf__msg *msg, uint32_t bits) {
    hf__link *link = hf__of(msg, hf__link, to_loop);
    if (bits & WARNED) {
        hf_error warning;
        uv_mutex_lock(&link->mutex);
        warning = link->warning;
        uv_mutex_unlock(&link->mutex);
        link->warned(link, &warning);
    }
    if (bits & CLOSED) link->closed(link);
}

int hf__link_init(hf__link *link) {
    hf__list_init(&link->leases);
    hf__msg_init(&link->to_keeper, link_close);
    hf__msg_init(&link->to_loop, link_news);
    return uv_mutex_init(&link->mutex);
}

void hf__link_fini(hf__link *link) {
    uv_mutex_destroy(&link->mutex);
}

/* ---------------------------------------------------------------- ops */

static void submit_chain(hf__keeper *keeper) {
    if (keeper->chain.first == NULL) return;
    hf_op *ops = keeper->chain.first;
    keeper->chain = (hf__op_list){0};
    hf__store_submit(keeper->chain_store, ops);
}

static void on_job(hf_op *op);

/* Starts `verb` for the lease; the caller has seen that a job is free and the store is there. */
static void start_job(hf__keeper *keeper, hf__lease *lease, hf_verb verb, uint64_t ttl_ms,
                      uint64_t now) {
    job *j = keeper->free_jobs;
    keeper->free_jobs = j->next;
    hf_op_init(&j->op, verb, on_job, j);
    j->op.space = lease->space;
    j->op.keys = lease->keys;
    j->op.n_keys = lease->n_keys;
    j->op.token = lease->token;
    j->op.ttl_ms = ttl_ms;
    j->lease = lease;
    j->sent_ns = now;
    j->ttl_ms = ttl_ms;
    j->extends = (lease->flags & K_EXTEND) != 0;
    if (j->extends && lease->extend->wants_votes) j->op.flags |= HF_OP_VOTES;
    lease->flags |= K_BUSY;
    hf_op *last = keeper->chain.last;
    if (last != NULL && (last->verb != verb || keeper->chain_store != lease->link->store))
        submit_chain(keeper);
    keeper->chain_store = lease->link->store;
    hf__op_push(&keeper->chain, &j->op);
}

/* A claim is not dropped but left to lapse: dropping it would let another run start the
 * operation while this one may still be at work. */
static bool can_drop(const hf__lease *lease) {
    return lease->space == HF_LEASES;
}

static void leave(hf__keeper *keeper, hf__lease *lease) {
    hf__heap_remove(&keeper->due, &lease->due);
    hf__list_remove(&lease->list);
    tell(keeper, lease, LEFT);
}

static void wait_until(hf__keeper *keeper, hf__lease *lease, uint64_t at_ns) {
    hf__heap_remove(&keeper->due, &lease->due);
    lease->due.at = at_ns;
    hf__heap_insert(&keeper->due, &lease->due);
}

/* Puts a token that must go on the list of those to drop, once no op of it is under way. */
static void want_drop(hf__keeper *keeper, hf__lease *lease) {
    if (!(lease->flags & K_DROP)) keeper->dropping++;
    lease->flags = (lease->flags | K_DROP) & ~(uint32_t)K_RETRY;
    hf__heap_remove(&keeper->due, &lease->due);
    hf__list_remove(&lease->list);
    if (!(lease->flags & K_BUSY)) hf__list_push(&keeper->drops, &lease->list);
}

static void answer_extend(hf__keeper *keeper, hf__lease *lease, const hf_error *error) {
    if (!(lease->flags & K_EXTEND)) return;
    lease->flags &= ~(uint32_t)K_EXTEND;
    lease->extend->done = error == NULL;
    if (error != NULL) lease->extend->error = *error;
    tell(keeper, lease, EXTENDED);
}

static void refuse_extend(hf__keeper *keeper, hf__lease *lease) {
    hf_error error;
    hf__error_set(&error, HF_ELOST, 0, NULL);
    answer_extend(keeper, lease, &error);
}

static void lose(hf__keeper *keeper, hf__lease *lease, hf__loss why, bool drop) {
    hf__lease_end(lease, why);
    lease->flags |= K_LOST;
    hf__heap_remove(&keeper->due, &lease->due);
    hf__list_remove(&lease->list);
    refuse_extend(keeper, lease);
    tell(keeper, lease, LOST);
    lease->drop_until_ns = hf__add_ms(now_of(keeper), lease->ttl_ms);
    if (drop && can_drop(lease)) want_drop(keeper, lease);
}

/* The pause before an op that failed is tried again: short against what is left of the lease, which
 * may be little of a time to live that was just made long. */
static uint64_t retry_ms(const hf__lease *lease, uint64_t now) {
    uint64_t left_ms = hf__ms_until(now, atomic_load(&lease->deadline_ns));
    uint64_t high = (left_ms > 0 && left_ms < lease->ttl_ms ? left_ms : lease->ttl_ms) / 10;
    high = high > 1000 ? 1000 : high < 20 ? 20 : high;
    return hf__random_between(high / 2, high);
}

/* When a lease sent for at `sent_ns` is renewed: so that two more tries fit before the end. */
static uint64_t third(uint64_t sent_ns, uint64_t ttl_ms) {
    return sent_ns + ttl_ms * HF_NS_PER_MS / 3;
}

/* The next renewal at `at_ns`: now, where the owner has asked for a change meanwhile. The end of
 * max_hold is not looked at early, together with others, or it would be renewed once more. */
static void plan_next(hf__keeper *keeper, hf__lease *lease, uint64_t at_ns) {
    uint64_t end = lease->hold_end_ns;
    end = end < HF_FOREVER - TOGETHER_NS ? end + TOGETHER_NS : HF_FOREVER;
    if (!lease->renew) at_ns = HF_FOREVER;
    if (lease->flags & K_EXTEND) at_ns = now_of(keeper);
    wait_until(keeper, lease, at_ns < end ? at_ns : end);
}

/* Its owner has let it go and sees to the drop: the order to leave is on its way. To drop it here,
 * before that, would make the owner's drop find nothing, and a lease that was held look lost. */
static bool is_ended(const hf__lease *lease) {
    return atomic_load(&lease->loss) == HF__LOSS_ENDED;
}

/* How the nodes of a quorum voted is told to who asked for the change. */
static void hand_votes(hf__lease *lease, hf_op *op) {
    hf__extend *extend = lease->extend;
    if (!(lease->flags & K_EXTEND) || extend->votes != NULL) return;
    extend->votes = op->votes;
    extend->n_votes = op->n_votes;
    op->votes = NULL;
    op->n_votes = 0;
}

static void on_kept(hf__keeper *keeper, hf__lease *lease, job *j) {
    uint64_t now = now_of(keeper);
    if (is_ended(lease)) return;
    if (j->extends) hand_votes(lease, &j->op);
    if (j->op.error.code != HF_OK) {
        if (j->extends) answer_extend(keeper, lease, &j->op.error);
        plan_next(keeper, lease, now + retry_ms(lease, now) * HF_NS_PER_MS);
        return;
    }
    if (!j->op.applied) {
        /* All or none was kept: of several keys some may still be there. */
        lose(keeper, lease, HF__LOSS_REFUSED, lease->n_keys > 1);
        return;
    }
    uint64_t bound = hf__lease_bound(j->sent_ns, j->ttl_ms);
    bound = bound < lease->hold_end_ns ? bound : lease->hold_end_ns;
    if (!hf__lease_grow(lease, bound, now)) {
        lose(keeper, lease, HF__LOSS_DEADLINE, true);
        return;
    }
    if (j->extends) answer_extend(keeper, lease, NULL);
    if (atomic_load(lease->link->renewals)) tell(keeper, lease, RENEWED);
    plan_next(keeper, lease, third(j->sent_ns, lease->ttl_ms));
}

static void drop_over(hf__keeper *keeper, hf__lease *lease) {
    keeper->dropping--;
    lease->flags &= ~(uint32_t)K_DROP;
}

static void drop_later(hf__keeper *keeper, hf__lease *lease, uint64_t now) {
    drop_over(keeper, lease);
    lease->flags |= K_RETRY;
    wait_until(keeper, lease, now + retry_ms(lease, now) * HF_NS_PER_MS);
}

/* A drop that failed is tried again as long as the store may still hold the lease, but nobody waits
 * for that to close the client. */
static void on_dropped(hf__keeper *keeper, hf__lease *lease, const job *j) {
    uint64_t now = now_of(keeper);
    bool closing = atomic_load(&lease->link->closing);
    if (j->op.error.code != HF_OK && now < lease->drop_until_ns && !closing)
        drop_later(keeper, lease, now);
    else
        drop_over(keeper, lease);
}

static void on_job(hf_op *op) {
    job *j = op->data;
    hf__keeper *keeper = j->keeper;
    hf__lease *lease = j->lease;
    lease->flags &= ~(uint32_t)K_BUSY;
    if (op->verb == HF_DROP)
        on_dropped(keeper, lease, j);
    else if (!(lease->flags & (K_LOST | K_LEAVING | K_DROP)))
        on_kept(keeper, lease, j);
    else if (lease->flags & K_DROP)
        want_drop(keeper, lease);
    if ((lease->flags & K_LEAVING) && !(lease->flags & (K_DROP | K_RETRY))) leave(keeper, lease);
    hf_op_reset(op);
    j->next = keeper->free_jobs;
    keeper->free_jobs = j;
    hf__timer_start(&keeper->timers, &keeper->tick, 0);
}

/* ---------------------------------------------------------------- a turn */

static void renew(hf__keeper *keeper, hf__lease *lease, uint64_t now) {
    if (!hf__lease_live(lease, now)) {
        if (is_ended(lease)) return;
        bool over = now >= lease->hold_end_ns;
        lose(keeper, lease, over ? HF__LOSS_HOLD : HF__LOSS_DEADLINE, true);
        return;
    }
    if (link_store(keeper, lease->link) == NULL) {
        wait_until(keeper, lease, now + retry_ms(lease, now) * HF_NS_PER_MS);
        return;
    }
    /* The store may shorten before its answer comes, so the deadline shortens first. */
    hf__lease_shrink(lease, hf__lease_bound(now, lease->ttl_ms));
    start_job(keeper, lease, HF_KEEP, lease->ttl_ms, now);
}

static void start_due(hf__keeper *keeper, uint64_t now) {
    hf__heap_node *min;
    while (keeper->free_jobs != NULL && (min = hf__heap_min(&keeper->due)) != NULL) {
        if (min->at > now + TOGETHER_NS) return;
        hf__lease *lease = hf__of(min, hf__lease, due);
        hf__heap_remove(&keeper->due, min);
        if (lease->flags & K_RETRY)
            want_drop(keeper, lease);
        else
            renew(keeper, lease, now);
    }
}

static void start_drops(hf__keeper *keeper, uint64_t now) {
    while (keeper->free_jobs != NULL && !hf__list_empty(&keeper->drops)) {
        hf__lease *lease = hf__of(hf__list_pop(&keeper->drops), hf__lease, list);
        if (link_store(keeper, lease->link) == NULL) {
            drop_later(keeper, lease, now);
            continue;
        }
        start_job(keeper, lease, HF_DROP, 0, now);
    }
    if (keeper->flush_wanted && keeper->dropping == 0) {
        keeper->flush_wanted = false;
        uv_mutex_lock(&keeper->flush_mutex);
        keeper->flushed = true;
        uv_cond_broadcast(&keeper->flush_cond);
        uv_mutex_unlock(&keeper->flush_mutex);
    }
}

/* Ends the leases for which the loop has been stuck too long, and finds the next to look at. */
static void end_stalled(hf__keeper *keeper, uint64_t stuck_ns) {
    uint64_t least = HF_FOREVER;
    hf__node *next;
    for (hf__node *node = keeper->leases.next; node != &keeper->leases; node = next) {
        hf__lease *lease = hf__of(node, hf__lease, list);
        next = node->next;
        uint64_t limit = hf__add_ms(0, lease->max_stall_ms);
        if (is_ended(lease)) continue;
        if (stuck_ns >= limit)
            lose(keeper, lease, HF__LOSS_STALL, true);
        else if (limit < least)
            least = limit;
    }
    keeper->min_stall_ns = least;
}

static uint64_t ping_interval(const hf__keeper *keeper) {
    uint64_t interval = keeper->min_stall_ns / 8;
    interval = interval < PING_MIN_NS ? PING_MIN_NS : interval;
    return interval > PING_MAX_NS ? PING_MAX_NS : interval;
}

/* A loop that sleeps answers at once; only a ping without an answer is a stall. Returns when to
 * look next. */
static uint64_t watch_loop(hf__keeper *keeper, uint64_t now) {
    if (hf__list_empty(&keeper->leases)) keeper->min_stall_ns = HF_FOREVER;
    if (keeper->min_stall_ns == HF_FOREVER) return HF_FOREVER;
    if (!atomic_load(&keeper->ping_answered)) {
        if (now - keeper->pinged_ns >= keeper->min_stall_ns)
            end_stalled(keeper, now - keeper->pinged_ns);
        if (keeper->min_stall_ns == HF_FOREVER) return HF_FOREVER;
        return keeper->pinged_ns + keeper->min_stall_ns;
    }
    uint64_t at = keeper->pinged_ns + ping_interval(keeper);
    if (now < at) return at;
    atomic_store(&keeper->ping_answered, false);
    keeper->pinged_ns = now;
    hf__mailbox_post(keeper->env.loop_mailbox, &keeper->ping, PING, 0);
    return now + ping_interval(keeper);
}

static void on_pong(hf__msg *msg, uint32_t bits) {
    hf__keeper *keeper = hf__of(msg, hf__keeper, ping);
    (void)bits;
    atomic_store(&keeper->ping_answered, true);
}

static void turn(hf__keeper *keeper) {
    uint64_t next;
    do {
        hf__mailbox_read(&keeper->mailbox);
        uint64_t now = now_of(keeper);
        next = watch_loop(keeper, now);
        start_due(keeper, now);
        start_drops(keeper, now);
        submit_chain(keeper);
        hf__heap_node *min = hf__heap_min(&keeper->due);
        /* Without a free job there is nothing to wake for: an answer starts the next turn. */
        if (min != NULL && keeper->free_jobs != NULL && min->at < next) next = min->at;
        /* Where short locks come and go, a look a second spares each of them a wake-up: who
         * joins for less time than that is taken back before it was read. */
        if (keeper->linger_ns > now && next > keeper->linger_ns) next = keeper->linger_ns;
        hf__timer_start(&keeper->timers, &keeper->tick, next);
    } while (!hf__mailbox_sleep(&keeper->mailbox, next));
}

static void on_tick(hf__timer *timer) {
    turn(hf__of(timer, hf__keeper, tick));
}

static void on_wake(hf__mailbox *mailbox) {
    turn(hf__of(mailbox, hf__keeper, mailbox));
}

/* ---------------------------------------------------------------- messages about leases */

static void lease_news(hf__msg *msg, uint32_t bits) {
    hf__lease *lease = hf__of(msg, hf__lease, to_loop);
    if (bits & RENEWED) lease->link->renewed(lease->link, lease);
    if (bits & EXTENDED) {
        hf__extend *extend = lease->extend;
        lease->extend = NULL;
        lease->owner->extended(lease, extend);
    }
    if (bits & LOST) lease->owner->lost(lease, (hf__loss)atomic_load(&lease->loss));
    if (bits & LEFT) lease->owner->left(lease);
}

static void take_up(hf__keeper *keeper, hf__lease *lease) {
    lease->flags = 0;
    hf__list_push(&keeper->leases, &lease->list);
    plan_next(keeper, lease, lease->due.at);
    /* The loop has turned since: a stall that goes on begins no sooner than here. */
    uint64_t alive_ns = atomic_load(&keeper->alive_ns);
    if (keeper->pinged_ns < alive_ns && !atomic_load(&keeper->ping_answered))
        keeper->pinged_ns = alive_ns;
    uint64_t stall_ns = hf__add_ms(0, lease->max_stall_ms);
    if (stall_ns < keeper->min_stall_ns) keeper->min_stall_ns = stall_ns;
}

static void order_extend(hf__keeper *keeper, hf__lease *lease, uint64_t now) {
    lease->flags |= K_EXTEND;
    if (lease->flags & K_LOST) {
        refuse_extend(keeper, lease);
        return;
    }
    lease->ttl_ms = lease->extend->ttl_ms;
    if (!(lease->flags & K_BUSY)) wait_until(keeper, lease, now);
}

static void lease_order(hf__msg *msg, uint32_t bits) {
    hf__lease *lease = hf__of(msg, hf__lease, to_keeper);
    hf__keeper *keeper = lease->link->keeper;
    uint64_t now = now_of(keeper);
    keeper->linger_ns = now + LINGER_NS;
    if (bits & JOIN) take_up(keeper, lease);
    if (bits & EXTEND) order_extend(keeper, lease, now);
    if (!(bits & (DROP | LEAVE))) return;
    lease->flags |= K_LEAVING;
    refuse_extend(keeper, lease);
    if ((bits & DROP) && can_drop(lease)) {
        lease->drop_until_ns = hf__add_ms(now, lease->ttl_ms);
        want_drop(keeper, lease);
    } else if (!(lease->flags & (K_BUSY | K_DROP | K_RETRY))) {
        leave(keeper, lease);
    }
}

void hf__lease_init(hf__lease *lease) {
    hf__list_init(&lease->node);
    hf__list_init(&lease->list);
    hf__msg_init(&lease->to_keeper, lease_order);
    hf__msg_init(&lease->to_loop, lease_news);
}

void hf__keeper_join(hf__keeper *keeper, hf__lease *lease, uint64_t ttl_ms, uint64_t sent_ns) {
    assert(!lease->joined && lease->link->keeper == keeper);
    lease->joined = true;
    lease->ttl_ms = ttl_ms;
    atomic_store(&keeper->alive_ns, hf__now_ns(keeper->env.clock));
    lease->due.at = third(sent_ns, ttl_ms);
    /* The first renewal or the first look for a stall, whichever is sooner. */
    uint64_t look_ns = hf__add_ms(sent_ns, lease->max_stall_ms / 8);
    uint64_t due_ns = lease->due.at < look_ns ? lease->due.at : look_ns;
    hf__mailbox_post(&keeper->mailbox, &lease->to_keeper, JOIN, due_ns);
}

bool hf__keeper_leave(hf__keeper *keeper, hf__lease *lease) {
    assert(lease->joined);
    if (hf__mailbox_recall(&keeper->mailbox, &lease->to_keeper, JOIN)) {
        lease->joined = false;
        return true;
    }
    hf__mailbox_post(&keeper->mailbox, &lease->to_keeper, LEAVE, 0);
    return false;
}

void hf__keeper_extend(hf__keeper *keeper, hf__lease *lease, hf__extend *extend) {
    lease->extend = extend;
    hf__mailbox_post(&keeper->mailbox, &lease->to_keeper, EXTEND, 0);
}

void hf__keeper_drop(hf__keeper *keeper, hf__lease *lease) {
    hf__mailbox_post(&keeper->mailbox, &lease->to_keeper, DROP, 0);
}

/* ---------------------------------------------------------------- life */

static void on_flush(hf__msg *msg, uint32_t bits) {
    hf__keeper *keeper = hf__of(msg, hf__keeper, flush);
    (void)bits;
    keeper->flush_wanted = true;
}

void hf__keeper_flush(hf__keeper *keeper, uint64_t timeout_ms) {
    /* No lease lives longer. */
    if (timeout_ms > HF_TTL_MAX) timeout_ms = HF_TTL_MAX;
    uint64_t until = uv_hrtime() + timeout_ms * HF_NS_PER_MS;
    uv_mutex_lock(&keeper->flush_mutex);
    keeper->flushed = false;
    uv_mutex_unlock(&keeper->flush_mutex);
    hf__mailbox_post(&keeper->mailbox, &keeper->flush, FLUSH, 0);
    uv_mutex_lock(&keeper->flush_mutex);
    for (uint64_t now = uv_hrtime(); !keeper->flushed && now < until; now = uv_hrtime())
        if (uv_cond_timedwait(&keeper->flush_cond, &keeper->flush_mutex, until - now) != 0) break;
    uv_mutex_unlock(&keeper->flush_mutex);
}

/* Within this call the thread stands still. */
static void on_park(hf__msg *msg, uint32_t bits) {
    hf__keeper *keeper = hf__of(msg, hf__keeper, park);
    (void)bits;
    uv_mutex_lock(&keeper->flush_mutex);
    keeper->parked = true;
    uv_cond_broadcast(&keeper->flush_cond);
    while (keeper->parking)
        uv_cond_wait(&keeper->flush_cond, &keeper->flush_mutex);
    keeper->parked = false;
    uv_mutex_unlock(&keeper->flush_mutex);
}

void hf__keeper_park(hf__keeper *keeper, uint64_t timeout_ms) {
    uint64_t until = uv_hrtime() + timeout_ms * HF_NS_PER_MS;
    uv_mutex_lock(&keeper->flush_mutex);
    keeper->parking = true;
    uv_mutex_unlock(&keeper->flush_mutex);
    hf__mailbox_post(&keeper->mailbox, &keeper->park, PARK, 0);
    uv_mutex_lock(&keeper->flush_mutex);
    for (uint64_t now = uv_hrtime(); !keeper->parked && now < until; now = uv_hrtime())
        if (uv_cond_timedwait(&keeper->flush_cond, &keeper->flush_mutex, until - now) != 0) break;
    uv_mutex_unlock(&keeper->flush_mutex);
}

void hf__keeper_unpark(hf__keeper *keeper) {
    uv_mutex_lock(&keeper->flush_mutex);
    keeper->parking = false;
    uv_cond_broadcast(&keeper->flush_cond);
    uv_mutex_unlock(&keeper->flush_mutex);
}

static void on_stop(hf__msg *msg, uint32_t bits) {
    hf__keeper *keeper = hf__of(msg, hf__keeper, stop);
    (void)bits;
    assert(hf__list_empty(&keeper->leases));
    hf__timers_close(&keeper->timers, NULL, NULL);
    hf__mailbox_close(&keeper->mailbox, NULL, NULL);
}

static void thread_main(void *arg) {
    hf__keeper *keeper = arg;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL); /* the host's handlers run on the host's threads */
    uv_run(&keeper->loop, UV_RUN_DEFAULT);
}

void hf__keeper_close_link(hf__keeper *keeper, hf__link *link) {
    assert(link->keeper == keeper);
    hf__mailbox_post(&keeper->mailbox, &link->to_keeper, CLOSE, 0);
}

static void init_state(hf__keeper *keeper, const hf__keeper_env *env) {
    keeper->env = *env;
    keeper->tick.fire = on_tick;
    keeper->min_stall_ns = HF_FOREVER;
    atomic_init(&keeper->ping_answered, true);
    hf__list_init(&keeper->leases);
    hf__list_init(&keeper->drops);
    hf__msg_init(&keeper->ping, on_pong);
    hf__msg_init(&keeper->stop, on_stop);
    hf__msg_init(&keeper->flush, on_flush);
    hf__msg_init(&keeper->park, on_park);
    for (int i = HF__KEEPER_JOBS - 1; i >= 0; i--) {
        keeper->jobs[i].keeper = keeper;
        keeper->jobs[i].next = keeper->free_jobs;
        keeper->free_jobs = &keeper->jobs[i];
    }
}

/* Loop, handles and thread; undone in reverse when one cannot be had. */
static int start_thread(hf__keeper *keeper) {
    int rc = uv_loop_init(&keeper->loop);
    if (rc != 0) return rc;
    rc = hf__timers_init(&keeper->timers, &keeper->loop, keeper->env.clock, NULL);
    if (rc == 0) {
        rc = hf__mailbox_init(&keeper->mailbox, &keeper->loop, NULL, on_wake);
        if (rc == 0) {
            uv_ref((uv_handle_t *)&keeper->mailbox.async); /* its life is the thread's */
            rc = uv_thread_create(&keeper->thread, thread_main, keeper);
            if (rc == 0) return 0;
            hf__mailbox_close(&keeper->mailbox, NULL, NULL);
        }
        hf__timers_close(&keeper->timers, NULL, NULL);
        uv_run(&keeper->loop, UV_RUN_DEFAULT);
    }
    uv_loop_close(&keeper->loop);
    return rc;
}

static void free_keeper(hf__keeper *keeper) {
    uv_cond_destroy(&keeper->flush_cond);
    uv_mutex_destroy(&keeper->flush_mutex);
    hf__free(keeper->env.allocator, keeper);
}

hf_code hf__keeper_start(const hf__keeper_env *env, hf__keeper **out, hf_error *error) {
    hf__keeper *keeper = hf__zalloc(env->allocator, sizeof(*keeper));
    if (keeper == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    init_state(keeper, env);
    if (uv_mutex_init(&keeper->flush_mutex) != 0 || uv_cond_init(&keeper->flush_cond) != 0) {
        hf__free(env->allocator, keeper);
        return hf__error_set(error, HF_EIO, 0, "no mutex could be made");
    }
    int rc = start_thread(keeper);
    if (rc != 0) {
        free_keeper(keeper);
        return hf__error_native(error, rc == UV_ENOMEM ? HF_ENOMEM : HF_EIO, 0, rc,
                                "the thread that renews locks could not be started: %s",
                                uv_strerror(rc));
    }
    *out = keeper;
    return HF_OK;
}

void hf__keeper_stop(hf__keeper *keeper) {
    hf__keeper_unpark(keeper);
    hf__mailbox_post(&keeper->mailbox, &keeper->stop, STOP, 0);
    uv_thread_join(&keeper->thread);
    int rc = uv_loop_close(&keeper->loop);
    assert(rc == 0);
    (void)rc;
    free_keeper(keeper);
}
