/* util: heap, map, list, buffer, allocation, clock, randomness. */
#include "harness.h"
#include "util/alloc.h"
#include "util/buffer.h"
#include "util/clock.h"
#include "util/heap.h"
#include "util/list.h"
#include "util/map.h"
#include "util/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An allocator that refuses what is larger than `most`, and counts. */
typedef struct meter {
    hf_allocator allocator;
    size_t most;
    int blocks;
} meter;

static void *metered(void *data, void *p, size_t size) {
    meter *m = data;

    if (size == 0) {
        m->blocks -= p != NULL;
        free(p);
        return NULL;
    }
    if (size > m->most) return NULL;
    m->blocks += p == NULL;
    return realloc(p, size);
}

static void meter_init(meter *m, size_t most) {
    *m = (meter){.allocator = {metered, m}, .most = most};
}

static hf_slice slice(const char *text) {
    return (hf_slice){text, strlen(text)};
}

static uint32_t draw(uint64_t *state, uint32_t below) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % below;
}

/* ---- alloc */

TEST(alloc_nothing_is_something) {
    meter m;
    void *p;

    meter_init(&m, 100);
    p = hf__alloc(&m.allocator, 0);
    CHECK_NOT_NULL(p);
    p = hf__resize(&m.allocator, p, 0);
    CHECK_NOT_NULL(p);
    hf__free(&m.allocator, p);
    hf__free(&m.allocator, NULL);
    CHECK_INT(m.blocks, 0);
    CHECK_NULL(hf__zalloc(&m.allocator, 101));
    CHECK_NULL(hf__copy(&m.allocator, (hf_slice){"", 100}));
}

TEST(alloc_copies_end_in_nul) {
    const hf_allocator *a = hf__allocator_libc();
    char *copy = hf__copy(a, (hf_slice){"a\0b", 3});
    char *none = hf__copy(a, (hf_slice){NULL, 0});

    CHECK_MEM(copy, "a\0b", 4);
    CHECK_STR(none, "");
    hf__free(a, copy);
    hf__free(a, none);
}

/* ---- list */

TEST(list_moves_and_removes) {
    hf__node a;
    hf__node b;
    hf__node nodes[4];

    hf__list_init(&a);
    hf__list_init(&b);
    CHECK_NULL(hf__list_pop(&a));
    for (int i = 0; i < 4; i++)
        hf__list_push(i < 2 ? &a : &b, &nodes[i]);
    hf__list_append(&a, &b);
    CHECK(hf__list_empty(&b));
    hf__list_append(&a, &b); /* of nothing */
    hf__list_remove(&nodes[2]);
    hf__list_remove(&nodes[2]); /* harmless */
    CHECK(hf__list_pop(&a) == &nodes[0]);
    CHECK(hf__list_pop(&a) == &nodes[1]);
    CHECK(hf__list_pop(&a) == &nodes[3]);
    CHECK(hf__list_empty(&a));
}

/* ---- heap */

enum { HEAP_N = 2000 };

static void check_drain(hf__heap *heap, size_t expected) {
    uint64_t last = 0;
    size_t n = 0;
    hf__heap_node *node;

    while ((node = hf__heap_min(heap)) != NULL) {
        CHECK(node->at >= last);
        last = node->at;
        hf__heap_remove(heap, node);
        CHECK(!hf__heap_in(node));
        n++;
    }
    CHECK_UINT(n, expected);
}

TEST(heap_gives_the_least) {
    static hf__heap_node nodes[HEAP_N];
    hf__heap heap = {NULL};
    uint64_t state = 1;
    size_t in = 0;

    CHECK_NULL(hf__heap_min(&heap));
    memset(nodes, 0, sizeof nodes);
    /* In and out at random, many with the same number, the least known by a search. */
    for (int step = 0; step < 20000; step++) {
        hf__heap_node *node = &nodes[draw(&state, HEAP_N)];
        if (hf__heap_in(node)) {
            hf__heap_remove(&heap, node);
            in--;
        } else {
            node->at = draw(&state, 300);
            hf__heap_insert(&heap, node);
            in++;
        }
        if (step % 500 == 0) {
            uint64_t least = UINT64_MAX;
            for (int i = 0; i < HEAP_N; i++)
                if (hf__heap_in(&nodes[i]) && nodes[i].at < least) least = nodes[i].at;
            CHECK(hf__heap_min(&heap) == NULL ? in == 0 : hf__heap_min(&heap)->at == least);
        }
    }
    hf__heap_remove(&heap, &(hf__heap_node){0}); /* in no heap: harmless */
    check_drain(&heap, in);
}

TEST(heap_is_not_recursive) {
    enum { N = 300000 };
    hf__heap_node *nodes = calloc(N, sizeof *nodes);
    hf__heap heap = {NULL};

    /* Ascending: one root with all others as its children. Descending: one long chain. */
    for (size_t i = 0; i < N; i++) {
        nodes[i].at = i < N / 2 ? i : 2 * N - i;
        hf__heap_insert(&heap, &nodes[i]);
    }
    check_drain(&heap, N);
    free(nodes);
}

/* ---- map */

typedef struct item {
    hf__map_node node;
    char key[16];
} item;

static void fill(hf__map *map, item *items, int n) {
    memset(items, 0, (size_t)n * sizeof *items);
    for (int i = 0; i < n; i++) {
        snprintf(items[i].key, sizeof items[i].key, "key %d", i);
        CHECK(hf__map_insert(map, &items[i].node, slice(items[i].key)));
    }
    CHECK_UINT(map->count, n);
}

static void check_all(const hf__map *map, const item *items, int n, int step) {
    size_t visited = 0;
    size_t present = 0;

    for (int i = 0; i < n; i++) {
        hf__map_node *found = hf__map_get(map, slice(items[i].key));
        CHECK(found == (i % step == 0 ? &items[i].node : NULL));
        present += i % step == 0;
    }
    for (hf__map_node *node = hf__map_next(map, NULL); node != NULL; node = hf__map_next(map, node))
        visited++;
    CHECK_UINT(visited, present);
    CHECK_UINT(map->count, present);
}

TEST(map_finds_what_is_in_it) {
    enum { N = 3000 };
    static item items[N];
    meter m;
    hf__map map;

    meter_init(&m, SIZE_MAX);
    hf__map_init(&map, &m.allocator);
    CHECK_NULL(hf__map_get(&map, slice("key 1")));
    CHECK_NULL(hf__map_next(&map, NULL));
    fill(&map, items, N);
    check_all(&map, items, N, 1);
    for (int i = 0; i < N; i++)
        if (i % 3 != 0) hf__map_remove(&map, &items[i].node);
    check_all(&map, items, N, 3);
    CHECK_NULL(hf__map_get(&map, slice("key 30000")));
    CHECK_NULL(hf__map_get(&map, slice("")));
    hf__map_fini(&map);
    CHECK_INT(m.blocks, 0);
}

TEST(map_goes_on_when_it_cannot_grow) {
    enum { N = 500 };
    static item items[N];
    meter m;
    hf__map map;

    meter_init(&m, 0);
    hf__map_init(&map, &m.allocator);
    CHECK(!hf__map_insert(&map, &items[0].node, slice("a"))); /* not even the first */
    CHECK_NULL(hf__map_get(&map, slice("a")));
    m.most = 512;
    fill(&map, items, N);
    CHECK(map.n_buckets < N);
    check_all(&map, items, N, 1);
    hf__map_fini(&map);
    CHECK_INT(m.blocks, 0);
}

TEST(map_keys_are_bytes) {
    static item items[40];
    char keys[40][40];
    hf__map map;

    /* Every length around the hash's words, differing in the last byte or in length alone. */
    hf__map_init(&map, hf__allocator_libc());
    for (size_t i = 0; i < 40; i++) {
        memset(keys[i], 0, sizeof keys[i]);
        CHECK(hf__map_insert(&map, &items[i].node, (hf_slice){keys[i], i}));
    }
    for (size_t i = 0; i < 40; i++)
        CHECK(hf__map_get(&map, (hf_slice){keys[0], i}) == &items[i].node);
    CHECK_NULL(hf__map_get(&map, (hf_slice){"\1", 1}));
    hf__map_fini(&map);
}

TEST(hash_depends_on_seed_and_every_byte) {
    uint64_t seeds[2][2] = {{1, 2}, {1, 3}};
    char key[32] = {0};
    uint64_t plain = hf__hash(seeds[0], (hf_slice){key, sizeof key});

    CHECK_UINT(hf__hash(seeds[0], (hf_slice){key, sizeof key}), plain);
    CHECK(hf__hash(seeds[1], (hf_slice){key, sizeof key}) != plain);
    for (size_t i = 0; i < sizeof key; i++) {
        key[i] = 1;
        CHECK(hf__hash(seeds[0], (hf_slice){key, sizeof key}) != plain);
        key[i] = 0;
    }
}

/* ---- buffer */

TEST(buffer_grows_and_is_taken) {
    meter m;
    hf__buffer b;
    char *data;
    size_t len;

    meter_init(&m, SIZE_MAX);
    hf__buffer_init(&b, &m.allocator);
    hf__buffer_put(&b, NULL, 0);
    hf__buffer_u8(&b, 0xfe);
    hf__buffer_u32(&b, 0x01020304);
    for (int i = 0; i < 1000; i++)
        hf__buffer_put(&b, "0123456789", 10);
    CHECK(!b.failed);
    data = hf__buffer_take(&b, &len);
    CHECK_UINT(len, 10005);
    CHECK_MEM(data,
              "\xfe\x04\x03\x02\x01"
              "0123",
              9);
    CHECK_MEM(data + len - 10, "0123456789", 10);
    CHECK_UINT(b.len, 0);
    CHECK_NULL(b.data);
    hf__free(&m.allocator, data);
    hf__buffer_put(&b, "again", 5);
    hf__buffer_fini(&b);
    CHECK_INT(m.blocks, 0);
}

TEST(buffer_keeps_what_it_had_when_it_fails) {
    meter m;
    hf__buffer b;

    meter_init(&m, 64);
    hf__buffer_init(&b, &m.allocator);
    hf__buffer_put(&b, "kept", 4);
    hf__buffer_put(&b, "0123456789012345678901234567890123456789012345678901234567890123", 64);
    CHECK(b.failed);
    hf__buffer_put(&b, "x", 1); /* once failed, always: or the whole would have a hole */
    CHECK_UINT(b.len, 4);
    CHECK_MEM(b.data, "kept", 4);
    hf__buffer_fini(&b);
    CHECK(!b.failed);
    hf__buffer_put(&b, "x", SIZE_MAX / 2 + 1);
    CHECK(b.failed);
    CHECK_INT(m.blocks, 0);
}

/* ---- clock */

TEST(clock_arithmetic_does_not_wrap) {
    CHECK_UINT(hf__add_ms(5, 2), 2000005);
    CHECK_UINT(hf__add_ms(5, HF_FOREVER), HF_FOREVER);
    CHECK_UINT(hf__add_ms(UINT64_MAX - 1, 1), HF_FOREVER);
    CHECK_UINT(hf__add_ms(HF_FOREVER, 0), HF_FOREVER);
    CHECK_UINT(hf__ms_until(10, 10), 0);
    CHECK_UINT(hf__ms_until(11, 10), 0);
    CHECK_UINT(hf__ms_until(10, 11), 1); /* rounded up: 0 is past */
    CHECK_UINT(hf__ms_until(0, HF_NS_PER_MS), 1);
    CHECK_UINT(hf__ms_until(0, HF_NS_PER_MS + 1), 2);
    CHECK_UINT(hf__ms_until(10, HF_FOREVER), HF_FOREVER);
}

TEST(clock_of_the_system) {
    const hf_clock *clock = hf__clock_system();
    uint64_t now = hf__now_ns(clock);

    CHECK(hf__now_ns(clock) >= now);
    CHECK(hf__real_us(clock) > UINT64_C(1700000000000000));
    CHECK(hf__real_us(clock) < HF_INT_MAX);
    CHECK(strlen(clock->boot_id) > 0 && strlen(clock->boot_id) < 64);
    CHECK_NULL(strchr(clock->boot_id, '\n'));
    CHECK(hf__clock_system() == clock);
}

/* ---- randomness */

TEST(random_fills_all) {
    uint8_t bytes[1000];
    int seen[256] = {0};
    int kinds = 0;

    memset(bytes, 0, sizeof bytes);
    CHECK(hf__random(bytes, sizeof bytes));
    CHECK(hf__random(bytes, 0));
    for (size_t i = 0; i < sizeof bytes; i++)
        kinds += seen[bytes[i]]++ == 0;
    CHECK(kinds > 200); /* about 251; fewer than 200 once in the life of the universe */
    kinds = 0;
    for (size_t i = 744; i < sizeof bytes; i++)
        kinds += bytes[i] != 0;
    CHECK(kinds > 200);
}

TEST(random_between_reaches_both_ends) {
    int seen[4] = {0};

    for (int i = 0; i < 500; i++) {
        uint64_t n = hf__random_between(10, 13);
        CHECK(n >= 10 && n <= 13);
        seen[n - 10]++;
    }
    for (int i = 0; i < 4; i++)
        CHECK(seen[i] > 0);
    CHECK_UINT(hf__random_between(7, 7), 7);
    (void)hf__random_between(0, UINT64_MAX);
}
