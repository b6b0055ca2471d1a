"""The folder of an experiment, and its experiment.yaml, in which the store keeps what people say of it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from shmlog.base.durable import create_whole
from shmlog.base.times import utc_now
from shmlog.folder.runfile import render

FILE_NAME = "experiment.yaml"
SCHEMA = 1


def make(folder: Path) -> None:
    """Make the folder of an experiment if it is missing, and note when that was; ignore errors of the disk."""
    with suppress(OSError):  # who makes a run in it meets, and reports, the same
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()  # only one process gets past this
        content = {"schema": SCHEMA, "created_at": utc_now()}
        create_whole(folder / FILE_NAME, render(content).encode())
