/* What the Python layer does around the core, for producers without Python. */
#ifndef CLIENT_H
#define CLIENT_H

#include "../../shmlog/csrc/core/clock.h"
#include "../../shmlog/csrc/core/names.h"
#include "../../shmlog/csrc/core/producer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    shmlog_segment segment;
    shmlog_producer producer;
    const char *path;
    const char *owner;
} client;

static inline void fail(const char *what)
{
    perror(what);
    exit(2);
}

/* Map a file that the test reads as well. */
static inline void *map_notes(const char *path, size_t bytes)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || base == MAP_FAILED) {
        fail(path);
    }
    close(fd);
    return base;
}

enum { RUN_IS_CLOSED = 3 }; /* exit status */

static inline void join(client *self)
{
    int fd = open(self->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || shmlog_segment_open(&self->segment, fd) != 0 || shmlog_producer_watch_forks() != 0) {
        fail("open");
    }
    int error = shmlog_producer_join(&self->producer, &self->segment, self->path, (shmlog_membership){true, 0});
    if (error) {
        exit(error == EAGAIN ? RUN_IS_CLOSED : 2);
    }
}

static inline uint32_t intern(client *self, const char *name)
{
    uint64_t seed = (uint64_t)self->segment.constants.anchor.utc_ns;
    return shmlog_name_intern(self->segment.names, seed, name, (uint32_t)strlen(name));
}

static inline void allot(client *self)
{
    char owner[64];
    int bytes = snprintf(owner, sizeof owner, "{\"who\":\"%s\"}", self->owner);
    int error = shmlog_producer_allot(&self->producer, owner, (uint32_t)bytes);
    if (error) {
        fprintf(stderr, "allot: %s\n", strerror(error));
        exit(2);
    }
}

/* Have room, waiting for it if `wait`; else the records are dropped. */
static inline bool find_room(client *self, uint32_t slots, uint32_t records, bool wait)
{
    struct timespec nap = {0, 50000};
    if (shmlog_producer_has_room(&self->producer, slots)) {
        return true;
    }
    if (!self->producer.lane.slots) {
        allot(self);
    }
    while (shmlog_producer_make_room(&self->producer, slots) == SHMLOG_FULL) {
        if (!wait) {
            shmlog_producer_drop(&self->producer, SHMLOG_DROP_FULL, records);
            return false;
        }
        nanosleep(&nap, NULL);
    }
    return true;
}

static inline uint64_t ticks(const client *self) { return shmlog_ticks(self->segment.tsc); }

#endif
