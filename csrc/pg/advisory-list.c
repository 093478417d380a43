/*
 * Who holds advisory locks and who waits for them, as the server sees it: on a session of its own,
 * for a long list must not delay anybody's lock. It ends when nobody has asked for a while.
 */
#include "pg/advisory-parts.h"

#include <stdio.h>
#include <string.h>

#define LISTS_MAX 1000 /* that may be under way */
#define IDLE_MS 10000

typedef struct asked {
    hf__pg_call call;
    hf__advisory *advisory;
    bool sent;
    hf__node node;
    void (*cb)(void *data, const hf_pg_holder *holders, size_t n, const hf_error *error);
    void *data;
} asked;

struct hf__advisory_lister {
    hf__pg_session_env env;
    hf__pg_session *session; /* NULL: none; else ready, or on its way there */
    hf__node lists;          /* that have not been answered */
    uint32_t n_lists;
    hf__timer timer;
};

/* ---------------------------------------------------------------- answers */

static void answer(asked *list, const hf_pg_holder *holders, size_t n, const hf_error *error) {
    hf__advisory *a = list->advisory;

    hf__list_remove(&list->node);
    a->lister->n_lists--;
    a->n_open--;
    list->cb(list->data, holders, n, error);
    hf__free(a->env.allocator, list);
    hf__engine_unref(a->engine);
}

static void answer_all(hf__advisory *a, const hf_error *error) {
    hf__node batch;
    hf__node *node;

    /* Only those that are here now: a callback may ask again. */
    hf__list_init(&batch);
    hf__list_append(&batch, &a->lister->lists);
    while ((node = hf__list_first(&batch)) != NULL)
        answer(hf__of(node, asked, node), NULL, 0, error);
}

/* Of an int or boolean, in binary. */
static int64_t number_at(const PGresult *result, int row, int column) {
    const unsigned char *at = (const unsigned char *)PQgetvalue(result, row, column);
    int len = PQgetlength(result, row, column);
    uint64_t value = 0;

    for (int i = 0; i < len && i < 8; i++)
        value = value << 8 | at[i];
    return (int64_t)value;
}

static uint64_t age_at(const PGresult *result, int row, int column) {
    int64_t value = number_at(result, row, column);

    return value < 0 ? HF_FOREVER : (uint64_t)value;
}

static void read_holder(const hf__advisory *a, const PGresult *result, int row,
                        hf_pg_holder *holder) {
    uint64_t high = (uint64_t)number_at(result, row, 1);
    uint64_t low = (uint64_t)number_at(result, row, 2);

    holder->id = (hf_pg_id){.pair = number_at(result, row, 0) != 0};
    if (holder->id.pair) {
        holder->id.first = (int32_t)(uint32_t)high;
        holder->id.second = (int32_t)(uint32_t)low;
    } else {
        holder->id.number = (int64_t)(high << 32 | low);
    }
    holder->shared = number_at(result, row, 3) != 0;
    holder->granted = number_at(result, row, 4) != 0;
    holder->pid = (int32_t)number_at(result, row, 5);
    holder->query_ms = age_at(result, row, 6);
    holder->waiting_ms = age_at(result, row, 7);
    snprintf(holder->application, sizeof holder->application, "%s", PQgetvalue(result, row, 8));
    holder->here = (a->anchor.session != NULL && a->anchor.session->server.pid == holder->pid) ||
                   hf__own_is_pid(a, holder->pid);
}

static void answer_rows(asked *list, const PGresult *result) {
    const hf_allocator allocator = *list->advisory->env.allocator;
    size_t n = (size_t)PQntuples(result);
    hf_pg_holder *holders = hf__zalloc(&allocator, (n + 1) * sizeof *holders);
    hf_error error;

    if (holders == NULL) {
        hf__error_set(&error, HF_ENOMEM, HF_RETRYABLE, NULL);
        answer(list, NULL, 0, &error);
        return;
    }
    for (size_t i = 0; i < n; i++)
        read_holder(list->advisory, result, (int)i, &holders[i]);
    answer(list, holders, n, NULL);
    hf__free(&allocator, holders);
}

static void rest(hf__advisory *a) {
    if (a->lister->session != NULL && a->lister->n_lists == 0)
        hf__advisory_timer(a, &a->lister->timer, hf__add_ms(hf__advisory_now(a), IDLE_MS));
}

static void on_done(hf__pg_call *call, const PGresult *result, const hf_error *error) {
    asked *list = call->data;
    hf__advisory *a = list->advisory;
    hf_error why;

    if (error != NULL) {
        why = *error;
        why.flags &= ~HF_OUTCOME_UNKNOWN; /* reading leaves nothing in doubt */
        answer(list, NULL, 0, &why);
    } else if (PQnfields(result) != 9) {
        hf__error_set(&why, HF_EPROTO, 0, "PostgreSQL gave no sensible list of advisory locks");
        answer(list, NULL, 0, &why);
    } else {
        answer_rows(list, result);
    }
    rest(a);
    hf__advisory_tell(a);
}

/* ---------------------------------------------------------------- the session */

static void send_all(hf__advisory *a) {
    hf__advisory_lister *l = a->lister;
    hf__node batch;
    hf__node *node;
    hf_error error;

    hf__list_init(&batch);
    hf__list_append(&batch, &l->lists);
    while ((node = hf__list_pop(&batch)) != NULL) {
        asked *list = hf__of(node, asked, node);
        bool can = !list->sent && l->session != NULL && l->session->state == HF__PG_READY;

        hf__list_push(&l->lists, node);
        if (!can) continue;
        list->sent = true;
        list->call = (hf__pg_call){
            .statement = &hf__advisory_holders, .result_format = 1, .done = on_done, .data = list};
        hf__pg_session_send(l->session, &list->call);
    }
    if (l->session != NULL) return;
    hf__error_set(&error, HF_EUNAVAIL, HF_RETRYABLE, NULL);
    answer_all(a, &error); /* it broke before it was the turn of these */
}

static void on_timer(hf__timer *timer) {
    hf__advisory_lister *l = hf__of(timer, hf__advisory_lister, timer);
    hf__pg_session *session = l->session;

    if (session == NULL) return;
    if (l->n_lists > 0) {
        if (session->state == HF__PG_READY) send_all(session->data);
        return;
    }
    l->session = NULL;
    hf__pg_session_close(session);
}

static void on_ready(hf__pg_session *session) {
    hf__advisory *a = session->data;

    send_all(a);
    if (a->lister->session == session) rest(a);
}

static void on_down(hf__pg_session *session, const hf_error *error) {
    hf__advisory *a = session->data;

    a->lister->session = NULL;
    hf__advisory_timer_stop(a, &a->lister->timer);
    answer_all(a, error);
    hf__advisory_tell(a);
}

static void on_gone(void *data) {
    hf__advisory_let_go(data);
}

/* ---------------------------------------------------------------- in and out */

static hf__advisory_lister *lister_of(hf__advisory *a) {
    hf__advisory_lister *l = a->lister;

    if (l != NULL) return l;
    l = hf__zalloc(a->env.allocator, sizeof *l);
    if (l == NULL) return NULL;
    hf__list_init(&l->lists);
    l->timer.fire = on_timer;
    l->env = (hf__pg_session_env){.store = &a->env,
                                  .config = &a->config,
                                  .statement_ms = a->config.command_ms,
                                  .refused_password = &a->refused_password,
                                  .events = {.ready = on_ready, .down = on_down, .gone = on_gone}};
    a->lister = l;
    return l;
}

hf_code hf__advisory_list(hf__advisory *a,
                          void (*cb)(void *data, const hf_pg_holder *holders, size_t n,
                                     const hf_error *error),
                          void *data, hf_error *error) {
    hf__advisory_lister *l = lister_of(a);
    asked *list = l != NULL ? hf__zalloc(a->env.allocator, sizeof *list) : NULL;

    if (list == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    if (l->n_lists < LISTS_MAX && l->session == NULL) {
        l->session = hf__pg_session_new(&l->env, a);
        if (l->session != NULL) a->n_handles++;
    }
    if (l->n_lists >= LISTS_MAX || l->session == NULL) {
        hf__free(a->env.allocator, list);
        if (l->session == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
        return hf__error_set(error, HF_EOVERLOAD, HF_RETRYABLE,
                             "%d lists of advisory locks are under way; wait for some of them",
                             LISTS_MAX);
    }
    *list = (asked){.advisory = a, .cb = cb, .data = data};
    hf__list_push(&l->lists, &list->node);
    l->n_lists++;
    a->n_open++;
    hf__engine_ref(a->engine);
    /* In the next turn: its call may end at once. */
    hf__advisory_timer(a, &l->timer, 0);
    return HF_OK;
}

void hf__advisory_list_close(hf__advisory *a) {
    hf__advisory_lister *l = a->lister;
    hf_error error;

    if (l == NULL) return;
    hf__advisory_timer_stop(a, &l->timer);
    if (l->session != NULL) {
        hf__error_set(&error, HF_ECLOSED, 0, NULL);
        hf__pg_session_fail(l->session, &error); /* ends the lists */
    }
}
