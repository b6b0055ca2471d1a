"""Where the ranks of one launch meet: a small file in shared memory, which lists the runs of the launch.

It names its launcher. It is needed as long as that lives and a rank may still join one of its runs, or take one
up again; whoever comes by removes one that is not: an `init`, a flusher that closes a run, ``shmlog gc``.
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


class Entry(NamedTuple):
    """A run of a launch, and who is in it."""

    dir: str
    turn: int  # the call of init, counted in each rank, that has made it
    restart: int  # how often the launcher had started its ranks anew
    restarts_max: int
    ranks: dict[str, Process]

    @classmethod
    def parse(cls, told: Any) -> Self:
        """Return what a file says of a run; raises what comes of text that is not ours."""
        numbers = (told["turn"], told["restart"], told["restarts_max"])
        if not isinstance(told["dir"], str) or not all(isinstance(number, int) for number in numbers):
            raise TypeError(told)
        return cls(told["dir"], *numbers, {rank: _process(process) for rank, process in told["ranks"].items()})

    @property
    def has_live_ranks(self) -> bool:
        """Whether one of its ranks lives. It takes its flusher a moment to notice that none does."""
        return any(process.is_alive for process in self.ranks.values())

    @property
    def is_needed(self) -> bool:
        """Whether a rank may join it, or take it up again."""
        try:
            described = Description.read(RunLayout(self.dir))
        except (OSError, UnreadableError):
            return False
        if described.complete is not True:
            return True
        return self.restart < self.restarts_max and described.status != SUCCESS


def _process(told: Any) -> Process:
    pid, start = told
    if not isinstance(pid, int) or not isinstance(start, int | None):
        raise TypeError(told)
    return Process(pid, start)


class Meeting:
    """The file of a launch, locked; a context manager, which gives it free."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._launcher: Process | None = None
        self._namespace: object = None
        self.runs: list[Entry] = []
        try:
            told = json.loads(os.pread(fd, _BYTES_MAX, 0))
            launcher, namespace = _process(told["launcher"]), told["pid_namespace"]
            self.runs = [Entry.parse(one) for one in told["runs"]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return  # it is new, or whoever wrote it was killed meanwhile: the launch begins anew
        self._launcher, self._namespace = launcher, namespace

    def write(self, launcher: Process) -> None:
        """Have the file list the runs as they are here."""
        told = {"launcher": launcher, "pid_namespace": pid_namespace(), "runs": [run._asdict() for run in self.runs]}
        data = json.dumps(told).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    @property
    def is_needed(self) -> bool:
        """Whether a rank may still look at it; also if that can't be told from this container."""
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
    """Return the file of the launch that ``key`` tells from others."""
    import hashlib  # slow to import

    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return SHARED_MEMORY / f"{MEETING_PREFIX}{os.geteuid()}-{digest}"


def open_meeting(path: Path) -> Meeting:
    """Return the file of a launch, when nobody else holds it.

    Raises
    ------
    OSError
        If it can't be made, or somebody has put something else in its place.
    """
    return Meeting(path, hold(path))


# ---- when a launch is over ----


def stale_meetings() -> list[Path]:
    """Return the files of this user that nobody needs any more."""
    return [path for path in _places() if _runs_of(path, sweep=False) is None]


def remove_meeting(path: Path) -> None:
    """Remove a file, unless somebody needs it by now."""
    _runs_of(path, sweep=True)


def sweep() -> list[str]:
    """Remove the files of this user that nobody needs; return the folders of the runs that the others list."""
    return [run_dir for path in _places() for run_dir in _runs_of(path, sweep=True) or ()]


def see_off(layout: RunLayout, patience_s: float) -> None:
    """Wait, but not for long, until the launcher of a run that is over has ended or has taken it up again.

    When it ends nobody else may come by who removes the file.
    """
    deadline = time.monotonic() + patience_s
    while str(layout.dir) in sweep() and time.monotonic() < deadline:
        if Description.read(layout).complete is not True:
            return  # that attempt has a flusher of its own
        time.sleep(_NAP_S)


def _places() -> list[Path]:
    return [SHARED_MEMORY / name for name in names_in(SHARED_MEMORY, f"{MEETING_PREFIX}{os.geteuid()}-")]


def _runs_of(path: Path, *, sweep: bool) -> list[str] | None:
    """Return the folders of the runs that a file lists; None if nobody needs it, and then ``sweep`` removes it."""
    try:
        fd = hold(path, make=False, wait=False)
    except OSError:
        return []  # a rank is at it, or it is not ours
    with Meeting(path, fd) as meeting:
        if meeting.is_needed:
            return [run.dir for run in meeting.runs]
        if sweep:
            meeting.remove()
    return None
