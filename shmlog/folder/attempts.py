"""The attempts of a run, as run.yaml lists them.

Each attempt has lanes of its own: those of a later one have the higher numbers. So the
lane of a record tells its attempt, and no record has to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from shmlog.base.times import read_time

Attempt = dict[str, Any]

_SHARED = ("status", "started_at", "ended_at", "host", "pid", "argv", "python", "git", "environment")


def first_attempt(described: Mapping[str, Any]) -> Attempt:
    """Return the only attempt of a run that was never resumed."""
    return {"attempt": 1, "first_lane": 0, **{name: described.get(name) for name in _SHARED}, "config": {}}


def latest_attempt(described: Mapping[str, Any]) -> int:
    """Return the number of the latest attempt."""
    told = described.get("attempt")
    return told if type(told) is int and told > 0 else 1


def attempts_of(described: Mapping[str, Any]) -> list[Attempt]:
    """Return all attempts, the latest last; of a run.yaml whose list makes no sense, one."""
    told = described.get("attempts")
    if told is None or fault_of_attempts(described):
        return [first_attempt(described)]
    return [*told[:-1], {**told[-1], **{name: described.get(name) for name in _SHARED if name != "started_at"}}]


def fault_of_attempts(described: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the list of attempts, or None."""
    told = described.get("attempts")
    if told is None:
        return None
    if not isinstance(told, list) or not told or not all(isinstance(one, dict) for one in told):
        return "its list of attempts is damaged"
    lanes = [one.get("first_lane") for one in told]
    if not all(type(lane) is int for lane in lanes) or lanes[0] != 0 or lanes != sorted(lanes):
        return "the first lanes of its attempts don't ascend from 0"
    if [one.get("attempt") for one in told] != list(range(1, len(told) + 1)):
        return "its attempts are not numbered from 1 on"
    return None


def first_lanes(described: Mapping[str, Any]) -> list[int]:
    """Return the first lane of each attempt."""
    return [int(attempt["first_lane"]) for attempt in attempts_of(described)]


def close_attempt(described: dict[str, Any]) -> None:
    """Have the list say of the latest attempt what run.yaml says of the run."""
    if described.get("attempts") is not None:
        described["attempts"] = attempts_of(described)


def paused_s(attempts: Sequence[Attempt]) -> float:
    """Return for how many seconds nothing ran between the attempts of a run, as far as their ends are known."""
    gaps = [
        (read_time(str(before.get("ended_at"))), read_time(str(after.get("started_at"))))
        for before, after in pairwise(attempts)
    ]
    return sum((max(0.0, (start - end).total_seconds()) for end, start in gaps if end and start), 0.0)


def number_of(attempt: int | None, description: Mapping[str, Any]) -> int:
    """Return the number of an attempt, by default of the latest.

    Raises
    ------
    ValueError
        If the run has none of that number.
    """
    latest = latest_attempt(description)
    if attempt is not None and attempt not in range(1, latest + 1):
        raise ValueError(f"the run has no attempt {attempt!r}; they are numbered from 1 to {latest}")
    return latest if attempt is None else attempt
