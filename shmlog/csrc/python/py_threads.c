/* Free-threaded builds: each thread has a writer of its own, and so a lane. */
#include "py_run.h"

#ifdef Py_GIL_DISABLED

_Thread_local shmlog_last_writer shmlog_here[SHMLOG_RUNS_AT_HAND];

bool shmlog_writers_begin(RunObject *run)
{
    static _Atomic uint64_t serials;
    /* relaxed: it only has to be another one each time. */
    run->serial = 1 + atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed);
    run->writer = shmlog_writer_new(run);
    run->writers = PyList_New(0);
    return run->writer && run->writers;
}

static bool use_locked(ProducerObject *writer, bool (*use)(ProducerObject *writer, void *context), void *context)
{
    bool ok;
    Py_BEGIN_CRITICAL_SECTION(writer);
    ok = use(writer, context);
    Py_END_CRITICAL_SECTION();
    return ok;
}

bool shmlog_each_writer(RunObject *run, bool (*use)(ProducerObject *writer, void *context), void *context)
{
    PyMutex_Lock(&run->writers_lock);
    bool ok = use_locked(run->writer, use, context);
    for (Py_ssize_t i = 0; ok && i < PyList_GET_SIZE(run->writers); i++) {
        ok = use_locked((ProducerObject *)PyList_GET_ITEM(run->writers, i), use, context);
    }
    PyMutex_Unlock(&run->writers_lock);
    return ok;
}

static bool leave(ProducerObject *writer, void *Py_UNUSED(context))
{
    shmlog_producer_leave(&writer->producer);
    return true;
}

static bool let_go(ProducerObject *writer, void *context)
{
    writer->run = NULL;
    return leave(writer, context);
}

/* In a forked child: this lock may be held by a thread that is no more. Those of the writers are not: Python stops
 * all threads before it forks, and a thread that is stopped has let go of its critical sections. */
void shmlog_writer_after_fork(shmlog_producer *producer)
{
    ProducerObject *writer = (ProducerObject *)((char *)producer - offsetof(ProducerObject, producer));
    RunObject *run = writer->run;
    if (run && run->writer == writer) {
        run->writers_lock = (PyMutex){0};
        if (run->departed) {
            memset(run->departed, 0, producer->segment->lane_count * sizeof *run->departed);
        }
    }
}

/* ---- the end of a thread ---- */

/* Its lane is given back; what it counted stays until another thread comes. */
static void thread_ended(PyObject *capsule)
{
    ProducerObject *writer = PyCapsule_GetPointer(capsule, NULL);
    for (int i = 0; i < SHMLOG_RUNS_AT_HAND; i++) {
        if (shmlog_here[i].writer == writer) {
            shmlog_here[i] = (shmlog_last_writer){0};
        }
    }
    Py_BEGIN_CRITICAL_SECTION(writer);
    shmlog_producer_leave(&writer->producer);
    writer->is_over = true;
    Py_END_CRITICAL_SECTION();
    Py_DECREF(writer);
}

/* What a thread that has ended counted is the process's from now on. False: it has not ended. */
static bool take_over(ProducerObject *writer, void *context)
{
    RunObject *run = context;
    if (!writer->is_over) {
        return false;
    }
    const shmlog_lane *lane = &writer->producer.lane;
    if (writer->producer.had_lane && run->departed[writer->producer.lane_number] < lane->head) {
        run->departed[writer->producer.lane_number] = lane->head;
    }
    Py_BEGIN_CRITICAL_SECTION(run->writer);
    shmlog_producer_add_counts(&run->writer->producer, &writer->producer);
    Py_END_CRITICAL_SECTION();
    return true;
}

static bool enlist(RunObject *run, ProducerObject *writer)
{
    PyMutex_Lock(&run->writers_lock);
    for (Py_ssize_t i = PyList_GET_SIZE(run->writers) - 1; i >= 0; i--) {
        if (use_locked((ProducerObject *)PyList_GET_ITEM(run->writers, i), take_over, run)) {
            (void)PySequence_DelItem(run->writers, i);
        }
    }
    if (!run->departed) {
        run->departed = PyMem_Calloc(run->segment->segment.lane_count, sizeof *run->departed);
    }
    bool ok = run->departed && PyList_Append(run->writers, (PyObject *)writer) == 0;
    PyMutex_Unlock(&run->writers_lock);
    return ok;
}

/* ---- the writer of this thread ---- */

static int join_as_process(RunObject *run, ProducerObject *writer)
{
    const shmlog_producer *process = &run->writer->producer;
    return shmlog_producer_join(&writer->producer, &run->segment->segment, process->path,
                                (shmlog_membership){process->is_owner, process->token});
}

/* A member of the run by itself, so that what holds for processes holds for threads: the kernel's
 * locks tell whose lane is whose. Ends with what the thread state keeps. */
static ProducerObject *make_writer(RunObject *run, PyObject *thread, PyObject *key)
{
    ProducerObject *writer = shmlog_writer_new(run);
    if (!writer || join_as_process(run, writer)) {
        Py_XDECREF(writer);
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(writer, NULL, thread_ended); /* takes our reference */
    if (!capsule) {
        Py_DECREF(writer);
        return NULL;
    }
    bool ok = enlist(run, writer) && PyDict_SetItem(thread, key, capsule) == 0;
    Py_DECREF(capsule);
    if (ok && shmlog_writer_is_closed(run->writer)) {
        (void)use_locked(writer, leave, NULL); /* the process has left meanwhile */
    }
    return ok ? writer : NULL;
}

/* What a thread keeps its writer under. */
static PyObject *key_of(const RunObject *run)
{
    return PyUnicode_FromFormat("shmlog.%llu", (unsigned long long)run->serial);
}

static ProducerObject *this_threads_writer(RunObject *run, PyObject *thread, PyObject *key)
{
    PyObject *capsule;
    int found = PyDict_GetItemRef(thread, key, &capsule);
    if (found < 0) {
        return NULL;
    }
    if (!found) {
        return make_writer(run, thread, key);
    }
    ProducerObject *writer = PyCapsule_GetPointer(capsule, NULL);
    Py_DECREF(capsule); /* the dict, which is this thread's alone, has it */
    return writer;
}

ProducerObject *shmlog_writer_find(RunObject *run)
{
    PyObject *thread = PyThreadState_GetDict();
    ProducerObject *writer = NULL;
    if (thread && !shmlog_writer_is_closed(run->writer)) {
        PyObject *key = key_of(run);
        writer = key ? this_threads_writer(run, thread, key) : NULL;
        Py_XDECREF(key);
    }
    if (!writer) {
        PyErr_Clear(); /* no memory or no descriptor is left: the process's will do */
        return run->writer;
    }
    shmlog_here[run->serial % SHMLOG_RUNS_AT_HAND] = (shmlog_last_writer){run->serial, writer};
    return writer;
}

/* This thread, at least, need not keep its writer until it ends. */
static void forget_mine(const RunObject *run)
{
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *thread = PyThreadState_GetDict();
    PyObject *key = thread ? key_of(run) : NULL;
    if (!key || PyDict_Pop(thread, key, NULL) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(key);
    PyErr_SetRaisedException(raised);
}

/* ---- all of them ---- */

/* Threads that live on keep their writers, which are closed, until they end. */
void shmlog_writers_end(RunObject *run)
{
    for (Py_ssize_t i = 0; run->writers && i < PyList_GET_SIZE(run->writers); i++) {
        (void)use_locked((ProducerObject *)PyList_GET_ITEM(run->writers, i), let_go, NULL);
    }
    forget_mine(run);
    Py_CLEAR(run->writers);
    Py_CLEAR(run->writer);
    PyMem_Free(run->departed);
}

/* ---- lanes of threads that have ended ---- */

bool shmlog_each_departed(RunObject *run, bool (*use)(uint32_t lane, uint64_t head, void *context), void *context)
{
    bool ok = true;
    PyMutex_Lock(&run->writers_lock);
    for (uint32_t lane = 0; ok && run->departed && lane < run->segment->segment.lane_count; lane++) {
        ok = run->departed[lane] == 0 || use(lane, run->departed[lane], context);
    }
    PyMutex_Unlock(&run->writers_lock);
    return ok;
}

#endif
