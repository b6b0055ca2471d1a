"""Mistakes in the flusher, in the storage it writes and in what reads it. See `tests.faults.mutations`."""

from __future__ import annotations

from tests.faults.workshop import Mutation

DISK = "faults/test_full_disk.py"
FAULTS = "integration/test_faults.py"
WAL = "unit/test_wal.py"
READER = "unit/test_reader.py"
MERGE = "unit/test_merge.py"
ARTIFACTS = "unit/test_artifacts.py"
MANIFEST = "unit/test_manifest.py"
RESUME = "integration/test_resume.py"
RANKS = "integration/test_ranks.py"
KILLED = f"{READER}::test_a_sealer_that_is_killed_anywhere_and_started_again_gives_the_same"
POWER = "faults/test_power_loss.py::test_what_was_flushed_durably_survives_a_loss_of_power"

FLUSHER = (
    # ---- sealer.py, keeper.py, appendfile.py ----
    Mutation(
        "books-before-part",
        "flusher/sealer.py",
        "            self._finish_part(log)\n",
        "",
        "I6: a log counts as sealed, and goes, before its part is there",
        f"{READER}::test_a_log_stays_until_its_part_is_there",
    ),
    Mutation(
        "log-deleted-before-books",
        "flusher/sealer.py",
        "        self.ledger.commit(logs[-1].number + 1, logs[-1].events, logs[-1].run_log)\n",
        "        for log in logs:\n            self.layout.log(log.number).unlink(missing_ok=True)\n"
        "        self.ledger.commit(logs[-1].number + 1, logs[-1].events, logs[-1].run_log)\n",
        "I6: a kill between the two loses the log",
        f"{KILLED}[parquet-one file]",
    ),
    Mutation(
        "events-not-synced",
        "flusher/sealer.py",
        "        self._events.sync()\n        self._run_log.sync()\n",
        "        self._events.retry()\n        self._run_log.retry()\n",
        "P5: events.jsonl is not on the disk when its log goes",
        f"{POWER}[jsonl]",
    ),
    Mutation(
        "folders-not-synced",
        "flusher/sealer.py",
        "            fsync_run(self.layout)  # else the files are durable, and nobody finds them\n",
        "",
        "P5: the files are on the disk, and their folders are not",
        f"{POWER}[parquet]",
    ),
    Mutation(
        "later-events-booked",
        "flusher/sealer.py",
        "self.ledger.commit(logs[-1].number + 1, logs[-1].events, logs[-1].run_log)",
        "self.ledger.commit(logs[-1].number + 1, self._events.extents, self._run_log.extent)",
        "I6: events of a log that is not sealed are written twice",
        f"{READER}::test_events_of_the_next_log_are_not_sealed_with_this_one",
    ),
    Mutation(
        "torn-end-kept",
        "flusher/appendfile.py",
        "            os.ftruncate(self._fd, known.bytes)\n",
        "            pass\n",
        "I6: an event is written twice",
        f"{KILLED}[jsonl-one file]",
    ),
    Mutation(
        "short-write-forgotten",
        "flusher/appendfile.py",
        "            self._waiting[0] = self._waiting[0][written:]\n            if not self._waiting[0]:\n"
        "                self._waiting.popleft()\n",
        "            self._waiting.popleft()\n",
        "P4: what a short write has left out is lost",
        "unit/test_appendfile.py::test_a_short_write_is_continued",
    ),
    Mutation(
        "failed-fsync-trusted",
        "flusher/appendfile.py",
        "                raise SyncError(error.errno, error.strerror, str(self.path)) from error\n",
        "                raise\n",
        "P5: a failed fsync is taken for an error that heals",
        "unit/test_appendfile.py::test_a_failed_fsync_is_told_from_other_errors",
    ),
    Mutation(
        "sealer-outlives-failed-fsync",
        "flusher/keeper.py",
        "                self._discard_sealer()\n            time.sleep",
        "                pass\n            time.sleep",
        "P5: a file is fsynced again instead of written again",
        f"{DISK}::test_what_a_failed_fsync_of_events_has_lost_is_written_again",
    ),
    Mutation(
        "restart-from-nothing",
        "flusher/keeper.py",
        "            final.restore_cursors(self._drain, segment, layout)\n",
        "            pass\n",
        "I6: another flusher writes what the last one had written",
        f"{FAULTS}::test_another_flusher_goes_on_where_one_was_killed",
    ),
    Mutation(
        "finished-before-sealed",
        "flusher/keeper.py",
        "if finish.below is not None and sealer.next_log >= finish.below:",
        "if finish.below is not None:",
        "P5: finish() returns before all is sealed",
        "unit/test_keeper.py::test_a_finish_waits_for_what_was_logged_before_it_and_no_more",
    ),
    Mutation(
        "finish-behind-all-logs",
        "flusher/keeper.py",
        "sealer.catch_up(min(closed_below, sealer.reading + 1))",
        "sealer.catch_up(closed_below)",
        "P5: finish() waits for what others log after it",
        "unit/test_keeper.py::test_a_finish_waits_for_what_was_logged_before_it_and_no_more",
    ),
    Mutation(
        "last-drops-forgotten",
        "flusher/keeper.py",
        "        while self._drain.settle():\n",
        "        while False:\n",
        "I4: the drops of killed processes are told nowhere",
        f"{FAULTS}::test_drops_of_a_killed_process_are_told",
    ),
    Mutation(
        "run-closed-in-silence",
        "flusher/keeper.py",
        "        self._segment.cut_all()\n",
        "",
        "P1: who has opened the segment joins a run that is closed",
        f"{FAULTS}::test_nobody_joins_a_run_that_was_recovered",
    ),
    # ---- final.py, recover.py, shm.py ----
    Mutation(
        "restart-trusts-the-log",
        "flusher/final.py",
        'position = max(cursor.position, segment.lane(own)["tail"])',
        "position = cursor.position",
        "I2: tail goes back when the end of a log is lost",
        "unit/test_core.py::test_a_log_that_has_lost_its_end_does_not_move_tail_back",
    ),
    Mutation(
        "restart-trusts-tail",
        "flusher/final.py",
        'position = max(cursor.position, segment.lane(own)["tail"])',
        'position = segment.lane(own)["tail"]',
        "I6: what was written and not yet given back is written twice",
        "unit/test_core.py::test_what_is_in_the_log_is_not_drained_again_though_tail_is_behind",
    ),
    Mutation(
        "crash-is-success",
        "flusher/final.py",
        "        status = CRASHED if segment is None else status_ended_by(segment.ended_by)\n",
        '        status = "success"\n',
        "P8: a run that was killed looks well",
        f"{FAULTS}::test_recover_finishes_a_run_whose_processes_were_all_killed[at once]",
    ),
    Mutation(
        "segment-left-over",
        "flusher/final.py",
        "        shm.unlink(ref)\n",
        "        pass\n",
        "P8: a segment stays in shared memory",
        f"{FAULTS}::test_recover_finishes_a_run_whose_processes_were_all_killed[at once]",
    ),
    Mutation(
        "another-runs-segment",
        "flusher/recover.py",
        "    if segment.run_id != layout.run_id:\n",
        "    if False:\n",
        "I11: the records of one run are drained into another",
        f"{FAULTS}::test_the_shared_memory_of_another_run_is_left_alone",
    ),
    Mutation(
        "foreign-segment-accepted",
        "segment/shm.py",
        "    if status.st_uid != os.geteuid():\n",
        "    if False:\n",
        "P10: another user's segment is used",
        f"{FAULTS}::test_a_segment_of_another_user_or_open_to_others_is_refused",
    ),
    Mutation(
        "open-segment-accepted",
        "segment/shm.py",
        "    if stat.S_IMODE(status.st_mode) & 0o077:\n",
        "    if False:\n",
        "P10: a segment that others may write to is used",
        f"{FAULTS}::test_a_segment_of_another_user_or_open_to_others_is_refused",
    ),
)

STORAGE = (
    # ---- wal.py, columns.py, jsonl.py, ledger.py ----
    Mutation(
        "frame-checksum-unchecked",
        "storage/wal.py",
        '        raise _BadFrameError("wrong checksum")\n',
        "        pass\n",
        "I11: a damaged frame is believed",
        f"{WAL}::test_a_damaged_frame_costs_only_itself",
    ),
    Mutation(
        "frame-of-any-log",
        "storage/wal.py",
        "    if header.log != log:\n",
        "    if False:\n",
        "I11: what an old file has left behind the end is read",
        f"{WAL}::test_frames_of_another_log_are_left_out",
    ),
    Mutation(
        "frames-taken-twice",
        "storage/columns.py",
        "        elif position < expected:\n",
        "        elif position < 0:\n",
        "I6: a record that stands in two logs counts twice",
        f"{WAL}::test_a_frame_that_comes_twice_counts_once",
    ),
    Mutation(
        "missing-slots-untold",
        "storage/columns.py",
        "            if position == expected:\n                continue\n",
        "            continue\n",
        "I10: lost records are not told",
        f"{WAL}::test_a_hole_between_frames_is_reported",
    ),
    Mutation(
        "gap-has-no-line",
        "storage/jsonl.py",
        "    others: list[Event | Gap] = [*batch.events, *batch.gaps]\n    lines =",
        "    others: list[Event | Gap] = [*batch.events]\n    lines =",
        "I4: events.jsonl does not tell where records were dropped",
        "unit/test_jsonl.py::test_a_gap_says_what_was_dropped",
    ),
    Mutation(
        "total-taken-for-difference",
        "storage/ledger.py",
        "self._unlaned[reason] = max(count, self._unlaned.get(reason, 0))",
        "self._unlaned[reason] = count + self._unlaned.get(reason, 0)",
        "I4: drops without a lane are counted with every frame",
        "integration/test_processes.py::test_more_processes_than_lanes_drop_and_count",
    ),
    Mutation(
        "books-checksum-unchecked",
        "storage/ledger.py",
        "        if not runfile.is_intact(data):\n",
        "        if False:\n",
        "I11: damaged books are believed",
        f"{READER}::test_nothing_is_sealed_by_damaged_books",
    ),
    # ---- parts.py, merge.py, layout.py, large.py ----
    Mutation(
        "part-without-rename",
        "storage/parts.py",
        "    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)\n",
        "    temporary = path\n",
        "I6: half a part is read",
        "unit/test_parts.py::test_a_part_appears_when_it_is_whole",
    ),
    Mutation(
        "footer-unchecked",
        "storage/parts.py",
        "    footer.check(path)\n",
        "",
        "I11: a damaged footer is read as it stands, or ends the process",
        "unit/test_parts.py::test_a_flip_anywhere_in_the_footer_is_found",
    ),
    Mutation(
        "bounds-left-out",
        "storage/joined.py",
        "at = bisect_left(wanted, low)",
        "at = bisect_left(wanted, low + b'!')",
        "I6: a name that has a row group of its own is passed over",
        "unit/test_joined.py::test_the_rows_are_those_of_each_part[all-names1]",
    ),
    Mutation(
        "joined-with-another-schema",
        "storage/joined.py",
        "piece.schema != waiting[0].schema or ",
        "",
        "I11: a file that is not a part is read as one",
        "unit/test_joined.py::test_a_part_of_another_schema_is_refused",
    ),
    Mutation(
        "part-not-synced",
        "storage/parts.py",
        "        os.fsync(fd)\n",
        "",
        "P5: a part is not on the disk when its log goes",
        "unit/test_parts.py::test_a_part_that_is_there_is_durable",
    ),
    Mutation(
        "part-has-no-name",
        "storage/parts.py",
        "        raise\n    fsync_dir(path.parent)\n",
        "        raise\n",
        "P5: a part is on the disk, and its name is not",
        "unit/test_parts.py::test_a_part_that_is_there_is_durable",
    ),
    Mutation(
        "merged-rows-skipped",
        "storage/merge.py",
        "        bound = min(stream.last_key() for stream in streams)\n",
        "        bound = max(stream.last_key() for stream in streams)\n",
        "P5: a merged part is out of order",
        f"{MERGE}::test_any_parts_merge_in_chunks_and_rounds",
    ),
    Mutation(
        "covered-parts-counted",
        "storage/layout.py",
        "            is_covered = bool(kept) and part.last <= kept[-1].last\n",
        "            is_covered = False\n",
        "I6: after a merge that was killed, rows are read twice",
        f"{MERGE}::test_a_merge_killed_before_the_deletion_tells_no_row_twice",
    ),
    Mutation(
        "file-replaced-in-place",
        "storage/layout.py",
        "    temporary = path.with_name(path.name + part + TEMPORARY_SUFFIX)\n",
        "    temporary = path\n",
        "I6: half a file is read",
        "unit/test_runfile.py::test_a_file_is_replaced_by_one_that_is_whole_and_durable",
    ),
    Mutation(
        "file-not-synced",
        "storage/layout.py",
        "        if durable:\n            os.fsync(fd)\n",
        "",
        "P5: the books are empty after a loss of power",
        "unit/test_runfile.py::test_a_file_is_replaced_by_one_that_is_whole_and_durable",
    ),
    Mutation(
        "large-text-unchecked",
        "storage/large.py",
        "if told is not None and int(told[1], 16) != zlib.crc32(data):",
        "if False:",
        "I11: a damaged text is believed",
        "faults/test_hostile_bytes.py::test_no_damage_is_read_in_silence",
    ),
    # ---- artifacts ----
    Mutation(
        "change-while-read-unseen",
        "run/artifacts.py",
        "if not is_same or content.size_bytes != after.st_size or _version(before) != _version(after):",
        "if False:",
        "a file that is half old and half new is logged",
        f"{ARTIFACTS}::test_a_file_that_changes_while_it_is_read_is_refused",
    ),
    Mutation(
        "artifact-not-synced",
        "run/artifacts.py",
        "        os.fsync(target)\n",
        "",
        "P5: an artifact that was logged is empty after a loss of power",
        f"{POWER}[parquet]",
    ),
    Mutation(
        "first-of-a-folder-before-the-last",
        "run/artifacts.py",
        "            _place(layout, one, only_look=True)\n",
        "            _place(layout, one, only_look=False)\n",
        "another content under the name of one file leaves the others in their places",
        f"{ARTIFACTS}::test_a_folder_of_which_one_name_is_taken_is_not_logged_at_all",
    ),
    Mutation(
        "object-removed-unasked",
        "storage/objects.py",
        "        if os.lstat(aside).st_nlink > 1:\n",
        "        if False:\n",
        "content that a run has just been given is stored a second time",
        f"{ARTIFACTS}::test_an_object_that_is_logged_while_it_is_collected_stays_one",
    ),
    Mutation(
        "any-folder-is-a-run",
        "store/place.py",
        "for name in names) if is_run(layout)]\n",
        "for name in names) if layout.dir.is_dir()]\n",
        "rm deletes whatever folder it is given",
        "unit/test_store.py::test_what_is_no_run_is_not_deleted",
    ),
    Mutation(
        "object-of-any-size",
        "storage/objects.py",
        "if not stat.S_ISREG(found.st_mode) or found.st_size != content.size_bytes:",
        "if False:",
        "what is damaged in one run is damaged in all that follow",
        f"{ARTIFACTS}::test_an_object_of_the_wrong_size_is_replaced",
    ),
    Mutation(
        "manifest-before-merge",
        "flusher/final.py",
        "    _merge_parts(layout, report)\n    _write_manifest(layout, report)\n",
        "    _write_manifest(layout, report)\n    _merge_parts(layout, report)\n",
        "the manifest of an untouched run lists parts that are gone",
        f"{MANIFEST}::test_the_manifest_is_about_the_merged_parts",
    ),
    Mutation(
        "artifact-through-a-link",
        "reader/artifacts.py",
        "if os.path.realpath(self.path) != os.path.join(os.path.realpath(folder.parent), folder.name, self.name):",
        "if False:",
        "I11: a file of another folder is read as an artifact",
        f"{MANIFEST}::test_a_link_in_the_place_of_an_artifact_is_not_followed",
    ),
    # ---- readers ----
    Mutation(
        "part-read-before-it-counts",
        "reader/snapshot.py",
        "parts=[part for part in layout.parts() if part.last < next_log],",
        "parts=layout.parts(),",
        "I6: records are read from a log and from the part made of it",
        f"{READER}::test_parts_beyond_what_is_sealed_do_not_count",
    ),
    Mutation(
        "one-look-is-enough",
        "reader/snapshot.py",
        "    return None if is_over or _read_bytes(layout.sealed_json) != books else snapshot\n",
        "    return snapshot\n",
        "I6: what is sealed during a look is read twice, or not at all",
        f"{READER}::test_what_is_sealed_during_a_look_is_read_once",
    ),
    Mutation(
        "links-followed",
        "reader/snapshot.py",
        "    for folder in layout.linked_folders():\n",
        "    for folder in ():\n",
        "a folder of another is read as one of the run",
        "unit/test_names.py::test_a_folder_in_a_run_that_is_a_link_is_refused",
    ),
    # ---- imports ----
    Mutation(
        "packed-buffers-not-counted",
        "transfer/sources/untrusted.py",
        "    _check_messages(path, data, budget)\n",
        "",
        "a small file of Arrow is unpacked to any size",
        "unit/test_untrusted.py::test_an_import_takes_no_more_than_it_may[a packed buffer]",
    ),
    Mutation(
        "footer-believed",
        "transfer/sources/parquet_pages.py",
        "max(_bytes_in_pages(path, data, one), ",
        "max(one[6], ",
        "a Parquet file whose footer lies is unpacked to any size",
        "unit/test_untrusted.py::test_a_footer_that_lies_about_the_pages_is_not_believed",
    ),
)

PROVENANCE = (
    Mutation(
        "short-writes-taken-for-whole",
        "storage/parts.py",
        "        while rest:\n",
        "        if rest:\n",
        "a disk that takes a part of a write leaves a damaged part",
        "unit/test_parts.py::test_a_system_that_takes_a_part_of_each_write_loses_nothing",
    ),
    Mutation(
        "diff-cut",
        "flusher/git.py",
        "most=DIFF_BYTES_MAX + 1)",
        "most=DIFF_BYTES_MAX)",
        "a diff that is too large is kept as far as it goes, and nothing tells it",
        "unit/test_provenance.py::test_a_diff_that_is_too_large_is_told_not_cut[1-False]",
    ),
    Mutation(
        "provenance-of-another-time",
        "flusher/provenance.py",
        "            self._guarded(self._load)\n",
        "            self._guarded(self._find)\n",
        "a recovery takes the work tree of its own time for that of the run",
        "unit/test_provenance.py::test_a_recovery_does_not_take_what_it_finds_for_what_was",
    ),
    Mutation(
        "diff-of-another-attempt",
        "flusher/provenance.py",
        "layout.git_diff(latest_attempt(described)).name",
        "layout.git_diff(1).name",
        "a later attempt names the diff of the first",
        "integration/test_provenance.py::test_each_attempt_has_its_own_and_is_made_as_the_one_before",
    ),
    Mutation(
        "settings-forgotten",
        "run/resume.py",
        "    options = as_before(options, described)\n",
        "",
        "a resumed run logs with the defaults",
        f"{RESUME}::test_an_attempt_logs_as_the_one_before_unless_told_otherwise",
    ),
)

RESUMING = (
    # ---- resume.py, eventfiles.py, attempts.py ----
    Mutation(
        "resumed-without-books",
        "run/resume.py",
        "        ledger.commit(ledger.next_log, ledger.events, ledger.run_log)\n",
        "",
        "I6: the next attempt writes over the events of those before, and counts without them",
        f"{RESUME}::test_each_attempt_is_counted_apart[sinks1]",
    ),
    Mutation(
        "resumed-by-everybody",
        "run/resume.py",
        """    if described.get("complete") is not True:
        raise RunStateError(f"run {layout.dir} is running: another process has just resumed it")
    RunStatus(map_status(described.get("status")) or RUNNING).advance(RUNNING)
    _claim(layout)
""",
        "    layout.make_folders()\n",
        "two attempts are under way at once",
        f"{RESUME}::test_who_comes_a_moment_later_is_refused",
    ),
    Mutation(
        "lanes-used-again",
        "run/resume.py",
        "first_lane=ledger.lanes, unlaned=ledger.unlaned",
        "unlaned=ledger.unlaned",
        "I4: two attempts have a lane of the same number",
        f"{RESUME}::test_each_attempt_is_counted_apart[sinks0]",
    ),
    Mutation(
        "drops-counted-from-nothing",
        "run/resume.py",
        "first_lane=ledger.lanes, unlaned=ledger.unlaned",
        "first_lane=ledger.lanes",
        "I4: drops of earlier attempts are forgotten",
        f"{RESUME}::test_drops_of_processes_without_a_lane_add_up",
    ),
    Mutation(
        "next-file-stays",
        "flusher/eventfiles.py",
        "                path.unlink()  # begun by a sealer that did not come to book it\n",
        "                pass\n",
        "I6: events of a log that is not sealed stand in a file that nothing names",
        "unit/test_eventfiles.py::test_what_is_booked_is_there_once_and_in_order",
    ),
    Mutation(
        "curve-of-the-first",
        "reader/attempts.py",
        "    marks: NDArray[np.bool_] = (step >= begin) & (begin != _NEVER)\n",
        "    marks: NDArray[np.bool_] = (step > begin) & (begin != _NEVER)\n",
        "a step reads as two attempts have it",
        "unit/test_attempts.py::test_the_curve_is_of_the_latest_attempt_that_came_so_far",
    ),
)

LAUNCHES = (
    Mutation(
        "rank-joins-twice",
        "run/rendezvous.py",
        " and me.rank not in entry.ranks\n",
        "\n",
        "the second program of a rank logs into the run of the first",
        f"{RANKS}::test_two_programs_of_one_rank_are_two_runs[at once]",
    ),
    Mutation(
        "turns-mixed",
        "run/rendezvous.py",
        "is_mine = entry.turn == turn and ",
        "is_mine = ",
        "a slower rank logs into the run of another turn",
        f"{RANKS}::test_a_slower_rank_lands_in_no_run_of_another_turn[finished]",
    ),
    Mutation(
        "finished-run-taken-up",
        "run/resume.py",
        'return None if _read(layout).get("status") == SUCCESS else reopen(options, layout, turn)',
        "return reopen(options, layout, turn)",
        "restarted ranks log into a run that was finished",
        f"{RANKS}::test_ranks_that_are_started_anew_make_the_next_attempt_of_the_run",
    ),
    Mutation(
        "list-not-seen-off",
        "flusher/__main__.py",
        "        meeting.see_off(layout, _LAUNCHER_S)\n",
        "",
        "the list of a launch that ended after its runs stays in shared memory",
        f"{RANKS}::test_a_launcher_that_gives_up_its_restarts_leaves_nothing",
    ),
    Mutation(
        "cell-ends-what-is-not-its-own",
        "run/notebook.py",
        " and made.cell == now.cell and ",
        " and ",
        "a cell that is run again ends the runs of others",
        "integration/test_notebook.py::test_a_cell_that_is_run_again_finishes_the_run_that_it_had_left_open",
    ),
)

FOLLOWERS = "integration/test_followers.py"
CURRENT = "integration/test_current_run.py"
STARTS = "integration/test_starts.py"

FOLLOWING = (
    # ---- run.py, handed.py, follow.py, current.py, late.py ----
    Mutation(
        "followers-not-dismissed",
        "run/run.py",
        "            self._segment.cut_followers(self._entry.token)\n",
        "            pass\n",
        "a worker that outlives a run logs on into it",
        f"{FOLLOWERS}::test_three_runs_over_one_crew_have_their_own[pool-fork]",
    ),
    Mutation(
        "withdrawn-run-told-of",
        "segment/beacon.py",
        "        del _own.hearers[entry.begun]\n",
        "",
        "a child that is forked while its parent leaves a run logs on into it",
        f"{STARTS}::test_a_child_whose_owner_has_left_a_run_that_goes_on_is_not_in_it[after]",
    ),
    Mutation(
        "told-and-gone",
        "segment/beacon.py",
        "    time.sleep(UNSEEN_NS * 1e-9)\n",
        "",
        "a worker that has just seen that there is no run logs nothing into the one that was made",
        f"{STARTS}::test_who_has_just_seen_that_there_is_no_run_finds_the_one_that_is_made",
    ),
    Mutation(
        "run-not-withdrawn",
        "run/handed.py",
        "        _set(os.environ, _before[1])\n",
        "",
        "a program that is started after a run joins it",
        f"{CURRENT}::test_the_environment_is_as_it_was_before_the_run[None]",
    ),
    Mutation(
        "any-open-run-will-do",
        "run/current.py",
        "return Meant(runs[0]) if len(runs) == 1 else Meant(several=runs[0]._layout)",
        "return Meant(runs[0])",
        "rows of one run get into another",
        f"{FOLLOWERS}::test_what_might_belong_to_either_run_is_in_neither[joblib-threading]",
    ),
    Mutation(
        "late-drops-uncounted",
        "run/run.py",
        "        late.count(self._layout, CLOSED, records)\n",
        "        pass\n",
        "I4: what comes after the end of a run is counted nowhere",
        f"{FOLLOWERS}::test_what_is_logged_while_there_is_no_run_is_counted_in_the_last[pool-fork]",
    ),
)

EXITS = "integration/test_exits.py"
CONTAINERS = "faults/test_containers.py"

ENDING = (
    # ---- progress.py, exits.py, liveness.py, runlock.py ----
    Mutation(
        "import-is-no-progress",
        "flusher/keeper.py",
        "            with self._progress.at_work():\n                self._sealer = self._make_sealer()\n",
        "            self._sealer = self._make_sealer()\n",
        "P5: a finish gives up on a flusher that imports",
        f"{EXITS}::test_finish_waits_for_a_flusher_that_is_still_getting_ready",
    ),
    Mutation(
        "retries-are-progress",
        "flusher/progress.py",
        "        return self._sealed() <= self._stuck_at\n",
        "        return False\n",
        "I9: a finish waits without end for a disk that is full",
        "unit/test_progress.py::test_who_only_tries_again_makes_no_progress",
    ),
    Mutation(
        "exit-leaves-no-flusher",
        "run/exits.py",
        "            start_flusher(layout)  # it finds that nobody is attached, and closes the run\n",
        "",
        "P5: a run stays unsealed",
        f"{EXITS}::test_an_exit_without_a_flusher_leaves_one_behind_that_closes_the_run",
    ),
    Mutation(
        "exit-waits-for-nobody",
        "run/exits.py",
        "    deadline = time.monotonic() + _CLOSING_S if _ends_with_us() else 0.0\n",
        "    deadline = 0.0\n",
        "P8: a run is killed with its container before it is closed",
        f"{CONTAINERS}::test_a_run_is_closed_before_its_container_ends[Python-by its exit]",
    ),
    Mutation(
        "any-table-of-locks-is-relied-on",
        "storage/liveness.py",
        "    return False if all(any(name == own for name, _, _ in table) for table in tables) else None\n",
        "    return False\n",
        "I7: a run that lives is recovered",
        "unit/test_liveness.py::test_a_table_without_a_lock_of_our_own_tells_nothing",
    ),
    Mutation(
        "recovered-twice-at-once",
        "segment/runlock.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX)\n        except OSError as error:",
        "            pass\n        except OSError as error:",
        "I6: two containers recover a run at once",
        f"{CONTAINERS}::test_containers_that_recover_it_at_once_do_it_once",
    ),
)

MISTAKES_IN_PYTHON = (*FLUSHER, *STORAGE, *PROVENANCE, *RESUMING, *LAUNCHES, *FOLLOWING, *ENDING)
