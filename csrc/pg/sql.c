/*
 * The user's statements and transactions: what there is to do in the next turn, and the end.
 */
#include "pg/sql-parts.h"

#include <assert.h>

/* ---------------------------------------------------------------- the next turn */

static void settle(hf__sql *sql);

/* Only what there is now: who is told may ask for more, which is for the turn after. */
static void tell(hf__sql *sql) {
    hf__node batch;
    hf__node *node;

    hf__list_init(&batch);
    hf__list_append(&batch, &sql->news);
    while ((node = hf__list_pop(&batch)) != NULL) {
        hf__news *news = hf__of(node, hf__news, node);

        news->tell(news);
    }
}

static void on_idle(uv_idle_t *idle) {
    hf__sql *sql = hf__of(idle, hf__sql, idle);
    hf__scope *scope = sql->env.scope;

    uv_idle_stop(idle);
    hf__scope_enter(scope);
    tell(sql);
    hf__pool_pump(&sql->pool);
    settle(sql);
    hf__scope_leave(scope);
}

static void open_idle(hf__sql *sql) {
    if (sql->has_idle) return;
    sql->has_idle = true;
    uv_idle_init(sql->env.loop, &sql->idle);
    uv_unref((uv_handle_t *)&sql->idle);
}

void hf__sql_wake(hf__sql *sql) {
    if (sql->phase == HF__SQL_CLOSING) return;
    open_idle(sql);
    uv_idle_start(&sql->idle, on_idle); /* does nothing when it runs already */
}

void hf__sql_note(hf__sql *sql, hf__news *news) {
    if (hf__list_empty(&news->node)) hf__list_push(&sql->news, &news->node);
    hf__sql_wake(sql);
}

void hf__sql_timer(hf__sql *sql, hf__timer *timer, uint64_t ms) {
    hf__timer_start(&sql->engine->timers, timer, hf__add_ms(hf__now_ns(&sql->engine->clock), ms));
}

void hf__sql_timer_stop(hf__sql *sql, hf__timer *timer) {
    hf__timer_stop(&sql->engine->timers, timer);
}

hf_code hf__sql_accepts(const hf__sql *sql, hf_error *error) {
    if (sql->n_queries + sql->n_txs < HF__SQL_WAITING_MAX) return HF_OK;
    return hf__error_set(error, HF_EOVERLOAD, HF_RETRYABLE,
                         "%u statements and %u transactions of this client are under way; wait for "
                         "some of them first",
                         sql->n_queries, sql->n_txs);
}

/* ---------------------------------------------------------------- life */

static void on_idle_closed(uv_handle_t *handle) {
    hf__sql *sql = hf__of(handle, hf__sql, idle);
    hf_allocator allocator = *sql->env.allocator;
    void (*closed)(void *data) = sql->closed;
    void *data = sql->data;

    hf__pg_config_fini(&sql->config, &allocator);
    hf__free(&allocator, sql);
    closed(data);
}

static void on_pool_gone(hf__pool *pool) {
    hf__sql *sql = hf__of(pool, hf__sql, pool);

    assert(sql->n_queries == 0 && sql->n_txs == 0 && hf__list_empty(&sql->news));
    uv_close((uv_handle_t *)&sql->idle, on_idle_closed);
}

static void on_pool_wake(hf__pool *pool) {
    hf__sql_wake(hf__of(pool, hf__sql, pool));
}

hf_code hf__sql_new(hf_engine *engine, const hf__store_env *env, void (*closed)(void *data),
                    void *data, hf__sql **out, hf_error *error) {
    hf__sql *sql = hf__zalloc(env->allocator, sizeof *sql);

    if (sql == NULL) return hf__error_set(error, HF_ENOMEM, HF_RETRYABLE, NULL);
    sql->engine = engine;
    sql->env = *env;
    sql->closed = closed;
    sql->data = data;
    if (hf__pg_config_read(&sql->config, &sql->env, error) != HF_OK) {
        hf__free(env->allocator, sql);
        return error->code;
    }
    hf__list_init(&sql->queries);
    hf__list_init(&sql->txs);
    hf__list_init(&sql->news);
    sql->pool.wake = on_pool_wake;
    sql->pool.gone = on_pool_gone;
    hf__pool_init(&sql->pool, engine, &sql->env, &sql->config);
    *out = sql;
    return HF_OK;
}

static bool is_busy(const hf__sql *sql) {
    if (sql->n_queries > 0 || !hf__list_empty(&sql->news)) return true;
    for (const hf__node *node = sql->txs.next; node != &sql->txs; node = node->next) {
        if (hf__tx_is_busy(hf__of((hf__node *)(uintptr_t)node, hf_pg_tx, node))) return true;
    }
    return false;
}

/* What is left of transactions are handles of users who have not let go of them. */
static void settle(hf__sql *sql) {
    hf__node *node;

    if (sql->phase != HF__SQL_DRAINING || is_busy(sql)) return;
    sql->phase = HF__SQL_CLOSING;
    while ((node = hf__list_first(&sql->txs)) != NULL)
        hf__tx_orphan(hf__of(node, hf_pg_tx, node));
    hf__pool_close(&sql->pool);
}

void hf__sql_drain(hf__sql *sql) {
    assert(sql->phase == HF__SQL_OPEN);
    sql->phase = HF__SQL_DRAINING;
    hf__sql_wake(sql);
}

/* Whoever waits ends; what has a session ends with that, when the pool is closed. */
static void end_waiting(hf__sql *sql, const hf_error *error) {
    hf__node *next;

    for (hf__node *node = sql->queries.next; node != &sql->queries; node = next) {
        hf_pg_query *query = hf__of(node, hf_pg_query, node);

        next = node->next;
        query->cause = HF__CAUSE_CLOSED;
        if (query->state != HF__QUERY_WAITING) continue;
        hf__pool_leave(&sql->pool, &query->user);
        hf__query_end_later(query, error);
    }
    for (hf__node *node = sql->txs.next; node != &sql->txs; node = next) {
        next = node->next;
        hf__tx_fail(hf__of(node, hf_pg_tx, node), error);
    }
}

void hf__sql_force(hf__sql *sql) {
    hf_error error;

    if (sql->phase != HF__SQL_DRAINING) return;
    hf__error_set(&error, HF_ECLOSED, 0, NULL);
    end_waiting(sql, &error);
    hf__pool_force(&sql->pool, &error);
    hf__sql_wake(sql);
}
