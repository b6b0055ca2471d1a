"""Which process saved a checkpoint, and whether it still lives."""

from __future__ import annotations

import os
from pathlib import Path

_STARTED = 19  # of the fields behind the name in /proc/PID/stat, see proc_pid_stat(5): clock ticks since the boot


def this_process() -> str:
    """Return the name of this process, ``HOST PID STARTED``: a later process may get the pid again."""
    return f"{os.uname().nodename} {os.getpid()} {_started('self')}"


def is_live_other(saver: str) -> bool:
    """Whether a process of this host, other than the present one, has this name and lives."""
    host, _, rest = saver.partition(" ")
    pid, _, started = rest.partition(" ")
    if host != os.uname().nodename or not pid.isdecimal() or int(pid) == os.getpid():
        return False
    return started != "" and _started(pid) == started


def _started(pid: str) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[_STARTED]
