#include "driver/redis/tls-digest.h"

#include "driver/redis/tls-parts.h"

#include <openssl/evp.h>

bool hf__sha1(const void *data, size_t len, unsigned char digest[HF__SHA1_BYTES]) {
    unsigned char made[EVP_MAX_MD_SIZE];
    unsigned int n = 0;

    hf__tls_begin();
    if (EVP_Digest(data, len, made, &n, EVP_sha1(), NULL) != 1 || n != HF__SHA1_BYTES) return false;
    for (size_t i = 0; i < HF__SHA1_BYTES; i++)
        digest[i] = made[i];
    return true;
}
