"""Check every promise of a run that its files can show.

Each file is looked at by itself, so that a damaged one is named and hides
nothing about the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmlog.errors import RunNotFoundError, UnreadableError
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.reader.snapshot import Snapshot, take
from shmlog.reader.tally import Producer, Tally
from shmlog.reader.verify import events, files, logs, manifest, parts
from shmlog.reader.verify.numbers import Numbers, Problem
from shmlog.reader.verify.report import Report
from shmlog.records.lanes import Lane
from shmlog.records.ledger import lost_of
from shmlog.records.producers import is_folded, sum_dropped

_TRIES = 20


def verify(run_dir: str | os.PathLike[str]) -> Report:
    """Check the files of a run: checksums, numbering of every lane, counts.

    Each lane's metrics, events and gaps must number 0 … n without a hole or a duplicate,
    and the books (in run.yaml, or in wal/sealed.json of a run that is not complete) must
    say of each producer what the files hold. Artifacts must be what was logged, and the files of a run
    that is over what manifest.json lists.

    Parameters
    ----------
    run_dir : path
        Folder of a run, live or not. Nothing in it is changed.

    Raises
    ------
    RunNotFoundError
        If there is no run.yaml. Whatever else is wrong stands in the report.
    """
    layout = RunLayout(run_dir)
    if not layout.files.is_file(layout.run_yaml):
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml; pass the folder of one run")
    for _ in range(_TRIES):
        report = Report(layout.dir)
        try:
            snapshot = take(layout)
        except UnreadableError as error:
            report.error(layout.dir, str(error))
            return report
        except OSError as error:
            report.error(Path(error.filename or layout.dir), f"can't be read ({error.strerror})")
            return report
        _Check(layout, snapshot, report).run()
        if snapshot.is_still_there(layout):
            return report
    report.error(layout.dir, "its parts keep changing; verify a copy")
    return report


class _Check:
    """The checks of one run, and what they have counted."""

    def __init__(self, layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
        self._layout = layout
        self._snapshot = snapshot
        self._report = report
        self._numbers = Numbers()  # of all records
        self._sealed = Tally()  # of those that the books are about

    def run(self) -> None:
        for path, reason in self._snapshot.problems:
            self._report.error(path, reason.removeprefix(f"{path}: "))
        files.check_description(self._layout, self._snapshot, self._report)
        of_parts, of_lines = Numbers(), Numbers()
        parts.check(self._layout, self._snapshot, of_parts, self._sealed, self._report)
        events.check(self._layout, self._snapshot, self._numbers, of_lines, self._sealed, self._report)
        if not self._snapshot.overlaps:
            # Else logs hold again what is sealed, and how much of it is not known.
            logs.check(self._layout, self._snapshot, self._numbers, self._report)
        damaged = not self._report.ok
        self._compare_sinks(of_parts, of_lines, damaged)
        self._numbers.update(of_lines if self._snapshot.metrics_are_lines else of_parts)
        for problem in self._numbers.problems():
            self._tell(problem, damaged)
        self._check_books(damaged)
        logs.check_kept(self._layout, self._snapshot, self._report)
        manifest.check(self._layout, self._snapshot, self._report)
        files.check_late(self._layout, self._report)
        files.check_leftovers(self._layout, self._snapshot, self._report)

    def _compare_sinks(self, of_parts: Numbers, of_lines: Numbers, damaged: bool) -> None:
        """Metrics that go both into parts and into events.jsonl must be the same there."""
        lines_are_all = self._snapshot.has_sink("jsonl") and not self._snapshot.metrics_are_lines and not damaged
        if lines_are_all and not of_parts.is_same(of_lines):
            self._report.error(self._layout.events, "the metrics in it are not those in the parts")

    def _tell(self, problem: Problem, damaged: bool) -> None:
        what = "stand twice" if problem.is_duplicate else "are missing"
        message = f"{problem.lane}: {problem.amount} numbers {what}, the first is {problem.first}"
        if damaged and not problem.is_duplicate:
            self._report.warning(self._layout.dir, f"{message}; what is damaged may have held them")
        else:
            self._report.error(self._layout.dir, message)

    # ---- books ----

    def _check_books(self, damaged: bool) -> None:
        snapshot = self._snapshot
        path = self._layout.run_yaml if snapshot.complete else self._layout.sealed_json
        if snapshot.overlaps or any(damaged_path == path for damaged_path, _ in snapshot.problems):
            return  # there are no books, which was reported
        if snapshot.producers is None:
            self._report.error(path, "its list of producers is damaged")
            return
        booked, held = _booked(snapshot.producers), self._sealed.counts()
        folded = _pool_folded(snapshot.producers, booked, held)
        for lane, pid in sorted(booked.keys() | held.keys()):
            of_books, of_files = booked.get((lane, pid), {}), held.get((lane, pid), {})
            who = "all that are not listed one by one" if (lane, pid) in folded else f"pid {pid}"
            self._compare(path, f"{lane}, {who}", of_books, of_files, damaged)
        self._check_lost(path, snapshot.producers)
        if snapshot.complete:
            self._check_totals(snapshot.described, snapshot.producers)

    def _check_lost(self, path: Path, producers: list[dict[str, Any]]) -> None:
        for lane, count in sorted(lost_of(producers, self._snapshot.offered).items()):
            if count > 0:
                where = (
                    f"the logs that held them lie in {self._layout.kept}, as far as these are not damaged themselves"
                )
                self._report.error(path, f"{lane}: {count} records are neither booked nor dropped: lost; {where}")
            else:
                self._report.error(path, f"{lane}: {-count} records more are booked than there were")

    def _compare(self, path: Path, who: str, booked: Mapping[str, int], held: Mapping[str, int], damaged: bool) -> None:
        for what in sorted(set(booked) | set(held)):
            there, due = held.get(what, 0), booked.get(what, 0)
            if there == due:
                continue
            message = f"{who}: {due} {what} are booked, the files hold {there}"
            if damaged and there < due:
                self._report.warning(path, f"{message}; what is damaged may have held them")
            else:
                self._report.error(path, message)

    def _check_totals(self, described: Description, producers: list[dict[str, Any]]) -> None:
        path = self._layout.run_yaml
        total = self._snapshot.dropped
        for reason, count in sum_dropped(producers).items():
            if total.get(reason, 0) < count:
                self._report.error(path, f"{total.get(reason, 0)} drops in all ({reason}), {count} of producers")
        sums = {what: sum(producer[what] for producer in producers) for what in ("metrics", "events")}
        counts = described.counts
        if not isinstance(counts, dict):
            self._report.error(path, "it has no counts")
            return
        for what, due in {**sums, "dropped": sum(total.values())}.items():
            if counts.get(what) != due:
                self._report.error(path, f"counts {counts.get(what)} {what}, the sum over its lists is {due}")


def _booked(producers: list[dict[str, Any]]) -> dict[Producer, dict[str, int]]:
    """Return what the books say of each lane and process, as `Tally.counts` does of the files."""
    booked: dict[Producer, dict[str, int]] = {}
    for producer in producers:
        pid = producer.get("pid")
        entry = booked.setdefault((Lane.of_producer(producer), pid if type(pid) is int else -1), {})
        dropped = {f"drops ({reason})": n for reason, n in producer["dropped"].items()}
        for what, n in {"metrics": producer["metrics"], "events": producer["events"], **dropped}.items():
            entry[what] = entry.get(what, 0) + n
    return booked


def _pool_folded(
    producers: list[dict[str, Any]], booked: dict[Producer, dict[str, int]], held: dict[Producer, dict[str, int]]
) -> set[Producer]:
    """Move in ``held`` what folded producers have logged, whose pids the books lack, to the keys of their entries.

    A process that the books do list may have had the lane before, too, or another one of the same pid. So what the
    files hold of it beyond its own count belongs to the folded entry.

    Returns
    -------
    set
        The keys of those entries.
    """
    folded = {(Lane.of_producer(p), -1) for p in producers if is_folded(p) and p.get("pid") is None}
    for (lane, pid), counts in list(held.items()):
        if (lane, -1) in folded and pid != -1:
            pooled, due = held.setdefault((lane, -1), {}), booked.get((lane, pid), {})
            for what, count in counts.items():
                counts[what] = min(count, due.get(what, 0))
                pooled[what] = pooled.get(what, 0) + count - counts[what]
    return folded
