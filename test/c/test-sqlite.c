/*
 * The SQLite store: what is its own, beside the contract that the conformance suite tests. Opening
 * and its errors, epochs, files that vanish, batches, watches.
 */
#include "driver/sqlite.h"
#include "harness.h"
#include "store/sqlite-store.h"
#include "support-powerloss-vfs.h"
#include "support-sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* The error of opening `path`. */
static hf_error open_error(const char *path, const char *params) {
    hf_error error;
    kit k;

    kit_init(&k, path, params, 0);
    error = kit_open(&k);
    kit_fini(&k);
    return error;
}

/* ---------------------------------------------------------------- the file */

TEST(opening_creates_the_file_and_closing_leaves_all_in_it) {
    kit_path path = kit_file("a.db");
    char wal[300];
    char value[16];
    kit k;

    kit_init(&k, path.text, NULL, 0);
    REQUIRE_INT(kit_open(&k).code, HF_OK);
    CHECK(kit_put(&k, "key", "value", 1, NULL));
    kit_fini(&k);
    snprintf(wal, sizeof wal, "%s-wal", path.text);
    CHECK_INT(access(wal, F_OK), -1);
    kit_init(&k, path.text, NULL, 0);
    CHECK(kit_get(&k, "key", value, sizeof value, NULL));
    CHECK_STR(value, "value");
    kit_fini(&k);
}

TEST(a_store_that_was_never_used_closes) {
    kit_path path = kit_file("never.db");
    kit k;

    kit_init(&k, path.text, NULL, 0);
    kit_fini(&k);
    CHECK_INT(access(path.text, F_OK), -1);
}

TEST(a_path_relative_to_the_folder_of_then_stays_the_same_file) {
    char before[256];
    hf_slice key = kit_slice("k");
    uint64_t fence;
    kit k;

    REQUIRE(getcwd(before, sizeof before) != NULL);
    REQUIRE(chdir(hf_test_folder()) == 0);
    kit_init(&k, "rel.db", NULL, 0);
    REQUIRE(chdir(before) == 0);
    CHECK(kit_take(&k, key.data, 1, &fence));
    CHECK_INT(access(kit_file("rel.db").text, F_OK), 0);
    kit_fini(&k);
}

static hf_code init_code(const char *text, hf_error *error) {
    const char *why = NULL;
    hf__store_env env = {.allocator = NULL};
    hf_store *store;
    kit k;
    hf_code code;

    kit_init(&k, kit_file("x.db").text, NULL, 0);
    env = k.env;
    hf__url_free(&k.url, env.allocator);
    REQUIRE(hf__url_parse(&k.url, kit_slice(text), env.allocator, &why));
    store = hf__store_new(k.store->vt, &env, error);
    code = store == NULL ? error->code : HF_OK;
    if (store != NULL) hf__store_free(store);
    kit_fini(&k);
    return code;
}

TEST(urls_that_name_no_file_are_refused) {
    hf_error error;

    CHECK_INT(init_code("sqlite:", &error), HF_EINVAL);
    CHECK_INT(init_code("sqlite::memory:", &error), HF_EINVAL);
    CHECK_INT(init_code("sqlite:./a.db?busyTimeout=soon", &error), HF_EINVAL);
    CHECK(strstr(error.message, "busyTimeout") != NULL);
    CHECK_INT(init_code("sqlite:./a.db?busyTimeout=0", &error), HF_OK);
}

/* ---------------------------------------------------------------- errors of opening */

TEST(a_missing_folder_is_said_and_not_made) {
    kit_path path = kit_file("no/such/a.db");
    hf_error error = open_error(path.text, NULL);

    CHECK_INT(error.code, HF_ENOENT);
    CHECK(strstr(error.message, "create the folder") != NULL);
    CHECK_INT(access(kit_file("no").text, F_OK), -1);
}

TEST(a_folder_or_a_device_is_no_database) {
    CHECK_INT(open_error(hf_test_folder(), NULL).code, HF_ENOTADB);
    CHECK_INT(open_error("/dev/null", NULL).code, HF_ENOTADB);
    CHECK_INT(open_error("/dev/null/a.db", NULL).code, HF_ENOENT);
}

static bool write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL && fputs(text, f) >= 0;
    return f != NULL && fclose(f) == 0 && ok;
}

TEST(what_is_no_database_is_left_alone) {
    kit_path path = kit_file("text.db");
    char start[8] = "";
    FILE *f;

    REQUIRE(write_file(path.text, "This is a letter, and a rather long one, so that it is not "
                                  "taken for an empty file or one that was cut short by chance."));
    CHECK_INT(open_error(path.text, NULL).code, HF_ENOTADB);
    f = fopen(path.text, "rb");
    REQUIRE(f != NULL);
    CHECK_UINT(fread(start, 1, 4, f), 4);
    fclose(f);
    CHECK_STR(start, "This");
}

TEST(another_programs_database_is_left_alone) {
    kit_path path = kit_file("foreign.db");
    hf_error error;

    REQUIRE(kit_sql(path.text, "CREATE TABLE orders (id); INSERT INTO orders VALUES (1)"));
    error = open_error(path.text, NULL);
    CHECK_INT(error.code, HF_ENOTADB);
    CHECK(strstr(error.message, "another program") != NULL);
    CHECK(kit_sql(path.text, "SELECT id FROM orders"));
    REQUIRE(kit_sql(path.text, "DROP TABLE orders; PRAGMA application_id=7"));
    CHECK_INT(open_error(path.text, NULL).code, HF_ENOTADB);
}

TEST(a_newer_schema_is_refused_when_opened_and_while_open) {
    kit_path path = kit_file("newer.db");
    hf_slice key = kit_slice("k");
    hf_op op;
    kit k;

    kit_init(&k, path.text, NULL, 0);
    CHECK(kit_take(&k, "k", 1, NULL));
    REQUIRE(kit_sql(path.text, "UPDATE meta SET version = 99; PRAGMA user_version=99"));
    kit_op(&k, &op, HF_TAKE, HF_LEASES, &key);
    op.token = kit_token(1);
    kit_run(&k, &op);
    CHECK_INT(op.error.code, HF_ESCHEMA);
    hf_op_reset(&op);
    kit_fini(&k);
    CHECK_INT(open_error(path.text, NULL).code, HF_ESCHEMA);
}

TEST(a_damaged_database_is_told_and_does_not_crash) {
    kit_path path = kit_file("damaged.db");
    char junk[4096];
    hf_error error;
    int fd;
    kit k;

    kit_init(&k, path.text, NULL, 0);
    for (uint64_t i = 1; i < 300; i++) {
        char key[32];
        snprintf(key, sizeof key, "key%d", (int)i);
        kit_take(&k, key, i, NULL);
    }
    kit_fini(&k);
    memset(junk, 0xa5, sizeof junk);
    fd = open(path.text, O_WRONLY);
    REQUIRE(fd >= 0);
    for (off_t page = 1; page < 12; page++)
        CHECK_INT(pwrite(fd, junk, sizeof junk, page * 4096), 4096);
    close(fd);
    error = open_error(path.text, NULL);
    CHECK_INT(error.code, HF_ENOTADB);
    CHECK(strstr(error.message, "damaged") != NULL);
}

/* As root all is permitted: the test then becomes somebody else, in a child. */
static int unprivileged(int (*run)(void *data), void *data) {
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(99);
        _exit(run(data));
    }
    return kit_wait_for(pid);
}

static int open_code(void *data) {
    hf_error error;
    kit k;

    kit_init(&k, data, NULL, KIT_BLOCKING);
    error = kit_open(&k);
    kit_fini(&k);
    return (int)error.code;
}

TEST(missing_permissions_are_told_apart) {
    kit_path folder = kit_file("folder");
    kit_path path = kit_file("folder/a.db");
    kit k;

    kit_init(&k, kit_file("made.db").text, NULL, KIT_BLOCKING);
    CHECK(kit_put(&k, "k", "v", 1, NULL));
    kit_fini(&k);
    REQUIRE(chmod(hf_test_folder(), 0755) == 0 && mkdir(folder.text, 0755) == 0);
    REQUIRE(kit_copy(kit_file("made.db").text, path.text));
    REQUIRE(getuid() != 0 || chown(path.text, 65534, 65534) == 0);

    REQUIRE(chmod(folder.text, 0555) == 0); /* no log can be made */
    CHECK_INT(unprivileged(open_code, path.text), HF_EREADONLY);
    REQUIRE(chmod(folder.text, 0777) == 0 && chmod(path.text, 0444) == 0);
    CHECK_INT(unprivileged(open_code, path.text), HF_EREADONLY);
    REQUIRE(chmod(path.text, 0000) == 0);
    CHECK_INT(unprivileged(open_code, path.text), HF_EACCES);
    REQUIRE(chmod(path.text, 0600) == 0);
    CHECK_INT(unprivileged(open_code, path.text), HF_OK);
    REQUIRE(chmod(folder.text, 0600) == 0); /* not to be searched */
    CHECK_INT(unprivileged(open_code, path.text), HF_EACCES);
    chmod(folder.text, 0700);
}

/* Mounts in a namespace of its own, so that nothing is left behind whatever happens. */
static bool mount_private(const char *where, const char *options) {
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", where, "tmpfs", 0, options) == 0;
}

#define CANNOT_MOUNT 77

static int on_read_only_disk(void *data) {
    kit_path path = kit_file("disk/a.db");

    (void)data;
    if (!mount_private(kit_file("disk").text, "size=4m")) return CANNOT_MOUNT;
    if (open_code(path.text) != HF_OK) return 1;
    if (mount(NULL, kit_file("disk").text, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0) return 2;
    return open_code(path.text);
}

TEST(a_read_only_disk_is_told) {
    int status;

    REQUIRE(mkdir(kit_file("disk").text, 0755) == 0);
    status = kit_wait_for(kit_fork(on_read_only_disk, NULL));
    if (status == CANNOT_MOUNT) SKIP("mounting needs root");
    CHECK_INT(status, HF_EREADONLY);
}

TEST(network_file_systems_are_known) {
    CHECK(hf__sqlite_is_network(0x6969, "nfs4"));
    CHECK(hf__sqlite_is_network(0xFF534D42, "cifs"));
    CHECK(hf__sqlite_is_network(0x65735546, "fuse.sshfs"));
    CHECK(!hf__sqlite_is_network(0x65735546, "fuseblk"));
    CHECK(!hf__sqlite_is_network(0x65735546, ""));
    CHECK(!hf__sqlite_is_network(0xEF53, "ext4"));
    CHECK(!hf__sqlite_is_network(0x794c7630, "overlay"));
}

TEST(the_type_of_a_mount_is_found) {
    struct stat status;
    char name[32] = "?";

    if (access("/proc/self/mountinfo", R_OK) != 0 || stat("/proc/self", &status) != 0)
        SKIP("there is no mountinfo");
    hf__sqlite_mount_type(status.st_dev, name, sizeof name);
    CHECK_STR(name, "proc");
    hf__sqlite_mount_type((dev_t)-1, name, sizeof name);
    CHECK_STR(name, "");
}

TEST(long_paths_are_shown_by_their_end) {
    char path[400];

    memset(path, 'x', sizeof path);
    /* A character of two bytes lies across the cut. */
    path[sizeof path - 98] = (char)0xc3;
    path[sizeof path - 97] = (char)0xa4;
    path[sizeof path - 1] = '\0';
    CHECK_UINT(strlen(hf__sqlite_shown(path)), 95);
    CHECK_STR(hf__sqlite_shown("/a/b.db"), "/a/b.db");
}

TEST(an_open_that_failed_may_be_tried_again) {
    kit_path folder = kit_file("later");
    kit_path path = kit_file("later/a.db");
    kit k;

    kit_init(&k, path.text, NULL, 0);
    CHECK_INT(kit_open(&k).code, HF_ENOENT);
    REQUIRE(mkdir(folder.text, 0755) == 0);
    CHECK(kit_take(&k, "k", 1, NULL));
    kit_fini(&k);
}

/* ---------------------------------------------------------------- the lock of others */

TEST(a_lock_held_too_long_by_another_is_busy_and_passes) {
    kit_path path = kit_file("busy.db");
    hf_slice key = kit_slice("k");
    sqlite3 *other = NULL;
    hf_op op;
    kit k;

    kit_init(&k, path.text, "busyTimeout=20", 0);
    CHECK(kit_take(&k, "k", 1, NULL));
    REQUIRE(sqlite3_open(path.text, &other) == SQLITE_OK);
    REQUIRE(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    kit_op(&k, &op, HF_KEEP, HF_LEASES, &key);
    op.token = kit_token(1);
    kit_run(&k, &op);
    CHECK_INT(op.error.code, HF_EBUSY);
    CHECK_UINT(op.error.flags, HF_RETRYABLE);
    hf_op_reset(&op);
    /* Reading needs no lock. */
    kit_op(&k, &op, HF_LIST, HF_LEASES, &key);
    kit_run(&k, &op);
    CHECK(op.applied);
    CHECK_UINT(op.n_rows, 1);
    hf_op_reset(&op);
    REQUIRE(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    CHECK(kit_keep(&k, "k", 1));
    sqlite3_close(other);
    kit_fini(&k);
}

/* ---------------------------------------------------------------- epochs */

TEST(another_boot_ends_all_leases_and_raises_fences_and_versions) {
    kit_path path = kit_file("boot.db");
    uint64_t fence[3];
    uint64_t version[2];
    char value[8];
    kit k;

    kit_init(&k, path.text, NULL, KIT_FAKE_CLOCK);
    CHECK(kit_take(&k, "k", 1, &fence[0]));
    CHECK(kit_put(&k, "v", "1", 1, &version[0]));
    CHECK(!kit_take(&k, "k", 2, NULL));
    kit_pass(&k, 5);
    kit_set_boot(&k, "boot-b");
    k.boot_ns = 1000; /* it counts from the boot */
    CHECK(kit_get(&k, "v", value, sizeof value, NULL));
    CHECK(!kit_keep(&k, "k", 1));
    CHECK(kit_take(&k, "k", 2, &fence[1]));
    CHECK(fence[1] > fence[0]);
    CHECK(fence[1] >= k.real_us);
    CHECK(kit_put(&k, "v", "2", 2, &version[1]));
    CHECK(version[1] > version[0]);
    CHECK(kit_drop(&k, "k", 2));
    CHECK(kit_take(&k, "k", 3, &fence[2]));
    CHECK(fence[2] > fence[1]);
    kit_fini(&k);
}

TEST(nothing_of_another_boot_is_shown_before_the_first_write) {
    kit_path path = kit_file("shown.db");
    hf_slice key = kit_slice("r");
    hf_slice lock = kit_slice("k");
    hf_op op;
    kit k;

    kit_init(&k, path.text, NULL, KIT_FAKE_CLOCK);
    CHECK(kit_take(&k, "k", 1, NULL));
    kit_op(&k, &op, HF_PUT, HF_RECORDS, &key);
    op.token = kit_token(7);
    op.condition = HF_IF_CLAIMABLE;
    op.lease_ms = 30000;
    op.ttl_ms = 60000;
    kit_run(&k, &op);
    CHECK(op.applied);
    hf_op_reset(&op);
    kit_set_boot(&k, "boot-b");
    k.boot_ns = 1000;
    kit_op(&k, &op, HF_LIST, HF_LEASES, &lock);
    kit_run(&k, &op);
    CHECK_UINT(op.n_rows, 0);
    hf_op_reset(&op);
    kit_op(&k, &op, HF_GET, HF_RECORDS, &key);
    kit_run(&k, &op);
    CHECK(op.entry.present && op.entry.claimed);
    CHECK_UINT(op.entry.lease_left_ms, 0);
    hf_op_reset(&op);
    kit_op(&k, &op, HF_PUT, HF_RECORDS, &key);
    op.token = kit_token(8);
    op.condition = HF_IF_CLAIMABLE;
    op.lease_ms = 30000;
    kit_run(&k, &op);
    CHECK(op.applied);
    CHECK_UINT(op.attempt, 2);
    hf_op_reset(&op);
    kit_fini(&k);
}

TEST(a_file_that_two_machines_use_is_noticed) {
    kit_path path = kit_file("shared.db");
    hf_slice key = kit_slice("k");
    hf_op op;
    kit a;
    kit b;

    kit_init(&a, path.text, NULL, KIT_FAKE_CLOCK);
    kit_init(&b, path.text, NULL, KIT_FAKE_CLOCK);
    kit_set_boot(&b, "boot-b");
    CHECK(kit_take(&a, "k", 1, NULL));
    CHECK(kit_keep(&a, "k", 1));
    CHECK(kit_take(&b, "k", 2, NULL)); /* so far, a machine that was booted anew */
    kit_op(&a, &op, HF_KEEP, HF_LEASES, &key);
    op.token = kit_token(1);
    kit_run(&a, &op);
    CHECK_INT(op.error.code, HF_ENETFS);
    hf_op_reset(&op);
    CHECK(kit_keep(&b, "k", 2));
    kit_fini(&a);
    kit_fini(&b);
}

TEST(an_older_copy_put_back_after_a_boot_has_greater_fences) {
    kit_path path = kit_file("copy.db");
    kit_path copy = kit_file("copy.bak");
    uint64_t fence[2];
    kit k;

    kit_init(&k, path.text, NULL, KIT_FAKE_CLOCK);
    CHECK(kit_take(&k, "k", 1, NULL));
    kit_fini(&k);
    REQUIRE(kit_copy(path.text, copy.text));
    kit_init(&k, path.text, NULL, KIT_FAKE_CLOCK);
    for (uint64_t i = 1; i <= 20; i++) {
        kit_take(&k, "k", i, &fence[0]);
        kit_drop(&k, "k", i);
    }
    kit_fini(&k);
    REQUIRE(kit_copy(copy.text, path.text));
    kit_init(&k, path.text, NULL, KIT_FAKE_CLOCK);
    kit_set_boot(&k, "boot-b");
    CHECK(kit_take(&k, "k", 100, &fence[1]));
    CHECK(fence[1] > fence[0]);
    kit_fini(&k);
}

/* ---------------------------------------------------------------- the file vanishes */

static void remove_all(const char *path) {
    char name[300];

    unlink(path);
    snprintf(name, sizeof name, "%s-wal", path);
    unlink(name);
    snprintf(name, sizeof name, "%s-shm", path);
    unlink(name);
}

TEST(a_deleted_file_is_noticed_told_and_made_anew) {
    kit_path path = kit_file("gone.db");
    uint64_t fence[2];
    kit k;

    kit_init(&k, path.text, NULL, 0);
    CHECK(kit_take(&k, "k", 1, &fence[0]));
    remove_all(path.text);
    CHECK(!kit_keep(&k, "k", 1));
    CHECK_INT(k.warnings, 1);
    CHECK_INT(k.warned, HF_EMOVED);
    CHECK(kit_take(&k, "k", 2, &fence[1]));
    CHECK(fence[1] > fence[0]);
    CHECK_INT(k.warnings, 1);
    kit_fini(&k);
}

TEST(a_replaced_file_is_the_one_that_counts) {
    kit_path path = kit_file("old.db");
    kit_path other = kit_file("other.db");
    char value[8];
    kit k;

    kit_init(&k, other.text, NULL, 0);
    CHECK(kit_put(&k, "k", "other", 1, NULL));
    kit_fini(&k);
    kit_init(&k, path.text, NULL, 0);
    CHECK(kit_put(&k, "k", "old", 1, NULL));
    remove_all(path.text);
    REQUIRE(rename(other.text, path.text) == 0);
    CHECK(kit_get(&k, "k", value, sizeof value, NULL));
    CHECK_STR(value, "other");
    CHECK_INT(k.warned, HF_EMOVED);
    kit_fini(&k);
}

TEST(a_log_deleted_alone_is_noticed) {
    kit_path path = kit_file("log.db");
    char wal[300];
    char value[8];
    kit k;

    kit_init(&k, path.text, NULL, 0);
    CHECK(kit_put(&k, "k", "1", 1, NULL));
    snprintf(wal, sizeof wal, "%s-wal", path.text);
    REQUIRE(unlink(wal) == 0);
    CHECK(kit_put(&k, "k", "2", 2, NULL));
    CHECK_INT(k.warned, HF_EMOVED);
    CHECK_INT(access(wal, F_OK), 0);
    CHECK(kit_get(&k, "k", value, sizeof value, NULL));
    CHECK_STR(value, "2");
    kit_fini(&k);
}

/* ---------------------------------------------------------------- batches */

enum { MANY = 100 };

/* MANY ops on keys of their own. */
struct many {
    hf_op ops[MANY];
    char keys[MANY][16];
    hf_slice slices[MANY];
};

static void fill_many(kit *k, struct many *many, hf_verb verb, hf_space space) {
    for (int i = 0; i < MANY; i++) {
        snprintf(many->keys[i], sizeof many->keys[i], "key%03d", i);
        many->slices[i] = kit_slice(many->keys[i]);
        kit_op(k, &many->ops[i], verb, space, &many->slices[i]);
        many->ops[i].token = kit_token((uint64_t)i + 1);
        many->ops[i].value = many->slices[i];
        if (i > 0) many->ops[i - 1].next = &many->ops[i];
    }
}

static void count_syncs(unsigned flags, bool together) {
    static struct many many;
    uint64_t before;
    kit k;

    powerloss_install();
    kit_init(&k, kit_file("syncs.db").text, NULL, flags);
    REQUIRE_INT(kit_open(&k).code, HF_OK);
    CHECK(kit_put(&k, "first", "", 1, NULL));
    before = powerloss_syncs();
    fill_many(&k, &many, HF_PUT, HF_VALUES);
    for (int i = 0; !together && i < MANY; i++)
        many.ops[i].next = NULL;
    for (int i = 0; i < (together ? 1 : MANY); i++)
        kit_submit(&k, &many.ops[i]);
    kit_wait(&k);
    CHECK_UINT(powerloss_syncs() - before, 1);
    for (int i = 0; i < MANY; i++)
        CHECK(many.ops[i].applied);
    /* Leases wait for no disk. */
    before = powerloss_syncs();
    fill_many(&k, &many, HF_TAKE, HF_LEASES);
    kit_run(&k, &many.ops[0]);
    CHECK_UINT(powerloss_syncs() - before, 0);
    kit_fini(&k);
    powerloss_uninstall();
}

TEST(ops_of_one_turn_are_one_commit) {
    count_syncs(0, true);
}

TEST(ops_of_one_turn_are_one_commit_where_the_thread_blocks) {
    count_syncs(KIT_BLOCKING, true);
}

TEST(ops_submitted_one_by_one_are_one_commit) {
    count_syncs(0, false);
}

TEST(more_than_one_batch_keeps_the_order) {
    enum { N = 3000 };
    static hf_op ops[N];
    hf_slice key = kit_slice("k");
    kit k;

    kit_init(&k, kit_file("order.db").text, NULL, 0);
    for (int i = 0; i < N; i++) {
        kit_op(&k, &ops[i], HF_ADD, HF_VALUES, &key);
        ops[i].delta = 1;
        kit_submit(&k, &ops[i]);
    }
    kit_wait(&k);
    for (int i = 0; i < N; i++)
        CHECK_INT(ops[i].sum, i + 1);
    kit_fini(&k);
}

static void is_cancelled(hf_op *op) {
    *(int *)op->data += op->error.code == HF_ECANCELED ? 1 : 100;
}

TEST(cancelling_ends_what_has_not_begun) {
    hf_slice key = kit_slice("k");
    int cancelled = 0;
    char value[8];
    hf_op op;
    kit k;

    for (unsigned flags = 0; flags <= KIT_BLOCKING; flags++) {
        kit_init(&k, kit_file("cancel.db").text, NULL, flags);
        REQUIRE_INT(kit_open(&k).code, HF_OK);
        kit_op(&k, &op, HF_PUT, HF_VALUES, &key);
        op.done = is_cancelled;
        op.data = &cancelled;
        kit_submit(&k, &op);
        k.store->vt->cancel(k.store, &op);
        CHECK_INT(cancelled, 0); /* never inside the call */
        CHECK(!kit_get(&k, "k", value, sizeof value, NULL));
        CHECK_INT(cancelled, 1);
        cancelled = 0;
        kit_fini(&k);
    }
}

TEST(closing_ends_first_what_was_accepted) {
    static struct many many;
    hf_op close_op;
    kit k;

    for (unsigned flags = 0; flags <= KIT_BLOCKING; flags++) {
        kit_init(&k, kit_file("close.db").text, NULL, flags);
        fill_many(&k, &many, HF_TAKE, HF_LEASES);
        kit_submit(&k, &many.ops[0]);
        k.store->vt->cancel(k.store, &many.ops[50]);
        hf_op_init(&close_op, HF_CLOSE, NULL, NULL);
        kit_run(&k, &close_op);
        for (int i = 0; i < MANY; i++)
            CHECK(i == 50 ? many.ops[i].error.code == HF_ECANCELED : many.ops[i].applied);
        hf__store_free(k.store);
        uv_run(&k.loop, UV_RUN_DEFAULT);
        CHECK_INT(uv_loop_close(&k.loop), 0);
        hf__url_free(&k.url, k.env.allocator);
        remove_all(kit_file("close.db").text);
    }
}

TEST(an_idle_store_does_not_keep_the_loop_alive) {
    kit k;

    kit_init(&k, kit_file("idle.db").text, NULL, 0);
    REQUIRE_INT(kit_open(&k).code, HF_OK);
    CHECK_INT(uv_run(&k.loop, UV_RUN_DEFAULT), 0);
    CHECK_INT(uv_loop_alive(&k.loop), 0);
    kit_fini(&k);
}

/* ---------------------------------------------------------------- disks */

TEST(a_full_disk_fails_the_write_that_needs_room_and_no_other) {
    static char large[600000];
    hf_slice keys[2] = {kit_slice("large"), kit_slice("small")};
    hf_op ops[2];
    char value[8];
    kit k;

    powerloss_install();
    kit_init(&k, kit_file("full.db").text, NULL, 0);
    CHECK(kit_put(&k, "k", "v", 1, NULL));
    powerloss_set_quota(400000);
    for (int i = 0; i < 2; i++) {
        kit_op(&k, &ops[i], HF_PUT, HF_VALUES, &keys[i]);
        ops[i].token = kit_token(9);
        ops[i].value = i == 0 ? (hf_slice){large, sizeof large} : kit_slice("v");
    }
    ops[0].next = &ops[1];
    kit_run(&k, &ops[0]);
    CHECK_INT(ops[0].error.code, HF_EFULL);
    CHECK_UINT(ops[0].error.flags & HF_OUTCOME_UNKNOWN, 0);
    CHECK(ops[1].applied);
    CHECK_UINT(ops[1].version > 0, 1);
    hf_op_reset(&ops[0]);
    hf_op_reset(&ops[1]);
    CHECK(!kit_get(&k, "large", value, sizeof value, NULL));
    CHECK(kit_get(&k, "k", value, sizeof value, NULL));
    powerloss_set_quota(0);
    kit_op(&k, &ops[0], HF_PUT, HF_VALUES, &keys[0]);
    ops[0].token = kit_token(9);
    ops[0].value = (hf_slice){large, sizeof large};
    kit_run(&k, &ops[0]);
    CHECK_INT(ops[0].error.code, HF_EFULL);
    hf_op_reset(&ops[0]);
    powerloss_set_quota(-1); /* there is room again */
    CHECK(kit_put(&k, "k", "w", 2, NULL));
    kit_fini(&k);
    powerloss_uninstall();
    kit_init(&k, kit_file("full.db").text, NULL, 0);
    CHECK(kit_get(&k, "k", value, sizeof value, NULL));
    CHECK_STR(value, "w");
    CHECK(kit_get(&k, "small", value, sizeof value, NULL));
    kit_fini(&k);
}

static int on_small_disk(void *data) {
    static char large[100000];
    hf_slice key = kit_slice("large");
    int acknowledged = 0;
    char name[32];
    hf_error error;
    hf_op op;
    kit k;

    (void)data;
    if (!mount_private(kit_file("small").text, "size=1m")) return CANNOT_MOUNT;
    kit_init(&k, kit_file("small/a.db").text, NULL, KIT_BLOCKING);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "large%d", i);
        key = kit_slice(name);
        kit_op(&k, &op, HF_PUT, HF_VALUES, &key);
        op.value = (hf_slice){large, sizeof large};
        kit_run(&k, &op);
        error = op.error;
        acknowledged += op.applied;
        hf_op_reset(&op);
        if (error.code != HF_OK) break;
    }
    for (int i = 0; i < acknowledged; i++) {
        snprintf(name, sizeof name, "large%d", i);
        if (!kit_get(&k, name, large, 1, NULL)) return 101;
    }
    kit_fini(&k);
    return acknowledged == 0 || acknowledged == 100 ? 100 : (int)error.code;
}

TEST(a_disk_that_is_really_full_loses_nothing_acknowledged) {
    int status;

    REQUIRE(mkdir(kit_file("small").text, 0755) == 0);
    status = kit_wait_for(kit_fork(on_small_disk, NULL));
    if (status == CANNOT_MOUNT) SKIP("mounting needs root");
    CHECK_INT(status, HF_EFULL);
}

TEST(a_sync_that_fails_leaves_the_outcome_unknown) {
    hf_slice key = kit_slice("k");
    char value[8];
    hf_op op;
    kit k;

    powerloss_install();
    kit_init(&k, kit_file("sync.db").text, NULL, 0);
    CHECK(kit_put(&k, "k", "1", 1, NULL));
    powerloss_fail_syncs(true);
    kit_op(&k, &op, HF_PUT, HF_VALUES, &key);
    op.token = kit_token(2);
    op.value = kit_slice("2");
    kit_run(&k, &op);
    CHECK_INT(op.error.code, HF_EIO);
    CHECK(op.error.flags & HF_OUTCOME_UNKNOWN);
    CHECK(!op.applied);
    hf_op_reset(&op);
    powerloss_fail_syncs(false);
    CHECK(kit_get(&k, "k", value, sizeof value, NULL));
    CHECK_STR(value, "1");
    CHECK(kit_put(&k, "k", "3", 3, NULL));
    kit_fini(&k);
    powerloss_uninstall();
}

/* ---------------------------------------------------------------- sweeping */

TEST(a_sweep_of_an_expired_entry_keeps_its_fence_for_a_day) {
    hf_slice key = kit_slice("v");
    uint64_t rows[4];
    hf_op op;
    kit k;

    kit_init(&k, kit_file("sweep.db").text, NULL, KIT_FAKE_CLOCK);
    kit_op(&k, &op, HF_PUT, HF_VALUES, &key);
    op.ttl_ms = 1000;
    op.fence_key = kit_slice("lock");
    op.fence_in = 7;
    kit_run(&k, &op);
    CHECK(op.applied);
    hf_op_reset(&op);
    for (int i = 0; i < 4; i++) {
        kit_pass(&k, i == 2 ? HF__TOMBSTONE_MS : 500);
        kit_op(&k, &op, HF_SWEEP, HF_LEASES, &key);
        op.limit = 10;
        kit_run(&k, &op);
        rows[i] = op.swept;
        hf_op_reset(&op);
        if (i != 1) continue;
        kit_op(&k, &op, HF_PUT, HF_VALUES, &key);
        op.fence_key = kit_slice("lock");
        op.fence_in = 6;
        kit_run(&k, &op);
        CHECK_INT(op.refused, HF_REFUSED_FENCE);
        CHECK_UINT(op.fence, 7);
        hf_op_reset(&op);
    }
    CHECK_UINT(rows[0], 0);
    CHECK_UINT(rows[1], 1);
    CHECK_UINT(rows[2], 1);
    CHECK_UINT(rows[3], 0);
    kit_fini(&k);
}

TEST(lapsed_rows_of_a_key_go_with_its_next_take) {
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    kit k;

    kit_init(&k, kit_file("lapsed.db").text, NULL, KIT_FAKE_CLOCK);
    for (uint64_t i = 1; i <= 5; i++) {
        CHECK(kit_take(&k, "k", i, NULL));
        kit_pass(&k, 30001);
    }
    CHECK(kit_take(&k, "k", 6, NULL));
    REQUIRE(sqlite3_open(kit_file("lapsed.db").text, &db) == SQLITE_OK);
    REQUIRE(sqlite3_prepare_v2(db, "SELECT count(*) FROM lease", -1, &st, NULL) == SQLITE_OK);
    CHECK_INT(sqlite3_step(st), SQLITE_ROW);
    CHECK_INT(sqlite3_column_int(st, 0), 1);
    sqlite3_finalize(st);
    sqlite3_close(db);
    kit_fini(&k);
}

/* ---------------------------------------------------------------- watching */

struct hint {
    hf__watch watch;
    int fired;
};

static void on_hint(hf__watch *watch) {
    ((struct hint *)watch->data)->fired++;
}

static void watch_key(kit *k, struct hint *hint, const char *key, hf_space space) {
    *hint = (struct hint){.fired = 0};
    hint->watch.fire = on_hint;
    hint->watch.data = hint;
    hint->watch.key = kit_slice(key);
    hint->watch.space = (uint8_t)space;
    k->store->vt->watch(k->store, &hint->watch);
}

static void on_tick(uv_timer_t *timer) {
    (void)timer;
}

/* Turns the loop until the hint has come. */
static void wait_for_hint(kit *k, const struct hint *hint, int count) {
    uv_timer_t tick;

    uv_timer_init(&k->loop, &tick);
    uv_timer_start(&tick, on_tick, 5, 5);
    while (hint->fired < count)
        uv_run(&k->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&k->loop, UV_RUN_NOWAIT);
}

TEST(a_watch_hears_of_a_release_by_another_instance) {
    struct hint hint;
    kit a;
    kit b;

    kit_init(&a, kit_file("watch.db").text, NULL, 0);
    kit_init(&b, kit_file("watch.db").text, NULL, KIT_BLOCKING);
    CHECK(kit_take(&b, "k", 1, NULL));
    REQUIRE_INT(kit_open(&a).code, HF_OK);
    watch_key(&a, &hint, "k", HF_LEASES);
    CHECK(!kit_take(&a, "k", 2, NULL));
    CHECK(kit_drop(&b, "k", 1));
    wait_for_hint(&a, &hint, 1);
    CHECK(kit_take(&a, "k", 2, NULL));
    a.store->vt->unwatch(a.store, &hint.watch);
    kit_fini(&a);
    kit_fini(&b);
}

/* A key that changes hands is still not free; that somebody else let go elsewhere is no news. The
 * loop is turned until a later change has been seen, so that the earlier ones have been, too. */
TEST(a_watch_is_quiet_while_its_key_stays_held) {
    struct hint hint;
    struct hint other;
    char value[8];
    kit a;
    kit b;

    kit_init(&a, kit_file("quiet.db").text, NULL, 0);
    kit_init(&b, kit_file("quiet.db").text, NULL, KIT_BLOCKING);
    CHECK(kit_take(&b, "k", 1, NULL));
    REQUIRE_INT(kit_open(&a).code, HF_OK);
    watch_key(&a, &hint, "k", HF_LEASES);
    watch_key(&a, &other, "v", HF_VALUES);
    CHECK(!kit_take(&a, "k", 2, NULL));
    CHECK(!kit_get(&a, "v", value, sizeof value, NULL));
    CHECK(kit_take(&b, "elsewhere", 3, NULL));
    CHECK(kit_keep(&b, "k", 1));
    CHECK(kit_put(&b, "v", "1", 1, NULL));
    wait_for_hint(&a, &other, 1);
    CHECK_INT(hint.fired, 0);
    a.store->vt->unwatch(a.store, &hint.watch);
    a.store->vt->unwatch(a.store, &other.watch);
    kit_fini(&a);
    kit_fini(&b);
}

TEST(a_watch_before_the_file_is_open_misses_nothing) {
    struct hint hint;
    kit a;
    kit b;

    kit_init(&b, kit_file("early.db").text, NULL, KIT_BLOCKING);
    CHECK(kit_take(&b, "k", 1, NULL));
    kit_init(&a, kit_file("early.db").text, NULL, 0);
    watch_key(&a, &hint, "k", HF_LEASES);
    CHECK(!kit_take(&a, "k", 2, NULL));
    CHECK(kit_drop(&b, "k", 1));
    wait_for_hint(&a, &hint, 1);
    a.store->vt->unwatch(a.store, &hint.watch);
    kit_fini(&a);
    kit_fini(&b);
}

TEST(a_watch_whose_events_are_lost_still_hears) {
    hf__sqlite_instance *instance;
    struct hint hint;
    kit a;
    kit b;

    kit_init(&a, kit_file("deaf.db").text, NULL, 0);
    kit_init(&b, kit_file("deaf.db").text, NULL, KIT_BLOCKING);
    CHECK(kit_take(&b, "k", 1, NULL));
    REQUIRE_INT(kit_open(&a).code, HF_OK);
    watch_key(&a, &hint, "k", HF_LEASES);
    CHECK(!kit_take(&a, "k", 2, NULL));
    instance = hf__of(a.store, hf__sqlite_instance, base);
    CHECK(instance->armed);
    uv_fs_event_stop(&instance->events);
    CHECK(kit_drop(&b, "k", 1));
    wait_for_hint(&a, &hint, 1);
    a.store->vt->unwatch(a.store, &hint.watch);
    kit_fini(&a);
    kit_fini(&b);
}

TEST(a_watch_survives_a_replaced_file) {
    struct hint hint;
    kit a;
    kit b;

    kit_init(&a, kit_file("moved.db").text, NULL, 0);
    CHECK(kit_take(&a, "k", 1, NULL));
    watch_key(&a, &hint, "k", HF_LEASES);
    remove_all(kit_file("moved.db").text);
    kit_init(&b, kit_file("moved.db").text, NULL, KIT_BLOCKING);
    CHECK(kit_take(&b, "k", 2, NULL));
    wait_for_hint(&a, &hint, 1); /* the poll found it */
    CHECK_INT(a.warned, HF_EMOVED);
    CHECK(!kit_take(&a, "k", 3, NULL));
    hint.fired = 0;
    CHECK(kit_drop(&b, "k", 2));
    wait_for_hint(&a, &hint, 1);
    a.store->vt->unwatch(a.store, &hint.watch);
    kit_fini(&a);
    kit_fini(&b);
}
