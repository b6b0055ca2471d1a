/* Values and steps: from Python objects to the words of a record. */
#ifndef SHMLOG_PY_VALUE_H
#define SHMLOG_PY_VALUE_H

#include "py_core.h"
#include "../core/lane.h"

/* A value under conversion; owns what `value.bytes` points into. */
typedef struct {
    shmlog_value value;
    PyObject *owner;
} shmlog_item;

/* Convert a value. Returns false with an exception set; may run Python code. */
bool shmlog_item_convert(PyObject *object, shmlog_item *item);
/* The same for exact float, int, bool and str, which run no Python code: 1 when
 * done, 0 when the object is none of these, -1 with an exception set. */
int shmlog_item_convert_exact(PyObject *object, shmlog_item *item);
void shmlog_item_clear(shmlog_item *item);

/* Whether an array of numpy.ma, whatever its size, has masked elements; -1: exception set. */
int shmlog_is_masked(PyObject *object);

/* Have the exception that is set begin with a place, such as "metric 'loss'", or bear it as a note. Arguments as for
 * PyUnicode_FromFormat(). */
SHMLOG_COLD void shmlog_say_where(const char *format, ...);
/* The same with the name of a metric. Returns -1. */
SHMLOG_COLD int shmlog_say_metric(PyObject *name);
/* Convert the value of a metric, which the exception names. */
bool shmlog_item_convert_of(PyObject *name, PyObject *value, shmlog_item *item);

/* Convert a step; may run Python code. */
bool shmlog_step_convert(PyObject *object, int64_t *step);

/* An exact int that fits the machine word the cheap way. */
static inline bool shmlog_small_int(PyObject *object, int64_t *value)
{
    if (!PyLong_CheckExact(object)) {
        return false;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        *value = (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
        return true;
    }
#else
    Py_ssize_t size = Py_SIZE(object);
    if (size >= -1 && size <= 1) {
        *value = size * (int64_t)((PyLongObject *)object)->ob_digit[0];
        return true;
    }
#endif
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

static inline uint64_t shmlog_float_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#endif
