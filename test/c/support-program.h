/*
 * Programs for a store: lists of steps over a few keys and holders, drawn from a seed, printed one
 * line a step, and made smaller. What they come to is the model's affair (support-model.h), how
 * they are carried out the runner's (support-model-run.h).
 *
 * A program means the same whatever is taken out of it: steps name keys, tokens and instances by
 * number, and a step that has become pointless does nothing. That is what lets it shrink.
 */
#ifndef HF_TEST_SUPPORT_PROGRAM_H
#define HF_TEST_SUPPORT_PROGRAM_H

#include "holdfast.h"

enum {
    PROGRAM_KEYS = 5,
    PROGRAM_TOKENS = 20, /* numbered from 1; 0 is none */
    PROGRAM_INSTANCES = 3,
    PROGRAM_STEPS = 120,
};

typedef enum step_kind {
    STEP_TAKE,
    STEP_KEEP,
    STEP_DROP,
    STEP_LIST,
    STEP_SWEEP,
    STEP_STATE,   /* the whole list, page by page */
    STEP_PASS,    /* time passes: `us` */
    STEP_PASS_TO, /* until the next lease or mark lapses, and `ns` more, or less */
    STEP_WALL,    /* the wall clock is set forward or back by `us` */
    STEP_REOPEN,  /* the instance ends, with nothing dropped, and another comes in its place */
    STEP_REBOOT,  /* the machine does */
} step_kind;

typedef struct step {
    uint8_t kind; /* step_kind */
    uint8_t instance;
    bool joined; /* asked without waiting for the step before, where that is the same instance's */
    uint8_t n_keys;
    uint8_t keys[PROGRAM_KEYS]; /* in the order in which they are asked for; list: the prefix */
    uint8_t token;
    uint8_t replace;
    bool intent;
    bool wait;      /* take: HF_OP_WAIT, which must change nothing but `awaited` */
    bool exact;     /* list */
    bool next;      /* list: goes on from the page before */
    uint8_t after;  /* list: rows after key number after - 1; 0: all */
    uint32_t limit; /* take: of holders; list, state, sweep: of rows */
    uint64_t ttl_ms;
    int64_t us;
    int64_t ns;
} step;

typedef struct program {
    size_t n;
    step steps[PROGRAM_STEPS];
} program;

/* What a store's programs can be made of. */
typedef struct program_shape {
    uint32_t instances; /* 1 to PROGRAM_INSTANCES */
    uint32_t caps;      /* HF_CAP_*: what needs one that is missing is not asked for */
    bool time;          /* the clock can be moved; else it stays, and no lease is short */
    bool wall;          /* and the wall clock apart from it; and the machine can be started anew */
} program_shape;

/* Names of keys, in the order of memcmp: some are prefixes of others. */
const char *program_key(size_t k);

/* Draws a program; the same one for the same seed and shape. */
void program_draw(program *p, uint64_t seed, const program_shape *shape);

/* The step as a line of text, without a newline. */
void step_text(const step *s, char *text, size_t size);

/* Whether a step can be given to a store as one op. */
bool step_is_op(const step *s);

/* Takes out `count` steps from `at`. */
void program_cut(program *p, size_t at, size_t count);
/* Makes step `at` simpler in way number `way`, from 0. False when there is no such way; the step
 * may also be left as it was. */
bool program_simplify(program *p, size_t at, unsigned way);
/* Numbers tokens and keys in the order of their first use. */
void program_renumber(program *p);
/* How much there is to read; what shrinks has less with every change. */
uint64_t program_weight(const program *p);

#endif
