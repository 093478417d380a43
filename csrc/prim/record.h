/*
 * The stored form of a record's value: what kind of outcome, whose operation (its fingerprint),
 * and the bytes. Read back from stores that others can write to, so it is fuzzed.
 *
 *   1 byte   version, 1
 *   1 byte   flags: 1 = the outcome is an error
 *   1 byte   length of the fingerprint, 0 to 64
 *   ...      fingerprint, then the outcome's bytes to the end
 */
#ifndef HF_PRIM_RECORD_H
#define HF_PRIM_RECORD_H

#include "util/buffer.h"

#define HF__FINGERPRINT_MAX 64

typedef struct hf__record {
    bool is_error;
    hf_slice fingerprint; /* both point into what was parsed */
    hf_slice value;
} hf__record;

/* Appends; `out->failed` tells of missing memory. */
void hf__record_write(hf__buffer *out, const hf__record *record);
/* False if the bytes are no record. */
bool hf__record_read(hf_slice bytes, hf__record *record);

#endif
