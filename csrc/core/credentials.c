/*
 * Under the mutex: what is known, and who waits. On the host's thread alone: the questions put to
 * the function. Whoever waits is told through the mailbox of its own loop, posted under the mutex,
 * so that one who cancels on that loop finds itself in the list or in the mailbox.
 */
#include "core/credentials.h"

#include "util/alloc.h"
#include "util/clock.h"

#include <assert.h>
#include <string.h>

enum { ASK = 1, TOLD = 1 };

/* A password; wiped when nobody has it any more. */
typedef struct secret {
    uint32_t refs; /* under the mutex */
    size_t len;
    char bytes[];
} secret;

struct hf__credentials {
    const hf_allocator *allocator;
    const hf_clock *clock;
    hf__mailbox *host;
    void (*password)(void *data, hf_password *ask);
    void *data;

    uv_mutex_t mutex;
    hf__node waits;
    secret *known; /* NULL: none yet */
    uint64_t generation;
    uint64_t known_ns;

    hf__msg to_host;
    hf__node asks; /* without an answer, the newest last */
    uint32_t n_asks;
};

/* One question. It outlives its client if it must: the host may take its time. */
struct hf_password {
    hf_allocator allocator;
    hf__credentials *credentials; /* NULL: its client is gone */
    hf__node node;
    uint64_t asked_ns;
};

/* ---------------------------------------------------------------- who waits */

static void release(hf__credentials *c, secret *s) {
    if (s == NULL || --s->refs > 0) return;
    explicit_bzero(s->bytes, s->len);
    hf__free(c->allocator, s);
}

/* Under the mutex. `error` NULL: what is known is to be given. */
static void tell(hf__password_wait *wait, const hf_error *error) {
    hf__list_remove(&wait->node);
    hf__error_clear(&wait->error);
    if (error != NULL) wait->error = *error;
    hf__mailbox_post(wait->mailbox, &wait->msg, TOLD, 0);
}

static void on_told(hf__msg *msg, uint32_t bits) {
    hf__password_wait *wait = hf__of(msg, hf__password_wait, msg);
    hf__credentials *c = wait->credentials;
    secret *s;

    (void)bits;
    wait->credentials = NULL;
    if (wait->error.code != HF_OK) {
        wait->done(wait, (hf_slice){NULL, 0}, &wait->error);
        return;
    }
    uv_mutex_lock(&c->mutex);
    s = c->known;
    s->refs++;
    wait->generation = c->generation;
    uv_mutex_unlock(&c->mutex);
    wait->done(wait, (hf_slice){s->bytes, s->len}, NULL);
    uv_mutex_lock(&c->mutex);
    release(c, s);
    uv_mutex_unlock(&c->mutex);
}

/* Under the mutex: whether what is known may help. */
static bool is_known(const hf__credentials *c, const hf__password_wait *wait) {
    return c->known != NULL && (!wait->fresh || wait->generation != c->generation);
}

void hf__password_ask(const hf__store_env *env, hf__password_wait *wait) {
    hf__credentials *c = env->credentials;
    bool old;

    assert(wait->credentials == NULL && env->mailbox != NULL);
    wait->credentials = c;
    wait->mailbox = env->mailbox;
    hf__list_init(&wait->node);
    hf__msg_init(&wait->msg, on_told);
    uv_mutex_lock(&c->mutex);
    old = !is_known(c, wait) ||
          hf__now_ns(c->clock) >= hf__add_ms(c->known_ns, HF__PASSWORD_FRESH_MS);
    hf__list_push(&c->waits, &wait->node);
    /* Whoever may block takes what there is, and the next one finds a newer. */
    if (is_known(c, wait) && (!old || env->blocking)) tell(wait, NULL);
    if (old) hf__mailbox_post(c->host, &c->to_host, ASK, 0);
    uv_mutex_unlock(&c->mutex);
}

void hf__password_cancel(hf__password_wait *wait) {
    hf__credentials *c = wait->credentials;

    if (c == NULL) return;
    wait->credentials = NULL;
    uv_mutex_lock(&c->mutex);
    hf__list_remove(&wait->node);
    (void)hf__mailbox_recall(wait->mailbox, &wait->msg, TOLD);
    uv_mutex_unlock(&c->mutex);
}

/* Everyone who waits hears of the failure, but for those whom what is known may help. */
static void tell_all(hf__credentials *c, const hf_error *error) {
    hf__node *node;

    uv_mutex_lock(&c->mutex);
    while ((node = hf__list_first(&c->waits)) != NULL) {
        hf__password_wait *wait = hf__of(node, hf__password_wait, node);
        tell(wait, error != NULL && !is_known(c, wait) ? error : NULL);
    }
    uv_mutex_unlock(&c->mutex);
}

/* ---------------------------------------------------------------- the host */

/* Whether there is a question that may still be answered soon. */
static bool is_asking(const hf__credentials *c) {
    const hf_password *newest;

    if (hf__list_empty(&c->asks)) return false;
    newest = hf__of(c->asks.prev, hf_password, node);
    return hf__now_ns(c->clock) < hf__add_ms(newest->asked_ns, HF__PASSWORD_ANSWER_MS);
}

static void on_ask(hf__msg *msg, uint32_t bits) {
    hf__credentials *c = hf__of(msg, hf__credentials, to_host);
    hf_password *ask;
    hf_error error;

    (void)bits;
    if (is_asking(c)) return;
    if (c->n_asks == HF__PASSWORD_ASKS_MAX) {
        hf__error_set(&error, HF_ECALLBACK, HF_RETRYABLE,
                      "the function that gives the password does not answer: it was called %d "
                      "times",
                      HF__PASSWORD_ASKS_MAX);
        tell_all(c, &error);
        return;
    }
    ask = hf__zalloc(c->allocator, sizeof *ask);
    if (ask == NULL) {
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
        tell_all(c, &error);
        return;
    }
    ask->allocator = *c->allocator;
    ask->credentials = c;
    ask->asked_ns = hf__now_ns(c->clock);
    hf__list_push(&c->asks, &ask->node);
    c->n_asks++;
    c->password(c->data, ask);
}

static bool learn(hf__credentials *c, hf_slice password) {
    secret *s = hf__alloc(c->allocator, sizeof *s + password.len);

    if (s == NULL) return false;
    s->refs = 1;
    s->len = password.len;
    memcpy(s->bytes, password.data, password.len);
    uv_mutex_lock(&c->mutex);
    release(c, c->known);
    c->known = s;
    c->generation++;
    c->known_ns = hf__now_ns(c->clock);
    uv_mutex_unlock(&c->mutex);
    return true;
}

/* A failure is told in the host's words, unless they quote a password. */
static void explain(const hf__credentials *c, const char *failure, hf_error *error) {
    const secret *s = c->known;

    if (s != NULL && memmem(failure, strlen(failure), s->bytes, s->len) != NULL)
        failure = "what it said quotes the password";
    hf__error_set(error, HF_ECALLBACK, HF_RETRYABLE,
                  "the function that gives the password failed: %.160s", failure);
}

static void take_answer(hf__credentials *c, bool is_newest, hf_slice password,
                        const char *failure) {
    hf_error error;

    if (failure == NULL && password.len == 0) failure = "it gave an empty one";
    if (failure == NULL) {
        if (learn(c, password)) {
            tell_all(c, NULL);
            return;
        }
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
    } else {
        explain(c, failure, &error);
    }
    /* After one that came too late a newer is under way, for which those who wait can wait. */
    if (is_newest) tell_all(c, &error);
}

void hf_password_give(hf_password *ask, hf_slice password, const char *failure) {
    hf__credentials *c = ask->credentials;
    hf_allocator allocator = ask->allocator;

    if (c != NULL) {
        bool is_newest = c->asks.prev == &ask->node;
        hf__list_remove(&ask->node);
        c->n_asks--;
        take_answer(c, is_newest, password, failure);
    }
    hf__free(&allocator, ask);
}

/* ---------------------------------------------------------------- life */

hf_code hf__credentials_new(const hf_client_options *options, const hf_allocator *allocator,
                            const hf_clock *clock, hf__mailbox *host, hf__credentials **out,
                            hf_error *error) {
    hf__credentials *c = hf__zalloc(allocator, sizeof *c);
    int rc;

    if (c == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    rc = uv_mutex_init(&c->mutex);
    if (rc != 0) {
        hf__free(allocator, c);
        return hf__error_native(error, HF_EIO, 0, rc, "no mutex could be made");
    }
    c->allocator = allocator;
    c->clock = clock;
    c->host = host;
    c->password = options->password;
    c->data = options->password_data;
    hf__list_init(&c->waits);
    hf__list_init(&c->asks);
    hf__msg_init(&c->to_host, on_ask);
    *out = c;
    return HF_OK;
}

void hf__credentials_free(hf__credentials *c) {
    hf__node *node;

    if (c == NULL) return;
    assert(hf__list_empty(&c->waits));
    (void)hf__mailbox_recall(c->host, &c->to_host, ASK);
    while ((node = hf__list_pop(&c->asks)) != NULL)
        hf__of(node, hf_password, node)->credentials = NULL;
    release(c, c->known);
    uv_mutex_destroy(&c->mutex);
    hf__free(c->allocator, c);
}
