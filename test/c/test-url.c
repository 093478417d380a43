/* Store URLs. */
#include "harness.h"
#include "util/alloc.h"
#include "util/url.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

static bool parse(hf__url *url, const char *text, const char **why) {
    *why = "";
    return hf__url_parse(url, slice(text), hf__allocator_libc(), why);
}

static void check_part(const char *text, const char *name, hf_slice part, const char *expected) {
    const char *should = expected == NULL ? "" : expected;

    /* Each part ends in a NUL, so that it can be handed to who needs one. */
    if (part.len != strlen(should) || strcmp(part.data, should) != 0)
        FAIL("%s: %s is \"%s\", expected \"%s\"", text, name, part.data, should);
}

TEST(url_parts) {
    static const struct {
        const char *text, *scheme, *user, *password, *host, *path;
        uint32_t port;
        bool authority;
    } table[] = {
        {.text = "memory:", .scheme = "memory"},
        {.text = "SQLite:./file.db", .scheme = "sqlite", .path = "./file.db"},
        {.text = "sqlite:rel/x.db", .scheme = "sqlite", .path = "rel/x.db"},
        {.text = "sqlite:/abs/x.db", .scheme = "sqlite", .path = "/abs/x.db"},
        {.text = "sqlite:///abs/x.db", .scheme = "sqlite", .path = "/abs/x.db", .authority = true},
        {.text = "sqlite:a%20b%3fc#d@e:f.db", .scheme = "sqlite", .path = "a b?c#d@e:f.db"},
        {.text = "redis://h", .scheme = "redis", .host = "h", .authority = true},
        {.text = "redis://h/", .scheme = "redis", .host = "h", .authority = true},
        {.text = "redis://h:6380/3",
         .scheme = "redis",
         .host = "h",
         .port = 6380,
         .path = "3",
         .authority = true},
        {.text = "rediss://u:p@h:1/0",
         .scheme = "rediss",
         .user = "u",
         .password = "p",
         .host = "h",
         .port = 1,
         .path = "0",
         .authority = true},
        {.text = "redis://:secret@h",
         .scheme = "redis",
         .password = "secret",
         .host = "h",
         .authority = true},
        {.text = "redis://u@h", .scheme = "redis", .user = "u", .host = "h", .authority = true},
        {.text = "redis://u:p%40%3a%2F@h",
         .scheme = "redis",
         .user = "u",
         .password = "p@:/",
         .host = "h",
         .authority = true},
        {.text = "redis://u:a@b:c@h",
         .scheme = "redis",
         .user = "u",
         .password = "a@b:c",
         .host = "h",
         .authority = true},
        {.text = "redis://[::1]:65535",
         .scheme = "redis",
         .host = "::1",
         .port = 65535,
         .authority = true},
        {.text = "redis://[fe80::1%25eth0]",
         .scheme = "redis",
         .host = "fe80::1%eth0",
         .authority = true},
        {.text = "redis://a:1,[::1]:2,c/0",
         .scheme = "redis",
         .host = "a:1,[::1]:2,c",
         .path = "0",
         .authority = true},
        {.text = "postgres://%2Fvar%2Frun/db",
         .scheme = "postgres",
         .host = "/var/run",
         .path = "db",
         .authority = true},
        {.text = "postgres:///db", .scheme = "postgres", .path = "db", .authority = true},
        {.text = "a+b-c.1:x", .scheme = "a+b-c.1", .path = "x"},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *text = table[i].text;
        const char *why;
        hf__url url;

        if (!parse(&url, text, &why)) {
            FAIL("%s: %s", text, why);
            continue;
        }
        check_part(text, "scheme", url.scheme, table[i].scheme);
        check_part(text, "user", url.user, table[i].user);
        check_part(text, "password", url.password, table[i].password);
        check_part(text, "host", url.host, table[i].host);
        check_part(text, "path", url.path, table[i].path);
        CHECK_UINT(url.port, table[i].port);
        CHECK(url.has_authority == table[i].authority);
        CHECK_UINT(url.n_params, 0);
        hf__url_free(&url, hf__allocator_libc());
    }
}

TEST(url_refused) {
    static const char *const table[] = {
        "",
        "x",
        "./file.db",
        ":x",
        "1a:x",
        "a b:x",
        "sqlite://rel/x.db",
        "sqlite://",
        "sqlite:a%",
        "sqlite:a%2",
        "sqlite:a%2g",
        "sqlite:a%00b",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:",
        "redis://h:1x",
        "redis://h:-1",
        "redis://[::1",
        "redis://[::1]x",
        "redis://u:%zz@h",
        "redis://h?a=%0",
        "redis://h?a=1&a=2",
        "redis://h?a=1&%61=2",
        "redis://h?=1",
        "redis://h?a=1&&b=2",
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *why;
        hf__url url;

        if (parse(&url, table[i], &why)) {
            FAIL("%s was understood", table[i]);
            hf__url_free(&url, hf__allocator_libc());
        }
        CHECK(strlen(why) > 0);
        CHECK_NULL(url.text);
    }
}

/* Whoever passes a path, or SQLite's own word, is told what to write. */
TEST(url_hints) {
    static const struct {
        const char *text, *why;
    } table[] = {
        {"", "for a file write \"sqlite:/tmp/x.db\", in memory is \"memory:\""},
        {"./file.db", "for a file write \"sqlite:/tmp/x.db\", in memory is \"memory:\""},
        {":memory:", "in memory is \"memory:\""},
        {"://x", "its scheme is not a name"},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *why;
        hf__url url;

        CHECK(!parse(&url, table[i].text, &why));
        CHECK_STR(why, table[i].why);
    }
}

TEST(url_params) {
    const char *why;
    hf__url url;
    hf_slice value;

    REQUIRE(parse(&url, "sqlite:x.db?busyTimeout=50&flag&empty=&odd%3D=a%26b=c?d&", &why));
    check_part("path", "path", url.path, "x.db");
    CHECK_UINT(url.n_params, 4);
    CHECK(hf__url_param_get(&url, "busyTimeout", &value));
    check_part("busyTimeout", "value", value, "50");
    CHECK(hf__url_param_get(&url, "flag", &value));
    check_part("flag", "value", value, "");
    CHECK(hf__url_param_get(&url, "empty", &value));
    check_part("empty", "value", value, "");
    CHECK(hf__url_param_get(&url, "odd=", &value));
    check_part("odd=", "value", value, "a&b=c?d");
    CHECK(!hf__url_param_get(&url, "busytimeout", &value));
    CHECK(!hf__url_param_get(&url, "busy", &value));
    hf__url_free(&url, hf__allocator_libc());
}

TEST(url_bounds) {
    static char text[HF_URL_MAX + 2];
    const char *why = "";
    size_t at;
    hf__url url;

    memset(text, 'a', sizeof text);
    text[1] = ':';
    CHECK(hf__url_parse(&url, (hf_slice){text, HF_URL_MAX}, hf__allocator_libc(), &why));
    CHECK_UINT(url.path.len, HF_URL_MAX - 2);
    hf__url_free(&url, hf__allocator_libc());
    CHECK(!hf__url_parse(&url, (hf_slice){text, HF_URL_MAX + 1}, hf__allocator_libc(), &why));
    CHECK(!hf__url_parse(&url, (hf_slice){"a:b\0c", 5}, hf__allocator_libc(), &why));

    at = (size_t)snprintf(text, sizeof text, "a:?");
    for (int i = 0; i < HF_URL_PARAMS_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "p%d=&", i);
    CHECK(parse(&url, text, &why));
    CHECK_UINT(url.n_params, HF_URL_PARAMS_MAX);
    hf__url_free(&url, hf__allocator_libc());
    snprintf(text + at, sizeof text - at, "more");
    CHECK(!parse(&url, text, &why));
}

static void *no_memory(void *data, void *p, size_t size) {
    (void)data;
    (void)p;
    (void)size;
    return NULL;
}

TEST(url_out_of_memory) {
    const hf_allocator none = {no_memory, NULL};
    const char *why = "";
    hf__url url;

    CHECK(!hf__url_parse(&url, slice("memory:"), &none, &why));
    CHECK_STR(why, HF__URL_NOMEM);
}

TEST(parse_uint) {
    uint64_t n = 7;

    CHECK(!hf__parse_uint(slice(""), 0, 10, &n));
    CHECK(!hf__parse_uint(slice("-1"), 0, 10, &n));
    CHECK(!hf__parse_uint(slice("+1"), 0, 10, &n));
    CHECK(!hf__parse_uint(slice(" 1"), 0, 10, &n));
    CHECK(!hf__parse_uint(slice("1 "), 0, 10, &n));
    CHECK(!hf__parse_uint(slice("11"), 0, 10, &n));
    CHECK(!hf__parse_uint(slice("4"), 5, 10, &n));
    CHECK(!hf__parse_uint(slice("0x1"), 0, 10, &n));
    CHECK(!hf__parse_uint(slice("18446744073709551616"), 0, UINT64_MAX, &n));
    CHECK(!hf__parse_uint(slice("99999999999999999999999"), 0, UINT64_MAX, &n));
    CHECK_UINT(n, 7);
    CHECK(hf__parse_uint(slice("18446744073709551615"), 0, UINT64_MAX, &n));
    CHECK_UINT(n, UINT64_MAX);
    CHECK(hf__parse_uint(slice("0010"), 0, 10, &n));
    CHECK_UINT(n, 10);
}
