/* Beacons, files by which owners tell of their runs, as far as a log call looks at them: it reads none that is as it
 * was. In C, because a child that was just forked copies each page that Python touches. */
#include "py_run.h"

#include <stdio.h>
#include <sys/stat.h>

/* A number that is another one when the file has been replaced; 0: there is none. */
static uint64_t file_state(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return 0;
    }
    uint64_t changed_ns = (uint64_t)status.st_mtim.tv_sec * 1000000000u + (uint64_t)status.st_mtim.tv_nsec;
    uint64_t state = (uint64_t)status.st_ino * UINT64_C(0x9e3779b97f4a7c15) ^ changed_ns;
    return state ? state : 1;
}

PyObject *shmlog_py_state_of(PyObject *Py_UNUSED(module), PyObject *paths)
{
    uint64_t state = 0;
    if (!PyTuple_Check(paths)) {
        PyErr_SetString(PyExc_TypeError, "expected a tuple of paths");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(paths); i++) {
        const char *path = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(paths, i), NULL);
        if (!path) {
            return NULL;
        }
        state = state * 31 + file_state(path);
    }
    return PyLong_FromUnsignedLongLong(state);
}

const char shmlog_announced_doc[] = "_announced(beacon, state)\n--\n\n"
                                    "Have forked children take the run for open as long as that file is in that state.";

PyObject *shmlog_run_announced(RunObject *run, PyObject *args)
{
    const char *path;
    unsigned long long state;
    if (!PyArg_ParseTuple(args, "sK", &path, &state)) {
        return NULL;
    }
    int length = snprintf(run->beacon, sizeof run->beacon, "%s", path);
    run->beacon_state = length < (int)sizeof run->beacon ? state : 0;
    Py_RETURN_NONE;
}

bool shmlog_run_is_announced(const RunObject *run)
{
    return run->beacon_state && file_state(run->beacon) == run->beacon_state;
}

PyObject *shmlog_run_get_is_announced(RunObject *run, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(shmlog_run_is_announced(run));
}
