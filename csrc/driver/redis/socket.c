#include "driver/redis/socket.h"

#include "driver/redis/error.h"
#include "util/list.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 << 10,
    READS_MAX = 8,           /* before other handles of the loop get their turn */
    OUT_KEEP_BYTES = 1 << 18 /* a buffer that has grown beyond is given back */
};

/* When a silent peer is asked whether it is there, and given up (tcp(7)), in seconds. */
#define KEEP_IDLE_S 15
#define KEEP_INTERVAL_S 5
#define KEEP_COUNT 3
#define USER_TIMEOUT_MS 20000

static void fail(hf__socket *s, const hf_error *error) {
    s->state = HF__SOCKET_FAILED;
    uv_poll_stop(&s->poll);
    s->events->failed(s, error);
}

static void fail_errno(hf__socket *s, int code) {
    hf_error error;

    hf__redis_unreachable(&error, s->name, strerror(code));
    error.native = code;
    fail(s, &error);
}

void hf__socket_init(hf__socket *s, const hf__socket_events *events, const char *name,
                     const hf_allocator *allocator, hf__scope *scope) {
    memset(s, 0, sizeof *s);
    s->events = events;
    s->name = name;
    s->allocator = allocator;
    s->scope = scope;
    s->fd = -1;
    hf__buffer_init(&s->out, allocator);
}

static void free_parts(hf__socket *s) {
    hf__reply_reader_free(s->reader);
    s->reader = NULL;
    hf__tls_free(s->tls);
    s->tls = NULL;
    hf__buffer_fini(&s->out);
    hf__buffer_init(&s->out, s->allocator);
    s->sent = 0;
    s->listening = false;
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

/* ---------------------------------------------------------------- out */

static void on_poll(uv_poll_t *poll, int status, int events);

/* Asking again for the same would cost a system call each time. */
static void listen_for(hf__socket *s, bool writable) {
    if (s->listening && s->want_write == writable) return;
    s->listening = true;
    s->want_write = writable;
    uv_poll_start(&s->poll, UV_READABLE | (writable ? UV_WRITABLE : 0), on_poll);
}

/* Writes once. 1: all of it; 0: the system takes no more now; -1: errno says why not. */
static int write_some(hf__socket *s, const char *data, size_t len, size_t *written) {
    ssize_t n;

    do
        n = send(s->fd, data, len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    *written = n > 0 ? (size_t)n : 0;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    return (size_t)n == len ? 1 : 0;
}

static int write_plain(hf__socket *s) {
    size_t written;
    int status;

    if (s->sent == s->out.len) return 1;
    status = write_some(s, s->out.data + s->sent, s->out.len - s->sent, &written);
    s->sent += written;
    if (status == 1) {
        s->sent = s->out.len = 0;
        if (s->out.cap > OUT_KEEP_BYTES) {
            hf__buffer_fini(&s->out);
            hf__buffer_init(&s->out, s->allocator);
        }
    } else if (s->sent >= s->out.len - s->sent) {
        /* A server that is always behind a little must not make it grow for ever. */
        s->out.len -= s->sent;
        memmove(s->out.data, s->out.data + s->sent, s->out.len);
        s->sent = 0;
    }
    return status;
}

static int write_tls(hf__socket *s) {
    hf_slice output;
    size_t written;
    int status = 1;

    while (status == 1 && (output = hf__tls_output(s->tls)).len > 0) {
        status = write_some(s, output.data, output.len, &written);
        hf__tls_sent(s->tls, written);
    }
    return status;
}

/* False: the connection has failed. */
static bool write_out(hf__socket *s) {
    int status = s->tls != NULL ? write_tls(s) : write_plain(s);
    int code = errno;

    if (status >= 0) {
        listen_for(s, status == 0);
        return true;
    }
    /* A server that hangs up has often said why just before. */
    if (s->state == HF__SOCKET_OPEN) hf__socket_read(s);
    if (s->state != HF__SOCKET_FAILED && s->state != HF__SOCKET_CLOSING) fail_errno(s, code);
    return false;
}

void hf__socket_flush(hf__socket *s) {
    hf_error error;

    if (s->state != HF__SOCKET_OPEN) return;
    if (s->out.failed) {
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
        fail(s, &error);
        return;
    }
    if (s->tls != NULL && s->out.len > 0) {
        if (!hf__tls_write(s->tls, s->out.data, s->out.len, &error)) {
            fail(s, &error);
            return;
        }
        s->out.len = 0;
    }
    write_out(s);
}

/* ---------------------------------------------------------------- in */

static bool is_live(const hf__socket *s) {
    return s->state != HF__SOCKET_FAILED && s->state != HF__SOCKET_CLOSING;
}

/* Plain bytes. False: the socket has failed, or was closed. */
static bool take_in(hf__socket *s, const char *data, size_t len) {
    const hf__reply *reply;
    hf_error error;
    int status = -1;

    if (hf__reply_feed(s->reader, data, len, &error)) {
        while ((status = hf__reply_next(s->reader, &reply, &error)) == 1) {
            s->events->reply(s, reply);
            if (!is_live(s)) return false;
        }
    }
    if (status < 0) fail(s, &error);
    return status == 0;
}

static bool shake_hands(hf__socket *s) {
    hf_error error;

    if (hf__tls_handshake(s->tls, &error)) {
        s->state = HF__SOCKET_OPEN;
        if (!write_out(s)) return false;
        s->events->opened(s);
        return is_live(s);
    }
    if (error.code == HF_OK) return write_out(s);
    /* What is left to say is the alert that tells the server why. */
    (void)write_tls(s);
    fail(s, &error);
    return false;
}

static bool take_in_tls(hf__socket *s, const char *data, size_t len) {
    char plain[READ_BYTES / 4];
    hf_error error;
    int n;

    if (!hf__tls_receive(s->tls, data, len)) {
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
        fail(s, &error);
        return false;
    }
    if (s->state == HF__SOCKET_SHAKING && !shake_hands(s)) return false;
    if (s->state == HF__SOCKET_SHAKING) return true;
    while ((n = hf__tls_read(s->tls, plain, sizeof plain, &error)) > 0) {
        if (!take_in(s, plain, (size_t)n)) return false;
    }
    if (n < 0) {
        fail(s, &error);
        return false;
    }
    return hf__tls_output(s->tls).len == 0 || write_out(s);
}

void hf__socket_read(hf__socket *s) {
    char data[READ_BYTES];

    for (int i = 0; i < READS_MAX && is_live(s); i++) {
        ssize_t n = recv(s->fd, data, sizeof data, 0);
        hf_error error;

        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n < 0) {
            fail_errno(s, errno);
            return;
        }
        if (n == 0) {
            hf__redis_unreachable(&error, s->name, "it has closed the connection");
            fail(s, &error);
            return;
        }
        if (!(s->tls != NULL ? take_in_tls(s, data, (size_t)n) : take_in(s, data, (size_t)n)))
            return;
        if ((size_t)n < sizeof data) return;
    }
}

/* ---------------------------------------------------------------- life */

static void on_connected(hf__socket *s) {
    int code = 0;
    socklen_t size = sizeof code;

    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0) code = errno;
    if (code != 0) {
        fail_errno(s, code);
        return;
    }
    if (s->tls != NULL) {
        s->state = HF__SOCKET_SHAKING;
        shake_hands(s);
        return;
    }
    s->state = HF__SOCKET_OPEN;
    listen_for(s, false);
    s->events->opened(s);
}

static void on_ready(hf__socket *s, int events) {
    if (s->state == HF__SOCKET_CONNECTING) {
        on_connected(s);
        return;
    }
    if ((events & UV_WRITABLE) != 0 && !write_out(s)) return;
    if ((events & UV_READABLE) != 0) hf__socket_read(s);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    hf__socket *s = hf__of(poll, hf__socket, poll);

    hf__scope_enter(s->scope);
    on_ready(s, status < 0 ? UV_READABLE : events); /* reading tells what is wrong */
    hf__scope_leave(s->scope);
}

static int open_socket(const hf__peer *peer) {
    int family = peer->address.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    const int idle = KEEP_IDLE_S;
    const int interval = KEEP_INTERVAL_S;
    const int count = KEEP_COUNT;
    const unsigned timeout = USER_TIMEOUT_MS;

    if (fd < 0 || family == AF_UNIX) return fd;
    /* Where one of these is unknown, the timeout of commands is what is left. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
    return fd;
}

static bool begin(hf__socket *s, uv_loop_t *loop, const hf__peer *peer, hf_error *error) {
    int status;

    s->fd = open_socket(peer);
    if (s->fd < 0 || (connect(s->fd, (const struct sockaddr *)&peer->address, peer->len) != 0 &&
                      errno != EINPROGRESS)) {
        int code = errno;
        hf__redis_unreachable(error, s->name, strerror(code));
        error->native = code;
        return false;
    }
    status = uv_poll_init(loop, &s->poll, s->fd);
    if (status != 0) {
        hf__redis_unreachable(error, s->name, uv_strerror(status));
        return false;
    }
    uv_unref((uv_handle_t *)&s->poll);
    return true;
}

bool hf__socket_connect(hf__socket *s, uv_loop_t *loop, const hf__peer *peer, hf__tls_context *tls,
                        const char *host, hf_error *error) {
    assert(s->state == HF__SOCKET_IDLE);
    s->reader = hf__reply_reader_new(s->allocator);
    if (s->reader != NULL && tls != NULL) s->tls = hf__tls_new(tls, host);
    if (s->reader == NULL || (tls != NULL && s->tls == NULL)) {
        hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
        free_parts(s);
        return false;
    }
    if (!begin(s, loop, peer, error)) {
        free_parts(s);
        return false;
    }
    s->state = HF__SOCKET_CONNECTING;
    uv_poll_start(&s->poll, UV_WRITABLE, on_poll);
    return true;
}

static void on_closed(uv_handle_t *handle) {
    hf__socket *s = hf__of(handle, hf__socket, poll);

    s->state = HF__SOCKET_IDLE;
    s->events->closed(s);
}

void hf__socket_close(hf__socket *s) {
    assert(s->state != HF__SOCKET_IDLE && s->state != HF__SOCKET_CLOSING);
    s->state = HF__SOCKET_CLOSING;
    uv_close((uv_handle_t *)&s->poll, on_closed);
    free_parts(s);
}
