/* Writer: what writes to one lane. See py_core.h for whose it is. */
#include "py_core.h"

WriterObject *shmlog_writer_new(ProducerObject *run)
{
    PyTypeObject *type = shmlog_state_of(Py_TYPE(run))->writer_type;
    WriterObject *writer = (WriterObject *)type->tp_alloc(type, 0);
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

static void writer_dealloc(WriterObject *writer)
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

PyType_Spec shmlog_writer_spec = {
    .name = "shmlog._core.Producer",
    .basicsize = sizeof(WriterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

#ifndef Py_GIL_DISABLED

/* ---- one for all threads ---- */

bool shmlog_writers_begin(ProducerObject *run)
{
    run->writer = shmlog_writer_new(run);
    return run->writer != NULL;
}

void shmlog_writers_end(ProducerObject *run) { Py_CLEAR(run->writer); }

bool shmlog_each_writer(ProducerObject *run, bool (*use)(WriterObject *writer, void *context), void *context)
{
    return use(run->writer, context);
}

bool shmlog_each_departed(ProducerObject *run, bool (*use)(uint32_t lane, uint64_t head, void *context), void *context)
{
    (void)run, (void)use, (void)context;
    return true; /* the process's writer lives as long as it */
}

#endif
