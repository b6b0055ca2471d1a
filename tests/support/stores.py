"""Stores of runs that nobody made: what describes a run is all that listing looks at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shmlog.base.times import rfc3339
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from tests.support.folders import Folder, simple_log

NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**span: float) -> str:
    """Return a time so long ago, as run.yaml has it."""
    return rfc3339(NOW - timedelta(**span))


def add_run(root: Path, run_id: str, experiment: str = "digits", *, days: float = 1, **told: Any) -> RunLayout:
    """Make a finished run that began so many days ago and took an hour."""
    layout = RunLayout(root / experiment / run_id)
    layout.dir.mkdir(parents=True)
    params = told.pop("params", {})
    described = {
        "schema": 1, "run_id": run_id, "experiment": experiment, "name": run_id, "status": "success",
        "created_at": ago(days=days), "started_at": ago(days=days), "ended_at": ago(days=days, hours=-1),
        "host": "elsewhere", "boot_id": "another", "segment": None, "sinks": ["parquet"], "tags": [],
        "producers": [], "counts": {"metrics": 0, "events": 0, "dropped": 0}, "dropped": {}, "complete": True,
    }  # fmt: skip
    runfile.write(layout.run_yaml, {**described, **told})
    runfile.write(layout.config_yaml, params)
    return layout


def add_metrics(root: Path, run_id: str, experiment: str = "digits") -> RunLayout:
    """Make a finished run with the records of `simple_log`."""
    folder = Folder(root / experiment / run_id)
    folder.add(simple_log())
    folder.complete()
    folder.describe(started_at=ago(days=1), ended_at=ago(hours=1))
    return folder.layout


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return every path below a folder with its content, None for what is no file; without the store's own."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(".shmlog"):
            found[name] = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    return found
