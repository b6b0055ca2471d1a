"""Put files into a run: a copy of each, whole and durable, under its name, shared with other runs where it can be."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.base.durable import fsync_dir, temporary_of
from shmlog.errors import RunStateError, StorageError
from shmlog.folder import blobs
from shmlog.folder.artifacts import check_name, data_of
from shmlog.folder.content import Content, check_algorithm, content_at, copy_content
from shmlog.folder.layout import RunLayout

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class _Source(NamedTuple):
    """A file to be logged, and what it will be called."""

    name: str
    path: Path


class _Staged(NamedTuple):
    """A copy that is not in its place yet."""

    name: str
    path: Path
    content: Content


def keep(layout: RunLayout, path: str | os.PathLike[str], name: str | None, algorithm: str) -> list[dict[str, Any]]:
    """Put a file, or each file of a folder, below artifacts/; return what is to be logged of each.

    Raises as `Run.log_artifact` does.
    """
    check_algorithm(algorithm)
    sources = list(_sources(os.fsdecode(path), name))
    staged: list[_Staged] = []
    try:
        staged.extend(_stage(layout, source, algorithm) for source in sources)  # of a failure, those before it
        for one in staged:
            _place(layout, one, only_look=True)
        for one in staged:
            blobs.offer(layout.root, one.path, one.content)
        for one in staged:
            _place(layout, one, only_look=False)
        for folder in {(layout.artifacts / one.name).parent for one in staged}:
            fsync_dir(folder)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        what = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        raise StorageError(f"cannot log {path} as an artifact of {layout.dir}: {what}") from error
    finally:
        for one in staged:
            one.path.unlink(missing_ok=True)
    return [data_of(one.name, one.content) for one in staged]


# ---- what is to be logged ----


def _sources(path: str, name: str | None) -> Iterator[_Source]:
    name = check_name(os.path.basename(os.path.abspath(path)) if name is None else name)
    kind = _mode(path)
    if stat.S_ISREG(kind):
        yield _Source(name, Path(path))
        return
    if not stat.S_ISDIR(kind):
        raise ValueError(f"{path} is neither a file nor a folder: it can't be an artifact")
    folder = Path(os.path.realpath(path))
    found = sorted(_files(folder))
    if not found:
        raise ValueError(f"{path} holds no file: there is nothing to log")
    for file in found:
        yield _Source(check_name(f"{name}/{file.relative_to(folder).as_posix()}"), file)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        raise StorageError(f"cannot log {path} as an artifact: {error.strerror}; nothing was logged") from error


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and the folders in it; refuse what is neither, and links out of it."""
    for path, folders, names in os.walk(folder, onerror=_refuse):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(path, name)))]:
            file = Path(path, name)
            if not Path(os.path.realpath(file)).is_relative_to(folder):
                raise ValueError(f"{file} is a link out of {folder}: log what it leads to under a name of its own")
            if not stat.S_ISREG(_mode(str(file))):
                raise ValueError(f"{file} is neither a file nor a folder, or a link to a folder: it can't be logged")
            yield file


def _refuse(error: OSError) -> None:
    raise StorageError(f"cannot log {error.filename} as an artifact: {error.strerror}; nothing was logged") from error


# ---- copies ----


def _stage(layout: RunLayout, source: _Source, algorithm: str) -> _Staged:
    """Link to content that the root has, which takes no room, or copy the file, into the run's folder.

    What a kill leaves there is removed when the run is over.
    """
    copy = temporary_of(layout.dir / "artifact", exclusive=True)
    original = os.open(source.path, _FILE_FLAGS)
    try:
        before = os.fstat(original)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError(f"{source.path} is neither a file nor a folder: it can't be an artifact")
        content = content_at(original, algorithm)
        # What is copied is hashed once more: a file that changes meanwhile must not get under the wrong digest.
        is_same = blobs.adopt(layout.root, copy, content) or _copy(original, copy, algorithm) == content
        after = os.fstat(original)
        if not is_same or content.size_bytes != after.st_size or _version(before) != _version(after):
            raise StorageError(f"{source.path} has changed while it was read; log it when it is written")
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    finally:
        os.close(original)
    return _Staged(source.name, copy, content)


def _copy(original: int, copy: Path, algorithm: str) -> Content:
    target = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, blobs.READ_ONLY)
    try:
        content = copy_content(original, target, algorithm)
        os.fsync(target)
    finally:
        os.close(target)
    return content


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns


# ---- their places ----


def _place(layout: RunLayout, one: _Staged, *, only_look: bool) -> None:
    """Give a copy its name, unless that is only asked about; raises RunStateError if it has another content."""
    *folders, last = one.name.split("/")
    try:
        folder = _open_folder(layout, folders)
    except NotADirectoryError as error:
        raise RunStateError(
            f"run {layout.run_id} can't have an artifact {one.name!r}: a part of that path is a file or a link"
        ) from error
    try:
        if _is_there(layout, one, folder, last) or only_look:
            return
        _link(one.path, folder, last)
    except FileExistsError:
        _is_there(layout, one, folder, last)  # somebody has logged it at the same time
    finally:
        os.close(folder)


def _open_folder(layout: RunLayout, names: list[str]) -> int:
    """Open a folder below artifacts/, made if need be, through no link."""
    fd = os.open(layout.dir, _FOLDER_FLAGS)
    for name in (layout.artifacts.name, *names):
        try:
            try:
                os.mkdir(name, dir_fd=fd)
                os.fsync(fd)
            except FileExistsError:
                pass
            below = os.open(name, _FOLDER_FLAGS, dir_fd=fd)
        except OSError as error:
            # Of a link, O_DIRECTORY with O_NOFOLLOW says the one or the other.
            raise NotADirectoryError(*error.args) if error.errno == errno.ELOOP else error from None
        finally:
            os.close(fd)
        fd = below
    return fd


def _is_there(layout: RunLayout, one: _Staged, folder: int, name: str) -> bool:
    """Whether an artifact of that name and content is there; raises RunStateError if it has another content."""
    try:
        fd = os.open(name, _FILE_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunStateError(f"{layout.artifacts / one.name} is in the way: {error.strerror}") from error
    try:
        found = os.fstat(fd)
        is_same = stat.S_ISREG(found.st_mode) and (
            os.path.samestat(found, one.path.lstat())
            or (found.st_size == one.content.size_bytes and content_at(fd, one.content.algorithm) == one.content)
        )
    finally:
        os.close(fd)
    if not is_same:
        raise RunStateError(
            f"run {layout.run_id} has an artifact {one.name!r} of other content: a name means one content for the "
            f"whole run; log it under another, such as one with the step in it"
        )
    return True


def _link(path: Path, folder: int, name: str) -> None:
    try:
        os.link(path, name, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: of two that log other content at the same moment, the last one wins.
        os.rename(path, name, dst_dir_fd=folder)
