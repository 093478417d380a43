/*
 * Holdfast: locks that stay held, operations that run once, writes that land only when their
 * condition still holds. This is the public C interface: everything a host (Node's addon, a
 * command-line tool, another language's binding) needs, and nothing else. It depends on the C
 * library alone; the host brings a libuv loop.
 *
 * Threads. An engine belongs to one loop; every function here is called on that loop's thread only,
 * except where it says otherwise. Callbacks run on that thread too, never inside the call that
 * led to them.
 *
 * Ownership. Inputs given in an options struct are copied before the call returns; inputs
 * referenced from an hf_op are borrowed until its `done` runs. A handle (hf_lock, hf_run) stays
 * valid until its owner frees it, whatever has happened to what it stands for.
 *
 * Time. Durations are milliseconds (`_ms`), instants nanoseconds of the engine's clock (`_ns`).
 */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HF_VERSION "0.1.0"

/* Limits. Exceeding one is HF_EINVAL unless a function says otherwise. */
#define HF_KEY_MAX 1024                          /* bytes of one key, at least 1, no NUL */
#define HF_KEYS_MAX 64                           /* keys of one lock */
#define HF_NOTE_MAX 256                          /* bytes of a lock's note */
#define HF_WHO_MAX 96                            /* bytes that name a holder: "pid@host" */
#define HF_TTL_MIN 50                            /* ms */
#define HF_TTL_MAX 86400000                      /* ms: 24 h */
#define HF_VALUE_MAX (1u << 20)                  /* default bound of a value: 1 MiB */
#define HF_RECORD_MAX ((1u << 20) + (64u << 10)) /* default bound of a record's answer */
#define HF_SETTINGS_MAX 64                       /* settings of one client */
#define HF_FOREVER UINT64_MAX                    /* a duration without end */
#define HF_INT_MAX 9007199254740991 /* 2^53 - 1: greatest fence, version and counter value */

/* ---------------------------------------------------------------- errors */

/* Every error code: name, and the sentence that stands where nothing more is known. */
#define HF_ERRORS(X)                                                                        \
    X(EINVAL, "an argument is not valid")                                                   \
    X(ENOMEM, "out of memory")                                                              \
    X(ENOTSUP, "this store cannot do that")                                                 \
    X(ECLOSED, "the client is closed: close() has been called")                             \
    X(ECANCELED, "the operation was cancelled")                                             \
    X(ETIMEDOUT, "the lock was not free in time")                                           \
    X(ELOST, "the lease was lost")                                                          \
    X(ECONFLICT, "the condition of the write does not hold")                                \
    X(ESTALE, "a newer fence has been seen")                                                \
    X(EBOUNDS, "the result would leave its bounds")                                         \
    X(EINPROGRESS, "the operation is still running elsewhere")                              \
    X(EMISMATCH, "the key was used for a different operation")                              \
    X(ECRASHED, "an earlier run ended without a result; whether it took effect is unknown") \
    X(ECALLBACK, "a function given to the library failed")                                  \
    X(EQUORUM, "no majority of the nodes agreed")                                           \
    X(EUNAVAIL, "the store did not answer")                                                 \
    X(EPROTO, "the store answered something that makes no sense")                           \
    X(ETOOBIG, "the value is too large")                                                    \
    X(ETYPE, "the stored value is of another type")                                         \
    X(EOVERLOAD, "too many operations are waiting")                                         \
    X(EBUSY, "the database stayed locked by another process")                               \
    X(EREADONLY, "the database cannot be written")                                          \
    X(EFULL, "the disk is full")                                                            \
    X(EIO, "reading or writing the database failed")                                        \
    X(ENOENT, "the folder of the database does not exist")                                  \
    X(EACCES, "permission to open the database was denied")                                 \
    X(ENOTADB, "the file is not a Holdfast database, or is damaged")                        \
    X(ESCHEMA, "the database was written by a newer version")                               \
    X(EMOVED, "the database file was deleted or replaced")                                  \
    X(ENETFS, "the database lies on a network file system")                                 \
    X(ESQL, "the server refused the statement")

typedef enum hf_code {
    HF_OK = 0,
#define X(name, text) HF_##name,
    HF_ERRORS(X)
#undef X
        HF_CODE_COUNT
} hf_code;

/* Flags of an error. */
#define HF_RETRYABLE 1u       /* the same call may succeed later */
#define HF_OUTCOME_UNKNOWN 2u /* the write may have landed */

/* An error, by value: reporting one allocates nothing. No field ever holds a secret. */
typedef struct hf_error {
    hf_code code;
    uint32_t flags;
    int32_t native; /* errno or SQLite's extended code; 0 if there is none */
    char state[16]; /* SQLSTATE or RESP prefix; "" if there is none */
    char message[228];
} hf_error;

/* "HF_ETIMEDOUT" and so on; "HF_OK" for 0, "HF_E?" for a number that is no code. Any thread. */
const char *hf_code_name(hf_code code);
/* The general sentence of a code. Any thread. */
const char *hf_code_text(hf_code code);

/* ---------------------------------------------------------------- small types */

typedef struct hf_slice {
    const char *data; /* may be NULL when len is 0 */
    size_t len;
} hf_slice;

/* 128 random bits that name one holder, one claim or one write. All zero means none. */
typedef struct hf_token {
    uint8_t bytes[16];
} hf_token;

/* Memory for everything the core keeps. Called from several threads at once. `resize(data, NULL,
 * n)` allocates, `resize(data, p, 0)` frees and returns NULL; a NULL for n > 0 is out of memory. */
typedef struct hf_allocator {
    void *(*resize)(void *data, void *p, size_t size);
    void *data;
} hf_allocator;

/* Where time comes from. Called from several threads at once. `boot_id` names the boot that
 * `boot_ns` counts from: leases on one machine are kept in its time and end with it. */
typedef struct hf_clock {
    uint64_t (*boot_ns)(void *data); /* CLOCK_BOOTTIME: monotonic, counts suspend */
    uint64_t (*real_us)(void *data); /* CLOCK_REALTIME: microseconds since 1970 */
    const char *boot_id;             /* up to 63 bytes; NULL: the system's */
    void *data;
} hf_clock;

/* ---------------------------------------------------------------- engine */

typedef struct hf_engine hf_engine;
typedef struct hf_client hf_client;
struct uv_loop_s;

typedef enum hf_event_kind {
    HF_EVENT_WARNING = 1, /* something an operator should know; `error` tells */
    HF_EVENT_RENEWED,     /* a lease was renewed; `token` names it (only with `renewals`) */
    HF_EVENT_NODE,        /* a node of a quorum is in another state; `node` tells */
} hf_event_kind;

/* Whether a node of a quorum has a vote. */
typedef enum hf_node_state {
    HF_NODE_UNKNOWN = 0, /* not asked yet, or being asked */
    HF_NODE_DOWN,
    HF_NODE_QUARANTINED, /* it may have forgotten what it promised: `reason`, `left_ms` */
    HF_NODE_VOTING
} hf_node_state;

typedef enum hf_node_reason {
    HF_NODE_NO_REASON = 0,
    HF_NODE_RESTARTED,
    HF_NODE_EMPTIED, /* or new in an old quorum */
    HF_NODE_CLOCK,   /* its clock has jumped */
    HF_NODE_TOLD     /* another client has found out why */
} hf_node_reason;

#define HF_NODE_NAME_MAX 80

typedef struct hf_node {
    char name[HF_NODE_NAME_MAX]; /* "10.0.0.1:6379" */
    uint8_t state;               /* hf_node_state */
    uint8_t reason;              /* hf_node_reason */
    uint64_t left_ms;            /* of its quarantine */
} hf_node;

/* What a node of a quorum said to an op. */
typedef enum hf_vote_kind {
    HF_VOTE_FOR = 1,
    HF_VOTE_AGAINST, /* take: others hold it; keep, drop: the token does not */
    HF_VOTE_DOWN,    /* no answer, or none in time */
    HF_VOTE_QUARANTINED
} hf_vote_kind;

typedef struct hf_vote {
    uint8_t kind; /* hf_vote_kind; 0: it was not asked, or not waited for */
    char node[HF_NODE_NAME_MAX];
    hf_error error; /* why it is not for it */
} hf_vote;

typedef struct hf_event {
    hf_event_kind kind;
    hf_client *client; /* NULL: the engine as a whole */
    hf_token token;
    const hf_error *error; /* valid during the callback; NULL if there is none */
    const hf_node *node;   /* likewise */
} hf_event;

typedef struct hf_engine_options {
    const hf_allocator *allocator; /* NULL: malloc; copied */
    const hf_clock *clock;         /* NULL: the system's; copied, boot_id too */
    /* Bracket around every series of callbacks that one loop event leads to (may be NULL): a host
     * opens its handle and callback scopes once per series, not once per callback. */
    void (*enter)(void *data);
    void (*leave)(void *data);
    void (*event)(void *data, const hf_event *event); /* may be NULL */
    void *data;
    const char
        *who;      /* names this process to others, up to HF_WHO_MAX - 1 bytes; NULL: "pid@host" */
    bool renewals; /* report HF_EVENT_RENEWED; may be changed with hf_engine_renewals */
} hf_engine_options;

/* Creates an engine on `loop`. Its handles are not referenced: an idle engine does not keep the
 * loop alive; pending operations do. Errors: HF_ENOMEM, HF_EIO (a handle or descriptor could not
 * be made). */
hf_code hf_engine_open(struct uv_loop_s *loop, const hf_engine_options *options, hf_engine **out,
                       hf_error *error);

/* Closes every client at once (as hf_client_close with timeout 0), stops the keeper thread,
 * closes all handles and frees the engine; then calls `cb` (may be NULL), for which the loop
 * must be run. */
void hf_engine_close(hf_engine *engine, void (*cb)(void *data), void *data);

/* For the end of the process, where the loop will not turn again: drops every lease still held,
 * and what is on its way to the store, in one batch, from the keeper thread, and waits for it,
 * `timeout_ms` at most. A loop that goes on all the same learns of the losses. Idempotent.
 * Blocks. */
void hf_engine_exit(hf_engine *engine, uint64_t timeout_ms);

/* Turns HF_EVENT_RENEWED on or off. */
void hf_engine_renewals(hf_engine *engine, bool on);

/* The engine's clock, as instants in this interface count. */
uint64_t hf_engine_now_ns(const hf_engine *engine);

/* Fills a fresh random token. Any thread. False only if the system has no randomness to give. */
bool hf_token_random(hf_token *token);

/* ---------------------------------------------------------------- client */

/* What a store can do (hf_client_caps). */
#define HF_CAP_LEASES 1u
#define HF_CAP_SHARED 2u /* shared leases */
#define HF_CAP_FENCES 4u
#define HF_CAP_ENTRIES 8u  /* values and records */
#define HF_CAP_DURABLE 16u /* acknowledged entries survive power loss */
#define HF_CAP_SHARED_BY_PROCESSES 32u
#define HF_CAP_LIST 64u
#define HF_CAP_HAND_OVER 128u /* takes with `replace_token` */
#define HF_CAP_PERMITS 256u   /* counted leases */

/* An option of a store by name, as a parameter of the URL is one, but of any length and never
 * shown to anyone: passwords and certificates belong here. Numbers are decimal, durations
 * milliseconds, yes and no "true" and "false". */
typedef struct hf_setting {
    hf_slice name;
    hf_slice value;
} hf_setting;

/* A question for the password of a store. */
typedef struct hf_password hf_password;

typedef struct hf_client_options {
    /* How locks of one key pass among the waiters of one engine while others, elsewhere, are known
     * to wait for it too: so many takes in a row, or for so long, then it is the others' turn. */
    uint32_t handoffs;   /* 0 to HF_HANDOFFS_MAX */
    uint64_t handoff_ms; /* HF_FOREVER: no bound */
    /* Each name once. What is also a parameter of the URL is taken from here. */
    const hf_setting *settings;
    size_t n_settings; /* 0 to HF_SETTINGS_MAX */
    /* Gives the password in place of a setting, for one that changes; NULL: nothing does. Called
     * when a connection is made and the last answer is a minute old, or was refused by the server.
     * Each call is to be answered by hf_password_give, within it or later. */
    void (*password)(void *data, hf_password *ask);
    void *password_data;
} hf_client_options;

#define HF_HANDOFFS_MAX 1000000
#define HF_HANDOFFS 16
#define HF_HANDOFF_MS 100
#define HF_CLIENT_DEFAULTS \
    ((hf_client_options){.handoffs = HF_HANDOFFS, .handoff_ms = HF_HANDOFF_MS})

/* Makes a client of the store that `url` names:
 *
 *   memory:
 *   sqlite:PATH                busyTimeout (ms)
 *   redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:, valkey:, valkeys:; unix:PATH;
 *   redis+sentinel://HOST[:PORT],.../MASTER, redis+cluster://HOST[:PORT],... and rediss+ of both
 *                              prefix (up to 128 bytes; "holdfast:"), db (0 to 65535; 0), username,
 *                              password, connectTimeout, commandTimeout (10 ms to 1 h; 5 s),
 *                              waitReplicas (0 to 16; 0), allowEviction (false),
 *                              sentinelUsername, sentinelPassword, tls (false), tlsCa, tlsCert,
 *                              tlsKey (PEM), tlsServername, tlsRejectUnauthorized (true), tlsRoots
 *                              (PEM, in place of the system's authorities)
 *   postgres://[USER:PASSWORD@]HOST[:PORT],.../DATABASE, postgresql:; postgres:WORDS of libpq
 *                              what libpq takes; connectTimeout, commandTimeout (10 ms to 1 h;
 *                              5 s), pooler (session or transaction; it is found out), schema
 *                              ("holdfast"), leases (durable or relaxed; durable); of the pool for
 *                              statements max (1 to 1000; 10), idleTimeout (10 ms to 1 h; 10 s)
 *   quorum:[?NAME=VALUE&...] URL URL ...
 *                              locks over a majority of 1 to 15 of redis: and its like but Cluster;
 *                              what those take, for all of them, and maxTtl (50 ms to 24 h;
 *                              5 min), nodeTimeout (1 ms to 1 h; 5 % of the ttl, 10 ms at least),
 *                              fencing (false), quarantine (true; false is for tests alone: locks
 *                              may then overlap)
 *
 * What stands on the right are its settings, with range and default; each can also be a parameter
 * of the URL (?name=value&...). Does not connect yet. `options` NULL: HF_CLIENT_DEFAULTS. Errors:
 * HF_EINVAL (URL, option or setting not understood, or a setting that this store does not have),
 * HF_ENOTSUP (no such store in this build), HF_ENOMEM, HF_EIO. */
hf_code hf_client_open(hf_engine *engine, hf_slice url, const hf_client_options *options,
                       hf_client **out, hf_error *error);

/* Answers `ask`, once; it is gone then. `password` is copied. `failure` not NULL: there is none,
 * and this, in a few words and without a secret, is why: connections that need it fail with
 * HF_ECALLBACK. An answer is allowed, and due, also when the client or its engine has been closed
 * meanwhile. The engine's thread. */
void hf_password_give(hf_password *ask, hf_slice password, const char *failure);

/* Connects, if that has not happened, and reports: `error` is NULL when ready, `votes` are what the
 * nodes of a quorum said. Operations need not wait for this: the first of them connects. */
hf_code hf_client_connect(hf_client *client,
                          void (*cb)(void *data, const hf_error *error, const hf_vote *votes,
                                     size_t n_votes),
                          void *data);

/* Refuses new work at once (HF_ECLOSED), ends waiters with HF_ECLOSED, lets holders and runs
 * finish for up to `timeout_ms`, then releases what is left (those locks are lost), closes the
 * store, frees the client and calls `cb` (may be NULL). Handles of its locks and runs stay valid
 * until freed. Called again before that, it may only shorten the time; the first call's `cb` is
 * the one that runs. */
void hf_client_close(hf_client *client, uint64_t timeout_ms, void (*cb)(void *data), void *data);

uint32_t hf_client_caps(const hf_client *client);
const char *hf_client_store(const hf_client *client); /* "sqlite", "redis", "memory" */
/* The longest time to live that its locks may have. */
uint64_t hf_client_max_ttl_ms(const hf_client *client);
/* Tells of the nodes of a quorum: fills in up to `max`, and returns how many there are; 0 where the
 * store is none. */
size_t hf_client_nodes(hf_client *client, hf_node *nodes, size_t max);

/* ---------------------------------------------------------------- operations */

/* What an hf_op asks. The first group is for leases, the second for entries. */
typedef enum hf_verb {
    HF_TAKE = 1,
    HF_KEEP,
    HF_DROP,
    HF_GET,
    HF_PUT,
    HF_DEL,
    HF_ADD,
    HF_LIST,
    HF_SWEEP,
    HF_OPEN, /* used between core and store only */
    HF_CLOSE
} hf_verb;

/* Namespaces: the same key in two of them is two things. */
typedef enum hf_space { HF_LEASES = 0, HF_VALUES = 1, HF_RECORDS = 2 } hf_space;

/* When a put, del or add lands. An entry past its `kept` time, and a tombstone, count as absent. */
typedef enum hf_condition {
    HF_IF_ANY = 0,
    HF_IF_ABSENT,
    HF_IF_VERSION,  /* present, with version `if_version` */
    HF_IF_TOKEN,    /* present, owned by `token` (claimed or done) */
    HF_IF_CLAIMABLE /* absent, or claimed with its lease past: `attempt` then counts up */
} hf_condition;

/* How a value is to be read. */
typedef enum hf_format { HF_BYTES = 0, HF_JSON = 1 } hf_format;

/* Flags of an op. */
#define HF_OP_INTENT \
    1u /* take: when refused, leave an intent mark that refuses later shared takes */
#define HF_OP_KEEP_TTL \
    2u /* put, add: keep the entry's `kept` time instead of setting it from ttl_ms */
#define HF_OP_WANT_ENTRY 4u /* put, del, add: when refused, return the present entry and value */
#define HF_OP_EXACT 8u      /* list: the key itself, not a prefix */
#define HF_OP_HAS_MIN 16u   /* add: `min` counts */
#define HF_OP_HAS_MAX 32u   /* add: `max` counts */
#define HF_OP_WAIT 64u      /* take: when refused, its caller waits on: others may know */
#define HF_OP_NEXT 128u     /* list: the page after the one before: may show what was then */
#define HF_OP_VOTES 256u /* take, keep, drop: tell the votes of a quorum, not only of a failure */

/* Why `applied` is false. */
typedef enum hf_refusal {
    HF_NOT_REFUSED = 0,
    HF_REFUSED_HELD,      /* take: held by others; `holder`, `left_ms` */
    HF_REFUSED_OWNER,     /* keep, drop, HF_IF_TOKEN: not owned by the token (any more) */
    HF_REFUSED_PRESENT,   /* HF_IF_ABSENT, HF_IF_CLAIMABLE: there is an entry */
    HF_REFUSED_VERSION,   /* HF_IF_VERSION: absent, or another version */
    HF_REFUSED_FENCE,     /* a newer fence has been seen; `fence` is that one */
    HF_REFUSED_FENCE_KEY, /* the value remembers another lock key's fences */
    HF_REFUSED_BOUNDS,    /* add: outside min..max or the safe integers */
    HF_REFUSED_TYPE       /* add: the value is no integer */
} hf_refusal;

#define HF_SHARED UINT32_MAX /* `limit` of a shared lease: no bound of its own */

/* One live holder of a key, as others see it. */
typedef struct hf_holder {
    hf_token token;
    uint64_t fence;
    uint64_t left_ms;  /* until its lease ends, unless renewed */
    uint64_t since_us; /* CLOCK_REALTIME at its take */
    uint32_t limit;
    char who[HF_WHO_MAX];
    char note[HF_NOTE_MAX + 1];
} hf_holder;

/* One row of HF_LIST. */
typedef struct hf_row {
    hf_slice key;
    hf_holder holder;
} hf_row;

/* What is known of an entry beside its value. */
typedef struct hf_entry {
    bool present;
    bool claimed; /* its operation is running, or its runner died: see lease_left_ms */
    uint8_t format;
    uint32_t attempt;
    uint64_t version;
    uint64_t lease_left_ms; /* of a claim; 0: its lease is past */
    uint64_t kept_left_ms;  /* HF_FOREVER if it does not expire */
    uint64_t stored_us;     /* CLOCK_REALTIME of its last write */
    uint64_t fence;         /* newest fence seen; 0 if none */
    hf_token token;
} hf_entry;

typedef struct hf_op hf_op;
typedef void (*hf_op_cb)(hf_op *op);

/*
 * One asynchronous operation. The caller owns it and must keep it, and what it points to, in
 * place from submit until `done` runs: exactly once, on the loop's thread, never inside submit.
 * Start from hf_op_init; call hf_op_reset before the op is used again or forgotten.
 */
struct hf_op {
    /* in */
    hf_op_cb done;
    void *data;
    uint8_t verb;
    uint8_t space;
    uint8_t condition;
    uint8_t format;
    uint32_t flags;
    uint32_t
        limit; /* take: holders allowed: 1 exclusive, n permits, HF_SHARED; list, sweep: rows */
    uint32_t n_keys;      /* 1 but for take, keep, drop; get with an empty key is a ping */
    const hf_slice *keys; /* list: prefix, or the key with HF_OP_EXACT */
    hf_token token;
    hf_token replace_token; /* take: hand over this holder's exclusive lease of the same keys */
    uint64_t ttl_ms;        /* lease's; entries: how long it is kept, 0: for ever */
    uint64_t
        lease_ms; /* put with HF_IF_ABSENT or _CLAIMABLE: claims for so long; 0: a plain value */
    uint64_t if_version;
    hf_slice value;     /* put; list: rows after this key */
    hf_slice note;      /* take */
    hf_slice who;       /* take; filled in by the core */
    hf_slice fence_key; /* put, del, add: the lock key of `fence_in`; empty: no fence */
    uint64_t fence_in;
    int64_t delta; /* add */
    int64_t min;
    int64_t max;
    int64_t initial;
    uint64_t deadline_ns; /* absolute; 0: the store's own limit */
    hf_holder *holder;    /* take: where to tell one holder when refused; may be NULL */
    /* out */
    hf_error error; /* code HF_OK unless the operation failed */
    bool applied;
    bool awaited; /* take, applied: others elsewhere are known to wait for one of the keys */
    uint8_t refused;
    uint64_t fence;   /* take */
    uint64_t version; /* put, add: the new version */
    uint32_t attempt; /* put: the claim's attempt, from 1 */
    uint32_t swept;   /* sweep: rows removed */
    uint64_t left_ms; /* take refused: time until the first of the holders in the way can lapse */
    int64_t sum;      /* add: the new value */
    hf_entry entry;   /* get; put, del, add with HF_OP_WANT_ENTRY when refused */
    hf_slice out;     /* the value that belongs to `entry`; owned by the op until reset */
    hf_row *rows;     /* list; owned by the op until reset */
    size_t n_rows;
    hf_vote *votes; /* of a quorum's nodes, with HF_OP_VOTES or an error; owned by the op until
                       reset */
    size_t n_votes;
    /* private */
    hf_op *next;
    const hf_allocator *allocator; /* of out and rows */
    void *owner;
    uint64_t stamp;
    uint32_t phase;
};

void hf_op_init(hf_op *op, hf_verb verb, hf_op_cb done, void *data);
/* Frees the outputs and clears them. Not while the op is pending. */
void hf_op_reset(hf_op *op);

/*
 * Submits one of HF_GET, HF_PUT, HF_DEL, HF_ADD (space HF_VALUES), HF_LIST or HF_SWEEP. A
 * failure that leaves no doubt and may pass (HF_RETRYABLE without HF_OUTCOME_UNKNOWN) is retried
 * until the op's deadline (10 s from now if 0); a put, get or list also after an unknown
 * outcome: a put is idempotent by its token, which is drawn here if it is zero; an add and a
 * sweep never. Errors of the call itself, after which `done` does not run: HF_EINVAL, HF_ETOOBIG
 * (a value of more than HF_VALUE_MAX bytes), HF_ENOTSUP, HF_ENOMEM, HF_ECLOSED.
 */
hf_code hf_submit(hf_client *client, hf_op *op, hf_error *error);

/* ---------------------------------------------------------------- locks */

typedef struct hf_lock hf_lock;

typedef struct hf_lock_options {
    const hf_slice *keys;
    size_t n_keys;
    uint64_t ttl_ms;  /* HF_TTL_MIN to hf_client_max_ttl_ms */
    uint64_t wait_ms; /* 0: one attempt, none if others of this engine wait or hold; HF_FOREVER */
    uint64_t max_hold_ms;  /* from the take; HF_FOREVER: no bound */
    uint64_t max_stall_ms; /* how long the loop may be stuck before the lease is given up */
    uint32_t limit;        /* 1 exclusive, n permits, HF_SHARED */
    bool renew;            /* the keeper renews until release */
    bool votes;            /* hf_lock_votes is to tell */
    hf_slice note;
} hf_lock_options;

typedef struct hf_lock_result {
    const hf_error *error; /* NULL: the lock is held */
    const hf_holder
        *holder;    /* on HF_ETIMEDOUT: who was in the way at the last attempt; may be NULL */
    bool held_here; /* on HF_ETIMEDOUT: the holder was a lock of this engine */
    uint64_t waited_ms;
    const hf_vote *votes; /* of the last attempt at a quorum that failed; may be NULL */
    size_t n_votes;
} hf_lock_result;

/*
 * Asks for a lock. `acquired` runs once: held, or with an error, of which HF_ETIMEDOUT (wait
 * ended while others held it), HF_EUNAVAIL and its like (the last attempt got no answer),
 * HF_ECANCELED, HF_ECLOSED. `lost` (may be NULL) runs at most once, in the first loop turn after
 * a held lease was lost, not after a release. Waiters of one engine are served in order. Errors
 * of the call itself: HF_EINVAL, HF_ENOTSUP, HF_ENOMEM, HF_ECLOSED; then nothing was started.
 * The handle is the caller's: hf_lock_free.
 */
hf_code hf_lock_acquire(hf_client *client, const hf_lock_options *options,
                        void (*acquired)(void *data, hf_lock *lock, const hf_lock_result *result),
                        void (*lost)(void *data, hf_lock *lock, const hf_error *why), void *data,
                        hf_lock **out, hf_error *error);

/* Gives up waiting: `acquired` will run with HF_ECANCELED. A lock that was won in the same
 * moment is dropped by the core. Does nothing once `acquired` has run. */
void hf_lock_cancel(hf_lock *lock);

/* Exact at any instant, without a round trip, however long the loop has been stuck. */
bool hf_lock_held(hf_lock *lock);
uint64_t hf_lock_remaining_ms(hf_lock *lock);

const hf_token *hf_lock_token(const hf_lock *lock);
uint64_t hf_lock_fence(const hf_lock *lock); /* 0 where the store has none */
/* How the nodes of a quorum answered the take, or the last extension or release that was answered,
 * of a lock that was asked for with `votes`: how many there are, 0 where that is not known. `votes`
 * is valid until the loop turns. */
size_t hf_lock_votes(const hf_lock *lock, const hf_vote **votes);

/* Sets the lease to `ttl_ms` from now, and this and later renewals too, within max_hold. `cb`
 * gets NULL, or HF_ELOST, or why the store could not be reached (the lock is then held for what
 * was left). Errors of the call itself, after which `cb` does not run: HF_EINVAL, HF_ELOST,
 * HF_ENOMEM, HF_EIO. */
hf_code hf_lock_extend(hf_lock *lock, uint64_t ttl_ms,
                       void (*cb)(void *data, hf_lock *lock, const hf_error *error), void *data);

/* Ends the lock: hf_lock_held is false at once, and `lost` will not run any more. HF_OK: `cb`
 * (may be NULL) gets whether the store still had it, and an error if the store could not be told
 * (it is tried again behind the scenes; at the latest the lease ends by itself). HF_ELOST: there
 * is nothing to release, it was lost, or released before, or never held. HF_ENOMEM: it is given
 * up, but without the memory to tell the store; the keeper drops it, or the lease ends by
 * itself. After the two `cb` does not run. */
hf_code hf_lock_release(hf_lock *lock,
                        void (*cb)(void *data, hf_lock *lock, bool was_held, const hf_error *error),
                        void *data);

/* Gives the handle back. Waiting ends (no callback will run); a lock still held is released. */
void hf_lock_free(hf_lock *lock);

/* One caller of this engine that waits. */
typedef struct hf_waiter {
    uint64_t waited_ms;
    uint32_t limit; /* as it asked: 1 exclusive, n permits, HF_SHARED */
    hf_slice note;  /* valid until the loop turns */
} hf_waiter;

/* Tells of the callers of this engine that wait for `key`, in order: fills in up to `max`, and
 * returns how many there are in all. */
size_t hf_lock_waiters(hf_client *client, hf_slice key, hf_waiter *waiters, size_t max);

/* ---------------------------------------------------------------- run once */

typedef struct hf_run hf_run;

typedef struct hf_once_options {
    hf_slice key;
    uint64_t ttl_ms;       /* how long the outcome is kept; 0: for ever */
    uint64_t lease_ms;     /* crash detection: HF_TTL_MIN to HF_TTL_MAX; renewed while it runs */
    uint64_t wait_ms;      /* how long to wait for another's run to finish; 0: not at all */
    uint64_t max_stall_ms; /* as a lock's */
    bool fail_on_crash;    /* a run that ended without a result is HF_ECRASHED, not run again */
    hf_slice fingerprint;  /* up to 64 bytes; a record with another one is HF_EMISMATCH */
} hf_once_options;

typedef struct hf_once_result {
    const hf_error *error; /* NULL: claimed or replay */
    bool replay;           /* the operation was done before; the fields below are its outcome */
    bool is_error;         /* the stored outcome is an error the function threw */
    uint8_t format;
    uint32_t attempt; /* of the claim; on replay of the run that finished */
    uint64_t fence;   /* of the claim: grows with every claim of the key */
    uint64_t left_ms; /* on HF_EINPROGRESS: how long the running claim's lease lasts */
    hf_slice value;   /* valid during the callback */
} hf_once_result;

/*
 * Claims the operation `key`, or finds its outcome. `begun` runs once. Errors there:
 * HF_EINPROGRESS (still running elsewhere when the wait ended), HF_EMISMATCH, HF_ECRASHED,
 * HF_ECANCELED, HF_ECLOSED, or the store's. After a claim the host runs its operation and ends
 * it with hf_run_finish or hf_run_abandon; `lost` as for a lock. Errors of the call itself:
 * HF_EINVAL, HF_ENOTSUP, HF_ENOMEM, HF_ECLOSED.
 */
hf_code hf_once_begin(hf_client *client, const hf_once_options *options,
                      void (*begun)(void *data, hf_run *run, const hf_once_result *result),
                      void (*lost)(void *data, hf_run *run, const hf_error *why), void *data,
                      hf_run **out, hf_error *error);

void hf_run_cancel(hf_run *run);
bool hf_run_held(hf_run *run);
uint64_t hf_run_remaining_ms(hf_run *run);
const hf_token *hf_run_token(const hf_run *run);

/* Stores the outcome (borrowed until `cb`): from now on it is replayed. `cb` gets NULL, or
 * HF_ELOST when the claim has passed to another run or was forgotten (nothing is changed then),
 * HF_ETOOBIG, or the store's error; after one of those other than HF_ELOST it may be called
 * again. Errors of the call itself, after which `cb` does not run: HF_ELOST (nothing is
 * claimed), HF_ETOOBIG, HF_ENOMEM. */
hf_code hf_run_finish(hf_run *run, hf_slice value, uint8_t format, bool is_error,
                      void (*cb)(void *data, hf_run *run, const hf_error *error), void *data);

/* Takes the claim back, so that the next call runs the operation anew. `cb` may be NULL.
 * HF_ELOST: nothing is claimed; then `cb` does not run. */
hf_code hf_run_abandon(hf_run *run, void (*cb)(void *data, hf_run *run, const hf_error *error),
                       void *data);

/* Gives the handle back. A claim that was neither finished nor abandoned is left to lapse. */
void hf_run_free(hf_run *run);

typedef struct hf_record {
    bool present;
    bool claimed; /* else done */
    bool is_error;
    uint8_t format;
    uint32_t attempt;
    uint64_t lease_left_ms; /* claimed: 0 when its runner is gone */
    uint64_t kept_left_ms;  /* HF_FOREVER if it does not expire */
    uint64_t stored_us;
    hf_slice fingerprint;
    hf_slice value;
} hf_record;

/* Reads the record of `key` (valid during the callback). Errors of the call: as hf_once_begin. */
hf_code hf_record_get(hf_client *client, hf_slice key,
                      void (*cb)(void *data, const hf_record *record, const hf_error *error),
                      void *data, hf_error *error);

/* Forgets the record of `key`, whatever its state; `existed` tells whether there was one. */
hf_code hf_record_forget(hf_client *client, hf_slice key,
                         void (*cb)(void *data, bool existed, const hf_error *error), void *data,
                         hf_error *error);

/* ---------------------------------------------------------------- PostgreSQL: advisory locks
 *
 * PostgreSQL's own locks on numbers (its manual, "Advisory Locks"), for clients of postgres: URLs.
 * They exclude everyone who locks the same number in the same database, whatever program that is.
 * They are no leases: they last for as long as the session with the server that has them, and the
 * server lets go of them when it sees the session end. Here they count as held until 8 s after
 * the sending of the last statement that the server has answered, which is sooner.
 *
 * All of a client's hang on one session, except those that are `dedicated`. So two callers of one
 * client are told apart here: they wait in order, and only the first asks the server.
 */

/* A number, or a pair of them: two spaces that have nothing to do with each other. */
typedef struct hf_pg_id {
    bool pair;
    int64_t number; /* not with `pair` */
    int32_t first;  /* with `pair`, as all that follows */
    int32_t second;
} hf_pg_id;

typedef struct hf_pg_lock hf_pg_lock;

typedef struct hf_pg_lock_options {
    hf_pg_id id;
    bool shared;      /* others that are shared may have it too */
    bool dedicated;   /* on a session of its own, where it waits in the server's queue: it need not
                         ask again and again, and readers do not overtake it */
    uint64_t wait_ms; /* 0: one attempt, none if others of this client wait or hold; HF_FOREVER */
} hf_pg_lock_options;

typedef struct hf_pg_lock_result {
    const hf_error *error; /* NULL: the lock is held */
    bool held_here;        /* on HF_ETIMEDOUT: the holder was a lock of this client */
    uint64_t waited_ms;
} hf_pg_lock_result;

/*
 * Asks for an advisory lock. `acquired` runs once: held, or with an error, of which HF_ETIMEDOUT
 * (the wait ended while others held it), HF_EUNAVAIL and its like (there was no session to be had),
 * HF_ENOTSUP (a pooler lends connections for each transaction: nothing can be kept there; not only
 * for `dedicated`), HF_ECANCELED, HF_ECLOSED. `lost` (may be NULL) runs at most once, in the loop
 * turn in which the session's end was seen, not after a release. Waiting keeps the loop alive;
 * holding does not. Errors of the call itself, after which nothing runs: HF_ENOTSUP (the client is
 * of another store, or this build has no PostgreSQL), HF_EOVERLOAD, HF_EINVAL, HF_ENOMEM,
 * HF_ECLOSED. The handle is the caller's: hf_pg_lock_free.
 */
hf_code hf_pg_lock_acquire(hf_client *client, const hf_pg_lock_options *options,
                           void (*acquired)(void *data, hf_pg_lock *lock,
                                            const hf_pg_lock_result *result),
                           void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                           void *data, hf_pg_lock **out, hf_error *error);

/* Gives up waiting: `acquired` will run with HF_ECANCELED. What the server grants all the same is
 * unlocked at once; a dedicated one is cancelled there. Does nothing once the lock is held. */
void hf_pg_lock_cancel(hf_pg_lock *lock);

/* Exact at any instant, without a round trip, however long the loop has been stuck. Once false, it
 * stays so. */
bool hf_pg_lock_held(hf_pg_lock *lock);

/* Ends the lock: hf_pg_lock_held is false at once, and `lost` will not run any more. HF_OK: `cb`
 * (may be NULL) gets `was_held` true when it is unlocked; an error where that is not certain,
 * since the session ended meanwhile; HF_ELOST where the server says that the session did not have
 * the lock, which nobody but the server's operator can bring about. HF_ELOST of the call: there is
 * nothing to release, it was lost, or released before, or never held; then `cb` does not run. */
hf_code hf_pg_lock_release(hf_pg_lock *lock,
                           void (*cb)(void *data, hf_pg_lock *lock, bool was_held,
                                      const hf_error *error),
                           void *data);

/* Gives the handle back. Waiting ends (no callback will run); a lock still held is released. */
void hf_pg_lock_free(hf_pg_lock *lock);

/* One who holds an advisory lock of the client's database, or waits for it. */
typedef struct hf_pg_holder {
    hf_pg_id id;
    bool shared;
    bool granted;        /* else it waits */
    bool here;           /* its session is one of this client's */
    int32_t pid;         /* of the server's process for its session */
    uint64_t query_ms;   /* since its session began its latest statement; HF_FOREVER: not told */
    uint64_t waiting_ms; /* since it began to wait; HF_FOREVER: it does not, or that is not told */
    char application[64];
} hf_pg_holder;

/* Lists them, by id, those who hold it first (valid during the callback). Also behind a pooler.
 * Those who ask again and again, as locks do that are not dedicated, are not seen while they wait.
 * Errors of the call, after which `cb` does not run: as hf_pg_lock_acquire. */
hf_code hf_pg_holders(hf_client *client,
                      void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                 const hf_error *error),
                      void *data, hf_error *error);

/* ---------------------------------------------------------------- PostgreSQL: statements
 *
 * Statements and transactions of the user's, for clients of postgres: URLs, on sessions of a pool:
 * up to `max` of them, each of which serves one caller at a time, callers in the order in which
 * they came. One that nobody has used for `idleTimeout` is closed. They are apart from the sessions
 * that locks and records live on: a statement of minutes delays no renewal.
 *
 * What the server, the database and the role have set (isolation, time limits, read only) stays as
 * it is there. A session is lent as its last user has left it, but never within a transaction: what
 * SET, LISTEN and the like have done stays with it, so they are for transactions (SET LOCAL).
 *
 * Closing the client lets what was asked before finish, and open transactions, until its time is
 * up; then they are cancelled, with HF_ECLOSED.
 */

typedef struct hf_pg_query hf_pg_query;
typedef struct hf_pg_tx hf_pg_tx;

#define HF_PG_PARAMS_MAX 65535 /* of one statement */

typedef struct hf_pg_param {
    hf_slice value; /* data NULL: SQL's NULL */
    bool binary;    /* PostgreSQL's binary format of the type (of bytea: the bytes); else its text
                       format, without a NUL in it */
} hf_pg_param;

typedef struct hf_pg_statement {
    hf_slice sql; /* one statement, without a NUL in it; its parameters are $1, $2 ... */
    const hf_pg_param *params;
    size_t n_params;
    uint32_t timeout_ms; /* from the call on; then it is cancelled. 0: as long as it takes */
} hf_pg_statement;

typedef struct hf_pg_field {
    hf_slice name;
    uint32_t table; /* its oid; 0: it is no column of a table */
    int32_t column; /* its number there, from 1 */
    uint32_t type;  /* the oid of its type */
    int32_t size;
    int32_t modifier;
} hf_pg_field;

/* What a statement came to; valid during the callback. */
typedef struct hf_pg_rows {
    const hf_pg_field *fields;
    size_t n_fields;
    size_t n_rows;
    int64_t affected; /* rows that it returned, inserted, updated ...; -1: it is not of that kind */
    hf_slice command; /* "UPDATE" */
    const void *native; /* for hf_pg_rows_value */
} hf_pg_rows;

/* A value in PostgreSQL's text format; a NUL follows. Data NULL: SQL's NULL. */
hf_slice hf_pg_rows_value(const hf_pg_rows *rows, size_t row, size_t field);

/* What the server said of an error beyond hf_error, whose message is the server's and whose `state`
 * is the SQLSTATE. Each may be there or not (data NULL); valid during the callback. `detail` and
 * `where` may show values of the user's. */
typedef struct hf_pg_failure {
    hf_slice severity;
    hf_slice detail;
    hf_slice hint;
    hf_slice schema;
    hf_slice table;
    hf_slice column;
    hf_slice data_type;
    hf_slice constraint;
    hf_slice where;
    hf_slice routine;
    int32_t position; /* in the statement, in characters, from 1; 0: not told */
} hf_pg_failure;

/* Runs once for each statement, with `rows` or with `error`, and then, where the server has refused
 * it, `failure`. */
typedef void (*hf_pg_query_cb)(void *data, hf_pg_query *query, const hf_pg_rows *rows,
                               const hf_error *error, const hf_pg_failure *failure);

/*
 * Runs one statement, a transaction of its own. Errors `cb` gets: HF_ESQL (the server refused it,
 * `state` says why; HF_RETRYABLE after a deadlock, a failed serialization or a lock that was not
 * available), HF_EINVAL (it began a transaction, which has been undone), HF_ENOTSUP (COPY),
 * HF_ECANCELED, HF_ETIMEDOUT (its time is up: it has had no effect), HF_EUNAVAIL and what else
 * stands in the way of a session, HF_ECLOSED. Each of the last four with HF_OUTCOME_UNKNOWN where
 * it was sent and the answer never came. Until then it keeps the loop alive. Errors of the call
 * itself, after which nothing runs: HF_ENOTSUP (the client is of another store, or this build has
 * no PostgreSQL), HF_EINVAL, HF_ETOOBIG, HF_EOVERLOAD, HF_ENOMEM, HF_ECLOSED. The handle is the
 * caller's: hf_pg_query_free.
 */
hf_code hf_pg_query_run(hf_client *client, const hf_pg_statement *statement, hf_pg_query_cb cb,
                        void *data, hf_pg_query **out, hf_error *error);

/* Gives up: it leaves the queue, or the server is asked to take it back. `cb` will tell which of
 * the two won, with HF_ECANCELED or with what it came to. A server that answers nothing to that
 * within a second loses the session. Does nothing once `cb` has run. */
void hf_pg_query_cancel(hf_pg_query *query);

/* Gives the handle back. A statement under way is cancelled, and `cb` will not run. */
void hf_pg_query_free(hf_pg_query *query);

typedef enum hf_pg_isolation {
    HF_PG_DEFAULT, /* as the server, the database or the role has it */
    HF_PG_READ_COMMITTED,
    HF_PG_REPEATABLE_READ,
    HF_PG_SERIALIZABLE
} hf_pg_isolation;

typedef struct hf_pg_tx_options {
    hf_pg_isolation isolation;
    bool read_only;
    uint64_t timeout_ms; /* from the call to the end of its commit; HF_FOREVER */
} hf_pg_tx_options;

/* Begins a transaction: `begun` runs once, when it has a session (its BEGIN goes out with its first
 * statement and costs no round trip), or with an error, after which only hf_pg_tx_free is left.
 * Waiting keeps the loop alive, an open transaction does not. Errors and handle: as
 * hf_pg_query_run; hf_pg_tx_free. */
hf_code hf_pg_tx_begin(hf_client *client, const hf_pg_tx_options *options,
                       void (*begun)(void *data, hf_pg_tx *tx, const hf_error *error), void *data,
                       hf_pg_tx **out, hf_error *error);

/*
 * A statement in it, after `begun`. They run in the order of the calls, and those behind the first
 * are sent without waiting for those before; once one has failed, those behind it do too (HF_ESQL,
 * 25P02). What begins or ends transactions is refused (HF_EINVAL); savepoints are not. Nothing of
 * a transaction is unknown before its commit: no HF_OUTCOME_UNKNOWN here. Errors of the call
 * itself: as hf_pg_query_run, and why the transaction has failed, if it has: its time was up, it
 * was cancelled, its connection broke.
 */
hf_code hf_pg_tx_run(hf_pg_tx *tx, const hf_pg_statement *statement, hf_pg_query_cb cb, void *data,
                     hf_pg_query **out, hf_error *error);

/*
 * Ends it, after `begun`, behind the statements that were given before. `cb` (may be NULL) gets an
 * error where it was to be committed and was not: what the server says (HF_ESQL: of a deferred
 * constraint, say; 25P02: a statement had failed, and all was rolled back), or why the transaction
 * has failed, or HF_EUNAVAIL with HF_OUTCOME_UNKNOWN: the connection broke in the commit. Without
 * `commit` it gets one only where the transaction had failed already. Errors of the call, after
 * which `cb` does not run: HF_EINVAL (it has not begun, or is being ended), HF_ECLOSED (with the
 * client).
 */
hf_code hf_pg_tx_end(hf_pg_tx *tx, bool commit,
                     void (*cb)(void *data, hf_pg_tx *tx, const hf_error *error,
                                const hf_pg_failure *failure),
                     void *data);

/* Cancels what it is doing, also its commit (which may win), or its wait for a session; `begun` or
 * `cb` tells. An open one is rolled back at once: what is left is hf_pg_tx_end, which ends with
 * HF_ECANCELED, and hf_pg_tx_free. */
void hf_pg_tx_cancel(hf_pg_tx *tx);

/* Gives the handle back; no callback of the transaction runs any more. If it was not ended, it is
 * cancelled and rolled back. */
void hf_pg_tx_free(hf_pg_tx *tx);

#ifdef __cplusplus
}
#endif

#endif /* HOLDFAST_H */
