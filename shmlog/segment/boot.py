"""Which boot of which machine this is."""

from __future__ import annotations

from pathlib import Path


def boot_id() -> str | None:
    """Return the kernel's random id of this boot, or None where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
