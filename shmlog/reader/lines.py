"""Metrics from the ``metrics`` lines of events.jsonl, for runs without Parquet.

JSON keeps the kinds apart: an integer is an int, a number with a fraction or an
exponent a float, true and false are bools, strings are texts; the strings
``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` are read as floats.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.storage import jsonl
from shmlog.storage.schema import METRICS

_UNUSUAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def metrics_of_lines(path: Path, limit_bytes: int | None) -> pa.Table:
    """Return the metrics in a file's lines, or in those of its first bytes; schema `METRICS`."""
    events, _ = jsonl.read_events(path, limit_bytes)
    rows = [row for event in events if event.get("event_type") == "metrics" for row in _rows(event)]
    columns = {name: [row[name] for row in rows] for name in METRICS.names}
    arrays = []
    for column in METRICS:
        plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        array = pa.array(columns[column.name], plain)
        arrays.append(array.dictionary_encode().cast(column.type) if plain is not column.type else array)
    return pa.Table.from_arrays(arrays, schema=METRICS)


def _rows(event: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        data, first = event["data"], event["seq"]
        ts = datetime.datetime.fromisoformat(event["timestamp"])
        shared = {name: event.get(name) for name in ("rank", "local_rank", "worker")}
        shared |= {"step": data["step"], "ts": ts, "lane": event["lane"]}
        shared["pid"] = -1 if event.get("pid") is None else event["pid"]
        return [
            {**shared, **_value(value), "name": name, "seq": first + i}
            for i, (name, value) in enumerate(data["metrics"].items())
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []  # not a line of ours; verify() names it


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"kind": "bool", "value": float(value), "int_value": int(value), "text": None}
    if isinstance(value, int):
        return {"kind": "int", "value": float(value), "int_value": value, "text": None}
    if isinstance(value, str) and value in _UNUSUAL:
        return {"kind": "float", "value": _UNUSUAL[value], "int_value": None, "text": None}
    if isinstance(value, str):
        return {"kind": "text", "value": None, "int_value": None, "text": value}
    return {"kind": "float", "value": float(value), "int_value": None, "text": None}
