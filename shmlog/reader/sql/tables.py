"""What SQL sees of a store besides metrics: runs, params, events and artifacts as Arrow tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import pyarrow as pa

from shmlog.base.times import read_time
from shmlog.folder.layout import RunLayout
from shmlog.reader.artifacts import find_artifacts
from shmlog.reader.model import RunRecord, flat_params
from shmlog.records.schema import METRICS
from shmlog.records.values import INT32, INT64

_TS = pa.timestamp("us", tz="UTC")

_RUN = [("run_id", pa.string()), ("experiment", pa.string())]

RUNS = pa.schema(
    [
        *_RUN, ("name", pa.string()), ("status", pa.string()), ("live", pa.bool_()), ("attempt", pa.int64()),
        ("created_at", _TS), ("started_at", _TS), ("ended_at", _TS), ("duration_s", pa.float64()),
        ("tags", pa.list_(pa.string())), ("description", pa.string()), ("notes", pa.string()),
        ("group", pa.string()), ("parent", pa.string()), ("job_name", pa.string()), ("user", pa.string()),
        ("host", pa.string()), ("commit_id", pa.string()), ("python", pa.string()), ("pinned", pa.bool_()),
        ("complete", pa.bool_()), ("metrics", pa.int64()), ("events", pa.int64()), ("dropped", pa.int64()),
        ("dir", pa.string()),
    ]
)  # fmt: skip
"""One row for each run; ``metrics``, ``events`` and ``dropped`` are its counts, null until it is finished."""

PARAMS = pa.schema([*_RUN, ("name", pa.string()), ("value", pa.string()), ("number", pa.float64())])
"""One row for each parameter, nested ones by their dotted name; what is not text is JSON in ``value``."""

EVENTS = pa.schema(
    [
        *_RUN, ("event_type", pa.string()), ("ts", _TS), ("data", pa.string()), ("rank", pa.int32()),
        ("local_rank", pa.int32()), ("worker", pa.int32()), ("pid", pa.int32()), ("lane", pa.int32()),
        ("seq", pa.int64()),
    ]
)  # fmt: skip
"""One row for each structured event; ``data`` is JSON."""

ARTIFACTS = pa.schema(
    [
        *_RUN, ("path", pa.string()), ("size_bytes", pa.int64()), ("created_at", _TS), ("digest", pa.string()),
        ("media_type", pa.string()),
    ]
)  # fmt: skip
"""One row for each artifact."""

COLUMNS = {
    "metrics": ["run_id", "experiment", *METRICS.names, "attempt", "superseded"],
    "events": EVENTS.names, "runs": RUNS.names, "params": PARAMS.names, "artifacts": ARTIFACTS.names,
}  # fmt: skip
"""The columns of each table, which the message about an unknown one lists."""

ATTEMPTS = pa.schema(
    [*_RUN, ("node", pa.int32()), ("attempt", pa.int32()), ("first_lane", pa.int64()), ("end_lane", pa.int64())]
)
"""One row for each attempt of a run that was resumed and each node, with its lanes."""


def attempt_table(runs: Iterable[tuple[RunRecord, dict[int, list[int]]]]) -> pa.Table:
    """Return the attempts of some runs, each given with the first lane of its attempts on each node."""
    rows = [
        {**_ids(record), "node": node, "attempt": attempt, "first_lane": first, "end_lane": end}
        for record, lanes_of in runs
        for node, lanes in lanes_of.items()
        for attempt, (first, end) in enumerate(pairwise([*lanes, 1 << 31]), start=1)
    ]
    return make_table(rows, ATTEMPTS)


def make_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; what has no field in the schema is left out."""
    listed = list(rows)
    columns = [pa.array([row.get(field.name) for row in listed], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def run_row(record: RunRecord) -> dict[str, Any]:
    """Return the row of a run."""
    row = {field.name: getattr(record, field.name, None) for field in RUNS}
    row |= {"status": str(record.status), "tags": list(record.tags), "dir": _text(str(record.dir))}
    return row | {name: (record.counts or {}).get(name) for name in ("metrics", "events", "dropped")}


def param_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's parameters."""
    for name, value in flat_params(record.params).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        yield {
            **_ids(record),
            "name": _text(name),
            "value": _text(text),
            "number": _float(value) if is_number else None,
        }


def event_rows(record: RunRecord, events: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's events; a field that is not what it should be is null."""
    for event in events:
        row = _ids(record)
        row |= {name: _integer(event.get(name), INT32) for name in ("rank", "local_rank", "worker", "pid", "lane")}
        row["seq"] = _integer(event.get("seq"), INT64)
        row["ts"] = read_time(event.get("timestamp"))
        row["event_type"] = _text(event.get("event_type"))
        row["data"] = _text(json.dumps(event.get("data"), ensure_ascii=False))
        yield row


def artifact_rows(record: RunRecord, events: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run's artifacts, which ``events`` name."""
    for artifact in find_artifacts(RunLayout(record.dir), events):
        row = {name: getattr(artifact, name) for name in ("size_bytes", "created_at", "digest", "media_type")}
        yield _ids(record) | row | {"path": _text(artifact.name)}


def _ids(record: RunRecord) -> dict[str, Any]:
    return {"run_id": record.run_id, "experiment": record.experiment}


def _text(value: object) -> str | None:
    """Return a text as UTF-8 can have it, or None if it is not a text."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else None


def _integer(value: object, among: range) -> int | None:
    return value if type(value) is int and value in among else None


def _float(value: float) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
