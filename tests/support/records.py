"""Runs of records of every kind, made without any process; compared record by record."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

import shmlog
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.reader.verify.verify import verify
from shmlog.transfer.folder import write_run
from shmlog.transfer.imported import ImportedRun

INT64 = st.integers(-(2**63), 2**63 - 1)
HOSTILE = [
    "=1+1",
    "+a",
    "-1.5",
    "@x",
    "\tq",
    "\r",
    "\x00",
    "'=x",
    "''",
    "a,b",
    '"',
    "a\nb",
    "",
    " ",
    "NaN",
    "1",
    "ü",
    "\uff1d1",
]
TEXTS = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FLOATS = st.floats(width=64) | st.sampled_from([-0.0, 5e-324, 1.0, 1e22])
VALUES = FLOATS | INT64 | st.booleans() | TEXTS
TIMES = st.integers(0, 4_102_444_800_000_000)
NAMES = TEXTS.filter(bool)  # a metric has a name
RECORDS = st.lists(st.tuples(NAMES, INT64, VALUES, TIMES, st.none() | st.integers(0, 9)), max_size=12)

Record = tuple[Any, ...]


def make_run(root: Path, records: list[Record], **described: Any) -> shmlog.StoredRun:
    """Write a finished run of some records."""
    run = ImportedRun(
        "made", params={"lr": 0.1, "nan": float("nan")}, described=Description({"tags": ["t"], **described})
    )
    for name, step, value, ts, rank in records:
        assert run.metrics.add(name, step, value, ts, {"rank": rank, "pid": 7}) is None
    event = {"timestamp": 5_000_000, "event_type": "checked", "data": {"x": [1, None, "ü"]}, "rank": 1}
    run.events.append(event)
    layout = RunLayout(root / "made" / "a")
    write_run(Root(root), layout, run, {})
    return sound(layout.dir)


def sound(run_dir: Path) -> shmlog.StoredRun:
    """Return a run that verifies without a word."""
    report = verify(run_dir)
    assert report.ok, report.to_dict()
    assert report.findings == []
    return shmlog.load(run_dir)


def bits(value: Any) -> Any:
    """Return a value so that 1, 1.0 and True differ, 0.0 and -0.0, and NaN equals NaN."""
    if isinstance(value, float):
        return "float", "nan" if value != value else struct.pack(">d", value)
    return type(value).__name__, value


def records_of(table: pa.Table) -> list[Any]:
    """Return the records of a table, exactly, in the order of their numbers."""
    rows = sorted(table.to_pylist(), key=lambda row: (row["lane"], row["seq"]))
    column = {"float": "value", "text": "text"}
    values = [row[column.get(row["kind"], "int_value")] for row in rows]
    values = [bool(v) if row["kind"] == "bool" else v for row, v in zip(rows, values, strict=True)]
    keys = ("name", "step", "ts", "rank", "pid", "lane", "seq")
    return [(*(row[key] for key in keys), bits(v)) for row, v in zip(rows, values, strict=True)]
