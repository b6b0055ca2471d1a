"""The demo's books: what each producer logged against what is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmlog import StoredRun

ENDS = 10


@dataclass(frozen=True)
class Account:
    """One producer's metric records: counted by itself while logging, and found on disk.

    Parameters
    ----------
    logged : int
        Calls begun. Of a killed producer the last one may not have ended.
    """

    name: str
    pid: int
    logged: int
    on_disk: int
    dropped: int
    killed: bool = False

    @property
    def balanced(self) -> bool:
        """Whether every record is accounted for, but for the call that a kill cut off."""
        missing = self.logged - self.on_disk - self.dropped
        return missing == 0 or (self.killed and missing == 1)


@dataclass(frozen=True)
class Claim:
    """What a producer says that it logged."""

    name: str
    pid: int
    logged: int
    killed: bool = False


def balance(stored: StoredRun, claims: Sequence[Claim]) -> list[Account]:
    """Return an account for each claim, from the records in the run folder."""
    on_disk = _records_by_pid(stored)
    dropped = {p["pid"]: sum(p["dropped"].values()) for p in stored.producers}
    return [Account(c.name, c.pid, c.logged, on_disk.get(c.pid, 0), dropped.get(c.pid, 0), c.killed) for c in claims]


def _records_by_pid(stored: StoredRun) -> dict[int, int]:
    counts = stored.metrics().group_by("pid").aggregate([([], "count_all")])
    return {row["pid"]: row["count_all"] for row in counts.to_pylist()}


def loss_at_ends(stored: StoredRun) -> tuple[float, float]:
    """Return the mean loss of the first and of the last ``ENDS`` steps on disk."""
    losses = stored.metrics("loss")["value"].to_numpy()
    return float(losses[:ENDS].mean()), float(losses[-ENDS:].mean())


def files(run_dir: Path) -> list[tuple[str, int]]:
    """Return the files of the run folder that hold records, with their sizes in bytes."""
    paths = [*sorted(run_dir.glob("metrics/*/*.parquet")), *sorted(run_dir.glob("events*.jsonl"))]
    return [(str(path.relative_to(run_dir)), path.stat().st_size) for path in paths if path.exists()]
