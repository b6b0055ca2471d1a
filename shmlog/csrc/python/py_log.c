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

static SHMLOG_NOINLINE shmlog_outcome log_one(RunObject *self, PyObject *name, PyObject *value,
                                               const shmlog_place *place, uint64_t *records)
{
    ProducerObject *writer = shmlog_writer_of(self);
    shmlog_outcome outcome = SHMLOG_RAISED;
    shmlog_item item;
    if (shmlog_is_nested(writer, value) && PyUnicode_Check(name)) {
        return shmlog_log_nested(self, name, value, place, records);
    }
    if (!shmlog_item_convert_of(name, value, &item)) {
        return SHMLOG_RAISED;
    }
    int64_t step = place->step;
    shmlog_value_set_time(&item.value, place);
    if (find_name(writer, name, &item) &&
        (place->has_step || shmlog_claim_steps(self, item.value.name_id, 1, &step))) {
        Py_BEGIN_CRITICAL_SECTION(writer);
        outcome = shmlog_writer_item(writer, &item, step);
        Py_END_CRITICAL_SECTION();
    }
    shmlog_item_clear(&item);
    return outcome;
}

/* ---- several ---- */

/* log(dict, step) or log(dict, step=step), as far as the fast path of a dict takes it. DROPPED: it does not. */
static inline shmlog_outcome log_numbers(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    bool is_named = keywords && count == 1 && PyTuple_GET_SIZE(keywords) == 1 &&
                    PyTuple_GET_ITEM(keywords, 0) == self->interned_step;
    int64_t step;
    if ((!is_named && (keywords || count != 2)) || !PyDict_Check(args[0]) || !shmlog_small_int(args[1], &step)) {
        return SHMLOG_DROPPED;
    }
    ProducerObject *writer = shmlog_writer_of(self);
    int done;
    Py_BEGIN_CRITICAL_SECTION2(writer, args[0]);
    done = shmlog_put_numbers(writer, args[0], step);
    if (done > 0 && shmlog_lane_was_cut(writer->producer.lane.shared)) {
        done = shmlog_writer_cut(writer, (uint64_t)PyDict_GET_SIZE(args[0])) == SHMLOG_RAISED ? -1 : 1;
    }
    Py_END_CRITICAL_SECTION2();
    return (shmlog_outcome)done;
}

/* ---- arguments ---- */

enum { NAME, VALUE, STEP, TIME, METRICS, ARGUMENTS };
static const char *const argument_names[] = {"name", "value", "step", "timestamp", "metrics", NULL};

bool shmlog_take_keyword(const char *const *names, PyObject **given, PyObject *keyword, PyObject *value)
{
    for (; *names; names++, given++) {
        if (PyUnicode_CompareWithASCIIString(keyword, *names) == 0) {
            if (*given) {
                PyErr_Format(PyExc_TypeError, "the argument '%U' was given twice", keyword);
                return false;
            }
            *given = value;
            return true;
        }
    }
    PyErr_Format(PyExc_TypeError, "there is no argument '%U'", keyword);
    return false;
}

bool shmlog_take_place(RunObject *run, PyObject *step, PyObject *time, shmlog_place *place)
{
    *place = (shmlog_place){.has_step = step && step != Py_None, .has_time = time && time != Py_None};
    if (place->has_step && !shmlog_step_convert(step, &place->step)) {
        return false;
    }
    if (place->has_time) {
        PyObject *us = PyObject_CallMethod((PyObject *)run, "_time_us", "(O)", time);
        place->time_us = us ? PyLong_AsLongLong(us) : 0;
        Py_XDECREF(us);
    }
    return !PyErr_Occurred();
}

static bool take_keywords(RunObject *self, PyObject *const *values, PyObject *keywords, PyObject **given)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keywords); i++) {
        PyObject *keyword = PyTuple_GET_ITEM(keywords, i);
        if (SHMLOG_LIKELY(keyword == self->interned_step && !given[STEP])) {
            given[STEP] = values[i];
        } else if (!shmlog_take_keyword(argument_names, given, keyword, values[i])) {
            return false;
        }
    }
    return true;
}

/* Fills in what was given; what was not stays NULL. A dict stands under METRICS, and then there is no NAME. */
static bool take_arguments(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords,
                           PyObject **given)
{
    Py_ssize_t at = count && PyDict_Check(args[0]) ? METRICS : NAME;
    Py_ssize_t before_step = at == METRICS ? 1 : 2;
    if (count) {
        given[at] = args[0];
        given[VALUE] = before_step == 2 && count > 1 ? args[1] : NULL;
        given[STEP] = count > before_step ? args[before_step] : NULL;
    }
    if (keywords && !take_keywords(self, args + count, keywords, given)) {
        return false;
    }
    bool is_one = given[NAME] && given[VALUE] && !given[METRICS];
    bool is_dict = given[METRICS] && PyDict_Check(given[METRICS]) && !given[NAME] && !given[VALUE];
    if (count > before_step + 1 || (!is_one && !is_dict)) {
        PyErr_SetString(PyExc_TypeError, "log() takes (name, value, step=None, *, timestamp=None) or "
                                         "(dict of metrics, step=None, *, timestamp=None)");
        return false;
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
                                           PyObject *keywords, uint64_t records)
{
    RunObject *next = shmlog_run_next(self);
    if (next) {
        PyObject *result = shmlog_log(next, args, count, keywords);
        Py_DECREF(next);
        return result;
    }
    return shmlog_run_drop_closed(self, records) ? Py_NewRef(Py_None) : NULL;
}

static SHMLOG_NOINLINE PyObject *log_any(RunObject *self, PyObject *const *args, Py_ssize_t count,
                                          PyObject *keywords)
{
    PyObject *given[ARGUMENTS] = {NULL};
    shmlog_place place;
    uint64_t records = 1;

    if (!take_arguments(self, args, count, keywords, given)) {
        return NULL;
    }
    if (!shmlog_take_place(self, given[STEP], given[TIME], &place)) {
        return NULL;
    }
    shmlog_outcome outcome = given[METRICS] ? shmlog_log_batch(self, given[METRICS], &place, &records)
                                            : log_one(self, given[NAME], given[VALUE], &place, &records);
    if (outcome == SHMLOG_MOVED) {
        return log_after_end(self, args, count, keywords, records);
    }
    return outcome == SHMLOG_RAISED ? NULL : Py_NewRef(Py_None);
}

static SHMLOG_NOINLINE PyObject *log_slow(RunObject *self, PyObject *const *args, Py_ssize_t count,
                                          PyObject *keywords)
{
    if (self->disabled) {
        Py_RETURN_NONE;
    }
    shmlog_outcome done = log_numbers(self, args, count, keywords);
    if (done == SHMLOG_DROPPED) {
        return log_any(self, args, count, keywords);
    }
    return done == SHMLOG_RAISED ? NULL : Py_NewRef(Py_None);
}

PyObject *shmlog_log(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    shmlog_outcome done = log_fast(self, args, count, keywords);
    if (SHMLOG_LIKELY(done == SHMLOG_WRITTEN)) {
        Py_RETURN_NONE;
    }
    return done == SHMLOG_RAISED ? NULL : log_slow(self, args, count, keywords);
}
