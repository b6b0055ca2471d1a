"""Restore a run from its archive, which may come from anywhere: only plain files of that run are written."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path
from typing import Self

import pyarrow as pa

from shmlog.base.durable import fsync_dir
from shmlog.errors import CorruptDataError, RefusedError, RunNotFoundError, RunStateError, StorageError, UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import check_experiment, check_id, experiment_of, folder_name
from shmlog.folder.root import Root, is_run

SUFFIX = ".tar.zst"
FILES_MAX = 200_000
"""Most files and folders in an archive: each costs an inode, and memory while it is unpacked."""
FREE_BYTES_MIN = 64 << 20
"""Bytes that stay free: other runs on the disk go on logging."""
_HEADER_BYTES_MAX = 1 << 20
_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_ADVICE = "unpack it with tar if you trust it"


class _Member(tarfile.TarInfo):
    """A member of an archive, its headers limited: tarfile reads that of a long name into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > _HEADER_BYTES_MAX:
            raise RefusedError(f"a header of {member.size:,} bytes, the most is {_HEADER_BYTES_MAX:,}")
        return member


def restore(root: Root, text: str) -> RunLayout:
    """Unpack the archive of the run that is called ``id`` or ``experiment/id``; see `Store.restore`.

    The archive stays, so that nothing needs to be fsynced but the name.
    """
    archive = find_archive(root, text)
    layout = root.run(experiment_of(archive.parent.name) or "", archive.name.partition(".")[0])
    if os.path.lexists(layout.dir):
        raise RunStateError(f"there is a run in {layout.dir} already; delete it first")
    try:
        with root.temporary("restore") as folder:
            _unpack(archive, folder, layout.run_id)
            unpacked = RunLayout(folder / layout.run_id)
            if not is_run(unpacked):
                raise CorruptDataError("there is no run in it")
            layout.dir.parent.mkdir(exist_ok=True)
            os.rename(unpacked.dir, layout.dir)
        fsync_dir(layout.dir.parent)
    except (UnreadableError, tarfile.TarError, pa.ArrowInvalid, EOFError) as error:
        if isinstance(error, RefusedError):
            raise RefusedError(f"{archive}: {error}; nothing was restored, {_ADVICE}") from error
        raise CorruptDataError(f"{archive}: {error}; nothing was restored") from error
    except StorageError:
        raise
    except OSError as error:  # Arrow's too, of a stream that is damaged
        raise StorageError(f"cannot restore {archive}: {error.strerror or error}; nothing was restored") from error
    return layout


def find_archive(root: Root, text: str) -> Path:
    """Return the archive of a run; ``text`` ends with ``.N`` for the N-th of those that were kept from earlier.

    Raises
    ------
    ValueError
        If ``text`` can't be the name of a run, or is the id of several.
    RunNotFoundError
        If there is no such archive.
    StorageError
        If it is a symbolic link.
    """
    experiment, slash, archive = text.rpartition("/")
    run_id, _, number = archive.partition(".")
    check_id(run_id if number.isdecimal() else archive, "run id")
    names = [check_experiment(experiment)] if slash else root.archived_experiments()
    archives = [path for name in names if (path := root.archive / folder_name(name) / f"{archive}{SUFFIX}").exists()]
    if len(archives) > 1:
        raise ValueError(f"archives of {len(archives)} runs are called {archive!r}; write EXPERIMENT/{archive}")
    if not archives:
        raise RunNotFoundError(f"no archive of a run {text!r} in {root.archive}")
    return root.inside(archives[0])


def _unpack(path: Path, folder: Path, run_id: str) -> None:
    """Unpack an archive member by member; each must be one that an archive of this run can hold."""
    names: set[str] = set()
    with (
        open(path, "rb") as file,
        pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive,
    ):
        for member in archive:
            check_member(member, run_id, names)
            free = shutil.disk_usage(folder).free
            if member.size > free - FREE_BYTES_MIN:
                text = f"takes {member.size:,} bytes, {free:,} are free, of which {FREE_BYTES_MIN:,} are left alone"
                raise StorageError(f"{path}: {member.name!r} {text}")
            archive.extract(member, folder, filter="data")


def check_member(member: tarfile.TarInfo, run_id: str, names: set[str]) -> None:
    """Add a member to ``names``; raise RefusedError if it may be written elsewhere, through a link, or without end.

    An archive is neither restored nor written with such a member.
    """
    parts = member.name.split("/")
    if parts[0] != run_id or not {"", ".", ".."}.isdisjoint(parts):
        raise RefusedError(f"{member.name!r} does not belong to run {run_id}")
    if member.name in names:
        raise RefusedError(f"{member.name!r} is there twice")
    if len(names) >= FILES_MAX:
        raise RefusedError(f"it holds more than {FILES_MAX:,} files")
    is_same_artifact = member.islnk() and member.linkname in names  # by another name
    if not is_same_artifact and member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise RefusedError(f"{member.name!r} is neither a file nor a folder of the run")
    names.add(member.name)
