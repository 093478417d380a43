/*
 * What the leases of any store must come to: the contract of csrc/core/store.h once more, in the
 * plainest words, without I/O. It knows keys, tokens and time; fences it learns from the store, as
 * their numbers are the store's affair, and judges by their order.
 *
 *     model_expect(&m, &step, &e);          what must come
 *     model_check(&m, &step, &e, op, ...);  whether it came
 *     model_apply(&m, &step, &e, op);       and what follows from it
 */
#ifndef HF_TEST_SUPPORT_MODEL_H
#define HF_TEST_SUPPORT_MODEL_H

#include "support-program.h"

/* What a program has come across, as bits; a test that never gets to one of them shows little. */
enum {
    MODEL_SAW_TAKE = 1 << 0,
    MODEL_SAW_TAKE_AGAIN = 1 << 1,
    MODEL_SAW_TAKE_REFUSED = 1 << 2,
    MODEL_SAW_TAKE_OF_SOME = 1 << 3,
    MODEL_SAW_HAND_OVER = 1 << 4,
    MODEL_SAW_HAND_OVER_REFUSED = 1 << 5,
    MODEL_SAW_MARK_IN_THE_WAY = 1 << 6,
    MODEL_SAW_KEEP = 1 << 7,
    MODEL_SAW_KEEP_REFUSED = 1 << 8,
    MODEL_SAW_DROP = 1 << 9,
    MODEL_SAW_DROP_REFUSED = 1 << 10,
    MODEL_SAW_ROWS = 1 << 11,
    MODEL_SAW_SWEPT = 1 << 12,
    MODEL_SAW_ALL = (1 << 13) - 1,
};

typedef struct model_hold {
    bool held;
    uint64_t until_ns;
    uint64_t fence;
    uint64_t since_us;
    uint32_t limit;
    uint64_t take;    /* which one it came by: takes are numbered from 1 */
    size_t taken;     /* how many keys that one took */
    uint64_t mark_ns; /* when the token's intent mark lapses; 0: there is none */
} model_hold;

typedef struct model_key {
    uint64_t fence;    /* the newest; 0: never taken */
    uint64_t ended_ns; /* when its last lease did */
    bool forgotten;    /* the store has lost its memory since */
    model_hold by[PROGRAM_TOKENS + 1];
} model_key;

typedef struct model {
    uint64_t now_ns;
    uint64_t wall_us;
    uint64_t slack_ms; /* how much less than ours a store's time left may be */
    bool own_clock;    /* the store reads the wall clock that we set */
    uint32_t caps;     /* HF_CAP_*: without _FENCES a take has none */
    uint64_t takes;    /* that were applied */
    model_key keys[PROGRAM_KEYS];
} model;

typedef struct expectation {
    hf_code code;
    bool applied;
    hf_refusal refused;
    bool again;       /* a take that was applied before */
    uint64_t fence;   /* its fence */
    uint64_t above;   /* a new take: more than this */
    uint64_t left_ms; /* refused */
    bool marked;      /* a mark is in the way, at one key or more */
    bool either;      /* refused or applied: the contract leaves it open */
} expectation;

/* The clocks have been moved: what is due lapses. */
void model_set_time(model *m, uint64_t now_ns, uint64_t wall_us);
/* Every holder died with the machine; a store that lasts still has its fences. */
void model_reboot(model *m, bool lasts, uint64_t now_ns, uint64_t wall_us);
/* When the next lease or mark lapses; 0: none is there. */
uint64_t model_next_deadline(const model *m);

/* For a step that is one op. */
void model_expect(const model *m, const step *s, expectation *e);
/* Whether the op came to what was expected; if not, `why` says what is wrong. Before the step is
 * applied. */
bool model_check(const model *m, const step *s, const expectation *e, const hf_op *op, char *why,
                 size_t size);
void model_apply(model *m, const step *s, const expectation *e, const hf_op *op);
/* MODEL_SAW_* of a step. */
uint32_t model_saw(const step *s, const expectation *e, const hf_op *op);

/* As text: what is expected, and what has come of it. */
void expectation_text(const step *s, const expectation *e, char *text, size_t size);
void outcome_text(const hf_op *op, char *text, size_t size);

#endif
