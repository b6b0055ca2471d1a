/* Python objects to values and steps. Everything here ends before a lane's head
 * is read: it may run Python code. */
#include "py_value.h"

static void set_bits(shmlog_item *item, unsigned kind, uint64_t bits)
{
    item->value.kind = kind;
    item->value.bits = bits;
}

static bool convert_text(PyObject *text, shmlog_item *item)
{
    Py_ssize_t bytes;
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, &bytes);
    if (!utf8) {
        return false;
    }
    if (bytes <= 8 && !memchr(utf8, '\0', (size_t)bytes)) {
        uint64_t bits = 0;
        memcpy(&bits, utf8, (size_t)bytes);
        set_bits(item, SHMLOG_TEXT, bits);
        return true;
    }
    if (bytes > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "a text of %zd bytes is too large; the most is 2 GiB", bytes);
        return false;
    }
    item->value.kind = SHMLOG_LONGTEXT;
    item->value.count = (uint32_t)bytes;
    item->value.bytes = utf8;
    item->owner = Py_NewRef(text);
    return true;
}

static bool convert_int(PyObject *number, shmlog_item *item)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow) {
        PyErr_SetString(PyExc_OverflowError,
                        "an int value must fit in 64 bits with sign; log float(value) or str(value) instead");
        return false;
    }
    set_bits(item, SHMLOG_INT, (uint64_t)value);
    return true;
}

int shmlog_item_convert_exact(PyObject *object, shmlog_item *item)
{
    *item = (shmlog_item){0};
    if (PyFloat_CheckExact(object)) {
        set_bits(item, SHMLOG_FLOAT, shmlog_float_bits(PyFloat_AS_DOUBLE(object)));
        return 1;
    }
    if (PyBool_Check(object)) {
        set_bits(item, SHMLOG_BOOL, object == Py_True);
        return 1;
    }
    if (PyLong_CheckExact(object)) {
        return convert_int(object, item) ? 1 : -1;
    }
    if (PyUnicode_CheckExact(object)) {
        return convert_text(object, item) ? 1 : -1;
    }
    return 0;
}

static bool refuse(PyObject *object)
{
    PyErr_Format(PyExc_TypeError,
                 "a value must be a float, int, bool, str, or an array or tensor of one element, not %.200s",
                 Py_TYPE(object)->tp_name);
    return false;
}

/* Subclasses: numpy.float64 is a float, an IntEnum an int, numpy.str_ a str. */
static int convert_subclass(PyObject *object, shmlog_item *item)
{
    if (PyFloat_Check(object)) {
        set_bits(item, SHMLOG_FLOAT, shmlog_float_bits(PyFloat_AS_DOUBLE(object)));
        return 1;
    }
    if (PyLong_Check(object)) {
        return convert_int(object, item) ? 1 : -1;
    }
    if (PyUnicode_Check(object)) {
        return convert_text(object, item) ? 1 : -1;
    }
    return 0;
}

int shmlog_is_masked(PyObject *object)
{
    if (!(Py_TYPE(object)->tp_flags & Py_TPFLAGS_HEAPTYPE)) {
        return 0; /* numpy's masked arrays are a class of Python */
    }
    PyObject *name = PyUnicode_InternFromString("numpy.ma");
    PyObject *module = name ? PyImport_GetModule(name) : NULL; /* if nobody has imported it, this is none of its */
    Py_XDECREF(name);
    if (!module) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *class = PyObject_GetAttrString(module, "MaskedArray");
    int masked = class ? PyObject_IsInstance(object, class) : -1;
    Py_DECREF(module);
    Py_XDECREF(class);
    if (masked > 0) {
        PyObject *mask = PyObject_GetAttrString(object, "mask");
        PyObject *any = mask ? PyObject_CallMethod(mask, "any", NULL) : NULL;
        masked = any ? PyObject_IsTrue(any) : -1;
        Py_XDECREF(mask);
        Py_XDECREF(any);
    }
    return masked;
}

/* numpy scalars, 0-d arrays and tensors say by item() which Python value they are. */
static int convert_by_item(PyObject *object, shmlog_item *item)
{
    PyObject *method;
    if (PyType_Check(object)) {
        return 0;
    }
    int masked = shmlog_is_masked(object);
    if (masked) {
        if (masked > 0) {
            PyErr_SetString(PyExc_ValueError, "the value is masked: log another one, such as nan, or leave it out");
        }
        return -1;
    }
    method = PyObject_GetAttrString(object, "item");
    if (!method) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    PyObject *scalar = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    if (!scalar) {
        return -1;
    }
    int done = shmlog_item_convert_exact(scalar, item);
    if (done == 0 && Py_TYPE(scalar) != Py_TYPE(object)) {
        done = refuse(scalar) ? 1 : -1; /* a complex or a date, say */
    }
    Py_DECREF(scalar); /* a long text owns itself in the item */
    return done;
}

static bool convert_by_number(PyObject *object, shmlog_item *item)
{
    PyNumberMethods *methods = Py_TYPE(object)->tp_as_number;
    if (!methods || (!methods->nb_index && !methods->nb_float)) {
        return refuse(object);
    }
    PyObject *number = methods->nb_index ? PyNumber_Index(object) : PyNumber_Float(object);
    if (!number) {
        return false;
    }
    int done = convert_subclass(number, item);
    Py_DECREF(number);
    return done > 0;
}

bool shmlog_item_convert(PyObject *object, shmlog_item *item)
{
    int done = shmlog_item_convert_exact(object, item);
    if (done == 0) {
        done = convert_subclass(object, item);
    }
    if (done == 0) {
        done = convert_by_item(object, item);
    }
    return done == 0 ? convert_by_number(object, item) : done > 0;
}

void shmlog_item_clear(shmlog_item *item) { Py_CLEAR(item->owner); }

/* What others have raised at their place in Python says more than a message: it keeps its own. */
static bool is_plain_error(PyObject *type, PyObject *trace)
{
    return !trace && (type == PyExc_TypeError || type == PyExc_ValueError || type == PyExc_OverflowError ||
                      type == PyExc_RuntimeError); /* the last is torch's */
}

void shmlog_say_where(const char *format, ...)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    va_list arguments;
    va_start(arguments, format);
    PyObject *place = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (place && is_plain_error(type, trace)) {
        PyErr_Format(type, "%U: %S", place, error);
        Py_DECREF(type);
        Py_XDECREF(error);
    } else {
        PyObject *noted = place && PyErr_GivenExceptionMatches(type, PyExc_Exception)
                              ? PyObject_CallMethod(error, "add_note", "O", place)
                              : NULL;
        Py_XDECREF(noted);
        PyErr_Restore(type, error, trace); /* in the place of one that the note has raised */
    }
    Py_XDECREF(place);
}

int shmlog_say_metric(PyObject *name)
{
    if (PyUnicode_CheckExact(name)) { /* others are no names, or have a repr of their own */
        shmlog_say_where("metric %R", name);
    }
    return -1;
}

bool shmlog_item_convert_of(PyObject *name, PyObject *value, shmlog_item *item)
{
    if (shmlog_item_convert(value, item)) {
        return true;
    }
    shmlog_item_clear(item);
    shmlog_say_metric(name);
    return false;
}

bool shmlog_step_convert(PyObject *object, int64_t *step)
{
    if (shmlog_small_int(object, step)) {
        return true;
    }
    if (!PyIndex_Check(object)) {
        PyErr_Format(PyExc_TypeError, "step must be an int, not %.200s", Py_TYPE(object)->tp_name);
        return false;
    }
    PyObject *number = PyNumber_Index(object);
    if (!number) {
        return false;
    }
    int overflow;
    *step = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow) {
        PyErr_SetString(PyExc_OverflowError, "step must fit in 64 bits with sign");
    }
    return overflow == 0;
}
