/* What log(), a handle and extend() have in common: where a record stands, and the steps of calls that give none. */
#ifndef SHMLOG_PY_LOG_H
#define SHMLOG_PY_LOG_H

#include "py_run.h"

/* Where a record stands, as its call says. */
typedef struct {
    bool has_step;
    int64_t step; /* if not: to be counted */
} shmlog_place;

/* ---- py_steps.c ---- */

/* Count `count` steps on for a name; `first` of them. Of a name without room there are none: 0. False: exception set. */
bool shmlog_claim_steps(RunObject *run, uint32_t name_id, int64_t count, int64_t *first);

/* The same of one step for several values: the first that none of their names has had. */
bool shmlog_claim_shared_step(RunObject *run, const shmlog_value *values, Py_ssize_t count, int64_t *step);

/* ---- py_dict.c ---- */

/* The fast path of a dict: numbers under exact strs, put into their slots as they
 * are met, with room in the lane. No Python code runs in here, so that neither the
 * dict nor head can change meanwhile. 1: written; 0: not, and slots that were filled
 * don't exist, since no header was committed for them; -1: exception. */
int shmlog_put_numbers(ProducerObject *writer, PyObject *metrics, int64_t step);

/* Append a dict as one unit, or as a sequence of them when it is larger than a unit can be. */
shmlog_outcome shmlog_log_batch(RunObject *run, PyObject *metrics, shmlog_place place);

#endif
