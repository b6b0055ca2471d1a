/* Threads of the flusher that are at work and can tell so only when they are done: one
 * that imports pyarrow on a busy machine is silent for many seconds. The drain looks at
 * the processor time that they take, which is progress: one that waits for a disk that
 * does not answer takes none. */
#ifndef SHMLOG_WORK_H
#define SHMLOG_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SHMLOG_WORKERS 4 /* one that seals, two that write parts, one to spare */

typedef struct {
    _Atomic int clocks[SHMLOG_WORKERS]; /* of the threads that are at work; 0: the place is free */
    /* Of who looks: the clocks when they were last counted. */
    int known[SHMLOG_WORKERS];
    int64_t seen_ns[SHMLOG_WORKERS];
} shmlog_work;

/* The calling thread begins to work. Returns its place, or -1: it goes unseen. */
int shmlog_work_begin(shmlog_work *work);

/* It has done its work; -1: nothing to do. */
void shmlog_work_end(shmlog_work *work, int place);

/* Whether any of them has taken some processor time since this last said so. For one thread. */
bool shmlog_work_goes_on(shmlog_work *work);

#endif
