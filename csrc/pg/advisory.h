/*
 * PostgreSQL's advisory locks of one client: what csrc/api/postgres.c makes of them. What a lock is
 * to its user is told in holdfast.h, whose functions on an hf_pg_lock are implemented here too.
 * Loop's thread only; nothing here needs libpq's headers.
 */
#ifndef HF_PG_ADVISORY_H
#define HF_PG_ADVISORY_H

#include "core/engine.h"
#include "core/store.h"

typedef struct hf__advisory hf__advisory;

/* No I/O. What `env` points to, and the engine, outlive it. `closed` runs once, in a later turn
 * than hf__advisory_drain, when everything has ended; then it is freed. Errors: HF_EINVAL,
 * HF_ENOMEM. */
hf_code hf__advisory_new(hf_engine *engine, const hf__store_env *env, void (*closed)(void *data),
                         void *data, hf__advisory **out, hf_error *error);
/* Nobody asks any more. Those who wait end with HF_ECLOSED, in a later turn; when nothing is held
 * and nothing is under way, the sessions are closed. */
void hf__advisory_drain(hf__advisory *advisory);
/* After that: what is held is lost, and what is under way ends. */
void hf__advisory_force(hf__advisory *advisory);

/* As hf_pg_lock_acquire and hf_pg_holders, of a client that accepts. */
hf_code hf__advisory_acquire(hf__advisory *advisory, const hf_pg_lock_options *options,
                             void (*acquired)(void *data, hf_pg_lock *lock,
                                              const hf_pg_lock_result *result),
                             void (*lost)(void *data, hf_pg_lock *lock, const hf_error *why),
                             void *data, hf_pg_lock **out, hf_error *error);
hf_code hf__advisory_list(hf__advisory *advisory,
                          void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                     const hf_error *error),
                          void *data, hf_error *error);

#endif
