/*
 * Inside of advisory locks: what advisory.c (what their users ask and are told), advisory-queue.c
 * (who is next for an id), advisory-batch.c (the one session that most of them hang on),
 * advisory-own.c (those that have a session of their own) and advisory-list.c share.
 *
 * A lock goes through
 *
 *   WAITING -> HELD -> RELEASING -> ENDED     granted, released, and the server has answered
 *   WAITING -> ENDED                          timed out, failed, cancelled
 *   HELD -> ENDED                             lost
 *
 * What is to be told of that is noted, and told at the end of the event that has led to it, or in
 * the next turn: no callback runs while queues are looked through.
 */
#ifndef HF_PG_ADVISORY_PARTS_H
#define HF_PG_ADVISORY_PARTS_H

#include "pg/advisory-sql.h"
#include "pg/advisory.h"
#include "pg/anchor.h"
#include "pg/canceller.h"
#include "util/alloc.h"
#include "util/map.h"
#include "util/random.h"

#define HF__ADVISORY_WAITING_MAX 200000u /* callers that may wait in one client */
#define HF__ADVISORY_OWN_MAX 10000u      /* of them, and of holders: with sessions of their own */
#define HF__ADVISORY_OPS_MAX 512         /* of one statement */
#define HF__ADVISORY_BATCHES 2           /* one is carried out while the next is on its way */

typedef struct hf__advisory_queue hf__advisory_queue;
typedef struct hf__own hf__own;

/* What is to be told of a lock, in this order. */
enum {
    HF__NEWS_ACQUIRED = 1,
    HF__NEWS_TIMED_OUT = 2,
    HF__NEWS_HELD_HERE = 4, /* goes with that */
    HF__NEWS_FAILED = 8,    /* waiting; why is in lock->failure */
    HF__NEWS_CANCELLED = 16,
    HF__NEWS_CLOSED = 32,
    HF__NEWS_LOST = 64,      /* why is in lock->failure */
    HF__NEWS_RELEASED = 128, /* or so: */
    HF__NEWS_NOT_HAD = 256,  /* the server says that it did not have it */
    HF__NEWS_IN_DOUBT = 512  /* its session has ended */
};
#define HF__NEWS_REFUSALS \
    (HF__NEWS_TIMED_OUT | HF__NEWS_FAILED | HF__NEWS_CANCELLED | HF__NEWS_CLOSED)

struct hf_pg_lock {
    hf_allocator allocator;
    hf__advisory *advisory; /* as long as it has not ended, or something is to be told */
    uint32_t refs;          /* the user's, and the advisory's */
    enum {
        HF__ADVISORY_WAITING,
        HF__ADVISORY_HELD,
        HF__ADVISORY_RELEASING,
        HF__ADVISORY_ENDED
    } state;
    uint32_t news;
    bool shared;
    bool freed;  /* the user's handle is gone: nobody hears of it any more */
    bool graced; /* its wait has been stretched for the first answer */
    bool counts; /* keeps the loop alive */
    hf_pg_id id;
    hf__advisory_queue *queue; /* where it waits, is held or is being released; NULL: nowhere */
    hf__own *own;              /* the same for one with a session of its own */
    hf__node node;             /* in a list of the queue's */
    hf__node all;              /* in advisory->locks until it has ended */
    hf__node told;             /* in advisory->news */
    hf__timer timer;
    uint64_t asked_ns;
    uint64_t until_ns;
    uint64_t wait_ms;
    hf_error *failure; /* NULL: none, or memory was out */
    void (*acquired)(void *data, hf_pg_lock *lock, const hf_pg_lock_result *result);
    void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why);
    void *data;
    void (*released)(void *data, hf_pg_lock *lock, bool was_held, const hf_error *error);
    void *released_data;
};

/* What the one session has of an id. */
typedef enum hf__advisory_mode {
    HF__ADVISORY_NONE,
    HF__ADVISORY_SHARED,
    HF__ADVISORY_EXCLUSIVE
} hf__advisory_mode;

/* One id on the one session: who waits for it and who holds it here, and what the server is asked.
 * It is there as long as there is any of that. */
struct hf__advisory_queue {
    hf__map_node node;
    struct {
        int64_t number; /* of a pair the first in the upper half */
        int64_t pair;
    } key;
    hf__advisory *advisory;
    hf__node waiting;
    hf__node holding;
    hf__node releasing; /* until it is unlocked */
    uint32_t n_holding;
    hf__advisory_mode have;
    bool queued;             /* in advisory->work */
    bool sent;               /* in a batch under way */
    bool in_doubt;           /* a batch failed: whatever the session has of it is unlocked */
    bool rests;              /* its turn was over: others elsewhere have a moment for theirs */
    hf__advisory_mode tried; /* in that batch */
    bool unlocked;           /* likewise */
    bool doubted;            /* likewise */
    uint32_t polls;          /* refusals in a row */
    uint64_t turn_ns;        /* since when the session has it */
    uint64_t answered_ns;    /* when the server last told whether it is free */
    hf__timer retry;
    hf__node work;
    hf_error *failure; /* of the last try; NULL: it was answered, or memory was out */
};

/* One statement under way. */
typedef struct hf__advisory_batch {
    hf__pg_call call;
    hf__advisory *advisory;
    bool busy;
    hf__node queues; /* whose ops it carries, in order (hf__advisory_queue.work) */
    uint32_t n_ops;
    unsigned char ops[20 + 6 * HF__ADVISORY_OPS_MAX];
    unsigned char ids[20 + 12 * HF__ADVISORY_OPS_MAX];
    const char *values[2];
    int lengths[2];
} hf__advisory_batch;

typedef struct hf__advisory_lister hf__advisory_lister;

struct hf__advisory {
    hf_engine *engine;
    hf__store_env env;
    hf__pg_config config;
    uint64_t refused_password;
    hf__node locks; /* that have not ended */
    uint32_t n_waiting;
    uint32_t n_open; /* locks held or being released, and lists */
    hf__node news;
    bool warns; /* an operator is to be told: the server had not what we unlocked unasked */
    hf_pg_id not_had;
    uv_idle_t idle; /* active while there is news or work for the next turn */
    bool has_handles;

    /* advisory-batch.c */
    hf__map queues;
    hf__node work; /* queues that want the server asked */
    hf__anchor anchor;
    hf__pg_session_env session_env;
    hf__pg_session *session; /* NULL: none; else ready, or on its way there */
    hf__advisory_batch batches[HF__ADVISORY_BATCHES];
    hf__timer retry;   /* of connecting */
    uint32_t tries;    /* that failed in a row */
    uint32_t failures; /* likewise, of statements */
    uint64_t ready_ns;
    hf_error why; /* the last failed; HF_OK: it did not */

    /* advisory-own.c */
    hf__pg_session_env own_env;
    hf__node owns;
    hf__node line; /* of them: those that are to connect */
    uint32_t n_owns;
    uint32_t n_connecting;
    uint32_t n_idle;
    hf__canceller canceller;

    hf__advisory_lister *lister; /* NULL: none */

    enum { HF__ADVISORY_OPEN, HF__ADVISORY_DRAINING, HF__ADVISORY_CLOSING } phase;
    uint32_t n_handles; /* to be gone before it is */
    void (*closed)(void *data);
    void *data;
};

static inline uint64_t hf__advisory_now(const hf__advisory *advisory) {
    return hf__now_ns(&advisory->engine->clock);
}

static inline void hf__advisory_timer(hf__advisory *advisory, hf__timer *timer, uint64_t at_ns) {
    hf__timer_start(&advisory->engine->timers, timer, at_ns);
}

static inline void hf__advisory_timer_stop(hf__advisory *advisory, hf__timer *timer) {
    hf__timer_stop(&advisory->engine->timers, timer);
}

/* ---- advisory.c */

/* Sees to it that news is told and work is sent in the next turn. */
void hf__advisory_wake(hf__advisory *advisory);
/* Tells what there is to be told now; callbacks run within. For the end of an event. */
void hf__advisory_tell(hf__advisory *advisory);
/* From waiting to held, by `anchor`. */
void hf__advisory_granted(hf_pg_lock *lock);
/* From waiting to ended: out of its queue, which is to be looked at, or rid of its own session.
 * `error` with HF__NEWS_FAILED only. */
void hf__advisory_refused(hf_pg_lock *lock, uint32_t news, const hf_error *error);
/* From held to ended, for its session is over. It is out of its queue. */
void hf__advisory_lost(hf_pg_lock *lock, const hf_error *error);
/* From releasing to ended. It is out of its queue. */
void hf__advisory_released(hf_pg_lock *lock, uint32_t news);
/* Closes what is left, if it is time for that. */
void hf__advisory_settle(hf__advisory *advisory);
/* One less of what has to be gone. Last of all: it may free the advisory, in its callback. */
void hf__advisory_let_go(hf__advisory *advisory);
/* When to connect again after so many failures. */
uint64_t hf__advisory_pause_ns(const hf__advisory *advisory, uint32_t tries);

/* ---- advisory-queue.c */

/* Enters the lock into the queue of its id; it may be held at once. False: memory is out. */
bool hf__advisory_join(hf_pg_lock *lock);
/* Takes one that waits out of its queue, which is to be looked at. */
void hf__advisory_leave(hf_pg_lock *lock);
/* One that is held is to be released. */
void hf__advisory_unlock(hf_pg_lock *lock);
/* Why it has had to wait: what is told when its wait ends. 0: no answer has come yet. */
uint32_t hf__advisory_reason(const hf_pg_lock *lock, const hf_error **error);
/* What the queue asks the server now: ops, up to 2 of them, into `ops`. 0: nothing any more. */
uint32_t hf__advisory_ops(hf__advisory_queue *queue, int16_t ops[2]);
/* What it was answered: as many. */
void hf__advisory_answer(hf__advisory_queue *queue, const bool *answers);
/* Or that the statement failed, on a session that goes on. */
void hf__advisory_failed(hf__advisory_queue *queue, const hf_error *error);
/* Goes on after one of these: who can hold it does, and what there is to ask is put to work. */
void hf__advisory_look(hf__advisory_queue *queue);
/* The session is over: what it had is lost. `refuse`: those who wait are to hear of it as well;
 * else only those who made one attempt. */
void hf__advisory_cut(hf__advisory *advisory, const hf_error *error, bool refuse);

/* ---- advisory-batch.c */

void hf__advisory_batch_init(hf__advisory *advisory);
/* Sends the work that there is, connecting first if need be. */
void hf__advisory_pump(hf__advisory *advisory);
/* Ends the session, if there is one. */
void hf__advisory_batch_close(hf__advisory *advisory);
/* Refuses a session that is lent for each transaction: true, and the session has been ended. */
bool hf__advisory_is_pooled(hf__pg_session *session);

/* ---- advisory-own.c */

void hf__own_init(hf__advisory *advisory);
/* Makes a session of its own for the lock, or has one that is idle. False: memory is out. */
bool hf__own_start(hf_pg_lock *lock);
/* The lock does not wait any more. */
void hf__own_give_up(hf_pg_lock *lock);
void hf__own_unlock(hf_pg_lock *lock);
/* Whether its session has the lock still. */
bool hf__own_holds(hf_pg_lock *lock);
/* As hf__advisory_reason. */
uint32_t hf__own_reason(const hf_pg_lock *lock, const hf_error **error);
/* Whether the server's process is that of one of them. */
bool hf__own_is_pid(const hf__advisory *advisory, int pid);
/* Ends all sessions. Nothing is held on them, or it is lost. */
void hf__own_close(hf__advisory *advisory);

/* ---- advisory-list.c */

/* Ends what is under way with HF_ECLOSED, and its session. */
void hf__advisory_list_close(hf__advisory *advisory);

#endif
