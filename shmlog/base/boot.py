"""Which machine this is, and which boot of it."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_KEY = b"shmlog"


def boot_id() -> str | None:
    """Return the kernel's random id of this boot, or None where there is none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


def machine_id() -> str | None:
    """Return what tells this machine from others that have its name, or None where there is nothing.

    A keyed hash, as machine-id(5) wants it: the id itself is not to be given away.
    """
    try:
        told = _MACHINE_ID.read_bytes().strip()
    except OSError:
        return None
    if len(told) != 32:  # it is empty in images, and says "uninitialized" at the first boot
        return None
    try:
        from _blake2 import blake2b  # hashlib.blake2b; hashlib itself loads OpenSSL, which takes as long as init
    except ImportError:  # a Python that was built without it
        return None
    return blake2b(told, key=_KEY, digest_size=16).hexdigest()


def booted_at() -> float:
    """Return when this boot has begun, in seconds since 1970."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
