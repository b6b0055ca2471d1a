"""The machine and the Python of a run, found without starting another process."""

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

# The e-mail parser of importlib.metadata takes six times as long.
_NAME = re.compile(r"^Name: *(.*?)\s*$", re.MULTILINE)
_VERSION = re.compile(r"^Version: *(.*?)\s*$", re.MULTILINE)


def machine(nvidia: Path = _NVIDIA) -> dict[str, Any]:
    """Return the part of a run's environment that is the same for all processes of the machine."""
    return {
        "platform": platform.platform(),
        "implementation": sys.implementation.name,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "gpus": [match[1] for path in sorted(nvidia.glob("gpus/*/information")) if (match := _search(_MODEL, path))],
        "gpu_driver": match[1] if (match := _search(_DRIVER, nvidia / "version")) else None,
    }


def _search(pattern: re.Pattern[str], path: Path) -> re.Match[str] | None:
    try:
        with open(path, "rb") as file:
            return pattern.search(file.read(_SMALL_BYTES).decode("utf-8", "replace"))
    except OSError:
        return None


def packages() -> dict[str, str]:
    """Return the version of each installed package, by name; of two with one name, the one that is imported."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            files = filter(None, map(distribution.read_text, ("METADATA", "PKG-INFO", "")))
            head = next(files, "").partition("\n\n")[0]
        except Exception:  # the files may hold anything
            continue
        if (name := _NAME.search(head)) and (version := _VERSION.search(head)):
            versions.setdefault(name[1], version[1])
    return dict(sorted(versions.items(), key=lambda item: item[0].lower()))
