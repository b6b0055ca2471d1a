/* Names of metrics and event types to ids, through a cache of each writer. */
#include "py_run.h"

static bool intern_name(RunObject *self, PyObject *name, uint32_t *id)
{
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(name, &bytes);
    if (!text) {
        return false; /* a lone surrogate: UnicodeEncodeError, which is a ValueError */
    }
    if (bytes == 0 || bytes > (Py_ssize_t)SHMLOG_NAME_BYTES_MAX) {
        PyErr_Format(PyExc_ValueError, "the name of a metric must have 1 to %u bytes of UTF-8, not %zd: %.60R",
                     SHMLOG_NAME_BYTES_MAX, bytes, name);
        return false;
    }
    if (!self->segment) {
        *id = SHMLOG_NO_NAME;
        return true;
    }
    shmlog_segment *segment = &self->segment->segment;
    *id = shmlog_name_intern(segment->names, (uint64_t)segment->constants.anchor.utc_ns, text, (uint32_t)bytes);
    if (*id == SHMLOG_NO_NAME) {
        return true;
    }
    PyObject *number = PyLong_FromUnsignedLong(*id);
    int error = number ? PyDict_SetItem(self->name_ids, name, number) : -1;
    Py_XDECREF(number);
    return error == 0;
}

static bool remember(ProducerObject *writer, PyObject *name, uint32_t id)
{
    /* Of equal interned strs there is one, so that it is this one that the dict keeps. */
    if (PyDict_SetItem(writer->run->cached_names, name, Py_None) < 0) {
        return false;
    }
    *shmlog_writer_cached(writer, name) = (shmlog_cached_name){name, id};
    return true;
}

/* As shmlog_writer_find_name(), for a name that has no methods of its own. */
static bool plain_name_id(RunObject *self, PyObject *name, uint32_t *id)
{
    PyObject *known;
    if (shmlog_dict_get(self->name_ids, name, &known) < 0) {
        return false;
    }
    if (!known) {
        return intern_name(self, name, id);
    }
    *id = (uint32_t)PyLong_AsUnsignedLong(known);
    Py_DECREF(known);
    return true;
}

bool shmlog_writer_find_name(ProducerObject *writer, PyObject *name, uint32_t *id)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "the name of a metric must be a str, not %.200s", Py_TYPE(name)->tp_name);
        return false;
    }
    /* The hash and comparison of a subclass may run Python code, which might change the dict that we are in. */
    PyObject *plain = PyUnicode_FromObject(name);
    bool ok = plain && plain_name_id(writer->run, plain, id);
    if (ok && *id != SHMLOG_NO_NAME && plain == name && PyUnicode_CHECK_INTERNED(name)) {
        ok = remember(writer, name, *id);
    }
    Py_XDECREF(plain);
    return ok;
}
