#include "store/registry.h"

#include "store/stores.h"

#include <string.h>

const hf_store_vtable *const hf__stores[] = {
    &hf__memory_store,
    &hf__sqlite_store,
    &hf__redis_store,
    NULL,
};

/* Whether `word` is one of the blank-separated `words`. */
static bool has_word(const char *words, hf_slice word) {
    while (*words != '\0') {
        size_t len = strcspn(words, " ");
        if (len == word.len && memcmp(words, word.data, len) == 0) return true;
        words += len;
        words += strspn(words, " ");
    }
    return false;
}

const hf_store_vtable *hf__store_find(hf_slice scheme) {
    if (scheme.len == 0) return NULL;
    for (size_t i = 0; hf__stores[i] != NULL; i++) {
        if (has_word(hf__stores[i]->schemes, scheme)) return hf__stores[i];
    }
    return NULL;
}
