"""A whole run as one JSON object: its description, its events and its metrics."""

from __future__ import annotations

import json
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute

from shmlog.base.plain import word_of
from shmlog.reader.stored import StoredRun
from shmlog.records.values import FLOAT, VALUE_COLUMNS, value_of
from shmlog.transfer.exporters.describe import describe
from shmlog.transfer.exporters.output import Progress, slices

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid

_OWNER = ("rank", "local_rank", "worker", "pid")
_MARKS = ("attempt", "superseded")


def write_json(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write the run; return how many metrics it has."""
    head = json.dumps({**describe(run), "events": run.events()}, allow_nan=False)
    file.write(head[:-1].encode() + b', "metrics": [')
    separator = "\n"
    for portion in slices(table, progress):
        # The encoder is ten times as fast with a whole portion as with one record after the other.
        file.write((separator + json.dumps(rows_of(portion), allow_nan=False, separators=(",", ":"))[1:-1]).encode())
        separator = ",\n"
    file.write(b"\n]}\n")
    return int(table.num_rows)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the records of a table of schema `METRICS` or `RECORDS`, without fields that are null."""
    for name in ("name", "kind"):  # plain strings become Python's much faster than dictionary codes
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(pa.string()))
    values = map(_value, *(table[name].to_pylist() for name in VALUE_COLUMNS))
    columns = {name: table[name].to_pylist() for name in ("step", "name")}
    columns |= {"value": list(values), "kind": table["kind"].to_pylist()}
    columns["ts"] = pc.replace_substring(table["ts"].cast(pa.string()), " ", "T").to_pylist()
    columns |= {
        name: table[name].to_pylist() for name in (*_OWNER, "lane", "seq", *_MARKS) if name in table.column_names
    }
    names = [name for name in columns if name not in _OWNER or table[name].null_count < table.num_rows]
    is_full = all(table[name].null_count == 0 for name in names if name in _OWNER)
    rows = zip(*(columns[name] for name in names), strict=True)
    if is_full:
        return [dict(zip(names, row, strict=True)) for row in rows]
    return [{name: cell for name, cell in zip(names, row, strict=True) if cell is not None} for row in rows]


def _value(kind: str, number: float, whole: int, text: str) -> Any:
    if kind == FLOAT:
        return number if number - number == 0 else word_of(number)  # the difference is NaN for NaN and infinities
    return value_of(kind, number, whole, text)
