#include "cut.h"

#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/membarrier.h>
#include <sys/syscall.h>
#endif

#define STORES_ARE_SEEN_NS 10000000L

static void cut(shmlog_lane_header *shared)
{
    atomic_store_explicit(&shared->cut, 1, memory_order_relaxed); /* relaxed: CUT, the fence */
    atomic_thread_fence(memory_order_seq_cst);                    /* CUT, the side of who ends it */
    atomic_store_explicit(&shared->limit, 0, memory_order_relaxed); /* relaxed: CUT, the fence */
}

void shmlog_cut_followers(shmlog_segment *segment, uint64_t token)
{
    /* CUT: a follower that takes a lane stores its token, then looks whether its owner has finished,
     * which the caller has published before. */
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t number = 0; number < segment->lane_count; number++) {
        shmlog_lane_header *shared = &segment->lanes[number];
        if (atomic_load_explicit(&shared->follows, memory_order_relaxed) == token) { /* relaxed: CUT, the fence */
            cut(shared);
        }
    }
    atomic_thread_fence(memory_order_seq_cst); /* CUT: what the caller starts next comes after it */
}

/* Have every processor that runs a thread pass a full fence. */
static void pass_barrier(void)
{
#if defined(__linux__) && defined(__NR_membarrier)
    if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) {
        return;
    }
#endif
    /* Refused, as by a sandbox. A store leaves the processor within microseconds, which no standard promises. */
    struct timespec nap = {0, STORES_ARE_SEEN_NS};
    nanosleep(&nap, NULL);
}

void shmlog_cut_all(shmlog_segment *segment)
{
    /* CONTROL, release side: the caller holds the member lock alone. */
    atomic_store_explicit(&segment->header->closed, 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* CUT: who takes a lane stores into it, then looks at `closed` */
    for (uint32_t number = 0; number < segment->lane_count; number++) {
        cut(&segment->lanes[number]);
    }
    pass_barrier();
}
