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

void shmlog_drain_give_up(shmlog_drain *drain, int error) { tell_error(drain, error); }

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

/* Look whether the next log was asked for, or a finish; if so, note at once what that has to wait for. */
static void note_requests(shmlog_drain *drain)
{
    /* CONTROL, acquire side: what was logged before the request is seen with it. */
    uint32_t finish = atomic_load_explicit(&drain->segment->header->finish_request, memory_order_acquire);
    uint32_t rotate = atomic_load_explicit(&drain->rotate, memory_order_acquire); /* REQUEST, acquire side */
    /* relaxed: both are our own answers. */
    if (!drain->is_asked && (finish != atomic_load_explicit(&drain->noted, memory_order_relaxed) ||
                             rotate != atomic_load_explicit(&drain->rotated, memory_order_relaxed))) {
        drain->is_asked = true;
        drain->asked_finish = finish;
        drain->asked_rotate = rotate;
        drain->asked_slots = (uint64_t)drain->segment->lane_count * drain->segment->lane_slots;
        note_heads(drain);
    }
}

/* The log that was open when note_requests() has noted the heads is closed, and holds what lay below them. */
static void answer_requests(shmlog_drain *drain)
{
    /* relaxed: the answers publish them. */
    atomic_store_explicit(&drain->rotated_below, drain->log, memory_order_relaxed);
    atomic_store_explicit(&drain->finish_below, drain->log, memory_order_relaxed); /* relaxed: as above */
    /* REQUEST, release side of the answers. */
    atomic_store_explicit(&drain->rotated, drain->asked_rotate, memory_order_release);
    atomic_store_explicit(&drain->noted, drain->asked_finish, memory_order_release); /* REQUEST */
    /* CONTROL, release side. */
    atomic_store_explicit(&drain->segment->header->finish_noted, drain->asked_finish, memory_order_release);
    drain->is_asked = false;
}

/* Drain all that the lanes held at the request, but not what is added without end meanwhile: not past the
 * heads, and if one of these is damaged and never reached, not more than the lanes can hold. */
static int drain_backlog(shmlog_drain *drain, uint64_t log_bytes_max)
{
    shmlog_drained drained = {.more = true};
    int error = 0;
    while (error == 0 && drained.more && drain->asked_slots && !is_drained_as_asked(drain)) {
        if (is_log_large(drain, log_bytes_max)) {
            change_log(drain);
        }
        error = shmlog_drain_pass(drain, &drained);
        uint64_t slots = error ? 0 : drained.slots;
        drain->asked_slots -= slots < drain->asked_slots ? slots : drain->asked_slots;
    }
    return error;
}

/* Drain as much as is due. Returns 0, or why the next log is needed. */
static int drain_what_is_due(shmlog_drain *drain, uint64_t log_bytes_max)
{
    if (drain->is_asked) {
        return drain_backlog(drain, log_bytes_max);
    }
    return is_log_large(drain, log_bytes_max) && is_limited(drain) ? hold(drain) : drain_busily(drain);
}

/* Tell who waits that the rest of the flusher gets on. */
static void count_work(shmlog_drain *drain)
{
    if (shmlog_work_goes_on(&drain->work)) {
        shmlog_count_sealing(drain->segment->header);
    }
}

/* Who starts a flusher has looked before whether there is one, and may have been slow to say so. */
static void say_running(shmlog_drain *drain)
{
    _Atomic uint32_t *state = &drain->segment->header->flusher_state;
    /* relaxed: looked at again soon. */
    if (atomic_load_explicit(state, memory_order_relaxed) != SHMLOG_FLUSHER_RUNNING) {
        atomic_store_explicit(state, SHMLOG_FLUSHER_RUNNING, memory_order_release); /* CONTROL, release side */
    }
}

void shmlog_drain_run(shmlog_drain *drain, uint64_t log_bytes_max)
{
    /* CONTROL, release side: from now on lanes are drained, whatever the rest of
     * the flusher is still busy with. */
    atomic_store_explicit(&drain->segment->header->flusher_state, SHMLOG_FLUSHER_RUNNING, memory_order_release);
    /* relaxed: our own answer. CONTROL, release side: takes back what a flusher before us has noted. */
    uint32_t noted = atomic_load_explicit(&drain->noted, memory_order_relaxed);
    atomic_store_explicit(&drain->segment->header->finish_noted, noted, memory_order_release); /* CONTROL */
    if (drain->fd < 0) {
        change_log(drain);
    }
    while (!is_stopped(drain)) {
        say_running(drain);
        count_work(drain);
        note_requests(drain);
        int error = drain_what_is_due(drain, log_bytes_max);
        if (error) {
            tell_error(drain, error);
        }
        if (error || drain->is_asked || (is_log_large(drain, log_bytes_max) && !is_limited(drain))) {
            change_log(drain);
        }
        if (error == 0 && drain->is_asked) {
            answer_requests(drain);
        }
    }
}
