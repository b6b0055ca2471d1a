/* Producer._put_event(): an event as one unit, or a file that the unit names. */
#include "py_run.h"


static shmlog_outcome write_event(ProducerObject *writer, uint32_t name_id, shmlog_item *item)
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

static shmlog_outcome put_event(ProducerObject *writer, PyObject *event_type, PyObject *payload)
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

static PyObject *put_event_into_next(RunObject *self, PyObject *args)
{
    RunObject *next = shmlog_run_next(self);
    if (next) {
        PyObject *result = shmlog_put_event(next, args);
        Py_DECREF(next);
        return result;
    }
    return shmlog_run_drop_closed(self, 1) ? Py_NewRef(Py_False) : NULL;
}

PyObject *shmlog_put_event(RunObject *self, PyObject *args)
{
    PyObject *event_type, *payload;
    if (!PyArg_ParseTuple(args, "US", &event_type, &payload)) {
        return NULL;
    }
    if (self->disabled) {
        Py_RETURN_TRUE;
    }
    Py_ssize_t bytes;
    if (!PyUnicode_AsUTF8AndSize(event_type, &bytes)) {
        return NULL;
    }
    if (bytes == 0 || bytes > (Py_ssize_t)SHMLOG_NAME_BYTES_MAX) {
        return PyErr_Format(PyExc_ValueError, "the type of an event must have 1 to %u bytes of UTF-8, not %zd: %.60R",
                            SHMLOG_NAME_BYTES_MAX, bytes, event_type);
    }
    if (PyBytes_GET_SIZE(payload) > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "an event of %zd bytes is too large; the most is 2 GiB",
                     PyBytes_GET_SIZE(payload));
        return NULL;
    }
    ProducerObject *writer = shmlog_writer_of(self);
    shmlog_outcome outcome;
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = put_event(writer, event_type, payload);
    Py_END_CRITICAL_SECTION();
    return outcome == SHMLOG_MOVED    ? put_event_into_next(self, args)
           : outcome == SHMLOG_RAISED ? NULL
                                      : PyBool_FromLong(outcome == SHMLOG_WRITTEN);
}
