"""A run as one file: a tar, compressed by Zstandard."""

from __future__ import annotations

import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from shmlog.base.durable import HARMLESS, replacing, sweep_abandoned
from shmlog.errors import RefusedError, StorageError
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.store.restore import DESCRIPTIONS, SUFFIX, check_member

_Member = tuple[str, int, float]  # name, size and time


def write_archive(root: Root, layout: RunLayout) -> Path:
    """Write a run into ``.archive/EXPERIMENT/ID.tar.zst``, and read it again to check it; return its path.

    An earlier archive that holds files which the new one lacks is kept as ``ID.N.tar.zst``.

    Raises
    ------
    StorageError
        If the archive can't be written, or does not hold what the folder holds.
    RefusedError
        If it could not be restored, as with a link or a pipe in the run folder.
    """
    path = root.make_own(root.archive / layout.dir.parent.name) / f"{layout.run_id}{SUFFIX}"
    try:
        with replacing(path, exclusive=True) as fd:  # another prune may write it, too, where folders can't be locked
            members = _write(fd, layout)
            if members != list(_read(fd)):
                raise StorageError(f"{path} does not hold what was written into it; the run is kept")
            _keep_earlier(path, members)
        sweep_abandoned(path, lambda name: name.endswith(SUFFIX))
    except (OSError, tarfile.TarError, pa.ArrowException) as error:
        raise error if isinstance(error, StorageError) else StorageError(f"cannot write {path}: {error}") from error
    return path


def _write(fd: int, layout: RunLayout) -> list[_Member]:
    """Write the archive; return its members."""
    names: set[str] = set()

    def check(member: tarfile.TarInfo) -> tarfile.TarInfo:
        try:
            check_member(member, layout.run_id, names)
        except RefusedError as error:
            raise RefusedError(
                f"{layout.dir}: {error}, so that its archive could not be restored; remove that, or delete the run "
                "without an archive"
            ) from error
        return member

    with (
        open(fd, "wb", closefd=False) as file,
        pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.add(layout.dir, arcname=layout.run_id, filter=check, recursive=False)
        for name in sorted(os.listdir(layout.dir), key=lambda name: (name not in DESCRIPTIONS, name)):
            archive.add(layout.dir / name, arcname=f"{layout.run_id}/{name}", filter=check)
        return list(map(_member, archive.getmembers()))


def _read(fd: int) -> Iterator[_Member]:
    os.lseek(fd, 0, os.SEEK_SET)
    with (
        open(fd, "rb", closefd=False) as file,
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        yield from map(_member, archive)


def _member(member: tarfile.TarInfo) -> _Member:
    return member.name, member.size, 0 if member.isdir() else member.mtime  # a folder's time is not restored


def _keep_earlier(path: Path, members: list[_Member]) -> None:
    """Put aside the archive that is about to be replaced, unless the new one holds all of it."""
    try:
        fd = os.open(path, os.O_RDONLY | HARMLESS)
    except FileNotFoundError:
        return
    try:
        holds_more = not set(_read(fd)).issubset(members)
    except (OSError, tarfile.TarError, EOFError, pa.ArrowException):
        holds_more = True  # a damaged archive may hold anything
    finally:
        os.close(fd)
    if holds_more:
        names = (path.with_name(f"{path.name.removesuffix(SUFFIX)}.{i}{SUFFIX}") for i in itertools.count(1))
        os.link(path, next(name for name in names if not os.path.lexists(name)))
