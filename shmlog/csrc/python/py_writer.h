/* Producer: what writes to one lane. py_run.h says whose it is. */
#ifndef SHMLOG_PY_WRITER_H
#define SHMLOG_PY_WRITER_H

#include "py_value.h"
#include "../core/clock.h"
#include "../core/names.h"
#include "../core/producer.h"

enum { SHMLOG_NAME_CACHE = 256 };

typedef struct {
    PyObject *name; /* an interned str that the run's `cached_names` owns; NULL: free */
    uint32_t id;
} shmlog_cached_name;

struct RunObject;

/* What writes to one lane. With the GIL a process has one, and its threads take turns. Without it each
 * thread has one of its own, and the process's is for those that can have none. Whoever uses a writer
 * holds its lock (a critical section); a hook lets others in, as it does with the GIL. */
typedef struct {
    PyObject_HEAD
    shmlog_producer producer;
    struct RunObject *run; /* borrowed: whoever calls holds it */
    int64_t lane_retry_ns;
    bool is_over; /* its thread has ended */
    shmlog_cached_name cache[SHMLOG_NAME_CACHE];
} ProducerObject;

ProducerObject *shmlog_writer_new(struct RunObject *run);

/* Whether it may log no more, or never could. */
static inline bool shmlog_writer_is_closed(const ProducerObject *writer)
{
    return !writer->producer.segment || writer->producer.has_left;
}

typedef enum {
    SHMLOG_RAISED = -1,
    SHMLOG_DROPPED = 0,
    SHMLOG_WRITTEN = 1,
    SHMLOG_MOVED = 2 /* nothing was written: the run has ended for this process, another may be its next */
} shmlog_outcome;

/* ---- py_room.c ---- */

/* The lane was cut while it wrote the unit of so many records that it has just committed: if the run has ended
 * for this process, leave, and count them as dropped if they are not in it. Returns WRITTEN, or RAISED. */
SHMLOG_COLD shmlog_outcome shmlog_writer_cut(ProducerObject *writer, uint64_t records);

/* The fast path of a record: a float and a small step with room in the lane. No
 * system call, no allocation, no Python code. DROPPED: nothing was written. */
static inline shmlog_outcome shmlog_writer_put_float(ProducerObject *writer, uint32_t name_id, PyObject *value,
                                                     PyObject *step_object)
{
    shmlog_producer *producer = &writer->producer;
    /* Read once: the compiler would read them anew behind each store to shared memory. */
    shmlog_lane_header *shared = producer->lane.shared;
    uint64_t head = producer->lane.head;
    int64_t step;
    if (!PyFloat_CheckExact(value) || !shmlog_small_int(step_object, &step) || head + 1 > shmlog_lane_limit(shared)) {
        return SHMLOG_DROPPED;
    }
    shmlog_lane_commit(&producer->lane, head, shmlog_ticks(producer->segment->tsc),
                       shmlog_float_bits(PyFloat_AS_DOUBLE(value)), step, name_id, SHMLOG_FLOAT, 0);
    shmlog_lane_advance_to(&producer->lane, shared, head + 1);
    producer->logged++;
    return SHMLOG_LIKELY(!shmlog_lane_was_cut(shared)) ? SHMLOG_WRITTEN : shmlog_writer_cut(writer, 1);
}

/* Where the name's id is kept if it was met before and is an interned string:
 * literal names are the same object at each call, so that the address is enough. */
static inline shmlog_cached_name *shmlog_writer_cached(ProducerObject *writer, PyObject *name)
{
    return &writer->cache[((uintptr_t)name >> 4) % SHMLOG_NAME_CACHE];
}

/* ---- py_names.c ---- */

/* The id of a name that was not met, or not at that address. */
bool shmlog_writer_find_name(ProducerObject *writer, PyObject *name, uint32_t *id);

/* The id of a name; SHMLOG_NO_NAME when the table is full. False: exception set. */
static inline bool shmlog_writer_name_id(ProducerObject *writer, PyObject *name, uint32_t *id)
{
    const shmlog_cached_name *place = shmlog_writer_cached(writer, name);
    if (SHMLOG_LIKELY(place->name == name)) {
        *id = place->id;
        return true;
    }
    return shmlog_writer_find_name(writer, name, id);
}

/* ---- py_room.c ---- */

/* Append one record: an item as converted, its name set. A text that is too large for a unit goes to a file. */
shmlog_outcome shmlog_writer_item(ProducerObject *writer, shmlog_item *item, int64_t step);

/* The same of a value that is known to fit. */
shmlog_outcome shmlog_writer_record(ProducerObject *writer, const shmlog_value *value, int64_t step);

/* Have room for `slots`, waiting for it and allotting a lane if need be. When it
 * returns WRITTEN there is room and no Python code may run before the write.
 * `wake` says that the flusher is to be woken after it. */
shmlog_outcome shmlog_writer_find_room(ProducerObject *writer, uint32_t slots, uint64_t records, bool *wake);

/* Count drops; raises if the run is strict. */
shmlog_outcome shmlog_writer_dropped(ProducerObject *writer, enum shmlog_reason reason, uint64_t records);

/* Have a text that is too large for a unit kept in a file; the item then names it. */
shmlog_outcome shmlog_writer_spill(ProducerObject *writer, shmlog_item *item);

/* Ring the doorbell if the flusher sleeps. RAISED: an interrupt came meanwhile. */
shmlog_outcome shmlog_writer_wake(ProducerObject *writer);

#endif
