#include "prim/record.h"

#include <assert.h>

enum { VERSION = 1, HEADER = 3, IS_ERROR = 1 };

void hf__record_write(hf__buffer *out, const hf__record *record) {
    assert(record->fingerprint.len <= HF__FINGERPRINT_MAX);
    hf__buffer_u8(out, VERSION);
    hf__buffer_u8(out, record->is_error ? IS_ERROR : 0);
    hf__buffer_u8(out, (uint8_t)record->fingerprint.len);
    hf__buffer_put(out, record->fingerprint.data, record->fingerprint.len);
    hf__buffer_put(out, record->value.data, record->value.len);
}

bool hf__record_read(hf_slice bytes, hf__record *record) {
    const uint8_t *p = (const uint8_t *)bytes.data;
    if (bytes.len < HEADER || p[0] != VERSION || (p[1] & ~IS_ERROR) != 0) return false;
    size_t n = p[2];
    if (n > HF__FINGERPRINT_MAX || n > bytes.len - HEADER) return false;
    record->is_error = (p[1] & IS_ERROR) != 0;
    record->fingerprint = (hf_slice){bytes.data + HEADER, n};
    record->value = (hf_slice){bytes.data + HEADER + n, bytes.len - HEADER - n};
    return true;
}
