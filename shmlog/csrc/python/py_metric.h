/* Metric: one name of a run, and many values of it at once. */
#ifndef SHMLOG_PY_METRIC_H
#define SHMLOG_PY_METRIC_H

#include "py_run.h"

PyObject *shmlog_metric_new(RunObject *run, PyObject *name, uint32_t id);

/* ---- py_extend.c ---- */

/* What extend() was given: arrays or sequences. */
typedef struct {
    PyObject *values;
    PyObject *steps; /* NULL: to be counted */
    PyObject *times; /* NULL: the time of the call */
} shmlog_arrays;

/* Append many values under the name with that id. MOVED: the run has taken none of the `records`. */
shmlog_outcome shmlog_extend(RunObject *run, uint32_t name_id, shmlog_arrays arrays, uint64_t *records);

#endif
