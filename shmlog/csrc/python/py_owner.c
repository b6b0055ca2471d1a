/* owner_record(): who this process is, for the lane that it takes. */
#include "py_core.h"

#include "../core/owner.h"

#include <stdlib.h>

/* What a function of a module that is loaded returns; None if it is not, or fails. */
static PyObject *ask(const char *module, const char *function)
{
    PyObject *name = PyUnicode_FromString(module);
    PyObject *found = name ? PyImport_GetModule(name) : NULL;
    PyObject *answer = found ? PyObject_CallMethod(found, function, NULL) : NULL;
    Py_XDECREF(name);
    Py_XDECREF(found);
    PyErr_Clear();
    return answer ? answer : Py_NewRef(Py_None);
}

/* An attribute of what `ask` has returned, which it takes over; NULL if that is None. */
static PyObject *attribute_of(PyObject *object, const char *name)
{
    PyObject *found = object == Py_None ? NULL : PyObject_GetAttrString(object, name);
    Py_DECREF(object);
    PyErr_Clear();
    return found;
}

/* The name that multiprocessing has given this process; NULL if it has not made it. */
static PyObject *child_name(void)
{
    PyObject *parent = ask("multiprocessing.process", "parent_process");
    bool is_child = parent != Py_None;
    Py_DECREF(parent);
    return is_child ? attribute_of(ask("multiprocessing.process", "current_process"), "name") : NULL;
}

/* The number of this DataLoader worker; torch is not imported for it. */
static int64_t worker_number(void)
{
    PyObject *number = attribute_of(ask("torch.utils.data", "get_worker_info"), "id");
    int64_t worker = number && PyLong_Check(number) ? PyLong_AsLongLong(number) : SHMLOG_UNKNOWN;
    Py_XDECREF(number);
    PyErr_Clear();
    return worker;
}

static int64_t number_or_unknown(PyObject *object)
{
    return object == Py_None ? SHMLOG_UNKNOWN : PyLong_AsLongLong(object);
}

PyObject *shmlog_py_variable(PyObject *Py_UNUSED(module), PyObject *name)
{
    const char *key = PyUnicode_AsUTF8AndSize(name, NULL);
    const char *value = key ? getenv(key) : NULL;
    return value ? PyUnicode_DecodeFSDefault(value) : key ? Py_NewRef(Py_None) : NULL;
}

PyObject *shmlog_py_owner_record(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *rank, *local_rank, *worker, *script;
    char record[SHMLOG_OWNER_BYTES_MAX];
    if (!PyArg_ParseTuple(args, "OOOU", &rank, &local_rank, &worker, &script)) {
        return NULL;
    }
    shmlog_owner owner = {number_or_unknown(rank), number_or_unknown(local_rank), number_or_unknown(worker), NULL};
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (owner.worker == SHMLOG_UNKNOWN) {
        owner.worker = worker_number();
    }
    PyObject *name = child_name();
    PyObject *process = PyUnicode_AsEncodedString(name && PyUnicode_Check(name) ? name : script, "utf-8", "replace");
    Py_XDECREF(name);
    if (!process) {
        return NULL;
    }
    owner.process = PyBytes_AS_STRING(process);
    uint32_t bytes = shmlog_owner_write(&owner, record);
    Py_DECREF(process);
    return PyBytes_FromStringAndSize(record, (Py_ssize_t)bytes);
}
