"""Files that are replaced whole, and stay when power is lost."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
HARMLESS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags that keep an open from waiting for a pipe, and from following a link."""

_OF_WRITER = r"(?P<name>.+)\.(?P<host>[^.].*)\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp"  # compiled at its first use
_NAME_BYTES = 160  # kept of a name, so that the name with its writer is not too long
_ABANDONED_S = 3600.0  # a file untouched for so long is abandoned, whoever writes it
_DEAD_S = 60.0  # or for so long, if its writer seems dead: one in another container of this host may be alive


def open_to_write(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open a file with some flags, and return its descriptor.

    Raises
    ------
    OSError
        If it can't be opened, and if it is a link, a pipe, a folder or the like.
    """
    fd = os.open(path, flags | HARMLESS, mode)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd


def is_there(path: Path) -> bool:
    """Whether something, even a broken link, has this name; raises OSError if a failing disk does not answer.

    `os.path.lexists` says then that there is nothing.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def fsync_dir(folder: Path) -> None:
    """Make renames and new names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temporary_of(path: Path, *, exclusive: bool = False) -> Path:
    """Return the name under which a file is written before it takes its place.

    A writer that is the only one always takes ``NAME.tmp``, so that the next one replaces what a killed one left.
    ``exclusive``: several may write at the same time, each under a name of its own, ``NAME.HOST.PID.RANDOM.tmp``.
    """
    if not exclusive:
        return path.with_name(path.name + TEMPORARY_SUFFIX)
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    return path.with_name(f"{name}.{os.uname().nodename}.{os.getpid()}.{_random()}{TEMPORARY_SUFFIX}")


def _random() -> str:
    return os.urandom(4).hex()


@contextmanager
def replacing(path: Path, *, durable: bool = True, exclusive: bool = False, mode: int = 0o666) -> Iterator[int]:
    """Replace a file whole, or leave it as it is if anything fails.

    Parameters
    ----------
    durable : bool
        After the block, the new file outlasts a loss of power. Otherwise the file may then be empty, or the old one.
    exclusive : bool
        Others may replace it at the same time, or put files of their own into its folder.
    mode : int
        Of the new file, less the umask.

    Yields
    ------
    int
        A descriptor to write to, and to read from.
    """
    temporary = temporary_of(path, exclusive=exclusive)
    fd = open_to_write(temporary, os.O_RDWR | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC), mode)
    try:
        try:
            yield fd
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        fsync_dir(path.parent)


def atomic_write(path: Path, data: bytes, *, durable: bool = True, exclusive: bool = False, mode: int = 0o666) -> None:
    """Replace a file by ``data``, as `replacing` does."""
    with (
        replacing(path, durable=durable, exclusive=exclusive, mode=mode) as fd,
        open(fd, "wb", closefd=False) as file,
    ):
        file.write(data)


def create_whole(path: Path, data: bytes) -> None:
    """Make a file with ``data`` in it, unless it exists, and nobody sees a part of it; raises OSError."""
    temporary = temporary_of(path, exclusive=True)
    try:
        atomic_write(temporary, data, durable=False)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files in a folder, also those that are being written, sorted by name."""
    return sorted(folder.glob(f"*{TEMPORARY_SUFFIX}"))


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed writers from a folder that nobody writes to."""
    for temporary in leftovers(folder):
        temporary.unlink(missing_ok=True)


def sweep_abandoned(path: Path, is_swept: Callable[[str], bool]) -> None:
    """Remove abandoned temporary files of exclusive writers beside ``path``, which was just written.

    ``is_swept`` says of the name of a file whether its temporary files may go.
    """
    with suppress(OSError):
        now = path.stat().st_mtime  # the file system's clock, which need not be this machine's
        for entry in os.scandir(path.parent):
            match = re.fullmatch(_OF_WRITER, entry.name, re.ASCII)
            if match is None or not is_swept(match["name"]):
                continue
            idle_s = now - entry.stat(follow_symlinks=False).st_mtime
            if idle_s > _ABANDONED_S or (idle_s > _DEAD_S and _is_gone(match["host"], int(match["pid"]))):
                os.unlink(entry)


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
