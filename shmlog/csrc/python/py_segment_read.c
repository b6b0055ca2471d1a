/* What can be read of a segment. */
#include "py_segment.h"

#include "../core/clock.h"
#include "../core/exits.h"
#include "../core/producer.h"

const char *const shmlog_reason_names[SHMLOG_REASONS] = {"full", "names", "large", "lane", "closed", "disk"};

enum word {
    FINISH_REQUEST, FINISH_STATUS, FINISH_NOTED, FINISH_DONE, CLOSED, FLUSHER_STATE, SLEEPING, PROGRESS, SEALING,
    ENDED_BY, EXITING
};

static PyObject *segment_word(SegmentObject *self, void *closure)
{
    const shmlog_header *header = self->segment.header;
    /* CONTROL, acquire side, for all that ask for something or answer. */
    switch ((enum word)(intptr_t)closure) {
    case FINISH_REQUEST:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->finish_request, memory_order_acquire));
    case FINISH_STATUS:
        return PyLong_FromUnsignedLong(shmlog_finish_status(header));
    case FINISH_NOTED:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->finish_noted, memory_order_acquire));
    case FINISH_DONE:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->finish_done, memory_order_acquire));
    case CLOSED:
        /* CONTROL */
        return PyBool_FromLong((long)atomic_load_explicit(&header->closed, memory_order_acquire));
    case FLUSHER_STATE:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->flusher_state, memory_order_acquire));
    case SLEEPING:
        /* CONTROL */
        return PyBool_FromLong((long)atomic_load_explicit(&header->sleeping, memory_order_acquire));
    case PROGRESS:
        /* CONTROL */
        return PyLong_FromUnsignedLongLong(atomic_load_explicit(&header->progress, memory_order_acquire));
    case SEALING:
        /* relaxed: only its growth is looked at. */
        return PyLong_FromUnsignedLongLong(atomic_load_explicit(&header->sealing, memory_order_relaxed));
    case ENDED_BY:
        /* relaxed: a lock says that who writes it is dead. */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->ended_by, memory_order_relaxed));
    case EXITING:
        /* CONTROL */
        return PyLong_FromUnsignedLong(atomic_load_explicit(&header->exiting, memory_order_acquire));
    }
    Py_UNREACHABLE();
}

static PyObject *segment_starts(SegmentObject *self, void *Py_UNUSED(closure))
{
    /* relaxed: only its growth is looked at. */
    return PyLong_FromUnsignedLong(atomic_load_explicit(&self->segment.header->starts, memory_order_relaxed));
}

static PyObject *segment_ended_us(SegmentObject *self, void *Py_UNUSED(closure))
{
    /* relaxed: as in shmlog_py_note_end(). */
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->segment.header->ended_us, memory_order_relaxed));
}

static PyObject *segment_lost(SegmentObject *self, void *Py_UNUSED(closure))
{
    /* relaxed: as in segment_note_lost() */
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->segment.header->lost, memory_order_relaxed));
}

static PyObject *segment_starting(SegmentObject *self, void *Py_UNUSED(closure))
{
    if (!shmlog_segment_open_locks(self)) {
        return NULL;
    }
    int64_t now = shmlog_clock_ns(CLOCK_MONOTONIC);
    return PyBool_FromLong(shmlog_flusher_is_starting(self->segment.header, now) && shmlog_flusher_lives(self->lock.fd));
}

static PyObject *segment_flusher_lives(SegmentObject *self, void *Py_UNUSED(closure))
{
    return shmlog_segment_open_locks(self) ? PyBool_FromLong(shmlog_flusher_lives(self->lock.fd)) : NULL;
}

static PyObject *segment_run_id(SegmentObject *self, void *Py_UNUSED(closure))
{
    const char *id = self->segment.constants.run_id;
    return PyUnicode_DecodeUTF8(id, (Py_ssize_t)strlen(id), "replace"); /* anybody may have scribbled on it */
}

static PyObject *segment_run_dir(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_DecodeFSDefault(self->segment.constants.run_dir);
}

static PyObject *segment_lanes(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.lane_count);
}

static PyObject *segment_lane_slots(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.lane_slots);
}

static PyObject *segment_first_lane(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.constants.first_lane);
}

static PyObject *segment_clock(SegmentObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(self->segment.constants.clock);
}

PyObject *shmlog_counts_dict(const uint64_t *counts)
{
    PyObject *dict = PyDict_New();
    for (int reason = 0; dict && reason < SHMLOG_REASONS; reason++) {
        PyObject *count = PyLong_FromUnsignedLongLong(counts[reason]);
        if (!count || PyDict_SetItemString(dict, shmlog_reason_names[reason], count) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(count);
    }
    return dict;
}

static PyObject *counts_of(const _Atomic uint64_t *words)
{
    uint64_t counts[SHMLOG_REASONS];
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        counts[reason] = atomic_load_explicit(&words[reason], memory_order_relaxed); /* relaxed: a counter */
    }
    return shmlog_counts_dict(counts);
}

static PyObject *segment_unlaned(SegmentObject *self, void *Py_UNUSED(closure))
{
    return counts_of(self->segment.header->unlaned);
}

PyObject *shmlog_segment_py_lane(SegmentObject *self, PyObject *arg)
{
    unsigned long number = PyLong_AsUnsignedLong(arg);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (number >= self->segment.lane_count) {
        return PyErr_Format(PyExc_IndexError, "there are %u lanes", self->segment.lane_count);
    }
    const shmlog_lane_header *lane = &self->segment.lanes[number];
    PyObject *dropped = counts_of(lane->dropped);
    if (!dropped) {
        return NULL;
    }
    /* relaxed: a snapshot for people. */
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);       /* relaxed: as above */
    uint64_t gapped = atomic_load_explicit(&lane->gapped, memory_order_relaxed);   /* relaxed: as above */
    uint32_t used = atomic_load_explicit(&lane->allotted, memory_order_relaxed);   /* relaxed: as above */
    uint32_t damaged = atomic_load_explicit(&lane->damaged, memory_order_relaxed); /* relaxed: as above */
    uint64_t seq = atomic_load_explicit(&lane->seq, memory_order_relaxed);         /* relaxed: as above */
    uint32_t tenancy = atomic_load_explicit(&lane->tenancy, memory_order_relaxed); /* relaxed: as above */
    return Py_BuildValue("{s:N,s:N,s:K,s:K,s:K,s:K,s:I,s:N}", "allotted", PyBool_FromLong((long)used), "damaged",
                         PyBool_FromLong((long)damaged), "head", head, "tail", tail, "gapped", gapped,
                         "seq", seq, "tenancy", tenancy, "dropped", dropped);
}

PyGetSetDef shmlog_segment_getters[] = {
    {"run_id", (getter)segment_run_id, NULL, "Id of the run.", NULL},
    {"run_dir", (getter)segment_run_dir, NULL, "Folder of the run, or an empty str.", NULL},
    {"lanes", (getter)segment_lanes, NULL, "Most lanes.", NULL},
    {"lane_slots", (getter)segment_lane_slots, NULL, "Slots of a lane.", NULL},
    {"first_lane", (getter)segment_first_lane, NULL, "Number of lane 0 in the files of the run.", NULL},
    {"clock", (getter)segment_clock, NULL, "0 CLOCK_MONOTONIC, 1 time-stamp counter.", NULL},
    {"unlaned", (getter)segment_unlaned, NULL, "Drops of processes without a lane, by reason.", NULL},
    {"finish_request", (getter)segment_word, NULL, "Number of the latest request to finish.",
     (void *)FINISH_REQUEST},
    {"finish_status", (getter)segment_word, NULL, "Status of the run, as far as it is known.", (void *)FINISH_STATUS},
    {"finish_noted", (getter)segment_word, NULL, "Latest request of which it is known what it waits for.",
     (void *)FINISH_NOTED},
    {"finish_done", (getter)segment_word, NULL, "Latest request carried out.", (void *)FINISH_DONE},
    {"closed", (getter)segment_word, NULL, "Nobody may attach any more.", (void *)CLOSED},
    {"flusher_state", (getter)segment_word, NULL, "0 starting, 1 running.", (void *)FLUSHER_STATE},
    {"flusher_lives", (getter)segment_flusher_lives, NULL, "One keeps the run, or has been started.", NULL},
    {"flusher_is_starting", (getter)segment_starting, NULL, "One was started less than 10 s ago, and lives.", NULL},
    {"sleeping", (getter)segment_word, NULL, "The flusher sleeps on its doorbell.", (void *)SLEEPING},
    {"progress", (getter)segment_word, NULL, "Grows while the flusher gets anything done.", (void *)PROGRESS},
    {"sealing", (getter)segment_word, NULL, "The same, but for draining.", (void *)SEALING},
    {"starts", (getter)segment_starts, NULL, "How many flushers were started.", NULL},
    {"ended_by", (getter)segment_word, NULL, "Signal that has ended the maker of the run, or 0.", (void *)ENDED_BY},
    {"ended_us", (getter)segment_ended_us, NULL, "UTC in microseconds when the last owner began to finish, or 0.",
     NULL},
    {"exiting", (getter)segment_word, NULL, "Owners whose process is at its exit, which decides their status.",
     (void *)EXITING},
    {"lost", (getter)segment_lost, NULL, "Records that are neither in the files nor counted as dropped.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
