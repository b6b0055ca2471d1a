"""The files of a folder of checkpoints: their names, and the index made from them."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.base.times import moment
from shmlog.base.warn import warn_caller
from shmlog.checkpoint.codec import StateDecoder
from shmlog.checkpoint.container import Header, read_header
from shmlog.errors import CorruptDataError, RefusedError, UnreadableError

ABOUT = "shmlog.checkpoint"  # the key of the header's metadata
SCHEMA = 1
SUFFIX = ".safetensors"
_NAME = re.compile(r"(?P<name>[A-Za-z0-9_-]{1,64})(?:-(?P<step>\d{8,19})|\.\d{8,19})\.safetensors", re.ASCII)


class CheckpointInfo(NamedTuple):
    """What is known of a checkpoint without reading its state.

    Attributes
    ----------
    path : Path
        Its file.
    name : str
        Name of the manager that saved it.
    step : int or None
        Training step; None if it was not known when an exception or a signal came, see `AutoCheckpoint`.
    number : int
        Counts the saves under this name: the newest has the highest.
    created_at : datetime
        When it was saved, UTC.
    metrics : dict
        Metrics given when it was saved.
    metadata : dict
        Metadata given when it was saved.
    bytes : int
        Size of the file.
    has_pickled : bool
        Whether loading it needs ``allow_pickle=True``.
    saver : str
        The process that saved it: see `shmlog.checkpoint.saver`.
    """

    path: Path
    name: str
    step: int | None
    number: int
    created_at: datetime
    metrics: dict[str, int | float]
    metadata: dict[str, Any]
    bytes: int
    has_pickled: bool
    saver: str


def file_name(name: str, step: int | None, number: int = 0) -> str:
    """Return the name of the file of a checkpoint: ``NAME-STEP``, or ``NAME.NUMBER`` if the step is not known."""
    return f"{name}.{number:08d}{SUFFIX}" if step is None else f"{name}-{step:08d}{SUFFIX}"


def split_name(path: Path) -> tuple[str, int | None] | None:
    """Return name and step, if one is known, of a checkpoint's file; None if it can't be one."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    return match["name"], None if match["step"] is None else int(match["step"])


def read_info(path: Path) -> CheckpointInfo:
    """Return what the header of a checkpoint says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If its header or its length shows damage, or it is not a checkpoint.
    """
    return _info(path, read_header(path))


def _info(path: Path, header: Header) -> CheckpointInfo:
    try:
        about = json.loads(header.about[ABOUT])
        schema = about["schema"]
        if schema == SCHEMA:
            plain = StateDecoder(None, allow_pickle=False).decode
            return CheckpointInfo(
                path, str(about["name"]), None if about["step"] is None else int(about["step"]), int(about["number"]),
                moment(about["created_at"]), dict(plain(about["metrics"])),
                dict(plain(about["metadata"])), header.file_bytes, bool(about["has_pickled"]),
                str(about.get("saver", "")),
            )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"{path}: the header is damaged, or not that of a checkpoint") from error
    raise RefusedError(f"{path}: a checkpoint of schema {schema!r}; this version reads {SCHEMA}")


class Index:
    """The checkpoints of one name in a folder, read from the files each time.

    There is no index file that could be wrong. Headers are read once per version of a file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._known: dict[Path, tuple[tuple[int, ...], CheckpointInfo | None]] = {}

    def scan(self) -> list[CheckpointInfo]:
        """Return the checkpoints, oldest first; warn of damaged files."""
        known = self._known
        self._known = {path: self._look(path, known.get(path)) for path in checkpoint_files(self.folder, self.name)}
        infos = [info for _, info in self._known.values() if info is not None]
        return sorted(infos, key=lambda info: (info.number, -1 if info.step is None else info.step))

    def _look(
        self, path: Path, known: tuple[tuple[int, ...], CheckpointInfo | None] | None
    ) -> tuple[tuple[int, ...], CheckpointInfo | None]:
        try:
            status = path.stat()
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if known is not None and known[0] == version:
                return known
            return version, read_info(path)
        except FileNotFoundError:  # deleted just now
            return (), None
        except UnreadableError as error:
            warn_caller(f"passed over: {error}")
            return version, None


def checkpoint_files(folder: Path, name: str | None = None) -> list[Path]:
    """Return the files in a folder that are named like checkpoints, of one name or of all."""
    try:
        entries = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [(folder / entry, split_name(Path(entry))) for entry in entries]
    return [path for path, split in paths if split and name in (None, split[0])]
