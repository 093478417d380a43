/*
 * PostgreSQL for one store instance: a connection for statements, and one more that listens, where
 * it is asked for. It reconnects by itself, with pauses that grow; it knows nothing of locks. One
 * loop, its thread only.
 *
 * A call waits while there is no connection, until the attempt that is under way, or the next one,
 * has failed. Callbacks run from the loop, within env.scope.
 */
#ifndef HF_DRIVER_POSTGRES_POSTGRES_H
#define HF_DRIVER_POSTGRES_POSTGRES_H

#include "driver/postgres/session.h"

typedef struct hf__pg hf__pg;

typedef struct hf__pg_events {
    /* There is a connection for statements (again). */
    void (*connected)(void *data, const hf__pg_server *server);
    /* The channel was notified. */
    void (*notified)(void *data, hf_slice payload);
    /* The channel is (again) listened to: what was notified before may have been missed. */
    void (*listening)(void *data);
    void *data;
} hf__pg_events;

/* Reads the URL and settings of `env`; no I/O. Errors: HF_EINVAL, HF_ENOMEM. */
hf_code hf__pg_new(const hf__store_env *env, const hf__pg_events *events, hf__pg **out,
                   hf_error *error);
/* Sends the call in this or a later turn; see hf__pg_call. */
void hf__pg_send(hf__pg *pg, hf__pg_call *call);
/* How long an answer is waited for, where a call does not say. */
uint32_t hf__pg_command_ms(const hf__pg *pg);
/* From now on keeps a connection that listens to `channel` (copied, up to 63 bytes), where nothing
 * in between forbids it. Once. False: memory is out; try again. */
bool hf__pg_listen(hf__pg *pg, const char *channel);
/* Whether the channel is listened to now. */
bool hf__pg_hears(const hf__pg *pg);
/* Whether nobody can listen there: a pooler in between forbids it. */
bool hf__pg_is_deaf(const hf__pg *pg);
/* No call is under way. Closes every connection, then calls `closed`; nothing runs after that. */
void hf__pg_close(hf__pg *pg, void (*closed)(void *data), void *data);
/* Closed, or never used. */
void hf__pg_free(hf__pg *pg);

#endif
