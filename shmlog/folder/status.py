"""Statuses of runs: ours, the words of other systems for them, and their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from shmlog.errors import RunStateError

PENDING, RUNNING = "pending", "running"
SUCCESS, FAILED, CANCELLED, CRASHED = "success", "failed", "cancelled", "crashed"

#: The words that `Run.finish` accepts, and the status that each becomes.
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

#: The code that an owner of a run writes into the segment, which keeps the worst; 0: no owner has finished.
FINISH_CODES = {SUCCESS: 1, CANCELLED: 2, FAILED: 3, CRASHED: 4}
_BY_MAKER = 8
#: The status for each code, once the maker of the run is among the owners that have finished.
FINISH_STATUSES = {code | _BY_MAKER: status for status, code in FINISH_CODES.items()}

# SIGINT and SIGTERM, with which a person or a batch system stops a process. `signal` is slow to import.
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


def finish_code(finish_status: int, likely: int, exiting: int) -> int:
    """Return the code from the words of a segment's header; ``likely`` counts while an owner is at its exit."""
    worst = max(finish_status % _BY_MAKER, likely % _BY_MAKER) | ((finish_status | likely) & _BY_MAKER)
    return worst if exiting else finish_status


def status_ended_by(number: int) -> str:
    """Return the status of a run that no owner finished, whose maker was ended by a signal; 0: no known signal."""
    return CANCELLED if number in _STOPPING else CRASHED


def status_of_exit(code: object) -> str:
    """Return the status of a run whose process ends by ``sys.exit(code)``.

    A handler for a signal exits with 128 plus its number, as shells do.
    """
    if code in {128 + number for number in _STOPPING}:
        return CANCELLED
    return FAILED if code is not None and code != 0 else SUCCESS


def map_status(word: object) -> str | None:
    """Return our word for a status of any tracker; None if no tracker uses it."""
    return _WORDS.get(word.strip().lower().replace("-", "_")) if isinstance(word, str) else None


class RunStatus(StrEnum):
    """The status of a run; equal to the word that run.yaml has for it.

    ``pending`` → ``running`` → one of ``success``, ``failed``, ``cancelled`` and
    ``crashed``. A pending run may be ``cancelled``, too. A run that is over may be resumed: back to
    ``running``, as its next attempt. There is no other way.
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
        status = map_status(word)
        if status is None:
            raise ValueError(f"unknown status {word!r}; use one of {', '.join(cls)}")
        return cls(status)

    @property
    def is_terminal(self) -> bool:
        """Whether the run is over."""
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)

    def advance(self, to: str) -> RunStatus:
        """Return the status ``to``, if it may follow this one.

        Raises
        ------
        ValueError
            If ``to`` is not a known status.
        RunStateError
            If a run can't go from this status to that one.
        """
        status = RunStatus.parse(to)
        allowed = [RunStatus.RUNNING] if self is not RunStatus.RUNNING else [s for s in RunStatus if s.is_terminal]
        if self is RunStatus.PENDING:
            allowed.append(RunStatus.CANCELLED)
        if status not in allowed:
            raise RunStateError(f"a run that is {self} can't become {status}, only {' or '.join(allowed)}")
        return status


def status_of_events(events: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the status that the latest attempt logged at its end, or None."""
    status = None
    for event in events:
        data = event.get("data")
        if event.get("event_type") == "experiment_start":
            status = None  # the run was resumed
        elif event.get("event_type") == "experiment_end" and isinstance(data, dict):
            status = map_status(data.get("status")) or status
    return status
