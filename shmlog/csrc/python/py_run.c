/* RunBase: what a process logs to a run with; the C base of shmlog.Run. */
#include "py_metric.h"


#include <errno.h>

/* ---- names ---- */

/* The id of a name, for whoever does not hold the writer's lock, and may never log. */
static bool name_id(RunObject *self, PyObject *name, uint32_t *id)
{
    ProducerObject *writer = shmlog_writer_at_hand(self);
    bool ok;
    Py_BEGIN_CRITICAL_SECTION(writer);
    ok = shmlog_writer_name_id(writer, name, id);
    Py_END_CRITICAL_SECTION();
    return ok;
}

/* ---- joining and leaving ---- */

PyDoc_STRVAR(join_doc, "_join(segment, path, is_owner, token)\n--\n\n"
                       "Log to the run in `segment`, whose file lies at `path`, as the owner of that token or as its "
                       "follower.");

static PyObject *run_join(RunObject *self, PyObject *args)
{
    shmlog_state *state = shmlog_state_of(Py_TYPE(self));
    PyObject *segment;
    const char *path;
    int is_owner;
    unsigned long long token;
    if (!PyArg_ParseTuple(args, "O!spK", state->segment_type, &segment, &path, &is_owner, &token)) {
        return NULL;
    }
    if (self->segment) {
        PyErr_SetString(PyExc_RuntimeError, "this producer has joined before");
        return NULL;
    }
    int error = shmlog_producer_watch_forks();
    if (error == 0) {
        error = shmlog_producer_join(&self->writer->producer, &((SegmentObject *)segment)->segment, path,
                                     (shmlog_membership){is_owner != 0, token});
    }
    if (error) {
        errno = error;
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    }
    Py_XSETREF(self->segment, (SegmentObject *)Py_NewRef(segment));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(disable_doc, "_disable()\n--\n\nTurn every log call into a no-op.");

static PyObject *run_disable(RunObject *self, PyObject *Py_UNUSED(none))
{
    self->disabled = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(leave_doc, "_leave()\n--\n\nGive back the lane and the membership; later calls drop and count.");

static bool leave(ProducerObject *writer, void *Py_UNUSED(context))
{
    shmlog_producer_leave(&writer->producer);
    return true;
}

static PyObject *run_leave(RunObject *self, PyObject *Py_UNUSED(none))
{
    return shmlog_each_writer(self, leave, NULL) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(allot_doc, "_allot()\n--\n\nTake a lane now. Returns its number; raises OSError if there is none.");

static PyObject *allot(RunObject *self, ProducerObject *writer)
{
    shmlog_producer *producer = &writer->producer;
    if (!producer->lane.slots) {
        PyObject *identity = PyObject_CallMethod((PyObject *)self, "_identity", NULL);
        char *owner;
        Py_ssize_t bytes;
        if (!identity || PyBytes_AsStringAndSize(identity, &owner, &bytes) < 0) {
            Py_XDECREF(identity);
            return NULL;
        }
        int error = 0;
        if (!producer->lane.slots) { /* nobody has logged meanwhile */
            error = shmlog_writer_is_closed(writer) ? EBADF : shmlog_producer_allot(producer, owner, (uint32_t)bytes);
        }
        Py_DECREF(identity);
        if (error) {
            errno = error;
            return PyErr_SetFromErrnoWithFilename(PyExc_OSError, producer->path);
        }
    }
    return PyLong_FromUnsignedLong(producer->lane_number);
}

static PyObject *run_allot(RunObject *self, PyObject *Py_UNUSED(none))
{
    ProducerObject *writer = shmlog_writer_of(self);
    PyObject *number;
    Py_BEGIN_CRITICAL_SECTION(writer);
    number = allot(self, writer);
    Py_END_CRITICAL_SECTION();
    return number;
}

/* ---- events, metrics ---- */

PyDoc_STRVAR(put_event_doc, "_put_event(event_type, payload)\n--\n\n"
                            "Append an event, whose JSON object is the bytes `payload`. False: dropped.");

PyDoc_STRVAR(metric_doc, "metric($self, name, /)\n--\n\n"
                         "Return the handle of a metric: the fastest way to log it.\n\n"
                         "The same name gives the same handle, if the run has room for the name. Works in forked children, and pickles\n"
                         "by reference to spawned ones.\n\n"
                         "Parameters\n----------\nname : str\n    1 to 1024 bytes of UTF-8.\n\n"
                         "Returns\n-------\nMetric\n\n"
                         "Raises\n------\nTypeError\n    If `name` is not a str.\nValueError\n    If `name` is empty, "
                         "too long, or no valid Unicode.");

static PyObject *metric_of(RunObject *self, PyObject *name, uint32_t id)
{
    PyObject *metric;
    if (shmlog_dict_get(self->metrics, name, &metric) != 0) {
        return metric;
    }
    metric = shmlog_metric_new(self, name, id);
    /* Of names without room there may be any number. */
    if (metric && id != SHMLOG_NO_NAME && PyDict_SetItem(self->metrics, name, metric) < 0) {
        Py_CLEAR(metric);
    }
    return metric;
}

static PyObject *run_metric(RunObject *self, PyObject *name)
{
    uint32_t id = SHMLOG_NO_NAME;
    PyObject *metric;
    if (!self->disabled && !name_id(self, name, &id)) {
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    metric = metric_of(self, name, id);
    Py_END_CRITICAL_SECTION();
    return metric;
}

PyDoc_STRVAR(intern_doc, "_intern(name)\n--\n\nHave the run know a name, as long as there is room for it.");

static PyObject *run_intern(RunObject *self, PyObject *name)
{
    uint32_t id;
    return name_id(self, name, &id) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(settle_doc, "_settle()\n--\n\nHave the lanes tell this process's drops, if there is room.");

static bool settle(ProducerObject *writer, void *Py_UNUSED(context))
{
    shmlog_producer_settle(&writer->producer);
    return true;
}

static PyObject *run_settle(RunObject *self, PyObject *Py_UNUSED(none))
{
    return shmlog_each_writer(self, settle, NULL) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(request_sync_doc, "_request_sync()\n--\n\nAsk for what this process logged to be fsynced.");

PyDoc_STRVAR(positions_doc, "_positions()\n--\n\n(lane, head, tail, synced) of each lane that this process wrote to.");

PyDoc_STRVAR(counts_doc, "_counts()\n--\n\nWhat this process has logged, dropped and waited.");

PyDoc_STRVAR(log_doc, "log($self, /, name, value=..., step=None, *, timestamp=None)\n--\n\n"
                      "Log one metric, or several as one unit: ``log(metrics, step=None, *, timestamp=None)``.\n\n"
                      "Takes no lock, makes no system call and allocates nothing when there is room.\n\n"
                      "Parameters\n----------\nname : str\n    1 to 1024 bytes of UTF-8.\n"
                      "value : float, int, bool, str, or an array or tensor of one element\n"
                      "    NaN and infinities are kept, ints are exact. None is left out, with one warning for each name.\n"
                      "metrics : dict of str to value\n    Kept whole or dropped whole. Names of dicts within it are joined by ``/``.\n"
                      "step : int, optional\n    Any int64. Default: counted, for each name and process, together with the name's "
                      "handle.\n    Several metrics get one step: the first that none of their names has had.\n"
                      "timestamp : datetime with a zone, datetime64, or seconds since 1970, optional\n"
                      "    Kept to the microsecond. Default: now.\n\n"
                      "Raises\n------\nTypeError, ValueError, OverflowError\n    If a name, value or step is not "
                      "usable, or a value is None and the run is strict. Nothing was logged.");

static PyMethodDef methods[] = {
    {"log", (PyCFunction)(void (*)(void))shmlog_log, METH_FASTCALL | METH_KEYWORDS, log_doc},
    {"metric", (PyCFunction)run_metric, METH_O, metric_doc},
    {"_join", (PyCFunction)run_join, METH_VARARGS, join_doc},
    {"_disable", (PyCFunction)run_disable, METH_NOARGS, disable_doc},
    {"_leave", (PyCFunction)run_leave, METH_NOARGS, leave_doc},
    {"_allot", (PyCFunction)run_allot, METH_NOARGS, allot_doc},
    {"_put_event", (PyCFunction)shmlog_put_event, METH_VARARGS, put_event_doc},
    {"_announced", (PyCFunction)shmlog_run_announced, METH_VARARGS, shmlog_announced_doc},
    {"_settle", (PyCFunction)run_settle, METH_NOARGS, settle_doc},
    {"_intern", (PyCFunction)run_intern, METH_O, intern_doc},
    {"_request_sync", (PyCFunction)shmlog_run_request_sync, METH_NOARGS, request_sync_doc},
    {"_positions", (PyCFunction)shmlog_run_positions, METH_NOARGS, positions_doc},
    {"_counts", (PyCFunction)shmlog_run_counts, METH_NOARGS, counts_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_segment", T_OBJECT, offsetof(RunObject, segment), READONLY, "The segment, or None."},
    {"_disabled", T_BOOL, offsetof(RunObject, disabled), READONLY, "Log calls are no-ops."},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the type ---- */

static PyObject *run_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    RunObject *self = (RunObject *)type->tp_alloc(type, 0);
    if (!self) {
        return NULL;
    }
    self->interned_step = Py_NewRef(shmlog_state_of(type)->interned_step);
    self->name_ids = PyDict_New();
    self->cached_names = PyDict_New();
    self->metrics = PyDict_New();
    if (!self->name_ids || !self->cached_names || !self->metrics || !shmlog_writers_begin(self)) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int run_traverse(RunObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->name_ids);
    Py_VISIT(self->metrics);
    return 0;
}

static int run_clear(RunObject *self)
{
    Py_CLEAR(self->name_ids);
    Py_CLEAR(self->metrics);
    return 0;
}

static void run_dealloc(RunObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    shmlog_writers_end(self);
    run_clear(self);
    Py_XDECREF(self->cached_names);
    Py_XDECREF(self->interned_step);
    Py_XDECREF(self->segment);
    PyMem_Free(self->next_steps);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"The C base of shmlog.Run."},
    {Py_tp_new, run_new},
    {Py_tp_traverse, run_traverse},
    {Py_tp_clear, run_clear},
    {Py_tp_dealloc, run_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, shmlog_run_getters},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec shmlog_run_spec = {
    .name = "shmlog._core.RunBase",
    .basicsize = sizeof(RunObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
