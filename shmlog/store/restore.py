"""Restore a run from its archive, which may come from anywhere: only plain files of that run are written."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa

from shmlog.base.durable import fsync_dir
from shmlog.errors import CorruptDataError, RefusedError, RunNotFoundError, RunStateError, StorageError, UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import check_id, experiment_of, folder_name
from shmlog.folder.root import Root, is_run, some

SUFFIX = ".tar.zst"
FILES_MAX = 200_000
"""Most files and folders in an archive: each costs an inode, and memory while it is unpacked."""
FREE_BYTES_MIN = 64 << 20
"""Bytes that stay free: other runs on the disk go on logging."""
DESCRIPTIONS = ("run.yaml", "annotations.yaml")
"""The files that stand first in an archive, so that the name of its run is found without unpacking all of it."""
_HEADER_BYTES_MAX = 1 << 20
_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_DESCRIPTION_BYTES_MAX = 16 << 20
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
    layout = root.run(_experiment(archive), archive.name.partition(".")[0])
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


class Archived(NamedTuple):
    """An archived run; ``archive`` is its id, with ``.N`` behind it for the N-th of those kept from earlier."""

    experiment: str
    archive: str
    name: str | None
    size_bytes: int
    archived_at: datetime


def archives(root: Root) -> list[Archived]:
    """Return the archives of a root, the newest first."""
    found = []
    for path in _paths(root):
        state, archive = path.stat(), path.name.removesuffix(SUFFIX)
        when = datetime.fromtimestamp(state.st_mtime, UTC)
        found.append(Archived(_experiment(path), archive, _name_in(path), state.st_size, when))
    return sorted(found, key=lambda archived: archived.archived_at, reverse=True)


def _experiment(archive: Path) -> str:
    return experiment_of(archive.parent.name) or archive.parent.name


def _paths(root: Root) -> list[Path]:
    """Return the files of all archives; raises StorageError if one is a symbolic link."""
    folders = (root.inside(root.archive / folder_name(name)) for name in root.archived_experiments())
    return [root.inside(path) for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]


def _name_in(path: Path) -> str | None:
    """Return the name that people gave the run in an archive; None if it has none, or can't be read."""
    names: dict[str, str] = {}
    run_id = path.name.partition(".")[0]
    try:
        with (
            pa.CompressedInputStream(str(path), "zstd") as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as archive,
        ):
            for member in itertools.islice(archive, len(DESCRIPTIONS) + 1):
                if member.size > _DESCRIPTION_BYTES_MAX:
                    break
                file = archive.extractfile(member) if member.name.endswith(DESCRIPTIONS) else None
                described = json.loads(file.read()) if file else None
                if isinstance(described, dict) and isinstance(described.get("name"), str):
                    names[member.name] = described["name"]
    except (OSError, tarfile.TarError, pa.ArrowException, EOFError, ValueError, UnreadableError):
        pass
    return next((names[key] for name in reversed(DESCRIPTIONS) if (key := f"{run_id}/{name}") in names), None)


def find_archive(root: Root, text: str) -> Path:
    """Return the archive of a run by its id, its beginning, or the run's name.

    ``text`` ends with ``.N`` for the N-th of those that were kept from earlier.

    Raises
    ------
    ValueError
        If ``text`` can't be the name of a run, or is the id of several.
    RunNotFoundError
        If there is no such archive.
    StorageError
        If it is a symbolic link.
    """
    paths = {f"{_experiment(path)}/{path.name.removesuffix(SUFFIX)}": path for path in _paths(root)}
    is_whole, begins = [
        [archive for archive in paths if test(archive if "/" in text else archive.partition("/")[2], text)]
        for test in (str.__eq__, str.startswith)
    ]
    fitting = is_whole or (begins if len(begins) == 1 else [])
    fitting = fitting or [archive for archive, path in paths.items() if _name_in(path) == text] or begins
    if len(fitting) > 1:
        raise ValueError(f"archives of {len(fitting)} runs are called {text!r}; write more of one: {some(fitting)}")
    if not fitting or not text:
        check_id(text.rpartition("/")[2].partition(".")[0], "run id")
        raise RunNotFoundError(f"no archive of a run {text!r} in {root.archive}; 'shmlog restore' lists them")
    return paths[fitting[0]]


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
