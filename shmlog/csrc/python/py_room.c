/* Room for a record: a writer's lane, and what happens when that is full.
 *
 * Hooks, all methods of the Python class above Producer: _identity() -> bytes, the owner's
 * JSON; _is_open(if_unknown) -> bool, whether the run goes on for a follower; _ring() wakes the flusher; _flusher_lost() -> bool, whether another was
 * started; _spill(bytes) -> bytes, the name of a file that holds a large text;
 * _first_drop(reason) tells the user once; _count_late(records) books what the run has not taken
 * since it has ended; _next() -> Run or None, where calls on a run that is over go. */
#include "py_run.h"


#include <errno.h>

#define LANE_RETRY_NS INT64_C(1000000000)

/* ---- hooks ---- */

/* A hook that fails must not take the training down, but an interrupt or an
 * exit that arrives in it goes on to the caller. */
static bool hook_failed_hard(void)
{
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        return false;
    }
    return true;
}

shmlog_outcome shmlog_writer_wake(ProducerObject *writer)
{
    /* relaxed: a hint; a wake-up that is missed costs one poll interval. */
    if (!atomic_load_explicit(&writer->producer.segment->header->sleeping, memory_order_relaxed)) {
        return SHMLOG_WRITTEN;
    }
    PyObject *result = PyObject_CallMethod((PyObject *)writer->run, "_ring", NULL);
    Py_XDECREF(result);
    /* An error matters to nobody, the flusher polls as well; a Ctrl-C is the user's. */
    return !result && hook_failed_hard() ? SHMLOG_RAISED : SHMLOG_WRITTEN;
}

static bool tell_first_drop(ProducerObject *writer, enum shmlog_reason reason)
{
    /* relaxed: no other word goes with it. */
    if (atomic_exchange_explicit(&writer->run->told_drop, true, memory_order_relaxed)) {
        return true;
    }
    PyObject *result = PyObject_CallMethod((PyObject *)writer->run, "_first_drop", "s", shmlog_reason_names[reason]);
    Py_XDECREF(result);
    return result || !hook_failed_hard();
}

/* Have the books tell of records that the run was offered after its end. */
static bool count_late(ProducerObject *writer, uint64_t records)
{
    if (records == 0) {
        return true;
    }
    PyObject *result =
        PyObject_CallMethod((PyObject *)writer->run, "_count_late", "K", (unsigned long long)records);
    Py_XDECREF(result);
    return result || !hook_failed_hard();
}

static shmlog_outcome raise_dropped(ProducerObject *writer, enum shmlog_reason reason, uint64_t records)
{
    const shmlog_state *state = shmlog_state_of(Py_TYPE(writer));
    if (reason == SHMLOG_DROP_CLOSED) {
        PyErr_Format(state->run_state_error, "%llu record(s) dropped: the run has ended (strict=True)",
                     (unsigned long long)records);
    } else {
        PyErr_Format(state->dropped_error, "%llu record(s) dropped, reason: %s (strict=True)",
                     (unsigned long long)records, shmlog_reason_names[reason]);
    }
    return SHMLOG_RAISED;
}

shmlog_outcome shmlog_writer_dropped(ProducerObject *writer, enum shmlog_reason reason, uint64_t records)
{
    shmlog_producer *producer = &writer->producer;
    shmlog_producer_drop(producer, reason, records);
    if (reason == SHMLOG_DROP_CLOSED && !count_late(writer, records)) {
        return SHMLOG_RAISED;
    }
    if (shmlog_producer_is_cut(producer) && shmlog_writer_cut(writer, 0) == SHMLOG_RAISED) {
        return SHMLOG_RAISED;
    }
    if (producer->drop_policy.strict) {
        return raise_dropped(writer, reason, records);
    }
    return tell_first_drop(writer, reason) ? SHMLOG_DROPPED : SHMLOG_RAISED;
}

/* Whether the run of a follower goes on for it: 1; 0: its owner has finished; -1: exception. What it is if that
 * can't be told: before a lane is cut, nobody has said that the run has ended; then somebody has. */
static int is_open(ProducerObject *writer, bool if_unknown)
{
    if (writer->producer.is_owner || shmlog_run_is_announced(writer->run)) {
        return 1;
    }
    PyObject *result =
        PyObject_CallMethod((PyObject *)writer->run, "_is_open", "O", if_unknown ? Py_True : Py_False);
    if (!result) {
        return hook_failed_hard() ? -1 : if_unknown;
    }
    int open = PyObject_IsTrue(result);
    Py_DECREF(result);
    return open;
}

/* The lane was cut. Whether that was meant for this process: 1; 0: no, and it may go on; -1: exception. */
static int has_ended(ProducerObject *writer)
{
    shmlog_producer *producer = &writer->producer;
    for (int look = 0; look < 2; look++) {
        if (shmlog_producer_run_is_closed(producer)) {
            return 1;
        }
        int open = is_open(writer, false);
        if (open <= 0) {
            return open < 0 ? -1 : 1;
        }
        if (!producer->lane.slots) {
            return 1; /* another thread has left meanwhile */
        }
        if (look == 0) {
            shmlog_producer_uncut(producer);
        }
    }
    return 0;
}

/* Leave a run that has ended for this process, whose last unit was of so many records. */
static shmlog_outcome retire(ProducerObject *writer, uint64_t records)
{
    shmlog_producer *producer = &writer->producer;
    uint64_t untold;
    if (!producer->lane.slots) {
        return SHMLOG_WRITTEN;
    }
    uint64_t slots = shmlog_producer_retire(producer, &untold);
    uint64_t lost = slots < records ? slots : records;
    shmlog_producer_leave(producer);
    producer->logged -= lost;
    bool ok = count_late(writer, untold);
    if (lost && ok) {
        ok = shmlog_writer_dropped(writer, SHMLOG_DROP_CLOSED, lost) != SHMLOG_RAISED;
    }
    return ok ? SHMLOG_WRITTEN : SHMLOG_RAISED;
}

shmlog_outcome shmlog_writer_cut(ProducerObject *writer, uint64_t records)
{
    int ended = has_ended(writer);
    return ended > 0 ? retire(writer, records) : ended < 0 ? SHMLOG_RAISED : SHMLOG_WRITTEN;
}

/* The lane was cut before anything was written. WRITTEN: it was not meant for this process, look for room again. */
static shmlog_outcome move_on(ProducerObject *writer)
{
    int ended = has_ended(writer);
    if (ended <= 0) {
        return ended < 0 ? SHMLOG_RAISED : SHMLOG_WRITTEN;
    }
    return retire(writer, 0) == SHMLOG_RAISED ? SHMLOG_RAISED : SHMLOG_MOVED;
}

bool shmlog_run_drop_closed(RunObject *run, uint64_t records)
{
    ProducerObject *writer = shmlog_writer_of(run);
    shmlog_outcome outcome;
    if (PyErr_Occurred()) {
        return false;
    }
    Py_BEGIN_CRITICAL_SECTION(writer);
    outcome = shmlog_writer_dropped(writer, SHMLOG_DROP_CLOSED, records);
    Py_END_CRITICAL_SECTION();
    return outcome != SHMLOG_RAISED;
}

RunObject *shmlog_run_next(RunObject *run)
{
    PyObject *next = PyObject_CallMethod((PyObject *)run, "_next", NULL);
    if (!next) {
        /* A strict run says so, and a strict mode. */
        if (!PyErr_ExceptionMatches(shmlog_state_of(Py_TYPE(run))->run_state_error)) {
            (void)hook_failed_hard();
        }
        return NULL;
    }
    if (!PyObject_TypeCheck(next, shmlog_state_of(Py_TYPE(run))->run_type)) {
        Py_CLEAR(next);
    }
    return (RunObject *)next;
}

shmlog_outcome shmlog_writer_spill(ProducerObject *writer, shmlog_item *item)
{
    if (shmlog_writer_is_closed(writer)) {
        return SHMLOG_MOVED;
    }
    if (shmlog_producer_is_cut(&writer->producer)) {
        shmlog_outcome outcome = move_on(writer);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    PyObject *name =
        PyObject_CallMethod((PyObject *)writer->run, "_spill", "y#", item->value.bytes, (Py_ssize_t)item->value.count);
    if (!name) {
        return hook_failed_hard() ? SHMLOG_RAISED : shmlog_writer_dropped(writer, SHMLOG_DROP_LARGE, 1);
    }
    Py_SETREF(item->owner, name);
    item->value.flags |= SHMLOG_FILE;
    item->value.bytes = PyBytes_AsString(name);
    item->value.count = item->value.bytes ? (uint32_t)PyBytes_GET_SIZE(name) : 0;
    return item->value.bytes ? SHMLOG_WRITTEN : SHMLOG_RAISED;
}

/* ---- lane and room ---- */

static shmlog_outcome take_lane(ProducerObject *writer, PyObject *identity, uint64_t records)
{
    shmlog_producer *producer = &writer->producer;
    int error = 0;
    if (!producer->lane.slots) { /* no other thread has taken one meanwhile */
        error = shmlog_producer_allot(producer, PyBytes_AS_STRING(identity), (uint32_t)PyBytes_GET_SIZE(identity));
    }
    /* Asked behind the lane's begin: who ends our part from now on, cuts it. */
    int open = error == ESTALE ? 0 : is_open(writer, true);
    if (open <= 0) {
        shmlog_producer_leave(producer);
        return open < 0 ? SHMLOG_RAISED : SHMLOG_MOVED;
    }
    if (!producer->lane.slots) {
        writer->lane_retry_ns = shmlog_clock_ns(CLOCK_MONOTONIC) + LANE_RETRY_NS;
        return shmlog_writer_dropped(writer, SHMLOG_DROP_LANE, records);
    }
    return SHMLOG_WRITTEN;
}

static shmlog_outcome allot(ProducerObject *writer, uint64_t records)
{
    if (shmlog_writer_is_closed(writer)) {
        return SHMLOG_MOVED;
    }
    if (shmlog_segment_is_closed(writer->producer.segment)) {
        shmlog_producer_leave(&writer->producer); /* nobody reads what is counted there any more */
        return SHMLOG_MOVED;
    }
    if (shmlog_clock_ns(CLOCK_MONOTONIC) < writer->lane_retry_ns) {
        return shmlog_writer_dropped(writer, SHMLOG_DROP_LANE, records);
    }
    PyObject *identity = PyObject_CallMethod((PyObject *)writer->run, "_identity", NULL);
    if (!identity && hook_failed_hard()) {
        return SHMLOG_RAISED;
    }
    shmlog_outcome outcome;
    if (identity && PyBytes_Check(identity) && !shmlog_writer_is_closed(writer)) {
        outcome = take_lane(writer, identity, records);
    } else {
        outcome = shmlog_writer_dropped(writer, SHMLOG_DROP_LANE, records);
    }
    Py_XDECREF(identity);
    return outcome;
}

/* 1: another flusher was started, wait on; 0: none; -1: exception. */
static int replace_flusher(ProducerObject *writer)
{
    PyObject *result = PyObject_CallMethod((PyObject *)writer->run, "_flusher_lost", NULL);
    if (!result) {
        return hook_failed_hard() ? -1 : 0;
    }
    int started = PyObject_IsTrue(result);
    Py_DECREF(result);
    return started;
}

/* Wait with the GIL released. Another thread may log meanwhile, so everything
 * about the lane is read afresh by the caller. */
static shmlog_outcome nap(ProducerObject *writer, shmlog_wait *wait)
{
    shmlog_wait_state state;
    Py_BEGIN_ALLOW_THREADS
    state = shmlog_producer_wait_nap(&writer->producer, wait);
    Py_END_ALLOW_THREADS
    if (PyErr_CheckSignals() < 0) {
        return SHMLOG_RAISED;
    }
    if (state == SHMLOG_WAIT_DEAD && !wait->replaced) {
        int started = replace_flusher(writer);
        if (started < 0) {
            return SHMLOG_RAISED;
        }
        wait->replaced = true;
        state = started ? SHMLOG_WAIT_AGAIN : SHMLOG_WAIT_OVER;
    }
    return state == SHMLOG_WAIT_AGAIN ? SHMLOG_WRITTEN : SHMLOG_DROPPED;
}

/* Wait until `slots` fit. WRITTEN: they do. DROPPED: not counted yet. */
static shmlog_outcome wait_for_room(ProducerObject *writer, uint32_t slots)
{
    shmlog_producer *producer = &writer->producer;
    shmlog_outcome outcome = SHMLOG_WRITTEN;
    shmlog_wait wait;

    if (shmlog_writer_wake(writer) == SHMLOG_RAISED) {
        return SHMLOG_RAISED;
    }
    if (shmlog_producer_wait_begin(producer, &wait) != SHMLOG_WAIT_AGAIN) {
        return SHMLOG_DROPPED;
    }
    bool room = false;
    shmlog_room state;
    while (outcome == SHMLOG_WRITTEN && !room) {
        outcome = nap(writer, &wait);
        if (!producer->lane.slots) {
            return outcome == SHMLOG_RAISED ? outcome : SHMLOG_MOVED; /* closed by another thread */
        }
        state = shmlog_producer_make_room(producer, slots);
        room = state == SHMLOG_ROOM || state == SHMLOG_ROOM_WAKE;
        if (state == SHMLOG_CUT && outcome != SHMLOG_RAISED) {
            outcome = move_on(writer);
        }
    }
    shmlog_producer_wait_end(producer, &wait, room);
    return room && outcome != SHMLOG_RAISED ? SHMLOG_WRITTEN : outcome;
}

/* Count drops when an interrupt has ended the wait; it goes on to the caller. The run may have ended meanwhile, so
 * that nobody would tell of them. */
static void drop_interrupted(ProducerObject *writer, enum shmlog_reason reason, uint64_t records)
{
    shmlog_producer *producer = &writer->producer;
    PyObject *type, *interrupt, *trace;
    PyErr_Fetch(&type, &interrupt, &trace);
    bool has_left = !producer->lane.slots;
    shmlog_producer_drop(producer, has_left ? SHMLOG_DROP_CLOSED : reason, records);
    bool ok = !has_left || count_late(writer, records);
    if (shmlog_producer_is_cut(producer)) {
        ok = shmlog_writer_cut(writer, 0) != SHMLOG_RAISED && ok;
    }
    if (!ok) {
        PyErr_Clear(); /* a second interrupt: one is enough */
    }
    PyErr_Restore(type, interrupt, trace);
}

shmlog_outcome shmlog_writer_find_room(ProducerObject *writer, uint32_t slots, uint64_t records, bool *wake)
{
    shmlog_producer *producer = &writer->producer;
    *wake = false;
    if (!producer->lane.slots) {
        shmlog_outcome outcome = allot(writer, records);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    shmlog_room room;
    while ((room = shmlog_producer_make_room(producer, slots)) == SHMLOG_CUT) {
        shmlog_outcome outcome = move_on(writer);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    if (room != SHMLOG_FULL) {
        *wake = room == SHMLOG_ROOM_WAKE;
        return SHMLOG_WRITTEN;
    }
    shmlog_outcome outcome = wait_for_room(writer, slots);
    if (outcome == SHMLOG_WRITTEN || outcome == SHMLOG_MOVED) {
        return outcome;
    }
    enum shmlog_reason reason = shmlog_producer_why_full(producer);
    if (outcome == SHMLOG_RAISED) {
        drop_interrupted(writer, reason, records);
        return outcome;
    }
    return shmlog_writer_dropped(writer, reason, records);
}

shmlog_outcome shmlog_writer_record(ProducerObject *writer, const shmlog_value *value, int64_t step)
{
    shmlog_producer *producer = &writer->producer;
    uint32_t slots = shmlog_value_slots(value);
    bool wake = false;

    if (!shmlog_producer_has_room(producer, slots)) {
        shmlog_outcome outcome = shmlog_writer_find_room(writer, slots, 1, &wake);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    shmlog_lane_put_value(&producer->lane, shmlog_ticks(producer->segment->tsc), step, value);
    producer->logged++;
    if (shmlog_lane_was_cut(producer->lane.shared)) {
        return shmlog_writer_cut(writer, 1);
    }
    return wake ? shmlog_writer_wake(writer) : SHMLOG_WRITTEN;
}

shmlog_outcome shmlog_writer_item(ProducerObject *writer, shmlog_item *item, int64_t step)
{
    if (shmlog_writer_is_closed(writer)) {
        return SHMLOG_MOVED;
    }
    if (item->value.name_id == SHMLOG_NO_NAME) {
        return shmlog_writer_dropped(writer, SHMLOG_DROP_NAMES, 1);
    }
    if (item->value.kind == SHMLOG_LONGTEXT &&
        shmlog_value_slots(&item->value) > shmlog_producer_unit_max(writer->producer.segment)) {
        shmlog_outcome outcome = shmlog_writer_spill(writer, item);
        if (outcome != SHMLOG_WRITTEN) {
            return outcome;
        }
    }
    return shmlog_writer_record(writer, &item->value, step);
}
