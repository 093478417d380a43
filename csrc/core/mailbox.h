/*
 * How the loop and the keeper talk: a queue of messages one way. A message is part of what it is
 * about, so sending cannot fail; it carries bits that add up until it is read.
 */
#ifndef HF_CORE_MAILBOX_H
#define HF_CORE_MAILBOX_H

#include "core/op.h"
#include "util/list.h"

#include <uv.h>

typedef struct hf__msg {
    hf__node node;
    void (*run)(struct hf__msg *msg, uint32_t bits); /* on the receiver's thread */
    uint32_t bits;                                   /* 0: not queued */
} hf__msg;

typedef struct hf__mailbox {
    uv_mutex_t mutex;
    hf__node queue;
    uint64_t wake_ns; /* the receiver looks by itself at this time, or before it sleeps (0) */
    uv_async_t async;
    void (*wake)(struct hf__mailbox *mailbox);
    hf__scope *scope;
    void (*closed)(void *data);
    void *closed_data;
} hf__mailbox;

static inline void hf__msg_init(hf__msg *msg, void (*run)(hf__msg *msg, uint32_t bits)) {
    hf__list_init(&msg->node);
    msg->run = run;
    msg->bits = 0;
}

/* On the receiver's thread. `wake` runs there when something came; NULL: it is read at once. The
 * handle is unreferenced. 0 or a negative errno. */
int hf__mailbox_init(hf__mailbox *mailbox, uv_loop_t *loop, hf__scope *scope,
                     void (*wake)(hf__mailbox *mailbox));
/* On the receiver's thread; nobody posts any more. */
void hf__mailbox_close(hf__mailbox *mailbox, void (*closed)(void *data), void *data);

/* Any thread. The receiver will have read it by `due_ns` (0: at once). The message stays in
 * place until its `run` has been called. */
void hf__mailbox_post(hf__mailbox *mailbox, hf__msg *msg, uint32_t bits, uint64_t due_ns);

/* Takes a message back that has not been read and carries `bits`. False: it has been read, or is
 * being read, or was never sent. */
bool hf__mailbox_recall(hf__mailbox *mailbox, hf__msg *msg, uint32_t bits);

/* The receiver: runs every message there is. */
void hf__mailbox_read(hf__mailbox *mailbox);

/* The receiver is about to sleep until `wake_ns` (0: is awake and will read again). False if
 * there is something to read first. */
bool hf__mailbox_sleep(hf__mailbox *mailbox, uint64_t wake_ns);

#endif
