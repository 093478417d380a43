#include "support-powerloss-vfs.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512

/* A write, or a truncation (data NULL, `at` the new size), not yet synced. */
struct change {
    struct change *next;
    unsigned char *data;
    size_t len;
    sqlite3_int64 at;
};

/* What the disk holds of a file. Stays when the file is deleted. */
struct image {
    struct image *next;
    char *path;
    unsigned char *certain;
    size_t len;
    size_t cap;
    struct change *changes;
    struct change **end;
    sqlite3_int64 size; /* as the process sees it */
    bool entry_certain; /* the name is in its folder for sure */
    bool deleted;
    bool deletion_certain;
};

struct file {
    sqlite3_file base;
    struct image *image; /* NULL: a temporary file, not our affair */
    sqlite3_file *real;  /* behind this struct */
};

static struct {
    pthread_mutex_t lock;
    sqlite3_vfs vfs;
    sqlite3_vfs *real;
    sqlite3_io_methods methods;
    struct image *images;
    uint64_t syncs;
    uint64_t steps;
    uint64_t cut_at;
    uint64_t random;
    char folder[256];
    int64_t quota;
    bool fail_syncs;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .quota = -1};

static void *must(void *p) {
    if (p == NULL) abort();
    return p;
}

static uint64_t draw(void) {
    state.random ^= state.random << 13;
    state.random ^= state.random >> 7;
    state.random ^= state.random << 17;
    return state.random;
}

/* ---------------------------------------------------------------- images */

static struct image *find_image(const char *path) {
    struct image *image;

    for (image = state.images; image != NULL; image = image->next) {
        if (strcmp(image->path, path) == 0) return image;
    }
    image = must(calloc(1, sizeof *image));
    image->path = must(strdup(path));
    image->end = &image->changes;
    image->deleted = true;
    image->deletion_certain = true;
    image->next = state.images;
    state.images = image;
    return image;
}

static void apply(struct image *image, const struct change *change, size_t len) {
    size_t end = (size_t)change->at + len;

    if (change->data == NULL) {
        if (image->len > (size_t)change->at) image->len = (size_t)change->at;
        return;
    }
    if (len == 0) return; /* torn before its first byte */
    if (end > image->cap) {
        image->cap = end * 2;
        image->certain = must(realloc(image->certain, image->cap));
    }
    if ((size_t)change->at > image->len)
        memset(image->certain + image->len, 0, (size_t)change->at - image->len);
    memcpy(image->certain + change->at, change->data, len);
    if (end > image->len) image->len = end;
}

static void drop_changes(struct image *image) {
    while (image->changes != NULL) {
        struct change *change = image->changes;
        image->changes = change->next;
        free(change->data);
        free(change);
    }
    image->end = &image->changes;
}

static void add_change(struct image *image, const void *data, size_t len, sqlite3_int64 at) {
    struct change *change = must(calloc(1, sizeof *change));

    if (data != NULL) {
        change->data = must(malloc(len));
        memcpy(change->data, data, len);
    }
    change->len = len;
    change->at = at;
    *image->end = change;
    image->end = &change->next;
}

static void make_certain(struct image *image) {
    for (const struct change *change = image->changes; change != NULL; change = change->next)
        apply(image, change, change->len);
    drop_changes(image);
}

/* ---------------------------------------------------------------- the power fails */

static void write_out(struct image *image) {
    const char *name = strrchr(image->path, '/');
    char path[600];
    FILE *f;

    for (const struct change *change = image->changes; change != NULL; change = change->next) {
        size_t len = change->len;
        if (draw() % 2 == 0) continue;
        if (change->data != NULL && draw() % 4 == 0) len = draw() % (len / SECTOR + 1) * SECTOR;
        apply(image, change, len);
    }
    snprintf(path, sizeof path, "%s%s", state.folder, name);
    f = must(fopen(path, "wb"));
    if (image->len > 0 && fwrite(image->certain, 1, image->len, f) != image->len) abort();
    if (fclose(f) != 0) abort();
}

static void fail_power(void) {
    for (struct image *image = state.images; image != NULL; image = image->next) {
        bool there = image->deleted ? !image->deletion_certain && draw() % 2 == 0
                                    : image->entry_certain || draw() % 2 == 0;
        if (there) write_out(image);
    }
    _exit(0);
}

/* Under the lock. */
static void step(void) {
    state.steps++;
    if (state.cut_at != 0 && state.steps >= state.cut_at) fail_power();
}

/* ---------------------------------------------------------------- files */

static struct file *of(sqlite3_file *file) {
    return (struct file *)(void *)file;
}

static int file_close(sqlite3_file *file) {
    struct file *f = of(file);
    return f->real->pMethods->xClose(f->real);
}

static int file_read(sqlite3_file *file, void *to, int n, sqlite3_int64 at) {
    struct file *f = of(file);
    return f->real->pMethods->xRead(f->real, to, n, at);
}

static int64_t all_sizes(void) {
    int64_t sum = 0;
    for (const struct image *image = state.images; image != NULL; image = image->next)
        sum += image->deleted ? 0 : image->size;
    return sum;
}

static int file_write(sqlite3_file *file, const void *from, int n, sqlite3_int64 at) {
    struct file *f = of(file);
    struct image *image = f->image;
    int rc = SQLITE_OK;

    if (image == NULL) return f->real->pMethods->xWrite(f->real, from, n, at);
    pthread_mutex_lock(&state.lock);
    step();
    if (state.quota >= 0 && at + n > image->size && all_sizes() + n > state.quota) rc = SQLITE_FULL;
    if (rc == SQLITE_OK) rc = f->real->pMethods->xWrite(f->real, from, n, at);
    if (rc == SQLITE_OK) {
        add_change(image, from, (size_t)n, at);
        if (at + n > image->size) image->size = at + n;
    }
    pthread_mutex_unlock(&state.lock);
    return rc;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size) {
    struct file *f = of(file);
    int rc;

    if (f->image == NULL) return f->real->pMethods->xTruncate(f->real, size);
    pthread_mutex_lock(&state.lock);
    step();
    rc = f->real->pMethods->xTruncate(f->real, size);
    if (rc == SQLITE_OK) {
        add_change(f->image, NULL, 0, size);
        f->image->size = size;
    }
    pthread_mutex_unlock(&state.lock);
    return rc;
}

/* The file and, as the real one does for logs and journals, the names in its folder. */
static int file_sync(sqlite3_file *file, int flags) {
    struct file *f = of(file);

    (void)flags;
    if (f->image == NULL) return SQLITE_OK;
    pthread_mutex_lock(&state.lock);
    step();
    state.syncs++;
    if (state.fail_syncs) {
        pthread_mutex_unlock(&state.lock);
        return SQLITE_IOERR_FSYNC;
    }
    make_certain(f->image);
    if (strstr(f->image->path, "-wal") != NULL || strstr(f->image->path, "-journal") != NULL) {
        for (struct image *image = state.images; image != NULL; image = image->next) {
            image->entry_certain = image->entry_certain || !image->deleted;
            image->deletion_certain = image->deletion_certain || image->deleted;
        }
    }
    pthread_mutex_unlock(&state.lock);
    return SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size) {
    struct file *f = of(file);
    return f->real->pMethods->xFileSize(f->real, size);
}

static int file_lock(sqlite3_file *file, int level) {
    struct file *f = of(file);
    return f->real->pMethods->xLock(f->real, level);
}

static int file_unlock(sqlite3_file *file, int level) {
    struct file *f = of(file);
    return f->real->pMethods->xUnlock(f->real, level);
}

static int file_reserved(sqlite3_file *file, int *out) {
    struct file *f = of(file);
    return f->real->pMethods->xCheckReservedLock(f->real, out);
}

static int file_control(sqlite3_file *file, int op, void *data) {
    struct file *f = of(file);
    return f->real->pMethods->xFileControl(f->real, op, data);
}

static int file_sector(sqlite3_file *file) {
    struct file *f = of(file);
    return f->real->pMethods->xSectorSize(f->real);
}

static int file_traits(sqlite3_file *file) {
    struct file *f = of(file);
    return f->real->pMethods->xDeviceCharacteristics(f->real);
}

static int shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out) {
    struct file *f = of(file);
    return f->real->pMethods->xShmMap(f->real, region, size, extend, out);
}

static int shm_lock(sqlite3_file *file, int offset, int n, int flags) {
    struct file *f = of(file);
    return f->real->pMethods->xShmLock(f->real, offset, n, flags);
}

static void shm_barrier(sqlite3_file *file) {
    struct file *f = of(file);
    f->real->pMethods->xShmBarrier(f->real);
}

static int shm_unmap(sqlite3_file *file, int remove_it) {
    struct file *f = of(file);
    return f->real->pMethods->xShmUnmap(f->real, remove_it);
}

/* ---------------------------------------------------------------- the file system */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
    struct file *f = of(file);
    int rc;

    (void)vfs;
    f->real = (sqlite3_file *)(void *)(f + 1);
    f->image = NULL;
    f->base.pMethods = NULL;
    rc = state.real->xOpen(state.real, name, f->real, flags, out);
    if (f->real->pMethods != NULL) f->base.pMethods = &state.methods;
    if (rc != SQLITE_OK || name == NULL || (flags & SQLITE_OPEN_DELETEONCLOSE) != 0) return rc;
    pthread_mutex_lock(&state.lock);
    f->image = find_image(name);
    if (f->image->deleted) {
        f->image->deleted = false;
        f->image->entry_certain = false;
        f->image->len = 0;
        f->image->size = 0;
        drop_changes(f->image);
    }
    pthread_mutex_unlock(&state.lock);
    return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_folder) {
    struct image *image;
    int rc;

    (void)vfs;
    pthread_mutex_lock(&state.lock);
    step();
    rc = state.real->xDelete(state.real, name, sync_folder);
    image = find_image(name);
    if (rc == SQLITE_OK && !image->deleted) {
        image->deleted = true;
        image->deletion_certain = sync_folder != 0 || !image->entry_certain;
    }
    pthread_mutex_unlock(&state.lock);
    return rc;
}

static void fill_methods(void) {
    state.methods = (sqlite3_io_methods){
        .iVersion = 2, /* with shared memory, without mapped reading */
        .xClose = file_close,
        .xRead = file_read,
        .xWrite = file_write,
        .xTruncate = file_truncate,
        .xSync = file_sync,
        .xFileSize = file_size,
        .xLock = file_lock,
        .xUnlock = file_unlock,
        .xCheckReservedLock = file_reserved,
        .xFileControl = file_control,
        .xSectorSize = file_sector,
        .xDeviceCharacteristics = file_traits,
        .xShmMap = shm_map,
        .xShmLock = shm_lock,
        .xShmBarrier = shm_barrier,
        .xShmUnmap = shm_unmap,
    };
}

void powerloss_install(void) {
    if (sqlite3_initialize() != SQLITE_OK) abort();
    if (state.real == NULL) {
        state.real = sqlite3_vfs_find("unix");
        state.vfs = *state.real;
        state.vfs.zName = "powerloss";
        state.vfs.pNext = NULL;
        state.vfs.szOsFile = state.real->szOsFile + (int)sizeof(struct file);
        state.vfs.xOpen = vfs_open;
        state.vfs.xDelete = vfs_delete;
        fill_methods();
    }
    if (sqlite3_vfs_register(&state.vfs, 1) != SQLITE_OK) abort();
}

void powerloss_uninstall(void) {
    (void)sqlite3_vfs_register(state.real, 1);
}

uint64_t powerloss_syncs(void) {
    uint64_t n;

    pthread_mutex_lock(&state.lock);
    n = state.syncs;
    pthread_mutex_unlock(&state.lock);
    return n;
}

uint64_t powerloss_steps(void) {
    uint64_t n;

    pthread_mutex_lock(&state.lock);
    n = state.steps;
    pthread_mutex_unlock(&state.lock);
    return n;
}

void powerloss_cut_at(uint64_t n, const char *folder, uint64_t seed) {
    pthread_mutex_lock(&state.lock);
    state.cut_at = n == 0 ? 0 : state.steps + n;
    state.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    snprintf(state.folder, sizeof state.folder, "%s", folder);
    pthread_mutex_unlock(&state.lock);
}

void powerloss_set_quota(int64_t bytes) {
    pthread_mutex_lock(&state.lock);
    state.quota = bytes;
    pthread_mutex_unlock(&state.lock);
}

void powerloss_fail_syncs(bool fail) {
    pthread_mutex_lock(&state.lock);
    state.fail_syncs = fail;
    pthread_mutex_unlock(&state.lock);
}
