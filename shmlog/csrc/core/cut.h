/* The end of followers' parts; see CUT in format.h. */
#ifndef SHMLOG_CUT_H
#define SHMLOG_CUT_H

#include "segment.h"

/* An owner's part ends: so do those of the followers that have its token. */
void shmlog_cut_followers(shmlog_segment *segment, uint64_t token);

/* The run is over, and the caller holds the member lock alone: nobody takes a lane any more, whoever
 * has one finds that at the latest when the unit that it writes is committed, and every unit whose
 * writer has not found it is visible to the caller. */
void shmlog_cut_all(shmlog_segment *segment);

#endif
