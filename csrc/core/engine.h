/*
 * The engine: what the clients of one loop share. Loop's thread only.
 */
#ifndef HF_CORE_ENGINE_H
#define HF_CORE_ENGINE_H

#include "core/keeper.h"

struct hf_engine {
    uv_loop_t *loop;
    hf_allocator allocator;
    hf_clock clock;
    char boot_id[64];
    char who[HF_WHO_MAX];
    hf__scope scope;
    void (*event)(void *data, const hf_event *event);
    void *event_data;

    hf__timers timers;
    hf__mailbox mailbox; /* from the keeper */
    hf__keeper *keeper;  /* NULL until needed */
    _Atomic bool renewals;
    uint32_t pending;   /* what keeps the loop alive */
    hf_token spare[32]; /* random, for the next that are wanted: one system call for all of them */
    uint32_t n_spare;

    hf__node clients; /* of hf__member */
    bool closing;
    bool exited; /* something was handed over at the end of the process */
    hf__timer gone_on;
    int open_handles;
    void (*closed)(void *data);
    void *closed_data;
};

/* What a client is to its engine. */
typedef struct hf__member {
    hf__node node;
    void (*close)(struct hf__member *member); /* at once; ends in hf__engine_remove */
    void (*exit)(struct hf__member *member);  /* hands over what is held or on its way there */
} hf__member;

/* Pending work keeps the loop alive. */
void hf__engine_ref(hf_engine *engine);
void hf__engine_unref(hf_engine *engine);

void hf__engine_add(hf_engine *engine, hf__member *member);
/* Begins the end of the engine, when it is closing and this was the last; it is freed in a later
 * turn. */
void hf__engine_remove(hf_engine *engine, hf__member *member);

/* As hf_token_random, for what takes many. */
bool hf__engine_token(hf_engine *engine, hf_token *token);

/* Starts the keeper if it is not there. */
hf_code hf__engine_need_keeper(hf_engine *engine, hf_error *error);

/* The lease was taken with `ttl_ms`, first sent at `sent_ns`: sets its deadline, watches over
 * it, and has it renewed. False: the answer came too late, it was never held. `need_keeper` has
 * succeeded before for one that renews. */
bool hf__engine_start(hf_engine *engine, hf__lease *lease, uint64_t ttl_ms, uint64_t sent_ns);
/* The owner ends the lease. True: it was held. After this its owner hears of no loss. If
 * lease->joined is still true, `left` follows, and the lease must stay in place until then.
 * With `drop` the keeper drops it too (if it was joined). */
bool hf__engine_end(hf_engine *engine, hf__lease *lease, bool drop);
/* As hf__keeper_extend; starts the keeper if need be. HF_ELOST: the keeper lets the lease go. */
hf_code hf__engine_extend(hf_engine *engine, hf__lease *lease, hf__extend *extend, hf_error *error);

/* The deadline of a lease that was started has moved, perhaps closer: the watch over it follows. */
void hf__engine_look(hf_engine *engine, hf__lease *lease);
/* For the end of the process: ends every lease of the link, and has the keeper drop it. */
void hf__engine_part(hf_engine *engine, hf__link *link);
/* For the end of the process: the keeper drops the lease, which has been ended or never started,
 * at the store; `left` follows. False if there can be no keeper: then it lapses. */
bool hf__engine_hand_over(hf_engine *engine, hf__lease *lease);

void hf__engine_warn(hf_engine *engine, hf_client *client, const hf_error *error);

#endif
