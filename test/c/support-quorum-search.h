/*
 * Every world that a setup can come to, in the order of how many actions it takes: so what is
 * found is found by the shortest way. A world that was met before, or one that goes on in the same
 * way, is not gone into again; met worlds are remembered by 64 bits of each.
 */
#ifndef HF_TEST_SUPPORT_QUORUM_SEARCH_H
#define HF_TEST_SUPPORT_QUORUM_SEARCH_H

#include "support-quorum-model.h"

typedef struct qm_figures {
    uint32_t states;
    uint64_t transitions;
    uint64_t cut;   /* those that the model has no room for */
    uint32_t depth; /* to which all was visited */
    bool exhausted; /* there is nothing beyond */
    uint32_t saw;   /* QM_SAW_* */
    double seconds;
    qm_broken broken;
    uint32_t length; /* of the way to it, with the beginning */
} qm_figures;

/* Searches to `depth` actions and `states` worlds at most, and until something is broken. The way
 * there is told to `story`, if there is one. */
qm_figures qm_search(const qm_setup *setup, uint32_t depth, uint32_t states, FILE *story);

#endif
