/*
 * What only PostgreSQL gives, on the client of a postgres: URL. It is made when it is first asked
 * for, and ends with the client: before the store does, for it stands on the client's settings.
 */
#include "pg/advisory.h"
#include "prim/client.h"
#include "util/alloc.h"

#include <string.h>

#ifdef HF_WITHOUT_LIBPQ

/* There is no client of a postgres: URL, so no handle either. */
void hf_pg_lock_cancel(hf_pg_lock *lock) {
    (void)lock;
}

bool hf_pg_lock_held(hf_pg_lock *lock) {
    (void)lock;
    return false;
}

hf_code hf_pg_lock_release(hf_pg_lock *lock,
                           void (*cb)(void *data, hf_pg_lock *lock, bool was_held,
                                      const hf_error *error),
                           void *data) {
    (void)lock;
    (void)cb;
    (void)data;
    return HF_ELOST;
}

void hf_pg_lock_free(hf_pg_lock *lock) {
    (void)lock;
}

hf_code hf_pg_lock_acquire(hf_client *client, const hf_pg_lock_options *options,
                           void (*acquired)(void *data, hf_pg_lock *lock,
                                            const hf_pg_lock_result *result),
                           void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                           void *data, hf_pg_lock **out, hf_error *error) {
    (void)client;
    (void)options;
    (void)acquired;
    (void)lost;
    (void)data;
    (void)out;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

hf_code hf_pg_holders(hf_client *client,
                      void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                 const hf_error *error),
                      void *data, hf_error *error) {
    (void)client;
    (void)cb;
    (void)data;
    return hf__error_set(error, HF_ENOTSUP, 0, "this build of Holdfast has no PostgreSQL");
}

#else

typedef struct hf__postgres {
    hf_client *client;
    hf__advisory *advisory;
    hf__waiter draining; /* in client->waiting: it is to end */
    hf__waiter forcing;  /* in client->running: and at once */
} hf__postgres;

static void on_drain(hf__waiter *waiter) {
    hf__advisory_drain(hf__of(waiter, hf__postgres, draining)->advisory);
}

static void on_force(hf__waiter *waiter) {
    hf__advisory_force(hf__of(waiter, hf__postgres, forcing)->advisory);
}

static void on_closed(void *data) {
    hf__postgres *p = data;
    hf_client *client = p->client;

    hf__list_remove(&p->draining.node);
    hf__list_remove(&p->forcing.node);
    hf__free(&client->engine->allocator, p);
    client->postgres = NULL;
    hf__client_unhold(client);
}

static hf_code make(hf_client *client, hf_error *error) {
    hf__postgres *p = hf__zalloc(&client->engine->allocator, sizeof *p);
    hf__store_env env;

    if (p == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    hf__client_env(client, &env);
    if (hf__advisory_new(client->engine, &env, on_closed, p, &p->advisory, error) != HF_OK) {
        hf__free(&client->engine->allocator, p);
        return error->code;
    }
    p->client = client;
    p->draining.stop = on_drain;
    p->forcing.stop = on_force;
    hf__list_push(&client->waiting, &p->draining.node);
    hf__list_push(&client->running, &p->forcing.node);
    hf__client_hold(client);
    client->postgres = p;
    return HF_OK;
}

/* HF_OK: the client has what PostgreSQL gives, and accepts. */
static hf_code need(hf_client *client, hf_error *error) {
    if (strcmp(client->vt->name, "postgres") != 0)
        return hf__error_set(error, HF_ENOTSUP, 0,
                             "this is for PostgreSQL: the client's store is %s", client->vt->name);
    if (hf__client_accepts(client, error) != HF_OK) return error->code;
    return client->postgres != NULL ? HF_OK : make(client, error);
}

hf_code hf_pg_lock_acquire(hf_client *client, const hf_pg_lock_options *options,
                           void (*acquired)(void *data, hf_pg_lock *lock,
                                            const hf_pg_lock_result *result),
                           void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                           void *data, hf_pg_lock **out, hf_error *error) {
    if (need(client, error) != HF_OK) return error->code;
    return hf__advisory_acquire(client->postgres->advisory, options, acquired, lost, data, out,
                                error);
}

hf_code hf_pg_holders(hf_client *client,
                      void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                 const hf_error *error),
                      void *data, hf_error *error) {
    if (need(client, error) != HF_OK) return error->code;
    return hf__advisory_list(client->postgres->advisory, cb, data, error);
}

#endif
