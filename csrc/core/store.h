/*
 * The store seam: what a backend is to the rest of Holdfast. This page is the contract; the
 * conformance suite (test/c/conformance.h) is its test. Nothing above this line knows a backend,
 * nothing below it knows what a lock is.
 *
 * An instance belongs to one loop and is used from that loop's thread only. A client has up to
 * two: one on the host's loop, one on the keeper's. Instances of one client share nothing but
 * what they reach through `env.shared`, and must be ready for the other to act at the same time.
 *
 * Verbs. `take keep drop get put del add list sweep` are given a chain of ops (linked by `next`,
 * ended by NULL) of that one verb, the keys of each distinct, in the order in which they must
 * take effect; ops of consecutive calls keep their order too, but that what is asked for a token
 * is given after its take has ended. The instance then owns the chain and ends each op exactly
 * once, through hf__op_finish, never inside the call. Ops may come
 * before `open` has finished: they wait for it; if it fails they end with its error. How the ops
 * are batched is the store's affair; each has its own result. A failure of one op changes nothing
 * for that op and does not disturb the others.
 *
 * Results. `error` set: it failed; HF_OUTCOME_UNKNOWN if it may have landed. Else `applied`, or
 * `refused` says why not (get, list and sweep that did not fail are applied). Outputs that a
 * verb does not name are left as hf_op_init made them.
 *
 * Leases (space HF_LEASES). Judged by the store's clock; a lease whose time is up does not exist.
 * Without HF_CAP_SHARED every limit is 1, without HF_CAP_PERMITS it is 1 or HF_SHARED. No ttl_ms is
 * more than the instance's max_ttl_ms. A store of several nodes tells in `votes` what each said,
 * with HF_OP_VOTES or an error of theirs.
 *  take  All keys or none, for `ttl_ms`. The admission rule, for each key: let H be its live
 *        holders (without this token and without `replace_token`) and L the least of their
 *        limits and op->limit; admitted if count(H) + 1 <= L, and, if op->limit > 1, no live
 *        intent mark of another token is on the key. A mark (HF_OP_INTENT, of a refused
 *        exclusive take, on each of its keys) lives min(ttl_ms, 2 s), is renewed by the next
 *        refused attempt, and goes when its token is admitted to the key or dropped from it. A
 *        take by a token that holds all keys already is that same take: applied, with its fence,
 *        its time set to at least ttl_ms; holding only some, with other keys, is HF_EINVAL.
 *        `replace_token`: applied only if limit is 1 and that token holds exactly these keys
 *        exclusively, else HF_REFUSED_OWNER, and no mark is left; its lease ends in the same step.
 *        (Whether it holds others by another take, or came by these in more than one, a store need
 *        not look at.) Needs HF_CAP_HAND_OVER. Result: `fence`, one number above all that any of
 *        the keys has had (design section 5, rule 4). Refused HF_REFUSED_HELD: `left_ms` is the
 *        time until the first of those in the way lapses (intent marks count), or less where nobody
 *        would tell of a release; `*holder` one of them, if asked for. With HF_OP_WAIT a store
 *        whose instances are others' too may note, for those `left_ms`, that this instance waits
 *        for the keys, until it is admitted to them; `awaited` of an admitted take tells whether
 *        another instance's note is on one of its keys. That is a hint, for fairness alone.
 *  keep  Sets the time left of all keys to `ttl_ms`, if all are still held by `token` and live,
 *        else HF_REFUSED_OWNER and nothing changes. With space HF_RECORDS: the claim's lease of
 *        the one key.
 *  drop  Ends the token's lease on those of the keys it holds. `applied` if it held all; else
 *        HF_REFUSED_OWNER. Removes the token's intent marks on them too.
 *  list  Live holders in order of key, at most `limit` rows but never part of a key, of keys
 *        that start with keys[0] and sort after `value`; with HF_OP_EXACT of that key only. The
 *        first key is given whole even if it is more than `limit`; no rows: there are no more. It
 *        may take long, and show what ops given after it do. With HF_OP_NEXT, which says that
 *        `value` is the last key of the list before, it may leave out keys taken since that one.
 *        Needs HF_CAP_LIST.
 *
 * Entries (space HF_VALUES or HF_RECORDS; one key).
 *  get   `entry`, and `out` with the value. A missing, expired or deleted entry has present =
 *        false. An expired one is never shown. An empty key asks for nothing: it reads the store
 *        and proves it alive.
 *  put   Sets value, format, owner token, `kept` (now + ttl_ms, 0 for ever; HF_OP_KEEP_TTL:
 *        unchanged) and with lease_ms > 0 makes it a claim for so long, else a plain or finished
 *        entry. Lands iff the condition holds and the fence is not older: `fence_key` non-empty
 *        is compared to the entry's remembered lock key (another: HF_REFUSED_FENCE_KEY) and
 *        fence (newer: HF_REFUSED_FENCE), before the condition is; if it lands both are
 *        remembered. A write without a fence leaves what is remembered. If the present entry's
 *        owner token is op->token (and the condition is not HF_IF_TOKEN on a claim), the put has
 *        landed before: applied again, with the version and attempt of then, nothing changed.
 *        `attempt`: 1, or one more than the lapsed claim's with HF_IF_CLAIMABLE; a finishing put
 *        (HF_IF_TOKEN) keeps the claim's. HF_IF_TOKEN lands also when the claim's lease is past,
 *        as long as nobody else has claimed it; repeated on the done entry of the same token it
 *        is applied again. `version` never repeats for a key, also after deletion or expiry.
 *  del   Removes the entry iff condition and fence allow; `applied` if there was one,
 *        HF_REFUSED_VERSION if there was none. With a fence, and where one is remembered, a
 *        tombstone keeps the memory for 24 h. So does an expired entry.
 *  add   Adds `delta` to an integer (format HF_JSON, decimal text) or, where absent, to
 *        `initial`; refused outside min..max (as flags say) or +-HF_INT_MAX. `sum` and
 *        `version`. Fences as in put. An absent entry is kept for ttl_ms; a present one keeps
 *        its time.
 *  sweep Removes up to `limit` rows whose time is up (leases, marks, entries, tombstones, fence
 *        counters idle for 24 h); `swept` says how many.
 *
 * Fences and epochs: design section 5, rule 4. Counters outlive the last lease of their key by
 * 24 h at least.
 *
 * Watching. `watch` asks for a hint when `key` may have become free (space HF_LEASES) or its
 * entry may have changed: `fire` then runs on the loop's thread, within env.scope, any number of
 * times, also for no reason; a hint may be lost. A reconnect fires all. A watch is armed when a
 * `take`, `get` or refused `put` submitted after `watch` returned can miss no later change. `watch`
 * and `unwatch` are NULL where the store cannot tell.
 *
 * Closing. `close` is given once, as an op (verb HF_CLOSE): what was accepted before ends first,
 * then handles are closed, then the op ends (ops given in between end before it, with
 * HF_ECLOSED); nothing runs afterwards, and `fini` frees the rest. `open` is given once too
 * (verb HF_OPEN, error if it cannot be had now); after a failed open further ops may try again,
 * as the store thinks best, and the error stays per op.
 */
#ifndef HF_CORE_STORE_H
#define HF_CORE_STORE_H

#include "core/error.h"
#include "core/mailbox.h"
#include "core/op.h"
#include "core/settings.h"
#include "util/list.h"
#include "util/url.h"

#include <uv.h>

#define HF__INTENT_MS UINT64_C(2000)        /* how long an intent mark lives at most */
#define HF__COUNTER_MS UINT64_C(86400000)   /* how long a fence counter outlives its last lease */
#define HF__TOMBSTONE_MS UINT64_C(86400000) /* how long a gone entry's fence is remembered */

typedef struct hf_store hf_store;
typedef struct hf__credentials hf__credentials;
typedef struct hf_store_vtable hf_store_vtable;

/* What the instances of one client share (the memory store's table; anything a store may want
 * once per client). `fini` runs when the last instance is gone. Guarded by `lock`. */
typedef struct hf__shared {
    uv_mutex_t lock;
    void *data; /* set by the first instance that needs it, under `lock` */
    void (*fini)(struct hf__shared *shared);
    const hf_allocator *allocator;
} hf__shared;

/* Where an instance lives. Everything outlives the instance. */
typedef struct hf__store_env {
    uv_loop_t *loop;
    hf__mailbox *mailbox; /* read on that loop */
    hf__scope *scope;     /* NULL on the keeper's loop */
    const hf_allocator *allocator;
    const hf_clock *clock;
    const hf__url *url;
    const hf__settings *settings; /* NULL: none */
    hf__shared *shared;
    hf__credentials *credentials; /* core/credentials.h; NULL: no function gives the password */
    bool blocking; /* this thread may block: no work items, the shortest way (the keeper) */
    /* Tells the host of something an operator should know; may be NULL. Loop's thread. */
    void (*warn)(void *data, const hf_error *error);
    /* Likewise, of a node of a quorum that is in another state. */
    void (*node)(void *data, const hf_node *node);
    void *warn_data; /* of both */
} hf__store_env;

/* A request for hints. The caller owns it, keeps it in place until unwatch, and sets the first
 * four. */
typedef struct hf__watch {
    void (*fire)(struct hf__watch *watch);
    void *data;
    hf_slice key;
    uint8_t space;
    hf__node node; /* the store's */
    uint64_t seen; /* the store's */
} hf__watch;

struct hf_store_vtable {
    const char *name;    /* "sqlite" */
    const char *schemes; /* URL schemes, separated by blanks */
    uint32_t caps;       /* HF_CAP_* */
    size_t size;        /* of the instance, whose first member is an hf_store; zeroed before init */
    const char *params; /* names of its URL parameters and settings, separated by blanks */
    const char *lacks;  /* without HF_CAP_ENTRIES: why it keeps none, as messages say it */

    /* Reads the URL and settings, and prepares; no I/O, nothing that must be closed if the client
     * never connects except by fini. After an error fini is not called. Errors: HF_EINVAL,
     * HF_ENOMEM, HF_EIO. */
    hf_code (*init)(hf_store *store, hf_error *error);
    void (*open)(hf_store *store, hf_op *op);
    void (*close)(hf_store *store, hf_op *op);
    void (*fini)(hf_store *store);
    /* Wants `op` to end soon, with HF_ECANCELED, if it has had no effect yet; may do nothing. */
    void (*cancel)(hf_store *store, hf_op *op);

    void (*take)(hf_store *store, hf_op *ops);
    void (*keep)(hf_store *store, hf_op *ops);
    void (*drop)(hf_store *store, hf_op *ops);
    void (*get)(hf_store *store, hf_op *ops);
    void (*put)(hf_store *store, hf_op *ops);
    void (*del)(hf_store *store, hf_op *ops);
    void (*add)(hf_store *store, hf_op *ops);
    void (*list)(hf_store *store, hf_op *ops);
    void (*sweep)(hf_store *store, hf_op *ops);

    void (*watch)(hf_store *store, hf__watch *watch);
    void (*unwatch)(hf_store *store, hf__watch *watch);
    /* As hf_client_nodes; NULL where it has none. */
    size_t (*nodes)(hf_store *store, hf_node *nodes, size_t max);
};

struct hf_store {
    const hf_store_vtable *vt;
    hf__store_env env;
    /* As the vtable says, unless `init` says otherwise. */
    uint32_t caps;
    uint64_t max_ttl_ms; /* of a lease: HF_TTL_MAX */
};

/* Makes an instance (calls init). NULL with `error` set. */
hf_store *hf__store_new(const hf_store_vtable *vt, const hf__store_env *env, hf_error *error);
/* Calls fini and frees. The instance is closed or was never opened. */
void hf__store_free(hf_store *store);
/* Gives a chain of ops of one verb to the store, marked pending. Each verb must be one the store
 * has. */
void hf__store_submit(hf_store *store, hf_op *ops);
/* What the setting `name`, or else the URL's parameter of that name, says (a NUL follows it).
 * False: there is neither. A message about its value begins with its name. */
bool hf__setting_get(const hf__store_env *env, const char *name, hf_slice *value);
/* Whether `word` is one of the blank-separated `words`. */
bool hf__has_word(const char *words, hf_slice word);
/* Whether the store takes a parameter or setting of that name. */
bool hf__store_takes(const hf_store_vtable *vt, hf_slice name);
/* Whether the store has the verb. */
bool hf__store_has(const hf_store_vtable *vt, hf_verb verb);

/* The next fence from a counter row: `counter` and whether it belongs to the present epoch. */
static inline uint64_t hf__next_fence(uint64_t counter, bool same_epoch, uint64_t now_us) {
    uint64_t next = counter + 1;
    return !same_epoch && now_us > next ? now_us : next;
}

#endif
