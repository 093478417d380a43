/*
 * What the scripts of Holdfast's store can do on one connection: keeps pairs of a take and a
 * release in flight, with hiredis and nothing above it, and writes how that went as one line of
 * JSON.
 *
 *   redis-pipeline PORT IN-FLIGHT SECONDS KEY TOKEN FOLDER
 *
 * FOLDER has what Holdfast sends and receives for one pair: `take`, `drop`, `take.reply` and
 * `drop.reply` (see recorded.js). KEY and TOKEN stand in them, and are replaced by others of the
 * same length: KEY ends in six digits, TOKEN is of 32 hexadecimal ones.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <hiredis/hiredis.h>

#define KEYS_PER_LANE 16
#define KEY_DIGITS 6
#define TOKEN_DIGITS 32
#define PLACES_MAX 16
#define FILE_MAX 65536
#define WARM_UP_NS 100000000
#define SAMPLES_MAX (8u << 20)

/* A command as it was recorded, and where in it key and token stand. */
typedef struct command {
    char bytes[FILE_MAX];
    size_t len;
    size_t keys[PLACES_MAX];
    size_t n_keys;
    size_t tokens[PLACES_MAX];
    size_t n_tokens;
    redisReply *reply;
    bool exact; /* a reply must say the same as the recorded one */
} command;

typedef struct lane {
    uint64_t asked_ns;
    uint32_t n;
    bool holds;
} lane;

typedef struct run {
    redisContext *redis;
    command take, drop;
    size_t key_len;
    lane *lanes;
    uint32_t *queue; /* of lanes, in the order of their commands; each has one on its way */
    uint32_t n_lanes;
    uint32_t head;
    uint64_t end_ns;
    uint32_t under_way;
    uint32_t *times_ns;
    size_t n_times;
} run;

static void fail(const char *what, const char *why) {
    (void)fprintf(stderr, "redis-pipeline: %s: %s\n", what, why);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t cpu_us(void) {
    struct rusage r;
    (void)getrusage(RUSAGE_SELF, &r);
    return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
}

static size_t read_file(const char *folder, const char *name, char *bytes) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) fail(path, strerror(errno));
    size_t len = fread(bytes, 1, FILE_MAX, file);
    (void)fclose(file);
    if (len == 0 || len == FILE_MAX) fail(path, "empty, or too long");
    return len;
}

static size_t find_all(const command *c, const char *word, size_t *places) {
    size_t n = 0;
    size_t len = strlen(word);
    for (size_t i = 0; i + len <= c->len; i++) {
        if (memcmp(c->bytes + i, word, len) != 0) continue;
        if (n == PLACES_MAX) fail(word, "stands in too many places of a command");
        places[n++] = i;
    }
    if (n == 0) fail(word, "is not in a command");
    return n;
}

static redisReply *parse(const char *bytes, size_t len) {
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;
    if (!reader || redisReaderFeed(reader, bytes, len) != REDIS_OK ||
        redisReaderGetReply(reader, &reply) != REDIS_OK || !reply) {
        fail("a recorded reply", "is none");
    }
    redisReaderFree(reader);
    return reply;
}

static void load(command *c, const char *folder, const char *name, const char *key,
                 const char *token) {
    char reply_name[32];
    char reply[FILE_MAX];
    (void)snprintf(reply_name, sizeof reply_name, "%s.reply", name);
    c->len = read_file(folder, name, c->bytes);
    c->n_keys = find_all(c, key, c->keys);
    c->n_tokens = find_all(c, token, c->tokens);
    c->reply = parse(reply, read_file(folder, reply_name, reply));
}

/* Whether a reply is of the same form as the recorded one: what was refused has another. */
static bool alike(const redisReply *a, const redisReply *b, bool exact) {
    if (a->type != b->type || a->elements != b->elements) return false;
    if (exact && a->type == REDIS_REPLY_INTEGER && a->integer != b->integer) return false;
    for (size_t i = 0; i < a->elements; i++) {
        if (!alike(a->element[i], b->element[i], exact)) return false;
    }
    return true;
}

/* Sends the next command of a lane: its release, or the take of its next key. */
static void send(run *r, uint32_t number) {
    lane *l = &r->lanes[number];
    command *c = l->holds ? &r->drop : &r->take;
    char digits[KEY_DIGITS + 1];
    char token[TOKEN_DIGITS + 1];
    (void)snprintf(digits, sizeof digits, "%06" PRIu32,
                   (number * KEYS_PER_LANE + l->n % KEYS_PER_LANE) % 1000000);
    (void)snprintf(token, sizeof token, "%016" PRIx32 "%016" PRIx32, number, l->n);
    for (size_t i = 0; i < c->n_keys; i++) {
        memcpy(c->bytes + c->keys[i] + r->key_len - KEY_DIGITS, digits, KEY_DIGITS);
    }
    for (size_t i = 0; i < c->n_tokens; i++) {
        memcpy(c->bytes + c->tokens[i], token, TOKEN_DIGITS);
    }
    if (!l->holds) l->asked_ns = now_ns();
    if (redisAppendFormattedCommand(r->redis, c->bytes, c->len) != REDIS_OK) {
        fail("cannot send", r->redis->errstr);
    }
    r->queue[(r->head + r->under_way++) % r->n_lanes] = number;
}

static void answered(run *r, redisReply *reply) {
    uint32_t number = r->queue[r->head];
    lane *l = &r->lanes[number];
    const command *c = l->holds ? &r->drop : &r->take;
    r->head = (r->head + 1) % r->n_lanes;
    r->under_way--;
    if (reply->type == REDIS_REPLY_ERROR) fail("the server answered", reply->str);
    if (!alike(reply, c->reply, c->exact)) fail(l->holds ? "a release" : "a take", "failed");
    freeReplyObject(reply);
    l->holds = !l->holds;
    uint64_t now = now_ns();
    if (!l->holds) {
        l->n++;
        if (r->n_times < SAMPLES_MAX) r->times_ns[r->n_times++] = (uint32_t)(now - l->asked_ns);
    }
    if (l->holds || now < r->end_ns) send(r, number);
}

/* Keeps all lanes busy for so long, and lets each come to the end of its pair. */
static void drive(run *r, uint64_t ns) {
    r->n_times = 0;
    r->end_ns = now_ns() + ns;
    for (uint32_t i = 0; i < r->n_lanes; i++)
        send(r, i);
    while (r->under_way > 0) {
        int sent = 0;
        while (!sent) {
            if (redisBufferWrite(r->redis, &sent) != REDIS_OK) fail("write", r->redis->errstr);
        }
        if (redisBufferRead(r->redis) != REDIS_OK) fail("read", r->redis->errstr);
        for (;;) {
            void *reply = NULL;
            if (redisGetReplyFromReader(r->redis, &reply) != REDIS_OK) {
                fail("a reply", r->redis->errstr);
            }
            if (!reply) break;
            answered(r, reply);
        }
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(const run *r, double part) {
    return r->times_ns[(size_t)((double)(r->n_times - 1) * part)] / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 7) fail("usage", "redis-pipeline PORT IN-FLIGHT SECONDS KEY TOKEN FOLDER");
    static run r;
    int port = (int)strtol(argv[1], NULL, 10);
    double seconds = strtod(argv[3], NULL);
    const char *key = argv[4];
    const char *token = argv[5];
    r.n_lanes = (uint32_t)strtoul(argv[2], NULL, 10);
    r.key_len = strlen(key);
    if (r.key_len < KEY_DIGITS || strlen(token) != TOKEN_DIGITS || r.n_lanes == 0) {
        fail("usage", "a key of six digits, a token of 32, one in flight at least");
    }
    load(&r.take, argv[6], "take", key, token);
    load(&r.drop, argv[6], "drop", key, token);
    r.drop.exact = true;
    r.lanes = calloc(r.n_lanes, sizeof *r.lanes);
    r.queue = calloc(r.n_lanes, sizeof *r.queue);
    r.times_ns = malloc(SAMPLES_MAX * sizeof *r.times_ns);
    if (!r.lanes || !r.queue || !r.times_ns) fail("memory", "is out");
    r.redis = redisConnect("127.0.0.1", port);
    if (!r.redis || r.redis->err) fail("cannot connect", r.redis ? r.redis->errstr : "no memory");

    drive(&r, WARM_UP_NS);
    uint64_t cpu = cpu_us();
    uint64_t started = now_ns();
    drive(&r, (uint64_t)(seconds * 1e9));
    double took = (double)(now_ns() - started) / 1e9;
    cpu = cpu_us() - cpu;
    qsort(r.times_ns, r.n_times, sizeof *r.times_ns, compare);
    (void)printf("{\"rate\":%.1f,\"p50\":%.6f,\"p99\":%.6f,\"cpu\":%.4f}\n",
                 (double)r.n_times / took, quantile_ms(&r, 0.5), quantile_ms(&r, 0.99),
                 (double)cpu / (double)r.n_times);
    redisFree(r.redis);
    return 0;
}
