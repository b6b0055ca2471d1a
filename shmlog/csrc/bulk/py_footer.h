/* Functions of shmlog._bulk about footers of Parquet files. */
#ifndef SHMLOG_PY_FOOTER_H
#define SHMLOG_PY_FOOTER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *shmlog_py_footer_groups(PyObject *module, PyObject *args);
PyObject *shmlog_py_footer_move(PyObject *module, PyObject *args);

#endif
