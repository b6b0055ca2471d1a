/* Drain: the flusher's half of the core. */
#include "py_segment.h"
#include "../core/drain.h"

typedef struct {
    PyObject_HEAD
    SegmentObject *segment;
    shmlog_drain drain;
} DrainObject;

/* The doorbell by its name, or NULL where there is none. */
static sem_t *open_bell(const char *name)
{
    sem_t *bell = name ? sem_open(name, 0) : SEM_FAILED;
    return bell == SEM_FAILED ? NULL : bell;
}

static PyObject *drain_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *segment;
    int folder;
    unsigned log;
    const char *bell;
    if (!PyArg_ParseTuple(args, "O!iIz", shmlog_state_of(type)->segment_type, &segment, &folder, &log, &bell)) {
        return NULL;
    }
    DrainObject *self = (DrainObject *)type->tp_alloc(type, 0);
    if (!self) {
        return NULL;
    }
    self->segment = (SegmentObject *)Py_NewRef(segment);
    if (shmlog_drain_open(&self->drain, &self->segment->segment, folder, log, open_bell(bell)) != 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void drain_dealloc(DrainObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->drain.segment) {
        shmlog_drain_close(&self->drain);
    }
    Py_XDECREF(self->segment);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(restore_doc, "restore(lane, position, seq, tenancy, gapped, owner)\n--\n\n"
                          "Restart: the log holds this much of the lane. Its tail follows.");

static PyObject *drain_restore(DrainObject *self, PyObject *args)
{
    unsigned lane;
    unsigned long long position, seq, gapped[SHMLOG_REASONS];
    const char *owner;
    Py_ssize_t bytes;
    shmlog_cursor cursor = {0};
    if (!PyArg_ParseTuple(args, "IKKI(KKKKKK)y#", &lane, &position, &seq, &cursor.tenancy, &gapped[0], &gapped[1],
                          &gapped[2], &gapped[3], &gapped[4], &gapped[5], &owner, &bytes)) {
        return NULL;
    }
    if (lane >= self->segment->segment.lane_count || bytes > (Py_ssize_t)SHMLOG_OWNER_BYTES_MAX) {
        PyErr_SetString(PyExc_ValueError, "no such lane, or an owner that is too long");
        return NULL;
    }
    cursor.position = position;
    cursor.seq = seq;
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        cursor.gapped[reason] = gapped[reason];
    }
    cursor.owner_bytes = (uint32_t)bytes;
    memcpy(cursor.owner, owner, (size_t)bytes);
    shmlog_drain_restore(&self->drain, lane, &cursor);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(run_doc, "run(log_bytes_max)\n--\n\n"
                      "Drain without the GIL until stop(), going on to the next log at this size.");

static PyObject *drain_run(DrainObject *self, PyObject *arg)
{
    unsigned long long most = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    shmlog_drain_run(&self->drain, most);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyDoc_STRVAR(next_log_doc, "next_log()\n--\n\n"
                           "Close the log, open the next, write its first frame. Returns the errno, or 0.");

static PyObject *drain_next_log(DrainObject *self, PyObject *Py_UNUSED(none))
{
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shmlog_drain_next_log(&self->drain);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(error);
}

PyDoc_STRVAR(drain_pass_doc, "drain_pass()\n--\n\n"
                             "Write one frame, if there is anything for it. Returns (errno or 0, slots).");

static PyObject *drain_pass(DrainObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_drained drained;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shmlog_drain_pass(&self->drain, &drained);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("iK", error, (unsigned long long)drained.slots);
}

PyDoc_STRVAR(finalize_doc, "finalize()\n--\n\n"
                           "When the run is over: decide where each lane ends. True: drain once more.");

static PyObject *drain_finalize(DrainObject *self, PyObject *Py_UNUSED(none))
{
    return PyBool_FromLong(shmlog_drain_finalize(&self->drain));
}

PyDoc_STRVAR(settle_doc, "settle()\n--\n\n"
                         "After that: write the drops that no GAP tells yet. Returns the errno, or 0.");

static PyObject *drain_settle(DrainObject *self, PyObject *Py_UNUSED(none))
{
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shmlog_drain_settle(&self->drain);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(error);
}

PyDoc_STRVAR(offered_doc, "offered()\n--\n\n"
                          "By the number of a lane in the run: the records it was offered, as far as it is drained.");

static PyObject *drain_offered(DrainObject *self, PyObject *Py_UNUSED(none))
{
    const shmlog_drain *drain = &self->drain;
    PyObject *offered = PyDict_New();
    for (uint32_t number = 0; offered && number < drain->known_lanes; number++) {
        PyObject *lane = PyLong_FromUnsignedLong(drain->segment->constants.first_lane + number);
        PyObject *seq = PyLong_FromUnsignedLongLong(drain->cursors[number].seq);
        if (!lane || !seq || PyDict_SetItem(offered, lane, seq) < 0) {
            Py_CLEAR(offered);
        }
        Py_XDECREF(lane);
        Py_XDECREF(seq);
    }
    return offered;
}

PyDoc_STRVAR(sync_doc, "sync()\n--\n\nfsync the log and tell every lane. Returns the errno, or 0.");

static PyObject *drain_sync(DrainObject *self, PyObject *Py_UNUSED(none))
{
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shmlog_drain_sync(&self->drain);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(error);
}

PyDoc_STRVAR(give_up_doc, "give_up(error)\n--\n\nTell producers that nobody writes the log any more, for that errno.");

static PyObject *drain_give_up(DrainObject *self, PyObject *arg)
{
    int error = PyLong_AsInt(arg);
    if (error == -1 && PyErr_Occurred()) {
        return NULL;
    }
    shmlog_drain_give_up(&self->drain, error);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc, "stop()\n--\n\nHave run() return. From any thread.");

static PyObject *drain_stop(DrainObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_drain_stop(&self->drain);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(rotate_doc, "rotate()\n--\n\nHave run() drain what the lanes hold by now, then go on to the next log.\n\n"
                         "Returns what `rotated` will have reached when that is done. From any thread.");

static PyObject *drain_rotate(DrainObject *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromUnsignedLong(shmlog_drain_rotate(&self->drain));
}

PyDoc_STRVAR(move_doc, "move(folder)\n--\n\nHave the next log, and those after it, lie in another folder, whose descriptor is taken\n"
                       "over. From any thread.");

static PyObject *drain_move(DrainObject *self, PyObject *arg)
{
    int folder = PyLong_AsInt(arg);
    if (folder == -1 && PyErr_Occurred()) {
        return NULL;
    }
    shmlog_drain_move(&self->drain, folder);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(limit_doc, "limit(number)\n--\n\nLet run() open logs below this one only; without a call, all. From any thread.");

static PyObject *drain_limit(DrainObject *self, PyObject *arg)
{
    unsigned long limit = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    shmlog_drain_limit(&self->drain, limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(begin_work_doc, "begin_work()\n--\n\n"
                             "From now on the processor time of this thread is progress. Returns its place, or -1.");

static PyObject *drain_begin_work(DrainObject *self, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLong(shmlog_work_begin(&self->drain.work));
}

PyDoc_STRVAR(end_work_doc, "end_work(place)\n--\n\nThe end of what begin_work() began.");

static PyObject *drain_end_work(DrainObject *self, PyObject *arg)
{
    int place = PyLong_AsInt(arg);
    if (place == -1 && PyErr_Occurred()) {
        return NULL;
    }
    shmlog_work_end(&self->drain.work, place < SHMLOG_WORKERS ? place : -1);
    Py_RETURN_NONE;
}

static PyObject *drain_rotated(DrainObject *self, void *Py_UNUSED(closure))
{
    /* REQUEST, acquire side of the answer. */
    return PyLong_FromUnsignedLong(atomic_load_explicit(&self->drain.rotated, memory_order_acquire));
}

static PyObject *drain_rotated_below(DrainObject *self, void *Py_UNUSED(closure))
{
    /* relaxed: whoever has read `rotated` sees what was stored before it. */
    return PyLong_FromUnsignedLong(atomic_load_explicit(&self->drain.rotated_below, memory_order_relaxed));
}

static PyObject *drain_noted(DrainObject *self, void *Py_UNUSED(closure))
{
    /* REQUEST, acquire side of the answer. */
    return PyLong_FromUnsignedLong(atomic_load_explicit(&self->drain.noted, memory_order_acquire));
}

static PyObject *drain_finish_below(DrainObject *self, void *Py_UNUSED(closure))
{
    /* relaxed: `noted` was read before. */
    return PyLong_FromUnsignedLong(atomic_load_explicit(&self->drain.finish_below, memory_order_relaxed));
}

static PyObject *drain_closed_below(DrainObject *self, void *Py_UNUSED(closure))
{
    /* CLOSED, acquire side. */
    return PyLong_FromUnsignedLong(atomic_load_explicit(&self->drain.closed_below, memory_order_acquire));
}

static PyObject *drain_error(DrainObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(atomic_load_explicit(&self->drain.error, memory_order_relaxed)); /* relaxed: for people */
}

enum counter { LOG_BYTES, FRAMES, SLOTS };

static PyObject *drain_counter(DrainObject *self, void *closure)
{
    const _Atomic uint64_t *words[] = {&self->drain.log_bytes, &self->drain.frames, &self->drain.slots};
    /* relaxed: counters. */
    uint64_t value = atomic_load_explicit(words[(enum counter)(intptr_t)closure], memory_order_relaxed);
    return PyLong_FromUnsignedLongLong(value);
}

static PyMethodDef methods[] = {
    {"restore", (PyCFunction)drain_restore, METH_VARARGS, restore_doc},
    {"run", (PyCFunction)drain_run, METH_O, run_doc},
    {"next_log", (PyCFunction)drain_next_log, METH_NOARGS, next_log_doc},
    {"drain_pass", (PyCFunction)drain_pass, METH_NOARGS, drain_pass_doc},
    {"finalize", (PyCFunction)drain_finalize, METH_NOARGS, finalize_doc},
    {"settle", (PyCFunction)drain_settle, METH_NOARGS, settle_doc},
    {"offered", (PyCFunction)drain_offered, METH_NOARGS, offered_doc},
    {"sync", (PyCFunction)drain_sync, METH_NOARGS, sync_doc},
    {"give_up", (PyCFunction)drain_give_up, METH_O, give_up_doc},
    {"stop", (PyCFunction)drain_stop, METH_NOARGS, stop_doc},
    {"move", (PyCFunction)drain_move, METH_O, move_doc},
    {"limit", (PyCFunction)drain_limit, METH_O, limit_doc},
    {"begin_work", (PyCFunction)drain_begin_work, METH_NOARGS, begin_work_doc},
    {"end_work", (PyCFunction)drain_end_work, METH_O, end_work_doc},
    {"rotate", (PyCFunction)drain_rotate, METH_NOARGS, rotate_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"rotated", (getter)drain_rotated, NULL, "The last rotate() that was carried out.", NULL},
    {"rotated_below", (getter)drain_rotated_below, NULL, "Logs below this one hold what was asked for.", NULL},
    {"noted", (getter)drain_noted, NULL, "The last request to finish of which `finish_below` tells.", NULL},
    {"finish_below", (getter)drain_finish_below, NULL, "Logs below this one hold what it asks for.", NULL},
    {"closed_below", (getter)drain_closed_below, NULL, "Logs below this one are closed.", NULL},
    {"error", (getter)drain_error, NULL, "errno for which nothing can be written just now, or 0.", NULL},
    {"log_bytes", (getter)drain_counter, NULL, "Bytes in the current log.", (void *)LOG_BYTES},
    {"frames", (getter)drain_counter, NULL, "Frames written.", (void *)FRAMES},
    {"slots", (getter)drain_counter, NULL, "Slots written.", (void *)SLOTS},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"Drain(segment, folder, log, bell): lanes to logs; takes the folder's descriptor over."},
    {Py_tp_new, drain_new},
    {Py_tp_dealloc, drain_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, getters},
    {0, NULL},
};

PyType_Spec shmlog_drain_spec = {
    .name = "shmlog._core.Drain",
    .basicsize = sizeof(DrainObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
