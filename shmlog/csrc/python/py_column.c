#include "py_column.h"

static bool is_int(char format) { return format && strchr("bBhHiIlLqQnN", format) != NULL; }

/* ---- arrays ---- */

/* Only unsigned 64-bit elements can fall out of the range. */
static bool check_range(const shmlog_column *column, const char *what)
{
    if (!is_int(column->format) || column->is_signed || column->view.itemsize < 8) {
        return true;
    }
    for (Py_ssize_t i = 0; i < column->count; i++) {
        if (shmlog_column_bytes(column, i) > INT64_MAX) {
            PyErr_Format(PyExc_OverflowError, "%s[%zd] does not fit in 64 bits with sign", what, i);
            return false;
        }
    }
    return true;
}

static bool describe(shmlog_column *column, const char *what)
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
    if (format[1] != '\0' || !(shmlog_column_is_float(column) || is_int(*format) || *format == '?') ||
        column->view.itemsize > 8) {
        PyErr_Format(PyExc_TypeError, "%s must hold floats, ints or bools, not elements of format '%s'", what,
                     column->view.format ? column->view.format : "B");
        return false;
    }
    column->count = column->view.shape[0];
    /* Exporters of one block, such as ctypes, give none. */
    column->stride = column->view.strides ? column->view.strides[0] : column->view.itemsize;
    return check_range(column, what);
}

static bool open_array(PyObject *object, shmlog_column *column, const char *what)
{
    int masked = shmlog_is_masked(object);
    if (masked) {
        if (masked > 0) {
            PyErr_Format(PyExc_ValueError, "%s has masked elements: give them a value, as by filled(nan)", what);
        }
        return false;
    }
    if (PyObject_GetBuffer(object, &column->view, PyBUF_RECORDS_RO) < 0) {
        return false;
    }
    if (!describe(column, what)) {
        PyBuffer_Release(&column->view);
        return false;
    }
    return true;
}

/* ---- sequences ---- */

typedef bool convert_element(PyObject *element, uint64_t *bits, uint8_t *kind);

static bool convert_value(PyObject *element, uint64_t *bits, uint8_t *kind)
{
    shmlog_item item;
    bool ok = shmlog_item_convert(element, &item);
    if (ok && (item.value.kind == SHMLOG_TEXT || item.value.kind == SHMLOG_LONGTEXT)) {
        PyErr_SetString(PyExc_TypeError, "a value must be a float, int or bool, not a text");
        ok = false;
    }
    *bits = item.value.bits;
    *kind = (uint8_t)item.value.kind;
    shmlog_item_clear(&item);
    return ok;
}

static bool convert_step(PyObject *element, uint64_t *bits, uint8_t *kind)
{
    int64_t step = 0;
    bool ok = shmlog_step_convert(element, &step);
    *bits = (uint64_t)step;
    *kind = SHMLOG_INT;
    return ok;
}

/* Each element as one log call takes it: a list of ints and floats stays one. */
static bool open_sequence(PyObject *object, shmlog_column *column, const char *what, convert_element *convert)
{
    PyObject *elements = PySequence_Tuple(object); /* what a conversion runs must not change it */
    if (!elements) {
        return false;
    }
    column->count = PyTuple_GET_SIZE(elements);
    column->bits = PyMem_New(uint64_t, column->count);
    column->kinds = PyMem_New(uint8_t, column->count);
    bool ok = column->bits && column->kinds;
    if (!ok) {
        PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; ok && i < column->count; i++) {
        ok = convert(PyTuple_GET_ITEM(elements, i), &column->bits[i], &column->kinds[i]);
        if (!ok) {
            shmlog_say_where("%s[%zd]", what, i);
        }
    }
    Py_DECREF(elements);
    if (!ok) {
        shmlog_column_close(column);
    }
    return ok;
}

/* ---- either ---- */

static bool open_any(PyObject *object, shmlog_column *column, const char *what, convert_element *convert)
{
    *column = (shmlog_column){0};
    if (PyObject_CheckBuffer(object)) {
        return open_array(object, column, what);
    }
    if (!PyObject_HasAttrString(object, "__array__")) {
        return open_sequence(object, column, what, convert);
    }
    PyObject *array = PyObject_CallMethod(object, "__array__", NULL);
    bool ok = array && open_array(array, column, what); /* the view keeps it */
    Py_XDECREF(array);
    return ok;
}

bool shmlog_column_open_values(PyObject *values, shmlog_column *column)
{
    if (PyUnicode_Check(values) || PyBytes_Check(values) || PyByteArray_Check(values)) {
        PyErr_Format(PyExc_TypeError, "values must be an array or sequence of numbers, not %.200s",
                     Py_TYPE(values)->tp_name);
        return false;
    }
    return open_any(values, column, "values", convert_value);
}

bool shmlog_column_open_steps(PyObject *steps, shmlog_column *column)
{
    if (!open_any(steps, column, "steps", convert_step)) {
        return false;
    }
    if (!column->bits && !is_int(column->format)) {
        PyErr_SetString(PyExc_TypeError, "steps must be ints");
        shmlog_column_close(column);
        return false;
    }
    return true;
}

void shmlog_column_close(shmlog_column *column)
{
    if (column->view.obj) {
        PyBuffer_Release(&column->view);
    }
    PyMem_Free(column->bits);
    PyMem_Free(column->kinds);
}
