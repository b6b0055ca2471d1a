"""The last values of a run in Prometheus' text format, as node_exporter's textfile collector takes them.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

import pyarrow as pa

from shmlog.base.times import parse_us
from shmlog.reader.stored import StoredRun
from shmlog.transfer.exporters.output import Progress

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def write_last_values(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write a gauge for the last number of each metric and rank, and some of the run; return how many there are."""
    rows = _last_rows(table)
    of_run = {"experiment": run.experiment, "run": run.id}
    labels = [of_run | {"metric": row["name"]} | _rank(row["rank"]) for row in rows]
    started_us = parse_us(run.described.started_at)
    started = [] if started_us is None else [(of_run, started_us / 1e6)]
    families = [
        ("shmlog_metric", "Last value of a metric.", zip(labels, (row["value"] for row in rows), strict=True)),
        ("shmlog_metric_step", "Step of the last value.", zip(labels, (row["step"] for row in rows), strict=True)),
        ("shmlog_run_status", "1 for the status that the run has.", [(of_run | {"status": run.status}, 1)]),
        ("shmlog_run_started_seconds", "When the run started.", started),
        (
            "shmlog_run_dropped_records", "Records that were dropped.",
            [(of_run | {"reason": reason}, count) for reason, count in sorted(run.dropped.items())],
        ),
    ]  # fmt: skip
    for name, description, samples in families:
        file.write(_family(name, description, samples).encode())
    progress(table.num_rows, table.num_rows)
    return len(rows)


def _last_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return name, rank, step and value of the last number of each metric and rank; texts have no place there."""
    numbers = table.select(["name", "rank", "step", "value"]).filter(table["value"].is_valid())
    last = numbers.group_by(["name", "rank"], use_threads=False).aggregate([("step", "last"), ("value", "last")])
    rows = last.rename_columns(["name", "rank", "step", "value"]).to_pylist()
    return sorted(rows, key=lambda row: (row["name"], -1 if row["rank"] is None else row["rank"]))


def _rank(rank: object) -> dict[str, str]:
    return {} if rank is None else {"rank": str(rank)}


def _family(name: str, description: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """Return the lines of one gauge. They have no times, which the textfile collector refuses."""
    lines = [f"{name}{{{_labels(labels)}}} {_number(value)}\n" for labels, value in samples]
    return f"# HELP {name} {description}\n# TYPE {name} gauge\n{''.join(lines)}" if lines else ""


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{text.translate(_ESCAPES)}"' for name, text in labels.items())


def _number(value: float) -> str:
    """Return a number as Go reads it."""
    text = repr(value)
    return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}.get(text, text)
