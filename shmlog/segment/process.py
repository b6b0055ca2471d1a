"""Which process is meant: a pid alone is given to another one after its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_ENDED = ("Z", "X")  # states of a process that has ended and that its parent has not asked about


class Process(NamedTuple):
    """A process of this boot and pid namespace."""

    pid: int
    start: int | None  # clock ticks since boot; None: it can't be told

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        found = _look_up(self.pid)
        if found is not None:
            return found.state not in _ENDED and (self.start is None or found.start == self.start)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, whom /proc is not shown to us
            pass
        return True


def process_of(pid: int) -> Process:
    """Return the process that has the pid now."""
    found = _look_up(pid)
    return Process(pid, found.start if found else None)


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent; 0: it has none in this pid namespace, or that can't be told."""
    found = _look_up(pid)
    return found.parent if found else 0


def pid_namespace() -> str | None:
    """Return what tells this pid namespace from those of other containers; None if that is not told."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


class _Stat(NamedTuple):
    """What proc_pid_stat(5) says of a process."""

    state: str
    parent: int
    start: int


def _look_up(pid: int) -> _Stat | None:
    """Return what /proc says; None if it can't be read, such as of another user's process under hidepid."""
    try:
        # Fields behind the command's name, which may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return _Stat(fields[0], int(fields[1]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None
