/* Metric.extend(): many values in one call. Everything is checked before the first record is written. */
#include "py_column.h"
#include "py_log.h"
#include "py_metric.h"

typedef struct {
    const shmlog_column *values;
    const shmlog_column *steps; /* NULL: first_step, first_step + 1, ... */
    const shmlog_column *times; /* in microseconds since 1970; NULL: now */
    int64_t first_step;
    uint32_t name_id;
} extension;

static void write_records(shmlog_producer *producer, const extension *extension, Py_ssize_t first, Py_ssize_t last)
{
    const shmlog_column *values = extension->values, *steps = extension->steps, *times = extension->times;
    uint64_t ts = shmlog_ticks(producer->segment->tsc);
    for (Py_ssize_t i = first; i < last; i++) {
        int64_t step = steps ? shmlog_column_int(steps, i) : extension->first_step + i;
        uint64_t bits = shmlog_column_bits(values, i);
        unsigned kind = shmlog_column_kind(values, i);
        if (times) {
            shmlog_lane_commit(&producer->lane, producer->lane.head, (uint64_t)shmlog_column_int(times, i), bits, step,
                               extension->name_id, kind, SHMLOG_GIVEN);
            shmlog_lane_advance(&producer->lane, 1);
        } else {
            shmlog_lane_put(&producer->lane, ts, bits, step, extension->name_id, kind);
        }
    }
    producer->logged += (uint64_t)(last - first);
}

static shmlog_outcome write_column(ProducerObject *writer, const extension *extension)
{
    shmlog_producer *producer = &writer->producer;
    Py_ssize_t count = extension->values->count;
    Py_ssize_t done = 0;
    bool wake = false; /* when all is written: an interrupt must not leave a part of it out */

    while (done < count) {
        bool half_full = false;
        if (!shmlog_producer_has_room(producer, 1)) {
            shmlog_outcome outcome = shmlog_writer_find_room(writer, 1, (uint64_t)(count - done), &half_full);
            if (outcome == SHMLOG_MOVED && done) {
                return shmlog_writer_dropped(writer, SHMLOG_DROP_CLOSED, (uint64_t)(count - done));
            }
            if (outcome != SHMLOG_WRITTEN) {
                return outcome;
            }
        }
        uint64_t limit = shmlog_lane_limit(producer->lane.shared); /* looked at once: another process may take it back */
        uint64_t room = limit > producer->lane.head ? limit - producer->lane.head : 0;
        Py_ssize_t last = room < (uint64_t)(count - done) ? done + (Py_ssize_t)room : count;
        write_records(producer, extension, done, last);
        if (last > done && shmlog_lane_was_cut(producer->lane.shared) &&
            shmlog_writer_cut(writer, (uint64_t)(last - done)) == SHMLOG_RAISED) {
            return SHMLOG_RAISED;
        }
        done = last;
        wake = wake || half_full;
    }
    return wake && !shmlog_writer_is_closed(writer) ? shmlog_writer_wake(writer) : SHMLOG_WRITTEN;
}

static shmlog_outcome write_or_drop(ProducerObject *writer, const extension *extension)
{
    uint64_t count = (uint64_t)extension->values->count;
    if (count == 0) {
        return SHMLOG_WRITTEN;
    }
    if (shmlog_writer_is_closed(writer)) {
        return SHMLOG_MOVED;
    }
    if (extension->name_id == SHMLOG_NO_NAME) {
        return shmlog_writer_dropped(writer, SHMLOG_DROP_NAMES, count);
    }
    return write_column(writer, extension);
}

static shmlog_outcome write_locked(ProducerObject *writer, const extension *extension)
{
    shmlog_outcome outcome;
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = write_or_drop(writer, extension);
    Py_END_CRITICAL_SECTION();
    return outcome;
}

/* Open steps or times, one for each value. False: exception set. */
static bool open_beside(const extension *extension, PyObject *object, shmlog_column *column, const char *what)
{
    if (!shmlog_column_open_steps(object, column)) {
        return false;
    }
    if (column->count != extension->values->count) {
        PyErr_Format(PyExc_ValueError, "%zd values but %zd %s", extension->values->count, column->count, what);
        shmlog_column_close(column);
        return false;
    }
    return true;
}

static shmlog_outcome extend_with_steps(RunObject *run, extension *extension, PyObject *steps)
{
    ProducerObject *writer = shmlog_writer_of(run);
    shmlog_column column;
    if (!steps) {
        bool ok = shmlog_claim_steps(run, extension->name_id, extension->values->count, &extension->first_step);
        return ok ? write_locked(writer, extension) : SHMLOG_RAISED;
    }
    if (!open_beside(extension, steps, &column, "steps")) {
        return SHMLOG_RAISED;
    }
    extension->steps = &column;
    shmlog_outcome outcome = write_locked(writer, extension);
    shmlog_column_close(&column);
    return outcome;
}

static shmlog_outcome extend_with_times(RunObject *run, extension *extension, const shmlog_arrays *arrays)
{
    PyObject *times = PyObject_CallMethod((PyObject *)run, "_times_us", "(O)", arrays->times);
    shmlog_outcome outcome = SHMLOG_RAISED;
    shmlog_column column;
    if (times && open_beside(extension, times, &column, "times")) {
        extension->times = &column;
        outcome = extend_with_steps(run, extension, arrays->steps);
        shmlog_column_close(&column);
    }
    Py_XDECREF(times);
    return outcome;
}

shmlog_outcome shmlog_extend(RunObject *run, uint32_t name_id, shmlog_arrays arrays, uint64_t *records)
{
    shmlog_column column;
    if (!shmlog_column_open_values(arrays.values, &column)) {
        return SHMLOG_RAISED;
    }
    extension extension = {.values = &column, .name_id = name_id};
    *records = (uint64_t)column.count;
    shmlog_outcome outcome = arrays.times ? extend_with_times(run, &extension, &arrays)
                                          : extend_with_steps(run, &extension, arrays.steps);
    shmlog_column_close(&column);
    return outcome;
}
