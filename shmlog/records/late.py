"""Drops of records that were logged after the end of a run, when it has no lanes any more.

The books of a run are closed with it. A process that still logs to it counts its drops in its own file,
``late/PID-RANDOM.json`` in the run folder. Each drop rewrites it in place, in one write of a line of fixed
length, so that a kill leaves it whole.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter

from shmlog.errors import UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.records.reasons import LATE_REASONS

_FILE = r"\d+-[0-9a-f]{8}\.json"
_DIGITS = 20
_BYTES_MAX = 256


class LateDrops:
    """The file in which this process counts its drops since the end of a run."""

    def __init__(self, layout: RunLayout) -> None:
        layout.refuse_links()
        layout.late.mkdir(exist_ok=True)
        self._path = layout.late / f"{os.getpid()}-{os.urandom(4).hex()}.json"
        self._counts = dict.fromkeys(LATE_REASONS, 0)
        self.pid = os.getpid()

    def add(self, reason: str, records: int) -> None:
        """Count more drops. The file does not stay open: a process may outlive many runs."""
        self._counts[reason] += records
        pieces = (f'"{name}": {count:{_DIGITS}}' for name, count in self._counts.items())
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            os.pwrite(fd, f"{{{', '.join(pieces)}}}\n".encode(), 0)
        finally:
            os.close(fd)


def read_late(layout: RunLayout) -> tuple[dict[str, int], list[str]]:
    """Return the late drops of all processes by reason, and the problems of files that were left out."""
    total: Counter[str] = Counter()
    problems = []
    try:
        names = [] if layout.files.is_link(layout.late) else sorted(layout.files.names(layout.late))
    except FileNotFoundError:
        return {}, []
    for name in names:
        counts = _read(layout, name)
        if counts is None:
            problems.append(f"late/{name}: not a count of late drops")
        else:
            total.update(counts)
    return {reason: count for reason, count in total.items() if count}, problems


def _read(layout: RunLayout, name: str) -> dict[str, int] | None:
    if not re.fullmatch(_FILE, name):
        return None
    try:
        data = layout.files.read_range(layout.late / name, 0, _BYTES_MAX)
        counts = json.loads(data) if data else {}  # its writer was killed between the two steps
    except (OSError, ValueError, UnreadableError):
        return None
    is_sound = isinstance(counts, dict) and all(
        reason in LATE_REASONS and type(count) is int and count >= 0 for reason, count in counts.items()
    )
    return counts if is_sound else None
