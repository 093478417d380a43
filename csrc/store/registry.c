#include "store/registry.h"

#include "store/stores.h"

#ifdef HF_WITHOUT_LIBPQ
#define POSTGRES hf__postgres_absent_store
#else
#define POSTGRES hf__postgres_store
#endif

const hf_store_vtable *const hf__stores[] = {
    &hf__memory_store, &hf__sqlite_store, &hf__redis_store, &hf__quorum_store, &POSTGRES, NULL,
};

const hf_store_vtable *hf__store_find(hf_slice scheme) {
    if (scheme.len == 0) return NULL;
    for (size_t i = 0; hf__stores[i] != NULL; i++) {
        if (hf__has_word(hf__stores[i]->schemes, scheme)) return hf__stores[i];
    }
    return NULL;
}
