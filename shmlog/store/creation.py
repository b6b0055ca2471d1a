"""Runs that have no processes of shmlog: pending ones, and those that are only told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmlog.base.plain import plain
from shmlog.base.times import utc_now
from shmlog.errors import RunStateError, StorageError
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout, check_id, new_run_folder
from shmlog.folder.root import Root
from shmlog.folder.runfile import read_mapping
from shmlog.folder.status import RunStatus
from shmlog.store.annotations import check_tags, check_text

_TEXTS = ("name", "description", "notes", "group", "parent", "job_name")


def create_run(root: Root, experiment: str, params: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """Make the folder of a pending run; return ``"experiment/id"``."""
    check_id(experiment, "experiment")
    unknown = set(told) - {*_TEXTS, "tags"}
    if unknown:
        raise TypeError(f"a run has no {min(unknown)!r}; it can be given {', '.join((*_TEXTS, 'tags'))}")
    for field in _TEXTS:
        check_text(field, told.get(field))
    tags = check_tags(told.get("tags") or ())
    config = plain(dict(params))
    layout = new_run_folder(root.experiment(experiment))
    described = {
        "schema": 1, "run_id": layout.run_id, "experiment": experiment, **dict.fromkeys(_TEXTS), **told, "tags": tags,
        "name": told.get("name") or layout.run_id, "status": "pending", "created_at": utc_now(),
        "started_at": None, "ended_at": None, "segment": None, "sinks": [], "producers": [], "counts": None,
        "dropped": None, "complete": False,
    }  # fmt: skip
    try:
        runfile.write(layout.config_yaml, config)
        runfile.write_sealed(layout.run_yaml, described)
    except OSError as error:
        raise StorageError(f"cannot write into {layout.dir}: {error.strerror}") from error
    return f"{experiment}/{layout.run_id}"


def set_status(layout: RunLayout, status: str) -> None:
    """Write the next status of a run into its run.yaml; the caller holds the store's lock."""
    described = read_mapping(layout.run_yaml)
    if described.get("segment") is not None:
        raise RunStateError(f"run {layout.run_id} has processes of its own, which write its status")
    now = utc_now()
    before = RunStatus.parse(str(described.get("status")))
    after = before.advance(status)
    if after is RunStatus.RUNNING and before.is_terminal:
        attempt = described.get("attempt")
        described |= {"attempt": (attempt if type(attempt) is int else 1) + 1, "ended_at": None}
    elif after is RunStatus.RUNNING:
        described["started_at"] = now
    else:
        described["ended_at"] = now
    try:
        runfile.write_sealed(layout.run_yaml, {**described, "status": str(after), "complete": after.is_terminal})
    except OSError as error:
        raise StorageError(f"cannot write {layout.run_yaml}: {error.strerror}") from error
