#include "py_footer.h"

#include "footer.h"

static PyObject *refuse(void)
{
    PyErr_SetString(PyExc_ValueError, "a footer that makes no sense");
    return NULL;
}

/* A bound as bytes, or None. */
static PyObject *bound(const shmlog_footer *footer, bool is_there, size_t at, size_t size)
{
    if (!is_there) {
        Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize((const char *)footer->data + at, (Py_ssize_t)size);
}

static PyObject *describe(const shmlog_footer *footer, const shmlog_row_group *group)
{
    return Py_BuildValue("nLLLNN", (Py_ssize_t)group->begin, (long long)group->rows, (long long)group->pages_begin,
                         (long long)group->pages_end, bound(footer, group->has_low, group->low, group->low_size),
                         bound(footer, group->has_high, group->high, group->high_size));
}

/* Append all row groups to a list. Returns where they end; 0 with an exception set. */
static size_t list_groups(const shmlog_footer *footer, const shmlog_footer_parts *parts, uint64_t column, PyObject *list)
{
    size_t at = parts->groups;
    for (uint64_t i = 0; i < parts->count; i++) {
        shmlog_row_group group;
        if (!shmlog_footer_group(footer, at, column, &group)) {
            refuse();
            return 0;
        }
        PyObject *item = describe(footer, &group);
        int failed = item ? PyList_Append(list, item) : -1;
        Py_XDECREF(item);
        if (failed) {
            return 0;
        }
        at = group.end;
    }
    return at;
}

PyObject *shmlog_py_footer_groups(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data;
    unsigned column;
    if (!PyArg_ParseTuple(args, "y*I", &data, &column)) {
        return NULL;
    }
    shmlog_footer footer = {.data = data.buf, .size = (size_t)data.len};
    shmlog_footer_parts parts;
    PyObject *list = shmlog_footer_find(&footer, &parts) ? PyList_New(0) : refuse();
    size_t end = list ? list_groups(&footer, &parts, column, list) : 0;
    PyBuffer_Release(&data);
    if (!end) {
        Py_XDECREF(list);
        return NULL;
    }
    return Py_BuildValue("nnN", (Py_ssize_t)parts.schema_end, (Py_ssize_t)end, list);
}

PyObject *shmlog_py_footer_move(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data;
    Py_ssize_t at;
    long long by;
    if (!PyArg_ParseTuple(args, "y*nL", &data, &at, &by)) {
        return NULL;
    }
    shmlog_footer footer = {.data = data.buf, .size = (size_t)data.len};
    size_t size = at < 0 ? 0 : shmlog_footer_move(&footer, (size_t)at, by, NULL);
    PyObject *moved = size ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size) : refuse();
    if (moved) {
        shmlog_footer_move(&footer, (size_t)at, by, (unsigned char *)PyBytes_AS_STRING(moved));
    }
    PyBuffer_Release(&data);
    return moved;
}
