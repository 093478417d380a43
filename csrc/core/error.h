/*
 * Filling an hf_error. Any thread; nothing here allocates.
 */
#ifndef HF_CORE_ERROR_H
#define HF_CORE_ERROR_H

#include "holdfast.h"

/* Sets code, flags and a formatted message (cut at its bound, on a UTF-8 boundary); clears
 * `native` and `state`. With fmt NULL the message is the code's general sentence. Returns the
 * code. */
__attribute__((format(printf, 4, 5))) hf_code hf__error_set(hf_error *error, hf_code code,
                                                            uint32_t flags, const char *fmt, ...);

/* The same with an errno or SQLite code. */
__attribute__((format(printf, 5, 6))) hf_code hf__error_native(hf_error *error, hf_code code,
                                                               uint32_t flags, int native,
                                                               const char *fmt, ...);

/* No error. */
void hf__error_clear(hf_error *error);

/* True when `error` is a failure that may pass and left nothing behind. */
static inline bool hf__error_is_transient(const hf_error *error) {
    return (error->flags & (HF_RETRYABLE | HF_OUTCOME_UNKNOWN)) == HF_RETRYABLE;
}

/* For "%.*s" of a key in a message: at most 64 bytes of it. */
static inline int hf__shown(hf_slice s) {
    return s.len > 64 ? 64 : (int)s.len;
}

#endif
