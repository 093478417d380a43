/*
 * From SQLite's result codes, and from what the file system says, to errors that tell what to do.
 */
#include "driver/sqlite.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#endif

#define SHOWN_MAX 96

const char *hf__sqlite_shown(const char *path) {
    size_t len = strlen(path);
    const char *end;

    if (len <= SHOWN_MAX) return path;
    end = path + len - SHOWN_MAX;
    /* Not from the middle of a character. */
    while (((unsigned char)*end & 0xc0) == 0x80)
        end++;
    return end;
}

static hf_code say(hf_error *error, hf_code code, uint32_t flags, int native, const char *path,
                   const char *text) {
    return hf__error_native(error, code, flags, native, "%s %s", hf__sqlite_shown(path), text);
}

/* ---------------------------------------------------------------- file systems */

/* Magic numbers of statfs(2), as the kernel's headers have them. */
static const uint64_t network_magic[] = {
    UINT64_C(0x6969),     /* nfs */
    UINT64_C(0xFF534D42), /* cifs */
    UINT64_C(0xFE534D42), /* smb2 */
    UINT64_C(0x517B),     /* smb */
    UINT64_C(0x564C),     /* ncp */
    UINT64_C(0x00C36400), /* ceph */
    UINT64_C(0x5346414F), /* afs */
    UINT64_C(0x6B414653), /* the kernel's afs */
    UINT64_C(0x01021997), /* 9p */
    UINT64_C(0x73757245), /* coda */
    UINT64_C(0x0BD00BD0), /* lustre */
    UINT64_C(0x01161970), /* gfs2 */
    UINT64_C(0x7461636F), /* ocfs2 */
    UINT64_C(0x47504653), /* gpfs */
    UINT64_C(0x19830326), /* beegfs */
};

#define MAGIC_FUSE UINT64_C(0x65735546)

/* A file system in user space may be anything: its subtype tells. Local ones (fuseblk, mergerfs,
 * gocryptfs and so on) stay allowed. */
static const char *const network_fuse[] = {
    "fuse.sshfs",         "fuse.s3fs",        "fuse.glusterfs", "fuse.ceph",      "fuse.ceph-fuse",
    "fuse.cephfs",        "fuse.gcsfuse",     "fuse.rclone",    "fuse.goofys",    "fuse.curlftpfs",
    "fuse.davfs",         "fuse.davfs2",      "fuse.juicefs",   "fuse.JuiceFS",   "fuse.mount-s3",
    "fuse.mountpoint-s3", "fuse.blobfuse",    "fuse.blobfuse2", "fuse.seaweedfs", "fuse.smbnetfs",
    "fuse.mfs",           "fuse.vmhgfs-fuse",
};

bool hf__sqlite_is_network(uint64_t type, const char *name) {
    for (size_t i = 0; i < sizeof network_magic / sizeof network_magic[0]; i++) {
        if (network_magic[i] == type) return true;
    }
    if (type != MAGIC_FUSE) return false;
    for (size_t i = 0; i < sizeof network_fuse / sizeof network_fuse[0]; i++) {
        if (strcmp(network_fuse[i], name) == 0) return true;
    }
    return false;
}

#if defined(__linux__)
/* Whether a line of mountinfo is of `device`: "36 35 98:0 /mnt1 /mnt2 rw master:1 - ext3 /dev/a" */
static bool is_of_device(const char *line, dev_t device) {
    const char *at = line;
    unsigned long number;
    char *end;

    for (int field = 0; field < 2 && at != NULL; field++) {
        at = strchr(at, ' ');
        if (at != NULL) at++;
    }
    if (at == NULL) return false;
    number = strtoul(at, &end, 10);
    return *end == ':' && number == major(device) && strtoul(end + 1, NULL, 10) == minor(device);
}

void hf__sqlite_mount_type(dev_t device, char *name, size_t size) {
    char line[PATH_MAX + 512];
    FILE *f = fopen("/proc/self/mountinfo", "re");

    name[0] = '\0';
    if (f == NULL) return;
    while (name[0] == '\0' && fgets(line, sizeof line, f) != NULL) {
        const char *dash = strstr(line, " - ");

        if (dash == NULL || !is_of_device(line, device)) continue;
        dash += 3;
        (void)snprintf(name, size, "%.*s", (int)strcspn(dash, " \n"), dash);
    }
    (void)fclose(f);
}

static bool on_network(const char *folder) {
    struct statfs fs;
    struct stat status;
    char name[64] = "";
    uint64_t type;

    if (statfs(folder, &fs) != 0) return false;
    /* f_type is signed and may be as narrow as 32 bits. */
    type = (uint64_t)fs.f_type & UINT64_C(0xffffffff);
    if (type == MAGIC_FUSE && stat(folder, &status) == 0)
        hf__sqlite_mount_type(status.st_dev, name, sizeof name);
    return hf__sqlite_is_network(type, name);
}
#else
void hf__sqlite_mount_type(dev_t device, char *name, size_t size) {
    (void)device;
    (void)size;
    name[0] = '\0';
}

static bool on_network(const char *folder) {
    (void)folder;
    return false;
}
#endif

/* ---------------------------------------------------------------- paths */

/* The folder of the file that `path` leads to, links followed. */
static bool folder_of(const char *path, char folder[PATH_MAX]) {
    char real[PATH_MAX];
    const char *file = realpath(path, real) != NULL ? real : path;
    const char *slash = strrchr(file, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - file);

    if (len >= PATH_MAX) return false;
    (void)snprintf(folder, PATH_MAX, "%.*s", (int)len, file);
    if (slash == NULL) (void)snprintf(folder, PATH_MAX, ".");
    if (slash == file) (void)snprintf(folder, PATH_MAX, "/");
    return true;
}

static hf_code examine_folder(const char *path, const char *folder, hf_error *error) {
    struct stat status;

    if (stat(folder, &status) != 0) {
        int number = errno;
        if (number == EACCES)
            return say(error, HF_EACCES, 0, number, folder,
                       "may not be searched by this user: give it permission to the folder");
        if (number == ENOENT)
            return say(error, HF_ENOENT, 0, number, folder,
                       "does not exist: create the folder, or correct the path");
        if (number == ENOTDIR)
            return say(error, HF_ENOENT, 0, number, folder, "is no folder: correct the path");
        return hf__error_native(error, HF_EIO, 0, number, "%s: %s", hf__sqlite_shown(path),
                                strerror(number));
    }
    if (!S_ISDIR(status.st_mode))
        return say(error, HF_ENOENT, 0, ENOTDIR, folder, "is no folder: correct the path");
    if (on_network(folder))
        return say(error, HF_ENETFS, 0, 0, path,
                   "lies on a network file system, where file locks do not protect: move it to a "
                   "local disk, or use a server");
    return HF_OK;
}

static hf_code examine_file(const char *path, hf_error *error) {
    struct stat status;

    if (stat(path, &status) != 0) return HF_OK;
    if (!S_ISREG(status.st_mode))
        return say(error, HF_ENOTADB, 0, 0, path, "is no regular file: choose another path");
    if (access(path, R_OK) != 0 && errno == EACCES)
        return say(error, HF_EACCES, 0, EACCES, path,
                   "may not be read by this user: give it permission to read and write");
    if (access(path, W_OK) == 0) return HF_OK;
    if (errno == EROFS)
        return say(error, HF_EREADONLY, 0, EROFS, path,
                   "lies on a read-only file system: choose another place");
    return say(error, HF_EREADONLY, 0, errno, path,
               "is read-only: give this user write permission to it");
}

/* Beside the file stand its log and index: the folder must be writable too. */
static hf_code examine_rights(const char *folder, hf_error *error) {
    if (access(folder, W_OK | X_OK) == 0) return HF_OK;
    if (errno == EROFS)
        return say(error, HF_EREADONLY, 0, EROFS, folder,
                   "lies on a read-only file system: choose another place");
    if (access(folder, X_OK) != 0)
        return say(error, HF_EACCES, 0, errno, folder,
                   "may not be searched by this user: give it permission to the folder");
    return say(error, HF_EREADONLY, 0, EACCES, folder,
               "is a folder that this user cannot write: give it write permission, for the log "
               "beside the database");
}

hf_code hf__sqlite_examine(const char *path, hf_error *error) {
    char folder[PATH_MAX];

    hf__error_clear(error);
    if (!folder_of(path, folder))
        return hf__error_native(error, HF_ENOENT, 0, ENAMETOOLONG, "the path is too long");
    if (examine_folder(path, folder, error) != HF_OK) return error->code;
    if (examine_file(path, error) != HF_OK) return error->code;
    return examine_rights(folder, error);
}

/* ---------------------------------------------------------------- result codes */

static hf_code no_space(hf_error *error, int rc, const char *path) {
    return say(error, HF_EFULL, HF_RETRYABLE, rc, path,
               "cannot grow, the disk is full: make room; what was acknowledged is safe");
}

static hf_code from_io(hf__sqlite *c, int rc, hf_error *error) {
    const char *path = c->file->path;
    int number = sqlite3_system_errno(c->db);

    if (rc == SQLITE_IOERR_NOMEM) return hf__error_native(error, HF_ENOMEM, 0, rc, NULL);
    /* Growing the shared index on a full disk, or over a quota, is an I/O error to SQLite. */
    if (number == ENOSPC || number == EDQUOT) return no_space(error, rc, path);
    return hf__error_native(error, HF_EIO, 0, rc, "%s could not be read or written (%s%s%s)",
                            hf__sqlite_shown(path), sqlite3_errstr(rc), number ? ": " : "",
                            number ? strerror(number) : "");
}

static hf_code from_open(hf__sqlite *c, int rc, hf_error *error) {
    int number = sqlite3_system_errno(c->db);

    if (hf__sqlite_examine(c->file->path, error) != HF_OK) {
        if (error->native == 0) error->native = rc;
        return error->code;
    }
    if (number == ENOSPC || number == EDQUOT) return no_space(error, rc, c->file->path);
    return hf__error_native(error, HF_EIO, HF_RETRYABLE, rc, "%s could not be opened (%s)",
                            hf__sqlite_shown(c->file->path),
                            number ? strerror(number) : sqlite3_errstr(rc));
}

hf_code hf__sqlite_error(hf__sqlite *c, int rc, hf_error *error) {
    const char *path = c->file->path;

    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return say(error, HF_EBUSY, HF_RETRYABLE, rc, path,
                   "stayed locked by another process for longer than busyTimeout: find who holds a "
                   "transaction open");
    case SQLITE_NOMEM: return hf__error_native(error, HF_ENOMEM, 0, rc, NULL);
    case SQLITE_FULL: return no_space(error, rc, path);
    case SQLITE_TOOBIG: return hf__error_native(error, HF_ETOOBIG, 0, rc, NULL);
    case SQLITE_CANTOPEN: return from_open(c, rc, error);
    case SQLITE_IOERR: return from_io(c, rc, error);
    case SQLITE_AUTH:
    case SQLITE_PERM: return say(error, HF_EACCES, 0, rc, path, "may not be used by this user");
    case SQLITE_READONLY:
        return say(error, HF_EREADONLY, 0, rc, path,
                   "cannot be written: give this user write permission to it and its folder");
    case SQLITE_NOTADB:
        return say(error, HF_ENOTADB, 0, rc, path, "is no SQLite database: choose another file");
    case SQLITE_CORRUPT:
        return say(error, HF_ENOTADB, 0, rc, path,
                   "is damaged: restore it from a copy, or move it away with its -wal and -shm");
    default:
        return hf__error_native(error, HF_EIO, 0, rc, "%s: %s", hf__sqlite_shown(path),
                                sqlite3_errmsg(c->db));
    }
}
