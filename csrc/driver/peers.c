#include "driver/peers.h"

#include "util/alloc.h"

#include <string.h>

enum { KNOWN_MAX = 32 }; /* names of one client; more than Sentinels, or a cluster's first hosts */

typedef struct known {
    hf__address address; /* an empty host: none */
    hf__peer peer;
} known;

typedef struct table {
    known rows[KNOWN_MAX];
    size_t next; /* to be overwritten */
} table;

static void on_fini(hf__shared *shared) {
    hf__free(shared->allocator, shared->data);
}

/* Under the lock. NULL when it is not there and not to be made. */
static table *get_table(hf__shared *shared, bool make) {
    if (shared->data == NULL && make) {
        shared->data = hf__zalloc(shared->allocator, sizeof(table));
        if (shared->data != NULL) shared->fini = on_fini;
    }
    return shared->data;
}

static known *find(table *t, const hf__address *address) {
    for (size_t i = 0; t != NULL && i < KNOWN_MAX; i++) {
        known *row = &t->rows[i];
        if (row->address.port == address->port && strcmp(row->address.host, address->host) == 0)
            return row;
    }
    return NULL;
}

void hf__peers_note(hf__shared *shared, const hf__address *address, const hf__peer *peer) {
    table *t;
    known *row;

    if (shared == NULL) return;
    uv_mutex_lock(&shared->lock);
    t = get_table(shared, true);
    row = find(t, address);
    if (row == NULL && t != NULL) row = &t->rows[t->next++ % KNOWN_MAX];
    if (row != NULL) *row = (known){*address, *peer};
    uv_mutex_unlock(&shared->lock);
}

bool hf__peers_find(hf__shared *shared, const hf__address *address, hf__peer *peer) {
    const known *row;

    if (shared == NULL) return false;
    uv_mutex_lock(&shared->lock);
    row = find(get_table(shared, false), address);
    if (row != NULL) *peer = row->peer;
    uv_mutex_unlock(&shared->lock);
    return row != NULL;
}

void hf__peers_forget(hf__shared *shared, const hf__address *address) {
    known *row;

    if (shared == NULL) return;
    uv_mutex_lock(&shared->lock);
    row = find(get_table(shared, false), address);
    if (row != NULL) memset(row, 0, sizeof *row);
    uv_mutex_unlock(&shared->lock);
}
