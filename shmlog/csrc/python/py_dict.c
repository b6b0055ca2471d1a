/* RunBase.log() of a dict: several metrics as one unit. */
#include "py_log.h"

enum { ITEMS_ON_STACK = 64 };

typedef struct {
    shmlog_value *values;
    PyObject **owners; /* of the texts */
    Py_ssize_t room;   /* for so many */
    Py_ssize_t count;
    uint64_t nameless; /* dropped because the name table is full */
    bool is_nested;    /* it has a value that stands for others, or for nothing */
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
        if (shmlog_is_nested(writer, PyTuple_GET_ITEM(pair, 1))) {
            batch->is_nested = true;
            return false;
        }
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

static shmlog_outcome write_batch(ProducerObject *writer, batch *batch, const shmlog_place *place, int64_t step)
{
    for (Py_ssize_t i = 0; i < batch->count; i++) {
        shmlog_value_set_time(&batch->values[i], place);
    }
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

/* Append a dict whose dicts were joined to it. */
static SHMLOG_COLD shmlog_outcome log_flat(RunObject *run, ProducerObject *writer, PyObject *metrics,
                                           const shmlog_place *place, uint64_t *records)
{
    PyObject *flat = PyObject_CallMethod((PyObject *)run, "_flat", "OO", metrics,
                                         writer->producer.drop_policy.strict ? Py_True : Py_False);
    shmlog_outcome outcome = SHMLOG_RAISED;
    if (flat && !PyDict_Check(flat)) {
        PyErr_SetString(PyExc_TypeError, "_flat() must return a dict");
    } else if (flat) {
        outcome = shmlog_log_batch(run, flat, place, records);
    }
    Py_XDECREF(flat);
    return outcome;
}

shmlog_outcome shmlog_log_nested(RunObject *run, PyObject *name, PyObject *value, const shmlog_place *place,
                                 uint64_t *records)
{
    PyObject *metrics = Py_BuildValue("{OO}", name, value);
    shmlog_outcome outcome = metrics ? shmlog_log_batch(run, metrics, place, records) : SHMLOG_RAISED;
    Py_XDECREF(metrics);
    return outcome;
}

shmlog_outcome shmlog_log_batch(RunObject *run, PyObject *metrics, const shmlog_place *place, uint64_t *records)
{
    shmlog_value values[ITEMS_ON_STACK];
    PyObject *owners[ITEMS_ON_STACK];
    Py_ssize_t size = PyDict_GET_SIZE(metrics);
    batch batch = {.values = values, .owners = owners, .room = size};
    ProducerObject *writer = shmlog_writer_of(run);
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
        int64_t step = place->step;
        if (convert_batch(writer, metrics, &batch) &&
            (place->has_step || shmlog_claim_shared_step(run, batch.values, batch.count, &step))) {
            *records = (uint64_t)batch.count + batch.nameless;
            Py_BEGIN_CRITICAL_SECTION(writer);
            outcome = write_batch(writer, &batch, place, step);
            Py_END_CRITICAL_SECTION();
        }
        clear_batch(&batch);
    }
    if (size > ITEMS_ON_STACK) {
        PyMem_Free(batch.values);
        PyMem_Free(batch.owners);
    }
    return batch.is_nested ? log_flat(run, writer, metrics, place, records) : outcome;
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

int shmlog_put_numbers(ProducerObject *writer, PyObject *metrics, int64_t step)
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
