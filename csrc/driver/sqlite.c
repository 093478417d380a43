/*
 * The connection. What each setting is for stands where it is made.
 *
 * Opening. Many processes may open one new file at once. Each looks first whether the file is ours,
 * for a file of somebody else must not be touched; switches it to a write-ahead log, which needs
 * the file to itself for a moment and is therefore tried again until the time is up; and creates
 * what is missing within a write transaction, after having looked again.
 *
 * Power loss. SQLite syncs the log at the commit of a durable transaction, and the folder with the
 * first sync of a log or journal that it created; the log then holds whatever earlier, relaxed
 * commits wrote.
 */
#include "driver/sqlite.h"

#include "util/random.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>
#include <uv.h>

/* Pages of 4 KiB: a log of this size goes back to the file system after a burst. */
#define JOURNAL_BYTES "8388608"
#define CACHE_KIB "8192"

static int on_busy(void *data, int tries) {
    hf__sqlite *c = data;
    uint64_t now = uv_hrtime();
    uint64_t most = tries < 6 ? UINT64_C(100000) << tries : UINT64_C(5000000);
    uint64_t pause;
    struct timespec t = {0, 0};

    if (now >= c->busy_until) return 0;
    /* Transactions here are short: begin with short naps, and never all in step. */
    pause = hf__random_between(most / 4, most);
    if (pause > c->busy_until - now) pause = c->busy_until - now;
    t.tv_nsec = (long)pause;
    (void)nanosleep(&t, NULL);
    return 1;
}

static int on_commit(void *data, sqlite3 *db, const char *name, int frames) {
    hf__sqlite *c = data;

    (void)db;
    (void)name;
    c->wal_frames = frames;
    return SQLITE_OK;
}

static void wait_at_most(hf__sqlite *c, uint64_t busy_ms) {
    c->busy_until = uv_hrtime() + busy_ms * UINT64_C(1000000);
}

static int run_sql(hf__sqlite *c, const char *sql) {
    return sqlite3_exec(c->db, sql, NULL, NULL, NULL);
}

/* The number that a query of one row and column gives. */
static int ask(hf__sqlite *c, const char *sql, int64_t *value) {
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &st, NULL);

    if (rc != SQLITE_OK) return rc;
    if (sqlite3_step(st) == SQLITE_ROW) *value = sqlite3_column_int64(st, 0);
    return sqlite3_finalize(st);
}

/* What the file says of itself. */
struct stamp {
    int64_t application_id;
    int64_t version;
    int64_t objects; /* tables and the like */
};

static int read_stamp(hf__sqlite *c, struct stamp *stamp) {
    int rc = ask(c, "PRAGMA application_id", &stamp->application_id);

    if (rc == SQLITE_OK) rc = ask(c, "PRAGMA user_version", &stamp->version);
    if (rc == SQLITE_OK) rc = ask(c, "SELECT count(*) FROM sqlite_master", &stamp->objects);
    return rc;
}

static hf_code judge(hf__sqlite *c, const struct stamp *stamp, hf_error *error) {
    const char *path = hf__sqlite_shown(c->file->path);
    bool blank = stamp->application_id == 0 && stamp->version == 0 && stamp->objects == 0;

    hf__error_clear(error);
    if (blank) return HF_OK;
    if (stamp->application_id != c->file->application_id)
        return hf__error_set(error, HF_ENOTADB, 0,
                             "%s is another program's database: choose another file", path);
    if (stamp->version > c->file->version)
        return hf__error_set(error, HF_ESCHEMA, 0,
                             "%s was written by a newer version of Holdfast (schema %d, this one "
                             "knows %d): update this program",
                             path, (int)stamp->version, (int)c->file->version);
    return HF_OK;
}

/* Switching needs the file alone and does not call the busy handler. */
static int use_wal(hf__sqlite *c) {
    for (int tries = 0;; tries++) {
        int rc = run_sql(c, "PRAGMA journal_mode=WAL");
        if ((rc & 0xff) != SQLITE_BUSY || !on_busy(c, tries)) return rc;
    }
}

static int migrate_steps(hf__sqlite *c, int64_t from) {
    char stamp[96];
    int rc = SQLITE_OK;

    for (int64_t at = from; rc == SQLITE_OK && at < c->file->version; at++)
        rc = run_sql(c, c->file->steps[at]);
    (void)sqlite3_snprintf((int)sizeof stamp, stamp,
                           "PRAGMA application_id=%d; PRAGMA user_version=%d",
                           (int)c->file->application_id, (int)c->file->version);
    return rc == SQLITE_OK ? run_sql(c, stamp) : rc;
}

static hf_code migrate(hf__sqlite *c, hf_error *error) {
    struct stamp stamp = {0, 0, 0};
    int rc = run_sql(c, "BEGIN IMMEDIATE");

    /* Another process may have been faster, or newer. */
    if (rc == SQLITE_OK) rc = read_stamp(c, &stamp);
    if (rc == SQLITE_OK && judge(c, &stamp, error) != HF_OK) {
        (void)run_sql(c, "ROLLBACK");
        return error->code;
    }
    if (rc == SQLITE_OK && stamp.version < c->file->version) rc = migrate_steps(c, stamp.version);
    if (rc == SQLITE_OK) rc = run_sql(c, "COMMIT");
    if (rc == SQLITE_OK) return HF_OK;
    (void)hf__sqlite_error(c, rc, error);
    if (!sqlite3_get_autocommit(c->db)) (void)run_sql(c, "ROLLBACK");
    return error->code;
}

static hf_code adopt(hf__sqlite *c, hf_error *error) {
    struct stamp stamp = {0, 0, 0};
    int rc = run_sql(c, "BEGIN");

    /* At one moment: another process may be just about to create it all. */
    if (rc == SQLITE_OK) rc = read_stamp(c, &stamp);
    if (rc == SQLITE_OK) rc = run_sql(c, "COMMIT");
    if (rc != SQLITE_OK) return hf__sqlite_error(c, rc, error);
    if (judge(c, &stamp, error) != HF_OK) return error->code;
    rc = use_wal(c);
    if (rc != SQLITE_OK) return hf__sqlite_error(c, rc, error);
    return stamp.version < c->file->version ? migrate(c, error) : HF_OK;
}

static int prepare(hf__sqlite *c, const char *sql, sqlite3_stmt **st) {
    return sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT, st, NULL);
}

static int prepare_all(hf__sqlite *c) {
    int rc = prepare(c, "BEGIN", &c->begin);

    if (rc == SQLITE_OK) rc = prepare(c, "BEGIN IMMEDIATE", &c->begin_write);
    if (rc == SQLITE_OK) rc = prepare(c, "COMMIT", &c->commit);
    if (rc == SQLITE_OK) rc = prepare(c, "ROLLBACK", &c->rollback);
    for (size_t i = 0; rc == SQLITE_OK && i < c->file->n_statements; i++)
        rc = prepare(c, c->file->statements[i], &c->statements[i]);
    return rc;
}

/* Remembers which file the log is, to notice when it is another. */
static hf_code find_wal(hf__sqlite *c, hf_error *error) {
    struct stat status;

    c->wal_path = sqlite3_filename_wal(sqlite3_db_filename(c->db, "main"));
    if (stat(c->wal_path, &status) != 0)
        return hf__error_native(error, HF_EMOVED, HF_RETRYABLE, errno,
                                "%s vanished while it was opened", hf__sqlite_shown(c->wal_path));
    c->wal_device = status.st_dev;
    c->wal_inode = status.st_ino;
    return HF_OK;
}

static int configure(hf__sqlite *c) {
    int rc;

    (void)sqlite3_extended_result_codes(c->db, 1);
    (void)sqlite3_wal_hook(c->db, on_commit, c);
    /* Opening and migrating is durable; hf__sqlite_begin relaxes what may be. The log is written
     * back by hf__sqlite_checkpoint, outside of commits (the hook above replaces SQLite's own).
     * What is deleted need not be wiped. */
    rc = run_sql(c, "PRAGMA synchronous=FULL; PRAGMA secure_delete=OFF;"
                    "PRAGMA cache_size=-" CACHE_KIB ";"
                    "PRAGMA journal_size_limit=" JOURNAL_BYTES);
    c->durable = true;
    return rc;
}

static hf_code open_file(hf__sqlite *c, hf_error *error) {
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(c->file->path, &c->db, flags, NULL);

    if (c->db == NULL) return hf__error_set(error, HF_ENOMEM, 0, NULL);
    (void)sqlite3_busy_handler(c->db, on_busy, c);
    if (rc == SQLITE_OK) rc = configure(c);
    if (rc != SQLITE_OK) return hf__sqlite_error(c, rc, error);
    if (sqlite3_db_readonly(c->db, "main") == 1)
        return hf__error_set(error, HF_EREADONLY, 0,
                             "%s is read-only: give this user write permission to it",
                             hf__sqlite_shown(c->file->path));
    if (adopt(c, error) != HF_OK) return error->code;
    rc = prepare_all(c);
    if (rc != SQLITE_OK) return hf__sqlite_error(c, rc, error);
    return find_wal(c, error);
}

hf_code hf__sqlite_open(hf__sqlite *c, const hf__sqlite_file *file, uint64_t busy_ms,
                        hf_error *error) {
    assert(file->n_statements <= HF__SQLITE_STATEMENTS_MAX);
    *c = (hf__sqlite){.file = file};
    wait_at_most(c, busy_ms);
    if (hf__sqlite_examine(file->path, error) != HF_OK) return error->code;
    if (open_file(c, error) != HF_OK) hf__sqlite_close(c);
    return error->code;
}

void hf__sqlite_close(hf__sqlite *c) {
    sqlite3_stmt *own[] = {c->begin, c->begin_write, c->commit, c->rollback};
    int rc;

    if (c->db == NULL) return;
    hf__sqlite_rollback(c);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        (void)sqlite3_finalize(own[i]);
    for (size_t i = 0; i < c->file->n_statements; i++)
        (void)sqlite3_finalize(c->statements[i]);
    rc = sqlite3_close(c->db);
    assert(rc == SQLITE_OK);
    (void)rc;
    *c = (hf__sqlite){.file = c->file};
}

bool hf__sqlite_moved(const hf__sqlite *c) {
    struct stat status;
    int moved = 0;

    (void)sqlite3_file_control(c->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
    if (moved) return true;
    if (stat(c->wal_path, &status) != 0) return errno == ENOENT;
    return status.st_ino != c->wal_inode || status.st_dev != c->wal_device;
}

hf_code hf__sqlite_begin(hf__sqlite *c, bool write, bool durable, uint64_t busy_ms,
                         hf_error *error) {
    int rc = SQLITE_OK;

    wait_at_most(c, busy_ms);
    hf__error_clear(error);
    if (write && durable != c->durable) {
        rc = run_sql(c, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
        if (rc == SQLITE_OK) c->durable = durable;
    }
    if (rc == SQLITE_OK) rc = hf__sqlite_run(write ? c->begin_write : c->begin);
    return rc == SQLITE_OK ? HF_OK : hf__sqlite_error(c, rc, error);
}

/* Once the last frame is written the transaction is in the log. A failure after that (of the sync,
 * of the shared index) takes it back for everyone who lives, yet a recovery of the log may find it.
 * A disk that was full, or a lock not had, came before. */
static bool may_have_landed(int rc) {
    int primary = rc & 0xff;
    return primary != SQLITE_FULL && primary != SQLITE_BUSY;
}

hf_code hf__sqlite_commit(hf__sqlite *c, hf_error *error) {
    int rc = hf__sqlite_run(c->commit);

    hf__error_clear(error);
    if (rc == SQLITE_OK) return HF_OK;
    (void)hf__sqlite_error(c, rc, error);
    if (may_have_landed(rc)) error->flags |= HF_OUTCOME_UNKNOWN;
    hf__sqlite_rollback(c);
    return error->code;
}

void hf__sqlite_rollback(hf__sqlite *c) {
    if (c->rollback == NULL || sqlite3_get_autocommit(c->db)) return;
    (void)hf__sqlite_run(c->rollback);
    c->broken = !sqlite3_get_autocommit(c->db);
}

void hf__sqlite_checkpoint(hf__sqlite *c) {
    c->busy_until = 0;
    (void)sqlite3_wal_checkpoint_v2(c->db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}
