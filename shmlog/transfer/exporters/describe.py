"""A run's description, parameters and annotations as one JSON object."""

from __future__ import annotations

from typing import Any

from shmlog.base.plain import plain
from shmlog.reader.stored import StoredRun

VERSION = 1


def describe(run: StoredRun) -> dict[str, Any]:
    """Return run.yaml, config.yaml and annotations.yaml, with the current status."""
    described = run.described.changed(run_id=run.id, experiment=run.experiment, status=run.status)
    return {
        "shmlog": VERSION,
        "run": plain(described.mapping),
        "params": plain(run.config),
        "annotations": plain(run.annotations),
    }
