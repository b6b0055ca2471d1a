/* Segment: how the owners of a run end it. */
#include "py_segment.h"

#include "../core/exits.h"
#include "../core/signals.h"

const char shmlog_request_finish_doc[] = "request_finish(status, is_maker)\n--\n\n"
                                         "Ask the flusher to seal; returns the number to wait for in finish_done.\n\n"
                                         "The worst status of all owners holds, once the run's maker has given one; "
                                         "0 gives none.";

PyObject *shmlog_py_request_finish(SegmentObject *self, PyObject *args)
{
    unsigned status;
    int is_maker;
    if (!PyArg_ParseTuple(args, "Ip", &status, &is_maker)) {
        return NULL;
    }
    shmlog_header *header = self->segment.header;
    shmlog_finish_add(header, status, is_maker != 0);
    /* CONTROL, release side: records and status come before the request. */
    uint32_t requests = atomic_fetch_add_explicit(&header->finish_request, 1, memory_order_acq_rel);
    if (self->is_watched) { /* a signal says nothing more of the run */
        self->is_watched = !shmlog_signals_forget(header);
    }
    return PyLong_FromUnsignedLong(1 + requests);
}

const char shmlog_note_end_doc[] = "note_end(utc_us)\n--\n\nSay when an owner began to finish; the latest time holds.";

PyObject *shmlog_py_note_end(SegmentObject *self, PyObject *arg)
{
    unsigned long long utc_us = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    _Atomic uint64_t *ended_us = &self->segment.header->ended_us;
    uint64_t old = atomic_load_explicit(ended_us, memory_order_relaxed); /* relaxed: the exchange does it again. */
    /* relaxed: the request to finish, or the end of the membership, publishes it. */
    while (old < utc_us && !atomic_compare_exchange_weak_explicit(ended_us, &old, utc_us, memory_order_relaxed,
                                                                  memory_order_relaxed)) {
    }
    Py_RETURN_NONE;
}

const char shmlog_await_exit_doc[] =
    "await_exit(likely, is_maker, wal)\n--\n\n"
    "Have the end of this process decide its status, and stay an owner until then.\n\n"
    "wal: a folder whose removal the process waits for; None: none. False: how it ends can't be known.";

PyObject *shmlog_py_await_exit(SegmentObject *self, PyObject *args)
{
    unsigned likely;
    int is_maker;
    PyObject *wal, *bytes = NULL;
    if (!PyArg_ParseTuple(args, "IpO", &likely, &is_maker, &wal) ||
        (wal != Py_None && !PyUnicode_FSConverter(wal, &bytes))) {
        return NULL;
    }
    bool is_awaited = shmlog_exits_await(&self->segment, PyUnicode_AsUTF8(self->path), likely, is_maker != 0,
                                         bytes ? PyBytes_AS_STRING(bytes) : NULL);
    Py_XDECREF(bytes);
    return PyBool_FromLong(is_awaited);
}

const char shmlog_watch_signals_doc[] = "watch_signals()\n--\n\n"
                                        "Have a signal that ends this process at once leave its number in `ended_by`.";

PyObject *shmlog_py_watch_signals(SegmentObject *self, PyObject *Py_UNUSED(none))
{
    self->is_watched = true;
    shmlog_signals_watch(self->segment.header);
    Py_RETURN_NONE;
}
