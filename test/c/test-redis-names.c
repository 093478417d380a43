/* How the Redis store names what it keeps: everything that is of a key lies in the slot of its
 * lease, no two keys share a name, and the key can be read from each name. */
#include "driver/redis/redis.h"
#include "harness.h"
#include "store/redis-names.h"
#include "util/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const prefixes[] = {"holdfast:", "", "{app}", "a{tag}b:", "*?[x]\\", ":"};

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

static hf_slice whole(const hf__redis_name *name) {
    return (hf_slice){name->text, name->len};
}

static bool equal(hf_slice a, hf_slice b) {
    return a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
}

static void init(hf__redis_names *names, const char *prefix) {
    hf_error error;

    REQUIRE_INT(hf__redis_names_init(names, slice(prefix), hf__allocator_libc(), &error), HF_OK);
}

/* The names that users see in their Redis. */
TEST(layout) {
    static const struct {
        const char *prefix, *key, *lease, *before;
    } table[] = {
        {"holdfast:", "k", "holdfast:k", "holdfast:{holdfast:k}"},
        {"", "k", "k", "{k}"},
        {"", "order:{7}", "order:{7}", "{7}order:{7}"},
        {"{app}:", "k", "{app}:k", "{app}:{app}k"},
        {"holdfast:", "a{b", "holdfast:a{b", "holdfast:{holdfast:a{b}"},
        {"", "}", "}", "{5305}}"},
        {"", "{}{a}", "{}{a}", "{3626}{}{a}"},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hf__redis_names names;
        hf__redis_name name;
        size_t len = strlen(table[i].before);

        init(&names, table[i].prefix);
        hf__redis_lease_name(&names, slice(table[i].key), &name);
        CHECK(equal(whole(&name), slice(table[i].lease)));
        REQUIRE(hf__redis_companion(&names, slice(table[i].key), 's', &name));
        name.text[name.len] = '\0';
        if (name.len != len + 2 || memcmp(name.text, table[i].before, len) != 0)
            FAIL("%s: \"%s\"", table[i].key, name.text);
        CHECK(name.len >= 2 && name.text[name.len - 2] == '\0' && name.text[name.len - 1] == 's');
        hf__redis_names_fini(&names);
    }
}

/* Keys of the characters that matter, and a few others. */
static hf_slice draw_key(char *text, size_t most) {
    static const char letters[] = "{}{}ab:\x01\xff";
    size_t len = 1 + (size_t)rand() % most;

    for (size_t i = 0; i < len; i++)
        text[i] = letters[(size_t)rand() % (sizeof letters - 1)];
    return (hf_slice){text, len};
}

static void check_key(hf__redis_names *names, hf_slice key) {
    hf__redis_name lease;
    hf__redis_name name;
    hf_slice back;
    char letter;

    hf__redis_lease_name(names, key, &lease);
    REQUIRE(hf__redis_companion(names, key, 'w', &name));
    CHECK_UINT(hf__redis_slot(whole(&name)), hf__redis_slot(whole(&lease)));
    CHECK(hf__redis_read_companion(names, whole(&name), &back, &letter));
    CHECK(equal(back, key));
    CHECK_INT(letter, 'w');
    /* A lease is nobody's companion. */
    CHECK(!hf__redis_read_companion(names, whole(&lease), &back, &letter));
}

TEST(every_key_has_its_own_in_one_slot) {
    char text[HF_KEY_MAX];

    srand(1);
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        hf__redis_names names;

        init(&names, prefixes[i]);
        for (int n = 0; n < 3000; n++)
            check_key(&names, draw_key(text, n % 100 == 0 ? sizeof text : 8));
        memset(text, '}', sizeof text);
        check_key(&names, (hf_slice){text, sizeof text});
        memset(text, 'x', sizeof text);
        text[0] = '{';
        text[sizeof text - 1] = '}';
        check_key(&names, (hf_slice){text, sizeof text});
        hf__redis_names_fini(&names);
    }
}

TEST(longest_prefix) {
    char prefix[HF__REDIS_PREFIX_MAX + 2];
    char text[HF_KEY_MAX];
    hf__redis_names names;
    hf_error error;

    memset(prefix, 'p', sizeof prefix);
    prefix[HF__REDIS_PREFIX_MAX] = '\0';
    init(&names, prefix);
    memset(text, 'x', sizeof text);
    check_key(&names, (hf_slice){text, sizeof text});
    text[0] = '{';
    text[sizeof text - 1] = '}';
    check_key(&names, (hf_slice){text, sizeof text});
    hf__redis_names_fini(&names);
    prefix[HF__REDIS_PREFIX_MAX] = 'p';
    CHECK_INT(hf__redis_names_init(&names, (hf_slice){prefix, HF__REDIS_PREFIX_MAX + 1},
                                   hf__allocator_libc(), &error),
              HF_EINVAL);
    CHECK_INT(hf__redis_names_init(&names, (hf_slice){"a\0b", 3}, hf__allocator_libc(), &error),
              HF_EINVAL);
}

/* What others may have in their Redis. */
TEST(names_of_others) {
    static const struct {
        const char *text;
        size_t len;
    } table[] = {
        {"", 0},
        {"holdfast:", 9},
        {"holdfast:{", 10},
        {"holdfast:{}\0s", 13},
        {"holdfast:{holdfast:}\0s", 22}, /* of an empty key */
        {"holdfast:{other:k}\0s", 20},
        {"holdfast:{holdfast:k}\0", 22},
        {"holdfast:{holdfast:k}\0ss", 24},
        {"holdfast:{holdfast:k\0s", 22},
        {"holdfast:{holdfast:k}\0\0s", 24},
        {"holdfasT:{holdfast:k}\0s", 23},
    };
    hf__redis_names names;
    hf_slice key;
    char letter;

    init(&names, "holdfast:");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        hf_slice name = {table[i].text, table[i].len};
        if (hf__redis_read_companion(&names, name, &key, &letter))
            FAIL("number %zu is taken for one of ours", i);
    }
    hf__redis_names_fini(&names);
}
