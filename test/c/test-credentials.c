/* The password that a function gives: when it is asked, who is told, and on which thread. */
#include "support-host.h"

#include "core/credentials.h"
#include "prim/client.h"
#include "store/registry.h"
#include "util/alloc.h"
#include "util/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- a client's side of it */

static _Atomic uint64_t fake_ms;

static uint64_t fake_ns(void *data) {
    (void)data;
    return atomic_load(&fake_ms) * HF_NS_PER_MS;
}

static const hf_clock fake_clock = {.boot_ns = fake_ns, .boot_id = "boot"};

/* A loop with a mailbox: the host's, or the keeper's. */
typedef struct side {
    uv_loop_t loop;
    hf__mailbox mailbox;
    hf__store_env env;
} side;

/* A host whose function keeps the questions until the test answers them. */
typedef struct world {
    side host;
    hf__credentials *credentials;
    hf_password *asks[16];
    int n_asked;
    const char *at_once; /* answered within the call; NULL: not */
    bool calling;
} world;

static void on_password(void *data, hf_password *ask) {
    world *w = data;
    CHECK(!w->calling);
    REQUIRE(w->n_asked < 16);
    w->asks[w->n_asked++] = ask;
    if (w->at_once != NULL) hf_password_give(ask, slice(w->at_once), NULL);
}

static void side_open(side *s, hf__credentials *credentials, bool blocking) {
    REQUIRE(uv_loop_init(&s->loop) == 0);
    REQUIRE(hf__mailbox_init(&s->mailbox, &s->loop, NULL, NULL) == 0);
    s->env = (hf__store_env){
        .loop = &s->loop, .mailbox = &s->mailbox, .credentials = credentials, .blocking = blocking};
}

static void side_close(side *s) {
    hf__mailbox_close(&s->mailbox, NULL, NULL);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&s->loop), 0);
}

static void world_open_with(world *w, const hf_allocator *allocator) {
    hf_error error;
    memset(w, 0, sizeof(*w));
    atomic_store(&fake_ms, 1000);
    side_open(&w->host, NULL, false);
    hf_client_options options = {.password = on_password, .password_data = w};
    REQUIRE_INT(hf__credentials_new(&options, allocator, &fake_clock, &w->host.mailbox,
                                    &w->credentials, &error),
                HF_OK);
    w->host.env.credentials = w->credentials;
}

static void world_open(world *w) {
    world_open_with(w, hf__allocator_libc());
}

static void world_close(world *w) {
    hf__credentials_free(w->credentials);
    side_close(&w->host);
}

/* What somebody who waits was told. */
typedef struct asker {
    hf__password_wait wait;
    int told;
    char password[32];
    hf_error error;
    uv_thread_t thread; /* on which */
    bool inside;        /* hf__password_ask is running */
    side *side;         /* of the last time it asked */
} asker;

static void on_done(hf__password_wait *wait, hf_slice password, const hf_error *error) {
    asker *a = wait->data;
    CHECK(!a->inside);
    a->told++;
    a->thread = uv_thread_self();
    a->error = error != NULL ? *error : (hf_error){0};
    CHECK(password.len < sizeof(a->password));
    memset(a->password, 0, sizeof(a->password));
    if (password.len > 0) memcpy(a->password, password.data, password.len);
}

static void ask(side *s, asker *a) {
    a->wait.done = on_done;
    a->wait.data = a;
    a->side = s;
    a->inside = true;
    hf__password_ask(&s->env, &a->wait);
    a->inside = false;
}

/* A few turns, in which who waits may be told. Nothing but this keeps the loop alive. */
static void turn(side *s) {
    uv_ref((uv_handle_t *)&s->mailbox.async);
    for (int i = 0; i < 3; i++)
        uv_run(&s->loop, UV_RUN_NOWAIT);
    uv_unref((uv_handle_t *)&s->mailbox.async);
}

static void check_told(const asker *a, int times, const char *password) {
    CHECK_INT(a->told, times);
    CHECK_INT(a->error.code, HF_OK);
    CHECK_STR(a->password, password);
}

/* Asks as often as it takes to know this one. */
static void know(world *w, const char *password) {
    asker a = {0};
    int asked = w->n_asked;
    w->at_once = password;
    ask(&w->host, &a);
    turn(&w->host);
    check_told(&a, 1, password);
    CHECK_INT(w->n_asked, asked + 1);
    w->at_once = NULL;
}

/* ---------------------------------------------------------------- one thread */

TEST(it_is_asked_for_and_told_later) {
    world w;
    asker a = {0};
    world_open(&w);
    ask(&w.host, &a);
    CHECK_INT(w.n_asked, 0);
    turn(&w.host);
    CHECK_INT(w.n_asked, 1);
    CHECK_INT(a.told, 0);
    hf_password_give(w.asks[0], slice("s3cret"), NULL);
    CHECK_INT(a.told, 0);
    turn(&w.host);
    check_told(&a, 1, "s3cret");
    world_close(&w);
}

TEST(it_may_be_answered_at_once) {
    world w;
    world_open(&w);
    know(&w, "now");
    world_close(&w);
}

TEST(it_does_not_keep_a_loop_alive) {
    world w;
    asker a = {0};
    world_open(&w);
    ask(&w.host, &a);
    turn(&w.host);
    CHECK_INT(uv_run(&w.host.loop, UV_RUN_DEFAULT), 0);
    hf__password_cancel(&a.wait);
    hf_password_give(w.asks[0], slice("x"), NULL);
    CHECK_INT(a.told, 0);
    world_close(&w);
}

TEST(what_is_known_is_used_for_a_minute) {
    world w;
    asker a = {0};
    world_open(&w);
    know(&w, "one");
    atomic_fetch_add(&fake_ms, HF__PASSWORD_FRESH_MS - 1);
    ask(&w.host, &a);
    turn(&w.host);
    check_told(&a, 1, "one");
    CHECK_INT(w.n_asked, 1);
    atomic_fetch_add(&fake_ms, 1);
    ask(&w.host, &a);
    turn(&w.host);
    CHECK_INT(a.told, 1);
    CHECK_INT(w.n_asked, 2);
    hf_password_give(w.asks[1], slice("two"), NULL);
    turn(&w.host);
    check_told(&a, 2, "two");
    world_close(&w);
}

TEST(one_that_was_refused_is_not_given_again) {
    world w;
    asker a = {0}, b = {0};
    world_open(&w);
    know(&w, "old");
    ask(&w.host, &a);
    ask(&w.host, &b);
    turn(&w.host);
    check_told(&a, 1, "old");
    /* Both have signed in with it, and both were refused: the first asks for another. */
    a.wait.fresh = b.wait.fresh = true;
    ask(&w.host, &a);
    turn(&w.host);
    CHECK_INT(a.told, 1);
    CHECK_INT(w.n_asked, 2);
    hf_password_give(w.asks[1], slice("new"), NULL);
    turn(&w.host);
    check_told(&a, 2, "new");
    /* The second finds that there is one. */
    ask(&w.host, &b);
    turn(&w.host);
    check_told(&b, 2, "new");
    CHECK_INT(w.n_asked, 2);
    world_close(&w);
}

TEST(all_who_wait_share_one_question) {
    world w;
    asker a[5] = {0};
    world_open(&w);
    for (int i = 0; i < 5; i++) {
        ask(&w.host, &a[i]);
        turn(&w.host);
    }
    CHECK_INT(w.n_asked, 1);
    hf_password_give(w.asks[0], slice("ours"), NULL);
    turn(&w.host);
    for (int i = 0; i < 5; i++)
        check_told(&a[i], 1, "ours");
    world_close(&w);
}

TEST(who_cancels_is_not_told) {
    world w;
    asker a = {0}, b = {0};
    world_open(&w);
    hf__password_cancel(&a.wait); /* who never asked */
    ask(&w.host, &a);
    hf__password_cancel(&a.wait);
    turn(&w.host);
    ask(&w.host, &a);
    ask(&w.host, &b);
    turn(&w.host);
    hf_password_give(w.asks[0], slice("x"), NULL);
    hf__password_cancel(&a.wait); /* it is on its way */
    hf__password_cancel(&a.wait);
    turn(&w.host);
    CHECK_INT(a.told, 0);
    check_told(&b, 1, "x");
    ask(&w.host, &a); /* and may ask again */
    turn(&w.host);
    check_told(&a, 1, "x");
    hf__password_cancel(&a.wait);
    world_close(&w);
}

static void again(hf__password_wait *wait, hf_slice password, const hf_error *error) {
    asker *a = wait->data;
    (void)password;
    (void)error;
    if (++a->told < 3) hf__password_ask(&a->side->env, wait);
}

TEST(it_may_be_asked_for_again_when_it_is_told) {
    world w;
    asker a = {0};
    world_open(&w);
    know(&w, "x");
    a.wait.done = again;
    a.wait.data = &a;
    a.side = &w.host;
    hf__password_ask(&w.host.env, &a.wait);
    turn(&w.host);
    CHECK_INT(a.told, 3);
    world_close(&w);
}

/* ---------------------------------------------------------------- failures */

static void check_failed(const asker *a, int times, const char *message) {
    CHECK_INT(a->told, times);
    CHECK_INT(a->error.code, HF_ECALLBACK);
    CHECK_UINT(a->error.flags, HF_RETRYABLE);
    CHECK_STR(a->error.message, message);
    CHECK_STR(a->password, "");
}

TEST(a_failure_is_told_and_asked_about_again) {
    world w;
    asker a = {0};
    world_open(&w);
    ask(&w.host, &a);
    turn(&w.host);
    hf_password_give(w.asks[0], (hf_slice){0}, "the vault is shut");
    turn(&w.host);
    check_failed(&a, 1, "the function that gives the password failed: the vault is shut");
    ask(&w.host, &a);
    turn(&w.host);
    hf_password_give(w.asks[1], slice(""), NULL);
    turn(&w.host);
    check_failed(&a, 2, "the function that gives the password failed: it gave an empty one");
    ask(&w.host, &a);
    turn(&w.host);
    hf_password_give(w.asks[2], slice("open"), NULL);
    turn(&w.host);
    check_told(&a, 3, "open");
    world_close(&w);
}

TEST(after_a_failure_what_is_known_still_helps) {
    world w;
    asker a = {0}, refused = {0};
    world_open(&w);
    know(&w, "old");
    ask(&w.host, &refused);
    turn(&w.host);
    atomic_fetch_add(&fake_ms, HF__PASSWORD_FRESH_MS);
    refused.wait.fresh = true;
    ask(&w.host, &a);
    ask(&w.host, &refused);
    turn(&w.host);
    CHECK_INT(w.n_asked, 2);
    hf_password_give(w.asks[1], (hf_slice){0}, "no");
    turn(&w.host);
    check_told(&a, 1, "old");
    check_failed(&refused, 2, "the function that gives the password failed: no");
    world_close(&w);
}

TEST(no_failure_quotes_the_password) {
    world w;
    asker a = {0};
    world_open(&w);
    know(&w, "s3cret");
    ask(&w.host, &a);
    turn(&w.host);
    a.wait.fresh = true;
    ask(&w.host, &a);
    turn(&w.host);
    hf_password_give(w.asks[1], (hf_slice){0}, "not 's3cret' again");
    turn(&w.host);
    check_failed(&a, 2,
                 "the function that gives the password failed: what it said quotes the password");
    world_close(&w);
}

TEST(one_that_does_not_answer_is_called_again_and_not_for_ever) {
    world w;
    asker a = {0}, late = {0};
    world_open(&w);
    for (int i = 0; i < HF__PASSWORD_ASKS_MAX; i++) {
        ask(&w.host, &a);
        turn(&w.host);
        CHECK_INT(w.n_asked, i + 1);
        hf__password_cancel(&a.wait);
        atomic_fetch_add(&fake_ms, HF__PASSWORD_ANSWER_MS - 1);
        ask(&w.host, &a);
        turn(&w.host);
        CHECK_INT(w.n_asked, i + 1);
        hf__password_cancel(&a.wait);
        atomic_fetch_add(&fake_ms, 1);
    }
    ask(&w.host, &a);
    turn(&w.host);
    CHECK_INT(w.n_asked, HF__PASSWORD_ASKS_MAX);
    check_failed(&a, 1,
                 "the function that gives the password does not answer: it was called 8 times");
    /* A late failure of an old question leaves those alone who wait for a newer. */
    hf_password_give(w.asks[0], (hf_slice){0}, "too late");
    ask(&w.host, &late);
    turn(&w.host);
    CHECK_INT(w.n_asked, HF__PASSWORD_ASKS_MAX + 1);
    hf_password_give(w.asks[1], (hf_slice){0}, "too late");
    turn(&w.host);
    CHECK_INT(late.told, 0);
    /* A late answer is as good as any. */
    hf_password_give(w.asks[2], slice("late"), NULL);
    turn(&w.host);
    check_told(&late, 1, "late");
    hf_password *left[HF__PASSWORD_ASKS_MAX];
    for (int i = 3; i <= HF__PASSWORD_ASKS_MAX; i++)
        left[i - 1] = w.asks[i];
    world_close(&w);
    /* And what comes after the end is nothing to anyone. */
    for (int i = 3; i <= HF__PASSWORD_ASKS_MAX; i++)
        hf_password_give(left[i - 1], slice("later"), i % 2 == 0 ? NULL : "gone");
}

/* ---------------------------------------------------------------- the keeper's thread */

typedef struct keeper {
    world *w;
    asker a;
    _Atomic int asked;
} keeper;

/* Asks, and runs its loop until it is told. */
static void keeper_main(void *arg) {
    keeper *k = arg;
    side s;
    side_open(&s, k->w->credentials, true);
    int told = k->a.told;
    ask(&s, &k->a);
    atomic_store(&k->asked, 1);
    uv_ref((uv_handle_t *)&s.mailbox.async);
    while (k->a.told == told)
        uv_run(&s.loop, UV_RUN_ONCE);
    CHECK(uv_thread_equal(&k->a.thread, &(uv_thread_t){uv_thread_self()}));
    side_close(&s);
}

TEST(the_keeper_is_given_what_is_known_while_the_host_is_stuck) {
    world w;
    keeper k = {.w = &w};
    uv_thread_t thread;
    world_open(&w);
    know(&w, "old but good");
    atomic_fetch_add(&fake_ms, 10 * HF__PASSWORD_FRESH_MS);
    REQUIRE(uv_thread_create(&thread, keeper_main, &k) == 0);
    uv_thread_join(&thread); /* our loop does not turn meanwhile */
    check_told(&k.a, 1, "old but good");
    CHECK_INT(w.n_asked, 1);
    turn(&w.host); /* once it does, a newer one is asked for */
    CHECK_INT(w.n_asked, 2);
    hf_password_give(w.asks[1], slice("new"), NULL);
    asker a = {0};
    ask(&w.host, &a);
    turn(&w.host);
    check_told(&a, 1, "new");
    world_close(&w);
}

TEST(the_keeper_waits_for_the_host_where_nothing_helps) {
    for (int refused = 0; refused < 2; refused++) {
        world w;
        keeper k = {.w = &w};
        uv_thread_t thread;
        world_open(&w);
        if (refused == 1) {
            know(&w, "old");
            k.a.wait.fresh = true;
            k.a.wait.generation = 1;
        }
        w.at_once = "new";
        REQUIRE(uv_thread_create(&thread, keeper_main, &k) == 0);
        while (w.n_asked < refused + 1) {
            uv_ref((uv_handle_t *)&w.host.mailbox.async);
            uv_run(&w.host.loop, UV_RUN_ONCE);
        }
        uv_thread_join(&thread);
        check_told(&k.a, 1, "new");
        uv_unref((uv_handle_t *)&w.host.mailbox.async);
        world_close(&w);
    }
}

/* Asks and cancels on one thread, while the other answers. */
static void restless_main(void *arg) {
    keeper *k = arg;
    side s;
    side_open(&s, k->w->credentials, true);
    for (int i = 0; i < 300; i++) {
        asker a = {0};
        a.wait.fresh = i % 2 == 0;
        a.wait.generation = (uint64_t)i / 2;
        ask(&s, &a);
        if (i % 3 != 0) turn(&s);
        hf__password_cancel(&a.wait);
        int told = a.told;
        turn(&s);
        CHECK_INT(a.told, told);
    }
    side_close(&s);
    atomic_store(&k->asked, 1);
    uv_async_send(&k->w->host.mailbox.async);
}

TEST(cancelling_and_answering_may_cross) {
    world w;
    keeper k = {.w = &w};
    uv_thread_t thread;
    world_open(&w);
    w.at_once = "x";
    REQUIRE(uv_thread_create(&thread, restless_main, &k) == 0);
    uv_ref((uv_handle_t *)&w.host.mailbox.async);
    while (atomic_load(&k.asked) == 0) {
        uv_run(&w.host.loop, UV_RUN_ONCE);
        w.n_asked = 0;
    }
    uv_thread_join(&thread);
    uv_unref((uv_handle_t *)&w.host.mailbox.async);
    world_close(&w);
}

/* ---------------------------------------------------------------- memory */

static atomic_long countdown;
static atomic_long blocks;

static void *scarce_resize(void *data, void *p, size_t size) {
    (void)data;
    if (size == 0) {
        if (p != NULL) atomic_fetch_sub(&blocks, 1);
        free(p);
        return NULL;
    }
    if (atomic_load(&countdown) > 0 && atomic_fetch_sub(&countdown, 1) == 1) return NULL;
    void *q = realloc(p, size);
    if (p == NULL && q != NULL) atomic_fetch_add(&blocks, 1);
    return q;
}

static const hf_allocator scarce = {.resize = scarce_resize};

TEST(without_memory_there_is_no_password_and_no_harm) {
    for (long n = 1; n <= 2; n++) {
        world w;
        asker a = {0};
        world_open_with(&w, &scarce);
        w.at_once = "s3cret";
        atomic_store(&countdown, n); /* the question, then what was given */
        ask(&w.host, &a);
        turn(&w.host);
        CHECK_INT(a.told, 1);
        CHECK_INT(a.error.code, HF_ENOMEM);
        ask(&w.host, &a);
        turn(&w.host);
        check_told(&a, 2, "s3cret");
        world_close(&w);
        CHECK_INT(atomic_load(&blocks), 0);
    }
    hf__credentials *c;
    hf_error error;
    hf_client_options options = {.password = on_password};
    atomic_store(&countdown, 1);
    CHECK_INT(hf__credentials_new(&options, &scarce, &fake_clock, NULL, &c, &error), HF_ENOMEM);
}

/* ---------------------------------------------------------------- a client */

/* A memory store that signs in first: what its instances were given. */
static hf_store_vtable shy;
static const hf_store_vtable *memory;
static asker signing[2]; /* the host's, the keeper's */
static hf_op *opening[2];
static hf_store *stores[2];
static _Atomic int signed_in;
static bool impatient; /* it opens without the password, and goes on waiting for it */

static void on_signed(hf__password_wait *wait, hf_slice password, const hf_error *error) {
    int i = wait == &signing[1].wait;
    on_done(wait, password, error);
    atomic_fetch_add(&signed_in, 1);
    if (opening[i] != NULL) memory->open(stores[i], opening[i]);
    opening[i] = NULL;
}

static void shy_open(hf_store *store, hf_op *op) {
    int i = store->env.blocking ? 1 : 0;
    CHECK(hf__password_is_asked(&store->env));
    stores[i] = store;
    opening[i] = impatient ? NULL : op;
    if (impatient) memory->open(store, op);
    signing[i].wait.done = on_signed;
    signing[i].wait.data = &signing[i];
    hf__password_ask(&store->env, &signing[i].wait);
}

static void shy_close(hf_store *store, hf_op *op) {
    int i = store->env.blocking ? 1 : 0;
    hf__password_cancel(&signing[i].wait);
    memory->close(store, op);
}

typedef struct vault {
    hf_password *ask;
    int asked;
} vault;

static void on_vault(void *data, hf_password *question) {
    vault *v = data;
    v->ask = question;
    v->asked++;
}

static void shy_client(host *h, vault *v, bool hurry) {
    hf_error error;
    hf__url url;
    const char *why;
    memory = hf__store_find(slice("memory"));
    shy = *memory;
    shy.open = shy_open;
    shy.close = shy_close;
    shy.params = "password";
    memset(signing, 0, sizeof(signing));
    atomic_store(&signed_in, 0);
    impatient = hurry;
    memset(v, 0, sizeof(*v));
    host_open(h, "memory:");
    hf_client_close(h->client, 0, NULL, NULL);
    hf_client_options options = HF_CLIENT_DEFAULTS;
    options.password = on_vault;
    options.password_data = v;
    REQUIRE(hf__url_parse(&url, slice("memory:"), &h->engine->allocator, &why));
    REQUIRE_INT(hf__client_new(h->engine, &shy, &url, &options, &h->client, &error), HF_OK);
}

static void on_connected(void *data, const hf_error *error, const hf_vote *votes, size_t n_votes) {
    CHECK_NULL(error);
    CHECK(votes == NULL && n_votes == 0);
    ++*(int *)data;
}

TEST(both_instances_of_a_client_sign_in) {
    host h;
    vault v;
    held l;
    int connected = 0;
    shy_client(&h, &v, false);
    CHECK_INT(hf_client_connect(h.client, on_connected, &connected), HF_OK);
    CHECK_INT(v.asked, 0);
    host_until(&h, &v.asked, 1);
    hf_password_give(v.ask, slice("s3cret"), NULL);
    host_until(&h, &connected, 1);
    check_told(&signing[0], 1, "s3cret");
    /* A lock that is renewed, and a loop that does not turn: the keeper goes on by itself. */
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    o.ttl_ms = 600;
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    for (int i = 0; i < 3000 && atomic_load(&signed_in) < 2; i++)
        uv_sleep(1);
    CHECK_INT(atomic_load(&signed_in), 2);
    CHECK(hf_lock_held(l.lock));
    CHECK_INT(v.asked, 1);
    hf_lock_free(l.lock);
    host_close(&h);
    check_told(&signing[1], 1, "s3cret");
}

TEST(a_client_may_be_closed_while_it_asks) {
    host h;
    vault v;
    int connected = 0;
    shy_client(&h, &v, true);
    CHECK_INT(hf_client_connect(h.client, on_connected, &connected), HF_OK);
    host_until(&h, &v.asked, 1);
    host_close(&h);
    CHECK_INT(signing[0].told, 0);
    /* Client, engine and loop are gone; the answer is still due, and frees the question. */
    hf_password_give(v.ask, slice("s3cret"), NULL);
}

TEST(or_before_it_could_ask) {
    host h;
    vault v;
    int connected = 0;
    shy_client(&h, &v, true);
    CHECK_INT(hf_client_connect(h.client, on_connected, &connected), HF_OK);
    host_close(&h);
    CHECK(v.asked <= 1);
    if (v.asked == 1) hf_password_give(v.ask, (hf_slice){0}, "too late");
}

TEST(a_store_without_a_password_refuses_the_function) {
    host h;
    hf_error error;
    hf_client *client = NULL;
    hf_setting password = {slice("password"), slice("s3cret")};
    hf_client_options options = HF_CLIENT_DEFAULTS;
    options.password = on_vault;
    host_open(&h, "memory:");
    CHECK_INT(hf_client_open(h.engine, slice("memory:"), &options, &client, &error), HF_EINVAL);
    CHECK_STR(error.message, "the memory store has no setting \"password\"; it takes: none");
    options.settings = &password;
    options.n_settings = 1;
    hf__url url;
    const char *why;
    REQUIRE(hf__url_parse(&url, slice("memory:"), &h.engine->allocator, &why));
    shy = *hf__store_find(slice("memory"));
    shy.params = "password";
    CHECK_INT(hf__client_new(h.engine, &shy, &url, &options, &client, &error), HF_EINVAL);
    CHECK_STR(error.message, "password is given as a setting and as a function: give one");
    host_close(&h);
}
