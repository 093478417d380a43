/*
 * Writing commands: RESP2's array of bulk strings (the Redis serialization protocol). A failed
 * growth shows in the buffer's `failed`, to be checked once at the end.
 */
#ifndef HF_DRIVER_REDIS_RESP_H
#define HF_DRIVER_REDIS_RESP_H

#include "util/buffer.h"

/* A command of so many words, its name counted; exactly so many of the others follow. */
void hf__resp_begin(hf__buffer *out, uint32_t n_words);
void hf__resp_bytes(hf__buffer *out, const void *data, size_t len);
void hf__resp_slice(hf__buffer *out, hf_slice s);
void hf__resp_text(hf__buffer *out, const char *text);
void hf__resp_int(hf__buffer *out, int64_t n); /* in decimal */
/* 32 hexadecimal digits, lower case. */
void hf__resp_token(hf__buffer *out, const hf_token *token);

#endif
