"""Mistakes in the C core. See `tests.faults.mutations`."""

from __future__ import annotations

from tests.faults.workshop import Mutation

CORE = "unit/test_core.py"
STEPS = "faults/test_steps.py"
DISK = "faults/test_full_disk.py"
FAULTS = "integration/test_faults.py"
STARTS = "integration/test_flusher_starts.py"
EVERY_STATE = f"{STEPS}::test_every_state_that_a_kill_can_leave_is_drained_and_taken_over"

LANE = (
    # ---- lane.h, lane.c ----
    Mutation(
        "rotation-without-end",
        "csrc/core/drain_run.c",
        " && !is_drained_as_asked(drain)",
        "",
        "P5: finish() waits for a lap of every lane that there could be",
        f"{CORE}::test_a_rotation_is_not_held_up_by_a_producer_that_never_pauses",
    ),
    Mutation(
        "finish-notes-no-heads",
        "csrc/core/drain_run.c",
        "        note_heads(drain);\n",
        "",
        "P5: finish() returns before all is sealed that was logged before it",
        "unit/test_loop.py::test_a_request_that_a_dead_flusher_has_noted_is_noted_anew",
    ),
    Mutation(
        "commit-before-payload",
        "csrc/core/lane.h",
        "    slot->ts = ts;\n    slot->value = value;\n    slot->step = step;\n",
        "    atomic_store_explicit(&slot->commit, shmlog_commit_word(position, lane->shift, name_id, kind, flags),\n"
        "                          memory_order_release);\n"
        "    slot->ts = ts;\n    slot->value = value;\n    slot->step = step;\n",
        "I1: a slot exists before its payload does",
        f"{EVERY_STATE}[scalar]",
    ),
    Mutation(
        "row-header-first",
        "csrc/core/lane.c",
        "    uint64_t end = position + slots;\n    for",
        "    uint64_t end = position + slots;\n"
        "    shmlog_lane_commit(lane, position, ts, shmlog_extent(slots, count), step, 0, SHMLOG_ROW, 0);\n    for",
        "I3: a row is seen of which only a part is written",
        f"{EVERY_STATE}[row]",
    ),
    Mutation(
        "drain-never-naps",
        "csrc/core/drain_run.c",
        "if (error == 0 && drained.slots && !drained.more) {",
        "if (false) {",
        "I9: a frame for a few records follows the other, and the sealing can't keep up",
        f"{CORE}::test_a_producer_that_never_pauses_is_drained_in_few_frames",
    ),
    Mutation(
        "sealing-is-no-progress",
        "csrc/core/room.c",
        "if (tail != wait->tail || progress != wait->progress) {",
        "if (tail != wait->tail) {",
        "I4: records are dropped though the flusher works",
        f"{CORE}::test_who_waits_for_room_waits_as_long_as_the_flusher_seals",
    ),
    Mutation(
        "starting-is-living",
        "csrc/python/py_segment_read.c",
        "shmlog_flusher_is_starting(self->segment.header, now) && shmlog_flusher_lives(self->lock.fd)",
        "shmlog_flusher_is_starting(self->segment.header, now)",
        "I9: all wait 10 s for a flusher that died while it started",
        f"{STARTS}::test_it_is_known_at_once_that_a_flusher_has_died_while_it_started",
    ),
    Mutation(
        "numbers-header-first",
        "csrc/python/py_dict.c",
        "    while (PyDict_Next(metrics, &next, &name, &value)) {\n        if (!number_bits",
        "    shmlog_lane_commit(&producer->lane, position, ts, shmlog_extent(slots, (uint32_t)size), step, 0,\n"
        "                       SHMLOG_ROW, 0);\n"
        "    while (PyDict_Next(metrics, &next, &name, &value)) {\n        if (!number_bits",
        "I3: a dict is seen of which only a part is written",
        f"{CORE}::test_a_dict_with_one_value_that_is_no_number_is_whole_or_absent",
    ),
    Mutation(
        "numbers-without-room",
        "csrc/python/py_dict.c",
        "size >= SHMLOG_NAMES_MAX || !shmlog_producer_has_room(producer, (uint32_t)size + 1) ||",
        "size >= SHMLOG_NAMES_MAX || !shmlog_producer_has_room(producer, (uint32_t)size) ||",
        "I2: a dict's last slot overwrites what is not drained",
        f"{CORE}::test_drained_and_dropped_add_up_in_every_lap",
    ),
    Mutation(
        "counted-steps-of-a-dict-differ",
        "csrc/python/py_steps.c",
        "        *step = next > *step ? next : *step;\n",
        "        *step = next;\n",
        "a name has the same counted step twice",
        "integration/test_values.py::test_a_dict_without_a_step_has_one_for_all_its_names",
    ),
    Mutation(
        "given-time-moved",
        "csrc/bulk/decode.c",
        "        return within_years((int64_t)slot->ts);\n",
        "        return within_years((int64_t)slot->ts + clock->shift_us);\n",
        "I1: a time that a call gave is read as one of a counter that began anew",
        "unit/test_wal.py::test_a_given_time_is_no_count_of_a_clock",
    ),
    Mutation(
        "event-header-first",
        "csrc/core/lane.c",
        "    const unsigned char *next = bytes;\n",
        "    const unsigned char *next = bytes;\n"
        "    shmlog_lane_commit(lane, position, head->ts, shmlog_extent(data + 1, count), head->step, head->name_id,\n"
        "                       head->kind, head->flags);\n",
        "I3: an event is seen of which only a part is written",
        f"{EVERY_STATE}[event]",
    ),
    Mutation(
        "unit-without-a-frame",
        "csrc/core/lane.c",
        "return slots == shmlog_data_slots(count) + 1 && slots <= unit_max ? slots : 0;",
        "return slots == shmlog_data_slots(count) + 1 ? slots : 0;",
        "I9: a unit that no frame has room for keeps the drain busy for ever, and the run from its end",
        f"{CORE}::test_a_whole_unit_that_is_larger_than_any_is_damage",
    ),
    Mutation(
        "bytes-that-wrap",
        "csrc/core/format.h",
        "return bytes / SHMLOG_DATA_BYTES + (bytes % SHMLOG_DATA_BYTES != 0);",
        "return (bytes + SHMLOG_DATA_BYTES - 1) / SHMLOG_DATA_BYTES;",
        "I11: a header of one slot says 4 GiB, and what lies behind it is thrown away",
        f"{CORE}::test_a_damaged_lane_affects_only_itself[an event of 4 GiB in one slot]",
    ),
    Mutation(
        "members-unchecked",
        "csrc/core/lane.c",
        "if (unit->slots == 0 || unit->slots > room || !members_are_whole(lane, position, unit->slots)) {",
        "if (unit->slots == 0 || unit->slots > room) {",
        "I1: slots are taken on the word of their header",
        f"{CORE}::test_a_damaged_lane_affects_only_itself",
    ),
    Mutation(
        "member-begins-a-unit",
        "csrc/core/lane.c",
        "if (room == 0 || !is_lap(lane, position, commit) || (commit & SHMLOG_MEMBER)) {",
        "if (room == 0 || !is_lap(lane, position, commit)) {",
        "I3: what a killed producer left of a unit is taken",
        f"{CORE}::test_a_row_whose_header_is_missing_is_never_seen_and_its_place_is_used_again",
    ),
    Mutation(
        "any-lap-is-this-lap",
        "csrc/core/lane.c",
        "return commit >> 32 == (uint32_t)((position >> lane->shift) + 1);",
        "return commit >> 32 != 0;",
        "I1: records of the last lap are taken again",
        f"{CORE}::test_drained_and_dropped_add_up_in_every_lap",
    ),
)

PRODUCER = (
    # ---- producer.c, room.c, py_room.c ----
    Mutation(
        "lane-without-a-look",
        "csrc/python/py_room.c",
        "    int open = error == ESTALE ? 0 : is_open(writer, true);\n",
        "    int open = error != ESTALE;\n",
        "a child whose parent has left a run logs on into it",
        "integration/test_starts.py::test_a_child_whose_owner_has_left_a_run_that_goes_on_is_not_in_it[before]",
    ),
    Mutation(
        "one-slot-too-many",
        "csrc/core/room.c",
        "owed_slots(producer) + slots > capacity) {",
        "owed_slots(producer) + slots > capacity + 1) {",
        "I2: a slot is overwritten that was not drained",
        f"{CORE}::test_a_full_lane_drops_and_a_gap_tells_it_when_there_is_room",
    ),
    Mutation(
        "owed-slots-forgotten",
        "csrc/core/room.c",
        "if (lane->head - lane->tail_seen + owed_slots(producer) + slots > capacity) {",
        "if (lane->head - lane->tail_seen + slots > capacity) {",
        "I2: an heir's OWNER record overwrites what was not drained",
        f"{CORE}::test_an_heir_that_has_no_room_to_say_who_it_is_drops",
    ),
    Mutation(
        "heir-trusts-head",
        "csrc/core/producer.c",
        "lane->head = shmlog_lane_first_uncommitted(lane, lane->tail_seen);",
        "lane->head = atomic_load_explicit(&lane->shared->head, memory_order_relaxed);",
        "I3: the record of an owner killed before it moved its head is overwritten",
        f"{EVERY_STATE}[scalar]",
    ),
    Mutation(
        "heir-says-not-who",
        "csrc/core/producer.c",
        "    producer->owes_owner = true;\n",
        "    producer->owes_owner = false;\n",
        "I3: records are booked to the lane's owner before",
        f"{CORE}::test_the_next_owner_continues_at_the_first_uncommitted_slot",
    ),
    Mutation(
        "heir-forgets-drops",
        "csrc/core/producer.c",
        "shmlog_lane_sum(lane->shared->dropped) != atomic_load_explicit(&lane->shared->gapped, memory_order_relaxed);",
        "false;",
        "I4: the drops of a killed owner are not told at their place",
        f"{CORE}::test_drops_of_a_dead_owner_are_told_by_the_next",
    ),
    Mutation(
        "lane-lock-is-shared",
        "csrc/core/producer.c",
        "SHMLOG_LOCK_LANE + (int)number, true);\n    if (error) {",
        "SHMLOG_LOCK_LANE + (int)number, false);\n    if (error) {",
        "I7: a lane is given on while its owner lives",
        f"{CORE}::test_a_lane_whose_owner_lives_is_not_given_on",
    ),
    Mutation(
        "child-keeps-the-lane",
        "csrc/core/producer.c",
        "    memset(&producer->lane, 0, sizeof producer->lane);\n",
        "",
        "I7: a forked child writes into its parent's lane",
        "integration/test_processes.py::test_a_child_process_logs_into_its_parents_run[fork-metric]",
    ),
    Mutation(
        "child-unlocks",
        "csrc/core/producer.c",
        "    shmlog_description_close(&producer->lock);\n    take_description(",
        "    shmlog_lock_drop(producer->lock.fd, SHMLOG_LOCK_MEMBER);\n"
        "    shmlog_description_close(&producer->lock);\n    take_description(",
        "I7: a forked child gives up its parent's membership",
        f"{CORE}::test_a_forked_child_takes_no_lock_from_its_parent",
    ),
    Mutation(
        "child-is-a-starting-flusher",
        "csrc/core/producer.c",
        "        if (starts[i].mark) {\n",
        "        if (false) {\n",
        "I9: nobody starts another flusher as long as a child lives that was forked while one was started",
        f"{CORE}::test_a_child_that_is_forked_while_a_flusher_is_started_is_not_taken_for_one",
    ),
    Mutation(
        "child-that-opens-nothing-has-left",
        "csrc/core/producer.c",
        "    take_description(producer, shmlog_description_reopen(&producer->segment->file, producer->path));\n",
        "    take_description(producer, shmlog_description_reopen(&producer->segment->file, producer->path));\n"
        "    producer->has_left = producer->lock.fd < 0;\n",
        "I4: the drops of a child that is another user are in no books",
        "faults/test_neighbours.py::test_what_a_child_of_another_user_gets_no_lane_for_is_in_the_books",
    ),
    Mutation(
        "no-lane-no-end",
        "csrc/python/py_room.c",
        "    if (shmlog_segment_is_closed(writer->producer.segment)) {\n",
        "    if (false) {\n",
        "I4: what a process without a lane drops after the run's end is in no books",
        f"{CORE}::test_a_producer_without_a_lane_sees_at_once_that_the_run_is_closed",
    ),
    Mutation(
        "lock-goes-with-its-descriptor",
        "csrc/core/producer.c",
        "        shmlog_description_pin(&producer->lock);\n",
        "",
        "I7: a lane is given on whose owner has only closed descriptors that it did not know",
        f"{CORE}::test_a_lane_is_its_owners_after_the_program_has_closed_its_descriptor",
    ),
    Mutation(
        "pin-in-forked-children",
        "csrc/core/lock.c",
        "page != MAP_FAILED && madvise(page, PIN_BYTES, MADV_DONTFORK) == 0",
        "page != MAP_FAILED",
        "P1: a forked child holds the locks of its parent, which has died",
        f"{CORE}::test_a_forked_child_that_lives_on_holds_no_lock_of_its_parent",
    ),
    Mutation(
        "closed-run-is-joined",
        "csrc/core/producer.c",
        "if (error == 0 && shmlog_segment_is_closed(segment)) {",
        "if (false) {",
        "P1: who attaches while the run is closed is heard by nobody",
        f"{CORE}::test_a_segment_cannot_be_joined_while_it_is_closed",
    ),
    Mutation(
        "drops-tell-no-gap",
        "csrc/core/room.c",
        "    producer->owes_gap = true;\n",
        "",
        "I4: dropped records are not told at their place",
        f"{CORE}::test_a_full_lane_drops_and_a_gap_tells_it_when_there_is_room",
    ),
    Mutation(
        "drop-counts-one",
        "csrc/core/room.c",
        "atomic_store_explicit(count, old + records, memory_order_relaxed);",
        "atomic_store_explicit(count, old + 1, memory_order_relaxed);",
        "I4: of a dropped row one record is counted",
        f"{CORE}::test_drained_and_dropped_add_up_in_every_lap",
    ),
    Mutation(
        "unlaned-drops-uncounted",
        "csrc/core/room.c",
        "atomic_fetch_add_explicit(&producer->segment->header->unlaned[reason], records, memory_order_relaxed);",
        "(void)reason;",
        "I4: the drops of a process without a lane are lost",
        f"{CORE}::test_without_a_descriptor_and_a_segment_to_open_it_drops_and_counts",
    ),
)

DRAIN = (
    # ---- drain.c, frame.c, drain_run.c ----
    Mutation(
        "tail-before-durable",
        "csrc/core/drain.c",
        "    size_t length;\n    int error = shmlog_frame_write(drain, &length);\n    if (error) {\n"
        "        abandon_log(drain);\n    } else {\n        accept_frame(drain, length);\n    }\n",
        "    size_t length;\n    accept_frame(drain, 0);\n"
        "    int error = shmlog_frame_write(drain, &length);\n    if (error) {\n        abandon_log(drain);\n    }\n",
        "I2: slots are given back before they are in the log",
        f"{DISK}::test_producers_go_on_while_every_call_on_the_disk_fails[5]",
    ),
    Mutation(
        "next-log-cuts-another",
        "csrc/core/drain.c",
        "    bool is_ours = folder < 0 && drain->is_made && number == drain->log;\n",
        "    bool is_ours = true;\n",
        "I10: a log that somebody has put where the next one goes is emptied",
        f"{CORE}::test_what_lies_where_the_next_log_would_go_is_left_alone",
    ),
    Mutation(
        "drain-trusts-head",
        "csrc/core/frame.c",
        "    uint64_t stop = begin + slots_max;\n",
        "    uint64_t hint = atomic_load_explicit(&lane->shared->head, memory_order_relaxed);\n"
        "    uint64_t stop = hint < begin + slots_max ? hint : begin + slots_max;\n",
        "I3: a committed record is not drained whose owner died before it moved its head",
        f"{CORE}::test_a_head_that_lies_is_ignored",
    ),
    Mutation(
        "gap-counts-its-total",
        "csrc/core/frame.c",
        "cursor->seq += counts[reason] - cursor->gapped[reason];",
        "cursor->seq += counts[reason];",
        "I4: drops are told twice",
        f"{CORE}::test_drained_and_dropped_add_up_in_every_lap",
    ),
    Mutation(
        "gap-counts-believed",
        "csrc/core/frame.c",
        "        if (counts[reason] > SHMLOG_COUNT_MAX) {\n",
        "        if (false) {\n",
        "I10: a damaged GAP gives all later records of its lane numbers that no reader believes",
        f"{CORE}::test_what_no_reader_would_believe_is_damage_to_the_drain[a GAP with a count beyond all]",
    ),
    Mutation(
        "last-drops-unsettled",
        "csrc/core/drain.c",
        "owes = owes || counts[reason] > drain->cursors[number].gapped[reason];",
        "owes = false;",
        "I4: the drops of owners that nobody followed are lost",
        f"{CORE}::test_settle_tells_the_drops_of_owners_that_nobody_followed",
    ),
    Mutation(
        "names-defined-once",
        "csrc/core/frame.c",
        "        memset(drain->names_staged, 0, SHMLOG_FRAME_NAME_BITMAP);\n",
        "        return;\n",
        "I5: a log uses names that only a deleted one has defined",
        f"{CORE}::test_a_new_log_defines_every_name_again",
    ),
    Mutation(
        "names-stand-once",
        "csrc/core/frame.c",
        "(drain->first ? 0xffu : ~(unsigned)drain->names_twice[byte])",
        "(drain->first ? 0xffu : 0u)",
        "I10: a damaged frame takes the names of all others with it",
        "unit/test_books.py::test_a_damaged_frame_of_an_open_log_costs_itself_alone[crash-3]",
    ),
    Mutation(
        "owners-stand-once",
        "csrc/core/frame.c",
        "bool repeats = drain->first || before->told_once;",
        "bool repeats = drain->first;",
        "I10: nobody knows who logged what the frames behind a damaged one hold",
        "unit/test_books.py::test_a_damaged_frame_of_an_open_log_costs_itself_alone[crash-0]",
    ),
    Mutation(
        "name-unchecked",
        "csrc/core/frame.c",
        "        if (!define_name(drain, unit->name_id)) {\n            return false;\n        }\n",
        "        (void)define_name(drain, unit->name_id);\n",
        "I5: a record without a name gets into the log",
        f"{CORE}::test_a_damaged_lane_affects_only_itself",
    ),
    Mutation(
        "log-never-synced",
        "csrc/core/drain.c",
        "    while (fsync(fd) != 0) {",
        "    while (fd < 0) {",
        "P5: durable is answered without an fsync",
        f"{DISK}::test_durable_means_all_logs_also_behind_a_change_of_log",
    ),
    Mutation(
        "closed-logs-not-synced",
        "csrc/core/drain.c",
        "    int error = sync_closed_logs(drain);\n    if (error == 0) {",
        "    int error = 0 * sync_closed_logs(drain);\n    if (error == 0) {",
        "P5: durable forgets what lies in the log before",
        f"{DISK}::test_a_failed_fsync_is_never_trusted_the_second_time",
    ),
    Mutation(
        "log-has-no-name",
        "csrc/core/drain.c",
        "    } else if (!drain->named) {",
        "    } else if (false) {",
        "P5: the log is durable, and its name is not",
        "faults/test_power_loss.py::test_what_was_flushed_durably_survives_a_loss_of_power[parquet]",
    ),
    Mutation(
        "second-fsync-trusted",
        "csrc/core/drain.c",
        "        drain->doubted_below = drain->log + 1;\n",
        "",
        "P5: an fsync is trusted after one that failed",
        f"{DISK}::test_a_failed_fsync_is_never_trusted_the_second_time",
    ),
)

SEGMENT = (
    # ---- segment.c, lock.c, names.c ----
    Mutation(
        "magic-first",
        "csrc/core/segment.c",
        "    header->constants = *constants;\n",
        "    atomic_store_explicit(&header->magic, SHMLOG_MAGIC, memory_order_release);\n"
        "    header->constants = *constants;\n",
        "P1: half a header is opened",
        f"{STEPS}::test_a_segment_is_whole_or_refused_whose_creator_was_killed_at_any_instruction",
    ),
    Mutation(
        "constants-read-anew",
        "csrc/core/segment.h",
        "segment->base + segment->constants.slots_offset)",
        "segment->base + segment->header->constants.slots_offset)",
        "I11: eight damaged bytes end the flusher and every process that takes a lane",
        f"{CORE}::test_whoever_has_opened_a_segment_goes_by_what_its_header_said_then",
    ),
    Mutation(
        "memory-not-reserved",
        "csrc/core/segment.c",
        "error = posix_fallocate(fd, (off_t)offset, (off_t)bytes);",
        "error = offset > bytes && fd < 0;",
        "P7: SIGBUS in the middle of training",
        f"{FAULTS}::test_no_room_anywhere_is_a_clear_error",
    ),
    Mutation(
        "cut-segment-accepted",
        "csrc/core/segment.c",
        "constants->segment_bytes != bytes || file_bytes != bytes ||",
        "constants->segment_bytes != bytes ||",
        "I11: a segment that was cut is mapped beyond its end",
        f"{FAULTS}::test_a_cut_segment_is_refused",
    ),
    Mutation(
        "lock-of-the-process",
        "csrc/core/lock.c",
        "while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {",
        "while (fcntl(fd, F_SETLK, &lock) != 0) {",
        "I7: a lock is lost when any descriptor of the file closes",
        f"{CORE}::test_a_lane_whose_owner_lives_is_not_given_on",
    ),
    Mutation(
        "number-is-trusted",
        "csrc/core/lock.c",
        "return fd >= 0 && shmlog_description_is_of_file(description, fd) && "
        "lseek(fd, 0, SEEK_CUR) == description->mark;",
        "return fd >= 0;",
        "P7: a file of the program is locked, made longer and closed",
        f"{CORE}::test_files_of_the_program_under_the_numbers_of_ours_are_left_alone",
    ),
    Mutation(
        "lock-passed-on",
        "csrc/core/lock.c",
        "return open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);",
        "return open(path, O_RDWR | O_NOFOLLOW);",
        "P8: a program that was started keeps the lock of a dead process",
        f"{CORE}::test_a_program_that_was_started_holds_no_lock",
    ),
    Mutation(
        "names-of-one-length",
        "csrc/core/names.c",
        "found_bytes == bytes &&\n           memcmp(found, text, bytes) == 0;",
        "found_bytes == bytes;",
        "I11: two names that collide are one",
        "integration/test_values.py::test_a_dict_of_ten_thousand_names_is_kept_whole",
    ),
    Mutation(
        "full-name-table-wraps",
        "csrc/core/names.c",
        "        if (old > limit - amount) {\n            return UINT32_MAX;\n        }\n",
        "        if (old > limit) {\n            return UINT32_MAX;\n        }\n",
        "I11: a name is written beyond its table",
        "integration/test_values.py::test_too_many_names_drop_and_count",
    ),
)

STOPPED = "integration/test_exits.py::test_a_run_whose_maker_a_signal_ends_was_stopped_or_has_crashed"
PROGRESS = "unit/test_progress.py"

EXITS = "integration/test_exit_status.py"
OF_PROCESS = f"{EXITS}::test_the_status_is_that_of_the_end_of_the_process"

ENDS = (
    # ---- exits.c ----
    Mutation(
        "exit-code-unheeded",
        "csrc/core/exits.c",
        "    add(&header->finish_status, status, run->by_maker);\n",
        "    add(&header->finish_status, status ? SHMLOG_SUCCESS : 0, run->by_maker);\n",
        "a program that has failed looks well",
        f"{OF_PROCESS}[raise SystemExit(3)]",
    ),
    Mutation(
        "likely-status-stays",
        "csrc/core/exits.c",
        "    atomic_fetch_sub_explicit(&header->exiting, 1, memory_order_acq_rel);\n",
        "",
        "a program that has exited well looks as if it had failed",
        f"{OF_PROCESS}[an exception that was printed]",
    ),
    Mutation(
        "child-decides-by-its-exit",
        "csrc/core/exits.c",
        "    runs = NULL;\n    process",
        "    process",
        "how a child ends is taken for the end of the run",
        f"{OF_PROCESS}[a child that exits when the run is finished]",
    ),
    Mutation(
        "child-keeps-the-run-open",
        "csrc/core/exits.c",
        "        shmlog_description_close(&run->lock);\n    }\n    runs",
        "    }\n    runs",
        "P8: a run does not end, as long as a child of its dead owner lives",
        f"{EXITS}::test_who_is_at_its_exit_is_an_owner_until_it_ends",
    ),
    Mutation(
        "unlikely-end-is-told-late",
        "csrc/core/exits.c",
        "        wait_for_answer(run, now_ns + ANSWER_NS);\n",
        "        (void)run, (void)now_ns, (void)wait_for_answer;\n",
        "run.yaml says success when a program that has failed has ended",
        f"{EXITS}::test_an_unlikely_end_waits_for_the_flusher_to_write_it",
    ),
    Mutation(
        "exit-of-a-container-waits-for-nobody",
        "csrc/core/exits.c",
        "            see_off(run, now_ns + CLOSING_NS);\n",
        "            (void)see_off;\n",
        "P8: a run is killed with its container before it is closed",
        "faults/test_containers.py::test_a_run_is_closed_before_its_container_ends[Python-by its exit]",
    ),
    # ---- signals.c, work.c ----
    Mutation(
        "child-is-taken-for-maker",
        "csrc/core/signals.c",
        "    (void)pthread_atfork(NULL, NULL, forget_all); /* without it, getpid() tells */\n",
        "    (void)pthread_atfork(NULL, NULL, watch_forks);\n",
        "a signal to a worker is one to the run",
        f"{STOPPED}[by SIGTERM that a child has got too]",
    ),
    Mutation(
        "finished-runs-stay-watched",
        "csrc/python/py_exits.c",
        "        self->is_watched = !shmlog_signals_forget(header);\n",
        "        self->is_watched = true;\n",
        "after some runs, a signal says nothing of the next one",
        f"{STOPPED}[after as many runs as there are places]",
    ),
    Mutation(
        "signal-is-swallowed",
        "csrc/core/signals.c",
        "    raise(number); /* SA_NODEFER: at once */\n",
        "",
        "a process that is to end goes on",
        f"{STOPPED}[in Python code]",
    ),
    Mutation(
        "handler-of-the-user-replaced",
        "csrc/core/signals.c",
        " && now.sa_handler == SIG_DFL",
        "",
        "a handler of the program is not called",
        "integration/test_exits.py::test_a_handler_of_the_user_works_as_ever[before init]",
    ),
    Mutation(
        "waiting-is-work",
        "csrc/core/work.c",
        "ns - work->seen_ns[place] >= COUNTED_NS",
        "ns >= work->seen_ns[place]",
        "a finish waits without end for a disk that does not answer",
        f"{PROGRESS}::test_a_thread_at_work_that_takes_no_processor_time_makes_no_progress",
    ),
)

MISTAKES_IN_C = (*LANE, *PRODUCER, *DRAIN, *SEGMENT, *ENDS)
