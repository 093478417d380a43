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

#endif
