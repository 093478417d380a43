/* Any text as the marker of a node, and any course of events as what a client hears of its nodes:
 * nothing may be out of bounds, and a vote is only where the marker that was read allows it. */
#include "store/quorum-standing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NODES = 3 };

typedef struct input {
    const uint8_t *at;
    size_t left;
} input;

static void demand(bool holds) {
    if (!holds) abort();
}

static uint64_t take(input *in, size_t bytes) {
    uint64_t value = 0;

    while (bytes-- > 0 && in->left > 0) {
        value = value << 8 | *in->at++;
        in->left--;
    }
    return value;
}

static void check_marker(const uint8_t *data, size_t size) {
    char text[HF__MARKER_MAX + 80];
    hf__marker marker;
    hf__marker again;
    int len;

    if (!hf__marker_read(&marker, (hf_slice){(const char *)data, size})) return;
    demand(strlen(marker.run_id) < sizeof marker.run_id);
    if (marker.run_id[0] == '\0') return;
    demand(marker.max_ttl_ms >= 1 && marker.max_ttl_ms <= HF_TTL_MAX);
    len = snprintf(text, sizeof text, "%s %llu %llu", marker.run_id,
                   (unsigned long long)marker.max_ttl_ms, (unsigned long long)marker.until_us);
    demand(hf__marker_read(&again, (hf_slice){text, (size_t)len}));
    demand(memcmp(&marker, &again, sizeof marker) == 0);
}

static hf__marker draw_marker(input *in) {
    static const char *const runs[] = {"", "a", "b"};
    hf__marker marker = {.max_ttl_ms = 1 + take(in, 3) % HF_TTL_MAX,
                         .until_us = take(in, 7) % HF_INT_MAX};

    strcpy(marker.run_id, runs[take(in, 1) % 3]);
    if (marker.run_id[0] == '\0') marker.max_ttl_ms = marker.until_us = 0;
    return marker;
}

static void check_votes(const hf__membership *m, uint64_t now_ns) {
    for (uint8_t i = 0; i < m->n; i++) {
        const hf__member_state *s = &m->nodes[i];

        demand(s->standing <= HF__NODE_VOTES && s->errand <= HF__ERRAND_BAR);
        if (!hf__membership_votes(m, i)) continue;
        demand(strcmp(s->marker.run_id, s->run_id) == 0 && !s->jumped);
        demand(s->marker.max_ttl_ms >= hf__membership_most_ms(m));
    }
    (void)hf__membership_wake(m, now_ns);
}

static void step(hf__membership *m, hf__node_clock *clocks, input *in, uint64_t *now_ns) {
    uint8_t node = (uint8_t)(take(in, 1) % NODES);
    uint64_t asked_ns = *now_ns;
    uint64_t server_us;
    hf__marker marker;

    *now_ns += take(in, 4);
    switch (take(in, 1) % 6) {
    case 0: hf__membership_up(m, node, take(in, 1) % 2 == 0 ? "a" : "b", *now_ns); break;
    case 1: hf__membership_down(m, node); break;
    case 2: hf__membership_changed(m, node); break;
    case 3: hf__membership_missed(m, node, *now_ns); break;
    default:
        server_us = take(in, 7) % HF_INT_MAX;
        marker = draw_marker(in);
        if (!hf__node_clock_sample(&clocks[node], asked_ns, *now_ns, server_us))
            hf__membership_jumped(m, node, clocks[node].jump_us, *now_ns);
        demand(clocks[node].low_us <= clocks[node].high_us);
        hf__membership_read(m, node, &marker, server_us, asked_ns, *now_ns);
        break;
    }
    for (uint8_t i = 0; i < NODES; i++)
        (void)hf__membership_errand(m, i, *now_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    hf__node_clock clocks[NODES] = {{.known = false}};
    input in = {data, size};
    hf__membership m;
    uint64_t now_ns = 1;

    check_marker(data, size);
    hf__membership_init(&m, NODES, 50 + take(&in, 3) % 86399950, HF__RULES_ALL);
    for (int i = 0; i < 200 && in.left > 0; i++) {
        step(&m, clocks, &in, &now_ns);
        check_votes(&m, now_ns);
    }
    return 0;
}
