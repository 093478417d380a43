/*
 * Programs on a store, beside the model; and where the two differ, the smallest program that shows
 * it. Main thread; one at a time.
 */
#ifndef HF_TEST_SUPPORT_MODEL_RUN_H
#define HF_TEST_SUPPORT_MODEL_RUN_H

#include "support-program.h"
#include "support-rig.h"

/* A store, as its programs see it. */
typedef struct model_row {
    const char *name;
    store_subject subject;
    uint32_t instances;   /* of the store, used at the same time: 1 to PROGRAM_INSTANCES */
    uint64_t slack_ms;    /* how much less time may be left than by our clock, on a store's own */
    uint32_t runs;        /* programs in a usual run */
    bool lists_at_length; /* a list may show what was asked for after it */
} model_row;

/* A search for a program that differs. */
typedef struct hunt {
    uint64_t seed;    /* of the first program; each has the next */
    uint64_t runs;    /* how many at most */
    uint64_t seconds; /* and for how long; 0: as long as it takes */
    /* out */
    uint64_t programs;
    uint64_t steps;
    uint32_t saw; /* MODEL_SAW_* */
    uint64_t found_seed;
    size_t found_size; /* before it shrank */
    program found;     /* after */
} hunt;

/* Runs one program after another; true when one differs from the model, which is then shrunk. */
bool model_hunt(const model_row *row, hunt *h);
/* Prints what was found, so that it can be repeated. */
void model_report(const model_row *row, const hunt *h);

#endif
