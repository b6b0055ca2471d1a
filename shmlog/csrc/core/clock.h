/* Clock ticks of a record. The kernel's own clock source decides which clock a
 * run uses (see shmlog/segment/clock.py); the header of the segment says it. */
#ifndef SHMLOG_CLOCK_H
#define SHMLOG_CLOCK_H

#include "format.h"

#include <stdbool.h>
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#define SHMLOG_HAS_TSC 1
#else
#define SHMLOG_HAS_TSC 0
#endif

static inline int64_t shmlog_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline uint64_t shmlog_ticks(bool tsc)
{
#if SHMLOG_HAS_TSC
    if (tsc) {
        return __rdtsc();
    }
#else
    (void)tsc;
#endif
    return (uint64_t)shmlog_clock_ns(CLOCK_MONOTONIC);
}

/* Read ticks, monotonic and wall clock as close together as can be. */
shmlog_anchor shmlog_clock_anchor(bool tsc);

#endif
