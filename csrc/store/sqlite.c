/*
 * The SQLite store: many processes of one machine on one file.
 *
 * Batches. What is submitted waits in one queue. In the next turn of the loop the whole queue, up
 * to BATCH_MAX ops, goes to a libuv work item and becomes one transaction there: one lock, one
 * commit, one sync of the disk for all of it. What arrives meanwhile is the next batch. At most one
 * work item is in flight per store. On a thread that may block (`env.blocking`, the keeper's) the
 * same runs in place, from the idle handle: then four busy pool threads cannot hold up a renewal.
 *
 * Durability. A batch that writes an entry waits for the disk; one of leases alone does not, since
 * its holders die with the machine. Both survive a crash of any process.
 *
 * The log is written back into the file (a checkpoint) after the batch that made it long was
 * answered, as a work item of its own where nothing waits.
 *
 * A file that is deleted or replaced is noticed by the next batch, which opens what stands at the
 * path now (a new file, if nothing does), tells the operator (HF_EMOVED) and goes on. Leases that
 * were in the lost file are no more: their renewal is refused and their holders lose them; and as a
 * new file starts its fences from the clock, theirs are older than all that follow.
 */
#include "store/sqlite-store.h"
#include "store/stores.h"
#include "util/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 1024 /* no process keeps the write lock for longer than these take */
#define BUSY_MS_DEFAULT 5000
#define BUSY_MS_MAX 600000
#define BUSY_MS_BLOCKING 1000    /* the keeper has others to serve */
#define CHECKPOINT_FRAMES 1000   /* 4 MiB of log */
#define CHECKPOINT_BLOCKING 4000 /* the keeper leaves it to a host's loop that runs */
#define PATH_BYTES 4096

static hf__sqlite_instance *self(hf_store *store) {
    return hf__of(store, hf__sqlite_instance, base);
}

/* ---------------------------------------------------------------- init, fini */

/* The path must mean the same when the file has to be opened again. */
static char *make_absolute(const hf__sqlite_instance *s, hf_slice path) {
    const hf_allocator *a = s->base.env.allocator;
    char folder[PATH_BYTES];
    size_t size = sizeof folder;
    char *copy;

    if (path.data[0] == '/') return hf__copy(a, path);
    if (uv_cwd(folder, &size) != 0) return NULL;
    copy = hf__alloc(a, size + 1 + path.len + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, folder, size);
    copy[size] = '/';
    memcpy(copy + size + 1, path.data, path.len);
    copy[size + 1 + path.len] = '\0';
    return copy;
}

static hf_code read_url(hf__sqlite_instance *s, hf_error *error) {
    const hf__url *url = s->base.env.url;
    hf_slice busy;

    if (url->path.len == 0 || url->path.len >= PATH_BYTES)
        return hf__error_set(error, HF_EINVAL, 0, "the URL names no file: sqlite:./name.db");
    if (url->path.data[0] == ':')
        return hf__error_set(
            error, HF_EINVAL, 0,
            "for a store in memory the URL is \"memory:\"; a file whose name begins "
            "with a colon is written \"sqlite:./:name\"");
    s->busy_ms = BUSY_MS_DEFAULT;
    if (hf__setting_get(&s->base.env, "busyTimeout", &busy) &&
        !hf__parse_uint(busy, 0, BUSY_MS_MAX, &s->busy_ms))
        return hf__error_set(error, HF_EINVAL, 0,
                             "busyTimeout is milliseconds, a whole number from 0 to %d",
                             BUSY_MS_MAX);
    if (s->base.env.blocking && s->busy_ms > BUSY_MS_BLOCKING) s->busy_ms = BUSY_MS_BLOCKING;
    return HF_OK;
}

static hf_code sqlite_init(hf_store *store, hf_error *error) {
    hf__sqlite_instance *s = self(store);

    hf__error_clear(error);
    if (read_url(s, error) != HF_OK) return error->code;
    if (!hf_token_random(&s->self))
        return hf__error_set(error, HF_EIO, 0, "the system has no randomness to give");
    s->path = make_absolute(s, store->env.url->path);
    if (s->path == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    s->file = (hf__sqlite_file){
        .path = s->path,
        .application_id = HF__SQLITE_APPLICATION,
        .version = HF__SQLITE_VERSION,
        .steps = hf__sqlite_schema,
        .statements = hf__sqlite_sql,
        .n_statements = HF__ST_COUNT,
    };
    s->conn.file = &s->file;
    s->checkpoint_step = store->env.blocking ? CHECKPOINT_BLOCKING : CHECKPOINT_FRAMES;
    s->checkpoint_at = s->checkpoint_step;
    hf__list_init(&s->watches);
    hf__list_init(&s->fresh);
    return HF_OK;
}

static void sqlite_fini(hf_store *store) {
    hf__sqlite_instance *s = self(store);

    assert(s->conn.db == NULL && !s->working && s->n_handles == 0);
    hf__free(store->env.allocator, s->path);
}

/* ---------------------------------------------------------------- turns of the worker */

static void run(hf__sqlite_instance *s) {
    /* Looks come first: the refusals of the batch then know of everything later. */
    if (s->checks != NULL) hf__sqlite_run_checks(s);
    if (s->batch.first != NULL) hf__sqlite_run_batch(s);
    if (s->checkpoint && s->conn.db != NULL) hf__sqlite_checkpoint(&s->conn);
    if (s->close_connection) hf__sqlite_close(&s->conn);
}

static void begin(hf__sqlite_instance *s);

static void tell_moved(hf__sqlite_instance *s) {
    hf_error error;

    s->moved = false;
    if (s->base.env.warn == NULL) return;
    hf__error_set(&error, HF_EMOVED, 0,
                  "%s was deleted or replaced while in use: what it held is lost to this process, "
                  "leases too; stop all processes before you do that",
                  hf__sqlite_shown(s->path));
    s->base.env.warn(s->base.env.warn_data, &error);
}

/* When the log is written back next. If readers were in the way and it did not start over, not at
 * once again. */
static void plan_checkpoint(hf__sqlite_instance *s) {
    if (s->checkpoint) s->checkpoint_at = s->conn.wal_frames + s->checkpoint_step;
    if (s->conn.wal_frames < s->checkpoint_step) s->checkpoint_at = s->checkpoint_step;
    s->want_checkpoint = s->conn.db != NULL && s->conn.wal_frames >= s->checkpoint_at;
    s->checkpoint = false;
}

static void on_closed(uv_handle_t *handle) {
    hf__sqlite_instance *s = handle->data;
    hf__op_list ended = {s->closing, s->closing};

    if (s->n_handles > 1) {
        s->n_handles--;
        return;
    }
    /* What came while the handles were closing ends first; its callbacks may bring more. */
    while (s->cancelled.first != NULL)
        hf__op_finish(s->base.env.scope, &s->cancelled);
    s->n_handles = 0;
    s->closing->applied = true;
    hf__op_finish(s->base.env.scope, &ended);
}

static void close_handles(hf__sqlite_instance *s) {
    uv_handle_t *handles[] = {(uv_handle_t *)&s->idle, (uv_handle_t *)&s->events,
                              (uv_handle_t *)&s->throttle, (uv_handle_t *)&s->poll};

    hf__sqlite_watch_stop(s);
    s->n_handles = sizeof handles / sizeof handles[0];
    for (uint32_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
        handles[i]->data = s;
        uv_close(handles[i], on_closed);
    }
}

/* Back on the loop's side. `done` callbacks may submit, and so come before the next turn begins. */
static void end(hf__sqlite_instance *s) {
    hf__op_list ended;

    s->working = false;
    plan_checkpoint(s);
    if (s->close_connection) {
        close_handles(s);
        return;
    }
    if (s->moved) tell_moved(s);
    hf__sqlite_watch_after(s);
    ended = s->batch;
    s->batch = (hf__op_list){NULL, NULL};
    hf__op_append(&ended, &s->cancelled);
    hf__op_finish(s->base.env.scope, &ended);
    /* In place, one batch would nest within the other. */
    if (s->base.env.blocking)
        hf__sqlite_wake(s);
    else
        begin(s);
}

static void on_work(uv_work_t *work) {
    run(hf__of(work, hf__sqlite_instance, work));
}

static void on_worked(uv_work_t *work, int status) {
    (void)status;
    end(hf__of(work, hf__sqlite_instance, work));
}

static void fill_batch(hf__sqlite_instance *s) {
    hf_op *op;

    for (uint32_t n = 0; n < BATCH_MAX && (op = hf__op_pop(&s->queue)) != NULL; n++)
        hf__op_push(&s->batch, op);
}

/* Gives the worker its next turn, if there is anything to do and it is not at it. */
static void begin(hf__sqlite_instance *s) {
    if (s->working) return;
    fill_batch(s);
    hf__sqlite_watch_before(s);
    if (s->batch.first == NULL && s->want_checkpoint) {
        s->checkpoint = true;
        s->want_checkpoint = false;
    }
    /* Under load there is no moment when nothing waits; the log must not grow for ever. */
    if (s->want_checkpoint && s->conn.wal_frames >= 2 * s->checkpoint_at) s->checkpoint = true;
    if (s->batch.first == NULL && s->checks == NULL && !s->checkpoint) {
        if (s->closing == NULL || s->close_connection) return;
        s->close_connection = true;
    }
    s->working = true;
    if (!s->base.env.blocking) {
        uv_queue_work(s->base.env.loop, &s->work, on_work, on_worked);
        return;
    }
    run(s);
    end(s);
}

static void on_idle(uv_idle_t *idle) {
    hf__sqlite_instance *s = hf__of(idle, hf__sqlite_instance, idle);

    uv_idle_stop(idle);
    hf__op_finish(s->base.env.scope, &s->cancelled);
    begin(s);
}

/* The idle handle, not a prepare handle: while it is active the loop does not sleep, also where
 * something is submitted between the two phases. It keeps the loop alive, as work that waits must.
 */
void hf__sqlite_wake(hf__sqlite_instance *s) {
    if (s->working && s->cancelled.first == NULL) return; /* its end begins the next */
    uv_idle_start(&s->idle, on_idle);
}

void hf__sqlite_handles(hf__sqlite_instance *s) {
    if (s->has_handles) return;
    s->has_handles = true;
    (void)uv_idle_init(s->base.env.loop, &s->idle);
    hf__sqlite_watch_init(s);
}

/* ---------------------------------------------------------------- the seam */

/* What comes after close. */
static void refuse_late(hf__sqlite_instance *s, hf_op *ops) {
    hf_error error;

    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    while (ops != NULL) {
        hf_op *next = ops->next;
        hf__op_fail(&s->cancelled, ops, &error);
        ops = next;
    }
    if (s->n_handles == 0) hf__sqlite_wake(s); /* else they are closing, and the last tells */
}

static void submit(hf_store *store, hf_op *ops) {
    hf__sqlite_instance *s = self(store);

    if (s->closing != NULL) {
        refuse_late(s, ops);
        return;
    }
    hf__sqlite_handles(s);
    while (ops != NULL) {
        hf_op *next = ops->next;
        hf__op_push(&s->queue, ops);
        ops = next;
    }
    hf__sqlite_wake(s);
}

static void sqlite_close(hf_store *store, hf_op *op) {
    hf__sqlite_instance *s = self(store);

    assert(s->closing == NULL && op->next == NULL);
    hf__sqlite_handles(s);
    s->closing = op;
    hf__sqlite_wake(s);
}

static void sqlite_cancel(hf_store *store, hf_op *op) {
    hf__sqlite_instance *s = self(store);

    if (!hf__op_remove(&s->queue, op)) return;
    hf__error_set(&op->error, HF_ECANCELED, 0, NULL);
    hf__op_push(&s->cancelled, op);
    hf__sqlite_wake(s);
}

const hf_store_vtable hf__sqlite_store = {
    .name = "sqlite",
    .schemes = "sqlite",
    .caps = HF_CAP_LEASES | HF_CAP_SHARED | HF_CAP_PERMITS | HF_CAP_FENCES | HF_CAP_ENTRIES |
            HF_CAP_DURABLE | HF_CAP_SHARED_BY_PROCESSES | HF_CAP_LIST | HF_CAP_HAND_OVER,
    .size = sizeof(hf__sqlite_instance),
    .params = "busyTimeout",
    .init = sqlite_init,
    .open = submit,
    .close = sqlite_close,
    .fini = sqlite_fini,
    .cancel = sqlite_cancel,
    .take = submit,
    .keep = submit,
    .drop = submit,
    .get = submit,
    .put = submit,
    .del = submit,
    .add = submit,
    .list = submit,
    .sweep = submit,
    .watch = hf__sqlite_watch,
    .unwatch = hf__sqlite_unwatch,
};
