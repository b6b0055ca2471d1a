"""Mistakes in what may be recovered or removed, and by whom. See `tests.faults.mutations`."""

from __future__ import annotations

from tests.faults.workshop import Mutation

RECOVERY = "integration/test_recovery.py"
OTHER_MACHINE = f"{RECOVERY}::test_a_run_of_another_machine_of_the_same_name_is_not_taken_for_dead[another]"

MISTAKES_IN_RECOVERY = (
    # ---- recover.py, final.py ----
    Mutation(
        "unusable-segment-removed",
        "flusher/recover.py",
        "    if shm.may_hold_records(ref) and not force:\n",
        "    if False:\n",
        "I4: the records of a run of another version are gone",
        f"{RECOVERY}::test_shared_memory_that_can_not_be_used_is_kept[version]",
    ),
    Mutation(
        "missing-books-are-new",
        "storage/ledger.py",
        "            if layout.lacks_books():\n",
        "            if False:\n",
        "I4: a recovery without books cuts events.jsonl to nothing",
        "unit/test_books.py::test_recovery_cuts_no_file_of_which_the_books_are_missing[reboot]",
    ),
    Mutation(
        "copy-takes-the-records",
        "flusher/recover.py",
        'is_copy = original != "" and not os.path.samefile(original, layout.dir)',
        "is_copy = False",
        "I4: the records of a run are drained into a copy of it",
        f"{RECOVERY}::test_a_copy_does_not_take_the_shared_memory_of_the_run_itself",
    ),
    Mutation(
        "moved-run-refused",
        "flusher/recover.py",
        "    except OSError:  # it was moved here\n        return True\n",
        "    except OSError:  # it was moved here\n        return False\n",
        "I4: a run that was moved loses what is in shared memory",
        f"{RECOVERY}::test_a_run_that_was_moved_is_recovered_where_it_is",
    ),
    Mutation(
        "one-neighbour-ends-all",
        "flusher/recover.py",
        '            report(f"{wal.parent}: {traceback.format_exc()}")\n',
        "            return\n",
        "I10: a run.yaml that is wrong keeps all others from being recovered",
        f"{RECOVERY}::test_a_neighbour_that_can_not_be_recovered_does_not_keep_the_others_from_it",
    ),
    Mutation(
        "links-followed-at-the-end",
        "flusher/final.py",
        "    layout.refuse_links()\n    if ref is not None:\n",
        "    if ref is not None:\n",
        "P14: files that a link leads to are removed",
        f"{RECOVERY}::test_nothing_is_removed_through_a_link_in_a_run_that_is_complete[wal]",
    ),
    Mutation(
        "recovery-changes-the-folder",
        "flusher/keeper.py",
        "        rotate_bytes = settings_of(described).rotate_bytes\n",
        "        rotate_bytes = settings_of(described).rotate_bytes\n        os.chdir(self._layout.dir)\n",
        "I6: of a relative root the first run alone is recovered",
        f"{RECOVERY}::test_all_runs_of_a_relative_root_are_recovered",
    ),
    Mutation(
        "nobody-hears-of-it",
        "run/run.py",
        "            recovered.tell(self._layout)\n",
        "            pass\n",
        "P8: a run that crashed is recovered without a word",
        f"{RECOVERY}::test_the_next_run_says_which_one_it_has_recovered",
    ),
    # ---- liveness.py ----
    Mutation(
        "name-tells-the-machine",
        "storage/liveness.py",
        'here is not None and described.get("machine") == here and described.get("host")',
        'described.get("host")',
        "I7: a run that lives on another machine is recovered",
        OTHER_MACHINE,
    ),
    Mutation(
        "copied-machine-is-believed",
        "storage/liveness.py",
        " or _logged_at(layout) < machine.booted_at()",
        " or True",
        "I7: a run that lives on a machine with the same id is recovered",
        f"{RECOVERY}::test_a_run_that_was_logged_to_since_the_start_is_of_a_machine_with_the_same_id",
    ),
    Mutation(
        "any-file-is-looked-at",
        "storage/liveness.py",
        "return _may_be_ours(segment) and bool(",
        "return bool(",
        "P10: a device that a run.yaml names is opened",
        f"{RECOVERY}::test_no_other_file_is_looked_at_because_a_run_yaml_names_it",
    ),
    # ---- gc.py, doorbell.py, lockfile.py ----
    Mutation(
        "doorbell-of-a-live-run-removed",
        "segment/doorbell.py",
        "    return is_ours and not os.path.lexists(",
        "    return is_ours or not os.path.lexists(",
        "a flusher that nobody can wake",
        "integration/test_faults.py::test_gc_removes_the_doorbell_of_a_segment_that_is_gone",
    ),
    Mutation(
        "gc-lists-what-it-can-not-open",
        "segment/gc.py",
        "    if liveness.is_in_use(ref.path):",
        "    if False:",
        "I7: the segment of a live run is removed",
        f"{RECOVERY}::test_gc_lists_no_segment_that_is_in_use[version]",
    ),
    Mutation(
        "gc-removes-what-it-can-not-open",
        "segment/gc.py",
        "    elif stale.reason.startswith(_UNUSABLE):\n",
        "    elif False:\n",
        "I4: the records of a run of another version are gone",
        f"{RECOVERY}::test_gc_keeps_a_segment_that_may_hold_records_and_can_not_be_opened",
    ),
    Mutation(
        "orphan-goes-at-once",
        "segment/gc.py",
        " or marked_s < patience_s:",
        ":",
        "I4: the records of a run whose disk is not mounted are gone",
        f"{RECOVERY}::test_shared_memory_of_a_run_that_was_deleted_goes_when_that_was_not_seen_for_long",
    ),
    Mutation(
        "renamed-run-is-another",
        "flusher/recover.py",
        "    if segment.run_id not in (layout.run_id, runfile.run_id(layout)):\n",
        "    if segment.run_id != layout.run_id:\n",
        "I4: a run that was renamed loses what is in shared memory",
        f"{RECOVERY}::test_a_run_that_was_renamed_is_recovered_whole_and_read_under_any_name[by name]",
    ),
    Mutation(
        "parts-under-another-name",
        "flusher/final.py",
        "run_id=runfile.run_id(layout), parts=parts",
        "run_id=layout.run_id, parts=parts",
        "I6: the rows of a run that was renamed twice are left out",
        f"{RECOVERY}::test_a_run_that_was_renamed_is_recovered_whole_and_read_under_any_name[by name]",
    ),
    Mutation(
        "mark-for-good",
        "segment/gc.py",
        "    if is_marked != is_orphan:\n",
        "    if is_orphan and not is_marked:\n",
        "I4: the records of a run whose disk was not mounted twice are gone",
        f"{RECOVERY}::test_shared_memory_of_a_run_that_was_deleted_goes_when_that_was_not_seen_for_long",
    ),
    Mutation(
        "unbegun-is-recovered",
        "segment/gc.py",
        "        return not unbegun.is_unbegun(layout)\n",
        "        return True\n",
        "P8: what a killed init has made stays for ever",
        f"{RECOVERY}::test_nothing_is_left_of_a_process_that_was_killed_in_init[the next run]",
    ),
    Mutation(
        "umask-makes-the-mode",
        "segment/lockfile.py",
        "            os.fchmod(fd, _MODE)  # whatever the umask was\n",
        "",
        "FAULTS 3: a lock can be taken once, and then by nobody",
        f"{RECOVERY}::test_a_lock_can_be_taken_by_the_next_whatever_the_umask",
    ),
)
