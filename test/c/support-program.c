#include "support-program.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_MS UINT64_C(3600000)
#define DAY_US INT64_C(86400000000)

static const char *const key_names[PROGRAM_KEYS] = {"a", "ab", "abc", "b", "c"};

const char *program_key(size_t k) {
    return key_names[k];
}

bool step_is_op(const step *s) {
    return s->kind <= STEP_SWEEP;
}

/* ---------------------------------------------------------------- chance */

/* One program on its way. Weights differ from program to program: one that lists seldom, or shares
 * always, gets where one that does a bit of everything does not. */
typedef struct drawing {
    uint64_t state;
    const program_shape *shape;
    uint32_t n_keys;
    uint32_t n_holders;
    uint8_t tokens[PROGRAM_TOKENS]; /* the present one of each holder */
    uint8_t last_token;             /* given out */
    uint32_t weights[STEP_REBOOT + 1];
    uint32_t limits[4]; /* what a take may ask for, drawn once so that they meet */
    uint32_t joined;    /* in a hundred */
    uint32_t intent;
    bool short_leases;
    bool steady; /* every token asks for the same keys again, as those of real holders do */
} drawing;

static uint64_t roll(drawing *d, uint64_t below) {
    uint64_t z = d->state += UINT64_C(0x9e3779b97f4a7c15);

    assert(below > 0);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % below;
}

static bool chance(drawing *d, uint32_t in_a_hundred) {
    return roll(d, 100) < in_a_hundred;
}

static uint32_t draw_limit(drawing *d) {
    static const uint32_t all[] = {1, 1, 2, 3, 5, HF_SHARED, HF_SHARED};
    uint32_t limit = all[roll(d, sizeof all / sizeof all[0])];

    return (d->shape->caps & HF_CAP_SHARED) != 0 ? limit : 1;
}

static void begin(drawing *d, uint64_t seed, const program_shape *shape) {
    static const uint32_t usual[STEP_REBOOT + 1] = {
        [STEP_TAKE] = 50, [STEP_KEEP] = 8,   [STEP_DROP] = 14,  [STEP_LIST] = 5,
        [STEP_SWEEP] = 3, [STEP_STATE] = 3,  [STEP_PASS] = 6,   [STEP_PASS_TO] = 8,
        [STEP_WALL] = 2,  [STEP_REOPEN] = 2, [STEP_REBOOT] = 1,
    };

    *d = (drawing){.state = seed, .shape = shape};
    d->n_keys = 2 + (uint32_t)roll(d, PROGRAM_KEYS - 1);
    d->n_holders = 2 + (uint32_t)roll(d, 6);
    for (uint32_t i = 0; i < d->n_holders; i++)
        d->tokens[i] = ++d->last_token;
    for (uint32_t i = 0; i <= STEP_REBOOT; i++)
        d->weights[i] = usual[i] * (uint32_t)(i == STEP_TAKE ? 2 : roll(d, 4));
    if ((shape->caps & HF_CAP_LIST) == 0) d->weights[STEP_LIST] = d->weights[STEP_STATE] = 0;
    for (uint32_t i = STEP_PASS; i <= STEP_REBOOT; i++) {
        if (!shape->time && i != STEP_REOPEN) d->weights[i] = 0;
    }
    if (!shape->wall) d->weights[STEP_WALL] = d->weights[STEP_REBOOT] = 0;
    for (uint32_t i = 0; i < 4; i++)
        d->limits[i] = draw_limit(d);
    d->joined = (uint32_t)roll(d, 4) * 20;
    d->intent = (uint32_t)roll(d, 4) * 25;
    d->steady = chance(d, 40);
    d->short_leases = shape->time && chance(d, 70);
}

static step_kind draw_kind(drawing *d) {
    uint32_t sum = 0;
    uint64_t at;
    uint32_t kind = 0;

    for (uint32_t i = 0; i <= STEP_REBOOT; i++)
        sum += d->weights[i];
    at = roll(d, sum);
    while (at >= d->weights[kind])
        at -= d->weights[kind++];
    return (step_kind)kind;
}

/* A few of the program's keys, or all, in any order. */
static void draw_keys(drawing *d, step *s) {
    uint8_t all[PROGRAM_KEYS];

    s->n_keys = (uint8_t)(chance(d, 50) ? 1 : 1 + roll(d, d->n_keys));
    for (size_t i = 0; i < PROGRAM_KEYS; i++)
        all[i] = (uint8_t)i;
    for (uint32_t i = 0; i < s->n_keys; i++) {
        uint32_t from = i + (uint32_t)roll(d, d->n_keys - i);
        s->keys[i] = all[from];
        all[from] = all[i];
    }
}

static void draw_own_keys(drawing *d, step *s) {
    draw_keys(d, s);
    if (!d->steady || chance(d, 10)) return;
    s->n_keys = (uint8_t)(1 + s->token / 2 % 2);
    for (uint32_t i = 0; i < s->n_keys; i++)
        s->keys[i] = (uint8_t)((s->token + i) % d->n_keys);
}

static uint64_t draw_ttl(drawing *d) {
    /* Around the two seconds that an intent mark lives, and at both ends. */
    static const uint64_t ends[] = {50, 500, 1999, 2000, 2001, 30000, 24 * HOUR_MS};

    if (!d->short_leases) return HOUR_MS + roll(d, HOUR_MS);
    if (chance(d, 40)) return ends[roll(d, sizeof ends / sizeof ends[0])];
    return 50 + roll(d, 4000);
}

static uint8_t draw_token(drawing *d) {
    return d->tokens[roll(d, d->n_holders)];
}

/* One of the takes not long before step `at`, to come back to; NULL if there is none. */
static const step *draw_earlier(drawing *d, const program *p, size_t at) {
    size_t back = 1 + (size_t)roll(d, 8);

    return back <= at && p->steps[at - back].kind == STEP_TAKE ? &p->steps[at - back] : NULL;
}

/* The earlier step's keys, in the same order or the other way round. */
static void copy_keys(drawing *d, step *s, const step *earlier) {
    bool turned = chance(d, 30);

    s->n_keys = earlier->n_keys;
    for (size_t i = 0; i < s->n_keys; i++)
        s->keys[i] = earlier->keys[turned ? s->n_keys - 1U - i : i];
}

static void draw_take(drawing *d, step *s, const step *earlier) {
    s->token = draw_token(d);
    draw_own_keys(d, s);
    s->limit = chance(d, 90) ? d->limits[roll(d, 4)] : draw_limit(d);
    s->ttl_ms = draw_ttl(d);
    s->intent = chance(d, d->intent);
    s->wait = chance(d, 30);
    if (earlier == NULL || !chance(d, 30)) return;
    copy_keys(d, s, earlier);
    if (chance(d, earlier->limit == 1 ? 30 : 80) || (d->shape->caps & HF_CAP_HAND_OVER) == 0) {
        /* Asked again: the answer was lost, or the one who waits has another try. */
        s->token = earlier->token;
        s->limit = chance(d, 90) ? earlier->limit : s->limit;
        return;
    }
    /* The contract does not say whether a refused hand-over leaves a mark: nobody asks for both. */
    s->replace = chance(d, 90) ? earlier->token : draw_token(d);
    s->intent = false;
    s->limit = chance(d, 90) ? 1 : s->limit;
    if (chance(d, 15)) draw_keys(d, s);
}

static void draw_owner(drawing *d, step *s, const step *earlier) {
    s->token = draw_token(d);
    draw_own_keys(d, s);
    if (s->kind == STEP_KEEP) s->ttl_ms = draw_ttl(d);
    if (earlier == NULL || !chance(d, 60)) return;
    copy_keys(d, s, earlier);
    s->token = earlier->token;
}

static void draw_list(drawing *d, step *s) {
    draw_keys(d, s);
    s->n_keys = chance(d, 70) ? 1 : 0;
    s->exact = s->n_keys > 0 && chance(d, 40);
    s->after = (uint8_t)(s->exact || chance(d, 60) ? 0 : 1 + roll(d, PROGRAM_KEYS));
    s->limit = 1 + (uint32_t)roll(d, chance(d, 50) ? 5 : 100);
}

static int64_t draw_pass_us(drawing *d) {
    static const uint64_t far_ms[] = {HOUR_MS, 24 * HOUR_MS - 1, 24 * HOUR_MS, 49 * HOUR_MS};

    if (chance(d, 15)) return 1000 * (int64_t)far_ms[roll(d, 4)];
    if (chance(d, 30)) return (int64_t)roll(d, 3000000);
    return 1000 * (int64_t)roll(d, 2500);
}

static int64_t draw_jump_us(drawing *d) {
    static const int64_t far_us[] = {1000, 60000000, DAY_US, 2 * DAY_US, 400 * DAY_US};
    int64_t us = far_us[roll(d, sizeof far_us / sizeof far_us[0])];

    return chance(d, 60) ? -us : us;
}

static void draw_step(drawing *d, program *p, size_t at) {
    const step *earlier = draw_earlier(d, p, at);
    step *s = &p->steps[at];

    memset(s, 0, sizeof *s);
    s->kind = (uint8_t)draw_kind(d);
    s->instance = (uint8_t)roll(d, d->shape->instances);
    s->joined = chance(d, d->joined);
    switch ((step_kind)s->kind) {
    case STEP_TAKE: draw_take(d, s, earlier); break;
    case STEP_KEEP:
    case STEP_DROP: draw_owner(d, s, earlier); break;
    case STEP_LIST: draw_list(d, s); break;
    case STEP_SWEEP:
    case STEP_STATE: s->limit = 1 + (uint32_t)roll(d, 6); break;
    case STEP_PASS: s->us = draw_pass_us(d); break;
    case STEP_PASS_TO: s->ns = (int64_t)roll(d, 3) - 1; break;
    case STEP_WALL: s->us = draw_jump_us(d); break;
    case STEP_REOPEN:
    case STEP_REBOOT: break;
    }
}

/* A holder stops, and is not heard of again: what comes in its place has a token of its own. */
static void crash_one(drawing *d) {
    if (d->last_token < PROGRAM_TOKENS) d->tokens[roll(d, d->n_holders)] = ++d->last_token;
}

void program_draw(program *p, uint64_t seed, const program_shape *shape) {
    drawing d;

    begin(&d, seed, shape);
    p->n = 5 + (size_t)roll(&d, PROGRAM_STEPS - 5);
    for (size_t i = 0; i < p->n; i++) {
        draw_step(&d, p, i);
        /* What one instance is asked at once it is asked by itself. */
        if (i > 0 && p->steps[i].joined) p->steps[i].instance = p->steps[i - 1].instance;
        if (chance(&d, 3)) crash_one(&d);
    }
}

/* ---------------------------------------------------------------- text */

static void add(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(char *text, size_t size, const char *format, ...) {
    size_t at = strlen(text);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + at, size - at, format, arguments);
    va_end(arguments);
}

static void add_limit(char *text, size_t size, uint32_t limit) {
    if (limit == HF_SHARED)
        add(text, size, ", shared");
    else if (limit == 1)
        add(text, size, ", exclusive");
    else
        add(text, size, ", permits %" PRIu32, limit);
}

static void add_lease(const step *s, char *text, size_t size) {
    static const char *const words[] = {"take", "keep", "drop"};

    add(text, size, "%s", words[s->kind]);
    for (size_t i = 0; i < s->n_keys; i++)
        add(text, size, " %s", key_names[s->keys[i]]);
    add(text, size, ", token %d", s->token);
    if (s->kind == STEP_TAKE) add_limit(text, size, s->limit);
    if (s->kind != STEP_DROP) add(text, size, ", %" PRIu64 " ms", s->ttl_ms);
    if (s->replace != 0) add(text, size, ", replaces token %d", s->replace);
    if (s->intent) add(text, size, ", intent");
    if (s->wait) add(text, size, ", waits");
}

static void add_list(const step *s, char *text, size_t size) {
    add(text, size, "list \"%s\"%s", s->n_keys > 0 ? key_names[s->keys[0]] : "",
        s->exact ? " exactly" : "");
    if (s->after > 0) add(text, size, " after \"%s\"", key_names[s->after - 1]);
    add(text, size, ", %" PRIu32 " rows", s->limit);
}

void step_text(const step *s, char *text, size_t size) {
    text[0] = '\0';
    if (step_is_op(s) || s->kind == STEP_STATE || s->kind == STEP_REOPEN)
        add(text, size, "%c%d ", s->joined ? '+' : '#', s->instance);
    switch ((step_kind)s->kind) {
    case STEP_TAKE:
    case STEP_KEEP:
    case STEP_DROP: add_lease(s, text, size); break;
    case STEP_LIST: add_list(s, text, size); break;
    case STEP_SWEEP: add(text, size, "sweep, %" PRIu32 " rows", s->limit); break;
    case STEP_STATE: add(text, size, "list all, %" PRIu32 " rows a page", s->limit); break;
    case STEP_PASS: add(text, size, "%" PRId64 " us pass", s->us); break;
    case STEP_PASS_TO: add(text, size, "pass to the next deadline, %+" PRId64 " ns", s->ns); break;
    case STEP_WALL: add(text, size, "the wall clock is set by %+" PRId64 " us", s->us); break;
    case STEP_REOPEN: add(text, size, "ends; another is opened"); break;
    case STEP_REBOOT: add(text, size, "reboot"); break;
    }
}

/* ---------------------------------------------------------------- smaller */

void program_cut(program *p, size_t at, size_t count) {
    memmove(&p->steps[at], &p->steps[at + count], (p->n - at - count) * sizeof p->steps[0]);
    p->n -= count;
}

static bool is_row_limit(const step *s) {
    return s->kind == STEP_LIST || s->kind == STEP_SWEEP || s->kind == STEP_STATE;
}

static void sort_keys(step *s) {
    for (size_t i = 1; i < s->n_keys; i++) {
        for (size_t at = i; at > 0 && s->keys[at - 1] > s->keys[at]; at--) {
            uint8_t key = s->keys[at];
            s->keys[at] = s->keys[at - 1];
            s->keys[at - 1] = key;
        }
    }
}

/* A list without its prefix asks for more, but is easier to read. */
static void remove_key(step *s, size_t i) {
    if (i >= s->n_keys || (s->n_keys == 1 && s->kind != STEP_LIST)) return;
    s->n_keys--;
    memmove(&s->keys[i], &s->keys[i + 1], s->n_keys - i);
    if (s->n_keys == 0) s->exact = false;
}

bool program_simplify(program *p, size_t at, unsigned way) {
    step *s = &p->steps[at];

    switch (way) {
    case 0: s->joined = false; return true;
    case 1: s->instance = 0; return true;
    case 2: s->intent = false; return true;
    case 3: s->replace = 0; return true;
    case 4: s->limit = is_row_limit(s) ? 100 : s->limit; return true;
    case 5: s->limit = s->kind == STEP_TAKE ? 1 : s->limit; return true;
    case 6: s->limit = s->kind == STEP_TAKE && s->limit > 2 ? 2 : s->limit; return true;
    case 7: s->ttl_ms = s->ttl_ms > 0 ? 1000 : 0; return true;
    case 8: s->ttl_ms = s->ttl_ms > 0 ? 2000 : 0; return true;
    case 9: s->us = s->us - s->us % 1000000; return true;
    case 10: s->us = s->us - s->us % 1000; return true;
    case 11: s->us /= 2; return true;
    case 12: s->ns = 0; return true;
    case 13: s->exact = false; return true;
    case 14: s->after = 0; return true;
    case 15: sort_keys(s); return true;
    case 16: s->kind = s->kind == STEP_REBOOT ? STEP_REOPEN : s->kind; return true;
    case 17: s->wait = false; return true;
    default: break;
    }
    if (way - 18 >= PROGRAM_KEYS) return false;
    remove_key(s, way - 18);
    return true;
}

static uint8_t renumbered(uint8_t *names, uint8_t *given, uint8_t old) {
    if (names[old] == 0) names[old] = ++*given;
    return names[old];
}

void program_renumber(program *p) {
    uint8_t tokens[PROGRAM_TOKENS + 1] = {0};
    uint8_t keys[PROGRAM_KEYS] = {0};
    uint8_t n_tokens = 0;
    uint8_t n_keys = 0;

    for (size_t i = 0; i < p->n; i++) {
        step *s = &p->steps[i];
        for (size_t k = 0; k < s->n_keys; k++)
            s->keys[k] = (uint8_t)(renumbered(keys, &n_keys, s->keys[k]) - 1);
        if (s->token > 0) s->token = renumbered(tokens, &n_tokens, s->token);
        if (s->replace > 0) s->replace = renumbered(tokens, &n_tokens, s->replace);
    }
}

static uint64_t bits_of(int64_t value) {
    uint64_t left = (uint64_t)(value < 0 ? -value : value);
    uint64_t n = 0;

    for (; left > 0; left >>= 1)
        n++;
    return n + (value % 1000 != 0) + (value % 1000000 != 0);
}

static uint64_t weight_of(const step *s) {
    uint64_t weight = 1000;

    weight +=
        s->joined + s->instance + 4U * s->intent + 4U * s->wait + 4U * (s->replace > 0) + s->exact;
    weight += (s->after > 0) + bits_of(s->us) + bits_of(s->ns) + (s->kind == STEP_REBOOT);
    if (is_row_limit(s)) weight += s->limit != 100;
    if (s->kind == STEP_TAKE) weight += s->limit == 1 ? 0 : s->limit == 2 ? 1 : 2;
    if (s->ttl_ms > 0) weight += s->ttl_ms == 1000 ? 0 : s->ttl_ms == 2000 ? 1 : 2;
    /* Numbers count a little, so that giving smaller ones is a change for the better. */
    weight = weight * 100 + s->token + s->replace;
    for (size_t i = 0; i < s->n_keys; i++) {
        weight += 300 + s->keys[i];
        if (i > 0 && s->keys[i] < s->keys[i - 1]) weight += 100;
    }
    return weight;
}

uint64_t program_weight(const program *p) {
    uint64_t weight = 0;

    for (size_t i = 0; i < p->n; i++)
        weight += weight_of(&p->steps[i]);
    return weight;
}
