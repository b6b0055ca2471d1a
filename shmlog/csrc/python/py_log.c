/* RunBase.log(): its arguments, and one metric. */
#include "py_log.h"

/* ---- one metric ---- */

static bool find_name(ProducerObject *writer, PyObject *name, shmlog_item *item)
{
    bool found;
    Py_BEGIN_CRITICAL_SECTION(writer);
    found = shmlog_writer_name_id(writer, name, &item->value.name_id);
    Py_END_CRITICAL_SECTION();
    return found;
}

static SHMLOG_NOINLINE shmlog_outcome log_one(RunObject *self, PyObject *name, PyObject *value, shmlog_place place)
{
    ProducerObject *writer = shmlog_writer_of(self);
    shmlog_outcome outcome = SHMLOG_RAISED;
    shmlog_item item;
    if (!shmlog_item_convert_of(name, value, &item)) {
        return SHMLOG_RAISED;
    }
    if (find_name(writer, name, &item) &&
        (place.has_step || shmlog_claim_steps(self, item.value.name_id, 1, &place.step))) {
        Py_BEGIN_CRITICAL_SECTION(writer);
        outcome = shmlog_writer_item(writer, &item, place.step);
        Py_END_CRITICAL_SECTION();
    }
    shmlog_item_clear(&item);
    return outcome;
}

/* ---- several ---- */

static shmlog_outcome log_dict(RunObject *self, PyObject *metrics, shmlog_place place)
{
    ProducerObject *writer = shmlog_writer_of(self);
    int done = 0;
    if (place.has_step) {
        Py_BEGIN_CRITICAL_SECTION2(writer, metrics);
        done = shmlog_put_numbers(writer, metrics, place.step);
        if (done > 0 && shmlog_lane_was_cut(writer->producer.lane.shared)) {
            done = shmlog_writer_cut(writer, (uint64_t)PyDict_GET_SIZE(metrics)) == SHMLOG_RAISED ? -1 : 1;
        }
        Py_END_CRITICAL_SECTION2();
    }
    return done == 0 ? shmlog_log_batch(self, metrics, place) : done > 0 ? SHMLOG_WRITTEN : SHMLOG_RAISED;
}

/* ---- arguments ---- */

typedef struct {
    PyObject *first; /* name or dict */
    PyObject *value; /* NULL with a dict */
    PyObject *step;  /* NULL: omitted */
} arguments;

static bool take_keywords(RunObject *self, PyObject *const *args, PyObject *keywords, arguments *arguments)
{
    PyObject *step = self->interned_step;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keywords); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(keywords, i);
        if ((keyword != step && PyUnicode_Compare(keyword, step) != 0) || arguments->step) {
            PyErr_Format(PyExc_TypeError, "log() got an unexpected or repeated argument '%U'", keyword);
            return false;
        }
        arguments->step = args[i];
    }
    return true;
}

static bool take_arguments(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
                           arguments *arguments)
{
    bool many = count >= 1 && PyDict_Check(args[0]);
    Py_ssize_t required = many ? 1 : 2;
    if (count < required || count > required + 1) {
        PyErr_SetString(PyExc_TypeError, "log() takes (name, value, step=None) or (dict of metrics, step=None)");
        return false;
    }
    arguments->first = args[0];
    arguments->value = many ? NULL : args[1];
    arguments->step = count > required ? args[required] : NULL;
    if (keywords && !take_keywords(self, args + count, keywords, arguments)) {
        return false;
    }
    if (arguments->step == Py_None) {
        arguments->step = NULL;
    }
    return true;
}

/* log(name, value, step) or log(name, value, step=step) with a name met before. DROPPED: it is not for this path. */
static inline shmlog_outcome log_fast(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    bool is_named = keywords && count == 2 && PyTuple_GET_SIZE(keywords) == 1 &&
                    PyTuple_GET_ITEM(keywords, 0) == self->interned_step;
    if (!is_named && (keywords || count != 3)) {
        return SHMLOG_DROPPED;
    }
    ProducerObject *writer = shmlog_writer_of(self);
    shmlog_outcome done = SHMLOG_DROPPED;
    Py_BEGIN_CRITICAL_SECTION(writer);
    const shmlog_cached_name *place = shmlog_writer_cached(writer, args[0]);
    if (place->name == args[0]) {
        done = shmlog_writer_put_float(writer, place->id, args[1], args[2]);
    }
    Py_END_CRITICAL_SECTION();
    return done;
}

/* The run has ended for this process: what it was given goes to the next one, if there is one. */
static SHMLOG_COLD PyObject *log_after_end(RunObject *self, PyObject *const *args, Py_ssize_t count,
                                           PyObject *keywords)
{
    RunObject *next = shmlog_run_next(self);
    if (next) {
        PyObject *result = shmlog_log(next, args, count, keywords);
        Py_DECREF(next);
        return result;
    }
    uint64_t records = PyDict_Check(args[0]) ? (uint64_t)PyDict_GET_SIZE(args[0]) : 1;
    return shmlog_run_drop_closed(self, records) ? Py_NewRef(Py_None) : NULL;
}

static SHMLOG_NOINLINE PyObject *log_slow(RunObject *self, PyObject *const *args, Py_ssize_t count,
                                          PyObject *keywords)
{
    arguments arguments;
    shmlog_place place;

    if (self->disabled) {
        Py_RETURN_NONE;
    }
    if (!take_arguments(self, args, count, keywords, &arguments)) {
        return NULL;
    }
    place.has_step = arguments.step != NULL;
    if (place.has_step && !shmlog_step_convert(arguments.step, &place.step)) {
        return NULL;
    }
    shmlog_outcome outcome = arguments.value ? log_one(self, arguments.first, arguments.value, place)
                                             : log_dict(self, arguments.first, place);
    if (outcome == SHMLOG_MOVED) {
        return log_after_end(self, args, count, keywords);
    }
    return outcome == SHMLOG_RAISED ? NULL : Py_NewRef(Py_None);
}

PyObject *shmlog_log(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    shmlog_outcome done = log_fast(self, args, count, keywords);
    if (SHMLOG_LIKELY(done == SHMLOG_WRITTEN)) {
        Py_RETURN_NONE;
    }
    return done == SHMLOG_RAISED ? NULL : log_slow(self, args, count, keywords);
}
