"""The files of a folder of checkpoints: their names, the index made from them, putting one in place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import warnings
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.checkpoint.codec import Decoder
from shmlog.checkpoint.container import DIGEST_BYTES, Header, read_header, read_pieces, write_sealed
from shmlog.errors import CorruptDataError, ShmlogWarning, StorageError
from shmlog.storage.layout import TEMPORARY_SUFFIX, fsync_dir

ABOUT = "shmlog.checkpoint"  # the key of the header's metadata
SCHEMA = 1
SUFFIX = ".safetensors"
_NAME = re.compile(r"(?P<name>[A-Za-z0-9_-]{1,64})-(?P<step>\d{8,19})\.safetensors", re.ASCII)
_TEMPORARY = re.compile(r"\.(?P<final>.+\.safetensors)\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]+\.tmp", re.ASCII)
_ABANDONED_S = 3600.0  # untouched for so long, whoever writes it
_DEAD_S = 60.0  # and by a process of this host that is no more, which another container's may only seem to be


class CheckpointInfo(NamedTuple):
    """What is known of a checkpoint without reading its state.

    Attributes
    ----------
    path : Path
        Its file.
    name : str
        Whose checkpoints these are, as given to the manager.
    step : int
        Training step.
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
    """

    path: Path
    name: str
    step: int
    number: int
    created_at: datetime
    metrics: dict[str, int | float]
    metadata: dict[str, Any]
    bytes: int
    has_pickled: bool


def file_name(name: str, step: int) -> str:
    """Return the name of the file of a checkpoint."""
    return f"{name}-{step:08d}{SUFFIX}"


def split_name(path: Path) -> tuple[str, int] | None:
    """Return name and step of a checkpoint's file, or None if it can't be one."""
    match = _NAME.fullmatch(path.name)
    return (match["name"], int(match["step"])) if match else None


def read_info(path: Path) -> CheckpointInfo:
    """Return what the header of a checkpoint says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is damaged as far as the header tells, or no checkpoint.
    """
    return _info(path, read_header(path))


def _info(path: Path, header: Header) -> CheckpointInfo:
    try:
        about = json.loads(header.about[ABOUT])
        schema = about["schema"]
        if schema == SCHEMA:
            plain = Decoder(None, allow_pickle=False).decode
            return CheckpointInfo(
                path, str(about["name"]), int(about["step"]), int(about["number"]),
                datetime.fromisoformat(about["created_at"]), dict(plain(about["metrics"])),
                dict(plain(about["metadata"])), header.file_bytes, bool(about["has_pickled"]),
            )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError(f"{path}: the header is damaged, or not that of a checkpoint") from error
    raise CorruptDataError(f"{path}: a checkpoint of schema {schema!r}; this version reads {SCHEMA}")


class Index:
    """The checkpoints of one name in a folder, found in the files each time.

    There is no index file that could be wrong. Headers are read once per version of a file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._known: dict[Path, tuple[tuple[int, ...], CheckpointInfo | None]] = {}

    def scan(self) -> list[CheckpointInfo]:
        """Return the checkpoints, oldest first; warn of a file that is none."""
        known = self._known
        self._known = {path: self._look(path, known.get(path)) for path in checkpoint_files(self.folder, self.name)}
        found = [info for _, info in self._known.values() if info is not None]
        return sorted(found, key=lambda info: (info.number, info.step))

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
        except CorruptDataError as error:
            warnings.warn(f"passed over: {error}", ShmlogWarning, stacklevel=5)
            return version, None


def checkpoint_files(folder: Path, name: str | None = None) -> list[Path]:
    """Return the files in a folder that are named like checkpoints, of one name or of all."""
    try:
        entries = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(folder / entry, split_name(Path(entry))) for entry in entries]
    return [path for path, split in found if split and name in (None, split[0])]


# ---- writing ----


def publish(path: Path, chunks: Iterable[memoryview]) -> str:
    """Put a file in place, whole and durable, or not at all; return its SHA-256.

    Raises
    ------
    StorageError
        If it can't be written. What was there before is still there.
    """
    mine = f"{os.uname().nodename}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{mine}{TEMPORARY_SUFFIX}")
    try:
        _make_folder(path.parent)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                sha256 = write_sealed(fd, chunks)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; the older ones are untouched") from error
    return sha256


def copy(path: Path, folder: Path) -> Path:
    """Copy a checkpoint's file into another folder, and return the copy.

    Raises
    ------
    StorageError
        If it can't be written.
    """
    target = folder / path.name
    with open(path, "rb") as file:
        publish(target, read_pieces(file, path.stat().st_size - DIGEST_BYTES))
    return target


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fsync_dir(folder.parent)


def remove_abandoned(path: Path) -> None:
    """Remove what killed saves of the same name have left beside ``path``, which has just been written."""
    with contextlib.suppress(OSError):
        now = path.stat().st_mtime  # the file system's clock, which need not be this machine's
        for entry in os.scandir(path.parent):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not _same_name(Path(match["final"]), path):
                continue
            idle = now - entry.stat(follow_symlinks=False).st_mtime
            if idle > _ABANDONED_S or (idle > _DEAD_S and _is_gone(match["host"], int(match["pid"]))):
                os.unlink(entry)


def _same_name(one: Path, other: Path) -> bool:
    split = split_name(one), split_name(other)
    return split[0] is not None and split[1] is not None and split[0][0] == split[1][0]


def _is_gone(host: str, pid: int) -> bool:
    if host != os.uname().nodename:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
