"""Mistakes in how a follower's part ends. See `tests.faults.mutations`."""

from __future__ import annotations

from tests.faults.workshop import Mutation

CUT = "faults/test_cut_steps.py::test_a_follower_is_cut_at_any_instruction"

MISTAKES_IN_CUTS = (
    Mutation(
        "no-look-after-the-commit",
        "csrc/python/py_writer.h",
        "    return SHMLOG_LIKELY(!shmlog_lane_was_cut(shared)) ? SHMLOG_WRITTEN : shmlog_writer_cut(writer, 1);\n",
        "    return SHMLOG_WRITTEN;\n",
        "I4: a record that was under way at the close is lost, and not counted",
        f"{CUT}[scalar-run_was_closed]",
    ),
    Mutation(
        "no-look-before-the-unit",
        "csrc/core/lane.h",
        "    if (!atomic_load_explicit(&lane->shared->cut, memory_order_relaxed)) {   /* relaxed: CUT, the fence */\n",
        "    if (lane->slots) {\n",
        "I4: a follower that made room while it was cut logs on",
        f"{CUT}[half-run_was_closed]",
    ),
    Mutation(
        "cut-leaves-the-limit",
        "csrc/core/cut.c",
        "    atomic_store_explicit(&shared->limit, 0, memory_order_relaxed); /* relaxed: CUT, the fence */\n",
        "",
        "I3: what is logged after the end gets into the run",
        f"{CUT}[scalar-owner_finished]",
    ),
    Mutation(
        "flusher-decides-alone",
        "csrc/core/drain.c",
        "    if (!final) {\n        note_drops(shared);\n",
        "    if (final != shmlog_final(drained, SHMLOG_FINAL_BY_FLUSHER)) {\n        note_drops(shared);\n"
        "        atomic_store_explicit(&shared->final, 0, memory_order_relaxed);\n        final = 0;\n",
        "I4: what a follower has committed behind the drain is lost, and not counted",
        f"{CUT}[scalar-run_is_being_closed]",
    ),
    Mutation(
        "producer-decides-alone",
        "csrc/core/room.c",
        "    return lane->head > end ? lane->head - end : 0;\n",
        "    return lane->head < end;\n",
        "I4: a record behind the end of its lane is lost, and not counted",
        f"{CUT}[scalar-run_was_closed]",
    ),
    Mutation(
        "drained-beyond-the-end",
        "csrc/core/frame.c",
        "    if (!final || shmlog_final_position(final) >= end) {\n",
        "    if (final != 1) {\n",
        "I4: a record is in the run that was counted as dropped",
        f"{CUT}[scalar-run_was_closed]",
    ),
    Mutation(
        "late-drops-untold",
        "csrc/core/room.c",
        "    *untold = dropped > told ? dropped - told : 0;\n",
        "    *untold = dropped > told ? 0 : told - dropped;\n",
        "I4: drops of a full lane are lost that came after its last GAP",
        f"{CUT}[full-run_was_closed]",
    ),
    Mutation(
        "closed-run-gives-lanes",
        "csrc/core/producer.c",
        "    atomic_thread_fence(memory_order_seq_cst);\n    return !shmlog_segment_is_closed(producer->segment);\n",
        "    return true;\n",
        "I4: a follower takes a lane of a run that is closed meanwhile, and nobody hears it",
        f"{CUT}[first-run_was_closed]",
    ),
    Mutation(
        "cut-lane-kept",
        "csrc/python/py_room.c",
        "    shmlog_producer_leave(producer);\n    producer->logged -= lost;\n",
        "    producer->logged -= lost;\n",
        "P1: the lane of a follower that lives on is not given on",
        f"{CUT}[scalar-owner_finished]",
    ),
    Mutation(
        "interrupted-drop-untold",
        "csrc/python/py_room.c",
        "        ok = shmlog_writer_cut(writer, 0) != SHMLOG_RAISED && ok;\n",
        "",
        "I4: the drop of a wait that Ctrl-C has ended is lost, since the run was closed meanwhile",
        "unit/test_core.py::test_the_drop_of_a_wait_that_was_interrupted_is_told_though_the_run_has_ended"
        "[the flusher closes the run]",
    ),
    Mutation(
        "event-goes-on-with-its-lane",
        "csrc/python/py_event.c",
        "    uint32_t id;\n    if (!shmlog_writer_name_id(writer, event_type, &id)) {\n",
        "    uint32_t id;\n    if (shmlog_producer_is_cut(&writer->producer)) {\n        return SHMLOG_MOVED;\n    }\n"
        "    if (!shmlog_writer_name_id(writer, event_type, &id)) {\n",
        "I4: an event after the end is counted twice",
        f"{CUT}[event-run_was_closed]",
    ),
)
