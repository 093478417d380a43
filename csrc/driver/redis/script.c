#include "driver/redis/redis.h"
#include "driver/redis/tls-digest.h"

#include <assert.h>
#include <string.h>

void hf__redis_script_init(hf__redis_script *script, uint8_t id, const char *text) {
    static const char hex[] = "0123456789abcdef";
    unsigned char digest[HF__SHA1_BYTES];

    assert(id < HF__REDIS_SCRIPTS_MAX);
    script->id = id;
    script->text = text;
    script->len = strlen(text);
    /* A wrong name is one that the server does not know: it is sent the text. */
    if (!hf__sha1(text, script->len, digest)) memset(digest, 0, sizeof digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        script->sha[2 * i] = hex[digest[i] >> 4];
        script->sha[2 * i + 1] = hex[digest[i] & 15];
    }
    script->sha[2 * sizeof digest] = '\0';
}
