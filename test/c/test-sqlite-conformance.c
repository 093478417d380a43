/* The SQLite store against the store contract. */
#include "conformance.h"
#include "store/stores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fresh(char *url, size_t size) {
    static int n;
    snprintf(url, size, "sqlite:%s/%d.db", hf_test_folder(), ++n);
}

/* The whole file: with its last connection the log has gone into it. */
static void copy(const char *from, const char *to) {
    char buffer[4096];
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    size_t n;

    if (in == NULL || out == NULL) {
        perror(in == NULL ? from : to);
        abort();
    }
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0)
        CHECK_UINT(fwrite(buffer, 1, n, out), n);
    fclose(in);
    CHECK_INT(fclose(out), 0);
}

static const char *path_of(const char *url) {
    return url + strlen("sqlite:");
}

static void save(const char *url) {
    char kept[1024];
    snprintf(kept, sizeof kept, "%s.kept", path_of(url));
    copy(path_of(url), kept);
}

static void restore(const char *url) {
    char kept[1024];
    snprintf(kept, sizeof kept, "%s.kept", path_of(url));
    copy(kept, path_of(url));
}

static const store_subject hf__subject = {
    .vt = &hf__sqlite_store,
    .fresh = fresh,
    .own_clock = true,
    .lasts = true,
    .save = save,
    .restore = restore,
};

HF_CONFORMANCE_TESTS()
