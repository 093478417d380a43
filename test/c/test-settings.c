/* Settings of a client: copied, found by its stores before the URL's parameters, refused where the
 * store does not know them. */
#include "support-host.h"

#include "prim/client.h"
#include "store/registry.h"
#include "util/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A memory store that keeps what it was told. */
static hf_store_vtable nosy;
static const hf_store_vtable *memory;
static char seen[2][4][64]; /* by instance: the host's, the keeper's */
static atomic_int n_init;

static void look(const hf_store *store, const char *name, char *text) {
    hf_slice value;
    strcpy(text, "-");
    if (!hf__setting_get(&store->env, name, &value)) return;
    CHECK(value.data[value.len] == '\0');
    CHECK(value.len < 64);
    memcpy(text, value.data, value.len + 1);
}

static hf_code nosy_init(hf_store *store, hf_error *error) {
    char(*texts)[64] = seen[store->env.blocking ? 1 : 0];
    look(store, "tls", texts[0]);
    look(store, "prefix", texts[1]);
    look(store, "db", texts[2]);
    look(store, "password", texts[3]);
    atomic_fetch_add(&n_init, 1);
    return memory->init(store, error);
}

static void clear_seen(void) {
    memory = hf__store_find(slice("memory"));
    nosy = *memory;
    nosy.init = nosy_init;
    nosy.params = "db tls prefix password";
    nosy.name = "nosy";
    memset(seen, 0, sizeof(seen));
    atomic_store(&n_init, 0);
}

static hf_code client_new(host *h, const char *text, const hf_setting *settings, size_t n,
                          hf_client **client, hf_error *error) {
    hf__url url;
    const char *why;
    hf_client_options options = HF_CLIENT_DEFAULTS;
    options.settings = settings;
    options.n_settings = n;
    REQUIRE(hf__url_parse(&url, slice(text), &h->engine->allocator, &why));
    return hf__client_new(h->engine, &nosy, &url, &options, client, error);
}

TEST(both_instances_find_settings_before_parameters) {
    host h;
    held l;
    hf_error error;
    clear_seen();
    host_open(&h, "memory:");
    hf_client_close(h.client, 0, NULL, NULL);
    char text[] = "true\0p:\0s3cret";
    hf_setting settings[] = {{slice("tls"), {text, 4}},
                             {slice("prefix"), {text + 5, 2}},
                             {slice("password"), {text + 8, 6}}};
    CHECK_INT(client_new(&h, "memory:?db=3&prefix=url", settings, 3, &h.client, &error), HF_OK);
    /* They were copied: the caller's are gone when the keeper makes its instance. */
    memset(text, 'x', sizeof(text));
    memset(settings, 0, sizeof(settings));
    hf_slice key = slice("k");
    hf_lock_options o = lock_options(&key, 1);
    o.ttl_ms = 60;
    CHECK_INT(held_ask(&h, &l, &o), HF_OK);
    host_until(&h, &l.answered, 1);
    for (int i = 0; i < 30000 && atomic_load(&n_init) < 2; i++)
        host_run_ms(&h, 1);
    CHECK_INT(atomic_load(&n_init), 2);
    hf_lock_free(l.lock);
    host_close(&h);
    for (int i = 0; i < 2; i++) {
        CHECK_STR(seen[i][0], "true");
        CHECK_STR(seen[i][1], "p:");
        CHECK_STR(seen[i][2], "3");
        CHECK_STR(seen[i][3], "s3cret");
    }
}

TEST(without_settings_the_parameters_count) {
    host h;
    hf_error error;
    clear_seen();
    host_open(&h, "memory:");
    hf_client_close(h.client, 0, NULL, NULL);
    CHECK_INT(client_new(&h, "memory:?prefix=", NULL, 0, &h.client, &error), HF_OK);
    CHECK_STR(seen[0][0], "-");
    CHECK_STR(seen[0][1], "");
    CHECK_STR(seen[0][3], "-");
    host_close(&h);
}

TEST(a_setting_of_any_size_is_kept) {
    hf_error error;
    hf__settings settings;
    size_t size = 1u << 20;
    char *big = malloc(size);
    REQUIRE(big != NULL);
    memset(big, 'c', size);
    big[size / 2] = '\0';
    hf_setting given = {slice("tlsCa"), {big, size}};
    CHECK_INT(hf__settings_copy(&settings, &given, 1, hf__allocator_libc(), &error), HF_OK);
    hf__store_env env = {.settings = &settings};
    hf_slice value = {0};
    CHECK(hf__setting_get(&env, "tlsCa", &value));
    CHECK_UINT(value.len, size);
    CHECK_MEM(value.data, big, size);
    hf__settings_free(&settings, hf__allocator_libc());
    free(big);
}

static void refused(host *h, const char *url, const hf_setting *settings, size_t n,
                    const char *message) {
    hf_error error;
    hf_client *client = NULL;
    hf_client_options options = HF_CLIENT_DEFAULTS;
    options.settings = settings;
    options.n_settings = n;
    CHECK_INT(hf_client_open(h->engine, slice(url), &options, &client, &error), HF_EINVAL);
    CHECK_STR(error.message, message);
    CHECK_NULL(client);
}

TEST(what_the_store_does_not_take_is_refused) {
    host h;
    host_open(&h, "memory:");
    hf_setting prefix = {slice("prefix"), slice("s3cret")};
    refused(&h, "memory:", &prefix, 1,
            "the memory store has no setting \"prefix\"; it takes: none");
    refused(&h, "sqlite:./x.db", &prefix, 1,
            "the sqlite store has no setting \"prefix\"; it takes: busyTimeout");
    hf_setting part = {slice("busy"), slice("5")};
    refused(&h, "sqlite:./x.db", &part, 1,
            "the sqlite store has no setting \"busy\"; it takes: busyTimeout");
    hf_setting empty = {slice(""), slice("5")};
    refused(&h, "sqlite:./x.db", &empty, 1,
            "the sqlite store has no setting \"\"; it takes: busyTimeout");
    hf_setting wrong = {slice("busyTimeout"), slice("soon")};
    refused(&h, "sqlite:./x.db?busyTimeout=5", &wrong, 1,
            "busyTimeout is milliseconds, a whole number from 0 to 600000");
    hf_setting twice[] = {{slice("busyTimeout"), slice("5")}, {slice("busyTimeout"), slice("5")}};
    refused(&h, "sqlite:./x.db", twice, 2, "the setting \"busyTimeout\" is given twice");
    host_close(&h);
}

TEST(settings_are_bounded_and_have_names) {
    hf_error error;
    hf__settings settings;
    hf_setting many[HF_SETTINGS_MAX + 1];
    char names[HF_SETTINGS_MAX + 1][2];
    for (int i = 0; i <= HF_SETTINGS_MAX; i++) {
        names[i][0] = (char)('0' + i);
        names[i][1] = '\0';
        many[i] = (hf_setting){{names[i], 1}, {NULL, 0}};
    }
    const hf_allocator *libc = hf__allocator_libc();
    CHECK_INT(hf__settings_copy(&settings, many, HF_SETTINGS_MAX + 1, libc, &error), HF_EINVAL);
    CHECK_INT(hf__settings_copy(&settings, many, HF_SETTINGS_MAX, libc, &error), HF_OK);
    hf__store_env env = {.settings = &settings};
    hf_slice value;
    CHECK(hf__setting_get(&env, "7", &value));
    CHECK_UINT(value.len, 0);
    hf__settings_free(&settings, libc);
    many[3].name.len = 0;
    CHECK_INT(hf__settings_copy(&settings, many, 5, libc, &error), HF_EINVAL);
    CHECK_STR(error.message, "setting 3 has no name");
}

static void *no_memory(void *data, void *p, size_t size) {
    (void)data;
    (void)size;
    free(p);
    return NULL;
}

TEST(a_copy_without_memory_leaves_nothing) {
    hf_error error;
    hf__settings settings;
    const hf_allocator none = {.resize = no_memory};
    hf_setting one = {slice("prefix"), slice("x")};
    CHECK_INT(hf__settings_copy(&settings, &one, 1, &none, &error), HF_ENOMEM);
    CHECK_NULL(settings.items);
    CHECK_INT(hf__settings_copy(&settings, NULL, 0, &none, &error), HF_OK);
    hf__settings_free(&settings, &none);
}
