/* Any bytes, in any order, as what a Redis server does: a server in this process answers each
 * command as the input says, and the whole store is used on it. Every operation must end once, and
 * the store must close.
 *
 * What would only be refused as out of step is not tried: answers of scripts may begin with the
 * number that the script was given, so that the store gets to read the rest. */
#include "core/store.h"
#include "driver/redis/reply.h"
#include "store/registry.h"
#include "util/alloc.h"
#include "util/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPS = 9, TURNS_MAX = 20000, CONNECTIONS_MAX = 40 };

typedef struct server {
    uv_loop_t loop;
    uv_pipe_t listener;
    uv_timer_t guard; /* keeps the loop turning */
    const uint8_t *data;
    size_t size;
    size_t at;
    int connections;
    bool closed;
} server;

typedef struct peer {
    uv_pipe_t pipe;
    server *server;
    hf__reply_reader *reader; /* commands are answers' arrays of strings */
} peer;

typedef struct writing {
    uv_write_t request;
    char bytes[];
} writing;

static void demand(bool holds) {
    if (!holds) abort();
}

static uint8_t next(server *s) {
    return s->at < s->size ? s->data[s->at++] : 0;
}

/* ---- the server */

static void on_peer_closed(uv_handle_t *handle) {
    peer *p = (peer *)handle;
    hf__reply_reader_free(p->reader);
    free(p);
}

static void hang_up(peer *p) {
    if (!uv_is_closing((uv_handle_t *)&p->pipe)) uv_close((uv_handle_t *)&p->pipe, on_peer_closed);
}

static void on_written(uv_write_t *request, int status) {
    (void)status;
    free(request);
}

static void say(peer *p, const char *head, const uint8_t *bytes, size_t len) {
    size_t n = strlen(head);
    writing *w = malloc(sizeof *w + n + len);
    uv_buf_t buf;

    demand(w != NULL);
    memcpy(w->bytes, head, n);
    if (len > 0) memcpy(w->bytes + n, bytes, len);
    buf = uv_buf_init(w->bytes, (unsigned)(n + len));
    if (uv_is_closing((uv_handle_t *)&p->pipe) ||
        uv_write(&w->request, (uv_stream_t *)&p->pipe, &buf, 1, on_written) != 0)
        free(w);
}

/* A piece of the input as it is. */
static void say_raw(peer *p, const char *head) {
    server *s = p->server;
    size_t len = next(s);

    if (len > s->size - s->at) len = s->size - s->at;
    say(p, head, s->data + s->at, len);
    s->at += len;
}

static const char *nonce_of(const hf__reply *command) {
    uint64_t keys;

    if (command->n_items < 4 || !hf__parse_uint(command->items[2].text, 0, 200, &keys)) return "0";
    if (command->n_items <= 3 + keys) return "0";
    return command->items[3 + keys].text.data;
}

static void answer(peer *p, const hf__reply *command) {
    static const char *const errors[] = {"-NOSCRIPT no\r\n",      "-MOVED 1 :1\r\n",
                                         "-MOVED 99999 x\r\n",    "-ASK 5 127.0.0.1:1\r\n",
                                         "-READONLY replica\r\n", "-LOADING wait\r\n",
                                         "-OOM full\r\n",         "-ERR what\r\n",
                                         "-WRONGTYPE data\r\n",   "-\r\n",
                                         "-NOAUTH who\r\n",       "-TRYAGAIN soon\r\n"};
    server *s = p->server;
    char head[64];

    switch (next(s) % 10) {
    case 0: say(p, "+OK\r\n", NULL, 0); break;
    case 1: say(p, errors[next(s) % 12], NULL, 0); break;
    case 2: say_raw(p, ""); break;
    case 3: hang_up(p); break;
    case 4: say_raw(p, "+OK\r\n"); break;
    case 5: say(p, "$23\r\nrun_id:0123456789abcdef\r\n\r\n", NULL, 0); break;
    default:
        snprintf(head, sizeof head, "*%u\r\n:%.20s\r\n", (unsigned)next(s) % 12 + 1,
                 nonce_of(command));
        say_raw(p, head);
    }
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
        hang_up(p);
        return;
    }
    demand(hf__reply_feed(p->reader, buf->base, (size_t)n, &error));
    while (!uv_is_closing((uv_handle_t *)stream) &&
           hf__reply_next(p->reader, &command, &error) == 1) {
        demand(command->type == HF__REPLY_ARRAY && command->n_items > 0);
        answer(p, command);
    }
    /* Who has nothing more to say is gone, and does not come again. */
    if (p->server->at >= p->server->size) hang_up(p);
}

static void stop_listening(server *s) {
    if (!uv_is_closing((uv_handle_t *)&s->listener)) uv_close((uv_handle_t *)&s->listener, NULL);
}

static void on_connection(uv_stream_t *stream, int status) {
    server *s = stream->data;
    peer *p = calloc(1, sizeof *p);

    demand(status == 0 && p != NULL);
    p->server = s;
    p->reader = hf__reply_reader_new(hf__allocator_libc());
    uv_pipe_init(&s->loop, &p->pipe, 0);
    demand(uv_accept(stream, (uv_stream_t *)&p->pipe) == 0);
    uv_read_start((uv_stream_t *)&p->pipe, on_alloc, on_read);
    if (++s->connections >= CONNECTIONS_MAX || s->at >= s->size) stop_listening(s);
}

/* ---- the store */

static void on_done(hf_op *op) {
    (*(volatile int *)op->data)++;
}

static void on_fire(hf__watch *watch) {
    (void)watch;
}

static void fill(hf_op *op, int i, const hf_slice *keys, volatile int *ended) {
    static const hf_verb verbs[OPS] = {HF_TAKE, HF_TAKE, HF_KEEP, HF_DROP, HF_GET,
                                       HF_PUT,  HF_DEL,  HF_ADD,  HF_LIST};

    hf_op_init(op, verbs[i], on_done, (void *)ended);
    op->keys = keys;
    op->n_keys = i == 1 ? 2 : 1;
    op->limit = i == 1 || i == 8 ? 5 : 1;
    op->token.bytes[0] = (uint8_t)(i + 1);
    op->ttl_ms = 5000;
    op->flags = i == 0 ? HF_OP_WAIT | HF_OP_INTENT : 0;
    if (i >= 4 && i <= 7) op->space = i % 2 == 0 ? HF_VALUES : HF_RECORDS;
    if (i == 8) op->keys = &keys[2];
}

static void use(server *s, hf_store *store) {
    static const hf_slice keys[] = {{"k", 1}, {"l", 1}, {"", 0}};
    hf__watch watch = {.fire = on_fire, .key = keys[0], .space = HF_LEASES};
    hf_holder holder;
    hf_op ops[OPS];
    hf_op closing;
    volatile int ended = 0; /* counted by callbacks */
    volatile int closed = 0;

    store->vt->watch(store, &watch);
    for (int i = 0; i < OPS; i++) {
        fill(&ops[i], i, keys, &ended);
        if (i == 0) ops[i].holder = &holder;
        hf__store_submit(store, &ops[i]);
    }
    for (int turn = 0; ended < OPS; turn++) {
        demand(turn < TURNS_MAX);
        uv_run(&s->loop, UV_RUN_ONCE);
    }
    stop_listening(s);
    store->vt->unwatch(store, &watch);
    for (int i = 0; i < OPS; i++)
        hf_op_reset(&ops[i]);
    hf_op_init(&closing, HF_CLOSE, on_done, (void *)&closed);
    hf__store_submit(store, &closing);
    for (int turn = 0; closed == 0; turn++) {
        demand(turn < TURNS_MAX);
        uv_run(&s->loop, UV_RUN_ONCE);
    }
    demand(ended == OPS && closed == 1);
    hf__store_free(store);
}

static void on_guard(uv_timer_t *timer) {
    (void)timer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    server s = {.data = data, .size = size};
    hf__shared shared = {.allocator = hf__allocator_libc()};
    char path[64];
    char text[96];
    const char *why;
    hf__url url;
    hf_error error;
    hf_store *store;
    hf__store_env env = {.loop = &s.loop,
                         .allocator = hf__allocator_libc(),
                         .clock = hf__clock_system(),
                         .url = &url,
                         .shared = &shared};

    signal(SIGPIPE, SIG_IGN); /* of this server's own writes; the driver's raise none */
    snprintf(path, sizeof path, "/tmp/holdfast-fuzz-%d.sock", (int)getpid());
    snprintf(text, sizeof text, "unix:%s?commandTimeout=10&connectTimeout=200", path);
    demand(hf__url_parse(&url, (hf_slice){text, strlen(text)}, env.allocator, &why));
    (void)unlink(path);
    uv_mutex_init(&shared.lock);
    uv_loop_init(&s.loop);
    uv_pipe_init(&s.loop, &s.listener, 0);
    s.listener.data = &s;
    demand(uv_pipe_bind(&s.listener, path) == 0);
    demand(uv_listen((uv_stream_t *)&s.listener, 16, on_connection) == 0);
    uv_timer_init(&s.loop, &s.guard);
    uv_timer_start(&s.guard, on_guard, 5, 5);
    store = hf__store_new(hf__store_find(url.scheme), &env, &error);
    demand(store != NULL);
    use(&s, store);
    uv_close((uv_handle_t *)&s.guard, NULL);
    while (uv_run(&s.loop, UV_RUN_DEFAULT) != 0) {
    }
    demand(uv_loop_close(&s.loop) == 0);
    if (shared.fini != NULL) shared.fini(&shared);
    uv_mutex_destroy(&shared.lock);
    hf__url_free(&url, env.allocator);
    (void)unlink(path);
    return 0;
}
