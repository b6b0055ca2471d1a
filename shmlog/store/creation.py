"""Runs that have no processes of shmlog: pending ones, and those that are only told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmlog.base.plain import plain
from shmlog.base.times import utc_now
from shmlog.errors import RunStateError, StorageError
from shmlog.folder import runfile
from shmlog.folder.description import TEXTS, Description
from shmlog.folder.layout import RunLayout, check_id, new_run_folder
from shmlog.folder.root import Root
from shmlog.folder.status import RunStatus
from shmlog.store.annotations import check_tags, check_text


def create_run(root: Root, experiment: str, params: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """Make the folder of a pending run; return ``"experiment/id"``."""
    check_id(experiment, "experiment")
    unknown = set(told) - {*TEXTS, "tags"}
    if unknown:
        raise TypeError(f"a run has no {min(unknown)!r}; it can be given {', '.join((*TEXTS, 'tags'))}")
    for field in TEXTS:
        check_text(field, told.get(field))
    tags = check_tags(told.get("tags") or ())
    config = plain(dict(params))
    layout = new_run_folder(root.experiment(experiment))
    try:
        runfile.write(layout.config_yaml, config)
        Description.pending(layout, {**told, "tags": tags}).write(layout)
    except OSError as error:
        raise StorageError(f"cannot write into {layout.dir}: {error.strerror}") from error
    return f"{experiment}/{layout.run_id}"


def set_status(layout: RunLayout, status: str) -> None:
    """Write the next status of a run into its run.yaml; the caller holds the store's lock."""
    described = Description.read(layout)
    if described.segment is not None:
        raise RunStateError(f"run {layout.run_id} has processes of its own, which write its status")
    now = utc_now()
    before = RunStatus.parse(str(described.status))
    after = before.advance(status)
    if after is RunStatus.RUNNING and before.is_terminal:
        attempt = described.attempt
        described = described.changed(attempt=(attempt if type(attempt) is int else 1) + 1, ended_at=None)
    elif after is RunStatus.RUNNING:
        described.started_at = now
    else:
        described.ended_at = now
    try:
        described.changed(status=str(after), complete=after.is_terminal).write(layout)
    except OSError as error:
        raise StorageError(f"cannot write {layout.run_yaml}: {error.strerror}") from error
