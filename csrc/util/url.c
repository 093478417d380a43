#include "util/url.h"

#include "util/alloc.h"

#include <string.h>

static bool fail(const char **why, const char *sentence) {
    *why = sentence;
    return false;
}

static bool is_alpha(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The first `c` of `s`, or its end. */
static size_t find(hf_slice s, char c) {
    const char *p = s.len > 0 ? memchr(s.data, c, s.len) : NULL;
    return p == NULL ? s.len : (size_t)(p - s.data);
}

static hf_slice cut(hf_slice s, size_t from, size_t to) {
    return (hf_slice){s.data + from, to - from};
}

/* Undoes percent-encoding in place: what it makes is never longer. */
static bool decode(hf_slice *s, const char **why) {
    size_t end = 0;
    /* Every slice lies in the URL's own copy. */
    char *data = (char *)(uintptr_t)s->data;

    for (size_t at = 0; at < s->len; at++) {
        int high;
        int low;

        if (data[at] != '%') {
            data[end++] = data[at];
            continue;
        }
        high = at + 2 < s->len ? hex_value(data[at + 1]) : -1;
        low = at + 2 < s->len ? hex_value(data[at + 2]) : -1;
        if (high < 0 || low < 0) return fail(why, "a % is not followed by two hexadecimal digits");
        if (high == 0 && low == 0) return fail(why, "it holds an encoded NUL byte");
        data[end++] = (char)(high * 16 + low);
        at += 2;
    }
    s->len = end;
    return true;
}

static bool parse_scheme(hf__url *url, hf_slice *rest, const char **why) {
    size_t end = find(*rest, ':');

    if (end == rest->len)
        return fail(why, "for a file write \"sqlite:/tmp/x.db\", in memory is \"memory:\"");
    if (rest->len == 8 && memcmp(rest->data, ":memory:", 8) == 0)
        return fail(why, "in memory is \"memory:\"");
    if (end == 0 || !is_alpha(rest->data[0])) return fail(why, "its scheme is not a name");
    for (size_t i = 0; i < end; i++) {
        char c = rest->data[i];
        if (!is_alpha(c) && !is_digit(c) && c != '+' && c != '-' && c != '.')
            return fail(why, "its scheme is not a name");
        if (c >= 'A' && c <= 'Z') url->text[i] = (char)(c - 'A' + 'a');
    }
    url->scheme = cut(*rest, 0, end);
    *rest = cut(*rest, end + 1, rest->len);
    return true;
}

static bool parse_param(hf__url *url, hf_slice one, const char **why) {
    size_t equals = find(one, '=');
    hf__url_param *param = &url->params[url->n_params];

    if (url->n_params == HF_URL_PARAMS_MAX) return fail(why, "it has too many parameters");
    param->name = cut(one, 0, equals);
    param->value = cut(one, equals < one.len ? equals + 1 : one.len, one.len);
    if (!decode(&param->name, why) || !decode(&param->value, why)) return false;
    if (param->name.len == 0) return fail(why, "it has a parameter without a name");
    for (size_t i = 0; i < url->n_params; i++) {
        hf_slice other = url->params[i].name;
        if (other.len == param->name.len && memcmp(other.data, param->name.data, other.len) == 0)
            return fail(why, "it has a parameter twice");
    }
    url->n_params++;
    return true;
}

/* Cuts the parameters off `rest` and reads them. */
static bool parse_params(hf__url *url, hf_slice *rest, const char **why) {
    size_t mark = find(*rest, '?');
    hf_slice params;

    if (mark == rest->len) return true;
    params = cut(*rest, mark + 1, rest->len);
    *rest = cut(*rest, 0, mark);
    while (params.len > 0) {
        size_t end = find(params, '&');
        if (!parse_param(url, cut(params, 0, end), why)) return false;
        params = cut(params, end < params.len ? end + 1 : end, params.len);
    }
    return true;
}

static bool parse_user(hf__url *url, hf_slice *authority, const char **why) {
    size_t at = authority->len;
    size_t colon;

    /* The last one: an @ in a password that was not encoded is then still part of it. */
    while (at > 0 && authority->data[at - 1] != '@')
        at--;
    if (at == 0) return true;
    url->user = cut(*authority, 0, at - 1);
    *authority = cut(*authority, at, authority->len);
    colon = find(url->user, ':');
    if (colon < url->user.len) url->password = cut(url->user, colon + 1, url->user.len);
    url->user.len = colon;
    return decode(&url->user, why) && decode(&url->password, why);
}

static bool parse_port(hf__url *url, hf_slice text, const char **why) {
    uint64_t port;

    if (!hf__parse_uint(text, 1, 65535, &port))
        return fail(why, "its port is not 1 to 65535, or its password has a / ? or # in it: those "
                         "are written as %2F %3F %23");
    url->port = (uint32_t)port;
    return true;
}

static bool parse_host(hf__url *url, hf_slice host, const char **why) {
    size_t end;

    if (find(host, ',') < host.len) {
        url->host = host;
        return decode(&url->host, why);
    }
    if (host.len > 0 && host.data[0] == '[') {
        end = find(host, ']');
        if (end == host.len) return fail(why, "a [ of its host is not closed");
        url->host = cut(host, 1, end++);
        if (end < host.len && host.data[end] != ':') return fail(why, "its host is not valid");
    } else {
        end = find(host, ':');
        url->host = cut(host, 0, end);
    }
    if (end < host.len && !parse_port(url, cut(host, end + 1, host.len), why)) return false;
    return decode(&url->host, why);
}

/* `rest` is what follows the scheme, without parameters. */
static bool parse_place(hf__url *url, hf_slice rest, const char **why) {
    bool is_file = url->scheme.len == 6 && memcmp(url->scheme.data, "sqlite", 6) == 0;
    hf_slice authority;
    size_t slash;

    url->path = rest;
    url->has_authority = rest.len >= 2 && rest.data[0] == '/' && rest.data[1] == '/';
    if (!url->has_authority) return decode(&url->path, why);
    rest = cut(rest, 2, rest.len);
    slash = find(rest, '/');
    authority = cut(rest, 0, slash);
    if (is_file) {
        if (slash > 0 || rest.len == 0)
            return fail(why, "after \"sqlite://\" comes an absolute path (\"sqlite:///...\"); "
                             "a relative one is \"sqlite:./...\"");
        url->path = rest;
        return decode(&url->path, why);
    }
    url->path = cut(rest, slash < rest.len ? slash + 1 : slash, rest.len);
    return decode(&url->path, why) && parse_user(url, &authority, why) &&
           parse_host(url, authority, why);
}

/* What stands before the first blank may be the parameters of the list itself. */
static bool parse_list(hf__url *url, hf_slice rest, const char **why) {
    hf_slice params = cut(rest, 0, find(rest, ' '));

    url->path = rest;
    if (rest.len == 0 || rest.data[0] != '?') return true;
    url->path = cut(rest, params.len < rest.len ? params.len + 1 : rest.len, rest.len);
    return parse_params(url, &params, why);
}

static bool parse(hf__url *url, hf_slice rest, const char **why) {
    if (!parse_scheme(url, &rest, why)) return false;
    if (url->scheme.len == 6 && memcmp(url->scheme.data, "quorum", 6) == 0)
        return parse_list(url, rest, why);
    return parse_params(url, &rest, why) && parse_place(url, rest, why);
}

/* Every part ends in a NUL: each is followed by a separator that has served, or by the end. An
 * empty part is the empty string at the end. */
static void terminate(hf__url *url, size_t len) {
    hf_slice *parts[6 + 2 * HF_URL_PARAMS_MAX] = {&url->scheme, &url->user, &url->password,
                                                  &url->host, &url->path};
    size_t n = 5;

    for (size_t i = 0; i < url->n_params; i++) {
        parts[n++] = &url->params[i].name;
        parts[n++] = &url->params[i].value;
    }
    for (size_t i = 0; i < n; i++) {
        if (parts[i]->len == 0)
            parts[i]->data = url->text + len;
        else
            url->text[(size_t)(parts[i]->data - url->text) + parts[i]->len] = '\0';
    }
}

bool hf__url_parse(hf__url *url, hf_slice text, const hf_allocator *allocator, const char **why) {
    memset(url, 0, sizeof *url);
    if (text.len > HF_URL_MAX) return fail(why, "it is too long");
    if (find(text, '\0') < text.len) return fail(why, "it holds a NUL byte");
    url->text = hf__copy(allocator, text);
    if (url->text == NULL) return fail(why, HF__URL_NOMEM);
    if (!parse(url, (hf_slice){url->text, text.len}, why)) {
        hf__url_free(url, allocator);
        return false;
    }
    terminate(url, text.len);
    return true;
}

void hf__url_free(hf__url *url, const hf_allocator *allocator) {
    hf__free(allocator, url->text);
    memset(url, 0, sizeof *url);
}

bool hf__url_param_get(const hf__url *url, const char *name, hf_slice *value) {
    size_t len = strlen(name);

    for (size_t i = 0; i < url->n_params; i++) {
        hf_slice other = url->params[i].name;
        if (other.len != len || memcmp(other.data, name, len) != 0) continue;
        *value = url->params[i].value;
        return true;
    }
    return false;
}

bool hf__parse_uint(hf_slice s, uint64_t low, uint64_t high, uint64_t *value) {
    uint64_t n = 0;

    if (s.len == 0) return false;
    for (size_t i = 0; i < s.len; i++) {
        uint64_t digit;

        if (!is_digit(s.data[i])) return false;
        digit = (uint64_t)(s.data[i] - '0');
        if (n > (UINT64_MAX - digit) / 10) return false;
        n = n * 10 + digit;
    }
    if (n < low || n > high) return false;
    *value = n;
    return true;
}
