/* Any bytes as a store URL: either refused with a reason, or taken apart into parts that lie within
 * its own copy and hold no NUL. */
#include "util/alloc.h"
#include "util/url.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds) {
    if (!holds) abort();
}

static void check(const hf__url *url, size_t size, hf_slice part) {
    demand(part.data >= url->text && part.data + part.len <= url->text + size);
    demand(part.data[part.len] == '\0');
    demand(memchr(part.data, '\0', part.len + 1) == part.data + part.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *why = NULL;
    hf_slice value;
    hf__url url;

    if (!hf__url_parse(&url, (hf_slice){(const char *)data, size}, hf__allocator_libc(), &why)) {
        demand(why != NULL && url.text == NULL);
        return 0;
    }
    check(&url, size, url.scheme);
    check(&url, size, url.user);
    check(&url, size, url.password);
    check(&url, size, url.host);
    check(&url, size, url.path);
    demand(url.scheme.len > 0 && url.port <= 65535 && url.n_params <= HF_URL_PARAMS_MAX);
    for (size_t i = 0; i < url.n_params; i++) {
        check(&url, size, url.params[i].name);
        check(&url, size, url.params[i].value);
        demand(url.params[i].name.len > 0);
        demand(hf__url_param_get(&url, url.params[i].name.data, &value));
        demand(value.data == url.params[i].value.data);
    }
    hf__url_free(&url, hf__allocator_libc());
    return 0;
}
