"""Whether the processes of a run live, told by the kernel's locks; without the C core.

The lock bytes and the header are those of docs/format.md, section 1. Linux only: elsewhere
nothing can be told.
"""

from __future__ import annotations

import errno
import os
import platform
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shmlog.base import boot
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SHARED_MEMORY, is_segment_name
from shmlog.folder.status import CRASHED, FINISH_STATUSES, PENDING, RUNNING, finish_code, map_status, status_ended_by

LOCK_FLUSHER = 0
LOCK_MEMBER = 1

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, len, pid of struct flock on 64-bit Linux
_FINISH = struct.Struct("<II")  # finish_request and finish_status of the segment's header
_FINISH_OFFSET = 2176
_ENDED_BY = struct.Struct("<III")  # ended_by, likely_status and exiting
_ENDED_BY_OFFSET = 2232
_IS_64_BIT = sys.maxsize > 1 << 32
_GOING_S = 0.5  # how long the kernel may take to release the locks of a process that was killed
_NAP_S = 0.01
_LOCK_TABLE = Path("/proc/locks")
_READINGS = 3  # a long table comes page by page, and misses a lock if one before it is given up meanwhile


def members_live(described: Description) -> bool | None:
    """Return whether any process is attached to the run that run.yaml describes.

    None: it can't be told from here, as for a run of another host.
    """
    return _live(described, LOCK_MEMBER)


def flusher_lives(described: Description) -> bool | None:
    """Return whether a flusher keeps the run; None if it can't be told from here."""
    return _live(described, LOCK_FLUSHER)


def has_flusher(described: Description) -> bool | None:
    """Return whether a flusher keeps the run and is there to stay; None if it can't be told from here."""
    return stays(lambda: flusher_lives(described))


def stays(is_held: Callable[[], bool | None]) -> bool | None:
    """Return whether a lock is held by who lives: one that was just killed holds it for some milliseconds more."""
    deadline = time.monotonic() + _GOING_S
    while (held := is_held()) and time.monotonic() < deadline:
        time.sleep(_NAP_S)
    return held


def is_dead(layout: RunLayout, described: Description) -> bool:
    """Whether the processes of a run and its flusher are dead, for sure: it may be recovered, or deleted.

    Machines may have been copied with all that tells one from another. Therefore a run of an earlier boot counts as
    dead only if its flusher has written none of its logs since this one began.
    """
    if members_live(described) is not False or has_flusher(described) is not False:
        return False
    return described.boot_id == boot.boot_id() or _logged_at(layout) < boot.booted_at()


def is_abandoned(layout: RunLayout) -> bool:
    """Whether a run is to be recovered by whoever comes by: it has crashed, for sure, and is this user's.

    Raises
    ------
    CorruptDataError, OSError
        If that can't be read.
    """
    if not layout.wal.is_dir() or layout.dir.is_symlink() or layout.dir.parent.is_symlink():
        return False
    if os.stat(layout.run_yaml, follow_symlinks=False).st_uid != os.geteuid() or not os.access(layout.dir, os.W_OK):
        return False
    # One whose flusher was about to end has been closed meanwhile.
    return is_dead(layout, Description.read(layout)) and layout.wal.is_dir()


def is_in_use(path: Path) -> bool:
    """Whether a process may have a segment, of whatever version."""
    try:
        fd = _open(str(path))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return any(_is_held(fd, byte, exclusively=False) is not False for byte in (LOCK_FLUSHER, LOCK_MEMBER))
    finally:
        os.close(fd)


def _logged_at(layout: RunLayout) -> float:
    """Return when a flusher has last written a log of a run, which no recovery does; 0 if there is none."""
    return max((layout.log(number).lstat().st_mtime for number in layout.logs()), default=0.0)


def is_closing(described: Description) -> bool:
    """Return whether the flusher holds the member lock alone: nobody is attached any more, it closes the run."""
    return _live(described, LOCK_MEMBER, exclusively=True) is True


def is_elsewhere(described: Description) -> bool:
    """Return whether the segment lies in the shared memory of another container of this kernel."""
    segment = described.segment
    return isinstance(segment, Mapping) and described.boot_id == boot.boot_id() and not _is_same_place(segment)


def finished_as(described: Description) -> str | None:
    """Return how a run that is over has ended, though no flusher has written it yet.

    None: it can't be told from here.
    """
    segment = described.segment
    if not isinstance(segment, Mapping) or described.boot_id != boot.boot_id():
        return None
    if not _is_same_place(segment):
        return None
    try:
        fd = _open(segment["path"])
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (segment["device"], segment.get("inode")):
            return None
        _, told = _FINISH.unpack(os.pread(fd, _FINISH.size, _FINISH_OFFSET))
        number, likely, exiting = _ENDED_BY.unpack(os.pread(fd, _ENDED_BY.size, _ENDED_BY_OFFSET))
    except (OSError, struct.error):
        return None
    finally:
        os.close(fd)
    return FINISH_STATUSES.get(finish_code(told, likely, exiting)) or status_ended_by(number)


def _live(described: Description, byte: int, *, exclusively: bool = False) -> bool | None:
    segment, its_boot = described.segment, described.boot_id
    here = boot.boot_id()
    if not isinstance(segment, Mapping) or its_boot is None or here is None:
        return None
    if its_boot != here:
        return False if _has_restarted(described) else None
    if _is_same_place(segment):
        return _probe(segment, byte, exclusively)
    if segment.get("name") and _is_in_lock_table(segment, byte, exclusively) is False:
        return False  # of another container that is gone
    # One of another container that has the place of the first by now may hold a lock with the same numbers, and
    # a file on a disk may have another device in the table.
    return None


def _has_restarted(described: Description) -> bool:
    """Whether the run is from an earlier boot of this machine. Other machines may share its host name."""
    here = boot.machine_id()
    return here is not None and described.machine == here and described.host == platform.node()


def _is_same_place(segment: Mapping[str, Any]) -> bool:
    """Whether the folder of the segment is the one that the run saw, not another container's."""
    try:
        folder = os.path.dirname(segment["path"])
        return _may_be_ours(segment) and bool(os.stat(folder).st_dev == segment["device"])
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _may_be_ours(segment: Mapping[str, Any]) -> bool:
    """Whether a segment can lie where run.yaml says, which may come from anybody: no other file is looked at."""
    name, path = segment.get("name"), str(segment["path"])
    if name is None:
        return os.path.basename(path) == RunLayout("").segment.name
    return is_segment_name(name) and path == f"{SHARED_MEMORY}{name}"


def _open(path: str) -> int:
    """Open a segment to look at its locks; anything but a plain file is left alone."""
    if not stat.S_ISREG(os.lstat(path).st_mode):  # opening a device may do something
        raise OSError(errno.EINVAL, "no plain file", path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _probe(segment: Mapping[str, Any], byte: int, exclusively: bool) -> bool | None:
    """Return whether anybody holds a lock on a byte of the segment; None if it can't be told."""
    try:
        fd = _open(segment["path"])
    except FileNotFoundError:
        return _is_held_without_name(segment, byte, exclusively)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (segment["device"], segment.get("inode")):
            return _is_held_without_name(segment, byte, exclusively)
        return _is_held(fd, byte, exclusively)
    except OSError:
        return None
    finally:
        os.close(fd)


def _is_held(fd: int, byte: int, exclusively: bool) -> bool | None:
    if sys.platform != "linux" or not _IS_64_BIT:
        return None
    import fcntl

    # Only an exclusive lock keeps others from a shared one.
    kind = fcntl.F_RDLCK if exclusively else fcntl.F_WRLCK
    question = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _is_held_without_name(segment: Mapping[str, Any], byte: int, exclusively: bool) -> bool | None:
    """Whether a segment whose name is gone is held by processes that have it open, and go on logging.

    Not if there is another file with its number: shared memory gives none out twice, a disk when the first is gone
    for all. Then it lay in that of a container before this one, whose device is ours now.
    """
    folder = os.path.dirname(segment["path"])
    try:
        with os.scandir(folder) as entries:
            if any(entry.inode() == segment.get("inode") for entry in entries):
                return False
    except OSError:
        return None
    return _is_in_lock_table(segment, byte, exclusively)


def _is_in_lock_table(segment: Mapping[str, Any], byte: int, exclusively: bool) -> bool | None:
    """Look up a segment that can't be opened.

    The table has the locks of the whole kernel, whatever container they are held in. None where it has not.
    """
    device, inode = segment.get("device"), segment.get("inode")
    if type(device) is not int or type(inode) is not int:
        return None
    try:
        with _own_lock() as own:
            tables = [list(_locks(exclusively)) for _ in range(_READINGS)]
    except (OSError, ValueError, IndexError):
        return None
    wanted = _name_in_table(device, inode)
    if any(name == wanted and first <= byte <= last for table in tables for name, first, last in table):
        return True
    return False if all(any(name == own for name, _, _ in table) for table in tables) else None


def _name_in_table(device: int, inode: int) -> str:
    return f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"


@contextmanager
def _own_lock() -> Iterator[str]:
    """Hold a lock on a file of our own, and give its name: a table without it can't be relied on."""
    import fcntl

    fd = os.memfd_create("shmlog", os.MFD_CLOEXEC)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
        status = os.fstat(fd)
        yield _name_in_table(status.st_dev, status.st_ino)
    finally:
        os.close(fd)


def _locks(exclusively: bool) -> Iterator[tuple[str, int, float]]:
    """Yield file, first and last byte of the open-file-description locks of this kernel, or of the exclusive ones."""
    for line in _LOCK_TABLE.read_text().splitlines():
        fields = line.split()
        if fields[1] == "OFDLCK" and (fields[3] == "WRITE" or not exclusively):
            yield fields[-3], int(fields[-2]), float("inf") if fields[-1] == "EOF" else int(fields[-1])


def find_status(described: Description, live: bool | None) -> str:
    """Return the status of the run that run.yaml describes.

    A run is over if it is complete, or if the kernel knows that none of its processes lives. If it is not complete
    then, its segment knows better than run.yaml: that it was finished, that its maker has ended otherwise than was
    likely, or that a signal has stopped it. The flusher may be late to write that. Else a run that says ``pending``
    or ``running`` has crashed.
    """
    status = map_status(described.status) or RUNNING
    is_complete, is_open = described.complete is True, status in (PENDING, RUNNING)
    if (is_open and is_complete) or (not is_complete and live is False):
        return finished_as(described) or (CRASHED if is_open else status)
    return status
