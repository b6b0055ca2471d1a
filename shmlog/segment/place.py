"""Where a segment may lie, and how large its lanes may be there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.errors import SegmentError
from shmlog.folder.segmentref import SHARED_MEMORY

LANES = 256
LANE_RECORDS = 65_536
LANE_RECORDS_LEAST = 4_096
LANES_THAT_MUST_FIT = 16
SHARE = 4  # of the free shared memory, for those lanes

# File systems on which the mapping of a file is not coherent between hosts, or not possible.
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "lustre", "ceph", "beegfs", "gpfs", "afs"})


class Size(NamedTuple):
    """Lanes and slots of a segment."""

    lanes: int
    lane_records: int

    @property
    def least_bytes(self) -> int:
        """Bytes that are allocated at once: everything before the lanes, and one lane."""
        return int(_core.head_bytes(self.lanes)) + self.lane_records * _core.SLOT_BYTES


def free_bytes(folder: Path) -> int:
    """Return the free bytes in the file system of ``folder``."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def shared_memory_free() -> int:
    """Return the free bytes of shared memory; 0 where it can't hold segments.

    The shared-memory objects of macOS can't be locked.
    """
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return free_bytes(SHARED_MEMORY)
    except OSError:
        return 0


def choose_size(free: int, lanes: int | None, lane_records: int | None) -> Size:
    """Return the size for a file system with ``free`` bytes.

    A lane has 65,536 records, halved until 16 lanes fit a quarter of ``free``,
    but at least 4,096. A ``lane_records`` of the caller is rounded up to a power of two.

    Raises
    ------
    ValueError
        If ``lanes`` or ``lane_records`` is out of range.
    """
    lanes = LANES if lanes is None else _in_range("lanes", lanes, 1, _core.LANES_MAX)
    if lane_records is not None:
        _in_range("lane_records", lane_records, 1, _core.LANE_SLOTS_MAX)
        return Size(lanes, max(1 << (lane_records - 1).bit_length(), _core.LANE_SLOTS_MIN))
    records = LANE_RECORDS
    while records > LANE_RECORDS_LEAST and records * _core.SLOT_BYTES * LANES_THAT_MUST_FIT * SHARE > free:
        records //= 2
    return Size(lanes, records)


def _in_range(name: str, value: int, minimum: int, maximum: int) -> int:
    if not isinstance(value, int) or not minimum <= value <= maximum:
        raise ValueError(f"{name} must be an int from {minimum} to {maximum}, not {value!r}")
    return value


def file_system(folder: Path) -> str:
    """Return the type of the file system of ``folder``, or ``""`` if it is not known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    target = os.path.realpath(folder)
    best, kind = -1, ""
    for line in lines:
        fields = line.split()
        mount = fields[4].encode().decode("unicode_escape")
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= best:
            best, kind = len(mount), fields[fields.index("-") + 1]
    return kind


def check_local(folder: Path) -> None:
    """Refuse a folder in which a file can't serve as shared memory.

    Raises
    ------
    SegmentError
        If the folder lies on a network file system.
    """
    kind = file_system(folder)
    if kind in _REMOTE or kind.startswith("fuse"):
        raise SegmentError(
            f"{folder} lies on a {kind} file system, which can't hold the shared-memory segment, and "
            f"/dev/shm has no room for it; enlarge /dev/shm (docker run --shm-size=256m) or choose a local root"
        )
