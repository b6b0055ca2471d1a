/* shmlog_drain_run(): when to look, when to sleep, when to change the log. */
#include "drain.h"

#include <errno.h>
#include <time.h>

#define BUSY (256 / 16) /* a lane fills that much of itself between two looks, in 1/256 */
#define BUSY_NAP_NS 1000000L
#define IDLE_NAP_NS 100000000L
#define RETRY_NAP_NS 1000000000L

static bool is_stopped(const shmlog_drain *drain)
{
    return atomic_load_explicit(&drain->stop, memory_order_acquire) != 0; /* REQUEST, acquire side */
}

static void nap(long ns)
{
    struct timespec time = {ns / 1000000000L, ns % 1000000000L};
    nanosleep(&time, NULL);
}

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 30)
#define BELL_CLOCK CLOCK_MONOTONIC
static int wait_until(sem_t *bell, const struct timespec *until) { return sem_clockwait(bell, BELL_CLOCK, until); }
#elif !defined(__APPLE__)
#define BELL_CLOCK CLOCK_REALTIME /* set back, it makes the sleep longer */
static int wait_until(sem_t *bell, const struct timespec *until) { return sem_timedwait(bell, until); }
#endif

/* Sleep until the doorbell rings, then forget all rings. */
static void wait_for_bell(const shmlog_drain *drain)
{
#if defined(__APPLE__)
    nap(drain->bell ? 2000000L : BUSY_NAP_NS); /* no sem_timedwait() there */
#else
    struct timespec until;
    if (!drain->bell) {
        nap(BUSY_NAP_NS);
        return;
    }
    clock_gettime(BELL_CLOCK, &until);
    until.tv_nsec += IDLE_NAP_NS;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    if (wait_until(drain->bell, &until) == 0) {
        while (sem_trywait(drain->bell) == 0) {
        }
    }
#endif
}

/* Pass, and answer requests for fsync. */
static int drain_once(shmlog_drain *drain, shmlog_drained *drained)
{
    int error = shmlog_drain_pass(drain, drained);
    if (error == 0 && shmlog_drain_sync_is_wanted(drain)) {
        error = shmlog_drain_sync(drain);
        error = error == EAGAIN ? 0 : error; /* the next pass asks again */
    }
    return error;
}

static int drain_idly(shmlog_drain *drain)
{
    _Atomic uint32_t *sleeping = &drain->segment->header->sleeping;
    shmlog_drained drained;
    /* relaxed: a hint. Looking once more after it was set makes a wake-up that
     * is missed rare; it costs one nap, during which half a lane is free. */
    atomic_store_explicit(sleeping, 1, memory_order_relaxed);
    int error = drain_once(drain, &drained);
    drain->is_idle = error == 0 && drained.slots == 0;
    if (drain->is_idle) {
        wait_for_bell(drain);
    }
    atomic_store_explicit(sleeping, 0, memory_order_relaxed); /* relaxed: as above */
    if (error == 0 && drained.slots && !drained.more) {
        nap(BUSY_NAP_NS); /* else a frame for a few records follows the other while somebody logs without a pause */
    }
    return error;
}

/* Returns 0, or why the next log is needed. */
static int drain_busily(shmlog_drain *drain)
{
    shmlog_drained drained;
    if (drain->is_idle) {
        return drain_idly(drain); /* one look a nap is enough */
    }
    int error = drain_once(drain, &drained);
    if (error) {
        return error;
    }
    if (drained.more) {
        return 0;
    }
    if (drained.busiest >= BUSY) {
        nap(BUSY_NAP_NS);
        return 0;
    }
    return drain_idly(drain);
}

static void tell_error(shmlog_drain *drain, int error)
{
    atomic_store_explicit(&drain->error, error, memory_order_relaxed); /* relaxed: for people */
    /* relaxed: a hint for producers that have to drop. */
    atomic_store_explicit(&drain->segment->header->disk_error, (uint32_t)error, memory_order_relaxed);
}

/* Open the next log, trying again until it works or the drain is to stop. */
static void change_log(shmlog_drain *drain)
{
    int error;
    while ((error = shmlog_drain_next_log(drain)) != 0) {
        tell_error(drain, error);
        if (is_stopped(drain)) {
            return;
        }
        nap(RETRY_NAP_NS);
    }
    tell_error(drain, 0);
}

static bool is_log_large(const shmlog_drain *drain, uint64_t log_bytes_max)
{
    /* relaxed: our own counter. */
    return atomic_load_explicit(&drain->log_bytes, memory_order_relaxed) >= log_bytes_max;
}

/* Whether the next log may not be opened yet. */
static bool is_limited(const shmlog_drain *drain)
{
    /* relaxed: a number that is looked at again and again. */
    return drain->log + 1 >= atomic_load_explicit(&drain->limit, memory_order_relaxed);
}

/* Leave the lanes to fill, but answer requests for fsync. Returns 0 or errno. */
static int hold(shmlog_drain *drain)
{
    int error = shmlog_drain_sync_is_wanted(drain) ? shmlog_drain_sync(drain) : 0;
    nap(BUSY_NAP_NS);
    return error == EAGAIN ? 0 : error;
}

static void note_heads(shmlog_drain *drain)
{
    for (uint32_t number = 0; number < drain->segment->lane_count; number++) {
        /* relaxed: what was logged before the request is seen with it. A killed owner may have left its head
         * a unit behind; nobody's finish waited for that. */
        drain->asked[number] = atomic_load_explicit(&drain->segment->lanes[number].head, memory_order_relaxed);
    }
}

static bool is_drained_as_asked(const shmlog_drain *drain)
{
    uint32_t number = 0;
    while (number < drain->segment->lane_count && drain->cursors[number].position >= drain->asked[number]) {
        number++;
    }
    return number == drain->segment->lane_count;
}

/* Drain all that the lanes hold now, but not what is added without end meanwhile: not past the heads,
 * and if one of these is damaged and never reached, not more than the lanes can hold. */
static int drain_backlog(shmlog_drain *drain, uint64_t log_bytes_max)
{
    uint64_t slots = (uint64_t)drain->segment->lane_count * drain->segment->lane_slots;
    shmlog_drained drained = {.more = true};
    int error = 0;
    note_heads(drain);
    for (uint64_t taken = 0; error == 0 && drained.more && taken < slots && !is_drained_as_asked(drain);
         taken += drained.slots) {
        if (is_log_large(drain, log_bytes_max)) {
            change_log(drain);
        }
        error = shmlog_drain_pass(drain, &drained);
    }
    return error;
}

/* Tell who waits that the rest of the flusher gets on. */
static void count_work(shmlog_drain *drain)
{
    if (shmlog_work_goes_on(&drain->work)) {
        /* relaxed: only its growth is looked at. */
        atomic_fetch_add_explicit(&drain->segment->header->progress, 1, memory_order_relaxed);
    }
}

void shmlog_drain_run(shmlog_drain *drain, uint64_t log_bytes_max)
{
    /* CONTROL, release side: from now on lanes are drained, whatever the rest of
     * the flusher is still busy with. */
    atomic_store_explicit(&drain->segment->header->flusher_state, SHMLOG_FLUSHER_RUNNING, memory_order_release);
    if (drain->fd < 0) {
        change_log(drain);
    }
    uint32_t rotated = 0;
    while (!is_stopped(drain)) {
        count_work(drain);
        bool is_held = is_log_large(drain, log_bytes_max) && is_limited(drain);
        int error = is_held ? hold(drain) : drain_busily(drain);
        uint32_t rotate = atomic_load_explicit(&drain->rotate, memory_order_acquire); /* REQUEST, acquire side */
        if (error == 0 && rotate != rotated) {
            error = drain_backlog(drain, log_bytes_max);
        }
        if (error) {
            tell_error(drain, error);
        }
        if (error || rotate != rotated || (is_log_large(drain, log_bytes_max) && !is_limited(drain))) {
            change_log(drain);
        }
        if (error == 0 && rotate != rotated) {
            /* relaxed: the answer publishes it. */
            atomic_store_explicit(&drain->rotated_below, drain->log, memory_order_relaxed);
            /* REQUEST, release side of the answer. */
            atomic_store_explicit(&drain->rotated, rotated = rotate, memory_order_release);
        }
    }
}
