/*
 * Which stores there are. Any thread.
 */
#ifndef HF_STORE_REGISTRY_H
#define HF_STORE_REGISTRY_H

#include "core/store.h"

/* All of them; NULL ends the list. */
extern const hf_store_vtable *const hf__stores[];

/* The store of a URL scheme (lower case, as hf__url has it); NULL if there is none. */
const hf_store_vtable *hf__store_find(hf_slice scheme);

#endif
