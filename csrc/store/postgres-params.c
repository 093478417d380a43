/*
 * Parameters and results in PostgreSQL's binary formats: numbers in network order, arrays as
 * array_recv reads them (src/backend/utils/adt/arrayfuncs.c).
 */
#include "store/postgres-store.h"

#include <assert.h>
#include <string.h>

static void put32(hf__buffer *out, uint32_t value) {
    const unsigned char bytes[] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16),
                                   (unsigned char)(value >> 8), (unsigned char)value};
    hf__buffer_put(out, bytes, sizeof bytes);
}

static void begin(hf__postgres_batch *batch) {
    assert(batch->n_params < HF__POSTGRES_PARAMS_MAX);
    batch->starts[batch->n_params++] = batch->bytes.len;
}

void hf__postgres_array(hf__postgres_batch *batch, Oid element, size_t n) {
    hf__buffer *out = &batch->bytes;

    begin(batch);
    batch->in_array = true;
    put32(out, n > 0 ? 1 : 0); /* dimensions */
    put32(out, 0);             /* no NULL is among them */
    put32(out, element);
    if (n == 0) return;
    put32(out, (uint32_t)n);
    put32(out, 1); /* the first index */
}

void hf__postgres_scalar(hf__postgres_batch *batch) {
    begin(batch);
    batch->in_array = false;
}

void hf__postgres_put_bytes(hf__postgres_batch *batch, const void *data, size_t len) {
    if (batch->in_array) put32(&batch->bytes, (uint32_t)len);
    if (len > 0) hf__buffer_put(&batch->bytes, data, len);
}

void hf__postgres_put16(hf__postgres_batch *batch, int16_t value) {
    uint16_t v = (uint16_t)value;
    const unsigned char bytes[] = {(unsigned char)(v >> 8), (unsigned char)v};

    hf__postgres_put_bytes(batch, bytes, sizeof bytes);
}

void hf__postgres_put32(hf__postgres_batch *batch, int32_t value) {
    if (batch->in_array) put32(&batch->bytes, 4);
    put32(&batch->bytes, (uint32_t)value);
}

void hf__postgres_put64(hf__postgres_batch *batch, int64_t value) {
    if (batch->in_array) put32(&batch->bytes, 8);
    put32(&batch->bytes, (uint32_t)((uint64_t)value >> 32));
    put32(&batch->bytes, (uint32_t)(uint64_t)value);
}

bool hf__postgres_params_end(hf__postgres_batch *batch) {
    if (batch->bytes.failed) return false;
    batch->starts[batch->n_params] = batch->bytes.len;
    for (uint32_t i = 0; i < batch->n_params; i++) {
        batch->values[i] = batch->bytes.data + batch->starts[i];
        batch->lengths[i] = (int)(batch->starts[i + 1] - batch->starts[i]);
    }
    return true;
}

/* ---------------------------------------------------------------- results */

int64_t hf__postgres_int(const PGresult *result, int row, int column) {
    const unsigned char *at = (const unsigned char *)PQgetvalue(result, row, column);
    int len = PQgetlength(result, row, column);
    uint64_t value = 0;

    for (int i = 0; i < len; i++)
        value = value << 8 | at[i];
    /* int2 and int4 have a sign of their own. */
    if (len == 2) return (int16_t)(uint16_t)value;
    if (len == 4) return (int32_t)(uint32_t)value;
    return (int64_t)value;
}

hf_slice hf__postgres_bytes(const PGresult *result, int row, int column) {
    return (hf_slice){PQgetvalue(result, row, column), (size_t)PQgetlength(result, row, column)};
}

bool hf__postgres_token(const PGresult *result, int row, int column, hf_token *token) {
    hf_slice bytes = hf__postgres_bytes(result, row, column);

    memset(token, 0, sizeof *token);
    if (bytes.len != sizeof token->bytes) return bytes.len == 0;
    memcpy(token->bytes, bytes.data, bytes.len);
    return true;
}
