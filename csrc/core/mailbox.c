#include "core/mailbox.h"

static void on_async(uv_async_t *async) {
    hf__mailbox *mailbox = hf__of(async, hf__mailbox, async);
    hf__scope_enter(mailbox->scope);
    if (mailbox->wake != NULL)
        mailbox->wake(mailbox);
    else
        hf__mailbox_read(mailbox);
    hf__scope_leave(mailbox->scope);
}

int hf__mailbox_init(hf__mailbox *mailbox, uv_loop_t *loop, hf__scope *scope,
                     void (*wake)(hf__mailbox *mailbox)) {
    *mailbox = (hf__mailbox){.wake_ns = HF_FOREVER, .wake = wake, .scope = scope};
    hf__list_init(&mailbox->queue);
    int rc = uv_mutex_init(&mailbox->mutex);
    if (rc != 0) return rc;
    rc = uv_async_init(loop, &mailbox->async, on_async);
    if (rc != 0) {
        uv_mutex_destroy(&mailbox->mutex);
        return rc;
    }
    uv_unref((uv_handle_t *)&mailbox->async);
    return 0;
}

static void on_closed(uv_handle_t *handle) {
    hf__mailbox *mailbox = hf__of(handle, hf__mailbox, async);
    uv_mutex_destroy(&mailbox->mutex);
    if (mailbox->closed != NULL) mailbox->closed(mailbox->closed_data);
}

void hf__mailbox_close(hf__mailbox *mailbox, void (*closed)(void *data), void *data) {
    mailbox->closed = closed;
    mailbox->closed_data = data;
    uv_close((uv_handle_t *)&mailbox->async, on_closed);
}

void hf__mailbox_post(hf__mailbox *mailbox, hf__msg *msg, uint32_t bits, uint64_t due_ns) {
    uv_mutex_lock(&mailbox->mutex);
    if (msg->bits == 0) hf__list_push(&mailbox->queue, &msg->node);
    msg->bits |= bits;
    bool signal = mailbox->wake_ns > due_ns;
    if (signal && mailbox->wake != NULL)
        mailbox->wake_ns = 0; /* one signal is enough until it has been heard */
    uv_mutex_unlock(&mailbox->mutex);
    if (signal) uv_async_send(&mailbox->async);
}

bool hf__mailbox_recall(hf__mailbox *mailbox, hf__msg *msg, uint32_t bits) {
    uv_mutex_lock(&mailbox->mutex);
    bool found = (msg->bits & bits) != 0;
    if (found) {
        hf__list_remove(&msg->node);
        msg->bits = 0;
    }
    uv_mutex_unlock(&mailbox->mutex);
    return found;
}

void hf__mailbox_read(hf__mailbox *mailbox) {
    for (;;) {
        uv_mutex_lock(&mailbox->mutex);
        hf__node *node = hf__list_pop(&mailbox->queue);
        hf__msg *msg = node == NULL ? NULL : hf__of(node, hf__msg, node);
        uint32_t bits = 0;
        if (msg != NULL) {
            bits = msg->bits;
            msg->bits = 0;
        }
        uv_mutex_unlock(&mailbox->mutex);
        if (msg == NULL) return;
        msg->run(msg, bits);
    }
}

bool hf__mailbox_sleep(hf__mailbox *mailbox, uint64_t wake_ns) {
    uv_mutex_lock(&mailbox->mutex);
    bool empty = hf__list_empty(&mailbox->queue);
    if (empty) mailbox->wake_ns = wake_ns;
    uv_mutex_unlock(&mailbox->mutex);
    return empty;
}
