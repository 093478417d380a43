/*
 * Inside of a deployment: its nodes, and how calls find theirs. For the files of the driver only.
 *
 * A node is one server, or one role of a server, with the session that there is with it now: it
 * makes a new one when the last has broken, with a pause that grows. Calls for it wait meanwhile.
 */
#ifndef HF_DRIVER_REDIS_DEPLOYMENT_H
#define HF_DRIVER_REDIS_DEPLOYMENT_H

#include "driver/redis/session.h"

#define HF__REDIS_NODES_MAX 1024
#define HF__REDIS_CALLS_MAX 65536 /* under way in one deployment */

typedef struct hf__redis_node hf__redis_node;
typedef struct hf__sentinel hf__sentinel;
typedef struct hf__cluster hf__cluster;

struct hf__redis_node {
    hf__redis *redis;
    hf__address address;
    hf__session_kind kind;
    hf__session *session; /* NULL: none */
    hf__sentinel *search; /* for the master's address, under way; NULL: none */
    hf__node waiting;     /* calls */
    uv_timer_t retry;
    uint32_t tries; /* that failed in a row */
    uint64_t ready_ms;
    bool retired; /* its timer is closed, or about to be */
};

struct hf__redis {
    hf__store_env env;
    hf__redis_events events;
    hf__redis_config config;
    hf__session_env session_env;
    hf__session_env sentinel_env;
    uint64_t refused_password; /* session_env.refused_password */
    char channel[256];
    uv_idle_t idle; /* active while there is something to flush or to refuse */
    hf__node dirty; /* sessions */
    hf__node refused;
    hf__redis_node *main;     /* the one server; NULL in a cluster */
    hf__redis_node *listener; /* NULL until there is one */
    hf__cluster *cluster;     /* NULL unless it is one */
    uint32_t sentinel;        /* the host that answered last */
    uint32_t n_calls;
    uint32_t handles; /* of it and of all that it made, to be closed before it is gone */
    bool opened;      /* it has handles */
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

/* ---- nodes (redis.c) */

/* NULL when memory is out. */
hf__redis_node *hf__redis_node_new(hf__redis *redis, hf__session_kind kind);
/* Ends its session; its calls are gone already. */
void hf__redis_node_retire(hf__redis_node *node);
/* Sees to it that there is a session, or soon will be. */
void hf__redis_node_want(hf__redis_node *node);
/* Gives the node a call; it waits if there is no session. */
void hf__redis_node_send(hf__redis_node *node, hf__redis_call *call);
bool hf__redis_node_ready(const hf__redis_node *node);
/* Flushes a session that is ready, in the loop's next turn. */
void hf__redis_flush_later(hf__redis *redis, hf__session *session);
/* The address of the node is known (again), or not to be had. */
void hf__redis_node_found(hf__redis_node *node, const hf__address *address);
void hf__redis_node_failed(hf__redis_node *node, const hf_error *error);

/* Ends a call. */
void hf__redis_end(hf__redis *redis, hf__redis_call *call, const hf__reply *reply,
                   const hf_error *error);
/* A handle more, or one less: with the last a deployment that is closed is gone. */
void hf__redis_hold(hf__redis *redis);
void hf__redis_let_go(hf__redis *redis);

/* ---- Sentinel (sentinel.c) */

extern const hf__session_events hf__sentinel_events;

/* Asks the Sentinels, one after another, where the master is, and tells `node`: found or failed,
 * not inside this call. NULL when memory is out. */
hf__sentinel *hf__sentinel_ask(hf__redis_node *node);
/* Stops asking; nothing is told. */
void hf__sentinel_stop(hf__sentinel *search);

/* ---- Cluster (cluster.c) */

hf__cluster *hf__cluster_new(hf__redis *redis); /* NULL when memory is out */
/* Connects to the first of the hosts, and asks for the map. */
void hf__cluster_open(hf__cluster *cluster);
/* Sends a call to where its slot is; it waits while that is not known. */
void hf__cluster_send(hf__cluster *cluster, hf__redis_call *call);
/* An error reply of a server: true if the call has been sent on. */
bool hf__cluster_redirect(hf__cluster *cluster, hf__redis_node *from, hf__redis_call *call,
                          hf_slice text);
/* A node became ready, or broke. */
void hf__cluster_ready(hf__cluster *cluster);
void hf__cluster_down(hf__cluster *cluster);
/* Where a listener may connect to; false: nowhere yet. */
bool hf__cluster_any(const hf__cluster *cluster, hf__address *address);
uint16_t hf__cluster_servers(const hf__cluster *cluster);
void hf__cluster_retire(hf__cluster *cluster);
void hf__cluster_free(hf__cluster *cluster);

#endif
