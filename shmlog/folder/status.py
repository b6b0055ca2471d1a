"""Statuses of runs: ours, the words of other systems for them, and which may follow which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from shmlog.errors import RunStateError

PENDING, RUNNING = "pending", "running"
SUCCESS, FAILED, CANCELLED, CRASHED = "success", "failed", "cancelled", "crashed"

#: What `Run.finish` accepts, and what it becomes.
FINISHED = {
    SUCCESS: SUCCESS,
    "finished": SUCCESS,
    "completed": SUCCESS,
    FAILED: FAILED,
    CANCELLED: CANCELLED,
    "interrupted": CANCELLED,
    "killed": CANCELLED,
    CRASHED: CRASHED,
}

#: What an owner of a run tells the flusher, which keeps the worst; 0: nobody has finished it.
FINISH_CODES = {SUCCESS: 1, CANCELLED: 2, FAILED: 3, CRASHED: 4}
_BY_MAKER = 8
#: What the flusher is told, once the maker of the run is among those who have finished it.
FINISH_STATUSES = {code | _BY_MAKER: status for status, code in FINISH_CODES.items()}

# SIGINT and SIGTERM, by which a person or a batch system stops a process. `signal` is slow to import.
_STOPPING = frozenset((2, 15))

_WORDS = {
    **FINISHED,
    PENDING: PENDING,
    **dict.fromkeys(("scheduled", "queued", "created", "waiting", "initializing"), PENDING),
    RUNNING: RUNNING,
    **dict.fromkeys(("active", "in_progress", "started", "resumed"), RUNNING),
    **dict.fromkeys(("succeeded", "complete", "done", "ok", "closed", "published"), SUCCESS),
    **dict.fromkeys(("failure", "error", "errored", "timed_out", "timeout"), FAILED),
    **dict.fromkeys(("canceled", "aborted", "stopped", "terminated", "preempted", "preempting"), CANCELLED),
    **dict.fromkeys(("died", "dead", "probably_died", "lost"), CRASHED),
}


def finish_code(told: int, likely: int, exiting: int) -> int:
    """Return the code that the words of a segment's header make; ``likely`` holds while an owner is at its exit."""
    known = max(told % _BY_MAKER, likely % _BY_MAKER) | ((told | likely) & _BY_MAKER)
    return known if exiting else told


def status_ended_by(number: int) -> str:
    """Return the status of a run that nobody finished, whose maker a signal has ended; 0: none that is known."""
    return CANCELLED if number in _STOPPING else CRASHED


def status_of_exit(code: object) -> str:
    """Return the status of a run whose process ends by ``sys.exit(code)``.

    128 and the number of a signal is what a handler for it exits with, as shells do.
    """
    if code in {128 + number for number in _STOPPING}:
        return CANCELLED
    return FAILED if code is not None and code != 0 else SUCCESS


def map_status(word: object) -> str | None:
    """Return our word for a status of any tracker; None if nobody uses it."""
    return _WORDS.get(word.strip().lower().replace("-", "_")) if isinstance(word, str) else None


class RunStatus(StrEnum):
    """The status of a run; equal to the word that run.yaml has for it.

    ``pending`` → ``running`` → one of ``success``, ``failed``, ``cancelled`` and
    ``crashed``. A run that is over may be resumed: back to ``running``, as its
    next attempt. There is no other way.
    """

    PENDING = PENDING
    RUNNING = RUNNING
    SUCCESS = SUCCESS
    FAILED = FAILED
    CANCELLED = CANCELLED
    CRASHED = CRASHED

    @classmethod
    def parse(cls, word: str) -> RunStatus:
        """Return the status that ``word``, ours or another tracker's, stands for.

        Raises
        ------
        ValueError
            If no tracker uses it.
        """
        known = map_status(word)
        if known is None:
            raise ValueError(f"unknown status {word!r}; use one of {', '.join(cls)}")
        return cls(known)

    @property
    def is_terminal(self) -> bool:
        """Whether the run is over."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)

    def advance(self, to: str) -> RunStatus:
        """Return the status ``to``, if a run of this status may come to it.

        Raises
        ------
        ValueError
            If ``to`` is not a status.
        RunStateError
            If a run can't go from this status to that one.
        """
        wanted = RunStatus.parse(to)
        allowed = [RunStatus.RUNNING] if self is not RunStatus.RUNNING else [s for s in RunStatus if s.is_terminal]
        if wanted not in allowed:
            raise RunStateError(f"a run that is {self} can't become {wanted}, only {' or '.join(allowed)}")
        return wanted


def status_of_events(events: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the status that the run told when it ended, if its latest attempt did."""
    status = None
    for event in events:
        data = event.get("data")
        if event.get("event_type") == "experiment_start":
            status = None  # the run was resumed
        elif event.get("event_type") == "experiment_end" and isinstance(data, dict):
            status = map_status(data.get("status")) or status
    return status
