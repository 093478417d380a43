/*
 * A Redis store as a node of a quorum: how store/quorum.c uses one beyond what every store can do.
 * As a store's functions: one loop, its thread, each op ends once and never inside the call.
 *
 * The quorum's marker lies beside the leases of the node, under the prefix and "\0quorum"
 * (store/quorum-standing.h says what for).
 */
#ifndef HF_STORE_REDIS_MEMBER_H
#define HF_STORE_REDIS_MEMBER_H

#include "core/store.h"
#include "driver/redis/redis.h"
#include "store/quorum-standing.h"

/* What a node's instance is given, and tells. The owner's, in place until the instance is freed. */
typedef struct hf__redis_member {
    char marker[HF__MARKER_MAX + 1]; /* that its votes must find, as it was read */
    size_t marker_len;
    uint32_t patience_ms; /* an answer that takes longer ends the connection */
    void (*connected)(void *data, const hf__redis_server *server);
    void (*down)(void *data, const hf_error *error);
    void *data;
} hf__redis_member;

/* What comes back beside the results of a take or keep: its op's `owner`, which who submits it must
 * set. A take's `fence_in` is what a counter that the node has lost goes on from; 0: from its own
 * clock. */
typedef struct hf__redis_vote {
    uint64_t server_us; /* the server's clock */
    bool is_void;       /* the marker is another one: refused, and without a vote */
    bool is_shared;     /* of a keep that was applied: others may have the lease too */
} hf__redis_vote;

/* An errand about the marker. The caller sets `op` by hf_op_init (HF_GET), and the first group. */
typedef struct hf__redis_mark {
    hf_op op;
    hf__errand errand;
    uint64_t max_ttl_ms; /* FOUND, RAISE, BAR: in which it is how long there is no vote, too */
    const char *run_id;  /* the same: of the run that it was decided for; borrowed */
    /* out, where op.error is none */
    char text[HF__MARKER_MAX + 1]; /* the marker as it is now */
    size_t len;
    uint64_t server_us;
} hf__redis_mark;

/* Before the first use of the instance, which must be one of a single server's or of Sentinels'.
 * False: it is a Cluster. */
bool hf__redis_join(hf_store *store, const hf__redis_member *member);
/* Carries out an errand: mark->op ends, `applied` unless there is an error. */
void hf__redis_errand(hf_store *store, hf__redis_mark *mark);
/* Writes op->fence_in for its keys, if op->token holds them all and the marker is right: `applied`,
 * or HF_REFUSED_OWNER. */
void hf__redis_raise(hf_store *store, hf_op *op);

#endif
