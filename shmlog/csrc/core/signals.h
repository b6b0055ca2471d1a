/* A signal that ends the process at once leaves its number in the runs that the
 * process has made: a run that somebody stopped is told apart from one that crashed.
 *
 * Only where nothing but the kernel's default waits for the signal; whatever the
 * program installs itself, before or after, is not touched, and the process dies of
 * the signal as it would have without us. */
#ifndef SHMLOG_SIGNALS_H
#define SHMLOG_SIGNALS_H

#include "format.h"

#include <stdbool.h>

/* Have SIGTERM and SIGINT leave their number in `header`, which has to stay mapped
 * until it is forgotten. No children of this process are meant, whatever they inherit. */
void shmlog_signals_watch(shmlog_header *header);

/* The opposite. False: a signal is ending the process, and `header` must stay mapped. */
bool shmlog_signals_forget(shmlog_header *header);

#endif
