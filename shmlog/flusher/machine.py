"""The machine and the Python that a run works with, told without starting anything."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

_NVIDIA = Path("/proc/driver/nvidia")
_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)
_DRIVER = re.compile(r"\s(\d+\.\d+(?:\.\d+)?)\s")
_SMALL_BYTES = 4096


def machine(nvidia: Path = _NVIDIA) -> dict[str, Any]:
    """Return what the environment of a run is, as far as it is that of any process of the machine."""
    return {
        "platform": platform.platform(),
        "implementation": sys.implementation.name,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "gpus": [found[1] for path in sorted(nvidia.glob("gpus/*/information")) if (found := _search(_MODEL, path))],
        "gpu_driver": found[1] if (found := _search(_DRIVER, nvidia / "version")) else None,
    }


def _search(pattern: re.Pattern[str], path: Path) -> re.Match[str] | None:
    try:
        with open(path, "rb") as file:
            return pattern.search(file.read(_SMALL_BYTES).decode("utf-8", "replace"))
    except OSError:
        return None


def packages() -> dict[str, str]:
    """Return the version of each installed package, by name; of two of a name, that which is imported."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            told = distribution.metadata
            name, version = told["Name"], told["Version"]
        except Exception:  # anything may lie there
            continue
        if isinstance(name, str) and isinstance(version, str):
            found.setdefault(name, version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
