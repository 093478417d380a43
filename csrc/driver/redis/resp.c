#include "driver/redis/resp.h"

#include <string.h>

/* `mark`, the number in decimal, and the end of the line. */
static void put_head(hf__buffer *out, char mark, uint64_t n) {
    char line[24];
    size_t at = sizeof line;

    line[--at] = '\n';
    line[--at] = '\r';
    do {
        line[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    line[--at] = mark;
    hf__buffer_put(out, line + at, sizeof line - at);
}

void hf__resp_begin(hf__buffer *out, uint32_t n_words) {
    put_head(out, '*', n_words);
}

void hf__resp_bytes(hf__buffer *out, const void *data, size_t len) {
    put_head(out, '$', len);
    if (len > 0) hf__buffer_put(out, data, len);
    hf__buffer_put(out, "\r\n", 2);
}

void hf__resp_slice(hf__buffer *out, hf_slice s) {
    hf__resp_bytes(out, s.data, s.len);
}

void hf__resp_text(hf__buffer *out, const char *text) {
    hf__resp_bytes(out, text, strlen(text));
}

void hf__resp_int(hf__buffer *out, int64_t n) {
    uint64_t rest = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    char digits[24];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (n < 0) digits[--at] = '-';
    hf__resp_bytes(out, digits + at, sizeof digits - at);
}

void hf__resp_token(hf__buffer *out, const hf_token *token) {
    static const char hex[] = "0123456789abcdef";
    char text[2 * sizeof token->bytes];

    for (size_t i = 0; i < sizeof token->bytes; i++) {
        text[2 * i] = hex[token->bytes[i] >> 4];
        text[2 * i + 1] = hex[token->bytes[i] & 15];
    }
    hf__resp_bytes(out, text, sizeof text);
}
