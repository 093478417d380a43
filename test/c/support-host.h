/* A host for tests of the public interface: a loop, an engine, and a client, and ways to wait for
 * something to happen instead of for time to pass. */
#ifndef HF_TEST_HOST_H
#define HF_TEST_HOST_H

#include "harness.h"
#include "holdfast.h"

#include <uv.h>

typedef struct host {
    uv_loop_t loop;
    hf_engine *engine;
    hf_client *client;
} host;

/* A loop, an engine and a client of `url` ("sqlite:" alone: a fresh file in the test's folder). */
void host_open(host *h, const char *url);
void host_open_with(host *h, const char *url, const hf_engine_options *options);
/* Closes all, and checks that the loop can be closed: nothing was left behind. */
void host_close(host *h);

/* Runs the loop until `*flag` is at least `count`; fails the test after 30 s. */
void host_until(host *h, const int *flag, int count);
/* Runs the loop for `ms`. */
void host_run_ms(host *h, uint64_t ms);

static inline hf_slice slice(const char *s) {
    return (hf_slice){s, __builtin_strlen(s)};
}

/* A lock that records what happens to it. */
typedef struct held {
    hf_lock *lock;
    int answered; /* `acquired` ran so often */
    hf_code code;
    bool held_here;
    bool holder_known;
    int lost;
    hf_error why;
    int released;
    bool was_held;
    hf_code release_code;
    int extended;
    hf_code extend_code;
    int order; /* of the answer among all */
} held;

/* ttl 30 s, wait 10 s, renewed, exclusive */
hf_lock_options lock_options(const hf_slice *keys, size_t n_keys);
hf_code held_ask(host *h, held *l, const hf_lock_options *options);
/* Asks with the options above for one key, and waits for the answer. */
void held_take(host *h, held *l, const char *key);
hf_code held_release(held *l);
hf_code held_extend(held *l, uint64_t ttl_ms);
/* Counts the answers of all locks, for `order`. */
extern int held_answers;

#endif
