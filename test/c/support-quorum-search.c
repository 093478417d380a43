#include "support-quorum-search.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Packed worlds, one behind the other: two bytes of length, four of number, and the world. */
typedef struct level {
    uint8_t *bytes;
    size_t size, room;
} level;

typedef struct step {
    uint32_t from; /* the number of the world before */
    uint16_t action;
} step;

typedef struct search {
    const qm_setup *setup;
    uint64_t *met; /* open addressing; 0: free */
    uint64_t slots;
    step *steps; /* how each world was come to first */
    uint32_t most;
    level now, next;
    qm_figures figures;
    uint32_t broken_from;
    qm_action broken_by;
} search;

/* ---------------------------------------------------------------- memory */

static void *must(void *memory) {
    if (memory == NULL) abort();
    return memory;
}

static uint64_t fingerprint(const uint8_t *bytes, size_t size) {
    uint64_t h = UINT64_C(0x9e3779b97f4a7c15) ^ size;

    while (size > 0) {
        uint64_t word = 0;
        size_t n = size < 8 ? size : 8;
        memcpy(&word, bytes, n);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
        bytes += n;
        size -= n;
    }
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    h ^= h >> 29;
    return h != 0 ? h : 1;
}

/* Remembers it; false: it was met before. */
static bool meet(search *s, uint64_t print) {
    uint64_t at = print & (s->slots - 1);

    while (s->met[at] != 0) {
        if (s->met[at] == print) return false;
        at = (at + 1) & (s->slots - 1);
    }
    s->met[at] = print;
    return true;
}

static void put(level *l, const uint8_t *world, size_t size, uint32_t number) {
    uint16_t length = (uint16_t)size;

    if (l->size + size + 6 > l->room) {
        l->room = (l->room + size) * 2 + 65536;
        l->bytes = must(realloc(l->bytes, l->room));
    }
    memcpy(l->bytes + l->size, &length, 2);
    memcpy(l->bytes + l->size + 2, &number, 4);
    memcpy(l->bytes + l->size + 6, world, size);
    l->size += size + 6;
}

/* ---------------------------------------------------------------- actions in two bytes */

static uint16_t shorten(qm_action a) {
    return (uint16_t)(a.kind | a.client << 5 | a.node << 7 | a.arg << 9);
}

static qm_action lengthen(uint16_t a) {
    return (qm_action){a & 31, (a >> 5) & 3, (a >> 7) & 3, (a >> 9) & 7 & 0xff};
}

/* ---------------------------------------------------------------- the search */

static void begin_world(const qm_setup *setup, qm_world *w) {
    qm_scene scene = {.setup = setup, .world = w};

    qm_begin(setup, w);
    for (const qm_action *a = setup->beginning; a != NULL && a->kind != QM_NOTHING; a++)
        qm_act(&scene, *a);
}

/* False: there is no room for more. */
static bool visit(search *s, const uint8_t *packed, size_t size, uint32_t from, qm_action by) {
    if (!meet(s, fingerprint(packed, size))) return true;
    if (s->figures.states == s->most) return false;
    s->steps[s->figures.states] = (step){from, shorten(by)};
    put(&s->next, packed, size, s->figures.states++);
    return true;
}

/* All that can follow on one world. False: the search is over. */
static bool expand(search *s, const qm_world *w, uint32_t number) {
    qm_action action = {QM_NOTHING, 0, 0, 0};
    uint8_t packed[QM_PACKED_MAX];

    while (qm_next(s->setup, w, &action)) {
        qm_world after = *w;
        qm_scene scene = {.setup = s->setup, .world = &after};

        qm_act(&scene, action);
        s->figures.saw |= scene.saw;
        if (scene.pointless) continue;
        if (after.cut) {
            s->figures.cut++;
            continue;
        }
        s->figures.transitions++;
        if (after.broken != QM_SOUND) {
            s->figures.broken = (qm_broken)after.broken;
            s->broken_from = number;
            s->broken_by = action;
            return false;
        }
        if (!visit(s, packed, qm_pack(s->setup, &after, packed, NULL), number, action))
            return false;
    }
    return true;
}

static bool expand_level(search *s) {
    size_t at = 0;

    while (at < s->now.size) {
        uint16_t length;
        uint32_t number;
        qm_world w;

        memcpy(&length, s->now.bytes + at, 2);
        memcpy(&number, s->now.bytes + at + 2, 4);
        qm_unpack(s->setup, &w, s->now.bytes + at + 6);
        at += length + 6u;
        if (!expand(s, &w, number)) return false;
    }
    return true;
}

static void begin_search(search *s, uint32_t states) {
    qm_world w;
    uint8_t packed[QM_PACKED_MAX];
    size_t size;

    s->most = states;
    for (s->slots = 1024; s->slots < (uint64_t)states * 2; s->slots *= 2) {
    }
    s->met = must(calloc(s->slots, sizeof *s->met));
    s->steps = must(malloc(sizeof *s->steps * ((size_t)states + 1)));
    begin_world(s->setup, &w);
    assert(!w.cut && w.broken == QM_SOUND);
    size = qm_pack(s->setup, &w, packed, NULL);
    (void)visit(s, packed, size, 0, (qm_action){QM_NOTHING, 0, 0, 0});
}

/* ---------------------------------------------------------------- the way there */

static void tell_step(qm_scene *scene, qm_action action, uint32_t number, int32_t *passed_ms) {
    int32_t before_ms = scene->world->now_ms;

    fprintf(scene->story, "    %2u  %6.3f s  ", number, (double)*passed_ms / 1000);
    qm_act(scene, action);
    fputc('\n', scene->story);
    *passed_ms += scene->world->now_ms - before_ms;
}

/* The worlds on the way were packed, so that numbers of nodes mean what they meant then: names go
 * along with the nodes. */
static void pack_again(qm_scene *scene) {
    uint8_t packed[QM_PACKED_MAX];
    uint8_t order[QM_NODES];
    uint8_t names[QM_NODES];

    (void)qm_pack(scene->setup, scene->world, packed, order);
    for (uint8_t n = 0; n < QM_NODES; n++)
        names[n] = scene->names[order[n]];
    memcpy(scene->names, names, sizeof names);
    qm_unpack(scene->setup, scene->world, packed);
}

static uint32_t count_steps(const search *s) {
    uint32_t n = 1;

    for (uint32_t at = s->broken_from; at != 0; at = s->steps[at].from)
        n++;
    for (const qm_action *a = s->setup->beginning; a != NULL && a->kind != QM_NOTHING; a++)
        n++;
    return n;
}

/* Goes there again from the beginning, and tells what happens. */
static void tell(const search *s, FILE *story) {
    qm_world w;
    qm_scene scene = {.setup = s->setup, .world = &w, .story = story, .names = {0, 1, 2}};
    qm_action way[256];
    int32_t passed_ms = 0;
    uint32_t number = 0;
    int n = 0;

    way[n++] = s->broken_by;
    for (uint32_t at = s->broken_from; at != 0 && n < 256; at = s->steps[at].from)
        way[n++] = lengthen(s->steps[at].action);
    fprintf(story, "    %s:\n", qm_broken_text(s->figures.broken));
    qm_begin(s->setup, &w);
    for (const qm_action *a = s->setup->beginning; a != NULL && a->kind != QM_NOTHING; a++)
        tell_step(&scene, *a, ++number, &passed_ms);
    while (n-- > 0) {
        pack_again(&scene);
        tell_step(&scene, way[n], ++number, &passed_ms);
    }
}

/* ---------------------------------------------------------------- */

static double seconds_now(void) {
    struct timespec t;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

qm_figures qm_search(const qm_setup *setup, uint32_t depth, uint32_t states, FILE *story) {
    search s = {.setup = setup};
    double start = seconds_now();
    bool goes_on = true;

    begin_search(&s, states);
    while (goes_on && s.next.size > 0 && s.figures.depth < depth) {
        level done = s.now;
        s.now = s.next;
        s.next = done;
        s.next.size = 0;
        goes_on = expand_level(&s);
        if (goes_on) s.figures.depth++;
    }
    s.figures.exhausted = goes_on && s.next.size == 0;
    if (s.figures.broken != QM_SOUND) s.figures.length = count_steps(&s);
    if (s.figures.broken != QM_SOUND && story != NULL) tell(&s, story);
    s.figures.seconds = seconds_now() - start;
    free(s.met);
    free(s.steps);
    free(s.now.bytes);
    free(s.next.bytes);
    return s.figures;
}
