/*
 * Run once: an operation is claimed, run by whoever claimed it, and finished with an outcome
 * that all later callers get.
 *
 * A run goes through
 *
 *   CLAIMING -> RUNNING -> (ENDING -> RUNNING) -> ENDED    claimed, then finished or abandoned
 *   CLAIMING -> ENDED                                      replay, or an error
 *
 * The claim is an entry with a lease that the keeper renews. The claim's token decides at the
 * end: a run that somebody else took over, or that was forgotten, cannot finish. One that only
 * lost its lease still can, since nobody else has begun.
 */
#include "prim/record.h"
#include "prim/request.h"

#include "util/alloc.h"
#include "util/random.h"

#include <assert.h>
#include <string.h>

#define POLL_LOW_MS 50
#define POLL_HIGH_MS 150
#define SLACK_MS 5
#define UNDO_PAUSE_MS 50
/* How long a claim is remembered whose runner died: long enough that no run outlives its own
 * claim. */
#define CLAIM_KEPT_MS (UINT64_C(7) * 86400000)

struct hf_run {
    hf__lease lease;
    hf__waiter waiter;
    hf_client *client; /* valid while anything is under way */
    hf_allocator allocator;
    uint32_t refs;
    enum { CLAIMING, RUNNING, ENDING, ENDED } state;
    bool busy;   /* `op` is under way */
    bool lapsed; /* the record there is belongs to a run that died: take it over */
    bool let_go; /* the lease has ended */
    bool freed;  /* the user's handle is gone */
    bool watching;
    bool hinted;
    bool fail_on_crash;
    bool cancelled; /* told so in the next turn */
    bool in_doubt;  /* while a claim is taken back: whether it has landed, or will, is not known */
    hf__request request;
    hf_op op;
    hf__timer timer;
    hf__waiter
        undo; /* in client->unclaiming while it pauses before it takes the claim back again */
    hf__timer undo_timer;
    uint64_t undo_until_ns;
    uint32_t undo_tries;
    hf__watch watch;
    uint64_t sent_ns;
    uint64_t wait_ns;
    uint64_t ttl_ms;
    uint64_t lease_ms;
    uint64_t left_ms; /* of the claim in the way */
    hf_slice key;
    hf_slice fingerprint;
    hf__buffer bytes; /* the record as it is stored */
    void (*begun)(void *data, hf_run *run, const hf_once_result *result);
    void (*lost)(void *data, hf_run *run, const hf_error *why);
    void *data;
    void (*ended)(void *data, hf_run *run, const hf_error *error);
    void *ended_data;
};

static void claim(hf_run *run);

/* ---------------------------------------------------------------- references */

static void run_ref(hf_run *run) {
    run->refs++;
    hf__client_hold(run->client);
}

static void run_free(hf_run *run) {
    if (--run->refs > 0) return;
    hf_allocator allocator = run->allocator;
    run->bytes.allocator = &allocator;
    hf__buffer_fini(&run->bytes);
    hf__free(&allocator, run);
}

static void run_unref(hf_run *run) {
    hf_client *client = run->client;
    run_free(run);
    hf__client_unhold(client);
}

/* Ends the lease; the claim itself stays as it is. */
static void let_go(hf_run *run) {
    if (run->let_go) return;
    run->let_go = true;
    hf__engine_end(run->client->engine, &run->lease, false);
    if (run->lease.joined) run_ref(run);
}

static void end_run(hf_run *run) {
    run->state = ENDED;
    hf__list_remove(&run->waiter.node);
    let_go(run);
}

/* ---------------------------------------------------------------- the end of claiming */

static void unwatch(hf_run *run) {
    if (run->watching) run->client->vt->unwatch(run->client->store, &run->watch);
    run->watching = false;
}

static void stop_claiming(hf_run *run, const hf_once_result *result) {
    hf_client *client = run->client;
    hf__list_remove(&run->waiter.node);
    hf__timer_stop(&client->engine->timers, &run->timer);
    unwatch(run);
    run_ref(run);
    if (run->begun != NULL) run->begun(run->data, run, result);
    /* What was found goes now: the handle may outlive the allocator. */
    if (!run->busy) hf_op_reset(&run->op);
    run_unref(run);
    hf__client_end(client);
}

static void fail(hf_run *run, const hf_error *error) {
    hf_once_result result = {.error = error, .left_ms = run->left_ms};
    run->state = ENDED;
    stop_claiming(run, &result);
}

static void fail_with(hf_run *run, hf_code code, uint32_t flags, const char *what) {
    hf_error error;
    hf__error_set(&error, code, flags, "the operation \"%.*s\" %s", hf__shown(run->key),
                  run->key.data, what);
    fail(run, &error);
}

/* Prepares `op`, of which there is one under way at most; it holds the run. */
static void start_op(hf_run *run, hf_verb verb) {
    assert(!run->busy);
    run->busy = true;
    hf_op_reset(&run->op);
    hf_op_init(&run->op, verb, NULL, NULL);
    run->op.space = HF_RECORDS;
    run->op.keys = &run->key;
    run->op.n_keys = 1;
    run->op.token = run->lease.token;
    run->op.condition = HF_IF_TOKEN;
    run->sent_ns = hf__client_now(run->client);
    run_ref(run);
}

static void send_op(hf_run *run, hf__again again, uint64_t until_ns,
                    void (*done)(hf__request *request)) {
    hf__request_start(&run->request, run->client, &run->op, again, until_ns, done, run);
}

/* A claim that nobody will run is taken back; as with a take of a lock, one that may yet land is
 * until one lease has passed since the store first said that it heard. None of the pauses keeps the
 * loop alive. */
static void send_undo(hf_run *run);

static void undo_over(hf_run *run) {
    hf__list_remove(&run->undo.node);
    run->client->n_undos--;
    run_unref(run);
}

static void stop_undoing(hf__waiter *waiter) {
    hf_run *run = hf__of(waiter, hf_run, undo);
    hf__timer_stop(&run->client->engine->timers, &run->undo_timer);
    undo_over(run);
}

static void on_undo_due(hf__timer *timer) {
    hf_run *run = hf__of(timer, hf_run, undo_timer);
    hf__list_remove(&run->undo.node);
    send_undo(run);
}

static void on_undone(hf__request *request) {
    hf_run *run = request->data;
    hf_client *client = run->client;
    uint64_t now = hf__client_now(client);
    bool heard = run->op.error.code == HF_OK;
    run->busy = false;
    hf_op_reset(&run->op);
    run_unref(run); /* start_op's */
    if (heard && run->undo_until_ns == HF_FOREVER)
        run->undo_until_ns = hf__add_ms(now, run->in_doubt ? run->lease_ms : 0);
    if ((heard && now >= run->undo_until_ns) || client->phase > HF__DRAINING) {
        undo_over(run);
        return;
    }
    run->undo_timer.fire = on_undo_due;
    run->undo.stop = stop_undoing;
    hf__list_push(&client->unclaiming, &run->undo.node);
    uint64_t at = hf__add_ms(now, hf__backoff_ms(run->undo_tries++, UNDO_PAUSE_MS));
    hf__client_timer(client, &run->undo_timer, at < run->undo_until_ns ? at : run->undo_until_ns);
}

static void send_undo(hf_run *run) {
    start_op(run, HF_DEL);
    send_op(run, HF__AGAIN_NEVER, 0, on_undone);
}

static void undo_claim(hf_run *run, bool in_doubt) {
    run->in_doubt = in_doubt;
    run->undo_until_ns = HF_FOREVER;
    run->client->n_undos++;
    run_ref(run);
    send_undo(run);
}

/* ---------------------------------------------------------------- losing */

static void loss_error(const hf_run *run, hf__loss why, hf_error *error) {
    static const char *const reasons[] = {
        [HF__LOSS_DEADLINE] = "its claim could not be renewed in time",
        [HF__LOSS_REFUSED] = "its record was taken over or forgotten",
        [HF__LOSS_HOLD] = "its claim could not be renewed in time",
        [HF__LOSS_STALL] = "the event loop was blocked for longer than maxStall",
        [HF__LOSS_CLOSED] = "the client was closed",
    };
    hf__error_set(error, HF_ELOST, 0, "the run of \"%.*s\" was lost: %s", hf__shown(run->key),
                  run->key.data, reasons[why == HF__LOSS_NONE ? HF__LOSS_DEADLINE : why]);
}

static void on_lost(hf__lease *lease, hf__loss why) {
    hf_run *run = hf__of(lease, hf_run, lease);
    hf_error error;
    if (run->let_go) return;
    run_ref(run);
    let_go(run);
    loss_error(run, why, &error);
    /* While it is being finished, the answer to that is what counts. */
    if (run->state == RUNNING && run->lost != NULL) run->lost(run->data, run, &error);
    run_unref(run);
}

/* The keeper has let go: as the owner told it, or as the end of the process did. */
static void on_left(hf__lease *lease) {
    hf_run *run = hf__of(lease, hf_run, lease);
    lease->joined = false;
    if (run->let_go)
        run_unref(run);
    else
        on_lost(lease, HF__LOSS_CLOSED);
}

static const hf__lease_owner lease_owner = {.lost = on_lost, .left = on_left};

static void stop_running(hf__waiter *waiter) {
    hf_run *run = hf__of(waiter, hf_run, waiter);
    run_ref(run);
    hf__lease_end(&run->lease, HF__LOSS_CLOSED);
    on_lost(&run->lease, HF__LOSS_CLOSED);
    if (run->state == RUNNING) end_run(run);
    run_unref(run);
}

/* ---------------------------------------------------------------- claiming */

static void claimed(hf_run *run) {
    hf_client *client = run->client;
    if (!hf__engine_start(client->engine, &run->lease, run->lease_ms, run->sent_ns)) {
        undo_claim(run, false);
        fail_with(run, HF_EUNAVAIL, HF_RETRYABLE, "was claimed too late to run it");
        return;
    }
    hf_once_result result = {.attempt = run->op.attempt, .fence = run->op.version};
    run->state = RUNNING;
    hf__list_remove(&run->waiter.node);
    run->waiter.stop = stop_running;
    run_ref(run);
    stop_claiming(run, &result);
    if (run->state != ENDED) hf__list_push(&client->running, &run->waiter.node);
    run_unref(run);
}

static void wait_for_other(hf_run *run) {
    hf_client *client = run->client;
    uint64_t now = hf__client_now(client);
    run->left_ms = run->op.entry.lease_left_ms;
    if (now >= run->wait_ns) {
        fail_with(run, HF_EINPROGRESS, HF_RETRYABLE,
                  "is still running elsewhere: wait longer, or come back later");
        return;
    }
    bool fresh = !run->watching && client->vt->watch != NULL;
    if (fresh) {
        run->watching = true;
        client->vt->watch(client->store, &run->watch);
    }
    uint64_t ms = run->left_ms + hf__random_between(1, SLACK_MS);
    if (client->vt->watch == NULL) {
        uint64_t poll = hf__random_between(POLL_LOW_MS, POLL_HIGH_MS);
        ms = poll < ms ? poll : ms;
    }
    uint64_t at = fresh || run->hinted ? 0 : hf__add_ms(now, ms);
    hf__client_timer(client, &run->timer, at < run->wait_ns ? at : run->wait_ns);
}

static void replay(hf_run *run, const hf__record *record) {
    hf_once_result result = {.replay = true,
                             .is_error = record->is_error,
                             .format = run->op.entry.format,
                             .attempt = run->op.entry.attempt,
                             .value = record->value};
    run->state = ENDED;
    stop_claiming(run, &result);
}

static void found(hf_run *run) {
    const hf_entry *entry = &run->op.entry;
    hf__record record;
    if (!entry->present) {
        run->lapsed = false; /* gone since it refused us */
        claim(run);
    } else if (!hf__record_read(run->op.out, &record)) {
        fail_with(run, HF_EPROTO, 0, "has a record that cannot be read; forget it to go on");
    } else if (run->fingerprint.len > 0 && record.fingerprint.len > 0 &&
               !hf__slice_equal(run->fingerprint, record.fingerprint)) {
        fail_with(run, HF_EMISMATCH, 0,
                  "was recorded with another fingerprint: a new input needs a new key");
    } else if (!entry->claimed) {
        replay(run, &record);
    } else if (entry->lease_left_ms > 0) {
        run->lapsed = false;
        wait_for_other(run);
    } else if (run->fail_on_crash) {
        fail_with(run, HF_ECRASHED, 0,
                  "was begun by a run that ended without a result; whether it took effect is "
                  "unknown. Find out, then forget the record");
    } else {
        run->lapsed = true;
        claim(run);
    }
}

static void on_claim(hf__request *request) {
    hf_run *run = request->data;
    hf_op *op = &run->op;
    bool unknown = (op->error.flags & HF_OUTCOME_UNKNOWN) != 0;
    run->busy = false;
    run_ref(run);
    if (run->state == ENDED || run->cancelled) {
        if (unknown || (op->error.code == HF_OK && op->applied)) undo_claim(run, unknown);
    } else if (op->error.code != HF_OK) {
        hf_error error = op->error;
        if (unknown) undo_claim(run, true);
        fail(run, &error);
    } else if (op->applied) {
        claimed(run);
    } else {
        found(run);
    }
    if (!run->busy && run->state == ENDED) hf_op_reset(op);
    run_unref(run);
    run_unref(run); /* start_op's */
}

/* First as if there were nothing: what refuses it shows the fingerprint and the state. Only a
 * claim known to be of a dead run is taken over. */
static void claim(hf_run *run) {
    start_op(run, HF_PUT);
    run->op.condition = run->lapsed ? HF_IF_CLAIMABLE : HF_IF_ABSENT;
    run->op.flags = HF_OP_WANT_ENTRY;
    run->op.format = HF_BYTES;
    run->op.value = (hf_slice){run->bytes.data, run->bytes.len};
    run->op.lease_ms = run->lease_ms;
    if (run->ttl_ms != 0)
        run->op.ttl_ms = run->ttl_ms > CLAIM_KEPT_MS ? run->ttl_ms : CLAIM_KEPT_MS;
    run->hinted = false;
    hf__timer_stop(&run->client->engine->timers, &run->timer);
    send_op(run, HF__AGAIN_ALWAYS, run->wait_ns, on_claim);
}

static void on_timer(hf__timer *timer) {
    hf_run *run = hf__of(timer, hf_run, timer);
    if (hf__client_now(run->client) >= run->wait_ns && run->left_ms > 0)
        fail_with(run, HF_EINPROGRESS, HF_RETRYABLE,
                  "is still running elsewhere: wait longer, or come back later");
    else
        claim(run);
}

static void on_hint(hf__watch *watch) {
    hf_run *run = hf__of(watch, hf_run, watch);
    run->hinted = true;
    if (!run->busy && !run->cancelled && run->state == CLAIMING)
        hf__client_timer(run->client, &run->timer, 0);
}

static void stop_waiting(hf__waiter *waiter) {
    hf_error error;
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    fail(hf__of(waiter, hf_run, waiter), &error);
}

/* ---------------------------------------------------------------- begin */

static hf_code check_options(const hf_client *client, const hf_once_options *o, hf_error *error) {
    if (hf__check_key(o->key, error) != HF_OK) return error->code;
    if (o->lease_ms < HF_TTL_MIN || o->lease_ms > HF_TTL_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "lease is %d ms to 24 h", HF_TTL_MIN);
    if (o->max_stall_ms == 0)
        return hf__error_set(error, HF_EINVAL, 0, "maxStall is at least 1 ms");
    if (o->fingerprint.len > HF__FINGERPRINT_MAX)
        return hf__error_set(error, HF_EINVAL, 0, "a fingerprint has up to %d bytes",
                             HF__FINGERPRINT_MAX);
    if (!(client->store->caps & HF_CAP_ENTRIES)) return hf__client_no_entries(client, error);
    return HF_OK;
}

static void fill(hf_run *run, hf_client *client, const hf_once_options *o) {
    hf__lease *lease = &run->lease;
    char *p = (char *)(run + 1);
    memcpy(p, o->key.data, o->key.len);
    run->key = (hf_slice){p, o->key.len};
    p += o->key.len;
    if (o->fingerprint.len > 0) memcpy(p, o->fingerprint.data, o->fingerprint.len);
    run->fingerprint = (hf_slice){p, o->fingerprint.len};
    run->client = client;
    run->allocator = client->engine->allocator;
    run->refs = 1;
    run->fail_on_crash = o->fail_on_crash;
    run->ttl_ms = o->ttl_ms;
    run->lease_ms = o->lease_ms;
    run->wait_ns = hf__add_ms(hf__client_now(client), o->wait_ms);
    run->timer.fire = on_timer;
    run->watch = (hf__watch){.fire = on_hint, .key = run->key, .space = HF_RECORDS};
    hf__list_init(&run->watch.node);
    run->waiter.stop = stop_waiting;
    hf__list_init(&run->waiter.node);
    hf__list_init(&run->undo.node);
    hf_op_init(&run->op, HF_PUT, NULL, NULL);
    hf__lease_init(lease);
    lease->keys = &run->key;
    lease->n_keys = 1;
    lease->space = HF_RECORDS;
    lease->renew = true;
    lease->link = &client->link;
    lease->max_stall_ms = o->max_stall_ms;
    lease->hold_end_ns = HF_FOREVER;
    lease->owner = &lease_owner;
}

static void write_record(hf_run *run, bool is_error, hf_slice value) {
    hf__record record = {.is_error = is_error, .fingerprint = run->fingerprint, .value = value};
    hf__buffer_fini(&run->bytes);
    hf__buffer_init(&run->bytes, &run->allocator);
    hf__record_write(&run->bytes, &record);
}

hf_code hf_once_begin(hf_client *client, const hf_once_options *options,
                      void (*begun)(void *data, hf_run *run, const hf_once_result *result),
                      void (*lost)(void *data, hf_run *run, const hf_error *why), void *data,
                      hf_run **out, hf_error *error) {
    if (hf__client_accepts(client, error) != HF_OK ||
        check_options(client, options, error) != HF_OK ||
        hf__client_need_keeper(client, error) != HF_OK)
        return error->code;
    const hf_allocator *allocator = &client->engine->allocator;
    hf_run *run = hf__zalloc(allocator, sizeof(*run) + options->key.len + options->fingerprint.len);
    if (run == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    fill(run, client, options);
    hf__buffer_init(&run->bytes, &run->allocator);
    write_record(run, false, (hf_slice){NULL, 0});
    if (run->bytes.failed || !hf__engine_token(client->engine, &run->lease.token)) {
        bool failed = run->bytes.failed;
        run_free(run);
        return hf__error_set(error, failed ? HF_ENOMEM : HF_EIO, 0,
                             failed ? NULL : "the system has no randomness to give");
    }
    run->begun = begun;
    run->lost = lost;
    run->data = data;
    hf__list_push(&client->waiting, &run->waiter.node);
    hf__client_begin(client);
    *out = run;
    claim(run);
    return HF_OK;
}

static void on_cancelled(hf__timer *timer) {
    hf_error error;
    hf__error_set(&error, HF_ECANCELED, 0, NULL);
    fail(hf__of(timer, hf_run, timer), &error);
}

void hf_run_cancel(hf_run *run) {
    if (run->state != CLAIMING) return;
    run->cancelled = true;
    run->timer.fire = on_cancelled;
    hf__client_timer(run->client, &run->timer, 0);
}

bool hf_run_held(hf_run *run) {
    return (run->state == RUNNING || run->state == ENDING) && !run->let_go &&
           hf__lease_live(&run->lease, hf__client_now(run->client));
}

uint64_t hf_run_remaining_ms(hf_run *run) {
    if (!hf_run_held(run)) return 0;
    uint64_t now = hf__client_now(run->client);
    uint64_t deadline = atomic_load(&run->lease.deadline_ns);
    return deadline > now ? (deadline - now) / HF_NS_PER_MS : 0;
}

const hf_token *hf_run_token(const hf_run *run) {
    return &run->lease.token;
}

/* ---------------------------------------------------------------- finish and abandon */

static void on_ended(hf__request *request) {
    hf_run *run = request->data;
    hf_error error = run->op.error;
    bool final = error.code == HF_OK || run->freed || run->client->phase >= HF__FORCING;
    if (error.code == HF_OK && !run->op.applied && run->op.verb == HF_PUT)
        hf__error_set(&error, HF_ELOST, 0,
                      "the run of \"%.*s\" came too late to finish: its record has been taken over "
                      "or forgotten",
                      hf__shown(run->key), run->key.data);
    run->busy = false;
    hf_op_reset(&run->op);
    run->state = RUNNING;
    if (final) end_run(run);
    if (run->ended != NULL) run->ended(run->ended_data, run, error.code != HF_OK ? &error : NULL);
    run_unref(run);
}

static uint64_t retry_end(const hf_run *run) {
    return hf__add_ms(hf__client_now(run->client), HF__RETRY_MS);
}

hf_code hf_run_finish(hf_run *run, hf_slice value, uint8_t format, bool is_error,
                      void (*cb)(void *data, hf_run *run, const hf_error *error), void *data) {
    if (run->state != RUNNING) return HF_ELOST;
    if (value.len > HF_RECORD_MAX) return HF_ETOOBIG;
    write_record(run, is_error, value);
    if (run->bytes.failed) return HF_ENOMEM;
    run->state = ENDING;
    run->ended = cb;
    run->ended_data = data;
    start_op(run, HF_PUT);
    run->op.value = (hf_slice){run->bytes.data, run->bytes.len};
    run->op.format = format;
    run->op.ttl_ms = run->ttl_ms;
    send_op(run, HF__AGAIN_ALWAYS, retry_end(run), on_ended);
    return HF_OK;
}

hf_code hf_run_abandon(hf_run *run, void (*cb)(void *data, hf_run *run, const hf_error *error),
                       void *data) {
    if (run->state != RUNNING) return HF_ELOST;
    run->state = ENDING;
    run->ended = cb;
    run->ended_data = data;
    start_op(run, HF_DEL);
    send_op(run, HF__AGAIN_ALWAYS, retry_end(run), on_ended);
    return HF_OK;
}

void hf_run_free(hf_run *run) {
    run->freed = true;
    run->begun = NULL;
    run->lost = NULL;
    run->ended = NULL;
    if (run->state == CLAIMING) {
        hf_error error;
        hf__error_set(&error, HF_ECANCELED, 0, NULL);
        fail(run, &error);
    } else if (run->state == RUNNING) {
        run_ref(run); /* its end may be what closing waits for */
        end_run(run);
        run_unref(run);
    }
    run_free(run);
}
