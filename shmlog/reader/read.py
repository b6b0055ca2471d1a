"""Metrics and events from the files that a snapshot holds together.

What is damaged is left out and reported; a part's records that stand in
events.jsonl as well are taken from there.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.folder.files import RunFiles
from shmlog.folder.layout import Part, RunLayout
from shmlog.reader.belonging import own_parts
from shmlog.reader.event_lines import Line, fault_of, is_call, read_lines, table_of_calls
from shmlog.reader.snapshot import Snapshot
from shmlog.records import parts
from shmlog.records.lanes import NODE, Lane, lane_keys
from shmlog.records.lines import METRICS_TYPE, event_lines
from shmlog.records.merge import names_of
from shmlog.records.order import sort_by_name, sort_rows, take_rows
from shmlog.records.schema import METRICS, OF_NODES, with_node
from shmlog.records.wal import Damage

_LINES_AT_ONCE = 50_000
_ROWS_AT_ONCE = 1 << 18


def is_pattern(names: str) -> bool:
    """Whether a string may stand for several names."""
    return any(mark in names for mark in "*?[")


# ---- metrics ----


def read_metrics(layout: RunLayout, snapshot: Snapshot, names: str | list[str] | None) -> tuple[pa.Table, list[str]]:
    """Return the metrics that are wanted, in order and of schema `OF_NODES`, and what is damaged.

    Raises
    ------
    FileNotFoundError
        If a part has gone.
    """
    wanted = [names] if isinstance(names, str) else names
    if isinstance(names, str) and is_pattern(names):
        known = read_names(layout, snapshot)[0]
        wanted = [names] if names in known else [name for name in known if fnmatch.fnmatchcase(name, names)]
    sealed, overlaps, problems = _sealed_tables(layout, snapshot, wanted)
    unsealed, problems_of_logs = _unsealed_tables(layout, snapshot)
    tables = sealed + [table if wanted is None else parts.only_names(table, wanted) for table in unsealed]
    table = pa.concat_tables([OF_NODES.empty_table(), *tables]).unify_dictionaries()
    if overlaps:
        table = _without_duplicates(table)
    return sort_rows(table), problems + problems_of_logs


def read_pieces(layout: RunLayout, snapshot: Snapshot, problems: list[str]) -> Iterator[pa.Table]:
    """Yield all metrics in pieces that take little memory, schema `OF_NODES`; add what is damaged to ``problems``.

    The rows of a piece are ordered by name, step, time, lane and seq; the pieces are in no order. Where metrics may
    stand in several files, all of them are one piece.

    Raises
    ------
    FileNotFoundError
        If a part has gone.
    """
    if snapshot.overlaps or snapshot.has_sink("jsonl"):
        table, found = read_metrics(layout, snapshot, None)
        problems += found
        yield sort_by_name(table)
        return
    own, found = own_parts(layout, snapshot)
    problems += found
    for part in own:
        pieces = _pieces_of(part, layout.files)
        while True:
            try:
                piece = guarded(part.path, lambda pieces=pieces: next(pieces, None))
            except UnreadableError as error:
                problems.append(f"{error}; the rest of its records is left out")
                break
            if piece is None:
                break
            yield piece
    unsealed, found = _unsealed_tables(layout, snapshot)
    problems += found
    yield from map(sort_by_name, unsealed)


def _pieces_of(part: Part, files: RunFiles) -> Iterator[pa.Table]:
    with parts.open_file(part.path, files) as file:
        for group in file.groups:
            for piece in file.batches(group, _ROWS_AT_ONCE):
                yield with_node(_checked(piece), part.node)


def read_names(layout: RunLayout, snapshot: Snapshot) -> tuple[list[str], list[str]]:
    """Return the names of all metrics, sorted, and what is damaged."""
    names: set[str] = set()
    tables, problems_of_logs = _unsealed_tables(layout, snapshot)
    own, problems = own_parts(layout, snapshot)
    for part in own:
        try:
            names.update(guarded(part.path, lambda part=part: names_of([part], layout.files)))
        except UnreadableError as error:
            problems.append(str(error))
    if snapshot.metrics_are_lines or (problems and snapshot.has_sink("jsonl")):
        tables.append(read_calls(layout, snapshot))
        problems += faults_of_lines(layout, snapshot)
    for table in tables:
        names.update(table["name"].unique().to_pylist())
    return sorted(names), problems + problems_of_logs


def _sealed_tables(
    layout: RunLayout, snapshot: Snapshot, wanted: list[str] | None
) -> tuple[list[pa.Table], bool, list[str]]:
    """Return the tables of what is sealed, whether they may overlap, and what is damaged."""
    tables: list[pa.Table] = []
    own, problems = own_parts(layout, snapshot)
    from_lines = snapshot.metrics_are_lines or (bool(problems) and snapshot.has_sink("jsonl"))
    for rows in _read_parts(layout, own, wanted):
        if isinstance(rows, pa.Table):
            tables.append(rows)
            continue
        from_lines = from_lines or snapshot.has_sink("jsonl")
        rest = "what events.jsonl has of it is used" if from_lines else "its records are left out"
        problems.append(f"{rows}; {rest}")
    if from_lines:
        calls = read_calls(layout, snapshot)
        problems += faults_of_lines(layout, snapshot)
        tables.append(calls if wanted is None else parts.only_names(calls, wanted))
    return tables, snapshot.overlaps or (from_lines and bool(own)), problems


def _read_parts(layout: RunLayout, own: list[Part], wanted: list[str] | None) -> list[pa.Table | UnreadableError]:
    """Return the rows of each part, or what is wrong with it."""

    def read(part: Part) -> pa.Table | UnreadableError:
        try:
            return with_node(read_part(part.path, wanted, layout.files), part.node)
        except UnreadableError as error:
            return error

    return [read(part) for part in own]


def _unsealed_tables(layout: RunLayout, snapshot: Snapshot) -> tuple[list[pa.Table], list[str]]:
    tables: list[pa.Table] = []
    problems: list[str] = []
    for batch, damage in snapshot.batches(layout):
        tables.append(with_node(batch.metrics, NODE))
        problems += texts_of(damage)
    return tables, problems


def texts_of(damage: list[Damage]) -> list[str]:
    """Return what to say of damaged stretches of logs."""
    return [f"{piece.path}: {piece.reason} at byte {piece.offset}; left out" for piece in damage]


def read_part(path: Path, names: list[str] | None, files: RunFiles) -> pa.Table:
    """Return the rows of a part; raises CorruptDataError whatever is wrong inside, FileNotFoundError."""
    return guarded(path, lambda: _checked(parts.read_part(path, names, files)))


def _checked(table: pa.Table) -> pa.Table:
    """Return a table with its columns as they should be; raises what pyarrow does if values make no sense."""
    if not table.schema.equals(METRICS):
        table = table.cast(METRICS)
    table.validate(full=True)
    return table


def guarded(path: Path, read: Any) -> Any:
    """Return what ``read()`` returns; raise CorruptDataError if the file's bytes make it fail."""
    try:
        return read()
    except UnreadableError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise  # the system's, not the file's
        raise CorruptDataError(f"{path}: damaged ({_first_line(error)})") from error
    except (pa.ArrowException, ValueError, TypeError, LookupError, MemoryError, OverflowError) as error:
        raise CorruptDataError(f"{path}: damaged ({_first_line(error)})") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def faults_of_lines(layout: RunLayout, snapshot: Snapshot) -> list[str]:
    """Return what is wrong with events.jsonl as a whole."""
    known = {path: snapshot.files[path.name] for path, _ in snapshot.event_files(layout) if path.name in snapshot.files}
    faults = {path: extent.fault(path, layout.files) for path, extent in known.items()}
    return [f"{path}: {fault}" for path, fault in faults.items() if fault]


def read_calls(layout: RunLayout, snapshot: Snapshot) -> pa.Table:
    """Return the metrics of the lines of events.jsonl that count, schema `OF_NODES`."""
    files = snapshot.event_files(layout)
    events = (line.event for path, most in files for line in _readable_lines(layout, path, most))
    calls = (event for event in events if event and is_call(event) and fault_of(event) is None)
    tables = [OF_NODES.empty_table()]
    while portion := list(itertools.islice(calls, _LINES_AT_ONCE)):
        tables.append(with_node(table_of_calls(portion), NODE))
    return pa.concat_tables(tables).unify_dictionaries()


def _readable_lines(layout: RunLayout, path: Path, most: int | None) -> Iterator[Line]:
    """Yield the lines of a file; none if it is not a file of lines, which `faults_of_lines` reports."""
    with suppress(UnreadableError):
        yield from read_lines(path, most, files=layout.files)


def _without_duplicates(table: pa.Table) -> pa.Table:
    """Return the first row of each lane and number."""
    if not table.num_rows:
        return table
    lane, seq = lane_keys(table), table["seq"].to_numpy()
    order = np.lexsort((seq, lane))
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(lane[order]) != 0) | (np.diff(seq[order]) != 0)
    return take_rows(table, np.sort(order[is_first]))


# ---- events ----


def read_events(
    layout: RunLayout, snapshot: Snapshot, event_type: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the events of a type, or all but the metrics, in order, and what is damaged."""
    has_calls = snapshot.has_sink("jsonl")

    def is_wanted(event: dict[str, Any]) -> bool:
        if event_type is not None:
            return event.get("event_type") == event_type
        return not (has_calls and is_call(event))

    skip_calls = has_calls and event_type != METRICS_TYPE
    events: list[dict[str, Any]] = []
    problems: list[str] = []
    for path, most in snapshot.event_files(layout):
        lines = read_lines(path, most, skip_calls=skip_calls, files=layout.files)
        of_file, problems_of_file = _sort_out(path, lines, is_wanted)
        events += of_file
        problems += problems_of_file
    problems += faults_of_lines(layout, snapshot)
    unsealed = []
    for batch, damage in snapshot.batches(layout):
        with_metrics = has_calls and event_type == METRICS_TYPE
        chunks = b"".join(event_lines(batch, metrics=with_metrics))
        unsealed += [json.loads(line) for line in chunks.split(b"\n") if line]
        problems += texts_of(damage)
    events += filter(is_wanted, unsealed)
    return _without_repetitions(events) if snapshot.overlaps else events, problems


def _sort_out(path: Path, lines: Any, is_wanted: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the wanted events of some lines, and what to say of those that are not events."""
    wanted: list[dict[str, Any]] = []
    bad: list[Line] = []
    try:
        for line in lines:
            if line.event is None:
                bad.append(line)
            elif is_wanted(line.event):
                wanted.append(line.event)
    except UnreadableError as error:
        return wanted, [f"{error}; left out"]
    if not bad:
        return wanted, []
    return wanted, [f"{path}: {len(bad)} lines that are not JSON, the first at byte {bad[0].offset}; left out"]


def _without_repetitions(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first event of each lane and number."""
    first: dict[Any, dict[str, Any]] = {}
    for i, event in enumerate(events):
        first.setdefault((Lane.of_line(event), event["seq"]) if fault_of(event) is None else i, event)
    return list(first.values())
