#include "store/registry.h"

#include "store/stores.h"

const hf_store_vtable *const hf__stores[] = {
    &hf__memory_store, &hf__sqlite_store, &hf__redis_store, &hf__quorum_store, NULL,
};

const hf_store_vtable *hf__store_find(hf_slice scheme) {
    if (scheme.len == 0) return NULL;
    for (size_t i = 0; hf__stores[i] != NULL; i++) {
        if (hf__has_word(hf__stores[i]->schemes, scheme)) return hf__stores[i];
    }
    return NULL;
}
