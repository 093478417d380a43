/* A memory store whose answers and requests get lost or come late: the faults that no embedded
 * store shows and every network does. A plan says what befalls the next ops of a verb, on
 * whichever thread. */
#ifndef HF_TEST_FAULTY_H
#define HF_TEST_FAULTY_H

#include "core/store.h"

#include <stdatomic.h>

typedef enum fault {
    FAULT_NONE,
    LOSE_ANSWER,   /* it lands; the caller hears that the outcome is unknown */
    LOSE_REQUEST,  /* it never lands; the caller hears the same */
    DELAY_ANSWER,  /* it lands; the caller hears of it `delay_ms` later */
    DELAY_REQUEST, /* the caller hears that the outcome is unknown; it lands `delay_ms` later */
    REFUSE         /* it fails without a doubt: the store is unavailable */
} fault;

typedef struct plan {
    _Atomic int fault;
    _Atomic int verb;
    _Atomic int left; /* how many ops it still befalls */
    _Atomic unsigned delay_ms;
    /* what happened */
    _Atomic int struck;
    _Atomic int drops_applied;
    _Atomic int ghosts; /* delayed requests that have landed */
    _Atomic int ghosts_applied;
} plan;

extern plan the_plan;
const hf_store_vtable *faulty_vtable(void);

/* Forgets what happened, and sets what happens next. */
void plan_set(fault what, hf_verb verb, int count, unsigned delay_ms);

#endif
