/* The Python side of the core: one type per file, over C that knows no Python. */
#ifndef SHMLOG_PY_CORE_H
#define SHMLOG_PY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "../core/clock.h"
#include "../core/drain.h"
#include "../core/lane.h"
#include "../core/names.h"
#include "../core/producer.h"
#include "../core/segment.h"

#if defined(__GNUC__)
#define SHMLOG_LIKELY(condition) __builtin_expect(!!(condition), 1)
/* Slow halves: inlined, they would have the fast ones save and restore registers for them. */
#define SHMLOG_NOINLINE __attribute__((noinline))
#define SHMLOG_COLD __attribute__((cold, noinline))
#else
#define SHMLOG_LIKELY(condition) (condition)
#define SHMLOG_NOINLINE
#define SHMLOG_COLD
#endif

#if PY_VERSION_HEX < 0x030D0000
#define PyLong_AsInt _PyLong_AsInt
/* The lock of an object where threads run at once; nothing where the GIL is their lock. */
#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#define Py_BEGIN_CRITICAL_SECTION2(a, b) {
#define Py_END_CRITICAL_SECTION2() }
#endif

/* ---- module ---- */

typedef struct {
    PyTypeObject *segment_type;
    PyTypeObject *producer_type;
    PyTypeObject *run_type;
    PyTypeObject *metric_type;
    PyTypeObject *drain_type;
    PyObject *segment_error; /* shmlog.errors */
    PyObject *dropped_error;
    PyObject *run_state_error;
    PyObject *interned_step; /* "step" */
} shmlog_state;

extern struct PyModuleDef shmlog_module;
shmlog_state *shmlog_state_of(PyTypeObject *type);

extern PyType_Spec shmlog_segment_spec;
extern PyType_Spec shmlog_producer_spec;
extern PyType_Spec shmlog_run_spec;
extern PyType_Spec shmlog_metric_spec;
extern PyType_Spec shmlog_drain_spec;

extern const char *const shmlog_reason_names[SHMLOG_REASONS];

/* {reason: count} of SHMLOG_REASONS counts. */
PyObject *shmlog_counts_dict(const uint64_t *counts);

/* ---- py_segment.c ---- */

typedef struct {
    PyObject_HEAD
    shmlog_segment segment;
    shmlog_description lock; /* for the flusher's locks and for probes; none: not open */
    bool is_watched;         /* signals leave their number in it */
    PyObject *path;
} SegmentObject;

/* A new reference to what is under a key: 1; 0: nothing is; -1: exception set. */
static inline int shmlog_dict_get(PyObject *dict, PyObject *key, PyObject **value)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyDict_GetItemRef(dict, key, value);
#else
    *value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *value ? 1 : PyErr_Occurred() ? -1 : 0;
#endif
}

/* ---- py_segment_read.c ---- */

extern PyGetSetDef shmlog_segment_getters[];
/* Have its own description for locks. Raises OSError. */
bool shmlog_segment_open_locks(SegmentObject *self);
PyObject *shmlog_segment_py_lane(SegmentObject *self, PyObject *number);

/* ---- py_value.c ---- */

/* A value under conversion; owns what `value.bytes` points into. */
typedef struct {
    shmlog_value value;
    PyObject *owner;
} shmlog_item;

/* Convert a value. Returns false with an exception set; may run Python code. */
bool shmlog_item_convert(PyObject *object, shmlog_item *item);
/* The same for exact float, int, bool and str, which run no Python code: 1 when
 * done, 0 when the object is none of these, -1 with an exception set. */
int shmlog_item_convert_exact(PyObject *object, shmlog_item *item);
void shmlog_item_clear(shmlog_item *item);

/* Whether an array of numpy.ma, whatever its size, has masked elements; -1: exception set. */
int shmlog_is_masked(PyObject *object);

/* Have the exception that is set begin with a place, such as "metric 'loss'", or bear it as a note. Arguments as for
 * PyUnicode_FromFormat(). */
SHMLOG_COLD void shmlog_say_where(const char *format, ...);
/* The same with the name of a metric. Returns -1. */
SHMLOG_COLD int shmlog_say_metric(PyObject *name);
/* Convert the value of a metric, which the exception names. */
bool shmlog_item_convert_of(PyObject *name, PyObject *value, shmlog_item *item);

/* Convert a step; may run Python code. */
bool shmlog_step_convert(PyObject *object, int64_t *step);

/* An exact int that fits the machine word the cheap way. */
static inline bool shmlog_small_int(PyObject *object, int64_t *value)
{
    if (!PyLong_CheckExact(object)) {
        return false;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)object)) {
        *value = (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
        return true;
    }
#else
    Py_ssize_t size = Py_SIZE(object);
    if (size >= -1 && size <= 1) {
        *value = size * (int64_t)((PyLongObject *)object)->ob_digit[0];
        return true;
    }
#endif
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(object, &overflow);
    return overflow == 0;
}

static inline uint64_t shmlog_float_bits(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- py_writer.c ---- */

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

/* Make the process's writer, and end all that there are. */
bool shmlog_writers_begin(struct RunObject *run);
void shmlog_writers_end(struct RunObject *run);

/* Whether it may log no more, or never could. */
static inline bool shmlog_writer_is_closed(const ProducerObject *writer)
{
    return !writer->producer.segment || writer->producer.has_left;
}

/* Call `use` with each writer of the run, its lock held, until one returns false: exception set. */
bool shmlog_each_writer(struct RunObject *run, bool (*use)(ProducerObject *writer, void *context), void *context);

/* The same with each lane that a thread had until it ended, and up to where it wrote. */
bool shmlog_each_departed(struct RunObject *run, bool (*use)(uint32_t lane, uint64_t head, void *context),
                          void *context);

/* ---- py_run.c ---- */

typedef struct RunObject {
    PyObject_HEAD
    ProducerObject *writer;    /* the process's */
    SegmentObject *segment;  /* NULL: closed, or disabled */
    PyObject *name_ids;      /* dict: str -> id, of this process */
    PyObject *cached_names;  /* dict, as a set: the names in the caches of the writers */
    PyObject *metrics;       /* dict: str -> Metric */
    PyObject *interned_step; /* "step", as compiled code has it */
    int64_t next_step;       /* of log() without a step */
    uint32_t step_generation;
    bool disabled;
    _Atomic bool told_drop;
#ifdef Py_GIL_DISABLED
    uint64_t serial;    /* of this object, in this process */
    PyObject *writers;  /* list: the threads' */
    PyMutex writers_lock;
    uint64_t *departed; /* by lane: up to where threads that have ended wrote; NULL: none has */
#endif
    uint64_t beacon_state; /* in which the owner's beacon tells children that the run is open; 0: unknown */
    char beacon[128];      /* its path */
} RunObject;

#ifdef Py_GIL_DISABLED
enum { SHMLOG_RUNS_AT_HAND = 4 };

/* A writer that this thread used, and of which producer. */
typedef struct {
    uint64_t serial;
    ProducerObject *writer;
} shmlog_last_writer;

extern _Thread_local shmlog_last_writer shmlog_here[SHMLOG_RUNS_AT_HAND] __attribute__((tls_model("initial-exec")));

/* The writer of this thread if it is not at hand; never NULL. */
ProducerObject *shmlog_writer_find(RunObject *run);

void shmlog_writer_after_fork(shmlog_producer *producer);
#endif

/* The writer of this thread if it is at hand, else the process's: for a thread that does not log. */
static inline ProducerObject *shmlog_writer_at_hand(const RunObject *run)
{
#ifdef Py_GIL_DISABLED
    const shmlog_last_writer *here = &shmlog_here[run->serial % SHMLOG_RUNS_AT_HAND];
    return SHMLOG_LIKELY(here->serial == run->serial) ? here->writer : run->writer;
#else
    return run->writer;
#endif
}

/* The writer for this thread to log with. */
static inline ProducerObject *shmlog_writer_of(RunObject *run)
{
    ProducerObject *writer = shmlog_writer_at_hand(run);
#ifdef Py_GIL_DISABLED
    return SHMLOG_LIKELY(writer != run->writer) ? writer : shmlog_writer_find(run);
#else
    return writer;
#endif
}

typedef enum {
    SHMLOG_RAISED = -1,
    SHMLOG_DROPPED = 0,
    SHMLOG_WRITTEN = 1,
    SHMLOG_MOVED = 2 /* nothing was written: the run has ended for this process, another may be its next */
} shmlog_outcome;

/* Whether the run has ended for this process. False of one that it has not logged to yet, and may turn out to. */
static inline bool shmlog_run_is_over(const RunObject *run)
{
    const shmlog_producer *producer = &run->writer->producer;
    return shmlog_writer_is_closed(run->writer) ||
           (shmlog_producer_is_cut(producer) && (!producer->is_owner || shmlog_producer_run_is_closed(producer)));
}

/* The run that calls on this one go to, which is over: a new reference. NULL: there is none, or an exception is set. */
RunObject *shmlog_run_next(RunObject *run);

/* Count drops of a run that is over, and has no next. False: exception set. */
bool shmlog_run_drop_closed(RunObject *run, uint64_t records);

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

/* ---- py_metric.c ---- */

PyObject *shmlog_metric_new(RunObject *run, PyObject *name, uint32_t id);

/* The id of its name in its run. */
uint32_t shmlog_metric_id(PyObject *metric);

/* Count `count` steps for calls of a metric that give none; returns the first. */
int64_t shmlog_metric_claim_steps(PyObject *metric, int64_t count);

/* ---- py_beacon.c ---- */

PyObject *shmlog_py_state_of(PyObject *module, PyObject *paths);
extern const char shmlog_announced_doc[];
PyObject *shmlog_run_announced(RunObject *run, PyObject *args);
PyObject *shmlog_run_get_is_announced(RunObject *run, void *closure);

/* Whether the owner's beacon is as it was when it told that the run is open. Else it is to be read. */
bool shmlog_run_is_announced(const RunObject *run);

/* ---- py_owner.c ---- */

PyObject *shmlog_py_owner_record(PyObject *module, PyObject *args);
PyObject *shmlog_py_variable(PyObject *module, PyObject *name);

/* ---- py_event.c ---- */

PyObject *shmlog_put_event(RunObject *self, PyObject *args);

/* ---- py_standing.c ---- */

extern PyGetSetDef shmlog_run_getters[];
PyObject *shmlog_run_request_sync(RunObject *self, PyObject *none);
PyObject *shmlog_run_positions(RunObject *self, PyObject *none);
PyObject *shmlog_run_counts(RunObject *self, PyObject *none);
/* ---- py_exits.c: methods of Segment ---- */

extern const char shmlog_request_finish_doc[], shmlog_await_exit_doc[], shmlog_watch_signals_doc[];
PyObject *shmlog_py_request_finish(SegmentObject *self, PyObject *args);
PyObject *shmlog_py_await_exit(SegmentObject *self, PyObject *args);
PyObject *shmlog_py_watch_signals(SegmentObject *self, PyObject *none);

/* ---- py_log.c ---- */

PyObject *shmlog_log(RunObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);

/* ---- py_extend.c ---- */

/* Append many values under the metric's name, which counts the steps on if `steps` is NULL. MOVED: the run has
 * taken none of the `records`. */
shmlog_outcome shmlog_extend(RunObject *run, PyObject *metric, PyObject *values, PyObject *steps,
                             uint64_t *records);

#endif
