/*
 * How the Redis store names what it keeps. One thread.
 *
 * P is the prefix, k a key, and L = P k the name of its lease: a plain string that any Redlock
 * implementation can read. What else there is of a key has a letter each:
 *
 *   s  its state: the fence counter, and who took the key last (string)
 *   z  those who share it, by when their time is up (sorted set); h: what is told of each (hash)
 *   i  intent marks; w: the instances that wait; both by when they lapse (sorted sets)
 *   v  its value (string); V: the instances to be told of the next change (set)
 *   r  its record; R: as V
 *
 * Their names are P{L}\0s and so on, where L has no closing brace, at which the hash tag would end
 * too early. Else they are P{T}k\0s, where T is L's own hash tag, or, if it has none, the least
 * decimal number whose slot is L's. So all that is of a key lies in one slot of a cluster, L's; the
 * NUL keeps it apart from every lease, since no key has one; and the key can be read from each.
 */
#ifndef HF_STORE_REDIS_NAMES_H
#define HF_STORE_REDIS_NAMES_H

#include "core/error.h"

#define HF__REDIS_PREFIX_MAX 128
#define HF__REDIS_NAME_MAX (2 * (HF__REDIS_PREFIX_MAX + HF_KEY_MAX) + 8)

typedef struct hf__redis_names {
    const hf_allocator *allocator;
    hf_slice prefix; /* borrowed */
    uint32_t *tags;  /* by slot, the least number that has it; NULL until one is needed */
} hf__redis_names;

typedef struct hf__redis_name {
    size_t len;
    char text[HF__REDIS_NAME_MAX];
} hf__redis_name;

/* HF_EINVAL: a prefix that names cannot begin with. */
hf_code hf__redis_names_init(hf__redis_names *names, hf_slice prefix, const hf_allocator *allocator,
                             hf_error *error);
void hf__redis_names_fini(hf__redis_names *names);

/* The name of the key's lease. The key has up to HF_KEY_MAX bytes, none of them NUL. */
void hf__redis_lease_name(const hf__redis_names *names, hf_slice key, hf__redis_name *name);
/* The name of what has the letter. False when memory is out. */
bool hf__redis_companion(hf__redis_names *names, hf_slice key, char letter, hf__redis_name *name);
/* The other way round: false if it is no such name. `key` is a part of it. */
bool hf__redis_read_companion(const hf__redis_names *names, hf_slice name, hf_slice *key,
                              char *letter);
/* What SCAN is to match to find all companions of that letter. */
void hf__redis_pattern(const hf__redis_names *names, char letter, hf__redis_name *pattern);

#endif
