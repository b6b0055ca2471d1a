/* A mapped segment: made, checked, unmapped. */
#ifndef SHMLOG_SEGMENT_H
#define SHMLOG_SEGMENT_H

#include "lane.h"
#include "lock.h"

#include <stdbool.h>
#include <sys/types.h>

typedef struct {
    unsigned char *base; /* NULL: not mapped */
    size_t bytes;
    shmlog_header *header; /* its control words; the constants that were checked are these */
    shmlog_constants constants;
    shmlog_name_table *names;
    shmlog_lane_header *lanes;
    uint32_t lane_count;
    uint32_t lane_slots;
    uint32_t shift; /* lane_slots == 1 << shift */
    bool tsc;
    shmlog_description file; /* kept to open others; carries no lock */
} shmlog_segment;

typedef struct {
    uint32_t lanes;
    uint32_t lane_slots; /* a power of two */
    uint32_t clock;
    const char *run_id;
    const char *run_dir;
    uint32_t first_lane;              /* number of lane 0 in the files of the run */
    uint64_t unlaned[SHMLOG_REASONS]; /* drops without a lane that earlier attempts have counted */
    shmlog_drop_policy drop_policy;
} shmlog_geometry;

/* Errors are errno values, or one of these. */
enum {
    SHMLOG_BAD_MAGIC = -1,
    SHMLOG_BAD_VERSION = -2,
    SHMLOG_BAD_LAYOUT = -3,
    SHMLOG_BAD_GEOMETRY = -4
};

/* Bytes of the segment before its first lane, all allocated at creation. */
uint64_t shmlog_segment_head_bytes(uint32_t lanes);

/* Make the segment in the empty file `fd`. The file is allocated up to the
 * first lane, so that no store there can meet a full file system. Takes `fd`
 * over if it succeeds. */
int shmlog_segment_create(shmlog_segment *segment, int fd, const shmlog_geometry *geometry);

/* Map the segment in `fd` and check every number in its header. Takes `fd`
 * over if it succeeds. */
int shmlog_segment_open(shmlog_segment *segment, int fd);

void shmlog_segment_close(shmlog_segment *segment);

/* Allocate the memory of a lane; `fd` is any descriptor of the segment. Returns 0 or errno. */
int shmlog_segment_allocate_lane(const shmlog_segment *segment, int fd, uint32_t lane);

/* Allocate lanes in advance until `spares` that nobody ever used are there: zeroing
 * their memory takes most of a process's first log call. `lock_fd` takes each lane's
 * lock meanwhile. Returns 0 or errno; a lane that somebody else holds is let alone. */
int shmlog_segment_keep_spares(shmlog_segment *segment, int lock_fd, uint32_t spares);

static inline shmlog_slot *shmlog_segment_slots(const shmlog_segment *segment, uint32_t lane)
{
    return (shmlog_slot *)(void *)(segment->base + segment->constants.slots_offset) +
           (size_t)lane * segment->lane_slots;
}

/* Whether nobody may attach any more. */
static inline bool shmlog_segment_is_closed(const shmlog_segment *segment)
{
    /* CONTROL, acquire side: the flusher sets `closed` while it holds the
     * member lock alone, so that a lock taken after that sees it. */
    return atomic_load_explicit(&segment->header->closed, memory_order_acquire) != 0;
}

/* The lane as producers and the drain use it. */
void shmlog_segment_view_lane(const shmlog_segment *segment, uint32_t number, shmlog_lane *lane);

#endif
