/* A frame: what is committed in the lanes now, staged in memory, then written to the
 * log in one piece. For drain.c alone. Its layout is in docs/format.md. */
#ifndef SHMLOG_FRAME_H
#define SHMLOG_FRAME_H

#include "drain.h"

enum {
    SHMLOG_FRAME_ENTRY_BYTES = 80,
    SHMLOG_FRAME_NAMES_BYTES = SHMLOG_NAMES_MAX * 16 + SHMLOG_NAME_TEXT_BYTES,
    SHMLOG_FRAME_NAME_BITMAP = SHMLOG_NAMES_MAX / 8
};

/* Begin an empty one; the first of a log repeats all names. */
void shmlog_frame_begin(shmlog_drain *drain);

/* Stage what a lane holds, as far as there is room. Returns the slots that it gave. */
uint64_t shmlog_frame_add_lane(shmlog_drain *drain, uint32_t number);

/* Stage a GAP behind what the lane has given, which its owner has not put there. There is room for one in each lane. */
void shmlog_frame_add_gap(shmlog_drain *drain, uint32_t number, const uint64_t counts[SHMLOG_REASONS]);

/* Returns 0 or errno, and how long it is. */
int shmlog_frame_write(shmlog_drain *drain, size_t *length);

#endif
