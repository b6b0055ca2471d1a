"""A whole run as one JSON object: what is said of it, its events and its metrics."""

from __future__ import annotations

import json
from typing import IO, Any

import pyarrow as pa

from shmlog.reader.stored import StoredRun
from shmlog.storage.jsonl import timestamp
from shmlog.transfer.describe import describe
from shmlog.transfer.output import Progress, slices
from shmlog.transfer.values import word_of

_OWNER = ("rank", "local_rank", "worker", "pid")


def write_json(run: StoredRun, file: IO[bytes], progress: Progress) -> int:
    """Write the run; return how many metrics it has."""
    table = run.metrics()
    head = json.dumps({**describe(run), "events": run.events()}, allow_nan=False)
    file.write(head[:-1].encode() + b', "metrics": [')
    separator = "\n"
    for portion in slices(table, progress):
        file.write((separator + ",\n".join(map(_dumps, rows_of(portion)))).encode())
        separator = ",\n"
    file.write(b"\n]}\n")
    return int(table.num_rows)


_dumps = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the records of a table of schema `METRICS`, without fields that are null."""
    columns = {name: table[name].to_pylist() for name in ("step", "name", "kind", "lane", "seq", *_OWNER)}
    times = table["ts"].cast(pa.int64()).to_pylist()
    values = zip(columns["kind"], *(table[name].to_pylist() for name in ("value", "int_value", "text")), strict=True)
    rows = []
    for i, value in enumerate(values):
        row = {"step": columns["step"][i], "name": columns["name"][i], "value": _value(*value), "kind": value[0]}
        row["ts"] = timestamp(times[i])
        row |= {name: found for name in _OWNER if (found := columns[name][i]) is not None}
        rows.append({**row, "lane": columns["lane"][i], "seq": columns["seq"][i]})
    return rows


def _value(kind: str, number: float, whole: int, text: str) -> Any:
    if kind == "text":
        return text
    if kind != "float":
        return whole if kind == "int" else bool(whole)
    return number if number - number == 0 else word_of(number)  # which NaN and infinities are not
