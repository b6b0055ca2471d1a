"""Whether the processes of a run live, found by the kernel's locks; without the C core.

The lock bytes and the header are those of docs/format.md, section 1. Linux only: elsewhere
the answer is unknown.
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
from shmlog.base.times import parse_us
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
_GOING_S = 0.5  # how long the kernel may take to release the locks of a killed process
_NAP_S = 0.01
_LOCK_TABLE = Path("/proc/locks")
_READINGS = 3  # a long table is read page by page, and lacks a lock if one before it is released meanwhile


def members_live(description: Description) -> bool | None:
    """Return whether any process is attached to the run that run.yaml describes.

    None: unknown here, as for a run of another host.
    """
    return _live(description, LOCK_MEMBER)


def flusher_lives(description: Description) -> bool | None:
    """Return whether a flusher keeps the run; None if that is unknown here."""
    return _live(description, LOCK_FLUSHER)


def has_flusher(description: Description) -> bool | None:
    """Return whether a flusher keeps the run and is not just being killed; None if that is unknown here."""
    return stays(lambda: flusher_lives(description))


def stays(is_held: Callable[[], bool | None]) -> bool | None:
    """Return whether a live process holds a lock: a killed one still holds it for some milliseconds."""
    deadline = time.monotonic() + _GOING_S
    while (held := is_held()) and time.monotonic() < deadline:
        time.sleep(_NAP_S)
    return held


def is_dead(layout: RunLayout, description: Description) -> bool:
    """Whether the processes of a run and its flusher are certainly dead, so that it may be recovered or deleted.

    A copied machine may have the identity of its original. Therefore a run of an earlier boot counts as
    dead only if it began before the present boot, and its flusher has written none of its logs since.

    Raises
    ------
    CorruptDataError, OSError
        If run.yaml can't be read.
    """
    if members_live(description) is not False or has_flusher(description) is not False:
        return False
    return description.boot_id == boot.boot_id() or _last_seen_at(layout) < boot.booted_at()


def is_abandoned(layout: RunLayout) -> bool:
    """Whether any process of this user should recover a run: it has certainly crashed, and belongs to this user.

    Raises
    ------
    CorruptDataError, OSError
        If run.yaml or the folder can't be read.
    """
    if not layout.wal.is_dir() or layout.dir.is_symlink() or layout.dir.parent.is_symlink():
        return False
    if os.stat(layout.run_yaml, follow_symlinks=False).st_uid != os.geteuid() or not os.access(layout.dir, os.W_OK):
        return False
    # A flusher that was about to end may have closed the run meanwhile.
    return is_dead(layout, Description.read(layout)) and layout.wal.is_dir()


def is_in_use(path: Path) -> bool:
    """Whether a process may have a segment open, whatever its version."""
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


def _last_seen_at(layout: RunLayout) -> float:
    """Return when the latest attempt began, or when a flusher last wrote a log of it (a recovery writes none)."""
    begun_us = parse_us(Description.read(layout).all_attempts()[-1].get("started_at")) or 0
    return max([begun_us / 1e6, *(layout.log(number).lstat().st_mtime for number in layout.logs())])


def is_closing(description: Description) -> bool:
    """Return whether the flusher holds the member lock alone: no process is attached, and it closes the run."""
    return _live(description, LOCK_MEMBER, exclusively=True) is True


def is_elsewhere(description: Description) -> bool:
    """Return whether the segment lies in the shared memory of another container of this kernel."""
    segment = description.segment
    return isinstance(segment, Mapping) and description.boot_id == boot.boot_id() and not _is_same_place(segment)


def finished_as(description: Description) -> str | None:
    """Return the status with which a run has ended, before a flusher writes it into run.yaml.

    None: unknown here.
    """
    segment = description.segment
    if not isinstance(segment, Mapping) or description.boot_id != boot.boot_id():
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
        _, finish_status = _FINISH.unpack(os.pread(fd, _FINISH.size, _FINISH_OFFSET))
        number, likely, exiting = _ENDED_BY.unpack(os.pread(fd, _ENDED_BY.size, _ENDED_BY_OFFSET))
    except (OSError, struct.error):
        return None
    finally:
        os.close(fd)
    return FINISH_STATUSES.get(finish_code(finish_status, likely, exiting)) or status_ended_by(number)


def _live(description: Description, byte: int, *, exclusively: bool = False) -> bool | None:
    segment, run_boot = description.segment, description.boot_id
    this_boot = boot.boot_id()
    if not isinstance(segment, Mapping) or run_boot is None or this_boot is None:
        return None
    if run_boot != this_boot:
        return False if _has_restarted(description) else None
    if _is_same_place(segment):
        return _probe(segment, byte, exclusively)
    if segment.get("name") and _is_in_lock_table(segment, byte, exclusively) is False:
        return False  # the run's container is gone
    # A later container in the place of the first may hold a lock with the same numbers, and a file on a disk may
    # have another device in the table.
    return None


def _has_restarted(description: Description) -> bool:
    """Whether the run is from an earlier boot of this machine. Other machines may share its host name."""
    machine = boot.machine_id()
    return machine is not None and description.machine == machine and description.host == platform.node()


def _is_same_place(segment: Mapping[str, Any]) -> bool:
    """Whether the folder of the segment is the one that the run used, not another container's."""
    try:
        folder = os.path.dirname(segment["path"])
        return _may_be_ours(segment) and bool(os.stat(folder).st_dev == segment["device"])
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _may_be_ours(segment: Mapping[str, Any]) -> bool:
    """Whether run.yaml, which may come from anybody, names a possible place of a segment: no other file is opened."""
    name, path = segment.get("name"), str(segment["path"])
    if name is None:
        return os.path.basename(path) == RunLayout("").segment.name
    return is_segment_name(name) and path == f"{SHARED_MEMORY}{name}"


def _open(path: str) -> int:
    """Open a segment to look at its locks; anything but a plain file is refused."""
    if not stat.S_ISREG(os.lstat(path).st_mode):  # opening a device may have effects
        raise OSError(errno.EINVAL, "no plain file", path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _probe(segment: Mapping[str, Any], byte: int, exclusively: bool) -> bool | None:
    """Return whether a process holds a lock on a byte of the segment; None if that is unknown."""
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

    # Only an exclusive lock prevents a shared one.
    kind = fcntl.F_RDLCK if exclusively else fcntl.F_WRLCK
    request = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, request)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _is_held_without_name(segment: Mapping[str, Any], byte: int, exclusively: bool) -> bool | None:
    """Whether processes that go on logging hold a segment whose name is gone.

    They do not if another file has its inode number: shared memory never reuses one, and a disk only when no process
    has the first file open. Then the segment lay in an earlier container, whose device number is ours now.
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

    The table has the locks of the whole kernel, in whatever container they are held. None: it is not complete here.
    """
    device, inode = segment.get("device"), segment.get("inode")
    if type(device) is not int or type(inode) is not int:
        return None
    try:
        with _own_lock() as own:
            tables = [list(_locks(exclusively)) for _ in range(_READINGS)]
    except (OSError, ValueError, IndexError):
        return None
    segment_name = _name_in_table(device, inode)
    if any(name == segment_name and first <= byte <= last for table in tables for name, first, last in table):
        return True
    return False if all(any(name == own for name, _, _ in table) for table in tables) else None


def _name_in_table(device: int, inode: int) -> str:
    return f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"


@contextmanager
def _own_lock() -> Iterator[str]:
    """Hold a lock on a file of our own, and yield its name: a table without it is not complete."""
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


def find_status(description: Description, live: bool | None) -> str:
    """Return the status of the run that run.yaml describes.

    A run is over if it is complete, or if the kernel knows that none of its processes lives. If it is over but not
    complete, its segment is more recent than run.yaml: it says that the run was finished, that its maker has ended
    otherwise than was likely, or that a signal has stopped it; the flusher may write that later. Without such a word,
    a run whose status is ``pending`` or ``running`` has crashed.
    """
    status = map_status(description.status) or RUNNING
    is_complete, is_open = description.complete is True, status in (PENDING, RUNNING)
    if (is_open and is_complete) or (not is_complete and live is False):
        return finished_as(description) or (CRASHED if is_open else status)
    return status
