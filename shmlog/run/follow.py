"""The run to which a process that made none logs: that of the process that started it.

An owner of a run is the process that made it, or a rank that has joined it. All other processes got their run
from an owner, and follow it to its next run. The beacon of an owner lists its open runs.
"""

from __future__ import annotations

import os
import time

from shmlog import _core
from shmlog.run.run import Run
from shmlog.segment import beacon
from shmlog.segment.beacon import BeaconEntry

_family: _Family | None = None


class _Family:
    """The ancestors of a process, as long as its parent lives."""

    def __init__(self, pid: int, parent: int) -> None:
        self.pid, self.parent = pid, parent
        self.beacons = tuple(beacon.name_of(process) for process in beacon.ancestors())
        self.paths = tuple(str(beacon.path_of(name)) for name in self.beacons)
        self.born_s = beacon.born_s()
        self.state_without_runs = 0  # last state of the beacons in which none of them listed a run; 0: no beacon
        self.unseen_until_ns = 0


def entries_of(name: str) -> list[BeaconEntry]:
    """Return the runs that the process of a beacon has open; none if the beacon can't be read."""
    return beacon.read(name) or []


def is_open(run: Run, if_unknown: bool = True) -> bool:
    """Whether the owner of a follower's run has it open.

    ``if_unknown`` is the answer if the owner's beacon is gone or can't be read, as in a child that has changed
    its user or its mounts.
    """
    entries = beacon.read(run._beacon) if run._beacon is not None else None
    if entries is None or run._entry is None:
        return if_unknown
    return any(entry.token == run._entry.token for entry in entries)


def successor(run: Run) -> tuple[str, BeaconEntry] | None:
    """Return the beacon and the run to which handles of ``run``, which its owner has ended, go.

    It is the newest later run that the owner has made in the same thread or task, or else while it had no other open.
    """
    if run._beacon is None or run._entry is None:
        return None
    later = [entry for entry in entries_of(run._beacon) if entry.begun > run._entry.begun]
    chosen = [entry for entry in later if entry.chain == run._entry.chain] or [e for e in later if e.alone]
    return (run._beacon, chosen[-1]) if chosen else None


def surrounding(run: Run) -> tuple[str, BeaconEntry] | None:
    """Return the beacon and the run within which ``run`` was made, if it is open: calls without a run go there."""
    if run._beacon is None or run._entry is None:
        return None
    around = [entry for entry in entries_of(run._beacon) if entry.begun in run._entry.under]
    return (run._beacon, around[-1]) if around else None


def of_ancestors() -> tuple[str, list[BeaconEntry]] | None:
    """Return the beacon and the open runs of the nearest ancestor that began one after this process was born.

    Runs begun before its birth were handed down, or deliberately not.
    """
    now_ns = time.monotonic_ns()
    if _family is not None and now_ns < _family.unseen_until_ns:
        return None
    family = _family_now()
    state = _core.state_of(family.paths)
    if state != family.state_without_runs:
        for name in family.beacons:
            entries = [entry for entry in entries_of(name) if entry.since_s >= family.born_s]
            if entries:
                return name, entries
    family.state_without_runs = state
    family.unseen_until_ns = now_ns + beacon.UNSEEN_NS  # counted from before the beacons were read
    return None


def _family_now() -> _Family:
    global _family
    pid, parent = os.getpid(), os.getppid()
    family = _family
    if family is None or family.pid != pid or family.parent != parent:
        _family = family = _Family(pid, parent)
    return family
