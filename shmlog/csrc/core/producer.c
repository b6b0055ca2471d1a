#include "producer.h"

#include "clock.h"
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static shmlog_producer *list;

enum { STARTS_MAX = 8 }; /* flushers that a process starts at the same time; of more, a child keeps the locks */
static shmlog_description starts[STARTS_MAX];

/* ---- membership and fork ---- */

static void clear_counts(shmlog_producer *producer)
{
    producer->owes_gap = false;
    producer->owes_owner = false;
    producer->logged = 0;
    producer->waits = 0;
    producer->waited_ns = 0;
    producer->late_waited_ns = 0;
    producer->gave_up_tail = 0;
    producer->joined_ns = shmlog_clock_ns(CLOCK_MONOTONIC);
    memset(producer->dropped, 0, sizeof producer->dropped);
    producer->had_lane = false;
    memset(&producer->lane, 0, sizeof producer->lane);
    producer->lane.shared = &shmlog_no_lane;
}

/* Locks are taken on `fd` from now on. With the list locked: a fork must not see the pin before it is told to keep
 * it out of the child. */
static void take_description(shmlog_producer *producer, int fd)
{
    producer->lock = (shmlog_description){.fd = -1};
    if (fd >= 0 && shmlog_description_keep(&producer->lock, fd) == 0) {
        shmlog_description_pin(&producer->lock);
    } else if (fd >= 0) {
        close(fd);
    }
}

/* In the child, which follows the process that it was forked from. The inherited description
 * is closed, never unlocked: its locks are the parent's. That comes first, as there may be no other descriptor left.
 * Where the file can't be opened, as by another user, records try again, and their drops are counted in the segment. */
static void rejoin(shmlog_producer *producer)
{
    producer->fork_generation++;
    producer->is_owner = false;
    clear_counts(producer);
    producer->lock.pin = NULL; /* that is the parent's alone */
    shmlog_description_close(&producer->lock);
    take_description(producer, shmlog_description_reopen(&producer->segment->file, producer->path));
}

static void before_fork(void) { pthread_mutex_lock(&list_mutex); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&list_mutex); }

static void after_fork_in_child(void)
{
    for (int i = 0; i < STARTS_MAX; i++) {
        if (starts[i].mark) {
            shmlog_description_close(&starts[i]);
            starts[i].mark = 0;
        }
    }
    for (shmlog_producer *producer = list; producer; producer = producer->next) {
        rejoin(producer);
        if (producer->after_fork) {
            producer->after_fork(producer);
        }
    }
    pthread_mutex_unlock(&list_mutex);
}

int shmlog_producer_watch_forks(void)
{
    static bool watching;
    int error = 0;
    pthread_mutex_lock(&list_mutex);
    if (!watching) {
        error = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
        watching = error == 0;
    }
    pthread_mutex_unlock(&list_mutex);
    return error;
}

/* ---- flushers that are being started ---- */

int shmlog_start_begin(const shmlog_segment *segment, const char *path, int lowest)
{
    pthread_mutex_lock(&list_mutex); /* no fork in between: the child would keep what it can't know of */
    int low = shmlog_description_reopen(&segment->file, path);
    int fd = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, lowest);
    int error = fd < 0 ? errno : shmlog_lock_take(fd, SHMLOG_LOCK_START, false);
    if (low >= 0) {
        close(low);
    }
    if (error && fd >= 0) {
        close(fd);
    }
    for (int i = 0; !error && i < STARTS_MAX; i++) {
        if (!starts[i].mark) {
            (void)shmlog_description_keep(&starts[i], fd);
            break;
        }
    }
    pthread_mutex_unlock(&list_mutex);
    errno = error;
    return error ? -1 : fd;
}

void shmlog_start_end(int fd)
{
    pthread_mutex_lock(&list_mutex);
    for (int i = 0; i < STARTS_MAX; i++) {
        if (starts[i].mark && starts[i].fd == fd) {
            starts[i].mark = 0;
        }
    }
    close(fd);
    pthread_mutex_unlock(&list_mutex);
}

/* ---- membership ---- */

static void enlist(shmlog_producer *producer, int fd)
{
    pthread_mutex_lock(&list_mutex);
    take_description(producer, fd);
    producer->next = list;
    list = producer;
    pthread_mutex_unlock(&list_mutex);
}

static void delist(const shmlog_producer *producer)
{
    pthread_mutex_lock(&list_mutex);
    for (shmlog_producer **link = &list; *link; link = &(*link)->next) {
        if (*link == producer) {
            *link = producer->next;
            break;
        }
    }
    pthread_mutex_unlock(&list_mutex);
}

int shmlog_producer_join(shmlog_producer *producer, shmlog_segment *segment, const char *path,
                         shmlog_membership membership)
{
    if (strlen(path) >= sizeof producer->path) {
        return ENAMETOOLONG;
    }
    int fd = shmlog_lock_open(path);
    if (fd < 0) {
        return errno;
    }
    int error = shmlog_description_is_of_file(&segment->file, fd) ? 0 : ESTALE;
    if (error == 0 && membership.is_owner) {
        error = shmlog_lock_take(fd, SHMLOG_LOCK_MEMBER, false);
    }
    if (error == 0 && shmlog_segment_is_closed(segment)) {
        error = EAGAIN;
    }
    if (error) {
        close(fd);
        return error;
    }
    strcpy(producer->path, path);
    producer->segment = segment;
    producer->has_left = false;
    producer->is_owner = membership.is_owner;
    producer->token = membership.token;
    producer->drop_policy = segment->constants.drop_policy;
    clear_counts(producer);
    enlist(producer, fd);
    return 0;
}

void shmlog_producer_leave(shmlog_producer *producer)
{
    if (!producer->segment) {
        return;
    }
    delist(producer);
    producer->has_left = true;
    producer->lane.slots = NULL;
    producer->lane.shared = &shmlog_no_lane;
    shmlog_description_close(&producer->lock);
}

/* ---- lanes ---- */

static bool is_allotted(const shmlog_lane_header *shared)
{
    /* ALLOT, acquire side: the lane's memory is there. */
    return atomic_load_explicit(&shared->allotted, memory_order_acquire) != 0;
}

/* Is the lane worth taking while others are left? One that its late owner left
 * nearly full would make the next wait for the flusher at once. */
static bool is_roomy(const shmlog_segment *segment, const shmlog_lane_header *shared)
{
    /* relaxed: a guess from hints; the commit words decide later. */
    uint64_t head = atomic_load_explicit(&shared->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&shared->tail, memory_order_relaxed); /* relaxed: as above */
    /* A killed owner may have left its head behind tail. */
    return head <= tail || head - tail <= segment->lane_slots / 2;
}

/* Continue where the committed units end. The lane's lock is held: its previous
 * owner can store nothing any more. */
static void adopt(shmlog_producer *producer, uint32_t number)
{
    shmlog_lane *lane = &producer->lane;
    shmlog_segment_view_lane(producer->segment, number, lane);
    /* RECLAIM, acquire side. */
    lane->tail_seen = atomic_load_explicit(&lane->shared->tail, memory_order_acquire);
    lane->head = shmlog_lane_first_uncommitted(lane, lane->tail_seen);
    producer->had_lane = true;
    producer->lane_number = number;
    producer->owes_owner = true;
    /* relaxed: written by the flusher after it saw the GAP; if it is behind,
     * the drops are told once more, and telling totals again changes nothing. */
    producer->owes_gap =
        shmlog_lane_sum(lane->shared->dropped) != atomic_load_explicit(&lane->shared->gapped, memory_order_relaxed);
}

/* Begin a part in a lane that is locked, in which the last one may have ended. False: the
 * run is being closed, and what the flusher has decided of the lane stands. */
static bool begin_part(const shmlog_producer *producer, shmlog_lane_header *shared)
{
    if (shmlog_segment_is_closed(producer->segment)) {
        return false;
    }
    uint64_t follows = producer->is_owner ? 0 : producer->token;
    /* relaxed: CUT, the fence below orders all of them. */
    atomic_store_explicit(&shared->limit, 0, memory_order_relaxed);
    atomic_store_explicit(&shared->cut, 0, memory_order_relaxed);           /* relaxed: as above */
    atomic_store_explicit(&shared->final, 0, memory_order_relaxed);         /* relaxed: as above */
    atomic_store_explicit(&shared->follows, follows, memory_order_relaxed); /* relaxed: as above */
    /* CUT, the producer's side: either we see `closed`, or the flusher, which stores it before it
     * cuts the lanes, cuts this one after our stores. */
    atomic_thread_fence(memory_order_seq_cst);
    return !shmlog_segment_is_closed(producer->segment);
}

/* Returns 0 when the lane is ours, EAGAIN when somebody has it, or errno. */
static int try_lane(shmlog_producer *producer, uint32_t number)
{
    shmlog_lane_header *shared = &producer->segment->lanes[number];
    int error = shmlog_lock_take(producer->lock.fd, SHMLOG_LOCK_LANE + (int)number, true);
    if (error) {
        return error;
    }
    if (!is_allotted(shared)) {
        error = shmlog_segment_allocate_lane(producer->segment, producer->lock.fd, number);
        if (error) {
            shmlog_lock_drop(producer->lock.fd, SHMLOG_LOCK_LANE + (int)number);
            return error;
        }
        /* ALLOT, release side. */
        atomic_store_explicit(&shared->allotted, 1, memory_order_release);
    }
    if (!begin_part(producer, shared)) {
        shmlog_lock_drop(producer->lock.fd, SHMLOG_LOCK_LANE + (int)number);
        return ESTALE;
    }
    adopt(producer, number);
    return 0;
}

static bool is_candidate(const shmlog_segment *segment, uint32_t number, bool any)
{
    const shmlog_lane_header *shared = &segment->lanes[number];
    /* relaxed: a damaged lane stays damaged. */
    if (atomic_load_explicit(&shared->damaged, memory_order_relaxed)) {
        return false;
    }
    return any ? is_allotted(shared) : is_roomy(segment, shared);
}

/* Have a descriptor to take a lane's lock with: the program may have closed ours. Until then the pin has held the
 * membership; there is no lane that it would have to hold. Returns 0 or errno. */
static int regain_descriptor(shmlog_producer *producer)
{
    if (shmlog_description_is_there(&producer->lock)) {
        return 0;
    }
    int fd = shmlog_description_reopen(&producer->segment->file, producer->path);
    int error = fd < 0 ? errno : producer->is_owner ? shmlog_lock_take(fd, SHMLOG_LOCK_MEMBER, false) : 0;
    if (error) {
        if (fd >= 0) {
            close(fd);
        }
        return error;
    }
    shmlog_description lost = producer->lock;
    pthread_mutex_lock(&list_mutex);
    take_description(producer, fd);
    pthread_mutex_unlock(&list_mutex);
    shmlog_description_close(&lost);
    return 0;
}

int shmlog_producer_allot(shmlog_producer *producer, const char *owner, uint32_t owner_bytes)
{
    int worst = EAGAIN;
    if (owner_bytes > SHMLOG_OWNER_BYTES_MAX) {
        return EINVAL;
    }
    if (shmlog_segment_is_closed(producer->segment)) {
        return ESTALE; /* before memory is taken for a lane */
    }
    int lost = regain_descriptor(producer);
    if (lost) {
        return lost;
    }
    memcpy(producer->owner, owner, owner_bytes);
    producer->owner_bytes = owner_bytes;
    for (int any = 0; any <= 1; any++) {
        for (uint32_t number = 0; number < producer->segment->lane_count; number++) {
            if (!is_candidate(producer->segment, number, any)) {
                continue;
            }
            int error = try_lane(producer, number);
            if (error == 0) {
                return 0;
            }
            if (error == ENOSPC) {
                worst = ENOSPC;
                break; /* no memory for this one, so for no other new one */
            }
            if (error != EAGAIN) {
                return error;
            }
        }
    }
    return worst;
}
