/*
 * One connection on a loop: bytes to a server, with or without TLS, and answers from it. It knows
 * nothing of what is asked.
 *
 * Events run from the loop, or from within hf__socket_flush and hf__socket_read; never from within
 * hf__socket_connect and hf__socket_close. An event may close the socket.
 */
#ifndef HF_DRIVER_REDIS_SOCKET_H
#define HF_DRIVER_REDIS_SOCKET_H

#include "core/op.h"
#include "driver/address.h"
#include "driver/redis/reply.h"
#include "driver/redis/tls.h"
#include "util/buffer.h"

#include <sys/socket.h>
#include <uv.h>

typedef struct hf__socket hf__socket;

typedef struct hf__socket_events {
    void (*opened)(hf__socket *s); /* commands can be written */
    void (*reply)(hf__socket *s, const hf__reply *reply);
    /* The connection is of no more use. Once, and nothing follows it; close the socket. */
    void (*failed)(hf__socket *s, const hf_error *error);
    void (*closed)(hf__socket *s); /* follows hf__socket_close */
} hf__socket_events;

struct hf__socket {
    uv_poll_t poll;
    const hf__socket_events *events;
    const hf_allocator *allocator;
    hf__scope *scope;
    const char *name; /* of the server, for messages; the owner's */
    enum {
        HF__SOCKET_IDLE,
        HF__SOCKET_CONNECTING,
        HF__SOCKET_SHAKING,
        HF__SOCKET_OPEN,
        HF__SOCKET_FAILED,
        HF__SOCKET_CLOSING
    } state;
    bool listening; /* the poll handle waits for answers */
    bool want_write;
    int fd;
    hf__tls *tls;
    hf__reply_reader *reader;
    hf__buffer out; /* commands that have not been given to the system */
    size_t sent;    /* of these, written */
};

/* `name` stays in place as long as the socket. Events from the loop run within `scope`. */
void hf__socket_init(hf__socket *s, const hf__socket_events *events, const char *name,
                     const hf_allocator *allocator, hf__scope *scope);
/* Begins to connect; `tls` NULL: plain. Then `opened` or `failed` follows. False, with `error` set,
 * if it could not begin; the socket is then as it was. */
bool hf__socket_connect(hf__socket *s, uv_loop_t *loop, const hf__peer *peer, hf__tls_context *tls,
                        const char *host, hf_error *error);
/* Writes what has been put in `out`, as far as the system takes it now; the rest follows by itself.
 * `opened` has run. */
void hf__socket_flush(hf__socket *s);
/* Takes in what has already come. */
void hf__socket_read(hf__socket *s);
/* Ends the connection; `closed` follows. Not idle. */
void hf__socket_close(hf__socket *s);

#endif
