/* A Redis server as a test needs it, within the test's own loop: a unix socket, and a function that
 * is given each command and answers what it likes. For what no real server can be made to do. */
#ifndef HF_TEST_SUPPORT_REDIS_PEER_H
#define HF_TEST_SUPPORT_REDIS_PEER_H

#include "driver/redis/redis.h"

#include <uv.h>

typedef struct peer_server peer_server;
typedef struct peer peer;

struct peer_server {
    uv_loop_t *loop;
    uv_pipe_t listener;
    /* Answers `command`, an array of strings, with peer_say, later, or not at all. */
    void (*on_command)(peer *p, const hf__reply *command);
    void *data;
    int connections; /* so far */
    int open;
    char path[128];
};

struct peer {
    uv_pipe_t pipe;
    peer_server *server;
    hf__reply_reader *reader;
    int number; /* of its connection, from 1 */
};

void peer_open(peer_server *s, uv_loop_t *loop, void (*on_command)(peer *p, const hf__reply *c),
               void *data);
/* Stops listening, and hangs up; the loop must be run until `open` is 0. */
void peer_close(peer_server *s);
void peer_hang_up(peer *p);
/* Sends text as it is. */
__attribute__((format(printf, 2, 3))) void peer_say(peer *p, const char *format, ...);
/* Whether the command's name is this. */
bool peer_is(const hf__reply *command, const char *name);
/* Answers what a connection says first, as a sound server does. False: it was something else. */
bool peer_greets(peer *p, const hf__reply *command);
/* The number with which the answer to a script must begin. */
int64_t peer_nonce(const hf__reply *command);

/* A loop with such a server on it, and a driver that uses it. */
typedef struct peer_bed {
    uv_loop_t loop;
    uv_timer_t guard; /* keeps the loop turning, and ends a test that hangs */
    int ticks;
    peer_server server;
    hf__url url;
    hf__store_env env;
    hf__redis *redis;
    int closed;
} peer_bed;

/* All but the driver; `params` follow the URL. */
void peer_bed_open(peer_bed *b, const char *params, void (*on_command)(peer *p, const hf__reply *c),
                   void *data);
void peer_bed_start(peer_bed *b, const hf__redis_events *events);
void peer_bed_stop(peer_bed *b); /* the driver */
void peer_bed_close(peer_bed *b);

/* Turns the loop of a bed that is the first member `base` of what `bed` points to. */
#define UNTIL(bed, condition)                       \
    do {                                            \
        while (!(condition))                        \
            uv_run(&(bed)->base.loop, UV_RUN_ONCE); \
    } while (0)

#endif
