/* How the owners of a run end.
 *
 * An owner finishes with a status that it says itself, or comes to its exit without one. Then
 * only the end of the process decides it: exit(3) may be called with any number, by whoever
 * likes. Until it is known, the header has a likely one. */
#ifndef SHMLOG_EXITS_H
#define SHMLOG_EXITS_H

#include "segment.h"

#include <stdbool.h>

/* Add the status that an owner has finished with; 0: it says nothing of it. */
void shmlog_finish_add(shmlog_header *header, uint32_t status, bool by_maker);

/* The status of the run, as far as it is known: a SHMLOG_BY_MAKER is in it once it can be told. */
uint32_t shmlog_finish_status(const shmlog_header *header);

/* Have the end of this process decide its status, which is likely to be `likely`; it stays an
 * owner until then. `path` is that of the segment. With `wal`, the process ends only when that
 * folder of the run is gone: when the flusher has closed it. NULL: at once.
 *
 * False: how it ends can't be known, as the C library does not tell, or no descriptor is left. */
bool shmlog_exits_await(const shmlog_segment *segment, const char *path, uint32_t likely, bool by_maker,
                        const char *wal);

#endif
