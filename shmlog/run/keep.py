"""Put files into a run: a whole and durable copy of each, under its name, shared with other runs if possible."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from shmlog.base.durable import fsync_dir, temporary_of
from shmlog.errors import RunStateError, StorageError
from shmlog.folder import blobs
from shmlog.folder.artifacts import check_name, data_of
from shmlog.folder.content import Content, check_algorithm, content_at, copy_content
from shmlog.folder.layout import RunLayout

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_BYTES = (bytes, bytearray, memoryview)
_PIECE = 1 << 20
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


Data = bytes | bytearray | memoryview | IO[Any]
Source = str | os.PathLike[str] | Data


class _Source(NamedTuple):
    """A file to be logged, or data, and its name in the run."""

    name: str
    content: Path | Data


class _Staged(NamedTuple):
    """A copy that is not yet in its place."""

    name: str
    path: Path
    content: Content


def keep(layout: RunLayout, source: Source, name: str | None, algorithm: str) -> list[dict[str, Any]]:
    """Put a file, each file of a folder, or data, below artifacts/; return the data of an event for each.

    Raises as `Run.log_artifact` does.
    """
    check_algorithm(algorithm)
    sources = list(_sources(source, name))
    staged: list[_Staged] = []
    try:
        staged.extend(_stage(layout, part, algorithm) for part in sources)  # if one fails, has those before it
        for copy in staged:
            _place(layout, copy, check_only=True)
        for copy in staged:
            blobs.offer(layout.root, copy.path, copy.content)
        for copy in staged:
            _place(layout, copy, check_only=False)
        for folder in {(layout.artifacts / copy.name).parent for copy in staged}:
            fsync_dir(folder)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        what = f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
        raise StorageError(f"cannot log {sources[0].name!r} as an artifact of {layout.dir}: {what}") from error
    finally:
        for copy in staged:
            copy.path.unlink(missing_ok=True)
    return [data_of(copy.name, copy.content) for copy in staged]


# ---- files to be logged ----


def _sources(source: Source, name: str | None) -> Iterator[_Source]:
    if isinstance(source, (str, os.PathLike)):
        yield from _files_at(os.fsdecode(source), name)
    elif not isinstance(source, _BYTES) and not hasattr(source, "read"):
        kind = type(source).__name__
        raise TypeError(f"an artifact is a path, bytes or a file object to read, not {kind}; a text is for log_text()")
    elif name is None:
        raise TypeError("an artifact of bytes or of a file object needs a name: log_artifact(data, name=…)")
    else:
        yield _Source(check_name(name), source)


def _files_at(path: str, name: str | None) -> Iterator[_Source]:
    name = check_name(os.path.basename(os.path.abspath(path)) if name is None else name)
    kind = _mode(path)
    if stat.S_ISREG(kind):
        yield _Source(name, Path(path))
        return
    if not stat.S_ISDIR(kind):
        raise ValueError(f"{path} is neither a file nor a folder: it can't be an artifact")
    folder = Path(os.path.realpath(path))
    files = sorted(_files(folder))
    if not files:
        raise ValueError(f"{path} holds no file: there is nothing to log")
    for file in files:
        yield _Source(check_name(f"{name}/{file.relative_to(folder).as_posix()}"), file)


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        raise StorageError(f"cannot log {path} as an artifact: {error.strerror}; nothing was logged") from error


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders; refuse other kinds of files, and links out of the folder."""
    for path, folders, names in os.walk(folder, onerror=_refuse):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(path, name)))]:
            file = Path(path, name)
            if not Path(os.path.realpath(file)).is_relative_to(folder):
                raise ValueError(f"{file} is a link out of {folder}: log its target under a name of its own")
            if not stat.S_ISREG(_mode(str(file))):
                raise ValueError(f"{file} is neither a file nor a folder, or a link to a folder: it can't be logged")
            yield file


def _refuse(error: OSError) -> None:
    raise StorageError(f"cannot log {error.filename} as an artifact: {error.strerror}; nothing was logged") from error


# ---- copies ----


def _stage(layout: RunLayout, source: _Source, algorithm: str) -> _Staged:
    """Put content into the run's folder: link to a blob of the root, which takes no room, or write it.

    Copies that a kill leaves there are removed when the run is over.
    """
    copy = temporary_of(layout.dir / "artifact", exclusive=True)
    if isinstance(source.content, Path):
        return _Staged(source.name, copy, _stage_file(layout, source.content, copy, algorithm))
    return _Staged(source.name, copy, _stage_data(layout, source.content, copy, algorithm))


def _stage_data(layout: RunLayout, data: Data, copy: Path, algorithm: str) -> Content:
    target = _create(copy)
    try:
        with open(target, "wb") as file:
            file.writelines(_pieces(data))
            file.flush()
            os.fsync(target)
            content = content_at(target, algorithm)
        blobs.adopt(layout.root, copy, content)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return content


def _pieces(data: Data) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the bytes of data; of a file object all, from its begin if it can go there."""
    if isinstance(data, _BYTES):
        yield data
        return
    if hasattr(data, "seekable") and data.seekable():
        data.seek(0)
    while piece := data.read(_PIECE):
        if not isinstance(piece, (str, bytes)):
            raise TypeError(f"read() of a file object must return bytes or str, not {type(piece).__name__}")
        yield piece.encode() if isinstance(piece, str) else piece


def _stage_file(layout: RunLayout, path: Path, copy: Path, algorithm: str) -> Content:
    original = os.open(path, _FILE_FLAGS)
    try:
        before = os.fstat(original)
        if not stat.S_ISREG(before.st_mode):
            raise ValueError(f"{path} is neither a file nor a folder: it can't be an artifact")
        content = content_at(original, algorithm)
        # The copy is hashed again, so that a file that changes meanwhile does not get a wrong digest.
        is_same = blobs.adopt(layout.root, copy, content) or _copy(original, copy, algorithm) == content
        after = os.fstat(original)
        if not is_same or content.size_bytes != after.st_size or _version(before) != _version(after):
            raise StorageError(f"{path} has changed while it was read; log it after it is written")
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    finally:
        os.close(original)
    return content


def _create(copy: Path) -> int:
    return os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, blobs.READ_ONLY)


def _copy(original: int, copy: Path, algorithm: str) -> Content:
    target = _create(copy)
    try:
        content = copy_content(original, target, algorithm)
        os.fsync(target)
    finally:
        os.close(target)
    return content


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns


# ---- their places ----


def _place(layout: RunLayout, copy: _Staged, *, check_only: bool) -> None:
    """Give a copy its name, or with ``check_only`` only check it; raises RunStateError if it has other content."""
    *folders, last = copy.name.split("/")
    try:
        folder = _open_folder(layout, folders)
    except NotADirectoryError as error:
        raise RunStateError(
            f"run {layout.run_id} can't have an artifact {copy.name!r}: a part of that path is a file or a link"
        ) from error
    try:
        if _exists(layout, copy, folder, last) or check_only:
            return
        _link(copy.path, folder, last)
    except FileExistsError:
        _exists(layout, copy, folder, last)  # another process has logged it at the same time
    finally:
        os.close(folder)


def _open_folder(layout: RunLayout, names: list[str]) -> int:
    """Open a folder below artifacts/, through no link, and make it if it is missing."""
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
            # For a link, O_DIRECTORY with O_NOFOLLOW fails with either error.
            raise NotADirectoryError(*error.args) if error.errno == errno.ELOOP else error from None
        finally:
            os.close(fd)
        fd = below
    return fd


def _exists(layout: RunLayout, copy: _Staged, folder: int, name: str) -> bool:
    """Whether an artifact with that name and content exists; raises RunStateError if it has other content."""
    try:
        fd = os.open(name, _FILE_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunStateError(f"{layout.artifacts / copy.name} is in the way: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        is_same = stat.S_ISREG(status.st_mode) and (
            os.path.samestat(status, copy.path.lstat())
            or (status.st_size == copy.content.size_bytes and content_at(fd, copy.content.algorithm) == copy.content)
        )
    finally:
        os.close(fd)
    if not is_same:
        raise RunStateError(
            f"run {layout.run_id} has an artifact {copy.name!r} of other content: a name means one content for the "
            f"whole run; log it under another, such as one with the step in it"
        )
    return True


def _link(path: Path, folder: int, name: str) -> None:
    try:
        os.link(path, name, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: of two processes that log other content at the same moment, the last wins.
        os.rename(path, name, dst_dir_fd=folder)
