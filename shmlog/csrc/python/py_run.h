/* RunBase: a run in this process, with the writers of its threads. */
#ifndef SHMLOG_PY_RUN_H
#define SHMLOG_PY_RUN_H

#include "py_segment.h"
#include "py_writer.h"

typedef struct RunObject {
    PyObject_HEAD
    ProducerObject *writer;  /* the process's */
    SegmentObject *segment;  /* NULL: closed, or disabled */
    PyObject *name_ids;      /* dict: str -> id, of this process */
    PyObject *cached_names;  /* dict, as a set: the names in the caches of the writers */
    PyObject *metrics;       /* dict: str -> Metric */
    PyObject *interned_step; /* "step", as compiled code has it */
    int64_t *next_steps;     /* by name id, of calls without a step; NULL: there was none */
    uint32_t step_counts;    /* how many of them count */
    uint32_t step_generation;
    bool disabled;
    _Atomic bool told_drop;
#ifdef Py_GIL_DISABLED
    uint64_t serial;    /* of this object, in this process */
    PyObject *writers;  /* list: the threads' */
    PyMutex writers_lock;
    uint64_t *departed; /* by lane: up to where threads that have ended wrote; NULL: none has */
#endif
    uint64_t beacon_state; /* in which the owner's beacon tells children that the run is open; 0: unknown */
    char beacon[128];      /* its path */
} RunObject;

#ifdef Py_GIL_DISABLED
enum { SHMLOG_RUNS_AT_HAND = 4 };

/* A writer that this thread used, and of which producer. */
typedef struct {
    uint64_t serial;
    ProducerObject *writer;
} shmlog_last_writer;

extern _Thread_local shmlog_last_writer shmlog_here[SHMLOG_RUNS_AT_HAND] __attribute__((tls_model("initial-exec")));

/* The writer of this thread if it is not at hand; never NULL. */
ProducerObject *shmlog_writer_find(RunObject *run);

void shmlog_writer_after_fork(shmlog_producer *producer);
#endif

/* The writer of this thread if it is at hand, else the process's: for a thread that does not log. */
static inline ProducerObject *shmlog_writer_at_hand(const RunObject *run)
{
#ifdef Py_GIL_DISABLED
    const shmlog_last_writer *here = &shmlog_here[run->serial % SHMLOG_RUNS_AT_HAND];
    return SHMLOG_LIKELY(here->serial == run->serial) ? here->writer : run->writer;
#else
    return run->writer;
#endif
}

/* The writer for this thread to log with. */
static inline ProducerObject *shmlog_writer_of(RunObject *run)
{
    ProducerObject *writer = shmlog_writer_at_hand(run);
#ifdef Py_GIL_DISABLED
    return SHMLOG_LIKELY(writer != run->writer) ? writer : shmlog_writer_find(run);
#else
    return writer;
#endif
}

/* Whether the run has ended for this process. False of one that it has not logged to yet, and may turn out to. */
static inline bool shmlog_run_is_over(const RunObject *run)
{
    const shmlog_producer *producer = &run->writer->producer;
    return shmlog_writer_is_closed(run->writer) ||
           (shmlog_producer_is_cut(producer) && (!producer->is_owner || shmlog_producer_run_is_closed(producer)));
}

/* The run that calls on this one go to, which is over: a new reference. NULL: there is none, or an exception is set. */
RunObject *shmlog_run_next(RunObject *run);

/* Count drops of a run that is over, and has no next. False: exception set. */
bool shmlog_run_drop_closed(RunObject *run, uint64_t records);

/* ---- py_writer.c, py_threads.c ---- */

/* Make the process's writer, and end all that there are. */
bool shmlog_writers_begin(RunObject *run);
void shmlog_writers_end(RunObject *run);

/* Call `use` with each writer of the run, its lock held, until one returns false: exception set. */
bool shmlog_each_writer(RunObject *run, bool (*use)(ProducerObject *writer, void *context), void *context);

/* The same with each lane that a thread had until it ended, and up to where it wrote. */
bool shmlog_each_departed(RunObject *run, bool (*use)(uint32_t lane, uint64_t head, void *context),
                          void *context);

/* ---- py_beacon.c ---- */

extern const char shmlog_announced_doc[];
PyObject *shmlog_run_announced(RunObject *run, PyObject *args);
PyObject *shmlog_run_get_is_announced(RunObject *run, void *closure);

/* Whether the owner's beacon is as it was when it told that the run is open. Else it is to be read. */
bool shmlog_run_is_announced(const RunObject *run);

/* ---- py_standing.c ---- */

extern PyGetSetDef shmlog_run_getters[];
PyObject *shmlog_run_request_sync(RunObject *self, PyObject *none);
PyObject *shmlog_run_positions(RunObject *self, PyObject *none);
PyObject *shmlog_run_counts(RunObject *self, PyObject *none);

/* ---- py_log.c ---- */

PyObject *shmlog_log(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);

/* ---- py_event.c ---- */

PyObject *shmlog_put_event(RunObject *self, PyObject *args);

#endif
