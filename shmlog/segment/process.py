"""Processes by pid and start time: the kernel reuses a pid after the end of its process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

_ENDED = ("Z", "X")  # states of a process that has ended and is not yet reaped by its parent


class Process(NamedTuple):
    """A process of this boot and pid namespace."""

    pid: int
    start: int | None  # clock ticks since boot; None: unknown

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        stat = _look_up(self.pid)
        if stat is not None:
            return stat.state not in _ENDED and (self.start is None or stat.start == self.start)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's process, which /proc hides from us
            pass
        return True


def process_of(pid: int) -> Process:
    """Return the process that now has the pid."""
    stat = _look_up(pid)
    return Process(pid, stat.start if stat else None)


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent; 0: it has none in this pid namespace, or that is unknown."""
    stat = _look_up(pid)
    return stat.parent if stat else 0


def pid_namespace() -> str | None:
    """Return the identity of this pid namespace, which differs between containers; None if it is unknown."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


class _Stat(NamedTuple):
    """Fields of proc_pid_stat(5)."""

    state: str
    parent: int
    start: int


def _look_up(pid: int) -> _Stat | None:
    """Return the fields from /proc; None if it can't be read, as for another user's process under hidepid."""
    try:
        # The fields after the command's name, which may contain spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return _Stat(fields[0], int(fields[1]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None
