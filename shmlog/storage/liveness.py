"""Whether the processes of a run live, told by the kernel's locks; without the C core.

The lock bytes are those of docs/format.md, section 1.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOCK_FLUSHER = 0
LOCK_MEMBER = 1

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, len, pid of struct flock on 64-bit Linux
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_boot() -> str | None:
    """Return the kernel's random id of this boot, or None where there is none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


def _is_held(fd: int, byte: int) -> bool:
    question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _probe(segment: Mapping[str, Any], byte: int) -> bool | None:
    """Return whether anybody holds a lock; False if the segment is gone, None if it can't be told."""
    if not hasattr(fcntl, "F_OFD_GETLK"):
        return None
    try:
        fd = os.open(segment["path"], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except (OSError, KeyError, TypeError, ValueError):
        return None
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (segment.get("device"), segment.get("inode")):
            return False  # another run's: ours is gone
        return _is_held(fd, byte)
    except OSError:
        return None
    finally:
        os.close(fd)


def members_live(described: Mapping[str, Any]) -> bool | None:
    """Return whether any process is attached to the run that run.yaml describes.

    None: it can't be told from here, as for a run of another host or container.
    """
    segment = described.get("segment")
    if not isinstance(segment, dict) or described.get("host") != os.uname().nodename:
        return None
    boot = described.get("boot_id")
    if boot is None or this_boot() is None:
        return None
    if boot != this_boot():
        return False
    if not _same_place(segment):
        return None
    return _probe(segment, LOCK_MEMBER)


def flusher_lives(described: Mapping[str, Any]) -> bool | None:
    """Return whether a flusher keeps the run; None if it can't be told from here."""
    segment = described.get("segment")
    return _probe(segment, LOCK_FLUSHER) if isinstance(segment, dict) and _same_place(segment) else None


def _same_place(segment: Mapping[str, Any]) -> bool:
    """Whether the folder of the segment is the one that the run saw, not another container's."""
    try:
        return bool(os.stat(os.path.dirname(segment["path"])).st_dev == segment["device"])
    except (OSError, KeyError, TypeError, ValueError):
        return False
