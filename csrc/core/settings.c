#include "core/settings.h"

#include "core/op.h"
#include "util/alloc.h"

#include <string.h>

static hf_code check_names(const hf_setting *settings, size_t n, hf_error *error) {
    if (n > HF_SETTINGS_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a client has at most %d settings, not %zu",
                             HF_SETTINGS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        hf_slice name = settings[i].name;
        if (name.len == 0) return hf__error_set(error, HF_EINVAL, 0, "setting %zu has no name", i);
        for (size_t j = 0; j < i; j++) {
            if (hf__slice_equal(name, settings[j].name))
                return hf__error_set(error, HF_EINVAL, 0, "the setting \"%.*s\" is given twice",
                                     hf__shown(name), name.data);
        }
    }
    return HF_OK;
}

/* Copies `from` to `*to`, a NUL behind, and moves `*to` past both. */
static hf_slice put(char **to, hf_slice from) {
    hf_slice copy = {*to, from.len};
    if (from.len > 0) memcpy(*to, from.data, from.len);
    (*to)[from.len] = '\0';
    *to += from.len + 1;
    return copy;
}

hf_code hf__settings_copy(hf__settings *out, const hf_setting *settings, size_t n,
                          const hf_allocator *allocator, hf_error *error) {
    *out = (hf__settings){0};
    if (n == 0) return HF_OK;
    if (check_names(settings, n, error) != HF_OK) return error->code;
    size_t size = n * sizeof(*settings);
    for (size_t i = 0; i < n; i++)
        size += settings[i].name.len + settings[i].value.len + 2;
    hf_setting *items = hf__alloc(allocator, size);
    if (items == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    char *text = (char *)(items + n);
    for (size_t i = 0; i < n; i++) {
        items[i].name = put(&text, settings[i].name);
        items[i].value = put(&text, settings[i].value);
    }
    *out = (hf__settings){.items = items, .n = n, .size = size};
    return HF_OK;
}

void hf__settings_free(hf__settings *settings, const hf_allocator *allocator) {
    if (settings->items != NULL) explicit_bzero(settings->items, settings->size);
    hf__free(allocator, settings->items);
    *settings = (hf__settings){0};
}
