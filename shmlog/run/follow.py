"""Which run a process that made none logs to: that of the process which started it.

An owner of a run is the process that made it, or a rank that has joined it. All others got theirs from
their owner, and follow it to its next run. What an owner has open stands in its beacon.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from shmlog import _core
from shmlog.segment import beacon
from shmlog.segment.beacon import Entry

if TYPE_CHECKING:
    from shmlog.run.run import Run

_no_beacon_at = -1
_family: tuple[tuple[int, int], list[str]] = ((0, 0), [])
_RECENT_NS = 100_000_000  # more than the time between two ticks that files are dated with


def entries_of(name: str) -> list[Entry]:
    """Return the runs that the process of a beacon has open; none if there is no such beacon, or it can't be read."""
    return beacon.read(name) or []


def is_open(run: Run, if_unknown: bool = True) -> bool:
    """Whether the owner of a follower's run has it open.

    ``if_unknown`` is the answer where the owner's beacon is gone or can't be read, as in a child that has changed
    its user or its mounts.
    """
    entries = beacon.read(run._beacon) if run._beacon is not None else None
    if entries is None or run._entry is None:
        return if_unknown
    return any(entry.token == run._entry.token for entry in entries)


def successor(run: Run) -> tuple[str, Entry] | None:
    """Return the run that handles of ``run``, which has ended for its owner, go to; and its beacon.

    That is the next one that the owner has made in the same thread or task, or when it had no other open.
    """
    if run._beacon is None or run._entry is None:
        return None
    later = [entry for entry in entries_of(run._beacon) if entry.begun > run._entry.begun]
    chosen = [entry for entry in later if entry.chain == run._entry.chain] or [e for e in later if e.alone]
    return (run._beacon, chosen[-1]) if chosen else None


def surrounding(run: Run) -> tuple[str, Entry] | None:
    """Return the run in which ``run`` was made, if its owner has it open: calls without a run go there."""
    if run._beacon is None or run._entry is None:
        return None
    around = [entry for entry in entries_of(run._beacon) if entry.begun in run._entry.under]
    return (run._beacon, around[-1]) if around else None


def of_ancestors() -> tuple[str, list[Entry]] | None:
    """Return the beacon and the open runs of the nearest ancestor that began one after this process was born.

    Those begun before it were handed down, or meant not to be.
    """
    global _no_beacon_at
    folder = beacon.folder()
    changed = _core.changed_ns(folder)
    if changed == _no_beacon_at:
        return None
    for name in _beacons_of_ancestors():
        if os.access(f"{folder}/{name}", os.F_OK):
            born_s = beacon.born_s()
            entries = [entry for entry in entries_of(name) if entry.since_s >= born_s]
            if entries:
                return name, entries
    # A folder that has changed just now may change again without being dated anew.
    _no_beacon_at = changed if changed < time.time_ns() - _RECENT_NS else -1
    return None


def _beacons_of_ancestors() -> list[str]:
    global _family
    family = os.getpid(), os.getppid()
    if _family[0] != family:
        _family = family, [beacon.name_of(process) for process in beacon.ancestors()]
    return _family[1]
