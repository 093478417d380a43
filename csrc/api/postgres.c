/*
 * What only PostgreSQL gives, on the client of a postgres: URL. It is made when it is first asked
 * for, and ends with the client: before the store does, for it stands on the client's settings.
 */
#include "pg/advisory.h"
#include "pg/sql.h"
#include "prim/client.h"
#include "util/alloc.h"

#include <string.h>

#ifndef HF_WITHOUT_LIBPQ

/* Each part is there when it has been used. */
typedef struct hf__postgres {
    hf_client *client;
    hf__advisory *advisory;
    hf__sql *sql;
    uint32_t n_parts;
    hf__waiter draining; /* in client->waiting: it is to end */
    hf__waiter forcing;  /* in client->running: and at once */
} hf__postgres;

static void on_drain(hf__waiter *waiter) {
    hf__postgres *p = hf__of(waiter, hf__postgres, draining);

    if (p->advisory != NULL) hf__advisory_drain(p->advisory);
    if (p->sql != NULL) hf__sql_drain(p->sql);
}

static void on_force(hf__waiter *waiter) {
    hf__postgres *p = hf__of(waiter, hf__postgres, forcing);

    if (p->advisory != NULL) hf__advisory_force(p->advisory);
    if (p->sql != NULL) hf__sql_force(p->sql);
}

static void drop(hf__postgres *p) {
    hf_client *client = p->client;

    hf__list_remove(&p->draining.node);
    hf__list_remove(&p->forcing.node);
    hf__free(&client->engine->allocator, p);
    client->postgres = NULL;
    hf__client_unhold(client);
}

static void on_advisory_closed(void *data) {
    hf__postgres *p = data;

    p->advisory = NULL;
    if (--p->n_parts == 0) drop(p);
}

static void on_sql_closed(void *data) {
    hf__postgres *p = data;

    p->sql = NULL;
    if (--p->n_parts == 0) drop(p);
}

static hf_code make(hf_client *client, hf_error *error) {
    hf__postgres *p = hf__zalloc(&client->engine->allocator, sizeof *p);

    if (p == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
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

static hf_code need_advisory(hf_client *client, hf_error *error) {
    hf__postgres *p;
    hf__store_env env;

    if (need(client, error) != HF_OK) return error->code;
    p = client->postgres;
    if (p->advisory != NULL) return HF_OK;
    hf__client_env(client, &env);
    if (hf__advisory_new(client->engine, &env, on_advisory_closed, p, &p->advisory, error) ==
        HF_OK) {
        p->n_parts++;
        return HF_OK;
    }
    if (p->n_parts == 0) drop(p);
    return error->code;
}

static hf_code need_sql(hf_client *client, hf_error *error) {
    hf__postgres *p;
    hf__store_env env;

    if (need(client, error) != HF_OK) return error->code;
    p = client->postgres;
    if (p->sql != NULL) return HF_OK;
    hf__client_env(client, &env);
    if (hf__sql_new(client->engine, &env, on_sql_closed, p, &p->sql, error) == HF_OK) {
        p->n_parts++;
        return HF_OK;
    }
    if (p->n_parts == 0) drop(p);
    return error->code;
}

hf_code hf_pg_lock_acquire(hf_client *client, const hf_pg_lock_options *options,
                           void (*acquired)(void *data, hf_pg_lock *lock,
                                            const hf_pg_lock_result *result),
                           void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                           void *data, hf_pg_lock **out, hf_error *error) {
    if (need_advisory(client, error) != HF_OK) return error->code;
    return hf__advisory_acquire(client->postgres->advisory, options, acquired, lost, data, out,
                                error);
}

hf_code hf_pg_holders(hf_client *client,
                      void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                 const hf_error *error),
                      void *data, hf_error *error) {
    if (need_advisory(client, error) != HF_OK) return error->code;
    return hf__advisory_list(client->postgres->advisory, cb, data, error);
}

hf_code hf_pg_query_run(hf_client *client, const hf_pg_statement *statement, hf_pg_query_cb cb,
                        void *data, hf_pg_query **out, hf_error *error) {
    if (need_sql(client, error) != HF_OK) return error->code;
    return hf__sql_query(client->postgres->sql, statement, cb, data, out, error);
}

hf_code hf_pg_tx_begin(hf_client *client, const hf_pg_tx_options *options,
                       void (*begun)(void *data, hf_pg_tx *tx, const hf_error *error), void *data,
                       hf_pg_tx **out, hf_error *error) {
    if (need_sql(client, error) != HF_OK) return error->code;
    return hf__sql_begin(client->postgres->sql, options, begun, data, out, error);
}

#endif
