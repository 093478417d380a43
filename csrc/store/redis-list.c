/*
 * Listing who holds what.
 *
 * There is no index of the leases: it would cost every take and release something, for the few who
 * list. So a list walks through all names of a server (SCAN, in steps, between which others are
 * served), collects the keys that are held, and sorts them. Who holds those of the page is then
 * asked key by key, all at once.
 *
 * Of very many keys only the least are collected: memory stays bounded, and a later page walks
 * again. A page that goes on where the one before ended (HF_OP_NEXT) takes up what that one has
 * collected, which is kept for a while.
 */
#include "store/redis-store.h"
#include "util/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STEP 1000       /* how many names one step of the walk looks at */
#define NAMES_MAX 16384 /* how many keys are collected */
#define ASKED_MAX 256   /* keys whose holders are asked for at a time */
#define KEEP_MS 10000   /* how long the keys are kept for the next page */

/* The keys that were found; the least ones, if there were too many. */
typedef struct names {
    hf_slice *keys; /* owned */
    size_t n;
    size_t cap;
    bool is_cut; /* after the last there are more */
} names;

struct hf__redis_listing {
    hf__redis_instance *store;
    hf_op *op;
    names found;
    char *prefix; /* owned: what the keys begin with */
    size_t prefix_len;
    uint16_t server; /* that is walked through, from 1 */
    char cursor[24];
    hf_slice last;  /* owned: the walk collects what comes after it; empty: after op->value */
    size_t at;      /* the next key whose holders are to be asked for */
    size_t asked;   /* answers that are not there yet */
    hf_error error; /* the first one's */
};

static int compare_keys(const void *a, const void *b) {
    return hf__slice_compare(*(const hf_slice *)a, *(const hf_slice *)b);
}

static int compare_rows(const void *a, const void *b) {
    return hf__slice_compare(((const hf_row *)a)->key, ((const hf_row *)b)->key);
}

static void free_slice(const hf_allocator *a, hf_slice s) {
    hf__free(a, (void *)(uintptr_t)s.data);
}

static void cut_rows(hf_op *op, size_t n) {
    while (op->n_rows > n)
        free_slice(op->allocator, op->rows[--op->n_rows].key);
}

/* ---------------------------------------------------------------- names */

/* In order, each once, and no more than are kept. */
static void tidy(names *found, const hf_allocator *a) {
    size_t n = 0;

    if (found->n > 0) qsort(found->keys, found->n, sizeof found->keys[0], compare_keys);
    for (size_t i = 0; i < found->n; i++) {
        bool again = n > 0 && hf__slice_equal(found->keys[n - 1], found->keys[i]);

        if (again || n == NAMES_MAX) {
            found->is_cut = found->is_cut || !again;
            free_slice(a, found->keys[i]);
        } else {
            found->keys[n++] = found->keys[i];
        }
    }
    found->n = n;
}

/* False when memory is out. */
static bool add_name(names *found, const hf_allocator *a, hf_slice key) {
    char *copy;

    if (found->n == (size_t)2 * NAMES_MAX) tidy(found, a);
    if (found->n == found->cap) {
        size_t cap = found->cap == 0 ? 64 : found->cap * 2;
        hf_slice *keys = hf__resize(a, found->keys, cap * sizeof *keys);
        if (keys == NULL) return false;
        found->keys = keys;
        found->cap = cap;
    }
    copy = hf__copy(a, key);
    if (copy == NULL) return false;
    found->keys[found->n++] = (hf_slice){copy, key.len};
    return true;
}

static void free_names(names *found, const hf_allocator *a) {
    for (size_t i = 0; i < found->n; i++)
        free_slice(a, found->keys[i]);
    hf__free(a, found->keys);
    *found = (names){0};
}

/* The first of the keys after `after`. */
static size_t find_after(const names *found, hf_slice after) {
    size_t low = 0;
    size_t high = found->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (hf__slice_compare(found->keys[middle], after) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---------------------------------------------------------------- life */

static void free_listing(hf__redis_listing *l) {
    const hf_allocator *a = l->store->base.env.allocator;

    free_names(&l->found, a);
    free_slice(a, l->last);
    hf__free(a, l->prefix);
    hf__free(a, l);
}

void hf__redis_list_forget(hf__redis_instance *s) {
    if (s->kept != NULL) free_listing(s->kept);
    s->kept = NULL;
}

static void on_forget(uv_timer_t *timer) {
    hf__redis_list_forget(hf__of(timer, hf__redis_instance, forget));
}

static hf__redis_listing *new_listing(hf__redis_instance *s, hf_op *op) {
    const hf_allocator *a = s->base.env.allocator;
    hf__redis_listing *l = hf__zalloc(a, sizeof *l);

    if (l == NULL) return NULL;
    l->store = s;
    l->op = op;
    l->prefix = hf__copy(a, op->keys[0]);
    l->prefix_len = op->keys[0].len;
    if (l->prefix != NULL) return l;
    hf__free(a, l);
    return NULL;
}

/* What the page before has left, if this one goes on there; else NULL. */
static hf__redis_listing *take_kept(hf__redis_instance *s, hf_op *op) {
    hf__redis_listing *l = s->kept;

    if (l == NULL || (op->flags & HF_OP_NEXT) == 0) return NULL;
    if (!hf__slice_equal((hf_slice){l->prefix, l->prefix_len}, op->keys[0])) return NULL;
    if (find_after(&l->found, op->value) == l->found.n && l->found.is_cut) return NULL;
    s->kept = NULL;
    uv_timer_stop(&s->forget);
    l->op = op;
    l->at = find_after(&l->found, op->value);
    return l;
}

static void end(hf__redis_listing *l) {
    hf__redis_instance *s = l->store;
    hf_op *op = l->op;

    op->applied = l->error.code == HF_OK;
    if (!op->applied) {
        cut_rows(op, 0);
        op->error = l->error;
    }
    hf__redis_list_forget(s);
    if (op->applied && l->found.n > 0 && s->closing == NULL) {
        s->kept = l;
        uv_timer_start(&s->forget, on_forget, KEEP_MS, 0);
    } else {
        free_listing(l);
    }
    hf__redis_end_op(s, op);
}

static void fail(hf__redis_listing *l, const hf_error *error) {
    if (l->error.code != HF_OK) return;
    l->error = *error;
    l->error.flags &= ~HF_OUTCOME_UNKNOWN; /* nothing was written */
}

static void fail_memory(hf__redis_listing *l) {
    hf_error error;

    hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
    fail(l, &error);
}

/* ---------------------------------------------------------------- holders */

static hf_code encode_holders(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                              hf_error *error) {
    hf__redis_task *task = call->data;
    hf__redis_listing *l = task->data;
    hf_slice key = l->found.keys[task->index];
    hf__redis_name name;

    hf__redis_begin(task, server, out, 2, 1);
    hf__redis_lease_name(&l->store->names, key, &name);
    hf__resp_slice(out, hf__redis_name_slice(&name));
    if (!hf__redis_companion(&l->store->names, key, 's', &name))
        return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    hf__resp_slice(out, hf__redis_name_slice(&name));
    hf__resp_int(out, call->nonce);
    return HF_OK;
}

/* nonce, and of each holder: token, time left, what is told. */
static bool add_rows(hf__redis_listing *l, hf_slice key, const hf__reply *reply) {
    if (reply->type != HF__REPLY_ARRAY || reply->n_items % 3 != 1) return false;
    for (size_t i = 1; i < reply->n_items; i += 3) {
        const hf__reply *item = &reply->items[i];
        hf_holder holder;

        if (item[0].type != HF__REPLY_STRING || item[1].type != HF__REPLY_INTEGER ||
            item[2].type != HF__REPLY_STRING ||
            !hf__redis_read_holder(item[0].text, item[1].integer, item[2].text, &holder))
            return false;
        if (hf__op_add_row(l->op, key, &holder)) continue;
        fail(l, &l->op->error);
        return true;
    }
    return true;
}

/* Whole keys in their order, as many as were asked for; the first however many it has. Whether the
 * page is full. */
static bool lay_out(hf_op *op) {
    size_t fit = 0;

    if (op->n_rows == 0) return false;
    qsort(op->rows, op->n_rows, sizeof op->rows[0], compare_rows);
    for (size_t i = 1; i <= op->n_rows; i++) {
        if (i < op->n_rows && hf__slice_equal(op->rows[i].key, op->rows[i - 1].key)) continue;
        if (i > op->limit && fit > 0) break;
        fit = i;
    }
    if (fit == op->n_rows) return fit >= op->limit;
    cut_rows(op, fit);
    return true;
}

static bool ask_holders(hf__redis_listing *l);
static void walk_on(hf__redis_listing *l);

/* All that were asked for have answered. */
static void end_round(hf__redis_listing *l) {
    bool is_over = l->error.code != HF_OK || lay_out(l->op);

    if (!is_over && l->at < l->found.n) {
        if (ask_holders(l)) return;
    } else if (!is_over && l->found.is_cut && l->op->n_rows == 0) {
        /* None that was collected is held any more; others, after them, may be. */
        walk_on(l);
        return;
    }
    end(l);
}

static void on_holders(hf__redis_task *task, const hf__reply *reply, const hf_error *error) {
    hf__redis_listing *l = task->data;
    hf_error nonsense;

    if (error != NULL) {
        fail(l, error);
    } else if (l->error.code == HF_OK && !add_rows(l, l->found.keys[task->index], reply)) {
        hf__redis_nonsense(task, &nonsense);
        fail(l, &nonsense);
    }
    hf__redis_task_free(task);
    if (--l->asked == 0) end_round(l);
}

/* Asks for the holders of the next keys. False, with l->error set, if none could be asked for. */
static bool ask_holders(hf__redis_listing *l) {
    size_t room = l->op->limit > l->op->n_rows ? l->op->limit - l->op->n_rows : 1;
    size_t n = room < ASKED_MAX ? room : ASKED_MAX;

    for (l->asked = 0; l->asked < n && l->at < l->found.n; l->asked++, l->at++) {
        hf__redis_task *task = hf__redis_task_new(l->store, l->op);

        if (task == NULL) {
            fail_memory(l);
            break;
        }
        task->data = l;
        task->index = l->at;
        task->call.encode = encode_holders;
        task->done = on_holders;
        hf__redis_send_task(task, HF__LUA_holders, l->found.keys[l->at]);
    }
    return l->asked > 0;
}

/* ---------------------------------------------------------------- the walk */

static hf_code encode_scan(hf__redis_call *call, const hf__redis_server *server, hf__buffer *out,
                           hf_error *error) {
    hf__redis_task *task = call->data;
    const hf__redis_listing *l = task->data;
    hf__redis_name pattern;

    (void)error;
    hf__redis_pattern(&l->store->names, 's', &pattern);
    hf__redis_begin(task, server, out, 0, 5);
    hf__resp_int(out, call->nonce);
    hf__resp_text(out, l->cursor);
    hf__resp_slice(out, hf__redis_name_slice(&pattern));
    hf__resp_int(out, STEP);
    hf__resp_slice(out, l->store->names.prefix);
    return HF_OK;
}

/* Takes in the key of one state that was found. False when memory is out. */
static bool take_in(hf__redis_listing *l, hf_slice name) {
    hf_slice after = l->last.len > 0 ? l->last : l->op->value;
    hf_slice key;
    char letter;

    if (!hf__redis_read_companion(&l->store->names, name, &key, &letter) || letter != 's' ||
        key.len > HF_KEY_MAX)
        return true; /* somebody else's */
    if (!hf__slice_starts(key, (hf_slice){l->prefix, l->prefix_len}) ||
        hf__slice_compare(key, after) <= 0)
        return true;
    return add_name(&l->found, l->store->base.env.allocator, key);
}

/* nonce, cursor, names. False: it makes no sense. */
static bool read_step(hf__redis_listing *l, const hf__reply *reply) {
    const hf__reply *item = reply->items;

    if (reply->type != HF__REPLY_ARRAY || reply->n_items < 2 || item[1].type != HF__REPLY_STRING ||
        item[1].text.len == 0 || item[1].text.len >= sizeof l->cursor)
        return false;
    memcpy(l->cursor, item[1].text.data, item[1].text.len);
    l->cursor[item[1].text.len] = '\0';
    for (size_t i = 2; i < reply->n_items; i++) {
        if (item[i].type != HF__REPLY_STRING) return false;
        if (take_in(l, item[i].text)) continue;
        fail_memory(l);
        break;
    }
    return true;
}

static bool step(hf__redis_listing *l);

/* Every server has been walked through. */
static void end_walk(hf__redis_listing *l) {
    tidy(&l->found, l->store->base.env.allocator);
    l->at = 0;
    if (l->found.n == 0 || !ask_holders(l)) end(l);
}

static void on_step(hf__redis_task *task, const hf__reply *reply, const hf_error *error) {
    hf__redis_listing *l = task->data;
    hf_error nonsense;

    if (error != NULL) {
        fail(l, error);
    } else if (!read_step(l, reply)) {
        hf__redis_nonsense(task, &nonsense);
        fail(l, &nonsense);
    }
    hf__redis_task_free(task);
    /* A walk may take very long: a store that closes does not wait for its end. */
    if (l->error.code == HF_OK && l->store->closing != NULL)
        hf__error_set(&l->error, HF_ECLOSED, 0, NULL);
    if (l->error.code == HF_OK && strcmp(l->cursor, "0") == 0) l->server++;
    if (l->error.code == HF_OK && l->server > hf__redis_servers(l->store->redis))
        end_walk(l);
    else if (l->error.code != HF_OK || !step(l))
        end(l);
}

/* False, with l->error set, when memory is out. */
static bool step(hf__redis_listing *l) {
    hf__redis_task *task = hf__redis_task_new(l->store, l->op);

    if (task == NULL) {
        fail_memory(l);
        return false;
    }
    task->data = l;
    task->call.encode = encode_scan;
    task->call.server = l->server;
    task->done = on_step;
    hf__redis_send_task(task, HF__LUA_scan, (hf_slice){NULL, 0});
    return true;
}

static bool walk(hf__redis_listing *l) {
    l->server = 1;
    strcpy(l->cursor, "0");
    return step(l);
}

/* From the last of those that were collected. */
static void walk_on(hf__redis_listing *l) {
    const hf_allocator *a = l->store->base.env.allocator;

    free_slice(a, l->last);
    l->last = l->found.keys[--l->found.n];
    free_names(&l->found, a);
    if (!walk(l)) end(l);
}

/* ---------------------------------------------------------------- the verb */

/* False, with l->error set, when memory is out. */
static bool start(hf__redis_listing *l) {
    const hf_allocator *a = l->store->base.env.allocator;

    if ((l->op->flags & HF_OP_EXACT) != 0) {
        if (add_name(&l->found, a, l->op->keys[0])) return ask_holders(l);
        fail_memory(l);
        return false;
    }
    if (l->at < l->found.n) return ask_holders(l);
    return walk(l);
}

bool hf__redis_list(hf__redis_instance *s, hf_op *op) {
    hf__redis_listing *l;

    op->applied = true;
    if (op->limit == 0) return false; /* it has ended, with nothing */
    l = take_kept(s, op);
    if (l != NULL && l->at == l->found.n) {
        free_listing(l);
        return false;
    }
    if (l == NULL) l = new_listing(s, op);
    if (l == NULL) {
        hf__error_set(&op->error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return false;
    }
    if (start(l)) return true;
    op->error = l->error;
    op->applied = false;
    free_listing(l);
    return false;
}
