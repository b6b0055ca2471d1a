"""Whether a metric of one run differs from that of another, with a confidence interval, by the bootstrap."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUES_MIN = 5
"""Fewer values than this say next to nothing of their spread."""

_CELLS_AT_ONCE = 4_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How the second of two samples differs from the first.

    Attributes
    ----------
    first, second : float
        The statistic of each, in the unit of the metric.
    count_first, count_second : int
        Values of each.
    difference, low, high : float
        Second minus first, and the interval that holds it with ``confidence``.
    relative, relative_low, relative_high : float or None
        The same divided by the absolute value of the first; None if the first may be 0.
    confidence : float
        Such as 0.95.
    blocks : tuple of int
        Length of the blocks in which the values of each were drawn.
    """

    first: float
    second: float
    count_first: int
    count_second: int
    difference: float
    low: float
    high: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    confidence: float
    statistic: str
    resamples: int
    blocks: tuple[int, int]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


def bootstrap_difference(
    first: Any, second: Any, *, statistic: str = "mean", confidence: float = 0.95, resamples: int = 10_000,
    block: int | None = None, seed: int = 0,
) -> Difference:  # fmt: skip
    """Compare two samples, such as the same metric of two runs.

    Parameters
    ----------
    first, second : array_like of float, shape (n,), (m,)
        Values in the order they were logged; at least 5 each, all finite.
    statistic : str
        ``"mean"``, ``"median"`` or a percentile such as ``"p95"`` or ``"p99.9"``.
    confidence : float
        Between 0 and 1.
    resamples : int
        At least 100. More make the interval steadier.
    block : int, optional
        Values are drawn in blocks of so many, since neighbours resemble each other; 1 takes them as
        independent. Default: the cube root of n, rounded up.
    seed : int
        Of the random draws: the same seed, the same interval.

    Returns
    -------
    Difference

    Raises
    ------
    ValueError
        If there are too few values, one is NaN or infinite, or a parameter is out of range.

    Notes
    -----
    *Cost*: resamples * n / block for the mean, resamples * n for the others.

    *Source*: the percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13, over the circular block bootstrap of Politis and Romano, 1992; block lengths grow with
    the cube root of n as in Künsch, Annals of Statistics 17(3), 1989. With few values such intervals are
    too narrow (Hesterberg, The American Statistician 69(4), 2015): a 95 % interval of 10 independent
    values holds the truth some 90 times in 100.
    """
    sides = [[check_sample("first", first)], [check_sample("second", second)]]
    return difference_of_sides(
        sides, statistic=statistic, confidence=confidence, resamples=resamples, block=block, seed=seed
    )


def difference_of_sides(
    sides: Sequence[Sequence[Floats]], *, statistic: str = "mean", confidence: float = 0.95, resamples: int = 10_000,
    block: int | None = None, seed: int = 0,
) -> Difference:  # fmt: skip
    """Compare two sides, each of one sample or of several, such as those of runs that differ by their seed.

    A side counts with the mean of its samples' statistics. A resample of it draws as many samples as there are, some
    of them several times, and then values within each: the interval covers how runs differ among themselves.
    Parameters, results and errors are those of `bootstrap_difference`.
    """
    quantile = quantile_of(statistic)
    if not 0 < confidence < 1 or resamples < 100 or (block is not None and block < 1):
        raise ValueError("confidence must be between 0 and 1, resamples at least 100, block at least 1")
    generator = np.random.default_rng(seed)
    blocks = [max(min(block or int(np.ceil(np.cbrt(len(s)))), len(s)) for s in side) for side in sides]
    draws = [_draw_side(s, quantile, resamples, b, generator) for s, b in zip(sides, blocks, strict=True)]
    a, b = (float(np.mean([_statistic(sample, quantile) for sample in side])) for side in sides)
    samples = [np.concatenate(side) for side in sides]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(draws[1] - draws[0], tails).tolist()
    relative, relative_low, relative_high = _relative(a, b, draws, tails)
    return Difference(
        first=a, second=b, count_first=len(samples[0]), count_second=len(samples[1]), difference=b - a, low=low,
        high=high, relative=relative, relative_low=relative_low, relative_high=relative_high, confidence=confidence,
        statistic=statistic, resamples=resamples, blocks=(blocks[0], blocks[1]), seed=seed,
    )  # fmt: skip


def select(
    steps: NDArray[np.int64], values: Floats, last: int | None, window: tuple[int | None, int | None] | None
) -> Floats:
    """Return the values that are compared; see `StoredRun.compare_metric` for ``last`` and ``window``."""
    if window is not None:
        values = values[_within(steps, *window)]
    return values if last is None else values[max(0, len(values) - last) :]


def _within(steps: NDArray[np.int64], begin: int | None, end: int | None) -> NDArray[np.bool_]:
    kept = np.ones(len(steps), bool)
    if begin is not None:
        kept &= steps >= begin
    if end is not None:
        kept &= steps <= end
    return kept


def check_sample(what: str, values: Any) -> Floats:
    """Return values as floats; raises ValueError, which begins with ``what``, if they can't be compared."""
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or len(sample) < VALUES_MIN:
        raise ValueError(f"{what}: at least {VALUES_MIN} values are needed, there are {sample.size}")
    bad = np.count_nonzero(~np.isfinite(sample))
    if bad:
        raise ValueError(f"{what}: {bad} of {len(sample)} values are NaN, infinite or text; they can't be compared")
    return sample


def quantile_of(statistic: str) -> float | None:
    """Return the quantile that a statistic is, in 0 … 1; None for the mean; raises ValueError if it is no statistic."""
    match = re.fullmatch(r"p([0-9]{1,2}(?:\.[0-9]{1,6})?)", statistic) if isinstance(statistic, str) else None
    if match is None and statistic not in ("mean", "median"):
        raise ValueError(f"statistic must be 'mean', 'median' or one of 'p0' … 'p99.9', not {statistic!r}")
    if match is None:
        return 0.5 if statistic == "median" else None
    return round(float(match[1]) / 100, 12)


def _statistic(values: Floats, quantile: float | None, axis: int | None = None) -> Any:
    return np.mean(values, axis=axis) if quantile is None else np.quantile(values, quantile, axis=axis)


def _draw_side(
    side: Sequence[Floats], quantile: float | None, resamples: int, block: int, generator: np.random.Generator
) -> Floats:
    """Return the statistic of each resample of a side."""
    drawn = np.stack([_draw(s, quantile, resamples, min(block, len(s)), generator) for s in side])
    if len(side) == 1:
        single: Floats = drawn[0]
        return single
    picks = generator.integers(0, len(side), drawn.shape)
    means: Floats = np.take_along_axis(drawn, picks, axis=0).mean(axis=0)
    return means


def _draw(sample: Floats, quantile: float | None, resamples: int, block: int, generator: np.random.Generator) -> Floats:
    """Return the statistic of each resample, made of blocks of neighbours; the last value's is the first."""
    count = -(-len(sample) // block)
    drawn = np.empty(resamples)
    if quantile is None:
        sums = np.convolve(np.append(sample, sample[: block - 1]), np.ones(block), "valid") / block
        size = count
    else:
        size = count * block
    rows = max(1, _CELLS_AT_ONCE // size)
    for start in range(0, resamples, rows):
        chunk = drawn[start : start + rows]
        starts = generator.integers(0, len(sample), (len(chunk), count))
        if quantile is None:
            chunk[:] = sums[starts].mean(axis=1)
        else:
            places = (starts[:, :, None] + np.arange(block)) % len(sample)
            chunk[:] = _statistic(sample[places.reshape(len(chunk), -1)], quantile, axis=1)
    return drawn


def _relative(a: float, b: float, draws: list[Floats], tails: list[float]) -> tuple[float | None, ...]:
    """Return the relative change and its interval, each None if the first statistic may be 0."""
    low, high = np.quantile(draws[0], tails)
    if a == 0 or low <= 0 <= high or (draws[0] == 0).any():
        return None, None, None
    with np.errstate(over="ignore"):
        changes = (draws[1] - draws[0]) / np.abs(draws[0])
    if not np.isfinite(changes).all():
        return None, None, None  # some divisor is as good as 0
    interval = np.quantile(changes, tails).tolist()
    return (b - a) / abs(a), *interval
