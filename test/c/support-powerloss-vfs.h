/*
 * A file system for SQLite on which the power can fail: what was written but not synced is lost, or
 * lost in part. It also counts syncs, refuses to grow past a quota, and fails syncs.
 *
 * It stands before the usual one: files are where they always are. Beside them it keeps, in memory,
 * what each holds for certain, and the writes since. When the power fails, what a disk might then
 * hold is written to another folder: for each file its certain content, and of the writes since a
 * random choice, each whole or cut at a sector. A file that was created is there for certain once
 * it, or a log beside it, was synced; one that was deleted is gone for certain if the deletion was
 * synced, else it may be back.
 *
 * Global to the process, as SQLite's list of file systems is. Functions may be called from any
 * thread.
 */
#ifndef HF_TEST_SUPPORT_POWERLOSS_VFS_H
#define HF_TEST_SUPPORT_POWERLOSS_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Makes it the file system of every connection opened from now on. Once per process. */
void powerloss_install(void);
/* Back to the usual one, for connections opened from now on. */
void powerloss_uninstall(void);

/* Syncs of files so far. */
uint64_t powerloss_syncs(void);
/* Writes, truncations, deletions and syncs so far. */
uint64_t powerloss_steps(void);

/* Just before the n-th step from now the power fails: what is left goes to `folder`, and the
 * process exits with status 0. 0: never. `seed` decides what of the unsynced writes reached the
 * disk. */
void powerloss_cut_at(uint64_t n, const char *folder, uint64_t seed);

/* No file may grow while all of them together hold as many bytes; -1: no bound. */
void powerloss_set_quota(int64_t bytes);
/* Whether syncs fail. */
void powerloss_fail_syncs(bool fail);

#endif
