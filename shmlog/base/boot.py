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
    """Return an id that tells this machine from others of its name, or None where there is none.

    It is a keyed hash, as machine-id(5) asks: the machine's own id must not be given away.
    """
    try:
        text = _MACHINE_ID.read_bytes().strip()
    except OSError:
        return None
    if len(text) != 32:  # the file is empty in images, and says "uninitialized" at the first boot
        return None
    try:
        from _blake2 import blake2b  # hashlib.blake2b; hashlib itself loads OpenSSL, which takes as long as init
    except ImportError:  # a Python that was built without it
        return None
    return blake2b(text, key=_KEY, digest_size=16).hexdigest()


def booted_at() -> float:
    """Return when this boot began, in seconds since 1970."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
