"""The meeting of the ranks of one launch: a small file in shared memory, which lists the runs of the launch.

It names its launcher. It is needed as long as the launcher lives and a rank may still join one of its runs, or resume
one. Each `init`, each flusher that closes a run, and ``shmlog gc`` remove those that are not needed.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from shmlog.errors import UnreadableError
from shmlog.folder import flock
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import MEETING_PREFIX, SHARED_MEMORY, names_in
from shmlog.folder.status import SUCCESS
from shmlog.segment.lockfile import hold
from shmlog.segment.process import Process, pid_namespace

_BYTES_MAX = 1 << 20
_NAP_S = 0.1


class MeetingEntry(NamedTuple):
    """A run of a launch, and the ranks in it."""

    dir: str
    turn: int  # number of the call of init, in each rank, that has made it
    restart: int  # how often the launcher had restarted its ranks
    restarts_max: int
    ranks: dict[str, Process]

    @classmethod
    def parse(cls, fields: Any) -> Self:
        """Return the entry with the fields of a file; raises TypeError, KeyError or AttributeError for others."""
        numbers = (fields["turn"], fields["restart"], fields["restarts_max"])
        if not isinstance(fields["dir"], str) or not all(isinstance(number, int) for number in numbers):
            raise TypeError(fields)
        return cls(fields["dir"], *numbers, {rank: _process(process) for rank, process in fields["ranks"].items()})

    @property
    def has_live_ranks(self) -> bool:
        """Whether one of its ranks lives; the flusher notices only after a moment that none does."""
        return any(process.is_alive for process in self.ranks.values())

    @property
    def is_needed(self) -> bool:
        """Whether a rank may join the run, or resume it."""
        try:
            description = Description.read(RunLayout(self.dir))
        except (OSError, UnreadableError):
            return False
        if description.complete is not True:
            return True
        return self.restart < self.restarts_max and description.status != SUCCESS


def _process(fields: Any) -> Process:
    pid, start = fields
    if not isinstance(pid, int) or not isinstance(start, int | None):
        raise TypeError(fields)
    return Process(pid, start)


class Meeting:
    """The file of a launch, locked; a context manager, which unlocks it."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._launcher: Process | None = None
        self._namespace: object = None
        self.runs: list[MeetingEntry] = []
        try:
            content = json.loads(os.pread(fd, _BYTES_MAX, 0))
            launcher, namespace = _process(content["launcher"]), content["pid_namespace"]
            self.runs = [MeetingEntry.parse(fields) for fields in content["runs"]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return  # the file is new, or its writer was killed: the launch begins anew
        self._launcher, self._namespace = launcher, namespace

    def write(self, launcher: Process) -> None:
        """Write the runs into the file."""
        content = {"launcher": launcher, "pid_namespace": pid_namespace(), "runs": [run._asdict() for run in self.runs]}
        data = json.dumps(content).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    @property
    def is_needed(self) -> bool:
        """Whether a rank may still read it; True also if that is unknown in this container."""
        if self._launcher is None:
            return False
        if self._namespace != pid_namespace():
            return True
        return self._launcher.is_alive and any(run.is_needed for run in self.runs)

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        flock.release(self._fd)


def meeting_place(key: str) -> Path:
    """Return the path of the file for the launch that ``key`` identifies."""
    import hashlib  # slow to import

    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return SHARED_MEMORY / f"{MEETING_PREFIX}{os.geteuid()}-{digest}"


def open_meeting(path: Path) -> Meeting:
    """Wait until no other process holds the file of a launch, and return it, locked.

    Raises
    ------
    OSError
        If it can't be made, or something else lies in its place.
    """
    return Meeting(path, hold(path))


# ---- when a launch is over ----


def stale_meetings() -> list[Path]:
    """Return the files of this user that no process needs."""
    return [path for path in _places() if _runs_of(path, sweep=False) is None]


def remove_meeting(path: Path) -> None:
    """Remove a file, unless a process needs it by now."""
    _runs_of(path, sweep=True)


def sweep() -> list[str]:
    """Remove the files of this user that no process needs; return the folders of the runs in the others."""
    return [run_dir for path in _places() for run_dir in _runs_of(path, sweep=True) or ()]


def see_off(layout: RunLayout, patience_s: float) -> None:
    """Wait, for at most ``patience_s``, until the launcher of a run that is over has ended or has resumed it.

    After its end, perhaps no other process removes the file.
    """
    deadline = time.monotonic() + patience_s
    while str(layout.dir) in sweep() and time.monotonic() < deadline:
        if Description.read(layout).complete is not True:
            return  # the next attempt has a flusher of its own
        time.sleep(_NAP_S)


def _places() -> list[Path]:
    return [SHARED_MEMORY / name for name in names_in(SHARED_MEMORY, f"{MEETING_PREFIX}{os.geteuid()}-")]


def _runs_of(path: Path, *, sweep: bool) -> list[str] | None:
    """Return the folders of the runs in a file; None if no process needs it: then, with ``sweep``, it is removed."""
    try:
        fd = hold(path, make=False, wait=False)
    except OSError:
        return []  # a rank holds it, or it is not ours
    with Meeting(path, fd) as meeting:
        if meeting.is_needed:
            return [run.dir for run in meeting.runs]
        if sweep:
            meeting.remove()
    return None
