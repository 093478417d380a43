/* A store under test, outside of any engine: a world (what one client's instances share: clock,
 * allocator, URL) and rigs (one instance on a loop of its own).
 *
 * A rig belongs to the thread that opened it; a world may be used from several. Operations are
 * asked for with ASK and have ended when it returns:
 *
 *     const hf_op *op = ASK(rig, .verb = HF_TAKE, .keys = "a b", .token = 1);
 *     CHECK(op->applied); */
#ifndef HF_TEST_SUPPORT_RIG_H
#define HF_TEST_SUPPORT_RIG_H

#include "core/store.h"

#include <stdatomic.h>

/* Which store is tested, and how to get one. */
typedef struct store_subject {
    const hf_store_vtable *vt;
    /* Writes the URL of a store that is new and empty. Main thread. */
    void (*fresh)(char *url, size_t size);
    /* The store reads env.clock: tests may move it. */
    bool own_clock;
    /* Or its server's clock can be set, in microseconds since 1970; NULL: it cannot. Such a server
     * judges in milliseconds, and removes what is over by itself. */
    void (*set_clock)(uint64_t real_us);
    /* What it holds outlives its last instance. */
    bool lasts;
    /* Its files go back to what they were when `save` ran; NULL where it has none. No instance is
     * open at either call. */
    void (*save)(const char *url);
    void (*restore)(const char *url);
} store_subject;

/* Makes the n-th allocation from now fail, once. Shared by everything that allocates in a test. */
typedef struct injector {
    atomic_long countdown; /* 0: off */
    atomic_bool hit;
} injector;

void injector_arm(injector *i, long n);
/* Whether the failure has happened; it is off afterwards. */
bool injector_disarm(injector *i);
/* Asked by an allocator, for each allocation. True: fail. Any thread. */
bool injector_strikes(injector *i);

typedef struct world {
    const store_subject *subject;
    _Atomic uint64_t boot_ns;
    _Atomic uint64_t real_us;
    char boot_id[32];
    hf_clock clock;
    hf_allocator allocator; /* counts, and fails where `starve` says so */
    atomic_long blocks;     /* allocated and not freed */
    injector *starve;       /* makes allocations fail; NULL: none does */
    bool starving;          /* every ASK is tried with each of its allocations failing */
    atomic_long struck;     /* how many operations ended HF_ENOMEM by the injector */
    hf__shared shared;
    hf__url url;
    char text[1024]; /* of the URL */
} world;

void world_open(world *w, const store_subject *subject);
/* All rigs are closed. Checks that nothing is left allocated. */
void world_close(world *w);
/* Ends the test as skipped, before any rig was opened. Main thread; does not return. */
void world_skip(world *w, const char *reason) __attribute__((noreturn));
/* Moves the clock; where it cannot be moved it sleeps instead. Any thread. */
void world_pass(world *w, uint64_t ms);
bool world_can_pass(const world *w);
/* Sets the server's clock, if there is one: to where it stood first, and the time that has passed
 * since, whatever has become of real_us. */
void world_set_clock(const world *w);
/* Another boot: the clock starts anew, with another id. No rig is open. */
void world_reboot(world *w);

typedef struct rig {
    world *world;
    uv_loop_t loop;
    uv_async_t alive; /* keeps the loop from ending, and is the one handle that a test may send */
    hf__scope scope;
    int entered;      /* brackets open */
    int brackets;     /* brackets closed */
    int warnings;     /* that an operator was given */
    hf_error warning; /* the last one */
    hf__store_env env;
    hf_store *store;
    struct slot *slot; /* of ASK */
} rig;

/* Opens an instance and waits until it is ready. */
void rig_open(rig *r, world *w, bool blocking);
/* The same without HF_OPEN. */
void rig_open_idle(rig *r, world *w, bool blocking);
void rig_close(rig *r);
/* Gives the loop one turn; waits in it for something to happen. Any wait of a test that would last
 * more than half a minute ends the program. */
void rig_turn(rig *r);
#define RIG_UNTIL(rig, condition) \
    do {                          \
        while (!(condition))      \
            rig_turn(rig);        \
    } while (0)

/* What to ask of a store, in a test's terms. */
typedef struct ask {
    hf_verb verb;
    hf_space space;
    const char *keys; /* separated by blanks; NULL: one empty key */
    hf_slice key;     /* instead, where it has a blank or a NUL in it */
    int token;        /* n: the token of that number; 0: none */
    int replace;
    uint32_t limit; /* 0: 1 for a take, 100 for list and sweep */
    uint64_t ttl;   /* 0: for leases 10 s */
    uint64_t lease;
    hf_condition condition;
    uint64_t version;
    hf_format format;
    uint32_t flags;
    const char *value;
    hf_slice bytes; /* instead */
    const char *note;
    const char *fence_key;
    uint64_t fence;
    int64_t delta, min, max, initial;
} ask;

/* An op with room for all that it points to. Zeroed before its first use. */
typedef struct slot {
    hf_op op;
    hf_slice keys[HF_KEYS_MAX];
    hf_holder holder; /* of a refused take */
    int ended;        /* how many times `done` ran */
    rig *rig;
} slot;

hf_token token_of(int n);
hf_slice slice_of(const char *text);

/* Fills the slot's op. */
void slot_fill(slot *s, rig *r, const ask *what);
void slot_reset(slot *s);
/* Fills n slots, submits them as one chain; does not wait. */
void rig_submit(rig *r, slot *slots, const ask *asks, size_t n);

/* Asks, and waits. The op is the rig's: it is good until its next ASK. */
const hf_op *rig_ask(rig *r, const ask *what);
#define ASK(rig, ...) rig_ask(rig, &(ask){__VA_ARGS__})
/* The holder that the last ASK was told of. */
const hf_holder *rig_holder(const rig *r);

/* Whether op->out is this text. */
bool out_is(const hf_op *op, const char *text);

#endif
