/* The OWNER record: who a producer is, as a JSON object. Written here rather than
 * in Python, because each page that a forked child writes to is copied first:
 * the same in Python costs it some 150 of them. */
#ifndef SHMLOG_OWNER_H
#define SHMLOG_OWNER_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"

enum { SHMLOG_UNKNOWN = -1 };

typedef struct {
    int64_t rank;       /* SHMLOG_UNKNOWN: what the launcher has put into the environment */
    int64_t local_rank; /* the same */
    int64_t worker;     /* SHMLOG_UNKNOWN: it is not a worker */
    const char *process; /* UTF-8 */
} shmlog_owner;

/* Write the object of this process. Returns its bytes, at most SHMLOG_OWNER_BYTES_MAX. */
uint32_t shmlog_owner_write(const shmlog_owner *owner, char out[SHMLOG_OWNER_BYTES_MAX]);

#endif
