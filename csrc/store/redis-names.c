#include "store/redis-names.h"

#include "driver/redis/redis.h"
#include "util/alloc.h"

#include <stdio.h>
#include <string.h>

static bool has(hf_slice s, char c) {
    return s.len > 0 && memchr(s.data, c, s.len) != NULL;
}

/* Braces would make a hash tag, which must be one that is whole: then every name begins with it. */
static bool has_sound_braces(hf_slice prefix) {
    hf_slice tag = hf__redis_hash_tag(prefix);
    size_t braces = 0;

    for (size_t i = 0; i < prefix.len; i++)
        braces += prefix.data[i] == '{' || prefix.data[i] == '}';
    return braces == 0 || (braces == 2 && tag.len > 0);
}

hf_code hf__redis_names_init(hf__redis_names *names, hf_slice prefix, const hf_allocator *allocator,
                             hf_error *error) {
    *names = (hf__redis_names){.allocator = allocator, .prefix = prefix};
    if (prefix.len > HF__REDIS_PREFIX_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "prefix has %zu bytes; up to %d are possible",
                             prefix.len, HF__REDIS_PREFIX_MAX);
    if (has(prefix, '\0')) return hf__error_set(error, HF_EINVAL, 0, "prefix has a NUL byte in it");
    if (!has_sound_braces(prefix))
        return hf__error_set(error, HF_EINVAL, 0,
                             "prefix \"%.*s\" has braces: they can only be one hash tag, "
                             "such as {app}:",
                             hf__shown(prefix), prefix.data);
    return HF_OK;
}

void hf__redis_names_fini(hf__redis_names *names) {
    hf__free(names->allocator, names->tags);
}

static void add(hf__redis_name *name, hf_slice s) {
    if (s.len > 0) memcpy(name->text + name->len, s.data, s.len);
    name->len += s.len;
}

static void add_char(hf__redis_name *name, char c) {
    name->text[name->len++] = c;
}

void hf__redis_lease_name(const hf__redis_names *names, hf_slice key, hf__redis_name *name) {
    name->len = 0;
    add(name, names->prefix);
    add(name, key);
}

/* The least number of every slot; the greatest is not far above 150,000. */
static uint32_t *find_tags(const hf_allocator *allocator) {
    uint32_t *tags = hf__alloc(allocator, HF__REDIS_SLOTS * sizeof *tags);
    uint32_t left = HF__REDIS_SLOTS;

    if (tags == NULL) return NULL;
    memset(tags, 0xff, HF__REDIS_SLOTS * sizeof *tags);
    for (uint32_t n = 0; left > 0; n++) {
        char text[12];
        int len = snprintf(text, sizeof text, "%u", n);
        uint16_t slot = hf__redis_slot((hf_slice){text, (size_t)len});

        if (tags[slot] != UINT32_MAX) continue;
        tags[slot] = n;
        left--;
    }
    return tags;
}

/* Adds a hash tag with the slot of a lease whose name has a closing brace, but no hash tag. */
static bool add_number(hf__redis_names *names, hf_slice lease, hf__redis_name *name) {
    char text[12];
    int len;

    if (names->tags == NULL) names->tags = find_tags(names->allocator);
    if (names->tags == NULL) return false;
    len = snprintf(text, sizeof text, "%u", names->tags[hf__redis_slot(lease)]);
    add(name, (hf_slice){text, (size_t)len});
    return true;
}

bool hf__redis_companion(hf__redis_names *names, hf_slice key, char letter, hf__redis_name *name) {
    hf__redis_name lease;
    hf_slice whole;
    hf_slice tag;

    hf__redis_lease_name(names, key, &lease);
    whole = (hf_slice){lease.text, lease.len};
    name->len = 0;
    add(name, names->prefix);
    add_char(name, '{');
    if (!has(whole, '}')) {
        add(name, whole);
        add_char(name, '}');
    } else {
        tag = hf__redis_hash_tag(whole);
        if (tag.len > 0)
            add(name, tag);
        else if (!add_number(names, whole, name))
            return false;
        add_char(name, '}');
        add(name, key);
    }
    add_char(name, '\0');
    add_char(name, letter);
    return true;
}

bool hf__redis_read_companion(const hf__redis_names *names, hf_slice name, hf_slice *key,
                              char *letter) {
    size_t from = names->prefix.len + 1;
    const char *brace;
    const char *end;

    if (name.len < from + 4 || !hf__slice_starts(name, names->prefix) || name.data[from - 1] != '{')
        return false;
    end = name.data + name.len - 2;
    brace = memchr(name.data + from, '}', name.len - from);
    if (brace == NULL || brace > end || memchr(name.data, '\0', name.len) != end) return false;
    *letter = end[1];
    *key = (hf_slice){brace + 1, (size_t)(end - brace - 1)};
    if (key->len > 0) return true;
    /* The tag is the lease. */
    *key = (hf_slice){name.data + from, (size_t)(brace - name.data) - from};
    if (!hf__slice_starts(*key, names->prefix)) return false;
    key->data += names->prefix.len;
    key->len -= names->prefix.len;
    return key->len > 0;
}

void hf__redis_pattern(const hf__redis_names *names, char letter, hf__redis_name *pattern) {
    pattern->len = 0;
    for (size_t i = 0; i < names->prefix.len; i++) {
        if (strchr("*?[]\\", names->prefix.data[i]) != NULL) add_char(pattern, '\\');
        add_char(pattern, names->prefix.data[i]);
    }
    add(pattern, (hf_slice){"{*}*", 4});
    add_char(pattern, '\0');
    add_char(pattern, letter);
}
