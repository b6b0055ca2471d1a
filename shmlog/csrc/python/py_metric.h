/* Metric: one name of a run, and many values of it at once. */
#ifndef SHMLOG_PY_METRIC_H
#define SHMLOG_PY_METRIC_H

#include "py_run.h"

PyObject *shmlog_metric_new(RunObject *run, PyObject *name, uint32_t id);

/* The id of its name in its run. */
uint32_t shmlog_metric_id(PyObject *metric);

/* ---- py_extend.c ---- */

/* Append many values under the metric's name, which counts the steps on if `steps` is NULL. MOVED: the run has
 * taken none of the `records`. */
shmlog_outcome shmlog_extend(RunObject *run, PyObject *metric, PyObject *values, PyObject *steps,
                             uint64_t *records);

#endif
