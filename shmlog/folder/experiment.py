"""The folder of an experiment: how it is made, a run in it, and its experiment.yaml, which the store writes."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from shmlog.base.durable import create_whole, is_there
from shmlog.base.times import utc_now
from shmlog.errors import RunStateError, StorageError
from shmlog.folder.layout import RunLayout
from shmlog.folder.runfile import render
from shmlog.folder.unbegun import is_unbegun

FILE_NAME = "experiment.yaml"
SCHEMA = 1
_TRIES = 16  # to find a free run id


def make(folder: Path) -> str | None:
    """Make the folder of an experiment; return when, for `note`, or None if it is there already.

    A root that is made for it is one that git ignores, with all its runs.

    Raises
    ------
    StorageError
        If it can't be made.
    """
    root = folder.parent
    try:
        is_new = not root.exists() or os.listdir(root) == [".shmlog"]  # the lock of a store comes first
        root.mkdir(parents=True, exist_ok=True)
        if is_new:
            with suppress(OSError), open(root / ".gitignore", "x") as file:  # another process has made it
                file.write("*\n")
        folder.mkdir()
    except FileExistsError:
        return None
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}; pass another root") from error
    return utc_now()


def note(folder: Path, made_at: str | None) -> None:
    """Note when the folder of an experiment was made, if `make` has made it; ignore errors of the disk."""
    if made_at is not None:
        with suppress(OSError):
            create_whole(folder / FILE_NAME, render({"schema": SCHEMA, "created_at": made_at}).encode())


def new_run_id() -> str:
    """Return a run id: UTC time and 24 random bits, such as ``20261121-031522-7f3a9c``."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + os.urandom(3).hex()


def new_run_folder(experiment: Path, run_id: str | None = None) -> RunLayout:
    """Make the folder of a new run in an experiment.

    Parameters
    ----------
    experiment : Path
        The experiment's folder, which exists.
    run_id : str, optional
        The id that the user gives the run. Default: `new_run_id`.

    Raises
    ------
    RunStateError
        If there is a run of that id, or its folder.
    StorageError
        If the folder can't be made.
    """
    try:
        for _ in range(_TRIES):
            layout = RunLayout(experiment / (run_id or new_run_id()))
            try:
                layout.dir.mkdir()
            except FileExistsError:
                if run_id is None:
                    continue
                raise RunStateError(_refusal(layout)) from None
            return layout
    except OSError as error:
        raise StorageError(f"cannot make a run folder in {experiment}: {error.strerror}; pass another root") from error
    raise StorageError(f"no free run id in {experiment} after {_TRIES} random ones")


def _refusal(layout: RunLayout) -> str:
    """Return why a new run can't have a folder that is there, and what to do."""
    if is_there(layout.run_yaml):
        what = f"there is a run {layout.run_id!r} in {layout.dir.parent}"
        return f"{what}: pass another id, or resume='auto' to go on with it"
    if is_unbegun(layout) or not os.listdir(layout.dir):
        return (
            f"{layout.dir} is there, and no run in it yet: another process is just making that run, so try again; "
            "or it died while making it, then remove the folder"
        )
    return (
        f"{layout.dir} holds something that has no run.yaml: pass another id, or, if it is a run that has lost it, "
        "have shmlog.Store(root).rebuild(run) write it anew"
    )
