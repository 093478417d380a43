/*
 * What a statement begins with. Statements are sent one by one, so what controls a transaction can
 * only do so by its first words.
 */
#include "pg/sql-parts.h"

#include <string.h>
#include <strings.h>

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0 ||
           (c >= '0' && c <= '9') || c == '$';
}

static bool starts(hf_slice s, const char *two) {
    return s.len >= 2 && memcmp(s.data, two, 2) == 0;
}

static hf_slice after(hf_slice s, size_t n) {
    return (hf_slice){s.data + n, s.len - n};
}

static hf_slice skip_line(hf_slice s) {
    while (s.len > 0 && *s.data != '\n' && *s.data != '\r')
        s = after(s, 1);
    return s;
}

/* They may be nested. */
static hf_slice skip_comment(hf_slice s) {
    size_t depth = 0;

    do {
        size_t n = 1;

        if (starts(s, "/*")) {
            depth++;
            n = 2;
        } else if (starts(s, "*/")) {
            depth--;
            n = 2;
        }
        s = after(s, n);
    } while (depth > 0 && s.len > 0);
    return s;
}

static hf_slice skip(hf_slice s) {
    for (;;) {
        if (s.len > 0 && (is_space(*s.data) || *s.data == ';'))
            s = after(s, 1);
        else if (starts(s, "--"))
            s = skip_line(s);
        else if (starts(s, "/*"))
            s = skip_comment(s);
        else
            return s;
    }
}

static hf_slice next_word(hf_slice *s) {
    hf_slice word = skip(*s);
    size_t len = 0;

    while (len < word.len && is_letter(word.data[len]))
        len++;
    *s = after(word, len);
    return (hf_slice){word.data, len};
}

static bool is(hf_slice word, const char *text) {
    return word.len == strlen(text) && strncasecmp(word.data, text, word.len) == 0;
}

bool hf__sql_controls(hf_slice sql) {
    static const char *const words[] = {"BEGIN", "START", "COMMIT", "END", "ABORT"};
    hf_slice first = next_word(&sql);
    hf_slice second;

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (is(first, words[i])) return true;
    }
    if (!is(first, "ROLLBACK") && !is(first, "PREPARE")) return false;
    second = next_word(&sql);
    if (is(first, "PREPARE")) return is(second, "TRANSACTION");
    if (is(second, "WORK") || is(second, "TRANSACTION")) second = next_word(&sql);
    return !is(second, "TO"); /* that goes back to a savepoint */
}
