"""The one way to the files of a run folder, which may come from anybody: none blocks us or fills the memory.

`RunLayout` names the files, and its ``files`` read them. Readers only pass paths on, as names:

- `RunFiles` has all that readers need of a place where runs are kept: the names in a folder, the state of a file, its
  bytes, whole or a range of them, and the file opened for us or for pyarrow. `RunFiles.local` alone is for programs
  that open a file by themselves. A class for another place has the same methods, and no reader changes.
- What should not be there is refused here, once: in the place of a file, a pipe would block for ever, a link could
  lead to files of other users, and a file of holes takes no room on disk but its whole length in memory.
- What the bytes mean is not known here. Functions that make sense of them have ``files`` as their last parameter,
  which is `LOCAL` by default: what is being written is on this machine.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from shmlog.base.durable import HARMLESS
from shmlog.errors import RefusedError

if TYPE_CHECKING:
    import pyarrow as pa

BYTES_MAX = 64 << 20
"""Most bytes of a file that is read as a whole; ours have some kilobytes."""
LOG_BYTES_MAX = 16 << 30
"""Most bytes of a log: it ends at some 16 MB, after a frame that can hold all lanes."""

_NO_FILE = (errno.ENXIO, errno.ELOOP)  # for a socket; for a link
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_REFUSED = "not a regular file; refused"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | HARMLESS


class RunFiles:
    """The files of run folders on a disk of this machine."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in no order; raises OSError if it is missing or not a folder."""
        return os.listdir(folder)

    def below(self, folder: Path) -> Iterator[Path]:
        """Yield the regular files in a folder and its subfolders; skip links, which can lead anywhere.

        Raises
        ------
        OSError
            If a folder can't be read.
        """
        if self.is_link(folder):
            return
        for path, _, names in os.walk(folder, onerror=_raise_unless_gone):
            for name in names:
                file = Path(path, name)
                try:
                    status = file.lstat()
                except FileNotFoundError:
                    continue  # deleted just now
                if stat.S_ISREG(status.st_mode):
                    yield file

    def state(self, path: Path | str) -> os.stat_result | None:
        """Return the state of a file, or of a link itself; None if there is none; raises OSError if the disk fails."""
        try:
            return os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def known_state(self, path: Path | str) -> os.stat_result | None:
        """Return the state of a file, or of a link itself; None if there is none, or it can't be known."""
        try:
            return self.state(path)
        except OSError:
            return None

    def exists(self, path: Path) -> bool:
        """Whether there is anything at a path, and not a link that leads nowhere; raises OSError if the disk fails."""
        return _status(path) is not None

    def is_file(self, path: Path) -> bool:
        """Whether there is a regular file, or a link to one, which `open` refuses; raises OSError if the disk fails."""
        status = _status(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def is_link(self, path: Path) -> bool:
        """Whether a folder or file is a link; raises OSError if the disk fails."""
        status = _status(path, follow=False)
        return status is not None and stat.S_ISLNK(status.st_mode)

    def open(self, path: Path) -> BufferedReader:
        """Open a file, which has a descriptor, for reading.

        Raises
        ------
        FileNotFoundError
            If it does not exist.
        RefusedError
            If it is a link, a pipe, a folder or the like.
        OSError
            If it can't be opened.
        """
        return open(path, "rb", opener=_open)

    def open_below(self, folder: Path, name: str) -> BufferedReader:
        """Open the file ``name`` below a folder as `open` does; raises RefusedError if any part of that is a link."""
        path = folder / name
        if os.path.realpath(path) != os.path.join(os.path.realpath(folder.parent), folder.name, name):
            raise RefusedError(f"{path}: is a link, or below one: refused, since it can lead anywhere")
        *folders, last = name.split("/")
        fd = os.open(folder, _FOLDER)
        try:
            for below in folders:  # step by step, so that a link that was put there just now is not followed either
                above, fd = fd, os.open(below, _FOLDER, dir_fd=fd)
                os.close(above)
            return open(path, "rb", opener=lambda shown, flags: _open(last, flags, fd, shown))
        finally:
            os.close(fd)

    def open_for_arrow(self, path: Path) -> pa.NativeFile:
        """Open a file for pyarrow, which reads it from several threads at a time; raises as `open`."""
        import pyarrow as pa

        self.open(path).close()  # pyarrow itself would follow a link, or wait for a pipe
        return pa.OSFile(str(path), "rb")

    def read(self, path: Path, bytes_max: int = BYTES_MAX) -> bytes:
        """Return the bytes of a file; raises as `open`, and RefusedError if it has more than ``bytes_max``."""
        with self.open(path) as file:
            refuse_holes(file, path)
            size = os.fstat(file.fileno()).st_size
            if size > bytes_max:
                raise RefusedError(f"{path}: {size:,} bytes: refused, since ours have {bytes_max:,} at most")
            return file.read(size)

    def read_range(self, path: Path, start: int, size: int) -> bytes:
        """Return ``size`` bytes of a file, or those that there are; a negative ``start`` counts from its end."""
        with self.open(path) as file:
            end = os.fstat(file.fileno()).st_size
            begin = start if start >= 0 else max(0, end + start)
            return os.pread(file.fileno(), max(0, min(size, end - begin)), begin)

    def local(self, path: Path) -> Path:
        """Return the path at which programs that open a file by themselves, such as DuckDB, find it."""
        return path


LOCAL = RunFiles()
"""The files of this machine, be they of a run or not."""


def _status(path: Path, *, follow: bool = True) -> os.stat_result | None:
    """Return the status of a file, or None if there is none; pathlib of Python 3.14 says so of a failing disk, too."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    except ValueError:  # no path can have a NUL
        return None


def _raise_unless_gone(error: OSError) -> None:
    if error.errno not in _ABSENT:
        raise error


def refuse_holes(file: BufferedReader, path: Path) -> None:
    """Raise RefusedError for a large file that has holes: shmlog writes none into a file that is read whole."""
    if _has_holes(file):
        size = os.fstat(file.fileno()).st_size
        raise RefusedError(f"{path}: {size:,} bytes with holes: refused, since shmlog writes no holes")


def lines_of(file: BufferedReader) -> Iterable[bytes | int]:
    """Return the lines of a file that was just opened and, if it is large, the size in bytes of each hole in it."""
    return _around_holes(file) if _has_holes(file) else file


def _has_holes(file: BufferedReader) -> bool:
    """Whether a file that was just opened is large and has holes."""
    size = os.fstat(file.fileno()).st_size
    if size <= BYTES_MAX:
        return False
    first_hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    file.seek(0)
    return first_hole < size


def _around_holes(file: BufferedReader) -> Iterator[bytes | int]:
    size = os.fstat(file.fileno()).st_size
    start = 0
    while start < size:
        try:
            data = os.lseek(file.fileno(), start, os.SEEK_DATA)
        except OSError:  # no data behind the hole
            data = size
        if data > start:
            yield data - start
        if data < size:
            start = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            file.seek(data)
            while data < start and (line := file.readline(start - data)):
                yield line
                data += len(line)
        start = max(start, data)


def _open(path: str, flags: int, folder: int | None = None, shown: str | None = None) -> int:
    """Open a file, relative to the open ``folder`` if there is one; ``shown`` is its path in messages."""
    try:
        fd = os.open(path, flags | HARMLESS, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise RefusedError(f"{shown or path}: {_REFUSED}") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedError(f"{shown or path}: {_REFUSED}")
    return fd
