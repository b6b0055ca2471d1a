"""Checkpoints that other programs have pickled, as checkpointing's manager does: ``NAME_iter_000010.ckpt``."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shmlog.base.times import read_time
from shmlog.checkpoint.container import is_pickle
from shmlog.checkpoint.encoded import Checkpoint
from shmlog.checkpoint.files import SUFFIX, CheckpointInfo
from shmlog.errors import CorruptDataError, UnsafeDataError
from shmlog.folder.files import LOCAL

_NAME = re.compile(r"(?P<name>.+)_(iter|ckpt)_(?P<number>\d+)")


def is_pickled(path: Path) -> bool:
    """Whether a file is a pickle, not a checkpoint of ours; raises FileNotFoundError."""
    with LOCAL.open(path) as file:
        return path.suffix != SUFFIX and is_pickle(file.read(2))


def read_pickled(path: Path, *, allow_pickle: bool) -> Checkpoint:
    """Return a state that was pickled, and what is said of it beside.

    Raises
    ------
    UnsafeDataError
        If that is not allowed.
    CorruptDataError
        If it can't be unpickled.
    """
    if not allow_pickle:
        raise UnsafeDataError(
            f"{path}: a pickle of another program, and loading it runs code that the file names; make the manager with "
            "allow_pickle=True if you trust whoever wrote it"
        )
    import pickle

    with LOCAL.open(path) as file:
        try:
            content = pickle.load(file)
        except MemoryError:
            raise
        except Exception as error:  # whatever the code that it names raises
            raise CorruptDataError(
                f"{path}: a pickle that can't be loaded ({type(error).__name__}: {error})"
            ) from error
        size = file.seek(0, 2)
    about = content if isinstance(content, dict) and "state" in content else {"state": content}
    return Checkpoint(about["state"], _info(path, about, size), {})


def _info(path: Path, about: dict[str, Any], size: int) -> CheckpointInfo:
    match = _NAME.fullmatch(path.stem)
    step = about.get("iteration")
    number = int(match["number"]) if match else 0
    saved_at = read_time(about.get("timestamp")) or datetime.fromtimestamp(path.stat().st_mtime, UTC)
    metadata = about.get("metadata")
    return CheckpointInfo(
        path=path, name=match["name"] if match else path.stem, step=step if type(step) is int else None,
        number=number, created_at=saved_at, metrics={}, metadata=metadata if isinstance(metadata, dict) else {},
        bytes=size, has_pickled=True, saver="",
    )  # fmt: skip
