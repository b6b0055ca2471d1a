"""Records as the lines of events.jsonl, and those lines as text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shmlog.base.times import rfc3339
from shmlog.cli.text import clean, value

if TYPE_CHECKING:
    import pyarrow as pa

Line = dict[str, Any]

_PRODUCER = ("rank", "local_rank", "worker", "pid", "lane", "seq")


def metric_lines(table: pa.Table, last: int | None = None) -> list[Line]:
    """Return a line for each call that the metrics of a run came from, oldest first.

    Parameters
    ----------
    table : pyarrow.Table
        Metrics as ``StoredRun.metrics`` returns them.
    last : int or None
        Only so many of the newest calls.
    """
    newest = table if last is None else _newest(table, last)
    rows = newest.sort_by([("ts", "ascending"), ("lane", "ascending"), ("seq", "ascending")]).to_pylist()
    lines = [_metric_line(call) for call in _calls(rows)]
    return lines if last is None else lines[len(lines) - min(last, len(lines)) :]


def _newest(table: pa.Table, calls: int) -> pa.Table:
    """Return the rows of at least so many of the newest calls, if there are so many."""
    import pyarrow.compute as pc

    if not calls or not table.num_rows:
        return table.slice(0, 0)
    times = table.group_by(["ts", "lane", "step"]).aggregate([])["ts"]
    oldest = pc.top_k_unstable(times, min(calls, len(times)))[-1]
    return table.filter(pc.greater_equal(table["ts"], times[oldest.as_py()]))


def _calls(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the records of each call: same producer, time and step, and no name twice."""
    call: list[dict[str, Any]] = []
    for row in rows:
        same = call and all(row[key] == call[0][key] for key in ("lane", "ts", "step"))
        if call and (not same or any(row["name"] == other["name"] for other in call)):
            yield call
            call = []
        call.append(row)
    if call:
        yield call


def _metric_line(rows: list[dict[str, Any]]) -> Line:
    first = rows[0]
    metrics = {row["name"]: _value(row) for row in rows}
    return {
        "timestamp": rfc3339(first["ts"]),
        "event_type": "metrics",
        "data": {"step": first["step"], "metrics": metrics},
        **{key: first[key] for key in _PRODUCER},
    }


def _value(row: dict[str, Any]) -> object:
    if row["kind"] == "text":
        return row["text"]
    if row["kind"] == "bool":
        return bool(row["int_value"])
    return row["int_value"] if row["kind"] == "int" else row["value"]


def metrics_of(line: Line) -> dict[str, Any] | None:
    """Return the metrics that a line holds, or None if it is an event."""
    data = line.get("data") if line.get("event_type") == "metrics" else None
    metrics = data.get("metrics") if isinstance(data, dict) else None
    return metrics if isinstance(metrics, dict) else None


def text(line: Line) -> str:
    """Return a line for people: time, producer, and what was logged."""
    time = str(line.get("timestamp", ""))[11:23]
    return clean(f"{time}  {_who(line)}  {' '.join(_what(line))}")


def _who(line: Line) -> str:
    names = [f"{key} {line[key]}" for key in ("rank", "worker") if line.get(key) is not None]
    return ", ".join(names or [f"pid {line.get('pid')}"])


def _what(line: Line) -> Iterator[str]:
    metrics = metrics_of(line)
    if metrics is None:
        yield f"{line.get('event_type')} "
        yield json.dumps(line.get("data"), ensure_ascii=False)
    else:
        yield f"step {line['data'].get('step')} "
        yield "  ".join(f"{name}={value(item)}" for name, item in metrics.items())
