/* Producer: what a process logs to a run with; the C base of shmlog.Run. */
#include "py_core.h"

#include "clock.h"

#include <errno.h>

/* ---- names ---- */

/* The id of a name, for whoever does not hold the writer's lock, and may never log. */
static bool name_id(ProducerObject *self, PyObject *name, uint32_t *id)
{
    WriterObject *writer = shmlog_writer_at_hand(self);
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

static PyObject *producer_join(ProducerObject *self, PyObject *args)
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

static PyObject *producer_disable(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    self->disabled = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(leave_doc, "_leave()\n--\n\nGive back the lane and the membership; later calls drop and count.");

static bool leave(WriterObject *writer, void *Py_UNUSED(context))
{
    shmlog_producer_leave(&writer->producer);
    return true;
}

static PyObject *producer_leave(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    return shmlog_each_writer(self, leave, NULL) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(allot_doc, "_allot()\n--\n\nTake a lane now. Returns its number; raises OSError if there is none.");

static PyObject *allot(ProducerObject *self, shmlog_producer *producer)
{
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
            error = producer->lock_fd < 0 ? EBADF : shmlog_producer_allot(producer, owner, (uint32_t)bytes);
        }
        Py_DECREF(identity);
        if (error) {
            errno = error;
            return PyErr_SetFromErrnoWithFilename(PyExc_OSError, producer->path);
        }
    }
    return PyLong_FromUnsignedLong(producer->lane_number);
}

static PyObject *producer_allot(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    WriterObject *writer = shmlog_writer_of(self);
    PyObject *number;
    Py_BEGIN_CRITICAL_SECTION(writer);
    number = allot(self, &writer->producer);
    Py_END_CRITICAL_SECTION();
    return number;
}

/* ---- events, metrics, state ---- */

PyDoc_STRVAR(put_event_doc, "_put_event(event_type, payload)\n--\n\n"
                            "Append an event, whose JSON object is the bytes `payload`. False: dropped.");

static shmlog_outcome write_event(WriterObject *writer, uint32_t name_id, shmlog_item *item)
{
    if (shmlog_value_slots(&item->value) > shmlog_producer_unit_max(writer->producer.segment)) {
        shmlog_outcome outcome = shmlog_writer_spill(writer, item);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    bool wake;
    shmlog_outcome outcome = shmlog_writer_find_room(writer, shmlog_value_slots(&item->value), 1, &wake);
    if (outcome != SHMLOG_WRITTEN) {
        return outcome;
    }
    shmlog_producer *producer = &writer->producer;
    shmlog_unit_head head = {shmlog_ticks(producer->segment->tsc), 0, name_id, SHMLOG_EVENT, item->value.flags};
    shmlog_lane_advance(&producer->lane, shmlog_lane_write_bytes(&producer->lane, producer->lane.head, &head,
                                                                 item->value.bytes, item->value.count));
    producer->logged++;
    if (shmlog_lane_was_cut(producer->lane.shared)) {
        return shmlog_writer_cut(writer, 1);
    }
    return wake ? shmlog_writer_wake(writer) : SHMLOG_WRITTEN;
}

static shmlog_outcome put_event(WriterObject *writer, PyObject *event_type, PyObject *payload)
{
    uint32_t id;
    if (!shmlog_writer_name_id(writer, event_type, &id)) {
        return SHMLOG_RAISED;
    }
    if (shmlog_writer_is_closed(writer)) {
        return SHMLOG_MOVED;
    }
    if (id == SHMLOG_NO_NAME) {
        return shmlog_writer_dropped(writer, SHMLOG_DROP_NAMES, 1);
    }
    shmlog_item item = {.value = {.kind = SHMLOG_LONGTEXT,
                                  .count = (uint32_t)PyBytes_GET_SIZE(payload),
                                  .bytes = PyBytes_AS_STRING(payload)},
                        .owner = Py_NewRef(payload)};
    shmlog_outcome outcome = write_event(writer, id, &item);
    shmlog_item_clear(&item);
    return outcome;
}

static PyObject *producer_put_event(ProducerObject *self, PyObject *args);

static PyObject *put_event_into_next(ProducerObject *self, PyObject *args)
{
    ProducerObject *next = shmlog_run_next(self);
    if (next) {
        PyObject *result = producer_put_event(next, args);
        Py_DECREF(next);
        return result;
    }
    return shmlog_run_drop_closed(self, 1) ? Py_NewRef(Py_False) : NULL;
}

static PyObject *producer_put_event(ProducerObject *self, PyObject *args)
{
    PyObject *event_type, *payload;
    if (!PyArg_ParseTuple(args, "US", &event_type, &payload)) {
        return NULL;
    }
    if (self->disabled) {
        Py_RETURN_TRUE;
    }
    WriterObject *writer = shmlog_writer_of(self);
    shmlog_outcome outcome;
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = put_event(writer, event_type, payload);
    Py_END_CRITICAL_SECTION();
    return outcome == SHMLOG_MOVED    ? put_event_into_next(self, args)
           : outcome == SHMLOG_RAISED ? NULL
                                      : PyBool_FromLong(outcome == SHMLOG_WRITTEN);
}

PyDoc_STRVAR(metric_doc, "metric(name)\n--\n\n"
                         "Return the handle of a metric: the fastest way to log it.\n\n"
                         "The same name gives the same handle. Works in forked children, and pickles\n"
                         "by reference to spawned ones.\n\n"
                         "Parameters\n----------\nname : str\n    1 to 1024 bytes of UTF-8.\n\n"
                         "Returns\n-------\nMetric\n\n"
                         "Raises\n------\nTypeError\n    If `name` is no str.\nValueError\n    If `name` is empty, "
                         "too long, or no valid Unicode.");

static PyObject *metric_of(ProducerObject *self, PyObject *name, uint32_t id)
{
    PyObject *metric;
    if (shmlog_dict_get(self->metrics, name, &metric) != 0) {
        return metric;
    }
    metric = shmlog_metric_new(self, name, id);
    if (metric && PyDict_SetItem(self->metrics, name, metric) < 0) {
        Py_CLEAR(metric);
    }
    return metric;
}

static PyObject *producer_metric(ProducerObject *self, PyObject *name)
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

static PyObject *producer_intern(ProducerObject *self, PyObject *name)
{
    uint32_t id;
    return name_id(self, name, &id) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(request_sync_doc, "_request_sync()\n--\n\nAsk for what this process logged to be fsynced.");

static bool request_sync(WriterObject *writer, void *Py_UNUSED(context))
{
    const shmlog_lane *lane = &writer->producer.lane;
    if (lane->slots) {
        shmlog_lane_request_sync(lane->shared, lane->head);
    }
    return true;
}

static bool request_departed_sync(uint32_t lane, uint64_t head, void *context)
{
    const ProducerObject *self = context;
    shmlog_lane_request_sync(&self->segment->segment.lanes[lane], head);
    return true;
}

static PyObject *producer_request_sync(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    bool ok = shmlog_each_writer(self, request_sync, NULL) && shmlog_each_departed(self, request_departed_sync, self);
    return ok ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(settle_doc, "_settle()\n--\n\nHave the lanes tell this process's drops, if there is room.");

static bool settle(WriterObject *writer, void *Py_UNUSED(context))
{
    shmlog_producer_settle(&writer->producer);
    return true;
}

static PyObject *producer_settle(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    return shmlog_each_writer(self, settle, NULL) ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(positions_doc, "_positions()\n--\n\n(lane, head, tail, synced) of each lane that this process wrote to.");

typedef struct {
    const ProducerObject *self;
    PyObject *list;
} positions;

static bool add_position(uint32_t number, uint64_t head, void *context)
{
    const positions *positions = context;
    const shmlog_lane_header *lane = &positions->self->segment->segment.lanes[number];
    /* RECLAIM and SYNC, acquire sides: what lies below is in the log, or on the disk. */
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_acquire);
    uint64_t synced = atomic_load_explicit(&lane->synced, memory_order_acquire); /* SYNC */
    PyObject *position = Py_BuildValue("IKKK", number, head, tail, synced);
    bool ok = position && PyList_Append(positions->list, position) == 0;
    Py_XDECREF(position);
    return ok;
}

static bool add_writers_position(WriterObject *writer, void *context)
{
    const shmlog_producer *producer = &writer->producer;
    return !producer->had_lane || add_position(producer->lane_number, producer->lane.head, context);
}

static PyObject *producer_positions(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    positions positions = {self, PyList_New(0)};
    /* In this order: a writer that is over meanwhile is in both, and not in none. */
    if (positions.list && (!shmlog_each_writer(self, add_writers_position, &positions) ||
                           !shmlog_each_departed(self, add_position, &positions))) {
        Py_CLEAR(positions.list);
    }
    return positions.list;
}

PyDoc_STRVAR(counts_doc, "_counts()\n--\n\nWhat this process has logged, dropped and waited.");

static bool add_counts(WriterObject *writer, void *context)
{
    shmlog_producer_add_counts(context, &writer->producer);
    return true;
}

static PyObject *producer_counts(ProducerObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_producer sum = {0};
    if (!shmlog_each_writer(self, add_counts, &sum)) {
        return NULL;
    }
    const shmlog_producer *producer = &shmlog_writer_at_hand(self)->producer;
    PyObject *dropped = shmlog_counts_dict(sum.dropped);
    PyObject *lane = producer->lane.slots
                         ? PyLong_FromUnsignedLong(producer->segment->header->first_lane + producer->lane_number)
                         : Py_NewRef(Py_None);
    if (!dropped || !lane) {
        Py_XDECREF(dropped);
        Py_XDECREF(lane);
        return NULL;
    }
    return Py_BuildValue("{s:K,s:N,s:N,s:K,s:d}", "logged", sum.logged, "dropped", dropped, "lane", lane, "waits",
                         sum.waits, "waited_s", (double)sum.waited_ns * 1e-9);
}

static PyObject *producer_is_member(ProducerObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!shmlog_writer_is_closed(self->writer));
}

static PyObject *producer_is_over(ProducerObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(shmlog_run_is_over(self));
}

static PyObject *producer_is_live(ProducerObject *self, void *Py_UNUSED(closure))
{
    const shmlog_producer *producer = &shmlog_writer_at_hand(self)->producer;
    return PyBool_FromLong(self->disabled || (producer->lane.slots && !shmlog_producer_is_cut(producer)));
}

static PyObject *producer_has_lane(ProducerObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(shmlog_writer_at_hand(self)->producer.lane.slots != NULL);
}

static PyObject *producer_generation(ProducerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->writer->producer.fork_generation);
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
    {"_announced", (PyCFunction)shmlog_run_announced, METH_VARARGS, shmlog_announced_doc},
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
    {"_is_over", (getter)producer_is_over, NULL, "The run has ended for this process, as far as it knows.", NULL},
    {"_is_live", (getter)producer_is_live, NULL, "It is known to take calls, or to be disabled.", NULL},
    {"_has_lane", (getter)producer_has_lane, NULL, "It is known when the run ends for this process.", NULL},
    {"_is_announced", (getter)shmlog_run_get_is_announced, NULL, "The run is open, as its owner's beacon is as it was.", NULL},
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
    self->interned_step = Py_NewRef(shmlog_state_of(type)->interned_step);
    self->name_ids = PyDict_New();
    self->cached_names = PyDict_New();
    self->metrics = PyDict_New();
    if (!self->name_ids || !self->cached_names || !self->metrics || !shmlog_writers_begin(self)) {
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
    shmlog_writers_end(self);
    producer_clear(self);
    Py_XDECREF(self->cached_names);
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
