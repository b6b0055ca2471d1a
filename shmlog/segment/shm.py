"""Create, open and remove segments. Only this module and the doorbell use posix_ipc."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.errors import SegmentError
from shmlog.folder.description import Description
from shmlog.folder.segmentref import SHARED_MEMORY, SegmentRef
from shmlog.records.reasons import REASONS
from shmlog.segment import place
from shmlog.segment.clock import clock_number
from shmlog.segment.doorbell import Doorbell

PREFIX = "/shmlog-"
_TRIES = 16
_MAGIC_BYTES = 8
_NONE = (0,) * len(REASONS)


class DropPolicy(NamedTuple):
    """How every process of a run reacts when there is no room for a record."""

    wait: bool
    max_wait_s: float
    strict: bool


NEVER_WAIT = DropPolicy(wait=False, max_wait_s=0.0, strict=False)


class _Header(NamedTuple):
    """The header of a new segment, but for the sizes."""

    run_id: str
    run_dir: Path
    clock: int
    first_lane: int
    unlaned: tuple[int, ...]
    drop_policy: DropPolicy


class Placed(NamedTuple):
    """A segment and its place."""

    segment: _core.Segment
    name: str | None  # of the shared-memory object and its doorbell; None: a file in the run folder
    path: Path


def create(
    run_id: str, run_dir: Path, *, lanes: int | None, lane_records: int | None, clock: str, private: Path,
    first_lane: int = 0, unlaned: tuple[int, ...] = _NONE, drop_policy: DropPolicy = NEVER_WAIT,
) -> Placed:  # fmt: skip
    """Create a segment, in shared memory if there is room, else in the run folder.

    Parameters
    ----------
    run_id, run_dir
        Id and folder of the run, for the header.
    lanes, lane_records : int or None
        As in `shmlog.init`.
    clock : str
        ``"auto"``, ``"monotonic"`` or ``"tsc"``.
    private : Path
        Path of the file to create when shared memory has no room.
    first_lane : int
        The number of lane 0 in the files of the run: not 0 if the run was resumed.
    unlaned : tuple of int
        Drops so far, by reason, of processes that had no lane.
    drop_policy : DropPolicy
        For all processes that will attach.

    Raises
    ------
    SegmentError
        If there is no room for the segment anywhere. The message names the sizes and the remedy.
    """
    number = clock_number(clock)
    header = _Header(run_id, run_dir, number, first_lane, unlaned, drop_policy)
    free = place.shared_memory_free()
    size = place.choose_size(free, lanes, lane_records)
    if size.least_bytes <= free:
        try:
            return _create_shared(header, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EACCES, errno.EROFS, errno.ENOSYS):
                raise
    return _create_file(header, private, lanes, lane_records)


def _create_shared(header: _Header, size: place.Size) -> Placed:
    import posix_ipc

    for _ in range(_TRIES):
        name = PREFIX + os.urandom(8).hex()
        try:
            shm = posix_ipc.SharedMemory(name, flags=posix_ipc.O_CREX, mode=0o600)
        except posix_ipc.ExistentialError:
            continue  # the name is in use; 64 random bits will find another
        except posix_ipc.PermissionsError as error:
            raise OSError(errno.EACCES, "no shared memory may be created here", name) from error
        path = SHARED_MEMORY / name[1:]
        try:
            segment = _fill(shm.fd, path, header, size)
            Doorbell.create(name)
        except posix_ipc.ExistentialError:
            shm.unlink()
            continue  # a doorbell of that name exists
        except BaseException:
            shm.unlink()
            raise
        return Placed(segment, name, path)
    raise SegmentError(f"no free name for a segment after {_TRIES} random ones; is /dev/shm being squatted?")


def _create_file(header: _Header, path: Path, lanes: int | None, lane_records: int | None) -> Placed:
    place.check_local(path.parent)
    size = place.choose_size(place.free_bytes(path.parent), lanes, lane_records)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        segment = _fill(fd, path, header, size)
    except OSError as error:
        path.unlink()
        if error.errno != errno.ENOSPC:
            raise
        raise SegmentError(
            f"no room for a segment of {size.least_bytes:,} bytes: /dev/shm has "
            f"{place.shared_memory_free():,} free, {path.parent} has {place.free_bytes(path.parent):,}; "
            f"enlarge /dev/shm (docker run --shm-size=256m) or pass a smaller lane_records"
        ) from error
    return Placed(segment, None, path)


def _fill(fd: int, path: Path, header: _Header, size: place.Size) -> _core.Segment:
    """Make the segment in the new file ``fd``, which is closed if that fails."""
    try:
        os.set_inheritable(fd, False)
        os.fchmod(fd, 0o600)  # whatever the umask
        return _core.Segment.create(
            fd, str(path), lanes=size.lanes, lane_slots=size.lane_records, run_id=header.run_id,
            run_dir=str(header.run_dir), clock=header.clock, first_lane=header.first_lane, unlaned=header.unlaned,
            drop_policy=header.drop_policy,
        )  # fmt: skip
    except BaseException:
        os.close(fd)
        raise


def open_segment(
    ref: SegmentRef, description: Description | None = None, *, inherited: int | None = None
) -> _core.Segment:
    """Open a segment made by this user.

    Parameters
    ----------
    ref : SegmentRef
        Where it lies.
    description : Description, optional
        The content of run.yaml, which identifies the file: a copy in its place is refused.
    inherited : int, optional
        A descriptor that may be of the segment, from the process that started this one. If it is the file that
        ``description`` identifies, the name is not needed: that may be gone, or be another file's.

    Raises
    ------
    FileNotFoundError
        If the segment is gone.
    SegmentError
        If the segment is another user's, open to other users, not the run's, or not usable.
    """
    fd = _open_again(inherited, description) if inherited is not None and description is not None else None
    fd = _open(ref) if fd is None else fd
    try:
        _check_owner(fd, ref.path)
        if description is not None and _is_replaced(fd, ref, description):
            raise SegmentError(
                f"{ref.path}: is not the file in which the run began but one in its place, such as a copy; what is "
                "logged into it would be lost"
            )
        os.set_inheritable(fd, False)
        return _core.Segment.open(fd, str(ref.path))
    except BaseException:
        os.close(fd)
        raise


def _open(ref: SegmentRef) -> int:
    try:
        if ref.name is None:
            return os.open(ref.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        return _open_shared(ref)
    except (FileNotFoundError, SegmentError):
        raise
    except PermissionError as error:
        raise SegmentError(f"{ref.path}: belongs to another user") from error
    except OSError as error:  # a symlink or a folder, or no free descriptor
        raise SegmentError(f"{ref.path}: can't be opened ({error.strerror})") from error


def _open_again(inherited: int, description: Description) -> int | None:
    """Return another description of an inherited file, since its own carries a lock; None if it is not the segment."""
    try:
        if _is_file_of(description, os.fstat(inherited)):
            return os.open(f"/proc/self/fd/{inherited}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pass  # the descriptor is closed, or there is no /proc
    return None


def _open_shared(ref: SegmentRef) -> int:
    import posix_ipc

    try:
        return int(posix_ipc.SharedMemory(ref.name).fd)
    except posix_ipc.ExistentialError as error:
        raise FileNotFoundError(errno.ENOENT, "the segment is gone", str(ref.path)) from error
    except ValueError as error:  # posix_ipc raises it for a folder
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(ref.path)) from error
    except posix_ipc.PermissionsError as error:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(ref.path)) from error


def _check_owner(fd: int, path: Path) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentError(f"{path}: not a regular file; remove it if it is not yours")
    if status.st_uid != os.geteuid():
        raise SegmentError(f"{path}: belongs to user {status.st_uid}, you are {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SegmentError(f"{path}: open to other users (mode {stat.S_IMODE(status.st_mode):o}), refused")


def is_of_original(segment: _core.Segment, run_dir: Path) -> bool:
    """Whether a run folder is a copy of the segment's run folder; a folder that was moved is not a copy."""
    original = segment.run_dir  # empty if the path is too long for the header
    try:
        return original != "" and not os.path.samefile(original, run_dir)
    except OSError:
        return False


def may_hold_records(ref: SegmentRef) -> bool:
    """Whether a segment that can't be opened may hold records: not without its magic number, which is written last."""
    try:
        fd = os.open(ref.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return any(os.read(fd, _MAGIC_BYTES))
    except OSError:
        return True
    finally:
        os.close(fd)


def is_described(ref: SegmentRef, description: Description) -> bool:
    """Whether the file at the path of a segment is the one that run.yaml names."""
    try:
        return _is_file_of(description, os.lstat(ref.path))
    except OSError:
        return False


def _is_file_of(description: Description, status: os.stat_result) -> bool:
    try:
        return bool((status.st_dev, status.st_ino) == (description.segment["device"], description.segment["inode"]))
    except (KeyError, TypeError):
        return False


def _is_replaced(fd: int, ref: SegmentRef, description: Description) -> bool:
    """Whether ``fd`` is certainly not the file that run.yaml names; unknown for a run that was moved.

    The device of a disk may have another number when the machine has restarted.
    """
    described, status = description.segment, os.fstat(fd)
    if not isinstance(described, Mapping) or described.get("path") != str(ref.path):
        return False
    device = described.get("device") if ref.name is not None else status.st_dev
    identity = (device, described.get("inode"))
    return all(type(number) is int for number in identity) and identity != (status.st_dev, status.st_ino)


def unlink(ref: SegmentRef, description: Description | None = None) -> None:
    """Remove a segment and its doorbell, if they exist.

    With the content of run.yaml, ``description``, another file in the segment's place is not removed.
    """
    if ref.name is None:
        ref.path.unlink(missing_ok=True)
        return
    import posix_ipc

    Doorbell.unlink(ref.name)  # first: as long as the segment exists, another try finds both
    if description is not None and not is_described(ref, description):
        return
    try:
        posix_ipc.unlink_shared_memory(ref.name)
    except posix_ipc.ExistentialError:
        pass
