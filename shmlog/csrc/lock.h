/* Open-file-description locks: the kernel's own evidence that a process lives.
 *
 * They belong to an open file description, are released when its last
 * descriptor is closed (at death at the latest), and know no process ids, so
 * that reuse of pids and pid namespaces can't mislead. They are taken on a
 * description that is opened for that alone: never mapped, never duplicated. */
#ifndef SHMLOG_LOCK_H
#define SHMLOG_LOCK_H

#include <stdbool.h>

/* Open a description of its own for the file behind `fd`, or else at `path`.
 * Async-signal-safe: a forked child calls it. Returns -1 and sets errno. */
int shmlog_lock_reopen(int fd, const char *path);

/* Open a description of its own for the file at `path`. */
int shmlog_lock_open(const char *path);

/* Take a lock on one byte without waiting. Returns 0, EAGAIN if another
 * description holds it, or another errno. */
int shmlog_lock_take(int fd, int byte, bool exclusive);

int shmlog_lock_drop(int fd, int byte);

enum { SHMLOG_LOCK_FREE = 0, SHMLOG_LOCK_SHARED = 1, SHMLOG_LOCK_EXCLUSIVE = 2 };

/* How another description than `fd` holds a lock on the byte: one of these, or -1 with errno. */
int shmlog_lock_probe(int fd, int byte);

#endif
