"""Checks of events.jsonl and of the files that it goes on in."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shmlog.errors import UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.reader.event_lines import Line, fault_of, is_call, read_lines, table_of_calls
from shmlog.reader.snapshot import Snapshot
from shmlog.reader.tally import Tally, gap_of
from shmlog.reader.verify.files import check_extent, check_large
from shmlog.reader.verify.numbers import Numbers
from shmlog.reader.verify.report import Report
from shmlog.records.lanes import NODE, Lane, lane_keys
from shmlog.records.schema import with_node

_FAULTS_NAMED = 5
_LINES_AT_ONCE = 50_000


def check(
    layout: RunLayout, snapshot: Snapshot, numbers: Numbers, of_calls: Numbers, tally: Tally, report: Report
) -> None:
    """Check the lines; add the numbers of events and gaps, and apart from them those of metrics."""
    _check_size(layout, snapshot, report)
    has_calls = snapshot.has_sink("jsonl")
    for path, most in snapshot.event_files(layout):
        check_extent(path, layout, snapshot, report)
        for portion in _portions(layout, path, most, report):
            calls = [event for event in portion if has_calls and is_call(event)]
            _check_calls(calls, of_calls, tally if snapshot.metrics_are_lines else None, report)
            _check_others([e for e in portion if not (has_calls and is_call(e))], layout, numbers, tally, report)


def _portions(layout: RunLayout, path: Path, most: int | None, report: Report) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of a file, many at once; report the lines that are not events."""
    faults = _Faults(path, report)
    try:
        lines = faults.sound(read_lines(path, most, files=layout.files))
        while portion := list(itertools.islice(lines, _LINES_AT_ONCE)):
            yield portion
    except UnreadableError as error:
        report.error(path, str(error).removeprefix(f"{path}: "))
    except OSError as error:
        report.error(path, f"can't be read ({error.strerror})")
    faults.report_rest()


def _check_size(layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    if snapshot.complete and snapshot.files:
        counted = {path for path, _ in snapshot.event_files(layout)}
        for path in layout.event_files().values():
            if path not in counted:
                report.error(path, "the run has not written it; move it away if it is yours")
    state = layout.files.state(layout.events)
    size = state.st_size if state and stat.S_ISREG(state.st_mode) else 0
    if not snapshot.files and size < (snapshot.events_bytes or 0):
        report.error(layout.events, f"has {size} bytes; {snapshot.events_bytes} were written")


class _Faults:
    """Reports the first lines that are not ours, and counts the rest."""

    def __init__(self, path: Path, report: Report) -> None:
        self._path = path
        self._report = report
        self._count = 0

    def sound(self, lines: Iterator[Line]) -> Iterator[dict[str, Any]]:
        """Yield the events of the lines without a fault."""
        for line in lines:
            fault = _fault(line)
            if fault is None and line.event is not None:
                yield line.event
                continue
            self._count += 1
            if self._count <= _FAULTS_NAMED:
                self._report.error(self._path, f"{fault}, {line.size} bytes at byte {line.offset}")

    def report_rest(self) -> None:
        if self._count > _FAULTS_NAMED:
            self._report.error(self._path, f"{self._count - _FAULTS_NAMED} more lines like that")


def _fault(line: Line) -> str | None:
    if not line.is_whole:
        return "a last line without its end"
    return "not a line of JSON" if line.event is None else fault_of(line.event)


def _check_calls(calls: list[dict[str, Any]], of_calls: Numbers, tally: Tally | None, report: Report) -> None:
    """Add the metrics in some lines; those that stand in parts, too, are counted there."""
    table = with_node(table_of_calls(calls), NODE)
    of_calls.add(lane_keys(table), table["seq"].to_numpy())
    if tally is not None:
        tally.add_metrics(table)
        report.counts["rows"] += table.num_rows


def _check_others(
    events: list[dict[str, Any]], layout: RunLayout, numbers: Numbers, tally: Tally, report: Report
) -> None:
    gaps = [gap_of(event) for event in events]
    counts = [1 if gap is None else sum(gap.values()) for gap in gaps]
    runs = [(Lane.of_line(e).key, e["seq"], count) for e, count in zip(events, counts, strict=True)]
    numbers.add(*np.array(runs, np.int64).reshape(-1, 3).T)
    report.counts["events"] += gaps.count(None)
    for event in events:
        tally.add_event(event)
        check_large(event["data"], layout, report)
