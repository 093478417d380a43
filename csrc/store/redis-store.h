/*
 * The Redis store, as its own files see it. How it works as a whole is told in store/redis.c, how
 * it names what it keeps in store/redis-names.h, what it does with that in the scripts of
 * store/redis.
 */
#ifndef HF_STORE_REDIS_STORE_H
#define HF_STORE_REDIS_STORE_H

#include "core/defer.h"
#include "core/store.h"
#include "driver/redis/redis.h"
#include "store/redis-member.h"
#include "store/redis-names.h"
#include "store/redis-scripts.h"
#include "store/watchers.h"

typedef struct hf__redis_instance hf__redis_instance;
typedef struct hf__redis_task hf__redis_task;
typedef struct hf__redis_listing hf__redis_listing;

/* A call that carries out an op, or a part of one. */
struct hf__redis_task {
    hf__redis_call call;
    hf__redis_instance *store;
    hf_op *op;
    const hf__redis_server *server; /* that was asked last; good while its answer is read */
    /* Carries the answer over into the op. The reply is an array that begins with the nonce where
     * the call is a script's. False: it makes no sense. */
    bool (*answer)(hf__redis_task *task, const hf__reply *reply);
    /* Instead, where a task is a part of something larger: has the task freed. */
    void (*done)(hf__redis_task *task, const hf__reply *reply, const hf_error *error);
    void *data; /* the part's */
    size_t index;
    hf__node node; /* of those under way, or free */
};

struct hf__redis_instance {
    hf_store base;
    hf__redis *redis;
    hf__redis_script scripts[HF__LUA_COUNT];
    hf__redis_names names;
    char channel[HF__REDIS_PREFIX_MAX + 32]; /* where this instance is told that it may go on */
    size_t channel_len;
    uint64_t wait_replicas; /* before a take counts; 0: none */
    bool allow_eviction;
    bool warned; /* of a server that evicts */

    hf__node tasks; /* under way */
    hf__node free_tasks;
    hf__node inquiries; /* of replicas, under way: one for each connection at most */
    size_t n_free;
    size_t n_busy; /* ops that have not ended */
    hf__defer defer;
    uv_timer_t forget; /* ends the keeping of a list's names */
    bool has_handles;
    uint32_t n_handles; /* to be closed */
    hf__op_list late;   /* given after close */
    hf_op *closing;
    hf_op drained; /* behind the last op that is deferred */

    hf__watchers watchers;
    bool listens; /* the channel is asked for */

    hf__redis_listing *kept; /* names from a list that may go on; NULL: none */

    const hf__redis_member *member; /* of a quorum; NULL: it stands alone */
};

static inline hf__redis_instance *hf__redis_self(hf_store *store) {
    return hf__of(store, hf__redis_instance, base);
}

/* ---- redis.c */

/* A task for the op; NULL, with the op's error set, when memory is out. */
hf__redis_task *hf__redis_task_new(hf__redis_instance *s, hf_op *op);
/* Sends its call, of which `encode`, `timeout_ms` and `server` are set: that of a script, or -1, to
 * where the key is (empty: to any server). Then `answer` is called, and the op ends. */
void hf__redis_send_task(hf__redis_task *task, int script, hf_slice key);
/* Gives back a task whose op goes on. */
void hf__redis_task_free(hf__redis_task *task);
/* Gives back a task, and ends its op. In a callback only. */
void hf__redis_end_task(hf__redis_task *task);
/* Ends an op. In a callback only. */
void hf__redis_end_op(hf__redis_instance *s, hf_op *op);
/* Starts an op that is no verb of a store's: `begin` as below. */
void hf__redis_start(hf__redis_instance *s, hf_op *op,
                     bool (*begin)(hf__redis_instance *s, hf_op *op));
/* Begins a script's command, and notes the server. */
void hf__redis_begin(hf__redis_task *task, const hf__redis_server *server, hf__buffer *out,
                     uint32_t n_keys, uint32_t n_args);
/* Fills `error`: what the server answered is no answer. */
void hf__redis_nonsense(const hf__redis_task *task, hf_error *error);
/* Whether it is an array of so many numbers, the nonce among them, and then so many texts. */
bool hf__redis_has_shape(const hf__reply *reply, size_t numbers, size_t texts);

static inline hf_slice hf__redis_name_slice(const hf__redis_name *name) {
    return (hf_slice){name->text, name->len};
}

static inline void hf__redis_refuse(hf_op *op, hf_refusal why) {
    op->applied = false;
    op->refused = (uint8_t)why;
}

/* What begins to carry out an op. False, with its error set: it could not begin. */

/* ---- redis-leases.c */
bool hf__redis_take(hf__redis_instance *s, hf_op *op);
bool hf__redis_keep(hf__redis_instance *s, hf_op *op);
bool hf__redis_drop(hf__redis_instance *s, hf_op *op);
/* How long the answer to a renewal is waited for, so that a connection that has died in silence
 * leaves time for another. */
uint32_t hf__redis_keep_timeout(uint64_t ttl_ms);
/* What answers an op of an owner: nonce, and whether it is the owner still. */
bool hf__redis_answer_owner(hf__redis_task *task, const hf__reply *reply);
/* Reads a token's 32 digits. */
bool hf__redis_read_token(hf_slice text, hf_token *token);
/* Reads a state, or the details of one who shares, into `holder`; of a stranger the token is empty.
 * False: it makes no sense. */
bool hf__redis_read_holder(hf_slice token, int64_t left_ms, hf_slice text, hf_holder *holder);

/* The keys as the scripts want to have them: lease and state of each. False when memory is out. */
bool hf__redis_put_keys(hf__redis_instance *s, const hf_op *op, hf__buffer *out);
/* The server's epoch. */
void hf__redis_put_epoch(const hf__redis_server *server, hf__buffer *out);

/* ---- redis-member.c */
/* A server's clock, in microseconds. False: it is none. */
bool hf__redis_read_clock(const hf__reply *item, uint64_t *us);
/* What a vote has behind a take: the marker that it must find. */
void hf__redis_put_marker(const hf__redis_instance *s, hf__buffer *out);

/* ---- redis-replicas.c */
/* Ends an admitted take once enough replicas have it. In a callback only. */
void hf__redis_confirm(hf__redis_task *task);

/* ---- redis-entries.c */
bool hf__redis_get(hf__redis_instance *s, hf_op *op);
bool hf__redis_put(hf__redis_instance *s, hf_op *op);
bool hf__redis_del(hf__redis_instance *s, hf_op *op);
bool hf__redis_add(hf__redis_instance *s, hf_op *op);
bool hf__redis_renew(hf__redis_instance *s, hf_op *op);

/* ---- redis-list.c */
bool hf__redis_list(hf__redis_instance *s, hf_op *op);
/* Forgets the names that are kept. */
void hf__redis_list_forget(hf__redis_instance *s);

/* ---- redis-watch.c */
void hf__redis_watch(hf_store *store, hf__watch *watch);
void hf__redis_unwatch(hf_store *store, hf__watch *watch);
/* Whether there is a watch on any of the op's keys, in its space. */
bool hf__redis_is_watched(hf__redis_instance *s, const hf_op *op);
void hf__redis_message(hf__redis_instance *s, hf_slice payload);
void hf__redis_listening(hf__redis_instance *s);

#endif
