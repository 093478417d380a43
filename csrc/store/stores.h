/*
 * The stores of this build, each in the file of its name.
 */
#ifndef HF_STORE_STORES_H
#define HF_STORE_STORES_H

#include "core/store.h"

extern const hf_store_vtable hf__memory_store;
extern const hf_store_vtable hf__sqlite_store;
extern const hf_store_vtable hf__redis_store;
extern const hf_store_vtable hf__quorum_store;
/* Of a build with libpq; and of one without. */
extern const hf_store_vtable hf__postgres_store;
extern const hf_store_vtable hf__postgres_absent_store;

/* The settings of the PostgreSQL store beside those of its connections. */
#define HF__POSTGRES_PARAMS "schema leases"

#endif
