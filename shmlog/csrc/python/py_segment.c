/* Segment: a mapped segment, its control words, and the flusher's locks. */
#include "py_segment.h"

#include "../core/clock.h"
#include "../core/cut.h"
#include "../core/exits.h"
#include "../core/lock.h"
#include "../core/producer.h"
#include "../core/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static PyObject *raise_for(PyTypeObject *type, int error, PyObject *path)
{
    const char *text;
    switch (error) {
    case SHMLOG_BAD_MAGIC:
        text = "not a segment of shmlog, or not complete";
        break;
    case SHMLOG_BAD_VERSION:
        text = "made by another version of shmlog; use that version, or finish the run there";
        break;
    case SHMLOG_BAD_LAYOUT:
        text = "damaged header, or made on another kind of machine";
        break;
    case SHMLOG_BAD_GEOMETRY:
        text = "lanes must be 1 to 4096, slots of a lane a power of two from 64 to 2**26, the first lane at most 2**30";
        break;
    default:
        errno = error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
    }
    PyErr_Format(shmlog_state_of(type)->segment_error, "%U: %s", path, text);
    return NULL;
}

static SegmentObject *allocate(PyTypeObject *type, PyObject *path)
{
    SegmentObject *self = (SegmentObject *)type->tp_alloc(type, 0);
    if (self) {
        self->lock.fd = -1;
        self->path = Py_NewRef(path);
    }
    return self;
}

PyDoc_STRVAR(create_doc, "create(fd, path, *, run_id, run_dir, lanes, lane_slots, clock, first_lane=0,\n"
                         "       unlaned=(0, 0, 0, 0, 0, 0), drop_policy=(False, 0.0, False))\n"
                         "--\n\nMake a segment in the empty file fd, and take fd over.");

static PyObject *segment_create(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd",    "path",       "run_id",  "run_dir",     "lanes", "lane_slots",
                            "clock", "first_lane", "unlaned", "drop_policy", NULL};
    int fd;
    PyObject *path;
    shmlog_geometry geometry = {0};
    unsigned long long unlaned[SHMLOG_REASONS] = {0};
    int wait = false, strict = false;
    double max_wait = 0.0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iUssIII|I(KKKKKK)(pdp)", names, &fd, &path, &geometry.run_id,
                                     &geometry.run_dir, &geometry.lanes, &geometry.lane_slots, &geometry.clock,
                                     &geometry.first_lane, &unlaned[0], &unlaned[1], &unlaned[2], &unlaned[3],
                                     &unlaned[4], &unlaned[5], &wait, &max_wait, &strict)) {
        return NULL;
    }
    geometry.drop_policy = (shmlog_drop_policy){(int64_t)(max_wait * 1e9), (uint32_t)wait, (uint32_t)strict};
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        geometry.unlaned[reason] = unlaned[reason];
    }
    SegmentObject *self = allocate(type, path);
    if (!self) {
        return NULL;
    }
    int error = shmlog_segment_create(&self->segment, fd, &geometry);
    if (error) {
        self->segment.base = NULL;
        Py_DECREF(self);
        return raise_for(type, error, path);
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(open_doc, "open(fd, path)\n--\n\nMap the segment in fd, check its header, and take fd over.");

static PyObject *segment_open(PyTypeObject *type, PyObject *args)
{
    int fd;
    PyObject *path;
    if (!PyArg_ParseTuple(args, "iU", &fd, &path)) {
        return NULL;
    }
    SegmentObject *self = allocate(type, path);
    if (!self) {
        return NULL;
    }
    int error = shmlog_segment_open(&self->segment, fd);
    if (error) {
        Py_DECREF(self);
        return raise_for(type, error, path);
    }
    return (PyObject *)self;
}

static void segment_dealloc(SegmentObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (!self->is_watched || shmlog_signals_forget(self->segment.header)) {
        shmlog_segment_close(&self->segment);
    }
    shmlog_description_close(&self->lock);
    Py_XDECREF(self->path);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- locks ---- */

bool shmlog_segment_open_locks(SegmentObject *self)
{
    if (shmlog_description_is_there(&self->lock)) {
        return true;
    }
    int fd = shmlog_description_reopen(&self->segment.file, PyUnicode_AsUTF8(self->path));
    if (fd >= 0 && shmlog_description_keep(&self->lock, fd) == 0) {
        return true;
    }
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, self->path);
    if (fd >= 0) {
        close(fd);
    }
    return false;
}

PyDoc_STRVAR(lock_doc, "lock(byte)\n--\n\nTake the exclusive lock on a byte. False: somebody else has it.");

static PyObject *segment_lock(SegmentObject *self, PyObject *arg)
{
    int byte = PyLong_AsInt(arg);
    if ((byte == -1 && PyErr_Occurred()) || !shmlog_segment_open_locks(self)) {
        return NULL;
    }
    int error = shmlog_lock_take(self->lock.fd, byte, true);
    if (error && error != EAGAIN) {
        return raise_for(Py_TYPE(self), error, self->path);
    }
    return PyBool_FromLong(error == 0);
}

PyDoc_STRVAR(unlock_doc, "unlock(byte)\n--\n\nGive up a lock of this object.");

static PyObject *segment_unlock(SegmentObject *self, PyObject *arg)
{
    int byte = PyLong_AsInt(arg);
    if ((byte == -1 && PyErr_Occurred()) || !shmlog_segment_open_locks(self)) {
        return NULL;
    }
    int error = shmlog_lock_drop(self->lock.fd, byte);
    return error ? raise_for(Py_TYPE(self), error, self->path) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(probe_doc, "probe(byte)\n--\n\nHow anybody but this object holds a lock on the byte: 0 not, 1 shared, 2 exclusive.");

static PyObject *segment_probe(SegmentObject *self, PyObject *arg)
{
    int byte = PyLong_AsInt(arg);
    if ((byte == -1 && PyErr_Occurred()) || !shmlog_segment_open_locks(self)) {
        return NULL;
    }
    int held = shmlog_lock_probe(self->lock.fd, byte);
    return held < 0 ? raise_for(Py_TYPE(self), errno, self->path) : PyLong_FromLong(held);
}

/* ---- control words ---- */

PyDoc_STRVAR(mark_finished_doc, "mark_finished(request)\n--\n\nSay that a finish request was carried out.");

static PyObject *segment_mark_finished(SegmentObject *self, PyObject *arg)
{
    unsigned long request = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    /* CONTROL, release side: what was asked is done. */
    atomic_store_explicit(&self->segment.header->finish_done, (uint32_t)request, memory_order_release);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(mark_starting_doc, "mark_starting()\n--\n\n"
                                "Say that a flusher is being started. Returns a descriptor for it to inherit, to be\n"
                                "given to mark_started() here: as long as that is open there, it counts as starting.");

static PyObject *segment_mark_starting(SegmentObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_header *header = self->segment.header;
    int fd = shmlog_start_begin(&self->segment, PyUnicode_AsUTF8(self->path), 4); /* the flusher has others as 0 to 3 */
    if (fd < 0) {
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, self->path);
    }
    /* relaxed: only its growth is looked at. */
    atomic_fetch_add_explicit(&header->starts, 1, memory_order_relaxed);
    /* relaxed: published by the next store. */
    atomic_store_explicit(&header->started_ns, (uint64_t)shmlog_clock_ns(CLOCK_MONOTONIC), memory_order_relaxed);
    if (shmlog_lock_probe(fd, SHMLOG_LOCK_FLUSHER) == SHMLOG_LOCK_FREE) {
        /* CONTROL, release side. A flusher that has come up meanwhile says again that it runs. */
        atomic_store_explicit(&header->flusher_state, SHMLOG_FLUSHER_STARTING, memory_order_release);
    }
    return PyLong_FromLong(fd);
}

PyDoc_STRVAR(mark_started_doc, "mark_started(fd)\n--\n\nClose what mark_starting() has returned.");

static PyObject *segment_mark_started(SegmentObject *Py_UNUSED(self), PyObject *arg)
{
    int fd = PyLong_AsInt(arg);
    if (fd == -1 && PyErr_Occurred()) {
        return NULL;
    }
    shmlog_start_end(fd);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cut_followers_doc, "cut_followers(token)\n--\n\nEnd the parts of an owner's followers.");

static PyObject *segment_cut_followers(SegmentObject *self, PyObject *arg)
{
    unsigned long long token = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    shmlog_cut_followers(&self->segment, token);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cut_all_doc, "cut_all()\n--\n\n"
                          "End everybody's part; the caller holds the member lock. Nobody may attach any more.");

static PyObject *segment_cut_all(SegmentObject *self, PyObject *Py_UNUSED(none))
{
    Py_BEGIN_ALLOW_THREADS
    shmlog_cut_all(&self->segment);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyDoc_STRVAR(add_progress_doc, "add_progress()\n--\n\nCount something that the flusher got done.");

static PyObject *segment_add_progress(SegmentObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_count_sealing(self->segment.header);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(note_lost_doc, "note_lost(count)\n--\n\nSay how many records of the run are lost.");

static PyObject *segment_note_lost(SegmentObject *self, PyObject *arg)
{
    unsigned long long count = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    /* relaxed: a counter; who waits for the answer to a finish, which is a release, sees it then. */
    atomic_store_explicit(&self->segment.header->lost, count, memory_order_relaxed);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(keep_spares_doc, "keep_spares(count)\n--\n\n"
                              "Have memory for so many lanes that nobody used yet.");

static PyObject *segment_keep_spares(SegmentObject *self, PyObject *arg)
{
    unsigned long count = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !shmlog_segment_open_locks(self)) {
        return NULL;
    }
    int error = shmlog_segment_keep_spares(&self->segment, self->lock.fd, (uint32_t)count);
    return error ? raise_for(Py_TYPE(self), error, self->path) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(lane_doc, "lane(number)\n--\n\nWhat the header of a lane says: allotted, damaged, head, dropped; tail and what lies below it.");

static PyMethodDef methods[] = {
    {"create", (PyCFunction)(void (*)(void))segment_create, METH_VARARGS | METH_KEYWORDS | METH_CLASS, create_doc},
    {"open", (PyCFunction)segment_open, METH_VARARGS | METH_CLASS, open_doc},
    {"lock", (PyCFunction)segment_lock, METH_O, lock_doc},
    {"unlock", (PyCFunction)segment_unlock, METH_O, unlock_doc},
    {"probe", (PyCFunction)segment_probe, METH_O, probe_doc},
    {"request_finish", (PyCFunction)shmlog_py_request_finish, METH_VARARGS, shmlog_request_finish_doc},
    {"note_end", (PyCFunction)shmlog_py_note_end, METH_O, shmlog_note_end_doc},
    {"await_exit", (PyCFunction)shmlog_py_await_exit, METH_VARARGS, shmlog_await_exit_doc},
    {"watch_signals", (PyCFunction)shmlog_py_watch_signals, METH_NOARGS, shmlog_watch_signals_doc},
    {"mark_finished", (PyCFunction)segment_mark_finished, METH_O, mark_finished_doc},
    {"mark_starting", (PyCFunction)segment_mark_starting, METH_NOARGS, mark_starting_doc},
    {"mark_started", (PyCFunction)segment_mark_started, METH_O, mark_started_doc},
    {"cut_followers", (PyCFunction)segment_cut_followers, METH_O, cut_followers_doc},
    {"cut_all", (PyCFunction)segment_cut_all, METH_NOARGS, cut_all_doc},
    {"add_progress", (PyCFunction)segment_add_progress, METH_NOARGS, add_progress_doc},
    {"note_lost", (PyCFunction)segment_note_lost, METH_O, note_lost_doc},
    {"keep_spares", (PyCFunction)segment_keep_spares, METH_O, keep_spares_doc},
    {"lane", (PyCFunction)shmlog_segment_py_lane, METH_O, lane_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"path", T_OBJECT, offsetof(SegmentObject, path), READONLY, "Path of the segment's file."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"A mapped shared-memory segment; see format.h."},
    {Py_tp_dealloc, segment_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, shmlog_segment_getters},
    {0, NULL},
};

PyType_Spec shmlog_segment_spec = {
    .name = "shmlog._core.Segment",
    .basicsize = sizeof(SegmentObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
