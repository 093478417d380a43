/*
 * A Redis deployment as its users see it: one server, the master that Sentinels name, or a
 * Cluster. Commands go in, answers come out, in order for each server; connections come and go
 * underneath. It knows scripts and slots, and nothing of locks.
 *
 * One loop, its thread only. Nothing here calls back inside a call. The memory of hiredis and
 * OpenSSL is theirs; all other comes from the allocator given.
 *
 * Connections: one for commands to each server in use, and one for messages once hf__redis_listen
 * was called. What is sent in one turn of the loop goes out in one write per connection.
 *
 * A call waits while a connection is being made, and fails with the error of the attempt that
 * failed (HF_RETRYABLE, without effect). One that was sent and whose connection broke, or whose
 * answer did not come in time, fails HF_EUNAVAIL with HF_OUTCOME_UNKNOWN. Then the connection is
 * given up: an answer that comes later is never seen.
 */
#ifndef HF_DRIVER_REDIS_REDIS_H
#define HF_DRIVER_REDIS_REDIS_H

#include "core/store.h"
#include "driver/redis/reply.h"
#include "driver/redis/resp.h"

typedef struct hf__redis hf__redis;
typedef struct hf__redis_call hf__redis_call;

/* What a connection has learned of its server when it was made. */
typedef struct hf__redis_server {
    char name[128];  /* "10.0.0.1:6379", for messages */
    char run_id[41]; /* of the server's process; "" if it would not tell */
    char replid[41]; /* of its data's history, another after each failover; "" likewise */
    bool evicts;     /* its policy may evict keys when its memory is full */
    char policy[24]; /* the name of that policy */
} hf__redis_server;

/* A server-side script. The text is constant and outlives all; the rest is set by
 * hf__redis_script_init. Read-only afterwards. */
typedef struct hf__redis_script {
    const char *text;
    size_t len;
    char sha[41]; /* SHA-1 of the text, in hexadecimal */
    uint8_t id;   /* 0 to HF__REDIS_SCRIPTS_MAX - 1, different for each script of a deployment */
} hf__redis_script;

#define HF__REDIS_SCRIPTS_MAX 32
#define HF__REDIS_REDIRECTS_MAX 8 /* how often a call is sent on or again before it fails */

void hf__redis_script_init(hf__redis_script *script, uint8_t id, const char *text);

#define HF__REDIS_SLOTS 16384    /* of a Cluster */
#define HF__REDIS_ANY UINT16_MAX /* a slot: any server will do */

/*
 * A command on its way. Owned by who sends it, in place until `done`. Zero it, set the first
 * group, and send it; it may be used again once `done` has begun.
 */
struct hf__redis_call {
    /* Writes exactly one command, with what is known of the server it goes to. May run again, for
     * another server or connection, if the first had no effect. An error other than HF_OK ends the
     * call with it. */
    hf_code (*encode)(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                      hf_error *error);
    /* Runs once. `error` NULL: `reply` is the answer, and no error. Both valid during the call. */
    void (*done)(hf__redis_call *call, const hf__reply *reply, const hf_error *error);
    void *data;
    uint16_t slot;       /* hf__redis_slot of its keys, or HF__REDIS_ANY; only a Cluster looks */
    uint16_t server;     /* 1 to hf__redis_servers(): that one whatever the slot; 0: by slot */
    uint32_t timeout_ms; /* from its sending, if less than the deployment's; 0: that one */
    const hf__redis_script *script; /* written by hf__redis_script_begin; NULL: none */
    /* It rests on server->run_id or replid: where these turn out to have been another server's past
     * when it was sent, it fails, HF_OUTCOME_UNKNOWN. */
    bool by_history;

    /* Drawn by the driver for each sending. An answer of a script must be an array that begins with
     * it (as an integer), or the answers have come out of step: HF_EPROTO, and a new connection.
     * 1 to 2^31. */
    uint32_t nonce;

    uint64_t connection; /* a number of the one that it was sent on last */

    /* the driver's */
    hf__node node;
    void *conn;
    uint64_t due_ms;
    uint8_t redirects;
    bool sent;     /* its command may have had an effect */
    bool stale;    /* by_history, and that is another now */
    bool asking;   /* it goes where ASK has sent it, and says so */
    bool prefixed; /* the answer to that comes first */
    bool whole;    /* the script's text is sent, not its hash */
};

/* Within `encode`: the head of an EVALSHA (or EVAL, where the server does not know the script yet).
 * `n_keys` words follow, then `n_args`, of which the first must be call->nonce. */
void hf__redis_script_begin(hf__redis_call *call, hf__buffer *out, uint32_t n_keys,
                            uint32_t n_args);

typedef struct hf__redis_events {
    /* A message came on the channel listened to. */
    void (*message)(void *data, hf_slice payload);
    /* The channel is (again) listened to: what was published before may have been missed. */
    void (*listening)(void *data);
    /* A new connection to a server, for warnings about it. May be NULL. */
    void (*connected)(void *data, const hf__redis_server *server);
    /* A connection for commands is over, or an attempt to make one has failed. May be NULL. */
    void (*down)(void *data, const hf_error *error);
    void *data;
} hf__redis_events;

/* Reads the URL and settings of `env`; no I/O. Errors: HF_EINVAL, HF_ENOMEM, HF_ENOTSUP, HF_EIO
 * (a certificate that cannot be used). */
hf_code hf__redis_new(const hf__store_env *env, const hf__redis_events *events, hf__redis **out,
                      hf_error *error);
/* Names of the URL parameters and settings it reads, separated by blanks. */
#define HF__REDIS_PARAMS                                                                    \
    "db username password connectTimeout commandTimeout sentinelUsername sentinelPassword " \
    "tls tlsCa tlsRoots tlsCert tlsKey tlsServername tlsRejectUnauthorized"

void hf__redis_send(hf__redis *redis, hf__redis_call *call);
/* Takes a call back that has not been sent: true, and `done` will not run. */
bool hf__redis_cancel(hf__redis *redis, hf__redis_call *call);
/* From now on keeps a connection that listens to `channel` (copied). Once. False: memory is out;
 * try again. */
bool hf__redis_listen(hf__redis *redis, hf_slice channel);
/* Whether the channel is listened to now. */
bool hf__redis_hears(const hf__redis *redis);
/* Whether keys have slots, and which. */
bool hf__redis_is_cluster(const hf__redis *redis);
uint16_t hf__redis_slot(hf_slice key);
/* The part of a key between its first { and the } after it; empty where there is none. */
hf_slice hf__redis_hash_tag(hf_slice key);
/* How many servers hold keys (1 but for a Cluster), as known now. */
uint16_t hf__redis_servers(const hf__redis *redis);
/* No call is under way. Closes every connection, then calls `closed`; nothing runs after that. */
void hf__redis_close(hf__redis *redis, void (*closed)(void *data), void *data);
/* Closed, or never used. */
void hf__redis_free(hf__redis *redis);

#endif
