#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *hf_code_name(hf_code code) {
    switch (code) {
    case HF_OK: return "HF_OK";
#define X(name, text) \
    case HF_##name: return "HF_" #name;
        HF_ERRORS(X)
#undef X
    case HF_CODE_COUNT: break;
    }
    return "HF_E?";
}

const char *hf_code_text(hf_code code) {
    switch (code) {
    case HF_OK: return "no error";
#define X(name, text) \
    case HF_##name: return text;
        HF_ERRORS(X)
#undef X
    case HF_CODE_COUNT: break;
    }
    return "an unknown error";
}

/* Takes back the start of a UTF-8 sequence that did not fit. */
static void end_on_boundary(char *message, size_t len) {
    size_t start = len;

    while (start > 0 && ((unsigned char)message[start - 1] & 0xc0) == 0x80)
        start--;
    if (start > 0 && ((unsigned char)message[start - 1] & 0xc0) == 0xc0) {
        unsigned char lead = (unsigned char)message[start - 1];
        size_t need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
        if (len - (start - 1) < need) message[start - 1] = '\0';
    }
}

__attribute__((format(printf, 2, 0))) static void set_message(hf_error *error, const char *fmt,
                                                              va_list args) {
    int len;

    if (fmt == NULL) {
        snprintf(error->message, sizeof error->message, "%s", hf_code_text(error->code));
        return;
    }
    len = vsnprintf(error->message, sizeof error->message, fmt, args);
    if (len < 0) error->message[0] = '\0';
    if (len >= (int)sizeof error->message)
        end_on_boundary(error->message, sizeof error->message - 1);
}

hf_code hf__error_set(hf_error *error, hf_code code, uint32_t flags, const char *fmt, ...) {
    va_list args;

    hf__error_clear(error);
    error->code = code;
    error->flags = flags;
    va_start(args, fmt);
    set_message(error, fmt, args);
    va_end(args);
    return code;
}

hf_code hf__error_native(hf_error *error, hf_code code, uint32_t flags, int native, const char *fmt,
                         ...) {
    va_list args;

    hf__error_clear(error);
    error->code = code;
    error->flags = flags;
    error->native = native;
    va_start(args, fmt);
    set_message(error, fmt, args);
    va_end(args);
    return code;
}

void hf__error_clear(hf_error *error) {
    memset(error, 0, sizeof *error);
}
