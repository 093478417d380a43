#include "support-redis-peer.h"

#include "harness.h"
#include "util/alloc.h"
#include "util/clock.h"
#include "util/url.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct writing {
    uv_write_t request;
    char text[];
} writing;

static void on_peer_closed(uv_handle_t *handle) {
    peer *p = (peer *)handle;

    p->server->open--;
    hf__reply_reader_free(p->reader);
    free(p);
}

void peer_hang_up(peer *p) {
    if (!uv_is_closing((uv_handle_t *)&p->pipe)) uv_close((uv_handle_t *)&p->pipe, on_peer_closed);
}

static void on_written(uv_write_t *request, int status) {
    (void)status;
    free(request);
}

void peer_say(peer *p, const char *format, ...) {
    writing *w;
    va_list args;
    uv_buf_t buf;
    int len;

    if (uv_is_closing((uv_handle_t *)&p->pipe)) return;
    va_start(args, format);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    w = malloc(sizeof *w + (size_t)len + 1);
    if (w == NULL) abort();
    va_start(args, format);
    vsnprintf(w->text, (size_t)len + 1, format, args);
    va_end(args);
    buf = uv_buf_init(w->text, (unsigned)len);
    if (uv_write(&w->request, (uv_stream_t *)&p->pipe, &buf, 1, on_written) != 0) free(w);
}

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf) {
    static char room[1 << 16];
    (void)handle;
    (void)size;
    *buf = uv_buf_init(room, sizeof room);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
    peer *p = (peer *)stream;
    const hf__reply *command;
    hf_error error;

    if (n < 0) {
        peer_hang_up(p);
        return;
    }
    CHECK(hf__reply_feed(p->reader, buf->base, (size_t)n, &error));
    while (!uv_is_closing((uv_handle_t *)stream) &&
           hf__reply_next(p->reader, &command, &error) == 1)
        p->server->on_command(p, command);
}

static void on_connection(uv_stream_t *stream, int status) {
    peer_server *s = stream->data;
    peer *p = calloc(1, sizeof *p);

    if (p == NULL || status != 0) abort();
    p->server = s;
    p->number = ++s->connections;
    p->reader = hf__reply_reader_new(hf__allocator_libc());
    s->open++;
    uv_pipe_init(s->loop, &p->pipe, 0);
    CHECK_INT(uv_accept(stream, (uv_stream_t *)&p->pipe), 0);
    uv_read_start((uv_stream_t *)&p->pipe, on_alloc, on_read);
}

void peer_open(peer_server *s, uv_loop_t *loop, void (*on_command)(peer *p, const hf__reply *c),
               void *data) {
    /* Of this server's own writes to who has hung up; the driver's raise none. */
    signal(SIGPIPE, SIG_IGN);
    memset(s, 0, sizeof *s);
    s->loop = loop;
    s->on_command = on_command;
    s->data = data;
    snprintf(s->path, sizeof s->path, "%s/redis.sock", hf_test_folder());
    uv_pipe_init(loop, &s->listener, 0);
    s->listener.data = s;
    CHECK_INT(uv_pipe_bind(&s->listener, s->path), 0);
    CHECK_INT(uv_listen((uv_stream_t *)&s->listener, 16, on_connection), 0);
    s->open = 1;
}

static void on_listener_closed(uv_handle_t *handle) {
    ((peer_server *)handle->data)->open--;
}

static void hang_up_one(uv_handle_t *handle, void *data) {
    if (handle->type == UV_NAMED_PIPE && handle != data) peer_hang_up((peer *)handle);
}

void peer_close(peer_server *s) {
    uv_walk(s->loop, hang_up_one, &s->listener);
    uv_close((uv_handle_t *)&s->listener, on_listener_closed);
}

bool peer_is(const hf__reply *command, const char *name) {
    return command->n_items > 0 && strcasecmp(command->items[0].text.data, name) == 0;
}

bool peer_greets(peer *p, const hf__reply *command) {
    static const char info[] = "# Server\r\nrun_id:0123456789abcdef0123456789abcdef01234567\r\n";

    if (peer_is(command, "INFO"))
        peer_say(p, "$%zu\r\n%s\r\n", sizeof info - 1, info);
    else if (peer_is(command, "CLIENT") || peer_is(command, "SELECT") || peer_is(command, "AUTH"))
        peer_say(p, "+OK\r\n");
    else if (peer_is(command, "SUBSCRIBE"))
        peer_say(p, "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n", command->items[1].text.len,
                 command->items[1].text.data);
    else
        return false;
    return true;
}

int64_t peer_nonce(const hf__reply *command) {
    uint64_t keys = 0;

    if (command->n_items < 4 || !hf__parse_uint(command->items[2].text, 0, 200, &keys)) return 0;
    return command->n_items > 3 + keys ? atoll(command->items[3 + keys].text.data) : 0;
}

/* ---- the bed */

static void on_guard(uv_timer_t *timer) {
    peer_bed *b = timer->data;

    if (++b->ticks > 6000) {
        fprintf(stderr, "a test waits for something that does not come\n");
        abort();
    }
}

void peer_bed_open(peer_bed *b, const char *params, void (*on_command)(peer *p, const hf__reply *c),
                   void *data) {
    const char *why;
    char text[256];
    int len;

    memset(b, 0, sizeof *b);
    uv_loop_init(&b->loop);
    uv_timer_init(&b->loop, &b->guard);
    b->guard.data = b;
    uv_timer_start(&b->guard, on_guard, 5, 5);
    peer_open(&b->server, &b->loop, on_command, data);
    len = snprintf(text, sizeof text, "unix:%s%s", b->server.path, params);
    REQUIRE(hf__url_parse(&b->url, (hf_slice){text, (size_t)len}, hf__allocator_libc(), &why));
    b->env = (hf__store_env){.loop = &b->loop,
                             .allocator = hf__allocator_libc(),
                             .clock = hf__clock_system(),
                             .url = &b->url};
}

void peer_bed_start(peer_bed *b, const hf__redis_events *events) {
    hf_error error;

    REQUIRE_INT(hf__redis_new(&b->env, events, &b->redis, &error), HF_OK);
}

static void on_stopped(void *data) {
    ((peer_bed *)data)->closed = 1;
}

void peer_bed_stop(peer_bed *b) {
    hf__redis_close(b->redis, on_stopped, b);
    while (!b->closed)
        uv_run(&b->loop, UV_RUN_ONCE);
    hf__redis_free(b->redis);
}

void peer_bed_close(peer_bed *b) {
    peer_close(&b->server);
    while (b->server.open > 0)
        uv_run(&b->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&b->guard, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&b->loop), 0);
    hf__url_free(&b->url, hf__allocator_libc());
}
