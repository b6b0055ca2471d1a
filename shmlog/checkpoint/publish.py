"""Put a checkpoint's file in place, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shmlog.base.durable import fsync_dir, replacing, sweep_abandoned
from shmlog.checkpoint.container import DIGEST_BYTES, read_pieces, write_sealed
from shmlog.checkpoint.files import split_name
from shmlog.errors import StorageError
from shmlog.folder.files import LOCAL


def publish(path: Path, chunks: Iterable[memoryview]) -> str:
    """Put a file in place, whole and durable, or not at all; return its SHA-256.

    Raises
    ------
    StorageError
        If it can't be written. What was there before is still there.
    """
    try:
        _make_folder(path.parent)
        with replacing(path, exclusive=True) as fd:
            sha256 = write_sealed(fd, chunks)
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
    with LOCAL.open(path) as file:
        publish(target, read_pieces(file, path.stat().st_size - DIGEST_BYTES))
    return target


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fsync_dir(folder.parent)


def remove_abandoned(path: Path) -> None:
    """Remove the files that killed saves of the same name have left beside ``path``, which was just written."""
    sweep_abandoned(path, lambda name: _same_name(Path(name), path))


def _same_name(first: Path, second: Path) -> bool:
    parts = split_name(first), split_name(second)
    return parts[0] is not None and parts[1] is not None and parts[0][0] == parts[1][0]
