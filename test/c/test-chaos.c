/* Everything at once, at random: hosts that ask, cancel, extend, release, lose, block, close and
 * exit, on one file and on a store that fails. What must hold is judged from outside of the
 * library: every callback exactly once and none after free, no two holders of an exclusive key,
 * fences in order, one outcome per operation, nothing held in the end. HF_SEED=n repeats a run
 * (as far as the threads allow). */
#include "support-faulty.h"
#include "support-host.h"

#include "prim/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEYS = 4,
    SLOTS = 12,
    RUNS = 4,
    HOSTS = 3,
    RUN_MS = 1500,
    PATIENCE_MS = 20000,
    DELAY_MS = 60
};

static const char *const key_names[KEYS] = {"a", "b", "c", "d"};

/* TSan does not see that libuv closes descriptors, and takes one that another thread gets next for
 * one that both use. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:interceptor_close\nrace:interceptor_eventfd\nrace:interceptor_epoll_create1\n"
           "race:interceptor_pipe2\nrace:interceptor_inotify_init1\nrace:interceptor_open\n";
}

/* ---------------------------------------------------------------- chance */

typedef struct dice {
    uint64_t state;
} dice;

static uint64_t roll(dice *d, uint64_t sides) {
    d->state ^= d->state << 13;
    d->state ^= d->state >> 7;
    d->state ^= d->state << 17;
    return (d->state >> 11) % sides;
}

static uint64_t the_seed(void) {
    static uint64_t seed;
    const char *given = getenv("HF_SEED");
    if (seed == 0) {
        seed = given != NULL ? strtoull(given, NULL, 10) : uv_hrtime() / 1000 % 1000000000;
        printf("  HF_SEED=%llu\n", (unsigned long long)seed);
    }
    return seed;
}

static uint64_t pick(dice *d, const uint64_t *from, size_t n) {
    return from[roll(d, n)];
}
#define PICK(d, ...)                         \
    pick(d, (const uint64_t[]){__VA_ARGS__}, \
         sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* ---------------------------------------------------------------- the judge */

typedef enum state { EMPTY, WAITING, HELD, RELEASING, OVER } state;

typedef struct slot {
    struct player *player;
    hf_lock *lock;
    state state;
    unsigned keys; /* bits */
    uint32_t limit;
    bool cancelled;
    bool patient; /* likely to hold until it is lost */
    /* under the judge's mutex */
    bool in;        /* it was told that it holds, and has not ended that */
    bool overtaken; /* another was told so since, of a key that cannot be shared */
} slot;

typedef struct run_slot {
    struct player *player;
    hf_run *run;
    enum { NONE, CLAIMING, RUNNING, ENDING, DONE } state;
    unsigned key;
    bool was_done; /* its outcome was known when it began */
} run_slot;

typedef struct player {
    host h;
    dice dice;
    char url[512];
    const hf_store_vtable *vt; /* NULL: the URL's */
    slot slots[SLOTS];
    run_slot runs[RUNS];
    int open_extensions;
    bool closing;
    int closed;
    unsigned answers;
    unsigned grants;
} player;

static struct {
    uv_mutex_t mutex;
    player *players;
    size_t n_players;
    uint64_t exclusive_fence[KEYS];
    uint64_t any_fence[KEYS];
    unsigned run_key;       /* the operation that is to be done now */
    unsigned first_run_key; /* in this store */
    unsigned outcomes;
} judge;

/* A lock was granted. Who holds one of its keys by what they were told must find it lost by now:
 * they look the next time they look. */
static void judge_granted(slot *s) {
    uv_mutex_lock(&judge.mutex);
    if (hf_lock_held(s->lock)) {
        uint64_t fence = hf_lock_fence(s->lock);
        for (unsigned k = 0; k < KEYS; k++) {
            if (!(s->keys & (1u << k))) continue;
            CHECK(fence > (s->limit == 1 ? judge.any_fence[k] : judge.exclusive_fence[k]));
            if (fence > judge.any_fence[k]) judge.any_fence[k] = fence;
            if (s->limit == 1) judge.exclusive_fence[k] = fence;
        }
        for (size_t i = 0; i < judge.n_players * SLOTS; i++) {
            slot *other = &judge.players[i / SLOTS].slots[i % SLOTS];
            if (other == s || !other->in || (other->keys & s->keys) == 0) continue;
            if (other->limit == 1 || s->limit == 1) other->overtaken = true;
        }
        s->in = true;
        s->overtaken = false;
    }
    uv_mutex_unlock(&judge.mutex);
}

static void judge_holder(slot *s) {
    uv_mutex_lock(&judge.mutex);
    bool overtaken = s->in && s->overtaken; /* before asking: a loss is for ever */
    if (overtaken && hf_lock_held(s->lock)) FAIL("two holders of one key");
    uv_mutex_unlock(&judge.mutex);
}

static void judge_out(slot *s) {
    uv_mutex_lock(&judge.mutex);
    s->in = false;
    uv_mutex_unlock(&judge.mutex);
}

/* ---------------------------------------------------------------- locks */

static void on_acquired(void *data, hf_lock *lock, const hf_lock_result *result) {
    slot *s = data;
    CHECK(s->state == WAITING && (s->lock == NULL || s->lock == lock));
    s->lock = lock;
    s->player->answers++;
    if (result->error != NULL) {
        s->state = OVER;
        CHECK(!hf_lock_held(lock));
        return;
    }
    CHECK(!s->cancelled);
    s->player->grants++;
    s->state = HELD;
    judge_granted(s);
}

static void on_lost(void *data, hf_lock *lock, const hf_error *why) {
    slot *s = data;
    CHECK(s->state == HELD && s->lock == lock);
    CHECK(!hf_lock_held(lock));
    CHECK_INT(why->code, HF_ELOST);
    judge_out(s);
    s->state = OVER;
}

static void on_released(void *data, hf_lock *lock, bool was_held, const hf_error *error) {
    slot *s = data;
    CHECK(s->state == RELEASING && s->lock == lock);
    CHECK(error == NULL || !was_held);
    s->state = OVER;
}

static void on_extended(void *data, hf_lock *lock, const hf_error *error) {
    player *p = data;
    (void)lock;
    (void)error;
    CHECK(p->open_extensions > 0);
    p->open_extensions--;
}

static void do_ask(player *p, slot *s) {
    hf_slice keys[KEYS];
    hf_error error;
    size_t n = 0;
    uint32_t limit = roll(&p->dice, 4) == 0 ? HF_SHARED : 1;
    uv_mutex_lock(&judge.mutex);
    *s = (slot){.player = p, .limit = limit};
    uv_mutex_unlock(&judge.mutex);
    s->patient = roll(&p->dice, 3) == 0;
    s->keys = roll(&p->dice, 3) == 0 ? 1 + (unsigned)roll(&p->dice, (1 << KEYS) - 1)
                                     : 1u << roll(&p->dice, KEYS);
    for (unsigned k = 0; k < KEYS; k++)
        if (s->keys & (1u << k)) keys[n++] = slice(key_names[k]);
    hf_lock_options o = lock_options(keys, n);
    o.limit = s->limit;
    o.ttl_ms = PICK(&p->dice, 50, 200, 60000);
    o.wait_ms = PICK(&p->dice, 0, 20, 500, HF_FOREVER);
    o.max_hold_ms = PICK(&p->dice, HF_FOREVER, HF_FOREVER, 80);
    o.max_stall_ms = PICK(&p->dice, 60000, 60000, 60);
    o.renew = roll(&p->dice, 4) != 0;
    s->state = WAITING;
    hf_code code = hf_lock_acquire(p->h.client, &o, on_acquired, on_lost, s, &s->lock, &error);
    if (code == HF_OK) return;
    CHECK(p->closing && code == HF_ECLOSED);
    s->state = EMPTY;
}

static void do_free(slot *s) {
    judge_holder(s);
    judge_out(s);
    hf_lock *lock = s->lock;
    s->state = EMPTY; /* no callback may come any more */
    s->lock = NULL;
    hf_lock_free(lock);
}

static void do_held(player *p, slot *s) {
    judge_holder(s);
    switch (roll(&p->dice, s->patient ? 200 : 20)) {
    case 0:
        judge_out(s);
        s->state = RELEASING;
        if (hf_lock_release(s->lock, on_released, s) != HF_OK) s->state = OVER;
        CHECK(!hf_lock_held(s->lock));
        break;
    case 1:
    case 2:
        p->open_extensions++;
        if (hf_lock_extend(s->lock, PICK(&p->dice, 50, 300, 60000), on_extended, p) != HF_OK)
            p->open_extensions--;
        break;
    case 3: do_free(s); break;
    default: break;
    }
}

static void act_on_lock(player *p) {
    slot *s = &p->slots[roll(&p->dice, SLOTS)];
    switch (s->state) {
    case EMPTY: do_ask(p, s); break;
    case WAITING:
        if (roll(&p->dice, 8) == 0) {
            hf_lock_cancel(s->lock);
            s->cancelled = true;
        } else if (roll(&p->dice, 16) == 0) {
            do_free(s);
        }
        break;
    case HELD: do_held(p, s); break;
    case RELEASING:
        if (roll(&p->dice, 16) == 0) do_free(s);
        break;
    case OVER: do_free(s); break;
    }
}

/* ---------------------------------------------------------------- runs */

static void on_begun(void *data, hf_run *run, const hf_once_result *result) {
    run_slot *r = data;
    CHECK(r->state == CLAIMING && (r->run == NULL || r->run == run));
    r->run = run;
    r->state = DONE;
    if (result->error != NULL) return;
    if (result->replay) {
        CHECK_UINT(result->value.len, 2);
        return;
    }
    CHECK(!r->was_done);
    CHECK(result->fence > 0 && result->attempt > 0);
    r->state = RUNNING;
}

static void on_run_lost(void *data, hf_run *run, const hf_error *why) {
    run_slot *r = data;
    CHECK(r->state == RUNNING && r->run == run);
    CHECK_INT(why->code, HF_ELOST);
    CHECK(!hf_run_held(run));
}

static void on_finished(void *data, hf_run *run, const hf_error *error) {
    run_slot *r = data;
    CHECK(r->state == ENDING && r->run == run);
    r->state = DONE;
    if (error != NULL) return;
    uv_mutex_lock(&judge.mutex);
    CHECK_UINT(judge.run_key, r->key); /* nobody has finished it before */
    judge.run_key++;
    judge.outcomes++;
    uv_mutex_unlock(&judge.mutex);
}

static void on_abandoned(void *data, hf_run *run, const hf_error *error) {
    run_slot *r = data;
    (void)error;
    CHECK(r->state == ENDING && r->run == run);
    r->state = DONE;
}

static void do_begin(player *p, run_slot *r) {
    char key[32];
    hf_error error;
    uv_mutex_lock(&judge.mutex);
    unsigned now = judge.run_key;
    unsigned first = judge.first_run_key;
    uv_mutex_unlock(&judge.mutex);
    *r = (run_slot){.player = p, .key = now};
    if (now > first && roll(&p->dice, 8) == 0) {
        r->key = now - 1;
        r->was_done = true;
    }
    snprintf(key, sizeof(key), "run-%u", r->key);
    hf_once_options o = {.key = slice(key),
                         .ttl_ms = 0,
                         .lease_ms = PICK(&p->dice, 50, 150),
                         .wait_ms = PICK(&p->dice, 0, 100, HF_FOREVER),
                         .max_stall_ms = 60000};
    r->state = CLAIMING;
    if (hf_once_begin(p->h.client, &o, on_begun, on_run_lost, r, &r->run, &error) != HF_OK)
        r->state = NONE;
}

static void do_free_run(run_slot *r) {
    hf_run *run = r->run;
    r->state = NONE;
    r->run = NULL;
    hf_run_free(run);
}

static void act_on_run(player *p) {
    run_slot *r = &p->runs[roll(&p->dice, RUNS)];
    uint64_t what = roll(&p->dice, 12);
    switch (r->state) {
    case NONE: do_begin(p, r); break;
    case CLAIMING:
        if (what == 0) hf_run_cancel(r->run);
        if (what == 1) do_free_run(r);
        break;
    case RUNNING:
        if (what == 0) {
            do_free_run(r); /* as if its process had died */
        } else if (what < 4) {
            bool finish = what < 3;
            r->state = ENDING;
            hf_code code = finish
                               ? hf_run_finish(r->run, slice("42"), HF_JSON, false, on_finished, r)
                               : hf_run_abandon(r->run, on_abandoned, r);
            if (code != HF_OK) r->state = DONE;
        }
        break;
    case ENDING: break;
    case DONE: do_free_run(r); break;
    }
}

/* ---------------------------------------------------------------- a player */

static void on_client_closed(void *data) {
    player *p = data;
    CHECK(p->closing);
    p->closing = false;
    p->closed++;
    p->h.client = NULL;
}

static void open_client(player *p) {
    hf_error error;
    hf__url url;
    const char *why;
    if (p->vt == NULL) {
        CHECK_INT(hf_client_open(p->h.engine, slice(p->url), NULL, &p->h.client, &error), HF_OK);
        return;
    }
    judge.first_run_key = ++judge.run_key; /* a store in memory begins anew */
    CHECK(hf__url_parse(&url, slice(p->url), &p->h.engine->allocator, &why));
    hf_client_options options = HF_CLIENT_DEFAULTS;
    CHECK_INT(hf__client_new(p->h.engine, p->vt, &url, &options, &p->h.client, &error), HF_OK);
}

static void player_open(player *p) {
    host_open(&p->h, "memory:");
    hf_client_close(p->h.client, 0, NULL, NULL);
    open_client(p);
}

static void free_all(player *p) {
    for (int i = 0; i < SLOTS; i++)
        if (p->slots[i].state != EMPTY) do_free(&p->slots[i]);
    for (int i = 0; i < RUNS; i++)
        if (p->runs[i].state != NONE) do_free_run(&p->runs[i]);
}

static void player_close(player *p, bool free_first) {
    if (free_first) free_all(p);
    host_close(&p->h);
    free_all(p); /* handles outlive their engine */
    CHECK_INT(p->open_extensions, 0);
    CHECK(!p->closing);
}

static void look_at_all(player *p) {
    for (int i = 0; i < SLOTS; i++)
        if (p->slots[i].state == HELD) judge_holder(&p->slots[i]);
}

static void block(player *p) {
    for (uint64_t ms = PICK(&p->dice, 20, 120); ms > 0; ms--) {
        usleep(1000);
        look_at_all(p);
    }
}

/* Requests that come late would find no store any more. */
static void settle(player *p) {
    if (p->vt == NULL) return;
    plan_set(FAULT_NONE, HF_TAKE, 0, 0);
    host_run_ms(&p->h, DELAY_MS + 20);
}

static void misfortune(player *p) {
    if (p->vt == NULL) return;
    plan_set((fault)(1 + roll(&p->dice, 5)), (hf_verb)PICK(&p->dice, HF_TAKE, HF_KEEP, HF_DROP),
             (int)roll(&p->dice, 4), (unsigned)roll(&p->dice, DELAY_MS));
    /* The faulty store repeats only takes later. */
    if (atomic_load(&the_plan.fault) == DELAY_REQUEST && atomic_load(&the_plan.verb) != HF_TAKE)
        plan_set(FAULT_NONE, HF_TAKE, 0, 0);
}

static void act(player *p) {
    uint64_t what = roll(&p->dice, 1000);
    if (p->h.client == NULL) open_client(p);
    if (what < 5) {
        block(p);
    } else if (what < 8) {
        settle(p);
        if (!p->closing && p->h.client != NULL) {
            p->closing = true;
            hf_client_close(p->h.client, PICK(&p->dice, 0, 50), on_client_closed, p);
        }
    } else if (what < 10 && p->vt == NULL) {
        /* The process ends; or its loop goes on for a while after all. */
        hf_engine_exit(p->h.engine, 500);
        for (int i = 0; i < SLOTS; i++)
            CHECK(p->slots[i].state != HELD || !hf_lock_held(p->slots[i].lock));
        for (uint64_t i = roll(&p->dice, 4); i > 0; i--)
            uv_run(&p->h.loop, UV_RUN_NOWAIT);
        player_close(p, roll(&p->dice, 2) == 0);
        player_open(p);
    } else if (what < 30) {
        misfortune(p);
    } else if (what < 700) {
        act_on_lock(p);
    } else {
        act_on_run(p);
    }
}

/* On a machine that is busy with other things it takes longer. */
static bool has_seen_enough(const player *p) {
    uv_mutex_lock(&judge.mutex);
    bool outcomes = judge.outcomes > 0;
    uv_mutex_unlock(&judge.mutex);
    return outcomes && p->grants > 0 && p->answers > p->grants;
}

static void play(void *arg) {
    player *p = arg;
    uint64_t end = uv_hrtime() + RUN_MS * UINT64_C(1000000);
    uint64_t last = end + PATIENCE_MS * UINT64_C(1000000);
    player_open(p);
    while (uv_hrtime() < end || (!has_seen_enough(p) && uv_hrtime() < last)) {
        act(p);
        look_at_all(p);
        uv_run(&p->h.loop, UV_RUN_NOWAIT);
        if (roll(&p->dice, 4) == 0) usleep(200);
    }
    settle(p);
    player_close(p, roll(&p->dice, 2) == 0);
}

/* All that was held or on its way has been given back. */
static void check_free(const char *url) {
    host h;
    held l;
    hf_slice keys[KEYS];
    for (int k = 0; k < KEYS; k++)
        keys[k] = slice(key_names[k]);
    hf_lock_options o = lock_options(keys, KEYS);
    o.wait_ms = 0;
    host_open(&h, url);
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    CHECK_INT(l.code, HF_OK);
    hf_lock_free(l.lock);
    host_close(&h);
}

static player *players_new(size_t n, const char *url) {
    player *players = calloc(n, sizeof(*players));
    memset(&judge, 0, sizeof(judge));
    uv_mutex_init(&judge.mutex);
    judge.players = players;
    judge.n_players = n;
    for (size_t i = 0; i < n; i++) {
        players[i].dice.state = (the_seed() + i) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        snprintf(players[i].url, sizeof(players[i].url), "%s", url);
    }
    return players;
}

static void players_free(player *players) {
    CHECK(judge.outcomes > 0);
    for (size_t i = 0; i < judge.n_players; i++)
        CHECK(players[i].grants > 0 && players[i].answers > players[i].grants);
    uv_mutex_destroy(&judge.mutex);
    free(players);
}

TEST(many_hosts_on_one_file) {
    char url[512];
    uv_thread_t threads[HOSTS];
    snprintf(url, sizeof(url), "sqlite:%s/chaos.db", hf_test_folder());
    player *players = players_new(HOSTS, url);
    for (int i = 0; i < HOSTS; i++)
        CHECK_INT(uv_thread_create(&threads[i], play, &players[i]), 0);
    for (int i = 0; i < HOSTS; i++)
        uv_thread_join(&threads[i]);
    check_free(url);
    players_free(players);
}

TEST(one_host_on_a_store_that_fails) {
    player *players = players_new(1, "memory:");
    players[0].vt = faulty_vtable();
    play(&players[0]);
    players_free(players);
}
