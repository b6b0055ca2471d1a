"""What is in a run, as records."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shmlog.storage.layout import RunLayout
from shmlog.store.records import ArtifactRecord, MetricRecord, Value

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


def artifacts_of(layout: RunLayout, digests: bool) -> list[ArtifactRecord]:
    """Return the files below artifacts/, by path; links are passed over, since they can lead anywhere."""
    found = [_artifact(layout, path, digests) for path in _files_below(layout.artifacts)]
    return sorted(found, key=lambda record: record.path)


def _files_below(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path, name)
            if stat.S_ISREG(file.lstat().st_mode):
                yield file


def _artifact(layout: RunLayout, path: Path, digests: bool) -> ArtifactRecord:
    digest = None
    if digests:
        with open(path, "rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    found = path.lstat()
    return ArtifactRecord(
        run_id=layout.run_id, path=path.relative_to(layout.artifacts).as_posix(), size_bytes=found.st_size,
        created_at=datetime.fromtimestamp(found.st_mtime, UTC), digest=digest,
    )  # fmt: skip
