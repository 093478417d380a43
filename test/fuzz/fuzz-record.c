/* The stored form of a record: whatever bytes a store hands back, reading them stays within
 * them, and what was read writes back to the same bytes. */
#include "prim/record.h"
#include "util/alloc.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    hf__record record;
    hf__buffer again;
    if (!hf__record_read((hf_slice){(const char *)data, size}, &record)) return 0;
    hf__buffer_init(&again, hf__allocator_libc());
    hf__record_write(&again, &record);
    if (again.failed || again.len != size || memcmp(again.data, data, size) != 0) abort();
    hf__buffer_fini(&again);
    return 0;
}
