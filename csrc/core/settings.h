/*
 * The named options of one client's store, copied. Constant once made, so any thread may read
 * them; what they hold may be secret and is wiped in the end.
 */
#ifndef HF_CORE_SETTINGS_H
#define HF_CORE_SETTINGS_H

#include "core/error.h"

typedef struct hf__settings {
    hf_setting *items; /* one piece of memory, with the texts behind; a NUL follows each */
    size_t n;
    size_t size; /* of that memory */
} hf__settings;

/* HF_EINVAL (too many, or a name that is empty or there twice), HF_ENOMEM; then nothing is to be
 * freed. */
hf_code hf__settings_copy(hf__settings *out, const hf_setting *settings, size_t n,
                          const hf_allocator *allocator, hf_error *error);
void hf__settings_free(hf__settings *settings, const hf_allocator *allocator);

#endif
