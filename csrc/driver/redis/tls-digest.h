/*
 * SHA-1, by which Redis names scripts.
 */
#ifndef HF_DRIVER_REDIS_TLS_DIGEST_H
#define HF_DRIVER_REDIS_TLS_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#define HF__SHA1_BYTES 20

/* False where the system's OpenSSL may not compute it. */
bool hf__sha1(const void *data, size_t len, unsigned char digest[HF__SHA1_BYTES]);

#endif
