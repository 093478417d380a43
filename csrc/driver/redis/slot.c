/*
 * Which of a Cluster's slots a key lies in (Redis Cluster specification, "Key distribution model"
 * and "Hash tags").
 */
#include "driver/redis/redis.h"

#include "driver/redis/deployment.h"

#include <string.h>

/* CRC-16/XMODEM (polynomial 1021h), four bits at a time. */
static uint16_t crc16(const char *data, size_t len) {
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5,
                                       0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b,
                                       0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    uint16_t crc = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)data[i];
        crc = (uint16_t)(crc << 4 ^ table[(crc >> 12 ^ byte >> 4) & 15]);
        crc = (uint16_t)(crc << 4 ^ table[(crc >> 12 ^ byte) & 15]);
    }
    return crc;
}

hf_slice hf__redis_hash_tag(hf_slice key) {
    const char *open = key.len > 0 ? memchr(key.data, '{', key.len) : NULL;
    const char *end = key.data + key.len;
    const char *close;

    if (open == NULL) return (hf_slice){NULL, 0};
    open++;
    close = memchr(open, '}', (size_t)(end - open));
    if (close == NULL || close == open) return (hf_slice){NULL, 0};
    return (hf_slice){open, (size_t)(close - open)};
}

uint16_t hf__redis_slot(hf_slice key) {
    hf_slice tag = hf__redis_hash_tag(key);

    if (tag.len > 0) key = tag;
    return crc16(key.data, key.len) % HF__REDIS_SLOTS;
}
