/*
 * Store URLs: "memory:", "sqlite:./file.db?busyTimeout=5000", "sqlite:///abs/file.db",
 * "redis://user:pass@host:port/0?x=y". Percent-encoding is undone in every part. Fuzzed. What
 * follows "quorum:" is a list: its parameters, if it begins with "?", up to a blank, and then its
 * path, as it stands: URLs separated by blanks.
 */
#ifndef HF_UTIL_URL_H
#define HF_UTIL_URL_H

#include "holdfast.h"

#define HF_URL_MAX 8192
#define HF_URL_PARAMS_MAX 32

/* The one `why` that is not about the URL (compare the pointer's text): memory was out. */
#define HF__URL_NOMEM "memory is out"

typedef struct hf__url_param {
    hf_slice name;
    hf_slice value;
} hf__url_param;

/* Parts that are missing have len 0. All slices point into `text`, and a NUL follows each. */
typedef struct hf__url {
    char *text;      /* one allocation */
    hf_slice scheme; /* lower case */
    hf_slice user;
    hf_slice password; /* secret: never in a message */
    hf_slice host; /* as written, several separated by commas; IPv6 without brackets if single */
    uint32_t port; /* 0 if missing; for a list of hosts they stay in `host` */
    hf_slice path; /* sqlite: the file name; with an authority: after the slash, without it */
    bool has_authority; /* "//" was there */
    hf__url_param params[HF_URL_PARAMS_MAX];
    size_t n_params;
} hf__url;

/* Parses. False with a sentence in `why` (static; it never quotes the URL, which may hold a
 * password). For "sqlite:///abs" the path is "/abs"; "sqlite:rel" is "rel"; "sqlite://rel" is
 * refused. A NUL byte anywhere (also encoded) is refused, a bad percent sequence too, a
 * parameter given twice too. */
bool hf__url_parse(hf__url *url, hf_slice text, const hf_allocator *allocator, const char **why);
void hf__url_free(hf__url *url, const hf_allocator *allocator);

/* The parameter's value; false if it is not there. */
bool hf__url_param_get(const hf__url *url, const char *name, hf_slice *value);
/* A decimal number from `low` to `high`; false (value unchanged) if it is not one. */
bool hf__parse_uint(hf_slice s, uint64_t low, uint64_t high, uint64_t *value);

#endif
