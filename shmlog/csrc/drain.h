/* The consumer: copy what is committed in all lanes into one frame, write it to
 * the log, then give the slots back. The layout of a frame is in docs/format.md.
 *
 * One thread drains; other threads may call shmlog_drain_request() and read the
 * counters. Nothing a drain finds in shared memory is trusted: a damaged lane is
 * set aside and named, the others go on. */
#ifndef SHMLOG_DRAIN_H
#define SHMLOG_DRAIN_H

#include "lane.h"
#include "segment.h"

typedef struct {
    uint64_t position; /* first slot that is not in the log */
    uint64_t seq;      /* of the next record */
    uint64_t gapped[SHMLOG_REASONS];
    uint32_t tenancy; /* owners the lane has had */
    uint32_t owner_bytes;
    char owner[SHMLOG_OWNER_BYTES_MAX];
    bool used;
} shmlog_cursor;

/* A frame under construction. */
typedef struct {
    unsigned char *entries; /* lane entries */
    unsigned char *names;
    unsigned char *owners;
    unsigned char *slots;
    size_t entries_bytes, names_bytes, owners_bytes, slots_bytes;
    uint32_t lane_count, name_count, owner_count;
} shmlog_frame;

typedef struct {
    shmlog_segment *segment;
    shmlog_cursor *cursors; /* what the log holds */
    shmlog_cursor *staged;  /* the same after the frame under construction */
    uint8_t *names_seen;    /* bit per id: in some log */
    uint8_t *names_staged;  /* the same with the frame under construction */
    shmlog_frame frame;
    uint32_t next_lane; /* where the next pass begins, so that all get their turn */

    int fd; /* of the log; -1: none is open */
    uint32_t log;
    uint32_t index;
    bool first; /* the next frame is the log's first */

    _Atomic uint64_t log_bytes;
    _Atomic uint64_t frames;
    _Atomic uint64_t slots;
    _Atomic uint32_t requests; /* bits of shmlog_drain_event, set by other threads */
} shmlog_drain;

/* Why shmlog_drain_run() came back. */
typedef enum {
    SHMLOG_DRAIN_IDLE = 0,   /* little to do: sleep on the doorbell */
    SHMLOG_DRAIN_STOP = 1,   /* asked to stop */
    SHMLOG_DRAIN_ROTATE = 2, /* asked for the next log, or this one is large */
    SHMLOG_DRAIN_ERROR = 3   /* the log can't be written or synced: open the next */
} shmlog_drain_event;

/* Memory for a drain of `segment`, at position 0 of every lane. 0 or ENOMEM. */
int shmlog_drain_open(shmlog_drain *drain, shmlog_segment *segment);
void shmlog_drain_close(shmlog_drain *drain);

/* Continue in the empty log `fd`, whose first frame will repeat the full state. */
void shmlog_drain_use_log(shmlog_drain *drain, int fd, uint32_t log);

/* Ask the draining thread to stop or to rotate (one of shmlog_drain_event). */
void shmlog_drain_request(shmlog_drain *drain, shmlog_drain_event event);

/* Restart: the log holds what `cursor` says of `lane`. Tail follows it. */
void shmlog_drain_restore(shmlog_drain *drain, uint32_t lane, const shmlog_cursor *cursor);

/* The run is over and everything drained: put a GAP into each lane whose late
 * owner has dropped records since its last one. The caller holds the member lock
 * alone, so that no owner is left. Returns whether there is anything to drain. */
bool shmlog_drain_settle(shmlog_drain *drain);

/* Write one frame. Returns 0 or errno; then nothing was taken from any lane.
 * `busiest`: the largest share of a lane that was drained, in 1/256. */
int shmlog_drain_pass(shmlog_drain *drain, uint32_t *busiest);

/* fsync the log, and tell every lane. Returns 0 or errno. */
int shmlog_drain_sync(shmlog_drain *drain);

/* Passes at about 1 ms while lanes fill, until there is little to do, a request,
 * `log_bytes_max`, or an error (in `error`). */
shmlog_drain_event shmlog_drain_run(shmlog_drain *drain, uint64_t log_bytes_max, int *error);

#endif
