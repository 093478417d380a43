/* The memory store against the store contract. */
#include "conformance.h"
#include "store/stores.h"
#include "util/alloc.h"

#include <stdio.h>
#include <string.h>

static void fresh(char *url, size_t size) {
    snprintf(url, size, "memory:");
}

static const store_subject hf__subject = {
    .vt = &hf__memory_store,
    .fresh = fresh,
    .own_clock = true,
};

HF_CONFORMANCE_TESTS()

/* Ops wait for an open that fails, and end with its error; later ones get the store after all. */
TEST(open_fails) {
    static injector starve;
    slot early;
    slot opened;
    world w;
    rig r;

    memset(&early, 0, sizeof early);
    memset(&opened, 0, sizeof opened);
    world_open(&w, &hf__subject);
    w.starve = &starve;
    rig_open_idle(&r, &w, false);
    rig_submit(&r, &early, &(ask){.verb = HF_TAKE, .keys = "k", .token = 1}, 1);
    injector_arm(&starve, 1);
    rig_submit(&r, &opened, &(ask){.verb = HF_OPEN}, 1);
    CHECK(injector_disarm(&starve));
    RIG_UNTIL(&r, early.ended > 0 && opened.ended > 0);
    CHECK_INT(opened.op.error.code, HF_ENOMEM);
    CHECK_INT(early.op.error.code, HF_ENOMEM);
    CHECK(!early.op.applied);
    CHECK(ASK(&r, .verb = HF_TAKE, .keys = "k", .token = 2)->applied);
    rig_close(&r);
    world_close(&w);
}

/* What a URL may say beside its scheme: nothing. */
TEST(url_is_only_a_scheme) {
    static const char *const urls[] = {"memory:x", "memory://", "memory://host"};

    for (size_t i = 0; i < 3; i++) {
        hf__store_env env = {.allocator = hf__allocator_libc()};
        const char *why = "";
        hf_error error;
        hf__url url;

        REQUIRE(hf__url_parse(&url, slice_of(urls[i]), env.allocator, &why));
        env.url = &url;
        CHECK_NULL(hf__store_new(&hf__memory_store, &env, &error));
        CHECK_INT(error.code, HF_EINVAL);
        hf__url_free(&url, env.allocator);
    }
}
