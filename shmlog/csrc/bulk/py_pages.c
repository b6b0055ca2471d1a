#include "py_pages.h"

#include "pages.h"

static PyObject *answer(shmlog_pages found, uint64_t place)
{
    switch (found) {
    case SHMLOG_PAGES_SOUND:
        Py_RETURN_NONE;
    case SHMLOG_PAGES_UNREADABLE:
        return PyErr_SetFromErrno(PyExc_OSError);
    default:
        return PyErr_Format(PyExc_ValueError, "the page at byte %llu is not as it was written",
                            (unsigned long long)place);
    }
}

PyObject *shmlog_py_check_pages(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd;
    Py_buffer groups;
    const char *encodings;
    Py_ssize_t columns;
    shmlog_page_layout layout;
    if (!PyArg_ParseTuple(args, "iy*y#", &fd, &groups, &encodings, &columns)) {
        return NULL;
    }
    layout.encodings = (const unsigned char *)encodings;
    layout.columns = (size_t)columns;
    layout.groups = groups.buf;
    layout.group_count = (size_t)groups.len / sizeof *layout.groups;
    shmlog_pages found;
    uint64_t place = 0;
    Py_BEGIN_ALLOW_THREADS
    found = shmlog_pages_check(fd, &layout, &place);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&groups);
    return answer(found, place);
}
