"""What is in a run, as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmlog.reader.artifacts import Artifact
from shmlog.reader.model import ArtifactRecord, MetricRecord, Value

_PRODUCER = ("rank", "local_rank", "worker", "pid", "lane", "seq")


def metric_record(run_id: str, row: Mapping[str, Any]) -> MetricRecord:
    """Return a row of a table of schema `METRICS` as a record."""
    producer = {name: row[name] for name in _PRODUCER}
    return MetricRecord(
        run_id=run_id, name=row["name"], step=row["step"], value=_value(row), timestamp=row["ts"], **producer
    )


def _value(row: Mapping[str, Any]) -> Value:
    kind = row["kind"]
    column = {"float": "value", "text": "text"}.get(kind, "int_value")
    value: Value = row[column]
    return bool(value) if kind == "bool" else value


def artifact_record(run_id: str, artifact: Artifact) -> ArtifactRecord:
    """Return an artifact of a run as a record."""
    return ArtifactRecord(
        run_id=run_id, path=artifact.name, size_bytes=artifact.size_bytes, created_at=artifact.created_at,
        digest=artifact.digest, media_type=artifact.media_type,
    )  # fmt: skip
