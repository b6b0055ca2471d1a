/* The consumer: copy what is committed in all lanes into one frame, write it to
 * the log, then give the slots back. The layout of a frame is in docs/format.md.
 *
 * One thread drains, and needs nothing of Python for it: no import, no sealing and
 * no garbage collection of the flusher can hold it up. Other threads may ask it to
 * stop or to rotate, and read the atomic members. Nothing a drain finds in shared
 * memory is trusted: a damaged lane is set aside and named, the others go on. */
#ifndef SHMLOG_DRAIN_H
#define SHMLOG_DRAIN_H

#include "lane.h"
#include "segment.h"
#include "work.h"

#include <semaphore.h>

typedef struct {
    uint64_t position; /* first slot that is not in the log */
    uint64_t seq;      /* of the next record */
    uint64_t gapped[SHMLOG_REASONS];
    uint32_t tenancy; /* owners the lane has had */
    uint32_t owner_bytes;
    char owner[SHMLOG_OWNER_BYTES_MAX];
    bool used;
    bool told_once; /* lane and owner stand in one frame of this log, and the next has to repeat them */
} shmlog_cursor;

/* A frame under construction. */
typedef struct {
    unsigned char *entries; /* lane entries */
    unsigned char *names;
    unsigned char *owners;
    unsigned char *slots;
    size_t entries_bytes, names_bytes, owners_bytes, slots_bytes;
    uint32_t lane_count, name_count, owner_count;
    bool is_full; /* the lane staged last may have more */
} shmlog_frame;

typedef struct {
    shmlog_segment *segment;
    shmlog_cursor *cursors; /* what the log holds */
    shmlog_cursor *staged;  /* the same after the frame under construction */
    uint64_t *asked;        /* by lane: up to where the rotation that is being carried out has to get */
    uint64_t asked_slots;   /* most that it may still take */
    uint8_t *names_seen;    /* bit per id: in some log */
    uint8_t *names_staged;  /* the same with the frame under construction */
    uint8_t *names_twice;   /* in two frames of this log */
    shmlog_frame frame;
    uint32_t frame_slots; /* most that a frame takes: any unit fits */
    uint32_t next_lane;   /* where the next pass begins, so that all get their turn */
    uint32_t known_lanes; /* no lane from this one on was ever allotted */
    bool is_idle;         /* the last pass found nothing */
    bool is_asked;        /* a rotation is being carried out: for ... */
    uint32_t asked_rotate; /* ... this value of `rotate` */
    uint32_t asked_finish; /* ... and this finish_request of the segment */

    int folder; /* of the logs */
    _Atomic int next_folder; /* to go on in from the next log on, or -1; set by other threads */
    int fd;     /* of the open log; -1: none */
    uint32_t log;
    uint32_t index; /* frames in it */
    bool first;     /* the next frame is the log's first */
    bool is_made;   /* log `log` was made by us */
    bool named;     /* the names of all logs are on the disk */
    uint32_t synced_below;  /* closed logs below this one are on the disk */
    uint32_t doubted_below; /* those below this one count as such only when they are sealed */
    sem_t *bell; /* NULL: poll */
    shmlog_work work; /* of other threads: run() counts it as progress */

    /* CLOSED: logs below this one will not be written to again, and the first
     * frame of this one repeats what a restart needs of them. */
    _Atomic uint32_t closed_below;
    _Atomic uint32_t stop;     /* set by other threads */
    _Atomic uint32_t rotate;   /* how often other threads have asked for the next log */
    _Atomic uint32_t rotated;  /* the last of these that was answered */
    _Atomic uint32_t rotated_below; /* logs below this one have what the lanes held then */
    _Atomic uint32_t noted;        /* the last finish_request for which the log was changed */
    _Atomic uint32_t finish_below; /* logs below this one have what the lanes held when it was seen */
    _Atomic uint32_t limit;    /* logs from this one on are not opened yet, unless one was asked for; set by others */
    _Atomic int error;         /* why nothing can be written just now, or 0 */
    _Atomic uint64_t log_bytes;
    _Atomic uint64_t frames;
    _Atomic uint64_t slots;
} shmlog_drain;

/* Memory for a drain of `segment`, at position 0 of every lane. The logs lie in
 * the folder `folder` (taken over), the first is `log`; `bell` may be NULL. 0 or ENOMEM. */
int shmlog_drain_open(shmlog_drain *drain, shmlog_segment *segment, int folder, uint32_t log, sem_t *bell);
void shmlog_drain_close(shmlog_drain *drain);

/* Restart: the logs hold what `cursor` says of `lane`. Tail follows it. */
void shmlog_drain_restore(shmlog_drain *drain, uint32_t lane, const shmlog_cursor *cursor);

/* Have shmlog_drain_run() stop. From any thread. */
void shmlog_drain_stop(shmlog_drain *drain);

/* The log will not be written any more, for that errno; shmlog_drain_run() has returned. */
void shmlog_drain_give_up(shmlog_drain *drain, int error);

/* Have shmlog_drain_run() drain what the lanes hold by now, then go on to the next
 * log, `rotated_below`. From any thread. Returns what `rotated` will have reached when
 * that is done. A request to finish in the segment has it do the same by itself: what
 * such a request waits for must not depend on what the rest of the flusher is busy with. */
uint32_t shmlog_drain_rotate(shmlog_drain *drain);

/* Have the next log, and those after it, lie in another folder (taken over). From any thread. */
void shmlog_drain_move(shmlog_drain *drain, int folder);

/* Logs below `limit` may be opened; without a call, all. When the last of these has
 * reached its size, run() leaves lanes to fill until the limit is raised: what is
 * not sealed must not fill the disk. From any thread. */
void shmlog_drain_limit(shmlog_drain *drain, uint32_t limit);

/* The run is over, shmlog_cut_all() was called and everything drained: decide where each lane
 * ends. Returns whether some producer has decided it first, so that there is more to drain. */
bool shmlog_drain_finalize(shmlog_drain *drain);

/* After that, and with all drained: write a frame with a GAP for each lane whose last owner has
 * dropped records since the last one. The lanes themselves are left alone: their owners may live.
 * Returns 0 or errno; then the next log is needed. */
int shmlog_drain_settle(shmlog_drain *drain);

/* Close the log, open the next and write its first frame, which repeats the full
 * state. Returns 0 or errno; then it is to be tried again with the same number. */
int shmlog_drain_next_log(shmlog_drain *drain);

/* What a pass found. */
typedef struct {
    uint64_t slots;
    uint32_t busiest; /* largest share of a lane, in 1/256 */
    bool more;        /* the frame was full */
} shmlog_drained;

/* Write one frame, if there is anything for it. Returns 0 or errno; then nothing
 * was taken from any lane, and the next log is needed. */
int shmlog_drain_pass(shmlog_drain *drain, shmlog_drained *drained);

/* Whether a producer waits until what it has logged is on the disk. */
bool shmlog_drain_sync_is_wanted(const shmlog_drain *drain);

/* fsync all logs, and tell every lane. Returns 0, EAGAIN when sealing has to make a
 * log durable first, or errno.
 *
 * A second fsync of a file is worth nothing after one that has failed: the kernel
 * has thrown away what it could not write, and forgotten the error. What such a log
 * holds is on the disk when it is sealed, which writes it into other files. */
int shmlog_drain_sync(shmlog_drain *drain);

/* Drain until asked to stop: pass after pass at about 1 ms while lanes fill, else
 * asleep on the doorbell for at most 100 ms. A log that has reached `log_bytes_max`,
 * or that can't be written, is followed by the next one; while no log can be
 * written, that is tried once a second. */
void shmlog_drain_run(shmlog_drain *drain, uint64_t log_bytes_max);

#endif
