/* Producer: what a process logs to a run with; the C base of shmlog.Run. */
#include "py_core.h"

#include "clock.h"

#include <errno.h>

/* ---- names ---- */

static bool intern_name(ProducerObject *self, PyObject *name, uint32_t *id)
{
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(name, &bytes);
    if (!text) {
        return false; /* a lone surrogate: UnicodeEncodeError, which is a ValueError */
    }
    if (bytes == 0 || bytes > (Py_ssize_t)SHMLOG_NAME_BYTES_MAX) {
        PyErr_Format(PyExc_ValueError, "a name must have 1 to %u bytes of UTF-8, this has %zd",
                     SHMLOG_NAME_BYTES_MAX, bytes);
        return false;
    }
    if (!self->producer.segment) {
        *id = SHMLOG_NO_NAME;
        return true;
    }
    uint64_t seed = (uint64_t)self->producer.segment->header->anchor.utc_ns;
    *id = shmlog_name_intern(self->producer.segment->names, seed, text, (uint32_t)bytes);
    if (*id == SHMLOG_NO_NAME) {
        return true;
    }
    PyObject *number = PyLong_FromUnsignedLong(*id);
    int error = number ? PyDict_SetItem(self->name_ids, name, number) : -1;
    Py_XDECREF(number);
    return error == 0;
}

static void remember(ProducerObject *self, PyObject *name, uint32_t id)
{
    shmlog_cached_name *place = shmlog_producer_cached(self, name);
    Py_XSETREF(place->name, Py_NewRef(name));
    place->id = id;
}

/* As shmlog_producer_find_name(), for a name that has no methods of its own. */
static bool plain_name_id(ProducerObject *self, PyObject *name, uint32_t *id)
{
    PyObject *known = PyDict_GetItemWithError(self->name_ids, name);
    if (known) {
        *id = (uint32_t)PyLong_AsUnsignedLong(known);
    } else if (PyErr_Occurred() || !intern_name(self, name, id)) {
        return false;
    }
    return true;
}

bool shmlog_producer_find_name(ProducerObject *self, PyObject *name, uint32_t *id)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "a metric name must be a str, not %.200s", Py_TYPE(name)->tp_name);
        return false;
    }
    /* The hash and comparison of a subclass may run Python code, which might change the dict that we are in. */
    PyObject *plain = PyUnicode_FromObject(name);
    bool ok = plain && plain_name_id(self, plain, id);
    if (ok && *id != SHMLOG_NO_NAME && plain == name && PyUnicode_CHECK_INTERNED(name)) {
        remember(self, name, *id);
    }
    Py_XDECREF(plain);
    return ok;
}

/* ---- joining and leaving ---- */

PyDoc_STRVAR(join_doc, "_join(segment, path)\n--\n\n"
                       "Become a member of the run in `segment`, whose file lies at `path`.");

static PyObject *producer_join(ProducerObject *self, PyObject *args)
{
    shmlog_state *state = shmlog_state_of(Py_TYPE(self));
    PyObject *segment;
    const char *path;
    if (!PyArg_ParseTuple(args, "O!s", state->segment_type, &segment, &path)) {
        return NULL;
    }
    if (self->producer.segment) {
        PyErr_SetString(PyExc_RuntimeError, "this producer has joined before");
        return NULL;
    }
    int error = shmlog_producer_watch_forks();
    if (error == 0) {
        error = shmlog_producer_join(&self->producer, &((SegmentObject *)segment)->segment, path);
    }
    if (error) {
        errno = error;
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
    }
    Py_XSETREF(self->segment, (SegmentObject *)Py_NewRef(segment));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(disable_doc, "_disable()\n--\n\nTurn every log call into a no-op.");

static PyObject *producer_disable(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    self->disabled = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(leave_doc, "_leave()\n--\n\nGive back the lane and the membership; later calls drop and count.");

static PyObject *producer_leave(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_producer_leave(&self->producer);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(allot_doc, "_allot()\n--\n\nTake a lane now. Returns its number; raises OSError if there is none.");

static PyObject *producer_allot(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_producer *producer = &self->producer;
    if (!producer->lane.slots) {
        PyObject *identity = PyObject_CallMethod((PyObject *)self, "_identity", NULL);
        char *owner;
        Py_ssize_t bytes;
        if (!identity || PyBytes_AsStringAndSize(identity, &owner, &bytes) < 0) {
            Py_XDECREF(identity);
            return NULL;
        }
        int error = producer->lock_fd < 0 ? EBADF : shmlog_producer_allot(producer, owner, (uint32_t)bytes);
        Py_DECREF(identity);
        if (error) {
            errno = error;
            return PyErr_SetFromErrnoWithFilename(PyExc_OSError, producer->path);
        }
    }
    return PyLong_FromUnsignedLong(producer->lane_number);
}

/* ---- events, metrics, state ---- */

PyDoc_STRVAR(put_event_doc, "_put_event(event_type, payload)\n--\n\n"
                            "Append an event, whose JSON object is the bytes `payload`. False: dropped.");

static shmlog_outcome put_event(ProducerObject *self, uint32_t name_id, shmlog_item *item)
{
    if (shmlog_value_slots(&item->value) > shmlog_producer_unit_max(self->producer.segment)) {
        shmlog_outcome outcome = shmlog_producer_spill(self, item);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    bool wake;
    shmlog_outcome outcome = shmlog_producer_find_room(self, shmlog_value_slots(&item->value), 1, &wake);
    if (outcome != SHMLOG_WRITTEN) {
        return outcome;
    }
    shmlog_producer *producer = &self->producer;
    shmlog_unit_head head = {shmlog_ticks(producer->segment->tsc), 0, name_id, SHMLOG_EVENT, item->value.flags};
    shmlog_lane_advance(&producer->lane, shmlog_lane_write_bytes(&producer->lane, producer->lane.head, &head,
                                                                 item->value.bytes, item->value.count));
    producer->logged++;
    return wake ? shmlog_producer_wake(self) : SHMLOG_WRITTEN;
}

static PyObject *producer_put_event(ProducerObject *self, PyObject *args)
{
    PyObject *event_type, *payload;
    uint32_t id;
    if (!PyArg_ParseTuple(args, "US", &event_type, &payload)) {
        return NULL;
    }
    if (self->disabled) {
        Py_RETURN_TRUE;
    }
    if (!shmlog_producer_name_id(self, event_type, &id)) {
        return NULL;
    }
    shmlog_outcome outcome;
    if (id == SHMLOG_NO_NAME) {
        bool closed = !self->producer.segment || self->producer.lock_fd < 0;
        outcome = shmlog_producer_dropped(self, closed ? SHMLOG_DROP_CLOSED : SHMLOG_DROP_NAMES, 1);
    } else {
        shmlog_item item = {.value = {.kind = SHMLOG_LONGTEXT,
                                      .count = (uint32_t)PyBytes_GET_SIZE(payload),
                                      .bytes = PyBytes_AS_STRING(payload)},
                            .owner = Py_NewRef(payload)};
        outcome = put_event(self, id, &item);
        shmlog_item_clear(&item);
    }
    return outcome == SHMLOG_RAISED ? NULL : PyBool_FromLong(outcome == SHMLOG_WRITTEN);
}

PyDoc_STRVAR(metric_doc, "metric(name)\n--\n\n"
                         "Return the handle of a metric: the fastest way to log it.\n\n"
                         "The same name gives the same handle. Works in forked children, and pickles\n"
                         "by reference to spawned ones.\n\n"
                         "Parameters\n----------\nname : str\n    1 to 1024 bytes of UTF-8.\n\n"
                         "Returns\n-------\nMetric\n\n"
                         "Raises\n------\nTypeError\n    If `name` is no str.\nValueError\n    If `name` is empty, "
                         "too long, or no valid Unicode.");

static PyObject *producer_metric(ProducerObject *self, PyObject *name)
{
    uint32_t id = SHMLOG_NO_NAME;
    if (!self->disabled && !shmlog_producer_name_id(self, name, &id)) {
        return NULL;
    }
    PyObject *metric = PyDict_GetItemWithError(self->metrics, name);
    if (metric || PyErr_Occurred()) {
        return Py_XNewRef(metric);
    }
    metric = shmlog_metric_new(self, name, id);
    if (metric && PyDict_SetItem(self->metrics, name, metric) < 0) {
        Py_CLEAR(metric);
    }
    return metric;
}

PyDoc_STRVAR(intern_doc, "_intern(name)\n--\n\nHave the run know a name, as long as there is room for it.");

static PyObject *producer_intern(ProducerObject *self, PyObject *name)
{
    uint32_t id;
    return shmlog_producer_name_id(self, name, &id) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(request_sync_doc, "_request_sync()\n--\n\nAsk for what this process logged to be fsynced.");

static PyObject *producer_request_sync(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    const shmlog_lane *lane = &self->producer.lane;
    if (lane->slots) {
        /* SYNC, release side. */
        atomic_store_explicit(&lane->shared->sync_request, lane->head, memory_order_release);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(settle_doc, "_settle()\n--\n\nHave the lane tell this process's drops, if there is room.");

static PyObject *producer_settle(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_producer_settle(&self->producer);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(positions_doc, "_positions()\n--\n\n(head, tail, synced) of this process's lane; zeros without one.");

static PyObject *producer_positions(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    const shmlog_lane *lane = &self->producer.lane;
    uint64_t tail = 0, synced = 0;
    if (lane->slots) {
        /* RECLAIM and SYNC, acquire sides: what lies below is in the log, or on the disk. */
        tail = atomic_load_explicit(&lane->shared->tail, memory_order_acquire);
        synced = atomic_load_explicit(&lane->shared->synced, memory_order_acquire); /* SYNC */
    }
    return Py_BuildValue("KKK", lane->slots ? lane->head : 0, tail, synced);
}

PyDoc_STRVAR(counts_doc, "_counts()\n--\n\nWhat this process has logged, dropped and waited.");

static PyObject *producer_counts(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    const shmlog_producer *producer = &self->producer;
    PyObject *dropped = shmlog_counts_dict(producer->dropped);
    PyObject *lane = producer->lane.slots
                         ? PyLong_FromUnsignedLong(producer->segment->header->first_lane + producer->lane_number)
                         : Py_NewRef(Py_None);
    if (!dropped || !lane) {
        Py_XDECREF(dropped);
        Py_XDECREF(lane);
        return NULL;
    }
    return Py_BuildValue("{s:K,s:N,s:N,s:K,s:d}", "logged", producer->logged, "dropped", dropped, "lane", lane,
                         "waits", producer->waits, "waited_s", (double)producer->waited_ns * 1e-9);
}

static PyObject *producer_is_member(ProducerObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->producer.segment && self->producer.lock_fd >= 0);
}

static PyObject *producer_generation(ProducerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->producer.fork_generation);
}

PyDoc_STRVAR(log_doc, "log(name, value, step=None) or log(metrics, step=None)\n--\n\n"
                      "Log one metric, or several as one unit.\n\n"
                      "Takes no lock, makes no system call and allocates nothing when there is room.\n\n"
                      "Parameters\n----------\nname : str\n    1 to 1024 bytes of UTF-8.\n"
                      "value : float, int, bool, str, or an array or tensor of one element\n"
                      "    NaN and infinities are kept, ints are exact.\n"
                      "metrics : dict of str to value\n    Kept whole or dropped whole.\n"
                      "step : int, optional\n    Any int64. Default: the number of such calls so far in this "
                      "process.\n\n"
                      "Raises\n------\nTypeError, ValueError, OverflowError\n    If a name, value or step is not "
                      "usable. Nothing was logged.");

static PyMethodDef methods[] = {
    {"log", (PyCFunction)(void (*)(void))shmlog_log, METH_FASTCALL | METH_KEYWORDS, log_doc},
    {"metric", (PyCFunction)producer_metric, METH_O, metric_doc},
    {"_join", (PyCFunction)producer_join, METH_VARARGS, join_doc},
    {"_disable", (PyCFunction)producer_disable, METH_NOARGS, disable_doc},
    {"_leave", (PyCFunction)producer_leave, METH_NOARGS, leave_doc},
    {"_allot", (PyCFunction)producer_allot, METH_NOARGS, allot_doc},
    {"_put_event", (PyCFunction)producer_put_event, METH_VARARGS, put_event_doc},
    {"_settle", (PyCFunction)producer_settle, METH_NOARGS, settle_doc},
    {"_intern", (PyCFunction)producer_intern, METH_O, intern_doc},
    {"_request_sync", (PyCFunction)producer_request_sync, METH_NOARGS, request_sync_doc},
    {"_positions", (PyCFunction)producer_positions, METH_NOARGS, positions_doc},
    {"_counts", (PyCFunction)producer_counts, METH_NOARGS, counts_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"_is_member", (getter)producer_is_member, NULL, "This process may log.", NULL},
    {"_generation", (getter)producer_generation, NULL, "How often the process was forked since joining.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"_segment", T_OBJECT, offsetof(ProducerObject, segment), READONLY, "The segment, or None."},
    {"_disabled", T_BOOL, offsetof(ProducerObject, disabled), READONLY, "Log calls are no-ops."},
    {NULL, 0, 0, 0, NULL},
};

/* ---- the type ---- */

static PyObject *producer_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    ProducerObject *self = (ProducerObject *)type->tp_alloc(type, 0);
    if (!self) {
        return NULL;
    }
    self->producer.lock_fd = -1;
    self->interned_step = Py_NewRef(shmlog_state_of(type)->interned_step);
    self->name_ids = PyDict_New();
    self->metrics = PyDict_New();
    if (!self->name_ids || !self->metrics) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int producer_traverse(ProducerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->name_ids);
    Py_VISIT(self->metrics);
    return 0;
}

static int producer_clear(ProducerObject *self)
{
    Py_CLEAR(self->name_ids);
    Py_CLEAR(self->metrics);
    return 0;
}

static void producer_dealloc(ProducerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    shmlog_producer_leave(&self->producer);
    producer_clear(self);
    for (int i = 0; i < SHMLOG_NAME_CACHE; i++) {
        Py_XDECREF(self->cache[i].name);
    }
    Py_XDECREF(self->interned_step);
    Py_XDECREF(self->segment);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"The C base of shmlog.Run."},
    {Py_tp_new, producer_new},
    {Py_tp_traverse, producer_traverse},
    {Py_tp_clear, producer_clear},
    {Py_tp_dealloc, producer_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, getters},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec shmlog_producer_spec = {
    .name = "shmlog._core.Producer",
    .basicsize = sizeof(ProducerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
