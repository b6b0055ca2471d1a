/* Writer: what writes to one lane. See py_run.h for whose it is. */
#include "py_run.h"

ProducerObject *shmlog_writer_new(RunObject *run)
{
    PyTypeObject *type = shmlog_state_of(Py_TYPE(run))->producer_type;
    ProducerObject *writer = (ProducerObject *)type->tp_alloc(type, 0);
    if (writer) {
        writer->run = run;
        writer->producer.lock.fd = -1;
        writer->producer.lane.shared = &shmlog_no_lane;
#ifdef Py_GIL_DISABLED
        writer->producer.after_fork = shmlog_writer_after_fork;
#endif
    }
    return writer;
}

static void writer_dealloc(ProducerObject *writer)
{
    PyTypeObject *type = Py_TYPE(writer);
    shmlog_producer_leave(&writer->producer);
    type->tp_free(writer);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)"What writes to one lane."},
    {Py_tp_dealloc, writer_dealloc},
    {0, NULL},
};

PyType_Spec shmlog_producer_spec = {
    .name = "shmlog._core.Producer",
    .basicsize = sizeof(ProducerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

#ifndef Py_GIL_DISABLED

/* ---- one for all threads ---- */

bool shmlog_writers_begin(RunObject *run)
{
    run->writer = shmlog_writer_new(run);
    return run->writer != NULL;
}

void shmlog_writers_end(RunObject *run) { Py_CLEAR(run->writer); }

bool shmlog_each_writer(RunObject *run, bool (*use)(ProducerObject *writer, void *context), void *context)
{
    return use(run->writer, context);
}

bool shmlog_each_departed(RunObject *run, bool (*use)(uint32_t lane, uint64_t head, void *context), void *context)
{
    (void)run, (void)use, (void)context;
    return true; /* the process's writer lives as long as it */
}

#endif
