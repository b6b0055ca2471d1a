/* Metric.extend(): many values in one call. Arrays are read through the buffer
 * protocol; other sequences element by element. Everything is checked before
 * the first record is written. */
#include "py_core.h"

#include "clock.h"

/* ---- elements of a buffer ---- */

typedef struct {
    Py_buffer view;
    char format; /* of struct, without byte order */
    bool is_signed;
    Py_ssize_t count;
    Py_ssize_t stride;
} column;

static bool is_float(char format) { return format == 'd' || format == 'f' || format == 'e'; }

static bool is_int(char format) { return format && strchr("bBhHiIlLqQnN", format) != NULL; }

static const char *element(const column *column, Py_ssize_t i) { return (const char *)column->view.buf + i * column->stride; }

static double load_float(const column *column, Py_ssize_t i)
{
    const char *at = element(column, i);
    if (column->format == 'd') {
        double value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    return column->format == 'f' ? PyFloat_Unpack4(at, 1) : PyFloat_Unpack2(at, 1);
}

static uint64_t load_bytes(const column *column, Py_ssize_t i)
{
    uint64_t value = 0;
    if (column->view.itemsize == sizeof value) {
        memcpy(&value, element(column, i), sizeof value); /* one load, where the other is a call */
    } else {
        memcpy(&value, element(column, i), (size_t)column->view.itemsize); /* little-endian */
    }
    return value;
}

static int64_t load_int(const column *column, Py_ssize_t i)
{
    uint64_t value = load_bytes(column, i);
    if (column->is_signed) {
        unsigned unused = 64 - 8 * (unsigned)column->view.itemsize;
        return (int64_t)(value << unused) >> unused;
    }
    return (int64_t)value;
}

static uint64_t load_bits(const column *column, Py_ssize_t i)
{
    if (is_float(column->format)) {
        return shmlog_float_bits(load_float(column, i));
    }
    return column->format == '?' ? load_bytes(column, i) != 0 : (uint64_t)load_int(column, i);
}

static unsigned column_kind(const column *column)
{
    return is_float(column->format) ? SHMLOG_FLOAT : column->format == '?' ? SHMLOG_BOOL : SHMLOG_INT;
}

/* ---- opening a buffer ---- */

/* Only unsigned 64-bit elements can fall out of the range. */
static bool check_range(const column *column, const char *what)
{
    if (!is_int(column->format) || column->is_signed || column->view.itemsize < 8) {
        return true;
    }
    for (Py_ssize_t i = 0; i < column->count; i++) {
        if (load_bytes(column, i) > INT64_MAX) {
            PyErr_Format(PyExc_OverflowError, "%s[%zd] does not fit in 64 bits with sign", what, i);
            return false;
        }
    }
    return true;
}

static bool describe(column *column, const char *what)
{
    const char *format = column->view.format ? column->view.format : "B";
    if (*format == '@' || *format == '=' || *format == '<') {
        format++;
    }
    column->format = *format;
    column->is_signed = *format && strchr("bhilqn", *format) != NULL;
    if (column->view.ndim != 1) {
        PyErr_Format(PyExc_ValueError, "%s must have one dimension, not %d", what, column->view.ndim);
        return false;
    }
    if (format[1] != '\0' || !(is_float(*format) || is_int(*format) || *format == '?') ||
        column->view.itemsize > 8) {
        PyErr_Format(PyExc_TypeError, "%s must hold floats, ints or bools, not elements of format '%s'", what,
                     column->view.format ? column->view.format : "B");
        return false;
    }
    column->count = column->view.shape[0];
    column->stride = column->view.strides[0];
    return check_range(column, what);
}

static bool open_column(PyObject *object, column *column, const char *what)
{
    if (PyObject_GetBuffer(object, &column->view, PyBUF_RECORDS_RO) < 0) {
        return false;
    }
    if (!describe(column, what)) {
        PyBuffer_Release(&column->view);
        return false;
    }
    return true;
}

/* An object with a buffer: itself, its __array__(), or array(typecode, it). */
static PyObject *as_buffer(PyObject *object, const char *typecode)
{
    if (PyObject_CheckBuffer(object)) {
        return Py_NewRef(object);
    }
    if (PyObject_HasAttrString(object, "__array__")) {
        return PyObject_CallMethod(object, "__array__", NULL);
    }
    PyObject *array = PyImport_ImportModule("array");
    PyObject *result = array ? PyObject_CallMethod(array, "array", "sO", typecode, object) : NULL;
    Py_XDECREF(array);
    return result;
}

/* ---- writing ---- */

typedef struct {
    const column *values;
    const column *steps; /* NULL: first_step, first_step + 1, ... */
    int64_t first_step;
    uint32_t name_id;
} extension;

static void write_records(shmlog_producer *producer, const extension *extension, Py_ssize_t first, Py_ssize_t last)
{
    unsigned kind = column_kind(extension->values);
    uint64_t ts = shmlog_ticks(producer->segment->tsc);
    for (Py_ssize_t i = first; i < last; i++) {
        int64_t step = extension->steps ? load_int(extension->steps, i) : extension->first_step + i;
        shmlog_lane_put(&producer->lane, ts, load_bits(extension->values, i), step, extension->name_id, kind);
    }
    producer->logged += (uint64_t)(last - first);
}

static shmlog_outcome write_column(WriterObject *writer, const extension *extension)
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

static shmlog_outcome write_or_drop(WriterObject *writer, const extension *extension)
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

static shmlog_outcome write_locked(WriterObject *writer, const extension *extension)
{
    shmlog_outcome outcome;
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = write_or_drop(writer, extension);
    Py_END_CRITICAL_SECTION();
    return outcome;
}

static shmlog_outcome extend_with_steps(WriterObject *writer, extension *extension, PyObject *steps)
{
    column column;
    PyObject *buffer = as_buffer(steps, "q");
    shmlog_outcome outcome = SHMLOG_RAISED;
    if (buffer && open_column(buffer, &column, "steps")) {
        if (!is_int(column.format)) {
            PyErr_SetString(PyExc_TypeError, "steps must be ints");
        } else if (column.count != extension->values->count) {
            PyErr_Format(PyExc_ValueError, "%zd values but %zd steps", extension->values->count, column.count);
        } else {
            extension->steps = &column;
            outcome = write_locked(writer, extension);
        }
        PyBuffer_Release(&column.view);
    }
    Py_XDECREF(buffer);
    return outcome;
}

static shmlog_outcome extend_column(WriterObject *writer, PyObject *metric, extension *extension, PyObject *steps)
{
    if (steps) {
        return extend_with_steps(writer, extension, steps);
    }
    extension->first_step = shmlog_metric_claim_steps(metric, extension->values->count);
    return write_locked(writer, extension);
}

/* A list of floats is read as such, one of ints as ints, so that types stay exact. */
static const char *typecode_of(PyObject *values)
{
    PyObject *first = PySequence_Check(values) && PySequence_Size(values) > 0 ? PySequence_GetItem(values, 0) : NULL;
    bool whole = first && PyLong_Check(first) && !PyBool_Check(first);
    PyErr_Clear();
    Py_XDECREF(first);
    return whole ? "q" : "d";
}

shmlog_outcome shmlog_extend(ProducerObject *run, PyObject *metric, PyObject *values, PyObject *steps,
                             uint64_t *records)
{
    column column;
    if (PyUnicode_Check(values) || PyBytes_Check(values) || PyByteArray_Check(values)) {
        PyErr_Format(PyExc_TypeError, "values must be an array or sequence of numbers, not %.200s",
                     Py_TYPE(values)->tp_name);
        return SHMLOG_RAISED;
    }
    PyObject *buffer = as_buffer(values, PyObject_CheckBuffer(values) ? "d" : typecode_of(values));
    shmlog_outcome outcome = SHMLOG_RAISED;
    if (buffer && open_column(buffer, &column, "values")) {
        extension extension = {.values = &column, .name_id = shmlog_metric_id(metric)};
        *records = (uint64_t)column.count;
        outcome = extend_column(shmlog_writer_of(run), metric, &extension, steps);
        PyBuffer_Release(&column.view);
    }
    Py_XDECREF(buffer);
    return outcome;
}
