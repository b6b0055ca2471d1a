/* Metric: the handle of one name in one run, and the fast path. */
#include "py_log.h"
#include "py_metric.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    RunObject *run;
    PyObject *name;
    uint32_t id; /* SHMLOG_NO_NAME: the name table was full */
    PyObject *next; /* the handle of the same name in the run that follows this one; NULL: not met */
} MetricObject;

/* ---- the general path ---- */

static shmlog_outcome record_item(MetricObject *self, shmlog_item *item, int64_t step)
{
    ProducerObject *writer = shmlog_writer_of(self->run);
    shmlog_outcome outcome;
    item->value.name_id = self->id;
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = shmlog_writer_item(writer, item, step);
    Py_END_CRITICAL_SECTION();
    return outcome;
}

static shmlog_outcome record_any(MetricObject *self, PyObject *value, const shmlog_place *place)
{
    shmlog_item item;
    if (value == Py_None && shmlog_is_nested(shmlog_writer_at_hand(self->run), value)) {
        uint64_t records;
        return shmlog_log_nested(self->run, self->name, value, place, &records);
    }
    int64_t step = place->step;
    bool ok = shmlog_item_convert_of(self->name, value, &item) &&
              (place->has_step || shmlog_claim_steps(self->run, self->id, 1, &step));
    shmlog_value_set_time(&item.value, place);
    shmlog_outcome outcome = ok ? record_item(self, &item, step) : SHMLOG_RAISED;
    shmlog_item_clear(&item);
    return outcome;
}

/* ---- after the end of the run ---- */

/* A new reference to the handle that was met last, if its run goes on. */
static PyObject *known_next(MetricObject *self)
{
    PyObject *next;
    Py_BEGIN_CRITICAL_SECTION(self);
    next = Py_XNewRef(self->next);
    Py_END_CRITICAL_SECTION();
    if (next && shmlog_run_is_over(((MetricObject *)next)->run)) {
        Py_CLEAR(next);
    }
    return next;
}

/* The handle that calls on this one go to: a new reference. NULL: there is none, or an exception is set. */
static PyObject *find_next(MetricObject *self)
{
    PyObject *next = known_next(self);
    RunObject *run = next ? NULL : shmlog_run_next(self->run);
    if (!run) {
        return next;
    }
    next = PyObject_CallMethod((PyObject *)run, "metric", "O", self->name);
    Py_DECREF(run);
    if (next) {
        PyObject *old;
        Py_BEGIN_CRITICAL_SECTION(self);
        old = self->next;
        self->next = Py_NewRef(next);
        Py_END_CRITICAL_SECTION();
        Py_XDECREF(old);
    }
    return next;
}

/* ---- the fast path ---- */

enum { VALUE, STEP, TIME, BY_PLACE = TIME, ARGUMENTS };
static const char *const argument_names[] = {"value", "step", "timestamp", NULL};

/* Fills in what was given; what was not, or was given as None, stays NULL. */
static bool take_arguments(const char *const *names, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords, PyObject **given)
{
    for (Py_ssize_t i = 0; i < count && i < BY_PLACE; i++) {
        given[i] = args[i];
    }
    for (Py_ssize_t i = 0; keywords && i < PyTuple_GET_SIZE(keywords); i++) {
        if (!shmlog_take_keyword(names, given, PyTuple_GET_ITEM(keywords, i), args[count + i])) {
            return false;
        }
    }
    if (count > BY_PLACE || !given[0]) {
        PyErr_Format(PyExc_TypeError, "a metric takes (%s, %s=None, *, %s=None); %zd arguments were given by place",
                     names[VALUE], names[STEP], names[TIME], count);
        return false;
    }
    for (Py_ssize_t i = 1; names[i]; i++) {
        given[i] = given[i] == Py_None ? NULL : given[i];
    }
    return true;
}

static PyObject *record_after_end(MetricObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);

static SHMLOG_NOINLINE PyObject *record_slow(MetricObject *self, PyObject *const *args, Py_ssize_t count,
                                             PyObject *keywords)
{
    PyObject *given[ARGUMENTS] = {NULL};
    shmlog_place place;
    if (self->run->disabled) {
        Py_RETURN_NONE;
    }
    if (!take_arguments(argument_names, args, count, keywords, given)) {
        return NULL;
    }
    if (!shmlog_take_place(self->run, given[STEP], given[TIME], &place)) {
        return NULL;
    }
    shmlog_outcome outcome = record_any(self, given[VALUE], &place);
    if (outcome == SHMLOG_MOVED) {
        return record_after_end(self, args, count, keywords);
    }
    return outcome == SHMLOG_RAISED ? NULL : Py_NewRef(Py_None);
}

static inline PyObject *record(MetricObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    shmlog_outcome done = SHMLOG_DROPPED;
    if (SHMLOG_LIKELY(count == 2 && !keywords)) {
        ProducerObject *writer = shmlog_writer_of(self->run);
        Py_BEGIN_CRITICAL_SECTION(writer);
        done = shmlog_writer_put_float(writer, self->id, args[0], args[1]);
        Py_END_CRITICAL_SECTION();
    }
    if (SHMLOG_LIKELY(done == SHMLOG_WRITTEN)) {
        return Py_NewRef(Py_None);
    }
    return done == SHMLOG_RAISED ? NULL : record_slow(self, args, count, keywords);
}

static SHMLOG_COLD PyObject *record_after_end(MetricObject *self, PyObject *const *args, Py_ssize_t count,
                                              PyObject *keywords)
{
    PyObject *next = find_next(self);
    if (next) {
        PyObject *result = record((MetricObject *)next, args, count, keywords);
        Py_DECREF(next);
        return result;
    }
    return shmlog_run_drop_closed(self->run, 1) ? Py_NewRef(Py_None) : NULL;
}

static PyObject *metric_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *keywords)
{
    return record((MetricObject *)self, args, PyVectorcall_NARGS(nargsf), keywords);
}

PyDoc_STRVAR(log_doc, "log($self, /, value, step=None, *, timestamp=None)\n--\n\n"
                      "Log one value; the same as calling the handle.\n\n"
                      "Parameters\n----------\n"
                      "value : float, int, bool, str, or an array or tensor of one element\n"
                      "    NaN and infinities are kept, ints are exact. None is left out, with one warning for each name.\n"
                      "step : int, optional\n    Any int64. Default: counted, for each name and process, together with `Run.log`.\n"
                      "timestamp : datetime with a zone, datetime64, or seconds since 1970, optional\n"
                      "    Kept to the microsecond. Default: now.\n\n"
                      "Raises\n------\nTypeError, ValueError, OverflowError\n    If value, step or time is not usable. "
                      "Nothing was logged.");

static PyObject *metric_log(MetricObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    return record(self, args, count, keywords);
}

PyDoc_STRVAR(extend_doc, "extend($self, /, values, steps=None, *, ts=None)\n--\n\n"
                         "Log many values in one call, one record each.\n\n"
                         "Parameters\n----------\n"
                         "values : array or sequence of float, int or bool, shape (n,)\n"
                         "    Anything with the buffer protocol (numpy) is read without Python objects. Of another\n"
                         "    sequence each element is logged as by itself, so that ints and bools stay what they are.\n"
                         "steps : array, range or sequence of int, shape (n,), optional\n"
                         "    Default: counted on from the last step of the name that was counted.\n"
                         "ts : array or sequence of times, shape (n,), optional\n"
                         "    As `log` takes them. Default: now.\n\n"
                         "Raises\n------\nTypeError, ValueError, OverflowError\n    If values, steps or times are not "
                         "usable, or differ in length. Nothing was logged.");

static PyObject *extend(MetricObject *self, PyObject *const *given)
{
    uint64_t records = 0;
    shmlog_outcome outcome = shmlog_extend(self->run, self->id, (shmlog_arrays){given[VALUE], given[STEP], given[TIME]}, &records);
    PyObject *next = outcome == SHMLOG_MOVED ? find_next(self) : NULL;
    if (next) {
        PyObject *result = extend((MetricObject *)next, given);
        Py_DECREF(next);
        return result;
    }
    if (outcome == SHMLOG_RAISED) {
        shmlog_say_metric(self->name);
    }
    bool ok = outcome == SHMLOG_MOVED ? shmlog_run_drop_closed(self->run, records) : outcome != SHMLOG_RAISED;
    return ok ? Py_NewRef(Py_None) : NULL;
}

static const char *const extend_names[] = {"values", "steps", "ts", NULL};

static PyObject *metric_extend(MetricObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *given[ARGUMENTS] = {NULL};
    if (!take_arguments(extend_names, args, count, keywords, given)) {
        return NULL;
    }
    if (self->run->disabled) {
        Py_RETURN_NONE;
    }
    return extend(self, given);
}

/* ---- the type ---- */

static PyObject *metric_reduce(MetricObject *self, PyObject *Py_UNUSED(none))
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self->run, "metric");
    return method ? Py_BuildValue("N(O)", method, self->name) : NULL;
}

static PyObject *metric_repr(MetricObject *self) { return PyUnicode_FromFormat("Metric(%R)", self->name); }

PyObject *shmlog_metric_new(RunObject *run, PyObject *name, uint32_t id)
{
    PyTypeObject *type = shmlog_state_of(Py_TYPE(run))->metric_type;
    MetricObject *self = (MetricObject *)type->tp_alloc(type, 0);
    if (self) {
        self->vectorcall = metric_vectorcall;
        self->run = (RunObject *)Py_NewRef(run);
        self->name = Py_NewRef(name);
        self->id = id;
    }
    return (PyObject *)self;
}

static int metric_traverse(MetricObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->run);
    Py_VISIT(self->next);
    return 0;
}

static int metric_clear(MetricObject *self)
{
    Py_CLEAR(self->name);
    Py_CLEAR(self->next);
    return 0; /* the run stays: a handle without one could not be called */
}

static void metric_dealloc(MetricObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->name);
    Py_XDECREF(self->next);
    Py_XDECREF(self->run);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"log", (PyCFunction)(void (*)(void))metric_log, METH_FASTCALL | METH_KEYWORDS, log_doc},
    {"extend", (PyCFunction)(void (*)(void))metric_extend, METH_FASTCALL | METH_KEYWORDS, extend_doc},
    {"__reduce__", (PyCFunction)metric_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"name", T_OBJECT_EX, offsetof(MetricObject, name), READONLY, "Name of the metric."},
    {"run", T_OBJECT_EX, offsetof(MetricObject, run), READONLY, "The run that it logs to."},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(MetricObject, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"Handle of a metric, from Run.metric(name). Call it: loss(0.5, step)."},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, metric_repr},
    {Py_tp_traverse, metric_traverse},
    {Py_tp_clear, metric_clear},
    {Py_tp_dealloc, metric_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec shmlog_metric_spec = {
    .name = "shmlog._core.Metric",
    .basicsize = sizeof(MetricObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
