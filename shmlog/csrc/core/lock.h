/* Open-file-description locks: the kernel's own evidence that a process lives.
 *
 * They belong to an open file description, are released when its last
 * descriptor is closed (at death at the latest), and know no process ids, so
 * that reuse of pids and pid namespaces can't mislead. They are taken on a
 * description that is opened for that alone: never duplicated, and mapped only
 * where no child inherits it. */
#ifndef SHMLOG_LOCK_H
#define SHMLOG_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

/* A description that we keep, and what it is known by: programs close descriptors that they don't know, as when
 * they become daemons, and have files of their own under the same numbers. */
typedef struct {
    int fd; /* -1: none */
    dev_t device;
    ino_t inode;
    off_t mark; /* its offset, which no other one has: there may be several of one file */
    void *pin;  /* a mapping, which holds the description when the descriptor is closed; NULL: there is none */
} shmlog_description;

/* Keep the description of `fd`, which is taken over. Returns 0 or errno. Async-signal-safe, as are the others. */
int shmlog_description_keep(shmlog_description *description, int fd);

/* Have its locks last until it is closed here, whatever the program closes. Not in forked children, in which they
 * would outlive this process. Where that can't be had, the descriptor alone holds them. */
void shmlog_description_pin(shmlog_description *description);

/* Whether its descriptor is still its own. */
bool shmlog_description_is_there(const shmlog_description *description);

/* Whether another descriptor is one of its file. */
bool shmlog_description_is_of_file(const shmlog_description *description, int fd);

/* Open another description of its file: that of the descriptor, or else at `path`. Returns -1 and sets errno,
 * ENOENT also if there is another file. */
int shmlog_description_reopen(const shmlog_description *description, const char *path);

/* Close it, if the program has not, and let go of its locks. */
void shmlog_description_close(shmlog_description *description);

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
