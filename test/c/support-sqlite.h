/*
 * A store on an SQLite file for one test: a loop, an instance, a clock that can be set, and ops
 * that are run to their end one at a time or many at once.
 */
#ifndef HF_TEST_SUPPORT_SQLITE_H
#define HF_TEST_SUPPORT_SQLITE_H

#include "core/store.h"

#include <sys/types.h>

typedef struct kit {
    uv_loop_t loop;
    hf__url url;
    hf__store_env env;
    hf_store *store;
    hf_clock clock;
    const char *boot_id; /* of `clock` */
    uint64_t boot_ns;    /* what the clock says, where it is not the system's */
    uint64_t real_us;
    int warnings;
    hf_code warned; /* the last one's code */
    int pending;
} kit;

enum { KIT_BLOCKING = 1, KIT_FAKE_CLOCK = 2 };

/* An instance on `path` ("params" as in a URL, after the question mark, or NULL). The fake clock
 * stands where the system's does, on boot "boot-a". Nothing is opened yet. Aborts where memory is
 * out. */
void kit_init(kit *k, const char *path, const char *params, unsigned flags);
/* Closes, and checks that nothing is left in the loop. */
void kit_fini(kit *k);
/* Opens the store; its error. */
hf_error kit_open(kit *k);

/* Sets the fake clock. */
void kit_set_boot(kit *k, const char *boot_id);
void kit_pass(kit *k, uint64_t ms);

/* Prepares an op of one key. `key` and the op stay in place until it is reset. */
void kit_op(kit *k, hf_op *op, hf_verb verb, hf_space space, const hf_slice *key);
/* Submits one op, or a chain, and runs the loop until all have ended. */
void kit_run(kit *k, hf_op *op);
/* Submits only; runs the loop until nothing that was submitted is pending. */
void kit_submit(kit *k, hf_op *op);
void kit_wait(kit *k);

/* A token made of a number. */
hf_token kit_token(uint64_t n);
hf_slice kit_slice(const char *text);

/* One op each, run to its end; false if it was refused, and a failed check if it failed. */
bool kit_take(kit *k, const char *key, uint64_t token, uint64_t *fence);
bool kit_drop(kit *k, const char *key, uint64_t token);
bool kit_keep(kit *k, const char *key, uint64_t token);
bool kit_put(kit *k, const char *key, const char *value, uint64_t token, uint64_t *version);
/* The value in `value`; false if there is none. */
bool kit_get(kit *k, const char *key, char *value, size_t size, uint64_t *version);

/* "FOLDER/name" in a buffer of its own. */
typedef struct kit_path {
    char text[256];
} kit_path;
kit_path kit_file(const char *name);

/* Runs `run(data)` in a child process; the child exits with what it returns. */
pid_t kit_fork(int (*run)(void *data), void *data);
/* Waits for it: its exit status, or 256 + the signal that ended it. */
int kit_wait_for(pid_t pid);

/* Runs SQL on the file with a connection of its own; true if it went well. */
bool kit_sql(const char *path, const char *sql);
/* Copies a file. */
bool kit_copy(const char *from, const char *to);

#endif
