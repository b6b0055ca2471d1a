"""The lines of events.jsonl one by one: which are ours, and the metrics in them.

JSON keeps the kinds apart: an integer is an int, a number with a fraction or an
exponent a float, true and false are bools, strings are texts; the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` are read as floats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from shmlog.base.plain import WORDS, from_word
from shmlog.base.times import read_time, rfc3339
from shmlog.folder.files import LOCAL, RunFiles, lines_of
from shmlog.reader.verify.numbers import NUMBER_MAX
from shmlog.records import words
from shmlog.records.lines import METRICS_TYPE, is_of_user
from shmlog.records.schema import METRICS
from shmlog.records.values import INT32, INT64, PRODUCER, RANKS, VALUE_COLUMNS, cells_of, is_text, value_in

_LANE = range(2**31)
_SEQ = range(NUMBER_MAX)


Event = dict[str, Any]
"""What a line of events.jsonl says."""


class Line(NamedTuple):
    """A line that is not empty; ``event`` is None if it is not a JSON object by RFC 8259."""

    offset: int
    size: int
    event: dict[str, Any] | None
    is_whole: bool


# The bytes of a line of metrics behind its timestamp. Nearly all lines of a long file are
# such lines, and comparing these bytes costs a tenth of parsing the line.
_CALL_AT = len('{"timestamp":"2026-11-21T03:15:22.123456Z",')
_CALL = b'"event_type":"metrics","data":{"step":'


def read_lines(
    path: Path, limit_bytes: int | None, *, skip_calls: bool = False, of_others: bool = False, files: RunFiles = LOCAL
) -> Iterator[Line]:
    """Yield the lines of a file, or of its first bytes, with memory for one; none if there is no file.

    With ``skip_calls``, lines of metrics are left out unparsed. With ``of_others``, a line may have what other loggers
    write: NaN and Infinity, as Python's json does, and a byte order mark at its begin. A hole in a large file, such as
    a loss of power leaves, counts as a line that is not JSON, and so do the cut lines around it.

    Raises
    ------
    RefusedError
        If the path is not a regular file.
    """
    offset = 0
    try:
        opened = files.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    with opened as file:
        for line in lines_of(file):
            if limit_bytes is not None and offset >= limit_bytes:
                return
            if isinstance(line, int):
                yield Line(offset, line, None, True)
                offset += line
                continue
            text = line if limit_bytes is None else line[: limit_bytes - offset]
            if not text:
                return
            if text != b"\n" and not (skip_calls and text.startswith(_CALL, _CALL_AT)):
                yield Line(offset, len(text), parse(text, of_others=of_others), text.endswith(b"\n"))
            offset += len(text)


def parse(line: bytes, *, of_others: bool = False) -> dict[str, Any] | None:
    """Return the object that a line holds, see `read_lines`; None if it holds none."""
    try:
        if of_others:
            event = json.loads(line.decode("utf-8-sig"))
        else:
            event = json.loads(line.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number of JSON")
    return number


def fault_of(event: dict[str, Any]) -> str | None:
    """Return what keeps a JSON object from being a line of events.jsonl, or None."""
    if not isinstance(event.get("event_type"), str):
        return "event_type is not a string"
    if not isinstance(event.get("data"), dict):
        return "data is not an object"
    if not _is_in(event.get("lane"), _LANE) or not _is_in(event.get("seq"), _SEQ):
        return "lane or seq is not a number"
    for name in (*RANKS, "pid"):
        if event.get(name) is not None and not _is_in(event[name], INT32):
            return f"{name} is neither a number nor null"
    return None if read_time(event.get("timestamp"), needs_zone=True) else "timestamp is not a time with its zone"


def is_call(event: dict[str, Any]) -> bool:
    """Whether a line holds the metrics of a call; users may log events of the same type."""
    data = event.get("data")
    if (
        event.get("event_type") != METRICS_TYPE
        or is_of_user(event)
        or not isinstance(data, dict)
        or set(data) != {"step", "metrics"}
    ):
        return False
    metrics = data["metrics"]
    is_ours = _is_in(data["step"], INT64) and isinstance(metrics, dict) and bool(metrics)
    return is_ours and all(map(is_text, metrics)) and all(map(_is_value, metrics.values()))


def table_of_calls(events: Iterable[dict[str, Any]]) -> pa.Table:
    """Return the metrics of lines for which `is_call` holds; schema `METRICS`."""
    rows = [row for event in events for row in _rows(event)]
    arrays = []
    for column in METRICS:
        is_coded = pa.types.is_dictionary(column.type)
        values = [row[column.name] for row in rows]
        array = pa.array(values, column.type.value_type if is_coded else column.type)
        arrays.append(array.dictionary_encode().cast(column.type) if is_coded else array)
    return pa.Table.from_arrays(arrays, schema=METRICS)


def _is_in(value: object, numbers: range) -> bool:
    return type(value) is int and value in numbers


def _is_value(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool) or is_text(value) or _is_in(value, INT64)


def _rows(event: dict[str, Any]) -> list[dict[str, Any]]:
    data = event["data"]
    shared = {name: event.get(name) for name in RANKS}
    shared |= {"step": data["step"], "ts": read_time(event["timestamp"]), "lane": event["lane"]}
    shared["pid"] = -1 if event.get("pid") is None else event["pid"]
    return [
        {**shared, **_cells(value), "name": name, "seq": event["seq"] + i}
        for i, (name, value) in enumerate(data["metrics"].items())
    ]


def _cells(value: Any) -> dict[str, Any]:
    """Return the cells of a logged value, for which a word stands if JSON lacks it."""
    cells = cells_of(from_word(value) if isinstance(value, str) and value in WORDS else value)
    return dict(zip(VALUE_COLUMNS, cells, strict=True)) if cells else {}


# ---- records as lines ----


def metric_lines(table: pa.Table, last: int | None = None) -> list[Event]:
    """Return a line for each call that logged metrics of a run, oldest first.

    Parameters
    ----------
    table : pyarrow.Table
        Metrics as ``StoredRun.metrics`` returns them with their nodes.
    last : int or None
        Only the newest so many calls.
    """
    latest = table if last is None else newest(table, last)
    rows = latest.sort_by([(key, "ascending") for key in ("ts", "node", "lane", "seq")]).to_pylist()
    lines = [_metric_line(call) for call in _calls(rows)]
    return lines if last is None else lines[len(lines) - min(last, len(lines)) :]


def newest(table: pa.Table, calls: int) -> pa.Table:
    """Return the rows of at least the newest so many calls, or of all if there are fewer."""
    import pyarrow.compute as pc

    if not calls or not table.num_rows:
        return table.slice(0, 0)
    moments = pc.unique(table["ts"])  # no more than there are calls, and found much faster
    last = pc.top_k_unstable(moments, min(calls, len(moments)))[-1]
    table = table.filter(pc.greater_equal(table["ts"], moments[last.as_py()]))
    times = table.group_by(["ts", "node", "lane", "step"]).aggregate([])["ts"]
    oldest = pc.top_k_unstable(times, min(calls, len(times)))[-1]
    return table.filter(pc.greater_equal(table["ts"], times[oldest.as_py()]))


def _calls(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each call: same producer, time and step, and no name twice."""
    call: list[dict[str, Any]] = []
    for row in rows:
        is_same_call = call and all(row[key] == call[0][key] for key in ("node", "lane", "ts", "step"))
        if call and (not is_same_call or any(row["name"] == other["name"] for other in call)):
            yield call
            call = []
        call.append(row)
    if call:
        yield call


def _metric_line(rows: list[dict[str, Any]]) -> Event:
    first = rows[0]
    metrics = {row["name"]: value_in(row) for row in rows}
    return {
        "timestamp": rfc3339(first["ts"]),
        "event_type": "metrics",
        "data": {"step": first["step"], "metrics": metrics},
        **{key: first[key] for key in PRODUCER},
    }


def text_of(line: Event) -> list[str]:
    """Return what a line says to people, in the words of the console and of run.log; only the first is not indented."""
    data = line.get("data")
    event_type = str(line.get("event_type"))
    if isinstance(data, dict):
        return words.lines_of(event_type, data)
    return [words.printable(f"{event_type}: {json.dumps(data, ensure_ascii=False)}")]


def says_metrics(line: Event) -> bool:
    """Whether a line is the message of `Run.log_metrics`, whose metrics are records, too."""
    data = line.get("data")
    return line.get("event_type") == "log" and isinstance(data, dict) and isinstance(data.get("metrics"), dict)


def level_of(line: Event) -> str:
    """Return the level of a line, in lower case."""
    data = line.get("data")
    return words.level_of(str(line.get("event_type")), data if isinstance(data, dict) else {})


def metrics_of(line: Event) -> dict[str, Any] | None:
    """Return the metrics that a line holds, or None if it is an event."""
    data = line.get("data") if line.get("event_type") == "metrics" else None
    metrics = data.get("metrics") if isinstance(data, dict) else None
    return metrics if isinstance(metrics, dict) else None
