/* Segment: a mapped segment, its control words, and the flusher's locks. */
#include "py_core.h"

#include "clock.h"
#include "cut.h"
#include "exits.h"
#include "lock.h"
#include "signals.h"

#include <errno.h>
#include <unistd.h>

const char *const shmlog_reason_names[SHMLOG_REASONS] = {"full", "names", "large", "lane", "closed", "disk"};

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
        self->lock_fd = -1;
        self->path = Py_NewRef(path);
    }
    return self;
}

PyDoc_STRVAR(create_doc, "create(fd, path, run_id, run_dir, lanes, lane_slots, clock, first_lane=0, unlaned=(0, ...),\n"
                         "       drop_policy=(False, 0.0, False))\n"
                         "--\n\nMake a segment in the empty file fd, and take fd over.");

static PyObject *segment_create(PyTypeObject *type, PyObject *args)
{
    int fd;
    PyObject *path;
    shmlog_geometry geometry = {0};
    unsigned long long unlaned[SHMLOG_REASONS] = {0};
    int wait = false, strict = false;
    double max_wait = 0.0;
    if (!PyArg_ParseTuple(args, "iUssIII|I(KKKKKK)(pdp)", &fd, &path, &geometry.run_id, &geometry.run_dir,
                          &geometry.lanes, &geometry.lane_slots, &geometry.clock, &geometry.first_lane,
                          &unlaned[0], &unlaned[1], &unlaned[2], &unlaned[3], &unlaned[4], &unlaned[5],
                          &wait, &max_wait, &strict)) {
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
    if (self->lock_fd >= 0) {
        close(self->lock_fd);
    }
    Py_XDECREF(self->path);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- locks ---- */

static bool open_locks(SegmentObject *self)
{
    if (self->lock_fd < 0) {
        self->lock_fd = shmlog_lock_reopen(self->segment.fd, PyUnicode_AsUTF8(self->path));
    }
    if (self->lock_fd < 0) {
        PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, self->path);
    }
    return self->lock_fd >= 0;
}

PyDoc_STRVAR(lock_doc, "lock(byte)\n--\n\nTake the exclusive lock on a byte. False: somebody else has it.");

static PyObject *segment_lock(SegmentObject *self, PyObject *arg)
{
    int byte = PyLong_AsInt(arg);
    if ((byte == -1 && PyErr_Occurred()) || !open_locks(self)) {
        return NULL;
    }
    int error = shmlog_lock_take(self->lock_fd, byte, true);
    if (error && error != EAGAIN) {
        return raise_for(Py_TYPE(self), error, self->path);
    }
    return PyBool_FromLong(error == 0);
}

PyDoc_STRVAR(unlock_doc, "unlock(byte)\n--\n\nGive up a lock of this object.");

static PyObject *segment_unlock(SegmentObject *self, PyObject *arg)
{
    int byte = PyLong_AsInt(arg);
    if ((byte == -1 && PyErr_Occurred()) || !open_locks(self)) {
        return NULL;
    }
    int error = shmlog_lock_drop(self->lock_fd, byte);
    return error ? raise_for(Py_TYPE(self), error, self->path) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(probe_doc, "probe(byte)\n--\n\nWhether anybody but this object holds a lock on the byte.");

static PyObject *segment_probe(SegmentObject *self, PyObject *arg)
{
    int byte = PyLong_AsInt(arg);
    if ((byte == -1 && PyErr_Occurred()) || !open_locks(self)) {
        return NULL;
    }
    int held = shmlog_lock_probe(self->lock_fd, byte);
    return held < 0 ? raise_for(Py_TYPE(self), errno, self->path) : PyBool_FromLong(held);
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

PyDoc_STRVAR(mark_starting_doc, "mark_starting()\n--\n\nSay that a flusher is being started.");

static PyObject *segment_mark_starting(SegmentObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_header *header = self->segment.header;
    /* relaxed: published by the next store. */
    atomic_store_explicit(&header->started_ns, (uint64_t)shmlog_clock_ns(CLOCK_MONOTONIC), memory_order_relaxed);
    /* CONTROL, release side. */
    atomic_store_explicit(&header->flusher_state, SHMLOG_FLUSHER_STARTING, memory_order_release);
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
    /* relaxed: only its growth is looked at. */
    atomic_fetch_add_explicit(&self->segment.header->progress, 1, memory_order_relaxed);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(keep_spares_doc, "keep_spares(count)\n--\n\n"
                              "Have memory for so many lanes that nobody used yet.");

static PyObject *segment_keep_spares(SegmentObject *self, PyObject *arg)
{
    unsigned long count = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred() || !open_locks(self)) {
        return NULL;
    }
    int error = shmlog_segment_keep_spares(&self->segment, self->lock_fd, (uint32_t)count);
    return error ? raise_for(Py_TYPE(self), error, self->path) : Py_NewRef(Py_None);
}

/* ---- what can be read ---- */

enum word { FINISH_REQUEST, FINISH_STATUS, FINISH_DONE, CLOSED, FLUSHER_STATE, SLEEPING, PROGRESS, ENDED_BY };

static PyObject *segment_word(SegmentObject *self, void *closure)
{
    const shmlog_header *header = self->segment.header;
    /* CONTROL, acquire side, for all that ask for something or answer. */
    switch ((enum word)(intptr_t)closure) {
    case FINISH_REQUEST:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->finish_request, memory_order_acquire));
    case FINISH_STATUS:
        return PyLong_FromUnsignedLong(shmlog_finish_status(header));
    case FINISH_DONE:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->finish_done, memory_order_acquire));
    case CLOSED:
        /* CONTROL */
        return PyBool_FromLong((long)atomic_load_explicit(&header->closed, memory_order_acquire));
    case FLUSHER_STATE:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->flusher_state, memory_order_acquire));
    case SLEEPING:
        /* CONTROL */
        return PyBool_FromLong((long)atomic_load_explicit(&header->sleeping, memory_order_acquire));
    case PROGRESS:
        /* CONTROL */
        return PyLong_FromUnsignedLongLong(atomic_load_explicit(&header->progress, memory_order_acquire));
    case ENDED_BY:
        /* relaxed: a lock says that who writes it is dead. */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->ended_by, memory_order_relaxed));
    }
    Py_UNREACHABLE();
}

static PyObject *segment_starting(SegmentObject *self, void *Py_UNUSED(closure))
{
    int64_t now = shmlog_clock_ns(CLOCK_MONOTONIC);
    return PyBool_FromLong(shmlog_flusher_is_starting(self->segment.header, now));
}

static PyObject *segment_run_id(SegmentObject *self, void *Py_UNUSED(closure))
{
    const char *id = self->segment.header->run_id;
    return PyUnicode_DecodeUTF8(id, (Py_ssize_t)strlen(id), "replace"); /* anybody may have scribbled on it */
}

static PyObject *segment_run_dir(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_DecodeFSDefault(self->segment.header->run_dir);
}

static PyObject *segment_lanes(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.lane_count);
}

static PyObject *segment_lane_slots(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.lane_slots);
}

static PyObject *segment_first_lane(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.header->first_lane);
}

static PyObject *segment_clock(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.header->clock);
}

PyObject *shmlog_counts_dict(const uint64_t *counts)
{
    PyObject *dict = PyDict_New();
    for (int reason = 0; dict && reason < SHMLOG_REASONS; reason++) {
        PyObject *count = PyLong_FromUnsignedLongLong(counts[reason]);
        if (!count || PyDict_SetItemString(dict, shmlog_reason_names[reason], count) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(count);
    }
    return dict;
}

static PyObject *counts_of(const _Atomic uint64_t *words)
{
    uint64_t counts[SHMLOG_REASONS];
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        counts[reason] = atomic_load_explicit(&words[reason], memory_order_relaxed); /* relaxed: a counter */
    }
    return shmlog_counts_dict(counts);
}

static PyObject *segment_unlaned(SegmentObject *self, void *Py_UNUSED(closure))
{
    return counts_of(self->segment.header->unlaned);
}

PyDoc_STRVAR(lane_doc, "lane(number)\n--\n\nWhat the header of a lane says: allotted, damaged, head, tail, dropped.");

static PyObject *segment_lane(SegmentObject *self, PyObject *arg)
{
    unsigned long number = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (number >= self->segment.lane_count) {
        return PyErr_Format(PyExc_IndexError, "there are %u lanes", self->segment.lane_count);
    }
    const shmlog_lane_header *lane = &self->segment.lanes[number];
    PyObject *dropped = counts_of(lane->dropped);
    if (!dropped) {
        return NULL;
    }
    /* relaxed: a snapshot for people. */
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);       /* relaxed: as above */
    uint64_t gapped = atomic_load_explicit(&lane->gapped, memory_order_relaxed);   /* relaxed: as above */
    uint32_t used = atomic_load_explicit(&lane->allotted, memory_order_relaxed);   /* relaxed: as above */
    uint32_t damaged = atomic_load_explicit(&lane->damaged, memory_order_relaxed); /* relaxed: as above */
    return Py_BuildValue("{s:N,s:N,s:K,s:K,s:K,s:N}", "allotted", PyBool_FromLong((long)used), "damaged",
                         PyBool_FromLong((long)damaged), "head", head, "tail", tail, "gapped", gapped, "dropped",
                         dropped);
}

static PyMethodDef methods[] = {
    {"create", (PyCFunction)segment_create, METH_VARARGS | METH_CLASS, create_doc},
    {"open", (PyCFunction)segment_open, METH_VARARGS | METH_CLASS, open_doc},
    {"lock", (PyCFunction)segment_lock, METH_O, lock_doc},
    {"unlock", (PyCFunction)segment_unlock, METH_O, unlock_doc},
    {"probe", (PyCFunction)segment_probe, METH_O, probe_doc},
    {"request_finish", (PyCFunction)shmlog_py_request_finish, METH_VARARGS, shmlog_request_finish_doc},
    {"await_exit", (PyCFunction)shmlog_py_await_exit, METH_VARARGS, shmlog_await_exit_doc},
    {"watch_signals", (PyCFunction)shmlog_py_watch_signals, METH_NOARGS, shmlog_watch_signals_doc},
    {"mark_finished", (PyCFunction)segment_mark_finished, METH_O, mark_finished_doc},
    {"mark_starting", (PyCFunction)segment_mark_starting, METH_NOARGS, mark_starting_doc},
    {"cut_followers", (PyCFunction)segment_cut_followers, METH_O, cut_followers_doc},
    {"cut_all", (PyCFunction)segment_cut_all, METH_NOARGS, cut_all_doc},
    {"add_progress", (PyCFunction)segment_add_progress, METH_NOARGS, add_progress_doc},
    {"keep_spares", (PyCFunction)segment_keep_spares, METH_O, keep_spares_doc},
    {"lane", (PyCFunction)segment_lane, METH_O, lane_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"path", T_OBJECT, offsetof(SegmentObject, path), READONLY, "Path of the segment's file."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"run_id", (getter)segment_run_id, NULL, "Id of the run.", NULL},
    {"run_dir", (getter)segment_run_dir, NULL, "Folder of the run, or an empty str.", NULL},
    {"lanes", (getter)segment_lanes, NULL, "Most lanes.", NULL},
    {"lane_slots", (getter)segment_lane_slots, NULL, "Slots of a lane.", NULL},
    {"first_lane", (getter)segment_first_lane, NULL, "Number of lane 0 in the files of the run.", NULL},
    {"clock", (getter)segment_clock, NULL, "0 CLOCK_MONOTONIC, 1 time-stamp counter.", NULL},
    {"unlaned", (getter)segment_unlaned, NULL, "Drops of processes without a lane, by reason.", NULL},
    {"finish_request", (getter)segment_word, NULL, "Number of the latest request to finish.",
     (void *)FINISH_REQUEST},
    {"finish_status", (getter)segment_word, NULL, "Status of the run, as far as it is known.", (void *)FINISH_STATUS},
    {"finish_done", (getter)segment_word, NULL, "Latest request carried out.", (void *)FINISH_DONE},
    {"closed", (getter)segment_word, NULL, "Nobody may attach any more.", (void *)CLOSED},
    {"flusher_state", (getter)segment_word, NULL, "0 starting, 1 running.", (void *)FLUSHER_STATE},
    {"flusher_is_starting", (getter)segment_starting, NULL, "One was started less than 10 s ago.", NULL},
    {"sleeping", (getter)segment_word, NULL, "The flusher sleeps on its doorbell.", (void *)SLEEPING},
    {"progress", (getter)segment_word, NULL, "Grows while the flusher gets anything done.", (void *)PROGRESS},
    {"ended_by", (getter)segment_word, NULL, "Signal that has ended the maker of the run, or 0.", (void *)ENDED_BY},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"A mapped shared-memory segment; see format.h."},
    {Py_tp_dealloc, segment_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getters},
    {0, NULL},
};

PyType_Spec shmlog_segment_spec = {
    .name = "shmlog._core.Segment",
    .basicsize = sizeof(SegmentObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
