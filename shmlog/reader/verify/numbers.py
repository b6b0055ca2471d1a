"""The numbers that the records of each lane carry: which are missing, which stand twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shmlog.records.lanes import Lane

NUMBER_MAX = 1 << 60
"""Larger numbers are nonsense; the sum of two smaller ones fits in 64 bits."""

_PENDING_MAX = 4_000_000

Runs = NDArray[np.int64]  # shape (n, 3): key of the lane, first number, count


class Problem(NamedTuple):
    """The first and the amount of a lane's numbers that are missing, or that stand more than once."""

    lane: Lane
    first: int
    amount: int
    is_duplicate: bool


class Numbers:
    """Numbers taken from many files, in any order, kept as runs without a hole."""

    def __init__(self) -> None:
        self._pending: list[Runs] = []
        self._rows = 0

    def add(self, keys: NDArray[Any], firsts: NDArray[Any], counts: NDArray[Any] | int = 1) -> None:
        """Add ``counts`` numbers from each of ``firsts`` on; ``keys`` are those of the lanes, see `lane_keys`."""
        runs = np.empty((len(keys), 3), np.int64)
        runs[:, 0], runs[:, 1], runs[:, 2] = keys, firsts, counts
        self._pending.append(_join(runs))
        self._rows += len(self._pending[-1])
        if self._rows > _PENDING_MAX:
            self.runs()

    def update(self, others: Numbers) -> None:
        """Add all numbers of ``others``."""
        runs = others.runs()
        self.add(*runs.T)

    def is_same(self, others: Numbers) -> bool:
        """Whether both hold the same numbers."""
        return bool(np.array_equal(self.runs(), others.runs()))

    def runs(self) -> Runs:
        """Return all numbers as the fewest runs that hold them, by lane and first number."""
        runs = _join(np.concatenate([np.empty((0, 3), np.int64), *self._pending]))
        self._pending, self._rows = [runs], 0  # counts only what is not joined yet
        return runs

    def problems(self) -> Iterator[Problem]:
        """Yield what keeps the numbers of a lane from being 0 … n, each once."""
        runs = self.runs()
        keys, begins = np.unique(runs[:, 0], return_index=True)
        for key, of_lane in zip(keys.tolist(), np.split(runs, begins[1:]), strict=False):
            lane = Lane.of_key(key)
            _, firsts, counts = of_lane.T
            ends = np.maximum.accumulate(np.concatenate(([0], firsts + counts)))
            jump = firsts - ends[:-1]
            if (jump > 0).any():
                hole = int(np.argmax(jump > 0))
                yield Problem(lane, int(ends[hole]), int(jump[jump > 0].sum()), is_duplicate=False)
            if (jump < 0).any():
                twice = int(np.argmax(jump < 0))
                overlap = np.minimum(counts, -jump)[jump < 0]
                yield Problem(lane, int(firsts[twice]), int(overlap.sum()), is_duplicate=True)


def _join(runs: Runs) -> Runs:
    """Return the runs in order, those joined that touch; what overlaps stays apart."""
    if not len(runs):
        return runs
    runs = runs[np.lexsort((runs[:, 1], runs[:, 0]))]
    lane, first, count = runs.T
    begins = np.ones(len(runs), bool)
    begins[1:] = (lane[1:] != lane[:-1]) | (first[1:] != first[:-1] + count[:-1])
    at = np.flatnonzero(begins)
    return np.column_stack((lane[at], first[at], np.add.reduceat(count, at)))
