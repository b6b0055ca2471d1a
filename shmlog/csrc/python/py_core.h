/* What all files of the Python side share: the module, and what versions of Python call differently. */
#ifndef SHMLOG_PY_CORE_H
#define SHMLOG_PY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "../core/format.h"

#if defined(__GNUC__)
#define SHMLOG_LIKELY(condition) __builtin_expect(!!(condition), 1)
/* Slow halves: inlined, they would have the fast ones save and restore registers for them. */
#define SHMLOG_NOINLINE __attribute__((noinline))
#define SHMLOG_COLD __attribute__((cold, noinline))
#else
#define SHMLOG_LIKELY(condition) (condition)
#define SHMLOG_NOINLINE
#define SHMLOG_COLD
#endif

#if PY_VERSION_HEX < 0x030D0000
#define PyLong_AsInt _PyLong_AsInt
/* The lock of an object where threads run at once; nothing where the GIL is their lock. */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#define Py_BEGIN_CRITICAL_SECTION2(a, b) {
#define Py_END_CRITICAL_SECTION2() }
#endif

/* ---- module ---- */

typedef struct {
    PyTypeObject *segment_type;
    PyTypeObject *producer_type;
    PyTypeObject *run_type;
    PyTypeObject *metric_type;
    PyTypeObject *drain_type;
    PyObject *segment_error; /* shmlog.errors */
    PyObject *dropped_error;
    PyObject *run_state_error;
    PyObject *interned_step; /* "step" */
} shmlog_state;

extern struct PyModuleDef shmlog_module;
shmlog_state *shmlog_state_of(PyTypeObject *type);

extern PyType_Spec shmlog_segment_spec;
extern PyType_Spec shmlog_producer_spec;
extern PyType_Spec shmlog_run_spec;
extern PyType_Spec shmlog_metric_spec;
extern PyType_Spec shmlog_drain_spec;

extern const char *const shmlog_reason_names[SHMLOG_REASONS];

/* {reason: count} of SHMLOG_REASONS counts. */
PyObject *shmlog_counts_dict(const uint64_t *counts);

/* A new reference to what is under a key: 1; 0: nothing is; -1: exception set. */
static inline int shmlog_dict_get(PyObject *dict, PyObject *key, PyObject **value)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyDict_GetItemRef(dict, key, value);
#else
    *value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *value ? 1 : PyErr_Occurred() ? -1 : 0;
#endif
}

/* ---- functions of the module ---- */

PyObject *shmlog_py_state_of(PyObject *module, PyObject *paths);
PyObject *shmlog_py_owner_record(PyObject *module, PyObject *args);
PyObject *shmlog_py_variable(PyObject *module, PyObject *name);

#endif
