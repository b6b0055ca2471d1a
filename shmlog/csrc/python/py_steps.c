/* Steps of calls that give none: each process counts them by name, for log() and for the handles alike. */
#include "py_log.h"

enum { COUNTS_MIN = 64 };

/* Have a count for each id below `ids`. A forked child counts from 0. */
static bool have_counts(RunObject *run, uint32_t ids)
{
    uint32_t generation = run->writer->producer.fork_generation;
    if (run->step_generation != generation) {
        run->step_generation = generation;
        run->step_counts = 0;
    }
    if (ids <= run->step_counts) {
        return true;
    }
    uint32_t room = COUNTS_MIN;
    while (room < ids) {
        room *= 2;
    }
    int64_t *counts = PyMem_Realloc(run->next_steps, room * sizeof *counts);
    if (!counts) {
        PyErr_NoMemory();
        return false;
    }
    memset(counts + run->step_counts, 0, (room - run->step_counts) * sizeof *counts);
    run->next_steps = counts;
    run->step_counts = room;
    return true;
}

bool shmlog_claim_steps(RunObject *run, uint32_t name_id, int64_t count, int64_t *first)
{
    bool ok;
    *first = 0;
    if (name_id == SHMLOG_NO_NAME) {
        return true;
    }
    Py_BEGIN_CRITICAL_SECTION(run);
    ok = have_counts(run, name_id + 1);
    if (ok) {
        *first = run->next_steps[name_id];
        run->next_steps[name_id] += count;
    }
    Py_END_CRITICAL_SECTION();
    return ok;
}

bool shmlog_claim_shared_step(RunObject *run, const shmlog_value *values, Py_ssize_t count, int64_t *step)
{
    uint32_t ids = 0;
    bool ok;
    *step = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        ids = values[i].name_id < ids ? ids : values[i].name_id + 1;
    }
    Py_BEGIN_CRITICAL_SECTION(run);
    ok = have_counts(run, ids);
    for (Py_ssize_t i = 0; ok && i < count; i++) {
        int64_t next = run->next_steps[values[i].name_id];
        *step = next > *step ? next : *step;
    }
    for (Py_ssize_t i = 0; ok && i < count; i++) {
        run->next_steps[values[i].name_id] = *step + 1;
    }
    Py_END_CRITICAL_SECTION();
    return ok;
}
