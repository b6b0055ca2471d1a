/* What a process keeps of a run it logs to: its locks and its lane.
 *
 * A producer joins, is allotted a lane by its first record, and leaves. An owner of
 * the run holds a lock on the member byte, which keeps the run alive; a follower
 * holds its lane alone, and its part ends when its owner's does. A forked child joins
 * by itself, as a follower, in the handler that fork() runs, and has no lane until
 * its first record. */
#ifndef SHMLOG_PRODUCER_H
#define SHMLOG_PRODUCER_H

#include "lane.h"
#include "segment.h"

#define SHMLOG_PATH_MAX 4096

typedef struct shmlog_producer {
    shmlog_lane lane;
    shmlog_segment *segment; /* NULL: never joined */
    shmlog_description lock; /* none: it has left, or its file could not be opened in a forked child */
    bool has_left;
    bool is_owner;           /* of the run: it holds the member lock */
    bool had_lane;           /* lane_number and lane.head tell of it, also when it was given back */
    uint64_t token;          /* of the owner that it is, or follows; 0: unknown */
    uint32_t lane_number;
    uint32_t fork_generation; /* grows in a forked child */

    bool owes_gap;   /* drops that no GAP tells yet */
    bool owes_owner; /* the tenancy's OWNER record is not written yet */
    uint32_t owner_bytes;
    char owner[SHMLOG_OWNER_BYTES_MAX];

    uint64_t logged; /* by this process */
    uint64_t dropped[SHMLOG_REASONS];
    uint64_t waits;
    uint64_t waited_ns;

    shmlog_drop_policy drop_policy; /* the segment's, as it was when we joined */
    int64_t joined_ns;
    int64_t late_waited_ns; /* waited after the first ten seconds */
    uint64_t gave_up_tail;  /* tail when the last wait ran out, plus one; 0: none did */

    struct shmlog_producer *next; /* in the list that fork() walks */
    void (*after_fork)(struct shmlog_producer *producer); /* in the child, once it is a member; NULL: nothing */
    char path[SHMLOG_PATH_MAX];
} shmlog_producer;

/* Have fork() rejoin every producer in the child. Once per process. */
int shmlog_producer_watch_forks(void);

/* A description that holds the lock of a flusher that is being started: whoever has a descriptor of it counts as one,
 * but for forked children, which close theirs. The descriptor is not below `lowest`. Returns -1 with errno. */
int shmlog_start_begin(const shmlog_segment *segment, const char *path, int lowest);

/* Close the descriptor: the flusher, if there is one, has its own. */
void shmlog_start_end(int fd);

/* How a producer belongs to a run. */
typedef struct {
    bool is_owner;
    uint64_t token;
} shmlog_membership;

/* Become a producer: open `path` and, as an owner, hold the member lock. Returns 0, EAGAIN
 * when the run is being closed, ESTALE when the file there is another, or errno. */
int shmlog_producer_join(shmlog_producer *producer, shmlog_segment *segment, const char *path,
                         shmlog_membership membership);

/* Give lane and membership back. Drops that no GAP tells are told by the
 * lane's next owner, or by the flusher. */
void shmlog_producer_leave(shmlog_producer *producer);

/* Take a lane and continue at its first uncommitted slot, as `owner`. Returns
 * 0, EAGAIN when every lane is taken, ENOSPC when there is no memory for
 * another, ESTALE when the run is being closed, or errno. */
int shmlog_producer_allot(shmlog_producer *producer, const char *owner, uint32_t owner_bytes);

/* Whether somebody has cut the lane: the flusher, the producer's owner, or the owner of a follower that had
 * the lane before and was slow to do it. Only the first two mean this producer. */
static inline bool shmlog_producer_is_cut(const shmlog_producer *producer)
{
    /* relaxed: CUT; who sees a zero limit sees it, and a look without that may miss it. */
    return atomic_load_explicit(&producer->lane.shared->cut, memory_order_relaxed) != 0;
}

/* Whether the flusher closes the run. If not, all that the producer has committed is in it. */
bool shmlog_producer_run_is_closed(const shmlog_producer *producer);

/* The lane was cut and this producer not meant, as far as is known: take that back. To be looked at again. */
void shmlog_producer_uncut(shmlog_producer *producer);

/* A producer whose part has ended decides where its lane ends. Returns how many of the slots below
 * `head` are not in the run, which the flusher has closed before; `untold` is how many drops
 * of full lanes that has left out. */
uint64_t shmlog_producer_retire(shmlog_producer *producer, uint64_t *untold);

typedef enum {
    SHMLOG_ROOM,
    SHMLOG_ROOM_WAKE, /* room, but half full: wake the flusher if it sleeps */
    SHMLOG_FULL,
    SHMLOG_CUT /* somebody has cut the lane */
} shmlog_room;

/* The slow half of shmlog_producer_has_room(): look at tail, and put the GAP
 * and OWNER records that are owed. */
shmlog_room shmlog_producer_make_room(shmlog_producer *producer, uint32_t slots);

/* Whether `slots` slots can be written without a look at the shared tail. */
static inline bool shmlog_producer_has_room(const shmlog_producer *producer, uint32_t slots)
{
    return producer->lane.head + slots <= shmlog_lane_limit(producer->lane.shared);
}

/* Put the GAP that is owed, if there is room. */
void shmlog_producer_settle(shmlog_producer *producer);

/* Why a lane has no room: because the log can't be written, or for want of speed. */
enum shmlog_reason shmlog_producer_why_full(const shmlog_producer *producer);

/* Count records that will never be written; in the segment, unless they came after the run's end. */
void shmlog_producer_drop(shmlog_producer *producer, enum shmlog_reason reason, uint64_t records);

/* Add what one producer logged, dropped and waited to another's. */
void shmlog_producer_add_counts(shmlog_producer *sum, const shmlog_producer *producer);

static inline uint32_t shmlog_producer_unit_max(const shmlog_segment *segment)
{
    return shmlog_unit_max(segment->lane_slots);
}

typedef enum {
    SHMLOG_WAIT_AGAIN, /* look for room again, then wait on */
    SHMLOG_WAIT_OVER,  /* patience has run out */
    SHMLOG_WAIT_DEAD   /* there is no flusher */
} shmlog_wait_state;

typedef struct {
    int64_t since_ns; /* when the flusher was last seen to get anything done */
    uint64_t tail;
    uint64_t progress;
    int64_t nap_ns;
    int64_t begun_ns;
    int64_t probed_ns;
    bool replaced; /* another flusher was started during this wait */
} shmlog_wait;

/* Whether a flusher keeps the run of the segment that `lock_fd` is of, or one that was started gets ready to. Also
 * if that can't be told. */
bool shmlog_flusher_lives(int lock_fd);

/* Whether one was started less than ten seconds ago and does not drain yet, if it lives. */
bool shmlog_flusher_is_starting(const shmlog_header *header, int64_t now_ns);

/* Begin to wait for room; OVER if waiting is not allowed now. */
shmlog_wait_state shmlog_producer_wait_begin(shmlog_producer *producer, shmlog_wait *wait);

/* Sleep a little (0.05 to 1 ms) without touching any private state of the lane:
 * another thread of the process may log meanwhile. */
shmlog_wait_state shmlog_producer_wait_nap(const shmlog_producer *producer, shmlog_wait *wait);

/* Book the time waited. `room`: it was worth it. */
void shmlog_producer_wait_end(shmlog_producer *producer, const shmlog_wait *wait, bool room);

#endif
