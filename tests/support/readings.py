"""What a run folder holds, as readers return it and as the test that made it knows it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

import shmlog
from shmlog.reader.stored import StoredRun
from shmlog.records.schema import RECORDS
from tests.support.folders import Folder

SINKS = [("parquet",), ("parquet", "jsonl"), ("jsonl",)]


def value_of(row: dict[str, Any]) -> tuple[str, object]:
    """Return kind and value of a row, a NaN as text: it equals nothing."""
    kind = row["kind"]
    if kind == "float":
        return kind, "nan" if math.isnan(row["value"]) else (row["value"], math.copysign(1, row["value"]))
    return kind, row["text"] if kind == "text" else row["int_value"]


def rows_of(stored: StoredRun) -> Counter[tuple[object, ...]]:
    return rows_in(stored.metrics())


def rows_in(table: pa.Table) -> Counter[tuple[object, ...]]:
    table = table.set_column(RECORDS.get_field_index("ts"), "ts", table["ts"].cast(pa.int64()))
    return Counter(
        (row["lane"], row["seq"], row["name"], *value_of(row), row["step"], row["ts"]) for row in table.to_pylist()
    )


def expected_rows(folder: Folder) -> Counter[tuple[object, ...]]:
    found = []
    for record in folder.records:
        value = record.value
        kind = {bool: "bool", int: "int", float: "float", str: "text"}[type(value)]
        row = {"kind": kind, "value": value, "int_value": value, "text": value}
        found.append((record.lane, record.seq, record.name, *value_of(row), record.step, record.ts_us))
    return Counter(found)


def events_of(stored: StoredRun) -> Counter[tuple[object, ...]]:
    return Counter((e["lane"], e["seq"], e["event_type"], json.dumps(e["data"])) for e in stored.events())


def expected_events(folder: Folder) -> Counter[tuple[object, ...]]:
    found = []
    for h in folder.happenings:
        data = {"dropped": h.data} if h.event_type is None else h.data
        found.append((h.lane, h.seq, h.event_type or "gap", json.dumps(data)))
    return Counter(found)


def dropped_of(folder: Folder) -> dict[str, int]:
    gaps = [Counter(h.data) for h in folder.happenings if h.event_type is None]
    return dict(sum(gaps, Counter()))


def assert_whole(run_dir: Path, folder: Folder) -> StoredRun:
    """Assert that all of the folder's records are read, each once, and counted."""
    stored = shmlog.load(run_dir)
    assert rows_of(stored) == expected_rows(folder)
    assert events_of(stored) == expected_events(folder)
    assert sum(producer["metrics"] for producer in stored.producers) == len(folder.records)
    events = sum(h.event_type is not None for h in folder.happenings)
    assert stored.counts["metrics"] == len(folder.records)
    assert stored.counts["events"] == events
    assert stored.dropped == dropped_of(folder)
    assert stored.names() == sorted({record.name for record in folder.records})
    return stored
