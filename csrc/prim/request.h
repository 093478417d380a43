/*
 * One operation on an entry, tried again while its failure may pass: what kv.c and record
 * functions stand on.
 */
#ifndef HF_PRIM_REQUEST_H
#define HF_PRIM_REQUEST_H

#include "prim/client.h"

typedef struct hf__request hf__request;

/* Whether a failed op may be sent once more as it is. */
typedef enum hf__again {
    HF__AGAIN_NEVER, /* an add: it might count twice */
    HF__AGAIN_CLEAN, /* after a failure that left no doubt */
    HF__AGAIN_ALWAYS /* also after one that did: the op is idempotent by its token */
} hf__again;

struct hf__request {
    hf__waiter waiter;
    hf_client *client;
    hf_op *op;
    void (*done)(hf__request *request); /* the op has its result; the request is free */
    void *data;
    hf__timer timer;
    uint64_t until_ns;
    uint32_t tries;
    hf__again again;
    bool in_doubt;    /* an earlier try may have landed, or may yet */
    hf_op_cb op_done; /* the op's own, put back before `done` */
    void *op_data;
};

/* Sends `op` and goes on until it has a result, the failure is final, or `until_ns` has come (a
 * last try then is not cut off). A failure is HF_OUTCOME_UNKNOWN if that of any try was. `request`
 * stays in place until `done`. Keeps the loop alive. */
void hf__request_start(hf__request *request, hf_client *client, hf_op *op, hf__again again,
                       uint64_t until_ns, void (*done)(hf__request *request), void *data);

#endif
