"""A run as one file: a tar, compressed by Zstandard."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from shmlog.base.durable import replacing
from shmlog.errors import StorageError
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.store.restore import SUFFIX


def write_archive(root: Root, layout: RunLayout) -> Path:
    """Write a run into ``.archive/EXPERIMENT/ID.tar.zst``, and read it again; return its path.

    Raises
    ------
    StorageError
        If it can't be written, or does not hold what the folder does.
    """
    path = root.make_own(root.archive / layout.experiment) / f"{layout.run_id}{SUFFIX}"
    try:
        with replacing(path) as fd:
            written = _write(fd, layout)
            if written != list(_read(fd)):
                raise StorageError(f"{path} would not hold what was written into it; the run is kept")
    except (OSError, tarfile.TarError, pa.ArrowException) as error:
        raise error if isinstance(error, StorageError) else StorageError(f"cannot write {path}: {error}") from error
    return path


def _write(fd: int, layout: RunLayout) -> list[tuple[str, int]]:
    """Write the archive; return names and sizes of what is in it."""
    with (
        open(fd, "wb", closefd=False) as file,
        pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.add(layout.dir, arcname=layout.run_id)
        return [(member.name, member.size) for member in archive.getmembers()]


def _read(fd: int) -> Iterator[tuple[str, int]]:
    os.lseek(fd, 0, os.SEEK_SET)
    with (
        open(fd, "rb", closefd=False) as file,
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            yield member.name, member.size
