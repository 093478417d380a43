/*
 * The password that a function of the host's gives, for both instances of a client. The function
 * runs on the host's loop; what it gave last is known to both, so that the keeper can sign in
 * while JavaScript is stuck. Nothing here keeps a loop alive.
 */
#ifndef HF_CORE_CREDENTIALS_H
#define HF_CORE_CREDENTIALS_H

#include "core/mailbox.h"
#include "core/store.h"

#define HF__PASSWORD_FRESH_MS 60000  /* so long what is known is used without asking again */
#define HF__PASSWORD_ANSWER_MS 30000 /* after which a question is put again */
#define HF__PASSWORD_ASKS_MAX 8      /* questions of one client without an answer */

/* Who waits for the password. The owner keeps it in place until `done` or hf__password_cancel,
 * and may use it again from then on. Zeroed before its first use. */
typedef struct hf__password_wait {
    /* On the asker's loop, once, within its scope; the password lasts during the call, and
     * `error` is NULL. Or there is none, and `error` says why. */
    void (*done)(struct hf__password_wait *wait, hf_slice password, const hf_error *error);
    void *data;
    /* The server has refused the password of `generation`: another one is wanted. */
    bool fresh;
    /* Which password `done` was given: keep it from one connection to the next. */
    uint64_t generation;

    /* private */
    hf__credentials *credentials;
    hf__mailbox *mailbox;
    hf__node node;
    hf__msg msg;
    hf_error error;
} hf__password_wait;

/* Whether a function gives the password of this store. */
static inline bool hf__password_is_asked(const hf__store_env *env) {
    return env->credentials != NULL;
}

/* Asks for it; `done` follows, not inside this call. On the thread of env->loop. What is known is
 * given unless it is the one that was refused, or, but for the keeper, is older than
 * HF__PASSWORD_FRESH_MS. Errors: HF_ECALLBACK (the function failed, or does not answer),
 * HF_ENOMEM. There is no time limit: who has one cancels. */
void hf__password_ask(const hf__store_env *env, hf__password_wait *wait);
/* `done` will not run; harmless if nothing is waited for. On the same thread. */
void hf__password_cancel(hf__password_wait *wait);

/* ---- for the client that owns it; on the host's loop */

/* `host`: the mailbox of that loop. HF_ENOMEM, HF_EIO. */
hf_code hf__credentials_new(const hf_client_options *options, const hf_allocator *allocator,
                            const hf_clock *clock, hf__mailbox *host, hf__credentials **out,
                            hf_error *error);
/* Nobody waits any more. Questions without an answer are forgotten; answering them stays allowed.
 * NULL is fine. */
void hf__credentials_free(hf__credentials *credentials);

#endif
