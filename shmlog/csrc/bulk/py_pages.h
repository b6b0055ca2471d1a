/* The function of shmlog._bulk about pages of Parquet files. */
#ifndef SHMLOG_PY_PAGES_H
#define SHMLOG_PY_PAGES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *shmlog_py_check_pages(PyObject *module, PyObject *args);

#endif
