"""A JSON file that `export_run` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.base.plain import from_word, plain
from shmlog.base.times import parse_us, time_in_range
from shmlog.errors import CorruptDataError
from shmlog.records.schema import METRICS
from shmlog.records.values import is_text
from shmlog.transfer.found import Found, Rows, owner_of
from shmlog.transfer.importers.checked import tell_of_superseded
from shmlog.transfer.importers.exported_table import take_description

_LANES = range(2**31)
_SEQS = range(2**60)


def read(path: Path) -> Found:
    """Return what the file tells.

    Raises
    ------
    CorruptDataError
        If it is no such file.
    """
    found = Found(experiment=path.stem)
    data = found.read("export", path)
    try:
        told = json.loads(data)
        take_description(found, told)
        rows, events = told["metrics"], told["events"]
        if not isinstance(rows, list) or not isinstance(events, list):
            raise ValueError("metrics and events are not lists")
    except (ValueError, LookupError, RecursionError) as error:
        raise CorruptDataError(f"{path}: not an export of a run as JSON, or damaged ({error})") from error
    found.metrics = _metrics(found, rows)
    for i, event in enumerate(events):
        _add_event(found, f"event {i}", event)
    return found


def _metrics(found: Found, rows: list[Any]) -> pa.Table:
    taken = Rows()
    curve = [row for row in rows if not (isinstance(row, dict) and row.get("superseded") is True)]
    tell_of_superseded(found.problems, len(rows) - len(curve))
    numbers: list[tuple[int, int]] = []
    for i, row in enumerate(curve):
        fault = "no record"
        if isinstance(row, dict):
            fault = _add(taken, row) or ""
        if fault:
            found.problems.add("records left out", f"record {i}: {fault}")
        else:
            numbers.append((_number(row.get("lane"), _LANES), _number(row.get("seq"), _SEQS)))
    table = taken.table()
    for at, name in enumerate(("lane", "seq")):
        column = METRICS.get_field_index(name)
        values = pa.array([pair[at] for pair in numbers], METRICS.field(column).type)
        table = table.set_column(column, METRICS.field(column), values)
    return table


def _number(value: Any, allowed: range) -> int:
    return value if type(value) is int and value in allowed else -1


def _add(taken: Rows, row: dict[str, Any]) -> str | None:
    value, ts = row.get("value"), parse_us(row.get("ts"))
    if row.get("kind") == "float":
        value = from_word(value)
        value = float(value) if type(value) is int and abs(value) < 1 << 53 else value
    if ts is None or not time_in_range(ts):
        return f"{row.get('ts')!r} is not a time"
    return taken.add(row.get("name"), row.get("step"), value, ts, owner_of(row))  # type: ignore[arg-type]


def _add_event(found: Found, where: str, event: Any) -> None:
    ts = parse_us(event.get("timestamp")) if isinstance(event, dict) else None
    is_sound = ts is not None and time_in_range(ts) and isinstance(event.get("data"), dict)
    if not is_sound or not is_text(json.dumps(event, ensure_ascii=False)) or type(event.get("event_type")) is not str:
        found.problems.add("events left out", f"{where} is not ours")
        return
    try:
        data = plain(event["data"])
    except ValueError as error:
        found.problems.add("events left out", f"{where}: {error}; left out")
        return
    numbers = {"lane": _number(event.get("lane"), _LANES), "seq": _number(event.get("seq"), _SEQS)}
    told = {"timestamp": ts, "event_type": event["event_type"], "data": data}
    found.events.append({**owner_of(event), **told, **numbers})
