"""A run as one file: a tar, compressed by Zstandard."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from shmlog.errors import StorageError
from shmlog.storage.layout import TEMPORARY_SUFFIX, RunLayout, fsync_dir
from shmlog.store.place import Place
from shmlog.store.restore import SUFFIX


def write_archive(place: Place, layout: RunLayout) -> Path:
    """Write a run into ``.archive/EXPERIMENT/ID.tar.zst``, and read it again; return its path.

    Raises
    ------
    StorageError
        If it can't be written, or does not hold what the folder does.
    """
    path = place.make_own(place.archive / layout.experiment) / f"{layout.run_id}{SUFFIX}"
    unfinished = path.with_name(path.name + TEMPORARY_SUFFIX)
    unfinished.unlink(missing_ok=True)
    try:
        written = _write(unfinished, layout)
        if written != list(_read(unfinished)):
            raise StorageError(f"{unfinished} does not hold what was written into it; the run is kept")
        os.replace(unfinished, path)
        fsync_dir(path.parent)
    except (OSError, tarfile.TarError, pa.ArrowException) as error:
        unfinished.unlink(missing_ok=True)
        raise error if isinstance(error, StorageError) else StorageError(f"cannot write {path}: {error}") from error
    return path


def _write(path: Path, layout: RunLayout) -> list[tuple[str, int]]:
    """Write the archive; return names and sizes of what is in it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        with (
            open(fd, "wb", closefd=False) as file,
            pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(layout.dir, arcname=layout.run_id)
            found = [(member.name, member.size) for member in archive.getmembers()]
        os.fsync(fd)
    finally:
        os.close(fd)
    return found


def _read(path: Path) -> Iterator[tuple[str, int]]:
    with (
        open(path, "rb") as file,
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            yield member.name, member.size
