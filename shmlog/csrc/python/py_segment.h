/* Segment: the shared memory of a run, and who waits for whom in it. */
#ifndef SHMLOG_PY_SEGMENT_H
#define SHMLOG_PY_SEGMENT_H

#include "py_core.h"
#include "../core/lock.h"
#include "../core/segment.h"

typedef struct {
    PyObject_HEAD
    shmlog_segment segment;
    shmlog_description lock; /* for the flusher's locks and for probes; none: not open */
    bool is_watched;         /* signals leave their number in it */
    PyObject *path;
} SegmentObject;

/* ---- py_segment_read.c ---- */

extern PyGetSetDef shmlog_segment_getters[];
/* Have its own description for locks. Raises OSError. */
bool shmlog_segment_open_locks(SegmentObject *self);
PyObject *shmlog_segment_py_lane(SegmentObject *self, PyObject *number);

/* ---- py_exits.c ---- */

extern const char shmlog_request_finish_doc[], shmlog_note_end_doc[], shmlog_await_exit_doc[];
extern const char shmlog_watch_signals_doc[];
PyObject *shmlog_py_request_finish(SegmentObject *self, PyObject *args);
PyObject *shmlog_py_note_end(SegmentObject *self, PyObject *utc_us);
PyObject *shmlog_py_await_exit(SegmentObject *self, PyObject *args);
PyObject *shmlog_py_watch_signals(SegmentObject *self, PyObject *none);

#endif
