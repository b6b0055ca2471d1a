#include "work.h"

#include <pthread.h>
#include <time.h>

#define COUNTED_NS 1000000 /* where all cores are busy, a nice thread may get no more than that in a second */

int shmlog_work_begin(shmlog_work *work)
{
#if !defined(__APPLE__) /* there, threads have no clock */
    clockid_t clock;
    if (pthread_getcpuclockid(pthread_self(), &clock) != 0) {
        return -1;
    }
    for (int place = 0; place < SHMLOG_WORKERS; place++) {
        int free = 0;
        /* relaxed: a number that is looked at again and again; nothing is published with it. */
        if (atomic_compare_exchange_strong_explicit(&work->clocks[place], &free, clock, memory_order_relaxed,
                                                    memory_order_relaxed)) {
            return place;
        }
    }
#else
    (void)work;
#endif
    return -1;
}

void shmlog_work_end(shmlog_work *work, int place)
{
    if (place >= 0) {
        atomic_store_explicit(&work->clocks[place], 0, memory_order_relaxed); /* relaxed: as above */
    }
}

bool shmlog_work_goes_on(shmlog_work *work)
{
    bool goes_on = false;
    for (int place = 0; place < SHMLOG_WORKERS; place++) {
        int clock = atomic_load_explicit(&work->clocks[place], memory_order_relaxed); /* relaxed: as above */
        struct timespec time;
        if (clock == 0 || clock_gettime(clock, &time) != 0) {
            continue; /* nobody, or one that has just ended */
        }
        int64_t ns = time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
        bool is_known = clock == work->known[place];
        if (!is_known || ns - work->seen_ns[place] >= COUNTED_NS) {
            goes_on |= is_known;
            work->known[place] = clock;
            work->seen_ns[place] = ns;
        }
    }
    return goes_on;
}
