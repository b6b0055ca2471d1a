"""Runs without processes of shmlog: they begin as pending, and callers set their status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmlog.base.plain import plain
from shmlog.base.times import utc_now
from shmlog.errors import RunStateError, StorageError
from shmlog.folder import experiment as experiment_folder
from shmlog.folder import runfile
from shmlog.folder.annotations import check_tags, check_text
from shmlog.folder.description import TEXTS, Description
from shmlog.folder.experiment import new_run_folder
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.folder.status import RunStatus


def create_run(root: Root, experiment: str, params: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """Make the folder of a pending run; return ``"experiment/id"``."""
    unknown = set(fields) - {*TEXTS, "tags"}
    if unknown:
        raise TypeError(f"a run has no field {min(unknown)!r}; set one of {', '.join((*TEXTS, 'tags'))}")
    for field in TEXTS:
        check_text(field, fields.get(field))
    tags = check_tags(fields.get("tags") or ())
    config = plain(dict(params))
    folder = root.experiment(experiment)
    made_at = experiment_folder.make(folder)
    layout = new_run_folder(folder)
    try:
        runfile.write(layout.config_yaml, config)
        Description.pending(layout, {**fields, "tags": tags}).write(layout)
    except OSError as error:
        raise StorageError(f"cannot write into {layout.dir}: {error.strerror}") from error
    experiment_folder.note(folder, made_at)
    return f"{layout.experiment}/{layout.run_id}"


def set_status(layout: RunLayout, status: str) -> None:
    """Write the next status of a run into its run.yaml; the caller holds the store's lock."""
    description = Description.read(layout)
    if description.segment is not None:
        raise RunStateError(f"run {layout.run_id} has processes of its own, which write its status")
    now = utc_now()
    before = RunStatus.parse(str(description.status))
    after = before.advance(status)
    if after is RunStatus.RUNNING and before.is_terminal:
        attempt = description.attempt
        description = description.changed(attempt=(attempt if type(attempt) is int else 1) + 1, ended_at=None)
    elif after is RunStatus.RUNNING:
        description.started_at = now
    else:
        description.ended_at = now
        if description.counts is None:  # close its books: no process of shmlog does
            description = description.changed(counts={"metrics": 0, "events": 0, "dropped": 0}, dropped={})
    try:
        description.changed(status=str(after), complete=after.is_terminal).write(layout)
    except OSError as error:
        raise StorageError(f"cannot write {layout.run_yaml}: {error.strerror}") from error
