/* How a producer stands: what it has written and counted, and whether it may log. */
#include "py_run.h"

static bool request_sync(ProducerObject *writer, void *Py_UNUSED(context))
{
    const shmlog_lane *lane = &writer->producer.lane;
    if (lane->slots) {
        shmlog_lane_request_sync(lane->shared, lane->head);
    }
    return true;
}

static bool request_departed_sync(uint32_t lane, uint64_t head, void *context)
{
    const RunObject *self = context;
    shmlog_lane_request_sync(&self->segment->segment.lanes[lane], head);
    return true;
}

PyObject *shmlog_run_request_sync(RunObject *self, PyObject *Py_UNUSED(none))
{
    bool ok = shmlog_each_writer(self, request_sync, NULL) && shmlog_each_departed(self, request_departed_sync, self);
    return ok ? Py_NewRef(Py_None) : NULL;
}

typedef struct {
    const RunObject *self;
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

static bool add_writers_position(ProducerObject *writer, void *context)
{
    const shmlog_producer *producer = &writer->producer;
    return !producer->had_lane || add_position(producer->lane_number, producer->lane.head, context);
}

PyObject *shmlog_run_positions(RunObject *self, PyObject *Py_UNUSED(none))
{
    positions positions = {self, PyList_New(0)};
    /* In this order: a writer that is over meanwhile is in both, and not in none. */
    if (positions.list && (!shmlog_each_writer(self, add_writers_position, &positions) ||
                           !shmlog_each_departed(self, add_position, &positions))) {
        Py_CLEAR(positions.list);
    }
    return positions.list;
}

static bool add_counts(ProducerObject *writer, void *context)
{
    shmlog_producer_add_counts(context, &writer->producer);
    return true;
}

PyObject *shmlog_run_counts(RunObject *self, PyObject *Py_UNUSED(none))
{
    shmlog_producer sum = {0};
    if (!shmlog_each_writer(self, add_counts, &sum)) {
        return NULL;
    }
    const shmlog_producer *producer = &shmlog_writer_at_hand(self)->producer;
    PyObject *dropped = shmlog_counts_dict(sum.dropped);
    PyObject *lane = producer->lane.slots
                         ? PyLong_FromUnsignedLong(producer->segment->constants.first_lane + producer->lane_number)
                         : Py_NewRef(Py_None);
    if (!dropped || !lane) {
        Py_XDECREF(dropped);
        Py_XDECREF(lane);
        return NULL;
    }
    return Py_BuildValue("{s:K,s:N,s:N,s:K,s:d}", "logged", sum.logged, "dropped", dropped, "lane", lane, "waits",
                         sum.waits, "waited_s", (double)sum.waited_ns * 1e-9);
}

static PyObject *run_is_member(RunObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!shmlog_writer_is_closed(self->writer));
}

static PyObject *run_is_over(RunObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(shmlog_run_is_over(self));
}

static PyObject *run_is_live(RunObject *self, void *Py_UNUSED(closure))
{
    const shmlog_producer *producer = &shmlog_writer_at_hand(self)->producer;
    return PyBool_FromLong(self->disabled || (producer->lane.slots && !shmlog_producer_is_cut(producer)));
}

static PyObject *run_has_lane(RunObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(shmlog_writer_at_hand(self)->producer.lane.slots != NULL);
}

static PyObject *run_generation(RunObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->writer->producer.fork_generation);
}

PyGetSetDef shmlog_run_getters[] = {
    {"_is_member", (getter)run_is_member, NULL, "This process may log.", NULL},
    {"_is_over", (getter)run_is_over, NULL, "The run has ended for this process, as far as it knows.", NULL},
    {"_is_live", (getter)run_is_live, NULL, "It is known to take calls, or to be disabled.", NULL},
    {"_has_lane", (getter)run_has_lane, NULL, "It is known when the run ends for this process.", NULL},
    {"_is_announced", (getter)shmlog_run_get_is_announced, NULL, "The run is open, as its owner's beacon is as it was.", NULL},
    {"_generation", (getter)run_generation, NULL, "How often the process was forked since joining.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
