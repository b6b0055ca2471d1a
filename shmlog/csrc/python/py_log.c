/* Producer.log(): one metric, or a dict of them as one unit. */
#include "py_run.h"


enum { ITEMS_ON_STACK = 64 };

/* ---- one metric ---- */

static shmlog_outcome log_item(ProducerObject *writer, PyObject *name, shmlog_item *item, int64_t step)
{
    if (!shmlog_writer_name_id(writer, name, &item->value.name_id)) {
        return SHMLOG_RAISED;
    }
    return shmlog_writer_item(writer, item, step);
}

static shmlog_outcome log_one(ProducerObject *writer, PyObject *name, PyObject *value, int64_t step)
{
    shmlog_item item;
    if (!shmlog_item_convert_of(name, value, &item)) {
        return SHMLOG_RAISED;
    }
    shmlog_outcome outcome;
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = log_item(writer, name, &item, step);
    Py_END_CRITICAL_SECTION();
    shmlog_item_clear(&item);
    return outcome;
}

/* ---- several ---- */

typedef struct {
    shmlog_value *values;
    PyObject **owners; /* of the texts */
    Py_ssize_t room;   /* for so many */
    Py_ssize_t count;
    uint64_t nameless; /* dropped because the name table is full */
} batch;

static void clear_batch(batch *batch)
{
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        Py_XDECREF(batch->owners[i]);
    }
    batch->count = 0;
    batch->nameless = 0;
}

/* Takes the item over. */
static bool add_named(ProducerObject *writer, PyObject *name, shmlog_item *item, batch *batch)
{
    bool found;
    Py_BEGIN_CRITICAL_SECTION(writer);
    found = shmlog_writer_name_id(writer, name, &item->value.name_id);
    Py_END_CRITICAL_SECTION();
    if (!found) {
        shmlog_item_clear(item);
        return false;
    }
    if (item->value.name_id == SHMLOG_NO_NAME) {
        shmlog_item_clear(item);
        batch->nameless++;
        return true;
    }
    batch->values[batch->count] = item->value;
    batch->owners[batch->count] = item->owner;
    batch->count++;
    return true;
}

#ifndef Py_GIL_DISABLED
/* 1: all converted; 0: a value needs Python code, which might change the dict
 * under us; -1: exception. */
static int convert_exact(ProducerObject *writer, PyObject *metrics, batch *batch)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    shmlog_item item;
    while (PyDict_Next(metrics, &position, &name, &value)) {
        int done = shmlog_item_convert_exact(value, &item);
        if (done <= 0) {
            return done < 0 ? shmlog_say_metric(name) : 0;
        }
        if (!add_named(writer, name, &item, batch)) {
            return -1;
        }
    }
    return 1;
}
#endif

static bool convert_any(ProducerObject *writer, PyObject *pairs, batch *batch)
{
    shmlog_item item;
    if (PyList_GET_SIZE(pairs) > batch->room) { /* a finalizer has run while the list was made */
        PyErr_SetString(PyExc_RuntimeError, "the dict changed its size while it was logged");
        return false;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++) {
        PyObject *pair = PyList_GET_ITEM(pairs, i);
        if (!shmlog_item_convert_of(PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1), &item)) {
            return false;
        }
        if (!add_named(writer, PyTuple_GET_ITEM(pair, 0), &item, batch)) {
            return false;
        }
    }
    return true;
}

static bool convert_batch(ProducerObject *writer, PyObject *metrics, batch *batch)
{
#ifdef Py_GIL_DISABLED
    int done = 0; /* another thread may change the dict meanwhile */
#else
    int done = convert_exact(writer, metrics, batch);
#endif
    if (done == 0) {
        clear_batch(batch);
        PyObject *pairs = PyDict_Items(metrics);
        done = pairs && convert_any(writer, pairs, batch) ? 1 : -1;
        Py_XDECREF(pairs);
    }
    return done > 0;
}

/* Texts that would leave too little room in a unit go to files. */
static shmlog_outcome spill_large(ProducerObject *writer, batch *batch)
{
    uint32_t most = shmlog_producer_unit_max(writer->producer.segment) / 2;
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        shmlog_item item = {batch->values[i], batch->owners[i]};
        shmlog_outcome outcome = SHMLOG_WRITTEN;
        batch->owners[i] = NULL;
        if (shmlog_value_slots(&item.value) > most) {
            outcome = shmlog_writer_spill(writer, &item);
        }
        if (outcome != SHMLOG_WRITTEN) {
            shmlog_item_clear(&item);
            if (outcome != SHMLOG_DROPPED) {
                return outcome;
            }
            continue; /* the others go on */
        }
        batch->values[kept] = item.value;
        batch->owners[kept] = item.owner;
        kept++;
    }
    batch->count = kept;
    return SHMLOG_WRITTEN;
}

static shmlog_outcome write_unit(ProducerObject *writer, const shmlog_value *values, uint32_t count, uint32_t slots,
                                 int64_t step)
{
    shmlog_producer *producer = &writer->producer;
    bool wake = false;

    if (count == 1) {
        return shmlog_writer_record(writer, values, step);
    }
    if (!shmlog_producer_has_room(producer, slots)) {
        shmlog_outcome outcome = shmlog_writer_find_room(writer, slots, count, &wake);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    uint64_t ts = shmlog_ticks(producer->segment->tsc);
    shmlog_lane_write_row(&producer->lane, producer->lane.head, ts, step, values, count, slots);
    shmlog_lane_advance(&producer->lane, slots);
    producer->logged += count;
    if (shmlog_lane_was_cut(producer->lane.shared)) {
        return shmlog_writer_cut(writer, count);
    }
    return wake ? shmlog_writer_wake(writer) : SHMLOG_WRITTEN;
}

/* One unit, or a sequence of them when the dict is larger than a unit can be. */
static shmlog_outcome write_units(ProducerObject *writer, const batch *batch, int64_t step)
{
    uint32_t most = shmlog_producer_unit_max(writer->producer.segment);
    shmlog_outcome outcome = SHMLOG_WRITTEN;
    Py_ssize_t first = 0;

    while (first < batch->count && outcome != SHMLOG_RAISED) {
        uint32_t slots = 1;
        Py_ssize_t last = first;
        while (last < batch->count && slots + shmlog_value_slots(&batch->values[last]) <= most) {
            slots += shmlog_value_slots(&batch->values[last]);
            last++;
        }
        outcome = write_unit(writer, batch->values + first, (uint32_t)(last - first), slots, step);
        if (outcome == SHMLOG_MOVED) {
            /* A dict of which the run has a part has no place in another. */
            return first ? shmlog_writer_dropped(writer, SHMLOG_DROP_CLOSED, (uint64_t)(batch->count - first)) : outcome;
        }
        first = last;
    }
    return outcome;
}

static shmlog_outcome write_batch(ProducerObject *writer, batch *batch, int64_t step)
{
    if (shmlog_writer_is_closed(writer)) {
        return SHMLOG_MOVED;
    }
    if (batch->nameless &&
        shmlog_writer_dropped(writer, SHMLOG_DROP_NAMES, batch->nameless) == SHMLOG_RAISED) {
        return SHMLOG_RAISED;
    }
    shmlog_outcome outcome = spill_large(writer, batch);
    return outcome == SHMLOG_WRITTEN ? write_units(writer, batch, step) : outcome;
}

static shmlog_outcome log_batch(ProducerObject *writer, PyObject *metrics, int64_t step)
{
    shmlog_value values[ITEMS_ON_STACK];
    PyObject *owners[ITEMS_ON_STACK];
    Py_ssize_t size = PyDict_GET_SIZE(metrics);
    batch batch = {values, owners, size, 0, 0};
    shmlog_outcome outcome = SHMLOG_RAISED;

    if (size == 0) {
        return SHMLOG_WRITTEN;
    }
    if (size > ITEMS_ON_STACK) {
        batch.values = PyMem_New(shmlog_value, size);
        batch.owners = PyMem_New(PyObject *, size);
    }
    if (!batch.values || !batch.owners) {
        PyErr_NoMemory();
    } else {
        if (convert_batch(writer, metrics, &batch)) {
            Py_BEGIN_CRITICAL_SECTION(writer);
            outcome = write_batch(writer, &batch, step);
            Py_END_CRITICAL_SECTION();
        }
        clear_batch(&batch);
    }
    if (size > ITEMS_ON_STACK) {
        PyMem_Free(batch.values);
        PyMem_Free(batch.owners);
    }
    return outcome;
}

/* A float or a small int, as the fast path takes them. */
static bool number_bits(PyObject *value, uint64_t *bits, unsigned *kind)
{
    int64_t number;
    if (PyFloat_CheckExact(value)) {
        *bits = shmlog_float_bits(PyFloat_AS_DOUBLE(value));
        *kind = SHMLOG_FLOAT;
        return true;
    }
    if (!shmlog_small_int(value, &number)) {
        return false;
    }
    *bits = (uint64_t)number;
    *kind = SHMLOG_INT;
    return true;
}

/* The id of a name while slots are being filled: 1; 0: not to be had now; -1: exception. */
static inline int member_id(ProducerObject *writer, PyObject *name, uint32_t *id)
{
    const shmlog_cached_name *place = shmlog_writer_cached(writer, name);
    if (SHMLOG_LIKELY(place->name == name)) {
        *id = place->id;
        return 1;
    }
#ifdef Py_GIL_DISABLED
    return 0; /* a look into a dict may let go of the writer's lock, and another thread close it */
#else
    return shmlog_writer_find_name(writer, name, id) ? *id != SHMLOG_NO_NAME : -1;
#endif
}

/* The fast path of a dict: numbers under exact strs, put into their slots as they
 * are met, with room in the lane. No Python code runs in here, so that neither the
 * dict nor head can change meanwhile. 1: written; 0: not, and slots that were filled
 * don't exist, since no header was committed for them; -1: exception. */
static SHMLOG_NOINLINE int put_numbers(ProducerObject *writer, PyObject *metrics, int64_t step)
{
    shmlog_producer *producer = &writer->producer;
    Py_ssize_t size = PyDict_GET_SIZE(metrics);
    PyObject *name, *value;
    Py_ssize_t next = 0;
    uint64_t bits;
    uint32_t id;
    unsigned kind;

    if (size < 2 || size >= SHMLOG_NAMES_MAX || !shmlog_producer_has_room(producer, (uint32_t)size + 1) ||
        (uint32_t)size >= shmlog_producer_unit_max(producer->segment)) {
        return 0;
    }
    uint32_t slots = (uint32_t)size + 1;
    uint64_t ts = shmlog_ticks(producer->segment->tsc);
    uint64_t position = producer->lane.head;
    while (PyDict_Next(metrics, &next, &name, &value)) {
        if (!number_bits(value, &bits, &kind) || !PyUnicode_CheckExact(name)) {
            return 0;
        }
        int found = member_id(writer, name, &id);
        if (found <= 0) {
            return found;
        }
        shmlog_lane_commit(&producer->lane, ++position, ts, bits, step, id, kind, SHMLOG_MEMBER);
    }
    shmlog_lane_commit(&producer->lane, producer->lane.head, ts, shmlog_extent(slots, (uint32_t)size), step, 0,
                       SHMLOG_ROW, 0);
    shmlog_lane_advance(&producer->lane, slots);
    producer->logged += (uint64_t)size;
    return 1;
}

static shmlog_outcome log_many(ProducerObject *writer, PyObject *metrics, int64_t step)
{
    int done;
    Py_BEGIN_CRITICAL_SECTION2(writer, metrics);
    done = put_numbers(writer, metrics, step);
    if (done > 0 && shmlog_lane_was_cut(writer->producer.lane.shared)) {
        done = shmlog_writer_cut(writer, (uint64_t)PyDict_GET_SIZE(metrics)) == SHMLOG_RAISED ? -1 : 1;
    }
    Py_END_CRITICAL_SECTION2();
    return done == 0 ? log_batch(writer, metrics, step) : done > 0 ? SHMLOG_WRITTEN : SHMLOG_RAISED;
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

static int64_t count_step(RunObject *self)
{
    int64_t step;
    Py_BEGIN_CRITICAL_SECTION(self);
    uint32_t generation = self->writer->producer.fork_generation;
    if (self->step_generation != generation) {
        self->step_generation = generation;
        self->next_step = 0; /* a forked child counts from 0 */
    }
    step = self->next_step++;
    Py_END_CRITICAL_SECTION();
    return step;
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
    int64_t step;

    if (self->disabled) {
        Py_RETURN_NONE;
    }
    if (!take_arguments(self, args, count, keywords, &arguments)) {
        return NULL;
    }
    if (!arguments.step) {
        step = count_step(self);
    } else if (!shmlog_step_convert(arguments.step, &step)) {
        return NULL;
    }
    ProducerObject *writer = shmlog_writer_of(self);
    shmlog_outcome outcome = arguments.value ? log_one(writer, arguments.first, arguments.value, step)
                                             : log_many(writer, arguments.first, step);
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
