/*
 * Watches: how a waiter learns that a key may be free, or its entry another.
 *
 * Every instance has one channel. Who is refused leaves it with the key, in the same transaction;
 * whoever changes the key notifies each channel that stands there, of space and key. Notifying
 * takes a lock of the whole database at commit, so nobody is notified where nobody waits.
 *
 * Where nobody can listen (a pooler in between lends connections for each transaction), and as long
 * as the connection that listens is not there, everyone looks again from time to time.
 */
#include "store/postgres-store.h"
#include "util/random.h"

#include <string.h>

#define POLL_MIN_MS 20
#define POLL_MAX_MS 200

/* Digit of the space, and the key in hexadecimal digits, as schema.sql writes it. */
typedef struct name {
    char text[1 + 2 * HF_KEY_MAX];
    size_t len;
} name;

static hf_slice name_of(hf_slice key, uint8_t space, name *n) {
    static const char digits[] = "0123456789abcdef";
    char *at = n->text;

    *at++ = (char)('0' + space);
    for (size_t i = 0; i < key.len && i < HF_KEY_MAX; i++) {
        *at++ = digits[(unsigned char)key.data[i] >> 4];
        *at++ = digits[(unsigned char)key.data[i] & 15];
    }
    n->len = (size_t)(at - n->text);
    return (hf_slice){n->text, n->len};
}

/* ---------------------------------------------------------------- looking from time to time */

static void poll_later(hf__postgres_instance *s);

static void on_poll(uv_timer_t *timer) {
    hf__postgres_instance *s = hf__of(timer, hf__postgres_instance, poll);

    hf__watchers_fire_all(&s->watchers, s->base.env.scope);
    if (s->closing == NULL && !hf__pg_hears(s->pg) && !hf__watchers_empty(&s->watchers))
        poll_later(s);
}

static void poll_later(hf__postgres_instance *s) {
    uint64_t high = (uint64_t)POLL_MIN_MS << (s->polls < 4 ? s->polls : 4);

    if (high > POLL_MAX_MS) high = POLL_MAX_MS;
    s->polls++;
    uv_timer_start(&s->poll, on_poll, hf__random_between(high / 2, high), 0);
}

void hf__postgres_unarmed(hf__postgres_instance *s) {
    if (s->closing != NULL || uv_is_active((uv_handle_t *)&s->poll)) return;
    s->polls = 1;
    poll_later(s);
}

/* ---------------------------------------------------------------- watches */

void hf__postgres_watch(hf_store *store, hf__watch *watch) {
    hf__postgres_instance *s = hf__postgres_self(store);
    name n;
    hf_slice slice = name_of(watch->key, watch->space, &n);

    hf__watchers_add(&s->watchers, watch, &slice);
    if (s->closing != NULL) return;
    if (!s->listens) s->listens = hf__pg_listen(s->pg, s->channel);
    if (!hf__pg_hears(s->pg)) hf__postgres_unarmed(s);
}

void hf__postgres_unwatch(hf_store *store, hf__watch *watch) {
    hf__watchers_remove(&hf__postgres_self(store)->watchers, watch);
}

bool hf__postgres_is_watched(const hf__postgres_instance *s, const hf_op *op) {
    name n;

    if (hf__watchers_empty(&s->watchers)) return false;
    for (uint32_t i = 0; i < op->n_keys; i++) {
        if (hf__watchers_has(&s->watchers, name_of(op->keys[i], op->space, &n))) return true;
    }
    return false;
}

void hf__postgres_notified(void *data, hf_slice payload) {
    hf__postgres_instance *s = data;

    hf__watchers_fire(&s->watchers, payload, s->base.env.scope);
}

void hf__postgres_listening(void *data) {
    hf__postgres_instance *s = data;

    hf__watchers_fire_all(&s->watchers, s->base.env.scope);
}
