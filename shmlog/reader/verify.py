"""Check every promise of a run that its files can show.

Each file is looked at by itself, so that a damaged one is named and hides
nothing about the others.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shmlog.errors import CorruptDataError, RunNotFoundError
from shmlog.reader import snapshot
from shmlog.reader.lines import metrics_of_lines
from shmlog.storage import jsonl, parts, runfile
from shmlog.storage.layout import TEMPORARY_SUFFIX, RunLayout

ERROR, WARNING = "error", "warning"
_HOLES_TOLD = 5


class Finding(NamedTuple):
    """Something that is not as it should be, and the file it was found in."""

    severity: str  # "error": data are missing or wrong; "warning": nothing is lost
    file: Path
    message: str


@dataclass
class Report:
    """What `verify` found.

    Attributes
    ----------
    findings : list of Finding
    counts : dict of str to int
        What was looked at: logs, frames, parts, rows, events.
    """

    run_dir: Path
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("parts", "logs", "rows", "events"), 0))

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not any(finding.severity == ERROR for finding in self.findings)

    def error(self, file: Path, message: str) -> None:
        """Book damage."""
        self.findings.append(Finding(ERROR, file, message))

    def warning(self, file: Path, message: str) -> None:
        """Book something that is no loss."""
        self.findings.append(Finding(WARNING, file, message))


#: Numbers that a lane has given out: for each lane, arrays of first numbers and of how many.
_Numbers = dict[int, list[tuple[NDArray[np.int64], NDArray[np.int64]]]]


def verify(run_dir: str | os.PathLike[str]) -> Report:
    """Check the files of a run: checksums, numbering of every lane, counts.

    Each lane's metrics, events and gaps must number 0 … n without a hole or a
    duplicate, and the counts in run.yaml must be those of the files.

    Raises
    ------
    RunNotFoundError
        If there is no run.yaml. Whatever else is wrong stands in the report.
    """
    layout = RunLayout(run_dir)
    if not layout.run_yaml.is_file():
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml; pass the folder of one run")
    report = Report(layout.dir)
    described = _check_text_files(layout, report)
    try:
        taken = snapshot.take(layout)
    except (CorruptDataError, OSError) as error:
        report.error(layout.sealed_json, str(error))
        return report
    _check_records(layout, taken, described, report)
    _check_leftovers(layout, report)
    return report


def _check_text_files(layout: RunLayout, report: Report) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for path in (layout.run_yaml, layout.config_yaml):
        try:
            found = runfile.read(path)
        except (CorruptDataError, OSError) as error:
            report.error(path, str(error))
        else:
            described = found if path == layout.run_yaml else described
    if described and described.get("run_id") != layout.run_id:
        report.warning(layout.run_yaml, f"says run {described.get('run_id')!r}: the folder was renamed or copied")
    for lane in described.get("damaged_lanes") or ():
        report.error(layout.run_yaml, f"lane {lane} was damaged in shared memory: what it held is lost")
    return described


def _check_records(layout: RunLayout, taken: snapshot.Snapshot, described: dict[str, Any], report: Report) -> None:
    numbers: _Numbers = defaultdict(list)
    metrics = events = 0
    for part in taken.parts:
        metrics += _guarded(report, part.path, lambda path=part.path: _check_part(path, numbers))  # type: ignore[misc]
        report.counts["parts"] += 1
    for batch in taken.batches(layout.dir):
        metrics += _add_rows(numbers, batch.metrics)
        events += len(batch.events)
        for event in batch.events:
            _add(numbers, event.lane, event.seq, 1)
        for gap in batch.gaps:
            _add(numbers, gap.lane, gap.seq, sum(gap.dropped.values()))
        for damage in batch.damage:
            report.error(damage.path, damage.reason)
    _report_damage(taken, report)
    report.counts["logs"] = len(taken.logs)
    in_lines, lines = _check_events(layout, taken, described, numbers, report)
    report.counts["rows"] = metrics + in_lines
    report.counts["events"] = events + lines
    _check_numbers(numbers, layout, report)
    _check_counts(taken, report)


def _report_damage(taken: snapshot.Snapshot, report: Report) -> None:
    for damage in taken.damage:
        # Killed in the middle of a write, a flusher leaves a torn tail; what it held was written again.
        book = report.warning if damage.reason == "torn tail" else report.error
        book(damage.path, f"{damage.reason}: {damage.length} bytes at {damage.offset}")


def _guarded(report: Report, path: Path, check: Callable[[], int]) -> int:
    try:
        return check()
    except (CorruptDataError, OSError, pa.ArrowException) as error:
        report.error(path, str(error))
        return 0


def _check_part(path: Path, numbers: _Numbers) -> int:
    """Read all pages, so that all checksums are looked at."""
    return _add_rows(numbers, parts.read_part(path))


def _add_rows(numbers: _Numbers, table: pa.Table) -> int:
    lanes = table["lane"].to_numpy()
    seq = table["seq"].to_numpy()
    for lane in np.unique(lanes):
        found = seq[lanes == lane]
        numbers[int(lane)].append((found, np.ones(len(found), np.int64)))
    return int(table.num_rows)


def _add(numbers: _Numbers, lane: int, seq: int, count: int) -> None:
    numbers[lane].append((np.array([seq], np.int64), np.array([count], np.int64)))


def _check_events(
    layout: RunLayout, taken: snapshot.Snapshot, described: dict[str, Any], numbers: _Numbers, report: Report
) -> tuple[int, int]:
    """Return the metric records that only stand in events.jsonl, and the events."""
    found, damage = jsonl.read_events(layout.events, taken.events_bytes)
    for piece in damage:
        report.error(piece.path, f"{piece.reason} at byte {piece.offset}")
    events = 0
    for event in found:
        if event.get("event_type") == "metrics":
            continue
        try:
            is_gap = event["event_type"] == jsonl.GAP_TYPE and event["data"].keys() == {"dropped"}
            count = sum(event["data"]["dropped"].values()) if is_gap else 1
            _add(numbers, int(event["lane"]), int(event["seq"]), int(count))
        except (KeyError, TypeError, ValueError, AttributeError):
            report.error(layout.events, f"not an event of shmlog: {json.dumps(event)[:80]}")
            continue
        events += not is_gap
    if "parquet" in described.get("sinks", ("parquet",)):
        return 0, events
    return _add_rows(numbers, metrics_of_lines(layout.events, taken.events_bytes)), events


def _check_numbers(numbers: _Numbers, layout: RunLayout, report: Report) -> None:
    for lane, pieces in sorted(numbers.items()):
        first = np.concatenate([piece[0] for piece in pieces])
        count = np.concatenate([piece[1] for piece in pieces])
        order = np.argsort(first, kind="stable")
        first, count = first[order], count[order]
        due = np.concatenate(([0], (first + count)[:-1]))
        wrong = np.flatnonzero(first != due)
        for i in wrong[:_HOLES_TOLD]:
            what = "missing" if first[i] > due[i] else "there twice"
            low, high = sorted((int(first[i]), int(due[i])))
            report.error(layout.dir, f"lane {lane}: seq {low} … {high - 1} {what}")
        if len(wrong) > _HOLES_TOLD:
            report.error(layout.dir, f"lane {lane}: {len(wrong) - _HOLES_TOLD} more places are wrong")


def _check_counts(taken: snapshot.Snapshot, report: Report) -> None:
    """Hold run.yaml's counts, written when the run was closed, against the files."""
    told = taken.described.get("counts")
    if not taken.described.get("complete") or not isinstance(told, dict):
        return
    for what, found in (("metrics", report.counts["rows"]), ("events", report.counts["events"])):
        if told.get(what) != found:
            report.error(report.run_dir / "run.yaml", f"counts {told.get(what)} {what}, the files hold {found}")


def _check_leftovers(layout: RunLayout, report: Report) -> None:
    for folder in (layout.dir, layout.metrics, layout.wal):
        for path in sorted(folder.glob(f"*{TEMPORARY_SUFFIX}")):
            report.warning(path, "a temporary file that was never completed; it can be deleted")
