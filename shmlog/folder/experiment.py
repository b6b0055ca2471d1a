"""The folder of an experiment, and its experiment.yaml, in which the store keeps what people say of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from shmlog.base.durable import create_whole
from shmlog.base.times import utc_now
from shmlog.folder.runfile import render

FILE_NAME = "experiment.yaml"
SCHEMA = 1


def make(folder: Path) -> str | None:
    """Make the folder of an experiment; return when, for `note`, or None if it is there or can't be made."""
    with suppress(OSError):  # who makes a run in it meets, and reports, the same
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()  # only one process gets past this
        return utc_now()
    return None


def note(folder: Path, made_at: str | None) -> None:
    """Note when the folder of an experiment was made, if `make` has made it; ignore errors of the disk."""
    if made_at is not None:
        with suppress(OSError):
            create_whole(folder / FILE_NAME, render({"schema": SCHEMA, "created_at": made_at}).encode())
