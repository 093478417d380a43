/* The user's own statements and transactions on a real PostgreSQL server: what they come to, the
 * pool that they run on, giving up, breaking off in every phase, and that nothing is left behind. */
#include "support-host.h"
#include "support-postgres.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- what comes of a statement */

typedef struct reply {
    hf_pg_query *query;
    int answered;
    hf_code code;
    hf_error error;
    bool refused; /* the server said more */
    char detail[128], hint[128], schema[64], table[64], column[64], constraint[64], severity[16];
    char where[128];
    int position;
    char rows[512]; /* "1 a|2 NULL" */
    char fields[256];
    char command[32];
    size_t n_rows;
    int64_t affected;
    int order;
    struct reply *cancels; /* another, when this is told */
    hf_pg_tx *frees;       /* likewise */
} reply;

static int replies;

static void keep(char *to, size_t size, hf_slice text) {
    snprintf(to, size, "%.*s", (int)text.len, text.data == NULL ? "" : text.data);
}

static void add(char *to, size_t size, const char *text) {
    size_t len = strlen(to);
    snprintf(to + len, size - len, "%s", text);
}

static void keep_rows(reply *r, const hf_pg_rows *rows) {
    char value[128];
    keep(r->command, sizeof r->command, rows->command);
    r->affected = rows->affected;
    r->n_rows = rows->n_rows;
    for (size_t f = 0; f < rows->n_fields; f++) {
        snprintf(value, sizeof value, "%s%.*s:%u", f > 0 ? " " : "", (int)rows->fields[f].name.len,
                 rows->fields[f].name.data, rows->fields[f].type);
        add(r->fields, sizeof r->fields, value);
    }
    for (size_t i = 0; i < rows->n_rows && i < 20; i++) {
        if (i > 0) add(r->rows, sizeof r->rows, "|");
        for (size_t f = 0; f < rows->n_fields; f++) {
            hf_slice text = hf_pg_rows_value(rows, i, f);
            keep(value, sizeof value, text);
            if (f > 0) add(r->rows, sizeof r->rows, " ");
            add(r->rows, sizeof r->rows, text.data == NULL ? "NULL" : value);
        }
    }
}

static void keep_failure(reply *r, const hf_pg_failure *failure) {
    r->refused = true;
    keep(r->detail, sizeof r->detail, failure->detail);
    keep(r->hint, sizeof r->hint, failure->hint);
    keep(r->schema, sizeof r->schema, failure->schema);
    keep(r->table, sizeof r->table, failure->table);
    keep(r->column, sizeof r->column, failure->column);
    keep(r->constraint, sizeof r->constraint, failure->constraint);
    keep(r->severity, sizeof r->severity, failure->severity);
    keep(r->where, sizeof r->where, failure->where);
    CHECK(failure->routine.len > 0);
    r->position = failure->position;
}

static void on_reply(void *data, hf_pg_query *query, const hf_pg_rows *rows, const hf_error *error,
                     const hf_pg_failure *failure) {
    reply *r = data;
    CHECK(r->query == query);
    CHECK((rows == NULL) == (error != NULL));
    r->answered++;
    r->order = ++replies;
    if (error != NULL) r->error = *error;
    r->code = r->error.code;
    if (rows != NULL) keep_rows(r, rows);
    if (failure != NULL) keep_failure(r, failure);
    if (r->cancels != NULL) hf_pg_query_cancel(r->cancels->query);
    if (r->frees != NULL) hf_pg_tx_free(r->frees);
}

static hf_pg_statement statement(const char *sql) {
    return (hf_pg_statement){.sql = slice(sql)};
}

static void ask_with(host *h, hf_pg_tx *tx, reply *r, const hf_pg_statement *s) {
    hf_error error = {.code = HF_OK};
    hf_code code;
    memset(r, 0, sizeof *r);
    code = tx != NULL ? hf_pg_tx_run(tx, s, on_reply, r, &r->query, &error)
                      : hf_pg_query_run(h->client, s, on_reply, r, &r->query, &error);
    if (code != HF_OK) FAIL("%s: %s", hf_code_name(code), error.message);
    CHECK_INT(r->answered, 0);
}

static void ask(host *h, reply *r, const char *sql) {
    hf_pg_statement s = statement(sql);
    ask_with(h, NULL, r, &s);
}

static void ask_in(host *h, hf_pg_tx *tx, reply *r, const char *sql) {
    hf_pg_statement s = statement(sql);
    ask_with(h, tx, r, &s);
}

/* Waits, and lets go of the handle. */
static void answer(host *h, reply *r, hf_code code) {
    host_until(h, &r->answered, 1);
    CHECK_INT(r->code, code);
    if (r->code != code) printf("        %s: %s\n", r->error.state, r->error.message);
    hf_pg_query_free(r->query);
    CHECK_INT(r->answered, 1);
}

static void run(host *h, reply *r, const char *sql) {
    ask(h, r, sql);
    answer(h, r, HF_OK);
}

static void run_in(host *h, hf_pg_tx *tx, reply *r, const char *sql) {
    ask_in(h, tx, r, sql);
    answer(h, r, HF_OK);
}

/* One row of one value. */
static void check_value(host *h, const char *sql, const char *value) {
    reply r;
    run(h, &r, sql);
    CHECK_STR(r.rows, value);
}

/* ---------------------------------------------------------------- and of a transaction */

typedef struct transaction {
    hf_pg_tx *tx;
    int begun;
    hf_code begin_code;
    int ended;
    hf_code code;
    hf_error error;
    char constraint[64];
    int order;
} transaction;

static void on_begun(void *data, hf_pg_tx *tx, const hf_error *error) {
    transaction *t = data;
    CHECK(t->tx == tx);
    t->begun++;
    t->order = ++replies;
    t->begin_code = error == NULL ? HF_OK : error->code;
    if (error != NULL) t->error = *error;
}

static void on_ended(void *data, hf_pg_tx *tx, const hf_error *error,
                     const hf_pg_failure *failure) {
    transaction *t = data;
    CHECK(t->tx == tx);
    t->ended++;
    t->order = ++replies;
    t->code = error == NULL ? HF_OK : error->code;
    if (error != NULL) t->error = *error;
    if (failure != NULL) keep(t->constraint, sizeof t->constraint, failure->constraint);
}

static void begin_with(host *h, transaction *t, const hf_pg_tx_options *options) {
    hf_error error;
    memset(t, 0, sizeof *t);
    CHECK_INT(hf_pg_tx_begin(h->client, options, on_begun, t, &t->tx, &error), HF_OK);
    CHECK_INT(t->begun, 0);
}

static void begin(host *h, transaction *t) {
    begin_with(h, t, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    host_until(h, &t->begun, 1);
    CHECK_INT(t->begin_code, HF_OK);
}

static void ask_end(transaction *t, bool commit) {
    CHECK_INT(hf_pg_tx_end(t->tx, commit, on_ended, t), HF_OK);
    CHECK_INT(t->ended, 0);
}

static void end(host *h, transaction *t, bool commit, hf_code code) {
    if (t->ended == 0 && commit) CHECK_INT(hf_pg_tx_end(t->tx, true, on_ended, t), HF_OK);
    if (t->ended == 0 && !commit) CHECK_INT(hf_pg_tx_end(t->tx, false, on_ended, t), HF_OK);
    host_until(h, &t->ended, 1);
    CHECK_INT(t->code, code);
    if (t->code != code) printf("        %s: %s\n", t->error.state, t->error.message);
    hf_pg_tx_free(t->tx);
}

/* ---------------------------------------------------------------- the server's view */

static int sessions(const char *what) {
    char sql[256];
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holdfast' AND %s",
             what);
    return atoi(postgres_do(sql));
}

static void until_sessions(host *h, const char *what, int n) {
    int now = sessions(what);
    for (int i = 0; i < 3000 && now != n; i++) {
        host_run_ms(h, 5);
        now = sessions(what);
    }
    CHECK_INT(now, n);
}

/* Without the loop's turning. */
static void until_sessions_blocked(const char *what, int n) {
    for (int i = 0; i < 2000 && sessions(what) != n; i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    CHECK_INT(sessions(what), n);
}

#define SLEEPS "state = 'active' AND query LIKE '%pg_sleep%'"

static void terminate(const char *what) {
    char sql[256];
    snprintf(sql, sizeof sql,
             "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
             "application_name = 'holdfast' AND %s",
             what);
    CHECK(atoi(postgres_do(sql)) > 0);
}

static void open_with(host *h, const char *settings, const hf_engine_options *options) {
    char url[512];
    postgres_fresh(url, sizeof url);
    add(url, sizeof url, settings);
    if (options != NULL)
        host_open_with(h, url, options);
    else
        host_open(h, url);
}

static void open_client(host *h) {
    open_with(h, "", NULL);
}

static void close_client(host *h) {
    host_close(h);
    until_sessions_blocked("true", 0);
}

static void fresh_table(const char *columns) {
    char sql[256];
    (void)postgres_do("DROP TABLE IF EXISTS things");
    snprintf(sql, sizeof sql, "CREATE TABLE things (%s)", columns);
    (void)postgres_do(sql);
}

/* ---------------------------------------------------------------- statements */

TEST(rows_and_nulls) {
    host h;
    reply r;
    open_client(&h);
    run(&h, &r, "SELECT 1 AS one, NULL::text AS none, '' AS empty UNION ALL SELECT 2, 'b', 'c'");
    CHECK_STR(r.rows, "1 NULL |2 b c");
    CHECK_STR(r.fields, "one:23 none:25 empty:25");
    CHECK_STR(r.command, "SELECT");
    CHECK_INT(r.affected, 2);
    run(&h, &r, "SELECT WHERE false");
    CHECK_INT(r.n_rows, 0);
    CHECK_INT(r.affected, 0);
    run(&h, &r, "");
    CHECK_STR(r.command, "");
    CHECK_INT(r.affected, -1);
    close_client(&h);
}

TEST(commands_and_counts) {
    host h;
    reply r;
    open_client(&h);
    fresh_table("id int PRIMARY KEY, v text");
    run(&h, &r, "INSERT INTO things SELECT n FROM generate_series(1, 5) AS n");
    CHECK_STR(r.command, "INSERT");
    CHECK_INT(r.affected, 5);
    run(&h, &r, "UPDATE things SET v = 'x' WHERE id > 3 RETURNING id, v");
    CHECK_STR(r.command, "UPDATE");
    CHECK_INT(r.affected, 2);
    CHECK_STR(r.rows, "4 x|5 x");
    run(&h, &r, "DELETE FROM things WHERE id = 9");
    CHECK_STR(r.command, "DELETE");
    CHECK_INT(r.affected, 0);
    run(&h, &r, "CREATE TABLE IF NOT EXISTS things ()");
    CHECK_STR(r.command, "CREATE TABLE");
    CHECK_INT(r.affected, -1);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "5");
    close_client(&h);
}

TEST(parameters_are_text_or_bytes) {
    host h;
    reply r;
    static const hf_pg_param params[] = {{.value = {"7", 1}},
                                         {.value = {NULL, 0}},
                                         {.value = {"", 0}},
                                         {.value = {"a\0\xff", 3}, .binary = true},
                                         {.value = {"", 0}, .binary = true}};
    hf_pg_statement s = {
        .sql = slice("SELECT $1::int + 1, $2::text, $3::text, encode($4::bytea, 'hex'), "
                     "length($5::bytea)"),
        .params = params,
        .n_params = 5};
    open_client(&h);
    ask_with(&h, NULL, &r, &s);
    answer(&h, &r, HF_OK);
    CHECK_STR(r.rows, "8 NULL  6100ff 0");
    close_client(&h);
}

TEST(what_cannot_be_sent_is_refused) {
    host h;
    hf_error error;
    hf_pg_query *query;
    static hf_pg_param many[HF_PG_PARAMS_MAX + 1];
    hf_pg_param nul = {.value = {"a\0b", 3}};
    hf_pg_statement s = {.sql = {"SELECT 1\0", 9}};
    open_client(&h);
    CHECK_INT(hf_pg_query_run(h.client, &s, on_reply, NULL, &query, &error), HF_EINVAL);
    CHECK_STR(error.message, "the statement has a NUL in it, which PostgreSQL's texts cannot have");
    s = (hf_pg_statement){.sql = slice("SELECT $1::text"), .params = &nul, .n_params = 1};
    CHECK_INT(hf_pg_query_run(h.client, &s, on_reply, NULL, &query, &error), HF_EINVAL);
    CHECK_STR(error.message, "parameter $1 has a NUL in it, which PostgreSQL's texts cannot have");
    s.params = many;
    s.n_params = HF_PG_PARAMS_MAX + 1;
    CHECK_INT(hf_pg_query_run(h.client, &s, on_reply, NULL, &query, &error), HF_EINVAL);
    close_client(&h);
    host_open(&h, "memory:");
    s = statement("SELECT 1");
    CHECK_INT(hf_pg_query_run(h.client, &s, on_reply, NULL, &query, &error), HF_ENOTSUP);
    host_close(&h);
}

TEST(errors_tell_what_the_server_said) {
    host h;
    reply r;
    open_client(&h);
    fresh_table("id int CONSTRAINT things_pk PRIMARY KEY, v text NOT NULL");
    run(&h, &r, "INSERT INTO things VALUES (1, 'a')");
    ask(&h, &r, "INSERT INTO things VALUES (1, 'b')");
    answer(&h, &r, HF_ESQL);
    CHECK(r.refused);
    CHECK_STR(r.error.state, "23505");
    CHECK_STR(r.error.message, "duplicate key value violates unique constraint \"things_pk\"");
    CHECK_INT(r.error.flags, 0);
    CHECK_STR(r.detail, "Key (id)=(1) already exists.");
    CHECK_STR(r.constraint, "things_pk");
    CHECK_STR(r.table, "things");
    CHECK_STR(r.schema, "public");
    CHECK_STR(r.severity, "ERROR");
    ask(&h, &r, "INSERT INTO things VALUES (2, NULL)");
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.error.state, "23502");
    CHECK_STR(r.column, "v");
    ask(&h, &r, "SELECT 1 FROM nowhere");
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.error.state, "42P01");
    CHECK_INT(r.position, 15);
    ask(&h, &r, "DO $$ BEGIN RAISE 'no' USING HINT = 'try', ERRCODE = '55P03'; END $$");
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.hint, "try");
    CHECK(strstr(r.where, "PL/pgSQL") != NULL);
    CHECK_INT(r.error.flags, HF_RETRYABLE);
    ask(&h, &r, "SELECT 1; SELECT 2");
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.error.state, "42601");
    CHECK_INT(sessions("true"), 1);
    close_client(&h);
}

TEST(a_transaction_begun_by_a_statement_is_undone) {
    static const char *const words[] = {"BEGIN", "START TRANSACTION READ ONLY", "/* x */ begin"};
    host h;
    reply r;
    open_with(&h, "&max=1", NULL);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        ask(&h, &r, words[i]);
        answer(&h, &r, HF_EINVAL);
        CHECK_INT(sessions("state LIKE 'idle in transaction%'"), 0);
    }
    run(&h, &r, "COMMIT"); /* a warning, no more */
    CHECK_INT(sessions("true"), 1);
    close_client(&h);
}

TEST(copy_does_not_hang) {
    host h;
    reply r, s;
    transaction t;
    open_with(&h, "&max=1", NULL);
    fresh_table("id int");
    ask(&h, &r, "COPY things FROM STDIN");
    ask(&h, &s, "SELECT 1");
    answer(&h, &r, HF_ENOTSUP);
    CHECK_INT(r.error.flags, 0);
    answer(&h, &s, HF_OK);
    ask(&h, &r, "COPY things TO STDOUT");
    answer(&h, &r, HF_ENOTSUP);
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    ask_in(&h, t.tx, &r, "COPY things TO STDOUT");
    ask_in(&h, t.tx, &s, "SELECT 1");
    answer(&h, &r, HF_ENOTSUP);
    answer(&h, &s, HF_ENOTSUP);
    end(&h, &t, true, HF_ENOTSUP);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    close_client(&h);
}

TEST(a_large_result_and_a_large_parameter) {
    enum { SIZE = 8 << 20 };
    host h;
    reply r;
    char *text = malloc(SIZE);
    hf_pg_param param = {.value = {text, SIZE}};
    hf_pg_statement s = {.sql = slice("SELECT length($1), $1"), .params = &param, .n_params = 1};
    open_client(&h);
    run(&h, &r, "SELECT n, repeat('x', 100) FROM generate_series(1, 100000) AS n");
    CHECK_INT(r.n_rows, 100000);
    REQUIRE(text != NULL);
    memset(text, 'y', SIZE);
    ask_with(&h, NULL, &r, &s);
    free(text);
    answer(&h, &r, HF_OK);
    CHECK(strncmp(r.rows, "8388608 yyy", 11) == 0);
    close_client(&h);
}

/* ---------------------------------------------------------------- the pool */

TEST(callers_take_turns_on_two_sessions) {
    enum { N = 10 };
    host h;
    reply r[N], extra;
    open_with(&h, "&max=2", NULL);
    for (int i = 0; i < N; i++)
        ask(&h, &r[i], "SELECT pg_sleep(0.02)");
    for (int i = 0; i < N; i++) {
        host_until(&h, &r[i].answered, 1);
        CHECK(sessions("true") <= 2);
        /* Two are at work at a time, so neighbours may change places. */
        if (i >= 2) CHECK(r[i].order > r[i - 2].order);
        answer(&h, &r[i], HF_OK);
    }
    run(&h, &extra, "SELECT 1");
    CHECK_INT(sessions("true"), 2);
    close_client(&h);
}

TEST(one_session_keeps_the_order) {
    enum { N = 50 };
    host h;
    reply r[N];
    open_with(&h, "&max=1", NULL);
    for (int i = 0; i < N; i++)
        ask(&h, &r[i], "SELECT 1");
    for (int i = 0; i < N; i++) {
        answer(&h, &r[i], HF_OK);
        if (i > 0) CHECK_INT(r[i].order, r[i - 1].order + 1);
    }
    CHECK_INT(sessions("true"), 1);
    close_client(&h);
}

TEST(sessions_are_made_as_they_are_needed) {
    host h;
    reply r[4];
    open_client(&h);
    for (int i = 0; i < 20; i++)
        run(&h, &r[0], "SELECT 1");
    CHECK_INT(sessions("true"), 1);
    for (int i = 0; i < 4; i++)
        ask(&h, &r[i], "SELECT pg_sleep(0.2)");
    until_sessions(&h, SLEEPS, 4);
    for (int i = 0; i < 4; i++)
        answer(&h, &r[i], HF_OK);
    CHECK_INT(sessions("true"), 4);
    close_client(&h);
}

TEST(idle_sessions_are_closed) {
    host h;
    reply r[3];
    open_with(&h, "&idleTimeout=50", NULL);
    for (int i = 0; i < 3; i++)
        ask(&h, &r[i], "SELECT pg_sleep(0.05)");
    for (int i = 0; i < 3; i++)
        answer(&h, &r[i], HF_OK);
    until_sessions(&h, "true", 0);
    run(&h, &r[0], "SELECT 1");
    close_client(&h);
}

TEST(settings_of_the_pool_have_bounds) {
    static const char *const bad[] = {"max=0", "max=1001", "max=x", "idleTimeout=9",
                                      "idleTimeout=3600001"};
    host h;
    hf_error error;
    hf_client *client;
    char url[512];
    host_open(&h, "memory:");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(url, sizeof url, "postgres://host/db?%s", bad[i]);
        CHECK_INT(hf_client_open(h.engine, slice(url), NULL, &client, &error), HF_EINVAL);
        CHECK(strncmp(error.message, bad[i], strcspn(bad[i], "=")) == 0);
    }
    CHECK_STR(error.message, "idleTimeout is a number from 10 to 3600000");
    host_close(&h);
}

TEST(what_the_role_has_set_stays) {
    host h;
    (void)postgres_do("ALTER ROLE postgres SET lock_timeout = '4321ms'");
    (void)postgres_do("ALTER ROLE postgres SET default_transaction_isolation = 'repeatable read'");
    open_client(&h);
    check_value(&h, "SHOW lock_timeout", "4321ms");
    check_value(&h, "SHOW transaction_isolation", "repeatable read");
    check_value(&h, "SHOW client_connection_check_interval", "2s");
    (void)postgres_do("ALTER ROLE postgres RESET ALL");
    close_client(&h);
}

/* ---------------------------------------------------------------- giving up */

TEST(one_that_waits_is_cancelled_at_once) {
    host h;
    reply a, b, c;
    open_with(&h, "&max=1", NULL);
    ask(&h, &a, "SELECT pg_sleep(0.2)");
    ask(&h, &b, "SELECT 2");
    ask(&h, &c, "SELECT 3");
    until_sessions(&h, SLEEPS, 1);
    hf_pg_query_cancel(b.query);
    CHECK_INT(b.answered, 0);
    answer(&h, &b, HF_ECANCELED);
    CHECK_INT(b.error.flags, 0);
    CHECK_INT(a.answered, 0);
    answer(&h, &a, HF_OK);
    answer(&h, &c, HF_OK);
    close_client(&h);
}

TEST(one_that_runs_is_cancelled_at_the_server) {
    host h;
    reply a, b;
    uint64_t began;
    open_with(&h, "&max=1", NULL);
    ask(&h, &a, "SELECT pg_sleep(20)");
    ask(&h, &b, "SELECT 2");
    until_sessions(&h, SLEEPS, 1);
    began = uv_hrtime();
    hf_pg_query_cancel(a.query);
    hf_pg_query_cancel(a.query);
    answer(&h, &a, HF_ECANCELED);
    CHECK_INT(a.error.flags, 0);
    CHECK((uv_hrtime() - began) / 1000000 < 15000);
    until_sessions(&h, SLEEPS, 0);
    answer(&h, &b, HF_OK); /* on another session */
    close_client(&h);
}

TEST(a_cancel_never_hits_the_next_statement) {
    enum { N = 60 };
    host h;
    reply a, b;
    int n_cancelled = 0;
    open_with(&h, "&max=1", NULL);
    for (int i = 0; i < N; i++) {
        ask(&h, &a, "SELECT pg_sleep(0.02)");
        ask(&h, &b, "SELECT pg_sleep(0.01)");
        host_run_ms(&h, (uint64_t)i % 15);
        hf_pg_query_cancel(a.query);
        host_until(&h, &a.answered, 1);
        CHECK(a.code == HF_OK || a.code == HF_ECANCELED);
        if (a.code == HF_ECANCELED) n_cancelled++;
        hf_pg_query_free(a.query);
        answer(&h, &b, HF_OK);
    }
    printf("        %d of %d were cancelled\n", n_cancelled, N);
    close_client(&h);
}

TEST(statements_have_their_time) {
    host h;
    reply a, b, c;
    hf_pg_statement s = statement("SELECT pg_sleep(20)");
    s.timeout_ms = 50;
    open_with(&h, "&max=1", NULL);
    fresh_table("id int");
    ask_with(&h, NULL, &a, &s);
    answer(&h, &a, HF_ETIMEDOUT);
    CHECK_INT(a.error.flags, HF_RETRYABLE);
    CHECK_STR(a.error.message, "the statement was not done within its 50 ms");
    s = statement("SELECT 1");
    s.timeout_ms = 50;
    ask(&h, &b, "SELECT pg_sleep(0.3)");
    ask_with(&h, NULL, &a, &s);
    s.timeout_ms = 20000;
    ask_with(&h, NULL, &c, &s);
    answer(&h, &a, HF_ETIMEDOUT);
    CHECK_INT(b.answered, 0);
    answer(&h, &b, HF_OK);
    answer(&h, &c, HF_OK);
    s = statement("INSERT INTO things SELECT 1 FROM pg_sleep(20)");
    s.timeout_ms = 50;
    ask_with(&h, NULL, &a, &s);
    answer(&h, &a, HF_ETIMEDOUT);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    close_client(&h);
}

TEST(a_server_that_does_not_answer_a_cancel_loses_the_session) {
    host h;
    reply a, b;
    pid_t pid;
    open_with(&h, "&max=1", NULL);
    ask(&h, &a, "SELECT pg_sleep(20)");
    ask(&h, &b, "SELECT 2");
    until_sessions(&h, SLEEPS, 1);
    pid = (pid_t)atoi(postgres_do("SELECT pid FROM pg_stat_activity WHERE application_name = "
                                  "'holdfast' AND " SLEEPS));
    REQUIRE(pid > 1);
    CHECK_INT(kill(pid, SIGSTOP), 0);
    hf_pg_query_cancel(a.query);
    answer(&h, &a, HF_ECANCELED);
    CHECK_INT(a.error.flags, HF_OUTCOME_UNKNOWN);
    answer(&h, &b, HF_OK);
    CHECK_INT(kill(pid, SIGCONT), 0);
    close_client(&h);
}

TEST(freed_handles_are_told_nothing) {
    host h;
    reply a, b, c;
    open_with(&h, "&max=1", NULL);
    ask(&h, &a, "SELECT pg_sleep(20)");
    ask(&h, &b, "SELECT 2");
    until_sessions(&h, SLEEPS, 1);
    hf_pg_query_free(b.query);
    hf_pg_query_free(a.query);
    run(&h, &c, "SELECT 3");
    CHECK_INT(a.answered + b.answered, 0);
    until_sessions(&h, SLEEPS, 0);
    close_client(&h);
}

TEST(the_servers_own_time_limit_is_its_refusal) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    begin(&h, &t);
    run_in(&h, t.tx, &r, "SET LOCAL statement_timeout = 20");
    ask_in(&h, t.tx, &r, "SELECT pg_sleep(20)");
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.error.state, "57014");
    end(&h, &t, false, HF_OK);
    CHECK_INT(sessions("true"), 1);
    close_client(&h);
}

/* ---------------------------------------------------------------- transactions */

TEST(a_transaction_commits_or_rolls_back) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (2)");
    end(&h, &t, true, HF_OK);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "2");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "DELETE FROM things");
    end(&h, &t, false, HF_OK);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "2");
    begin(&h, &t); /* one without statements costs nothing */
    end(&h, &t, true, HF_OK);
    CHECK_INT(sessions("true"), 1);
    CHECK_INT(sessions("state = 'idle'"), 1);
    close_client(&h);
}

TEST(statements_of_a_transaction_are_pipelined_in_order) {
    enum { N = 300 };
    static reply r[N];
    host h;
    transaction t;
    open_client(&h);
    fresh_table("id serial, n int");
    begin(&h, &t);
    for (int i = 0; i < N; i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "INSERT INTO things (n) VALUES (%d)", i);
        ask_in(&h, t.tx, &r[i], sql);
    }
    ask_end(&t, true);
    host_until(&h, &t.ended, 1);
    CHECK_INT(t.code, HF_OK);
    for (int i = 0; i < N; i++) {
        CHECK_INT(r[i].answered, 1);
        if (i > 0) CHECK(r[i].order == r[i - 1].order + 1);
        answer(&h, &r[i], HF_OK);
    }
    hf_pg_tx_free(t.tx);
    CHECK_STR(postgres_do("SELECT count(*) FROM things WHERE n = id - 1"), "300");
    close_client(&h);
}

TEST(two_statements_at_once_in_one_transaction) {
    host h;
    reply a, b;
    transaction t;
    open_client(&h);
    fresh_table("id int");
    begin(&h, &t);
    ask_in(&h, t.tx, &a, "INSERT INTO things VALUES (1)");
    ask_in(&h, t.tx, &b, "SELECT count(*) FROM things");
    answer(&h, &a, HF_OK);
    answer(&h, &b, HF_OK);
    CHECK_STR(b.rows, "1");
    end(&h, &t, true, HF_OK);
    close_client(&h);
}

TEST(isolation_and_read_only) {
    static const char *const names[] = {"read committed", "read committed", "repeatable read",
                                        "serializable"};
    host h;
    reply r;
    transaction t;
    open_client(&h);
    fresh_table("id int");
    for (int i = HF_PG_DEFAULT; i <= HF_PG_SERIALIZABLE; i++) {
        hf_pg_tx_options o = {
            .isolation = (hf_pg_isolation)i, .read_only = i % 2 == 1, .timeout_ms = HF_FOREVER};
        begin_with(&h, &t, &o);
        host_until(&h, &t.begun, 1);
        run_in(&h, t.tx, &r, "SHOW transaction_isolation");
        CHECK_STR(r.rows, names[i]);
        ask_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
        answer(&h, &r, i % 2 == 1 ? HF_ESQL : HF_OK);
        if (i % 2 == 1) CHECK_STR(r.error.state, "25006");
        end(&h, &t, false, HF_OK);
    }
    close_client(&h);
}

TEST(a_failed_transaction_does_not_commit) {
    host h;
    reply r, s;
    transaction t;
    open_client(&h);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    ask_in(&h, t.tx, &r, "SELECT 1 / 0");
    ask_in(&h, t.tx, &s, "INSERT INTO things VALUES (2)");
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.error.state, "22012");
    answer(&h, &s, HF_ESQL);
    CHECK_STR(s.error.state, "25P02");
    end(&h, &t, true, HF_ESQL);
    CHECK_STR(t.error.state, "25P02");
    CHECK_STR(t.error.message,
              "the transaction was rolled back: an earlier statement of it had failed");
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    /* The first statement, with which BEGIN goes: nothing runs outside. */
    begin(&h, &t);
    ask_in(&h, t.tx, &r, "SELECT nonsense");
    ask_in(&h, t.tx, &s, "INSERT INTO things VALUES (3)");
    ask_end(&t, true);
    answer(&h, &r, HF_ESQL);
    answer(&h, &s, HF_ESQL);
    end(&h, &t, true, HF_ESQL);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    CHECK_INT(sessions("state = 'idle'"), 1);
    close_client(&h);
}

TEST(savepoints_are_statements) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    run_in(&h, t.tx, &r, "SAVEPOINT a");
    ask_in(&h, t.tx, &r, "SELECT 1 / 0");
    answer(&h, &r, HF_ESQL);
    run_in(&h, t.tx, &r, "ROLLBACK TO SAVEPOINT a");
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (2)");
    run_in(&h, t.tx, &r, "RELEASE a");
    end(&h, &t, true, HF_OK);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "2");
    close_client(&h);
}

TEST(a_statement_does_not_end_the_transaction) {
    static const char *const words[] = {"COMMIT",
                                        "end",
                                        " -- x\n/* /* y */ */ ; Rollback",
                                        "ROLLBACK WORK",
                                        "ABORT",
                                        "BEGIN",
                                        "START TRANSACTION",
                                        "PREPARE TRANSACTION 'x'",
                                        "COMMIT AND CHAIN"};
    static const char *const fine[] = {"SAVEPOINT s", "ROLLBACK TO s",
                                       "rollback work to savepoint s", "PREPARE p AS SELECT 1",
                                       "DEALLOCATE p"};
    host h;
    reply r;
    transaction t;
    hf_error error;
    open_client(&h);
    begin(&h, &t);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        hf_pg_statement s = statement(words[i]);
        CHECK_INT(hf_pg_tx_run(t.tx, &s, on_reply, &r, &r.query, &error), HF_EINVAL);
    }
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++)
        run_in(&h, t.tx, &r, fine[i]);
    end(&h, &t, true, HF_OK);
    close_client(&h);
}

TEST(a_deferred_constraint_fails_the_commit) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    fresh_table("id int CONSTRAINT things_once UNIQUE DEFERRABLE INITIALLY DEFERRED");
    ask(&h, &r, "INSERT INTO things VALUES (1), (1)"); /* by itself, at its own end */
    answer(&h, &r, HF_ESQL);
    CHECK_STR(r.error.state, "23505");
    CHECK_STR(r.constraint, "things_once");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1), (1)");
    end(&h, &t, true, HF_ESQL);
    CHECK_STR(t.error.state, "23505");
    CHECK_STR(t.constraint, "things_once");
    CHECK_INT(sessions("state = 'idle'"), 1);
    close_client(&h);
}

TEST(serialization_failures_are_retryable) {
    hf_pg_tx_options o = {.isolation = HF_PG_SERIALIZABLE, .timeout_ms = HF_FOREVER};
    host h;
    reply r;
    transaction a, b;
    open_client(&h);
    fresh_table("id int, v int");
    run(&h, &r, "INSERT INTO things VALUES (1, 0), (2, 0)");
    begin_with(&h, &a, &o);
    begin_with(&h, &b, &o);
    host_until(&h, &a.begun, 1);
    host_until(&h, &b.begun, 1);
    run_in(&h, a.tx, &r, "SELECT sum(v) FROM things");
    run_in(&h, b.tx, &r, "SELECT sum(v) FROM things");
    run_in(&h, a.tx, &r, "UPDATE things SET v = 1 WHERE id = 1");
    run_in(&h, b.tx, &r, "UPDATE things SET v = 1 WHERE id = 2");
    end(&h, &a, true, HF_OK);
    end(&h, &b, true, HF_ESQL);
    CHECK_STR(b.error.state, "40001");
    CHECK_INT(b.error.flags, HF_RETRYABLE);
    close_client(&h);
}

TEST(a_dropped_handle_rolls_back) {
    host h;
    reply r, s;
    transaction t;
    open_with(&h, "&max=1", NULL);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    hf_pg_tx_free(t.tx);
    run(&h, &s, "SELECT count(*) FROM things");
    CHECK_STR(s.rows, "0");
    begin(&h, &t);
    ask_in(&h, t.tx, &r, "INSERT INTO things SELECT 1 FROM pg_sleep(20)");
    ask_in(&h, t.tx, &s, "SELECT 1");
    until_sessions(&h, SLEEPS, 1);
    hf_pg_tx_free(t.tx);
    answer(&h, &s, HF_ECANCELED);
    answer(&h, &r, HF_ECANCELED);
    run(&h, &s, "SELECT count(*) FROM things");
    CHECK_STR(s.rows, "0");
    begin_with(&h, &t, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    hf_pg_tx_free(t.tx);
    run(&h, &s, "SELECT 1");
    CHECK_INT(t.begun, 0);
    begin(&h, &t); /* dropped from within a callback */
    ask_in(&h, t.tx, &r, "SELECT 1");
    r.frees = t.tx;
    answer(&h, &r, HF_OK);
    run(&h, &s, "SELECT 1");
    close_client(&h);
}

TEST(a_cancelled_transaction_is_rolled_back) {
    host h;
    reply r, s;
    transaction t, w;
    hf_pg_query *query;
    hf_error error;
    hf_pg_statement one = statement("SELECT 1");
    open_with(&h, "&max=1", NULL);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    begin_with(&h, &w, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    ask_in(&h, t.tx, &r, "SELECT pg_sleep(20)");
    ask_in(&h, t.tx, &s, "SELECT 1");
    until_sessions(&h, SLEEPS, 1);
    hf_pg_tx_cancel(t.tx);
    CHECK_INT(hf_pg_tx_run(t.tx, &one, on_reply, NULL, &query, &error), HF_ECANCELED);
    answer(&h, &r, HF_ECANCELED);
    answer(&h, &s, HF_ECANCELED);
    host_until(&h, &w.begun, 1); /* the session is free, though nobody has ended the transaction */
    end(&h, &t, true, HF_ECANCELED);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    begin_with(&h, &t, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    hf_pg_tx_cancel(t.tx);
    host_until(&h, &t.begun, 1);
    CHECK_INT(t.begin_code, HF_ECANCELED);
    hf_pg_tx_free(t.tx);
    end(&h, &w, true, HF_OK);
    close_client(&h);
}

TEST(a_transaction_has_its_time) {
    hf_pg_tx_options o = {.timeout_ms = 60};
    host h;
    reply r, s;
    transaction t, w;
    open_with(&h, "&max=1", NULL);
    fresh_table("id int");
    run(&h, &r, "SELECT 1");
    begin_with(&h, &t, &o);
    host_until(&h, &t.begun, 1);
    CHECK_INT(t.begin_code, HF_OK);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    ask(&h, &s, "SELECT count(*) FROM things"); /* gets the session when the time is up */
    begin_with(&h, &w, &o);
    answer(&h, &s, HF_OK);
    CHECK_STR(s.rows, "0");
    host_until(&h, &w.begun, 1);
    end(&h, &t, true, HF_ETIMEDOUT);
    CHECK_INT(t.error.flags, HF_RETRYABLE);
    hf_pg_tx_free(w.tx);
    begin_with(&h, &t, &o);
    host_until(&h, &t.begun, 1);
    ask_in(&h, t.tx, &r, "SELECT pg_sleep(20)");
    answer(&h, &r, HF_ETIMEDOUT);
    end(&h, &t, false, HF_ETIMEDOUT);
    begin(&h, &t);
    begin_with(&h, &w, &o);
    host_until(&h, &w.begun, 1);
    CHECK_INT(w.begin_code, HF_ETIMEDOUT);
    hf_pg_tx_free(w.tx);
    end(&h, &t, true, HF_OK);
    close_client(&h);
}

TEST(a_statement_of_a_transaction_is_cancelled_alone) {
    host h;
    reply a, b, c;
    transaction t;
    hf_pg_statement s = statement("SELECT pg_sleep(20)");
    s.timeout_ms = 50;
    open_client(&h);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &a, "INSERT INTO things VALUES (1)");
    for (int i = 0; i < 3; i++) {
        run_in(&h, t.tx, &a, "SAVEPOINT a");
        ask_with(&h, t.tx, &a, &s);
        answer(&h, &a, HF_ETIMEDOUT);
        run_in(&h, t.tx, &a, "ROLLBACK TO a");
    }
    /* One behind another: the first is not disturbed. */
    ask_in(&h, t.tx, &a, "SELECT pg_sleep(0.2)");
    ask_in(&h, t.tx, &b, "SELECT pg_sleep(20)");
    until_sessions(&h, SLEEPS, 1);
    hf_pg_query_cancel(b.query);
    ask_in(&h, t.tx, &c, "SELECT 3");
    answer(&h, &a, HF_OK);
    answer(&h, &b, HF_ECANCELED);
    answer(&h, &c, HF_ESQL);
    run_in(&h, t.tx, &a, "ROLLBACK TO a");
    end(&h, &t, true, HF_OK);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "1");
    close_client(&h);
}

TEST(ends_are_asked_for_once) {
    host h;
    transaction t;
    reply r;
    hf_error error;
    hf_pg_statement s = statement("SELECT 1");
    open_client(&h);
    begin_with(&h, &t, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    CHECK_INT(hf_pg_tx_end(t.tx, true, on_ended, &t), HF_EINVAL);
    CHECK_INT(hf_pg_tx_run(t.tx, &s, on_reply, &r, &r.query, &error), HF_EINVAL);
    host_until(&h, &t.begun, 1);
    ask_end(&t, true);
    CHECK_INT(hf_pg_tx_end(t.tx, true, on_ended, &t), HF_EINVAL);
    CHECK_INT(hf_pg_tx_run(t.tx, &s, on_reply, &r, &r.query, &error), HF_EINVAL);
    host_until(&h, &t.ended, 1);
    CHECK_INT(hf_pg_tx_end(t.tx, true, on_ended, &t), HF_EINVAL);
    hf_pg_tx_free(t.tx);
    close_client(&h);
}

/* ---------------------------------------------------------------- sessions that break */

TEST(a_session_that_breaks_while_idle_is_replaced) {
    host h;
    reply r;
    open_client(&h);
    run(&h, &r, "SELECT 1");
    terminate("true");
    until_sessions_blocked("true", 0);
    nanosleep(&(struct timespec){0, 20000000}, NULL);
    run(&h, &r, "SELECT 2"); /* without a turn in between */
    terminate("true");
    host_run_ms(&h, 50);
    run(&h, &r, "SELECT 3");
    close_client(&h);
}

TEST(a_session_that_breaks_in_a_statement) {
    host h;
    reply a, b;
    open_with(&h, "&max=1", NULL);
    ask(&h, &a, "SELECT pg_sleep(20)");
    ask(&h, &b, "SELECT 2");
    until_sessions(&h, SLEEPS, 1);
    terminate(SLEEPS);
    answer(&h, &a, HF_EUNAVAIL);
    CHECK_STR(a.error.state, "57P01");
    CHECK_INT(a.error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    answer(&h, &b, HF_OK);
    close_client(&h);
}

TEST(a_session_that_breaks_in_a_transaction) {
    host h;
    reply a, b;
    transaction t;
    hf_error error;
    hf_pg_query *query;
    hf_pg_statement one = statement("SELECT 1");
    open_client(&h);
    fresh_table("id int");
    begin(&h, &t);
    ask_in(&h, t.tx, &a, "INSERT INTO things SELECT 1 FROM pg_sleep(20)");
    ask_in(&h, t.tx, &b, "SELECT 2");
    until_sessions(&h, SLEEPS, 1);
    terminate(SLEEPS);
    answer(&h, &a, HF_EUNAVAIL);
    CHECK_INT(a.error.flags, HF_RETRYABLE);
    answer(&h, &b, HF_EUNAVAIL);
    CHECK_INT(hf_pg_tx_run(t.tx, &one, on_reply, NULL, &query, &error), HF_EUNAVAIL);
    end(&h, &t, true, HF_EUNAVAIL);
    CHECK_INT(t.error.flags, HF_RETRYABLE);
    CHECK_STR(t.error.state, "57P01");
    /* Between two statements. */
    begin(&h, &t);
    run_in(&h, t.tx, &a, "INSERT INTO things VALUES (1)");
    terminate("true");
    host_run_ms(&h, 50);
    end(&h, &t, true, HF_EUNAVAIL);
    CHECK_INT(t.error.flags, HF_RETRYABLE);
    /* Before its first. */
    begin(&h, &t);
    terminate("true");
    host_run_ms(&h, 50);
    end(&h, &t, false, HF_EUNAVAIL);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    close_client(&h);
}

/* A trigger at the end of a transaction sleeps in its commit. */
static void slow_commit(void) {
    fresh_table("id int");
    (void)postgres_do("CREATE OR REPLACE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS "
                      "$$ BEGIN PERFORM pg_sleep(20); RETURN NULL; END $$");
    (void)postgres_do("CREATE CONSTRAINT TRIGGER doze AFTER INSERT ON things DEFERRABLE INITIALLY "
                      "DEFERRED FOR EACH ROW EXECUTE FUNCTION doze()");
}

#define COMMITS "state = 'active' AND query = 'COMMIT'"

TEST(a_session_that_breaks_in_the_commit) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    slow_commit();
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    ask_end(&t, true);
    until_sessions(&h, COMMITS, 1);
    terminate(COMMITS);
    host_until(&h, &t.ended, 1);
    CHECK_INT(t.code, HF_EUNAVAIL);
    CHECK_INT(t.error.flags, HF_RETRYABLE | HF_OUTCOME_UNKNOWN);
    CHECK_STR(t.error.state, "57P01");
    hf_pg_tx_free(t.tx);
    close_client(&h);
}

TEST(a_commit_is_cancelled) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    slow_commit();
    begin(&h, &t);
    run_in(&h, t.tx, &r, "INSERT INTO things VALUES (1)");
    ask_end(&t, true);
    until_sessions(&h, COMMITS, 1);
    hf_pg_tx_cancel(t.tx);
    host_until(&h, &t.ended, 1);
    CHECK_INT(t.code, HF_ECANCELED);
    CHECK_INT(t.error.flags, 0);
    hf_pg_tx_free(t.tx);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
    close_client(&h);
}

TEST(the_servers_limit_of_idle_transactions) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    begin(&h, &t);
    run_in(&h, t.tx, &r, "SET LOCAL idle_in_transaction_session_timeout = 30");
    until_sessions(&h, "true", 0);
    end(&h, &t, true, HF_EUNAVAIL);
    CHECK_STR(t.error.state, "25P03");
    CHECK_INT(t.error.flags, HF_RETRYABLE);
    close_client(&h);
}

TEST(no_server_and_no_way_in) {
    static const struct {
        const char *where;
        hf_code code;
    } cases[] = {{"postgres://127.0.0.1:1/postgres", HF_EUNAVAIL},
                 {"postgres://127.0.0.1:%u/nowhere?user=postgres", HF_ENOENT},
                 {"postgres://127.0.0.1:%u/postgres?user=nobody", HF_EACCES}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char url[256];
        host h;
        reply a, b;
        transaction t;
        if (strchr(cases[i].where, '%') == NULL)
            snprintf(url, sizeof url, "%s", cases[i].where);
        else
            snprintf(url, sizeof url, "postgres://127.0.0.1:%u%s", (unsigned)postgres_port(),
                     strchr(cases[i].where, '%') + 2);
        host_open(&h, url);
        ask(&h, &a, "SELECT 1");
        ask(&h, &b, "SELECT 2");
        begin_with(&h, &t, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
        answer(&h, &a, cases[i].code);
        CHECK((a.error.flags & HF_OUTCOME_UNKNOWN) == 0);
        answer(&h, &b, cases[i].code);
        host_until(&h, &t.begun, 1);
        CHECK_INT(t.begin_code, cases[i].code);
        hf_pg_tx_free(t.tx);
        ask(&h, &a, "SELECT 1");
        answer(&h, &a, cases[i].code);
        host_close(&h);
    }
}

/* ---------------------------------------------------------------- the end of the client */

TEST(closing_lets_what_runs_finish) {
    host h;
    reply a, b, c;
    transaction t, w;
    hf_error error;
    hf_pg_statement s = statement("SELECT 1");
    open_with(&h, "&max=2", NULL);
    fresh_table("id int");
    begin(&h, &t);
    ask(&h, &a, "SELECT pg_sleep(0.1)");
    ask(&h, &b, "SELECT 2");
    begin_with(&h, &w, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    hf_client_close(h.client, 20000, NULL, NULL);
    CHECK_INT(hf_pg_query_run(h.client, &s, on_reply, NULL, &c.query, &error), HF_ECLOSED);
    answer(&h, &a, HF_OK);
    answer(&h, &b, HF_OK);
    run_in(&h, t.tx, &c, "INSERT INTO things VALUES (1)");
    host_until(&h, &w.begun, 1);
    end(&h, &w, true, HF_OK);
    end(&h, &t, true, HF_OK);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "1");
    close_client(&h);
}

TEST(closing_ends_what_does_not_finish) {
    host h;
    reply a, b, c, d;
    transaction t, u, w;
    open_with(&h, "&max=4", NULL);
    fresh_table("id int");
    begin(&h, &t);
    run_in(&h, t.tx, &a, "INSERT INTO things VALUES (1)");
    begin(&h, &u);
    ask_in(&h, u.tx, &c, "SELECT pg_sleep(20)");
    ask(&h, &a, "SELECT pg_sleep(20)");
    ask(&h, &d, "INSERT INTO things SELECT 2 FROM pg_sleep(20)");
    until_sessions(&h, SLEEPS, 3);
    ask(&h, &b, "SELECT 2");
    begin_with(&h, &w, &(hf_pg_tx_options){.timeout_ms = HF_FOREVER});
    hf_client_close(h.client, 50, NULL, NULL);
    answer(&h, &a, HF_ECLOSED);
    CHECK_INT(a.error.flags, HF_OUTCOME_UNKNOWN);
    answer(&h, &b, HF_ECLOSED);
    CHECK_INT(b.error.flags, 0);
    answer(&h, &c, HF_ECLOSED);
    CHECK_INT(c.error.flags, 0);
    answer(&h, &d, HF_ECLOSED);
    host_until(&h, &w.begun, 1);
    CHECK_INT(w.begin_code, HF_ECLOSED);
    hf_pg_tx_free(w.tx);
    host_close(&h);
    until_sessions_blocked(SLEEPS, 0);
    CHECK_INT(hf_pg_tx_end(t.tx, true, on_ended, &t), HF_ECLOSED);
    hf_pg_tx_cancel(u.tx);
    hf_pg_tx_free(t.tx);
    hf_pg_tx_free(u.tx);
    until_sessions_blocked("true", 0);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "0");
}

TEST(closing_while_it_connects) {
    host h;
    reply a;
    open_client(&h);
    ask(&h, &a, "SELECT 1");
    for (int i = 0; i < 3; i++)
        uv_run(&h.loop, UV_RUN_NOWAIT);
    hf_pg_query_free(a.query);
    close_client(&h);
}

TEST(what_is_idle_does_not_keep_the_loop) {
    host h;
    reply r;
    transaction t;
    open_client(&h);
    run(&h, &r, "SELECT 1");
    CHECK_INT(uv_run(&h.loop, UV_RUN_DEFAULT), 0);
    ask(&h, &r, "SELECT pg_sleep(0.05)");
    CHECK_INT(uv_run(&h.loop, UV_RUN_DEFAULT), 0);
    answer(&h, &r, HF_OK);
    begin(&h, &t);
    CHECK_INT(uv_run(&h.loop, UV_RUN_DEFAULT), 0);
    ask_end(&t, true);
    CHECK_INT(uv_run(&h.loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(t.ended, 1);
    hf_pg_tx_free(t.tx);
    close_client(&h);
}

TEST(given_up_at_random) {
    enum { N = 400 };
    static reply r[N];
    static transaction t[N];
    host h;
    unsigned seed = (unsigned)time(NULL);
    printf("        seed %u\n", seed);
    srand(seed);
    open_with(&h, "&max=3", NULL);
    memset(t, 0, sizeof t);
    for (int i = 0; i < N; i++) {
        int k = rand() % (i + 1);
        if (rand() % 3 == 0)
            begin_with(&h, &t[i], &(hf_pg_tx_options){.timeout_ms = 1 + (uint64_t)rand() % 200});
        ask(&h, &r[i], rand() % 4 == 0 ? "SELECT pg_sleep(0.01)" : "SELECT 1");
        if (rand() % 3 == 0) r[i].cancels = &r[k];
        if (rand() % 4 == 0 && r[k].answered == 0) hf_pg_query_cancel(r[k].query);
        if (t[k].tx != NULL && rand() % 4 == 0) hf_pg_tx_cancel(t[k].tx);
        if (t[k].tx != NULL && t[k].begun == 1 && t[k].begin_code == HF_OK && rand() % 2 == 0)
            (void)hf_pg_tx_end(t[k].tx, rand() % 2 == 0, on_ended, &t[k]);
        if (i % 10 == 0) uv_run(&h.loop, UV_RUN_NOWAIT);
    }
    for (int i = 0; i < N; i++) {
        if (t[i].tx != NULL) hf_pg_tx_free(t[i].tx);
        host_until(&h, &r[i].answered, 1);
        CHECK(r[i].code == HF_OK || r[i].code == HF_ECANCELED);
    }
    for (int i = 0; i < N; i++)
        hf_pg_query_free(r[i].query);
    CHECK(sessions("true") <= 3);
    close_client(&h);
}

/* One of the transactions does something: asks, ends, is cancelled, is let go. */
static void do_anything(host *h, transaction *t, reply *r) {
    static const char *const sql[] = {"SELECT 1",
                                      "SELECT pg_sleep(0.005)",
                                      "SELECT 1 / 0",
                                      "INSERT INTO things VALUES (1)",
                                      "COPY things TO STDOUT",
                                      "SELECT pg_sleep(1)"};
    hf_pg_tx_options o = {.timeout_ms = rand() % 3 == 0 ? (uint64_t)rand() % 100 : HF_FOREVER};
    hf_pg_statement s = statement(sql[rand() % 6]);
    hf_error error;
    s.timeout_ms = rand() % 2 == 0 ? 1 + (uint32_t)rand() % 30 : 0;
    if (t->tx == NULL) {
        begin_with(h, t, &o);
        return;
    }
    switch (rand() % 8) {
    case 0: (void)hf_pg_tx_end(t->tx, rand() % 2 == 0, on_ended, t); return;
    case 1:
        if (rand() % 2 == 0) hf_pg_tx_cancel(t->tx);
        return;
    case 2:
        if (rand() % 2 == 0) return;
        hf_pg_tx_free(t->tx);
        t->tx = NULL;
        return;
    case 3:
        if (r->query != NULL) hf_pg_query_cancel(r->query);
        return;
    default: break;
    }
    if (r->query != NULL && r->answered == 0 && rand() % 2 == 0) return;
    if (r->query != NULL) hf_pg_query_free(r->query);
    memset(r, 0, sizeof *r);
    if (rand() % 3 == 0)
        CHECK_INT(hf_pg_query_run(h->client, &s, on_reply, r, &r->query, &error), HF_OK);
    else if (hf_pg_tx_run(t->tx, &s, on_reply, r, &r->query, &error) != HF_OK)
        r->query = NULL;
}

TEST(anything_at_any_time) {
    enum { N = 12, STEPS = 1500 };
    static transaction t[N];
    static reply r[N];
    host h;
    unsigned seed = (unsigned)time(NULL);
    const char *given = getenv("SEED");
    if (given != NULL) seed = (unsigned)strtoul(given, NULL, 10);
    printf("        seed %u\n", seed);
    srand(seed);
    memset(t, 0, sizeof t);
    memset(r, 0, sizeof r);
    open_with(&h, "&max=4&idleTimeout=20", NULL);
    fresh_table("id int");
    for (int i = 0; i < STEPS; i++) {
        int k = rand() % N;
        do_anything(&h, &t[k], &r[k]);
        if (rand() % 3 == 0) uv_run(&h.loop, UV_RUN_NOWAIT);
        if (rand() % 20 == 0) host_run_ms(&h, (uint64_t)rand() % 10);
        if (rand() % 60 == 0)
            (void)postgres_do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
                              "application_name = 'holdfast' AND random() < 0.5");
        CHECK(t[k].begun <= 1 && t[k].ended <= 1 && r[k].answered <= 1);
    }
    hf_client_close(h.client, (uint64_t)rand() % 100, NULL, NULL);
    for (int i = 0; i < N; i++) {
        if (r[i].query != NULL) host_until(&h, &r[i].answered, 1);
        if (r[i].query != NULL) hf_pg_query_free(r[i].query);
        if (t[i].tx != NULL) host_until(&h, &t[i].begun, 1);
        if (t[i].tx != NULL) hf_pg_tx_free(t[i].tx);
    }
    close_client(&h);
}

/* ---------------------------------------------------------------- without memory */

static int left; /* allocations until one fails; negative: none does */

static void *failing(void *data, void *p, size_t size) {
    (void)data;
    if (size == 0) {
        free(p);
        return NULL;
    }
    return left-- == 0 ? NULL : realloc(p, size);
}

static void without_memory(host *h) {
    reply r, s;
    transaction t;
    hf_error error;
    hf_pg_statement one = statement("SELECT 1");
    hf_pg_tx_options o = {.timeout_ms = HF_FOREVER};
    memset(&r, 0, sizeof r);
    memset(&t, 0, sizeof t);
    if (hf_pg_query_run(h->client, &one, on_reply, &r, &r.query, &error) == HF_OK) {
        host_until(h, &r.answered, 1);
        /* A socket that cannot be watched is no way to a server. */
        CHECK(r.code == HF_OK || r.code == HF_ENOMEM || r.code == HF_EUNAVAIL);
        hf_pg_query_free(r.query);
    }
    if (hf_pg_tx_begin(h->client, &o, on_begun, &t, &t.tx, &error) != HF_OK) return;
    host_until(h, &t.begun, 1);
    memset(&s, 0, sizeof s);
    if (t.begin_code == HF_OK &&
        hf_pg_tx_run(t.tx, &one, on_reply, &s, &s.query, &error) == HF_OK) {
        host_until(h, &s.answered, 1);
        CHECK_INT(s.code, HF_OK);
        hf_pg_query_free(s.query);
    }
    hf_pg_tx_free(t.tx);
}

TEST(memory_may_run_out) {
    static const hf_allocator allocator = {.resize = failing};
    hf_engine_options options = {.allocator = &allocator};
    bool ran_out = true;
    for (int n = 0; ran_out; n++) {
        host h;
        left = -1;
        open_with(&h, "", &options);
        left = n;
        without_memory(&h);
        ran_out = left < 0;
        left = -1;
        close_client(&h);
    }
}

/* ---------------------------------------------------------------- behind a pooler; last */

TEST(behind_a_pooler) {
    enum { N = 40 };
    static reply r[N];
    host h;
    reply a;
    transaction t;
    postgres_through_pooler();
    open_with(&h, "&max=5", NULL);
    (void)postgres_do("DROP TABLE IF EXISTS things");
    (void)postgres_do("CREATE TABLE things (id int)");
    for (int i = 0; i < N; i++)
        ask(&h, &r[i], "SELECT 1");
    for (int i = 0; i < N; i++)
        answer(&h, &r[i], HF_OK);
    begin(&h, &t);
    ask_in(&h, t.tx, &r[0], "INSERT INTO things VALUES (1)");
    ask_in(&h, t.tx, &r[1], "INSERT INTO things VALUES (2)");
    answer(&h, &r[0], HF_OK);
    answer(&h, &r[1], HF_OK);
    end(&h, &t, true, HF_OK);
    CHECK_STR(postgres_do("SELECT count(*) FROM things"), "2");
    ask(&h, &a, "SELECT pg_sleep(20)");
    until_sessions(&h, SLEEPS, 1);
    hf_pg_query_cancel(a.query);
    answer(&h, &a, HF_ECANCELED);
    run(&h, &a, "SELECT 1");
    host_close(&h);
}
