#include "clock.h"

enum { ANCHOR_TRIES = 5 };

/* Several tries, and the one whose two tick readings lie closest together is
 * kept: a try during which the process was scheduled away is a bad anchor. */
shmlog_anchor shmlog_clock_anchor(bool tsc)
{
    shmlog_anchor best = {0, 0, 0};
    uint64_t best_width = UINT64_MAX;

    for (int i = 0; i < ANCHOR_TRIES; i++) {
        uint64_t before = shmlog_ticks(tsc);
        int64_t mono = shmlog_clock_ns(CLOCK_MONOTONIC);
        int64_t utc = shmlog_clock_ns(CLOCK_REALTIME);
        uint64_t after = shmlog_ticks(tsc);
        if (after - before < best_width) {
            best_width = after - before;
            best.ticks = (int64_t)(before + best_width / 2);
            best.mono_ns = mono;
            best.utc_ns = utc;
        }
    }
    if (!tsc) {
        best.ticks = best.mono_ns;
    }
    return best;
}
