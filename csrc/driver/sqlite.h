/*
 * One connection to one SQLite file: opening it and saying why it cannot be opened, creating and
 * migrating its schema, transactions, and the map from SQLite's codes to ours. Knows nothing of
 * what the tables mean.
 *
 * Threads. A connection is opened without SQLite's mutexes: it may move between threads, but only
 * one uses it at a time. Every function here blocks: on a work item, or on a thread that may.
 *
 * A trap that SQLite cannot close: POSIX locks belong to the process. When anything else in this
 * process (a second copy of SQLite, a plain fs.readFile) opens and closes the same file, the locks
 * of all are gone. `hf__sqlite_moved` tells of the worst that follows, a journal deleted under us.
 */
#ifndef HF_DRIVER_SQLITE_H
#define HF_DRIVER_SQLITE_H

#include "core/error.h"

#include <sqlite3.h>
#include <sys/stat.h>

/* What file to open, and what must be in it. Borrowed for as long as the connection is used. */
typedef struct hf__sqlite_file {
    const char *path;         /* absolute: it must mean the same when it is opened again */
    int32_t application_id;   /* PRAGMA application_id of a file that is ours */
    int32_t version;          /* PRAGMA user_version, and how many `steps` there are */
    const char *const *steps; /* SQL that leads from version i to i + 1; from 0: an empty file */
    const char *const
        *statements; /* prepared once at open; hf__sqlite.statements keeps their order */
    size_t n_statements;
} hf__sqlite_file;

#define HF__SQLITE_STATEMENTS_MAX 40

typedef struct hf__sqlite {
    sqlite3 *db; /* NULL: not open */
    const hf__sqlite_file *file;
    sqlite3_stmt *statements[HF__SQLITE_STATEMENTS_MAX];
    sqlite3_stmt *begin;
    sqlite3_stmt *begin_write;
    sqlite3_stmt *commit;
    sqlite3_stmt *rollback;
    const char *wal_path; /* belongs to `db` */
    dev_t wal_device;
    ino_t wal_inode;
    uint64_t busy_until; /* uv_hrtime; how long to wait for other processes' locks */
    int wal_frames;      /* in the write-ahead log after the last commit of this connection */
    bool durable;        /* whether a commit waits for the disk */
    bool broken;         /* a transaction could not even be rolled back: close it */
} hf__sqlite;

/* Opens, creates or migrates, and prepares the statements. Waits up to `busy_ms` for others who do
 * the same. On failure nothing stays open and `error` says what is wrong and what to do: HF_ENOENT
 * HF_EACCES HF_EREADONLY HF_ENETFS HF_ENOTADB HF_ESCHEMA HF_EBUSY HF_EFULL HF_EIO HF_ENOMEM. */
hf_code hf__sqlite_open(hf__sqlite *c, const hf__sqlite_file *file, uint64_t busy_ms,
                        hf_error *error);

/* Closes; the last one out writes the log back into the file. Harmless if not open. */
void hf__sqlite_close(hf__sqlite *c);

/* True when the path, or its log, no longer names the file that is open. Two calls of stat(2). */
bool hf__sqlite_moved(const hf__sqlite *c);

/* Starts a transaction. With `write`, takes the write lock, waiting up to `busy_ms` (HF_EBUSY).
 * With `durable` its commit outlives a loss of power, else only a crash of processes. */
hf_code hf__sqlite_begin(hf__sqlite *c, bool write, bool durable, uint64_t busy_ms,
                         hf_error *error);

/* Ends it. On failure it was rolled back, and `error` has HF_OUTCOME_UNKNOWN where it may come back
 * to life when the log is next recovered. */
hf_code hf__sqlite_commit(hf__sqlite *c, hf_error *error);
void hf__sqlite_rollback(hf__sqlite *c);

/* Describes `rc`, the failure of the last call on this connection. */
hf_code hf__sqlite_error(hf__sqlite *c, int rc, hf_error *error);

/* Writes what it can of the log back into the file, without holding up anyone. Failures are left to
 * the next one: nothing is lost by them. */
void hf__sqlite_checkpoint(hf__sqlite *c);

/* Says why a path cannot be used, as far as the file system tells: HF_ENETFS, HF_ENOENT, HF_EACCES,
 * HF_EREADONLY, HF_ENOTADB for what is no regular file; HF_OK if nothing speaks against it. */
hf_code hf__sqlite_examine(const char *path, hf_error *error);

/* True for file systems on which locks or shared memory do not reach all who use the file. `type`
 * is the magic number of statfs(2), `name` the type in /proc/self/mountinfo, "" if unknown. */
bool hf__sqlite_is_network(uint64_t type, const char *name);

/* The type of the file system on `device`, as in mountinfo: "fuse.sshfs". "" if it is not found. */
void hf__sqlite_mount_type(dev_t device, char *name, size_t size);

/* As much of the end of a path as fits a message. */
const char *hf__sqlite_shown(const char *path);

/* Binding borrows the bytes until the statement is reset and cannot fail for a valid index. */
static inline void hf__bind_text(sqlite3_stmt *st, int at, hf_slice s) {
    sqlite3_bind_text(st, at, s.len ? s.data : "", (int)s.len, SQLITE_STATIC);
}

static inline void hf__bind_blob(sqlite3_stmt *st, int at, const void *data, size_t len) {
    sqlite3_bind_blob(st, at, len ? data : "", (int)len, SQLITE_STATIC);
}

static inline void hf__bind_u64(sqlite3_stmt *st, int at, uint64_t v) {
    sqlite3_bind_int64(st, at, (sqlite3_int64)v);
}

static inline uint64_t hf__column_u64(sqlite3_stmt *st, int at) {
    return (uint64_t)sqlite3_column_int64(st, at);
}

/* The bytes stay valid until the statement is stepped or reset. A NULL `data` with `len` 0 may also
 * mean that memory was out: the statement's next step or reset tells. */
static inline hf_slice hf__column_slice(sqlite3_stmt *st, int at) {
    const char *data = sqlite3_column_blob(st, at);
    return (hf_slice){data, (size_t)sqlite3_column_bytes(st, at)};
}

/* Runs a statement that returns no rows. An SQLite result code, SQLITE_OK if it went well. */
static inline int hf__sqlite_run(sqlite3_stmt *st) {
    (void)sqlite3_step(st);
    return sqlite3_reset(st);
}

#endif
