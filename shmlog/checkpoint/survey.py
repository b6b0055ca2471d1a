"""All checkpoints of a folder, of whatever name, sound or not. Needs no package beside shmlog."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from shmlog.checkpoint.container import verify
from shmlog.checkpoint.files import CheckpointInfo, checkpoint_files, read_info, split_name
from shmlog.errors import UnreadableError
from shmlog.folder.layout import RunLayout


class CheckpointFile(NamedTuple):
    """A file named like a checkpoint.

    Attributes
    ----------
    path : Path
        The file.
    name, step : str, int or None
        As its name says.
    info : CheckpointInfo or None
        What the header says; None if it is damaged.
    sha256 : str or None
        Of the file, if every byte was read.
    damage : str or None
        What is wrong with it.
    """

    path: Path
    name: str
    step: int | None
    info: CheckpointInfo | None
    sha256: str | None
    damage: str | None


def checkpoints_of(run_dir: Path) -> Path:
    """Return the folder of the checkpoints of a run."""
    return RunLayout(run_dir).checkpoints


def survey(folder: Path, *, every_byte: bool) -> list[CheckpointFile]:
    """Return the checkpoints of a folder by name, and of one name oldest first.

    Parameters
    ----------
    every_byte : bool
        Whether the files are read whole and their digests checked; else only
        headers and sizes.
    """
    files = [_look(path, every_byte) for path in checkpoint_files(folder)]
    return sorted(files, key=lambda file: (file.name, file.info.number if file.info else 0, file.path.name))


def _look(path: Path, every_byte: bool) -> CheckpointFile:
    name_and_step = split_name(path)
    assert name_and_step is not None
    info, sha256, damage = None, None, None
    try:
        info = read_info(path)
        sha256 = verify(path) if every_byte else None
    except (UnreadableError, OSError) as error:
        damage = str(error)
    return CheckpointFile(path, *name_and_step, info, sha256, damage)
