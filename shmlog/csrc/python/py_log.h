/* What log(), a handle and extend() have in common: where a record stands, and the steps of calls that give none. */
#ifndef SHMLOG_PY_LOG_H
#define SHMLOG_PY_LOG_H

#include "py_run.h"

/* Where a record stands, as its call says. */
typedef struct {
    bool has_step;
    bool has_time;
    int64_t step;    /* if not given: to be counted */
    int64_t time_us; /* since 1970; if not given: the time of the call */
} shmlog_place;

/* Take step and time from what was given for them; NULL: nothing. False: exception set. Runs Python code. */
bool shmlog_take_place(RunObject *run, PyObject *step, PyObject *time, shmlog_place *place);

/* Have a value bear the time of its call, if that gave one. */
static inline void shmlog_value_set_time(shmlog_value *value, const shmlog_place *place)
{
    if (place->has_time) {
        value->flags |= SHMLOG_GIVEN;
        value->time_us = place->time_us;
    }
}

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

/* Append a dict as one unit, or as a sequence of them when it is larger than a unit can be. MOVED: the run has
 * taken none of the `records`. */
shmlog_outcome shmlog_log_batch(RunObject *run, PyObject *metrics, const shmlog_place *place, uint64_t *records);

/* Whether a value stands for others or for nothing: a dict, whose names are joined to its own, or None, which is left
 * out unless the run is strict. */
static inline bool shmlog_is_nested(const ProducerObject *writer, PyObject *value)
{
    return PyDict_Check(value) || (value == Py_None && !writer->producer.drop_policy.strict);
}

/* Append what such a value stands for, as a dict. */
SHMLOG_COLD shmlog_outcome shmlog_log_nested(RunObject *run, PyObject *name, PyObject *value,
                                             const shmlog_place *place, uint64_t *records);

/* ---- py_log.c ---- */

/* Put the value of an argument that was given by name into its place among `given`. False: exception set. */
bool shmlog_take_keyword(const char *const *names, PyObject **given, PyObject *keyword, PyObject *value);

#endif
