#include "support-model-run.h"

#include "harness.h"
#include "support-model.h"
#include "util/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BURST_MAX = 16,      /* ops that are under way at the same time */
    PAIRS_MOST = 12,     /* steps of a program that is tried without any two */
    SHRINK_RUNS = 20000, /* an end, should shrinking ever not come to its own */
    TEXT = 2048,
};

/* The wall clock stays between 2001 and 2223: fences are below 2^53, which is 2255. */
#define WALL_LEAST_US INT64_C(1000000000000000)
#define WALL_MOST_US INT64_C(8000000000000000)

/* How a program ended. */
typedef struct verdict {
    bool differs;
    size_t at;    /* at this step; at `n`, in the list of everything at the end */
    size_t ran;   /* steps that were carried out */
    uint32_t saw; /* MODEL_SAW_* */
} verdict;

/* One program on its way. */
typedef struct run {
    const model_row *row;
    const program *program;
    bool trace;
    world world;
    model model;
    rig rigs[PROGRAM_INSTANCES];
    bool open[PROGRAM_INSTANCES];
    slot slots[BURST_MAX];
    char words[BURST_MAX][32]; /* their keys */
    size_t burst_from;         /* the steps under way, which are of one instance */
    size_t burst;
    verdict verdict;
} run;

/* ---------------------------------------------------------------- life */

/* Opened when it is first asked for, so that some come late. One blocks, as the keeper's does. */
static rig *rig_of(run *r, size_t instance) {
    if (!r->open[instance]) rig_open(&r->rigs[instance], &r->world, instance == 1);
    r->open[instance] = true;
    return &r->rigs[instance];
}

static void end_rig(run *r, size_t instance) {
    if (r->open[instance]) rig_close(&r->rigs[instance]);
    r->open[instance] = false;
}

static void set_time(run *r) {
    model_set_time(&r->model, atomic_load(&r->world.boot_ns), atomic_load(&r->world.real_us));
}

static void begin(run *r, const model_row *row, const program *p, bool trace) {
    r->row = row;
    r->program = p;
    r->trace = trace;
    world_open(&r->world, &row->subject);
    r->model.slack_ms = row->slack_ms;
    r->model.own_clock = row->subject.own_clock;
    r->model.caps = row->subject.vt->caps;
    set_time(r);
}

static void end(run *r) {
    for (size_t i = 0; i < PROGRAM_INSTANCES; i++)
        end_rig(r, i);
    world_close(&r->world);
}

/* ---------------------------------------------------------------- ops */

/* What a step asks for. `words` has its keys, and is borrowed. */
static void fill_ask(const step *s, char *words, size_t size, ask *a) {
    static const hf_verb verbs[] = {HF_TAKE, HF_KEEP, HF_DROP, HF_LIST, HF_SWEEP};
    size_t at = 0;

    words[0] = '\0';
    for (size_t i = 0; i < s->n_keys; i++)
        at +=
            (size_t)snprintf(words + at, size - at, i > 0 ? " %s" : "%s", program_key(s->keys[i]));
    *a = (ask){.verb = verbs[s->kind],
               .keys = s->n_keys > 0 ? words : NULL,
               .token = s->token,
               .replace = s->replace,
               .limit = s->limit,
               .ttl = s->ttl_ms,
               .flags = (s->intent ? HF_OP_INTENT : 0) | (s->wait ? HF_OP_WAIT : 0) |
                        (s->exact ? HF_OP_EXACT : 0) | (s->next ? HF_OP_NEXT : 0),
               .value = s->after > 0 ? program_key(s->after - 1U) : NULL};
}

static void print_step(size_t at, const step *s, const char *expected, const char *seen) {
    char text[TEXT];

    step_text(s, text, sizeof text);
    printf("    %3zu. %-60s %s%s%s\n", at + 1, text, expected, seen[0] != '\0' ? " -> " : "", seen);
}

/* Compares what has come of a step, and goes on with what should have. */
static void judge(run *r, size_t at, const step *s, const hf_op *op) {
    char expected[TEXT];
    char seen[TEXT];
    char why[TEXT];
    expectation e;
    bool ok;

    model_expect(&r->model, s, &e);
    ok = model_check(&r->model, s, &e, op, why, sizeof why);
    if (r->trace) {
        expectation_text(s, &e, expected, sizeof expected);
        outcome_text(op, seen, sizeof seen);
        print_step(at, s, expected, seen);
        if (!ok) printf("         DIFFERS: %s\n", why);
    }
    r->verdict.saw |= model_saw(s, &e, op);
    model_apply(&r->model, s, &e, op);
    if (ok || r->verdict.differs) return;
    r->verdict.differs = true;
    r->verdict.at = at;
}

/* Waits for the steps under way. */
static void settle(run *r) {
    for (size_t i = 0; i < r->burst; i++) {
        RIG_UNTIL(r->slots[i].rig, r->slots[i].ended > 0);
        CHECK_INT(r->slots[i].ended, 1);
        judge(r, r->burst_from + i, &r->program->steps[r->burst_from + i], &r->slots[i].op);
    }
    for (size_t i = 0; i < r->burst; i++)
        slot_reset(&r->slots[i]);
    r->burst = 0;
}

/* Whether step `at` is asked for without waiting for the one before it. */
static bool joins(const run *r, size_t at) {
    const step *s = &r->program->steps[at];

    if (at > 0 && r->row->lists_at_length && s[-1].kind == STEP_LIST) return false;
    return s->joined && r->burst > 0 && r->burst < BURST_MAX && s->instance == s[-1].instance;
}

/* Asks for step `at` and for those of the same verb that are joined to it: one chain. How many
 * there are. */
static size_t submit(run *r, size_t at) {
    const program *p = r->program;
    const step *first = &p->steps[at];
    ask asks[BURST_MAX];
    size_t n = 0;

    if (!joins(r, at)) settle(r);
    if (r->burst == 0) r->burst_from = at;
    do {
        char *words = r->words[r->burst + n];
        fill_ask(&p->steps[at + n], words, sizeof r->words[0], &asks[n]);
        n++;
    } while (r->burst + n < BURST_MAX && at + n < p->n && p->steps[at + n].joined &&
             p->steps[at + n].kind == first->kind && p->steps[at + n].instance == first->instance);
    rig_submit(rig_of(r, first->instance), &r->slots[r->burst], asks, n);
    r->burst += n;
    return n;
}

/* Every lease there is, page by page, whatever the size of a page. */
static void list_all(run *r, size_t at, const step *state) {
    step s = {.kind = STEP_LIST, .instance = state->instance, .limit = state->limit};
    bool more = true;

    while (more && !r->verdict.differs) {
        char words[32];
        const hf_op *op;
        ask a;

        fill_ask(&s, words, sizeof words, &a);
        op = rig_ask(rig_of(r, s.instance), &a);
        judge(r, at, &s, op);
        more = op->n_rows > 0;
        if (!more || r->verdict.differs) return;
        s.next = true;
        while (s.after < PROGRAM_KEYS &&
               !hf__slice_equal(op->rows[op->n_rows - 1].key, slice_of(program_key(s.after))))
            s.after++;
        s.after++;
    }
}

/* ---------------------------------------------------------------- time */

/* A server counts in milliseconds: only whole ones pass. */
static void pass_ns(run *r, uint64_t ns) {
    uint64_t before = atomic_load(&r->world.boot_ns);

    if (r->row->subject.set_clock != NULL)
        ns = (ns + HF_NS_PER_MS - 1) / HF_NS_PER_MS * HF_NS_PER_MS;
    atomic_store(&r->world.boot_ns, before + ns);
    atomic_fetch_add(&r->world.real_us, (before + ns) / 1000 - before / 1000);
    world_set_clock(&r->world);
    set_time(r);
}

static void pass_to_deadline(run *r, int64_t more_ns) {
    uint64_t next = model_next_deadline(&r->model);
    uint64_t now = r->model.now_ns;

    if (r->row->subject.set_clock != NULL) more_ns *= (int64_t)HF_NS_PER_MS;
    if (next == 0 || next + (uint64_t)more_ns <= now) return;
    pass_ns(r, next + (uint64_t)more_ns - now);
}

static void set_wall(run *r, int64_t by_us) {
    int64_t to = (int64_t)r->model.wall_us + by_us;

    if (to < WALL_LEAST_US || to > WALL_MOST_US) return;
    atomic_store(&r->world.real_us, (uint64_t)to);
    set_time(r);
}

static void reboot(run *r) {
    for (size_t i = 0; i < PROGRAM_INSTANCES; i++)
        end_rig(r, i);
    world_reboot(&r->world);
    model_reboot(&r->model, r->row->subject.lasts, atomic_load(&r->world.boot_ns),
                 atomic_load(&r->world.real_us));
}

/* ---------------------------------------------------------------- a program */

/* An instance that is closed ends first what it was asked before. */
static void reopen(run *r, size_t at, size_t instance) {
    bool joined = joins(r, at);

    if (!joined) settle(r);
    end_rig(r, instance);
    if (joined) settle(r);
    (void)rig_of(r, instance);
}

static void carry_out(run *r, size_t at, const step *s) {
    if (s->kind != STEP_REOPEN) settle(r);
    if (r->verdict.differs) return;
    switch ((step_kind)s->kind) {
    case STEP_STATE: list_all(r, at, s); return;
    case STEP_PASS: pass_ns(r, (uint64_t)s->us * 1000); break;
    case STEP_PASS_TO: pass_to_deadline(r, s->ns); break;
    case STEP_WALL: set_wall(r, s->us); break;
    case STEP_REOPEN: reopen(r, at, s->instance); break;
    case STEP_REBOOT: reboot(r); break;
    default: break; /* an op */
    }
    if (r->trace) print_step(at, s, "", "");
}

/* Carries out a program on a new store. With `trace` prints each step, what it should come to and
 * what it came to. */
static verdict run_program(const model_row *row, const program *p, bool trace) {
    const step last = {.kind = STEP_STATE, .limit = 3};
    run *r = calloc(1, sizeof *r);
    verdict result;
    size_t at = 0;

    if (r == NULL) abort();
    begin(r, row, p, trace);
    while (at < p->n && !r->verdict.differs) {
        if (step_is_op(&p->steps[at])) {
            at += submit(r, at);
            continue;
        }
        carry_out(r, at, &p->steps[at]);
        at++;
    }
    settle(r);
    r->verdict.ran = at;
    if (!r->verdict.differs && (r->model.caps & HF_CAP_LIST) != 0) list_all(r, p->n, &last);
    end(r);
    result = r->verdict;
    free(r);
    return result;
}

/* ---------------------------------------------------------------- smaller */

typedef struct shrinking {
    const model_row *row;
    program *best;
    size_t runs;
} shrinking;

/* Keeps `smaller` if it is, and still differs; what comes after that step goes too. */
static bool keep_if_differs(shrinking *s, program *smaller) {
    verdict v;

    if (s->runs >= SHRINK_RUNS || program_weight(smaller) >= program_weight(s->best)) return false;
    s->runs++;
    v = run_program(s->row, smaller, false);
    if (!v.differs) return false;
    if (v.at + 1 < smaller->n) program_cut(smaller, v.at + 1, smaller->n - v.at - 1);
    *s->best = *smaller;
    return true;
}

/* Takes out `size` steps at a time, from the end. */
static bool remove_chunks(shrinking *s, size_t size) {
    bool any = false;

    for (size_t end = s->best->n; end >= size;) {
        program smaller = *s->best;

        program_cut(&smaller, end - size, size);
        if (keep_if_differs(s, &smaller)) {
            any = true;
            end = end - size < s->best->n ? end - size : s->best->n;
        } else {
            end--;
        }
    }
    return any;
}

/* Of a short program takes out any two steps: often one means nothing without the other. */
static bool remove_pairs(shrinking *s) {
    if (s->best->n > PAIRS_MOST) return false;
    for (size_t second = s->best->n; second-- > 1;) {
        for (size_t first = second; first-- > 0;) {
            program smaller = *s->best;

            program_cut(&smaller, second, 1);
            program_cut(&smaller, first, 1);
            if (keep_if_differs(s, &smaller)) return true;
        }
    }
    return false;
}

static bool simplify_steps(shrinking *s) {
    bool any = false;

    for (size_t at = 0; at < s->best->n; at++) {
        program simpler = *s->best;

        for (unsigned way = 0; program_simplify(&simpler, at, way); way++) {
            any = keep_if_differs(s, &simpler) || any;
            if (at >= s->best->n) break;
            simpler = *s->best;
        }
    }
    return any;
}

static bool renumber(shrinking *s) {
    program other = *s->best;

    program_renumber(&other);
    return keep_if_differs(s, &other);
}

/* Makes a program that differs as small as it gets; it still differs. */
static void shrink(const model_row *row, program *p) {
    shrinking s = {.row = row, .best = p};
    verdict v = run_program(row, p, false);
    bool any = true;

    if (v.at + 1 < p->n) program_cut(p, v.at + 1, p->n - v.at - 1);
    while (any) {
        any = false;
        for (size_t size = p->n / 2; size >= 1; size /= 2)
            any = remove_chunks(&s, size) || any;
        any = remove_pairs(&s) || any;
        any = simplify_steps(&s) || any;
        any = renumber(&s) || any;
    }
}

/* ---------------------------------------------------------------- many */

bool model_hunt(const model_row *row, hunt *h) {
    const program_shape shape = {.instances = row->instances,
                                 .caps = row->subject.vt->caps,
                                 .time = row->subject.own_clock || row->subject.set_clock != NULL,
                                 .wall = row->subject.own_clock};
    uint64_t end = uv_hrtime() + h->seconds * UINT64_C(1000000000);

    for (; h->programs < h->runs; h->programs++) {
        verdict v;

        if (h->seconds > 0 && uv_hrtime() >= end) return false;
        program_draw(&h->found, h->seed + h->programs, &shape);
        v = run_program(row, &h->found, false);
        h->steps += v.ran;
        h->saw |= v.saw;
        if (!v.differs) continue;
        h->found_seed = h->seed + h->programs;
        h->found_size = h->found.n;
        shrink(row, &h->found);
        return true;
    }
    return false;
}

void model_report(const model_row *row, const hunt *h) {
    printf("    %s differs from the model: HF_SEED=%" PRIu64 " HF_MODEL_RUNS=1 repeats it.\n",
           row->name, h->found_seed);
    printf("    Of %zu steps, these are left (# waits for the step before, + does not):\n",
           h->found_size);
    (void)run_program(row, &h->found, true);
}
