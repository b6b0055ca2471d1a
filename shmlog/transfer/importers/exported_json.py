"""A JSON file that `export_run` wrote, or one with records of trueno-db or entrenar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.base.plain import from_word, plain
from shmlog.base.times import parse_us, time_in_range
from shmlog.errors import CorruptDataError, RefusedError, UnreadableError
from shmlog.records.schema import METRICS
from shmlog.records.values import is_text
from shmlog.transfer.imported import ImportedRun, Rows, owner_of
from shmlog.transfer.importers import trueno
from shmlog.transfer.importers.checked import note_superseded
from shmlog.transfer.importers.exported_table import add_description

_LANES = range(2**31)
_SEQS = range(2**60)


def read(path: Path) -> ImportedRun:
    """Return the run that was exported, or that the records describe.

    Raises
    ------
    CorruptDataError
        If the file is not such an export.
    """
    place = path if path.exists() else path.parent
    run = ImportedRun(experiment=place.stem)
    data = run.read("export", place)
    try:
        document = json.loads(data)
        is_ours = isinstance(document, dict) and "shmlog" in document
        if not is_ours and trueno.has_records(document):
            return trueno.read_document(path, place, document)
        if path != place:
            raise RefusedError(f"{place}: holds one run; import it by that name, not {path.name!r} in it")
        add_description(run, document)
        rows, events = document["metrics"], document["events"]
        if not isinstance(rows, list) or not isinstance(events, list):
            raise ValueError("metrics and events are not lists")
    except UnreadableError:
        raise
    except (ValueError, LookupError, RecursionError) as error:
        raise CorruptDataError(f"{path}: not an export of a run as JSON, or damaged ({error})") from error
    run.metrics = _metrics(run, rows)
    for i, event in enumerate(events):
        _add_event(run, f"event {i}", event)
    return run


def _metrics(run: ImportedRun, rows: list[Any]) -> pa.Table:
    records = Rows()
    curve = [row for row in rows if not (isinstance(row, dict) and row.get("superseded") is True)]
    note_superseded(run.problems, len(rows) - len(curve))
    numbers: list[tuple[int, int]] = []
    for i, row in enumerate(curve):
        fault = "not a record"
        if isinstance(row, dict):
            fault = _add(records, row) or ""
        if fault:
            run.problems.add("records left out", f"record {i}: {fault}")
        else:
            numbers.append((_number(row.get("lane"), _LANES), _number(row.get("seq"), _SEQS)))
    table = records.table()
    for at, name in enumerate(("lane", "seq")):
        column = METRICS.get_field_index(name)
        values = pa.array([pair[at] for pair in numbers], METRICS.field(column).type)
        table = table.set_column(column, METRICS.field(column), values)
    return table


def _number(value: Any, allowed: range) -> int:
    return value if type(value) is int and value in allowed else -1


def _add(records: Rows, row: dict[str, Any]) -> str | None:
    value, ts = row.get("value"), parse_us(row.get("ts"))
    if row.get("kind") == "float":
        value = from_word(value)
        value = float(value) if type(value) is int and abs(value) < 1 << 53 else value
    if ts is None or not time_in_range(ts):
        return f"{row.get('ts')!r} is not a time"
    return records.add(row.get("name"), row.get("step"), value, ts, owner_of(row))  # type: ignore[arg-type]


def _add_event(run: ImportedRun, where: str, event: Any) -> None:
    ts = parse_us(event.get("timestamp")) if isinstance(event, dict) else None
    is_sound = ts is not None and time_in_range(ts) and isinstance(event.get("data"), dict)
    if not is_sound or not is_text(json.dumps(event, ensure_ascii=False)) or type(event.get("event_type")) is not str:
        run.problems.add("events left out", f"{where} is not an event of shmlog")
        return
    try:
        data = plain(event["data"])
    except ValueError as error:
        run.problems.add("events left out", f"{where}: {error}; left out")
        return
    numbers = {"lane": _number(event.get("lane"), _LANES), "seq": _number(event.get("seq"), _SEQS)}
    run.events.append({**owner_of(event), "timestamp": ts, "event_type": event["event_type"], "data": data, **numbers})
