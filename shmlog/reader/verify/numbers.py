"""The numbers that the records of each lane carry: which are missing, which stand twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shmlog.records.lanes import Lane

NUMBER_MAX = 1 << 60
"""Larger numbers are nonsense; the sum of two smaller ones fits in 64 bits."""

_PENDING_MAX = 1_000_000
_SHORT = 8  # numbers of a run that is marked one by one
_SPARE = 4  # times as many marks as numbers at most, so that a damaged number takes no memory

Runs = NDArray[np.int64]  # shape (n, 3): key of the lane, first number, count


class Problem(NamedTuple):
    """The first and the amount of a lane's numbers that are missing, or that stand more than once."""

    lane: Lane
    first: int
    amount: int
    is_duplicate: bool


class Numbers:
    """Numbers taken from many files, in any order, kept as runs without a hole.

    The rows of a file are by name, so that the runs of a lane are short until all of it is there. Of many short runs,
    each number is a mark: a byte, where a run takes 24.
    """

    def __init__(self) -> None:
        self._pending: list[Runs] = []
        self._rows = 0
        self._total = 0
        self._marks: dict[int, NDArray[np.bool_]] = {}

    def add(self, keys: NDArray[Any], firsts: NDArray[Any], counts: NDArray[Any] | int = 1) -> None:
        """Add ``counts`` numbers from each of ``firsts`` on; ``keys`` are those of the lanes, see `lane_keys`."""
        runs = np.empty((len(keys), 3), np.int64)
        runs[:, 0], runs[:, 1], runs[:, 2] = keys, firsts, counts
        self._pending.append(_join(runs))
        self._rows += len(self._pending[-1])
        self._total += len(keys)
        if self._rows > _PENDING_MAX:
            self._mark_short_runs()

    def _mark_short_runs(self) -> None:
        runs = _join(np.concatenate(self._pending))
        is_marked = (runs[:, 2] <= _SHORT) & (runs[:, 1] < self._total * _SPARE)
        self._pending = [runs[~is_marked]]
        for key in np.unique(runs[is_marked, 0]).tolist():
            of_lane = runs[is_marked & (runs[:, 0] == key)]
            self._mark(key, of_lane[:, 1], of_lane[:, 2])
        self._rows = sum(map(len, self._pending))

    def _mark(self, key: int, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """Mark the numbers of runs, which are in order; those that have a mark already stay as runs."""
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers = np.sort(np.repeat(firsts, counts) + within)
        marks = self._marks.get(key, np.zeros(0, np.bool_))
        if numbers[-1] >= len(marks):
            marks = np.concatenate([marks, np.zeros(int(numbers[-1]) + 1 - len(marks), np.bool_)])
        again = marks[numbers] | (np.diff(numbers, prepend=-1) == 0)
        twice = numbers[again]
        self._pending.append(np.column_stack((np.full(len(twice), key), twice, np.ones(len(twice), np.int64))))
        marks[numbers] = True
        self._marks[key] = marks

    def update(self, others: Numbers) -> None:
        """Add all numbers of ``others``."""
        runs = others.runs()
        self.add(*runs.T)

    def is_same(self, others: Numbers) -> bool:
        """Whether both hold the same numbers."""
        return bool(np.array_equal(self.runs(), others.runs()))

    def runs(self) -> Runs:
        """Return all numbers as the fewest runs that hold them, by lane and first number."""
        marked = [_runs_of(key, marks) for key, marks in self._marks.items()]
        runs = _join(np.concatenate([np.empty((0, 3), np.int64), *self._pending, *marked]))
        self._pending, self._rows, self._marks = [runs], 0, {}  # counts only what is not joined yet
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


def _runs_of(key: int, marks: NDArray[np.bool_]) -> Runs:
    """Return the runs of the numbers that have a mark."""
    edges = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0, append=0))
    firsts, ends = edges[::2], edges[1::2]
    return np.column_stack((np.full(len(firsts), key, np.int64), firsts, ends - firsts))


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
