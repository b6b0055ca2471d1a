"""What is worth a look in the metrics of a run: NaN, infinities, spikes, divergence, trends and stalls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from shmlog.analysis.statistics import number_rows

if TYPE_CHECKING:
    import pyarrow as pa

SPIKE_WINDOW = 31
"""Values around each one that show what is usual there."""
SPIKE_LIMIT = 8.0
"""A spike is more than so many robust standard deviations off the median of its window."""
SPIKE_WIDTH = 3
"""Within so many values, a spike has come back half of its way on both sides."""
EDGE_RETURN = 0.8
"""The first or last value is a spike only if the next one has come back so much of its way: a decay does not."""
DIVERGENCE = 2.0
"""A metric diverges if its end is more than so many times larger than nearly all before."""
TREND_TAU = 0.5
"""Least absolute value of Kendall's tau of a trend."""
TREND_P = 0.01
"""Highest probability of a trend to come about by chance, if values were independent."""
STALL_TAU = 0.2
"""Below it, a metric goes nowhere."""
BINS = 200
"""Trends are looked for among the medians of so many stretches of equal length."""
VALUES_MIN = 20
"""With fewer values, no spike, trend or stall is reported."""

_CHUNK = 50_000

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MetricFinding:
    """Something about one metric.

    Attributes
    ----------
    kind : str
        ``nan``, ``inf``, ``spike``, ``divergence``, ``trend`` or ``stall``.
    count : int
        Records that it is about.
    first_step, last_step : int
        Where it begins and ends.
    value : float
        Of a spike, the value farthest off; of a divergence, the last one; of a trend or stall, the slope by 1,000
        steps; else the first.
    message : str
        All of it for people.
    """

    kind: str
    name: str
    count: int
    first_step: int
    last_step: int
    value: float
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict."""
        return asdict(self)


def findings(tables: Iterable[pa.Table]) -> list[MetricFinding]:
    """Return what is worth a look in the metrics of a run, by name; see `statistics` for the tables."""
    notable: list[MetricFinding] = []
    for table in tables:
        for key, values, steps in number_rows(table, ["name"]):
            notable += find(key["name"], steps, values)
    return sorted(notable, key=lambda finding: finding.name)


def find(name: str, steps: Steps, values: Floats) -> list[MetricFinding]:
    """Return what is worth a look in one metric.

    Parameters
    ----------
    name : str
    steps : ndarray of int64, shape (n,)
        Ascending.
    values : ndarray of float64, shape (n,)
    """
    notable = list(_not_finite(name, steps, values))
    is_finite = np.isfinite(values)
    steps, values = steps[is_finite], values[is_finite]
    if len(values) >= VALUES_MIN:
        notable += [*_spikes(name, steps, values), *_divergence(name, steps, values), *_trends(name, steps, values)]
    return notable


def _not_finite(name: str, steps: Steps, values: Floats) -> Iterator[MetricFinding]:
    for kind, label, bad in (("nan", "NaN", np.isnan(values)), ("inf", "infinite", np.isinf(values))):
        if bad.any():
            count, at = int(np.count_nonzero(bad)), steps[bad]
            message = f"{count} of {len(values)} values are {label}, the first at step {at[0]}"
            yield _finding(kind, name, count, at, float(values[bad][0]), message)


def _finding(kind: str, name: str, count: int, at: Steps, value: float, message: str) -> MetricFinding:
    first, last = int(at[0]), int(at[-1])
    return MetricFinding(
        kind=kind, name=name, count=count, first_step=first, last_step=last, value=value, message=message
    )


# ---- spikes ----


def _spikes(name: str, steps: Steps, values: Floats) -> Iterator[MetricFinding]:
    score, median = spike_scores(values)
    bad = np.flatnonzero(np.abs(score) > SPIKE_LIMIT)
    bad = bad[_comes_back(values, values[bad] - median[bad], bad)]
    if len(bad):
        worst = bad[np.argmax(np.abs(score[bad]))]
        message = f"{len(bad)} spikes, the largest" if len(bad) > 1 else "a spike,"
        message += f" {values[worst]:.6g} at step {steps[worst]}, where {median[worst]:.6g} is usual"
        yield _finding("spike", name, len(bad), steps[bad], float(values[worst]), message)


def _comes_back(values: Floats, off: Floats, at: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return at which places the curve leaves what is usual and comes back, as a steep decay does not."""
    comes_back = np.ones(len(at), bool)
    for way in (-1, 1):
        has_neighbour = (at + way >= 0) & (at + way < len(values))
        best = np.zeros(len(at))
        for shift in range(1, SPIKE_WIDTH + 1):
            neighbour = np.clip(at + way * shift, 0, len(values) - 1)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                share = (values[at] - values[neighbour]) / off
            is_next = (shift == 1) | ((at > 0) & (at < len(values) - 1))
            best = np.where(is_next, np.fmax(best, share), best)
        is_edge = (at == 0) | (at == len(values) - 1)
        comes_back &= ~has_neighbour | (best >= np.where(is_edge, EDGE_RETURN, 0.5))
    return comes_back


def spike_scores(values: Floats) -> tuple[Floats, Floats]:
    """Return by how many robust standard deviations each value is off the median around it, and that median.

    Notes
    -----
    *Source*: the Hampel identifier (Davies and Gather, JASA 88(423), 1993): off the median by so many
    times 1.4826 * MAD, each over a window around the value. Where more than half of a window are one
    value, the MAD is 0 and 1.2533 times the mean absolute deviation stands in for it (Iglewicz and
    Hoaglin, How to Detect and Handle Outliers, 1993).
    """
    size = min(SPIKE_WINDOW, len(values))
    windows = sliding_window_view(values, size)
    scores, medians = np.empty(len(values)), np.empty(len(values))
    centre = np.clip(np.arange(len(values)) - size // 2, 0, len(windows) - 1)
    for start in range(0, len(values), _CHUNK):
        own = values[start : start + _CHUNK]
        around = windows[centre[start : start + _CHUNK]]
        median = np.median(around, axis=1)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            off = np.abs(around - median[:, None])
            scale = 1.4826 * np.median(off, axis=1)
            scale = np.where(scale > 0, scale, 1.2533 * off.mean(axis=1))
            scores[start : start + _CHUNK] = np.where(scale > 0, (own - median) / scale, 0.0)
        medians[start : start + _CHUNK] = median
    return np.nan_to_num(scores, nan=0.0), medians


# ---- divergence ----


def _divergence(name: str, steps: Steps, values: Floats) -> Iterator[MetricFinding]:
    """Yield a finding if the values at the end are far larger than those before, and stay so.

    The end is the last tenth, thirtieth or hundredth, of five values at least: its median counts. Of what is before it,
    back to the middle, the quantile of 0.99 counts, so that a spike does not hide it.
    """
    size = np.abs(values)
    for share in (10, 30, 100):
        tail = len(values) - max(len(values) // share, 5)
        before = size[len(values) // 2 : tail]
        if not len(before):
            continue
        usual, limit = float(np.median(before)), DIVERGENCE * float(np.quantile(before, 0.99))
        if np.median(size[tail:]) > limit > 0:
            begin = int(np.flatnonzero(size[:-1] <= limit)[-1]) + 1  # there is one: most of ``before`` are below
            message = f"diverges from step {steps[begin]} on: {values[-1]:.6g} at the end, about {usual:.4g} before"
            yield _finding(
                "divergence", name, len(values) - begin, at=steps[begin:], value=float(values[-1]), message=message
            )  # fmt: skip
            return


# ---- trends ----


def _trends(name: str, steps: Steps, values: Floats) -> Iterator[MetricFinding]:
    tau, p, slope = trend_of(steps, values)
    if is_trend(tau, p):
        way = "rises" if tau > 0 else "falls"
        message = f"{way} by {abs(slope):.4g} in 1,000 steps (tau {tau:.2f})"
        yield _finding("trend", name, len(values), steps, slope, message)
    half = len(values) // 2
    if half < VALUES_MIN:
        return
    before, before_p, _ = trend_of(steps[:half], values[:half])
    after, _, slope = trend_of(steps[half:], values[half:])
    if is_trend(before, before_p) and abs(after) < STALL_TAU:
        way = "rose" if before > 0 else "fell"
        message = f"{way} before step {steps[half]}, and goes nowhere since (tau {after:.2f})"
        yield _finding("stall", name, len(values) - half, steps[half:], slope, message)


def is_trend(tau: float, p: float) -> bool:
    """Whether values of that tau and probability have a trend, by `TREND_TAU` and `TREND_P`."""
    return abs(tau) >= TREND_TAU and p < TREND_P


def trend_of(steps: Steps, values: Floats) -> tuple[float, float, float]:
    """Return Kendall's tau-b, its probability by chance, and the slope by 1,000 steps.

    Notes
    -----
    *Cost*: O(n) for the medians of `BINS` stretches, then O(`BINS`²).

    *Source*: the test of Mann, Econometrica 13(3), 1945, and Kendall, Rank Correlation Methods, 1975,
    with the correction for ties; the slope of Theil, 1950, and Sen, JASA 63(324), 1968. Values that
    resemble their neighbours make the probability too small: hence the limit of tau.
    """
    # Stretches of nearly equal length; their medians, not their means, so that spikes make no trend.
    edges = np.linspace(0, len(values), min(BINS, len(values)) + 1).astype(int)
    pairs = list(pairwise(edges))
    y = np.array([np.median(values[a:b]) for a, b in pairs])
    x = np.array([np.median(steps[a:b]) for a, b in pairs])
    first, second = np.triu_indices(len(y), 1)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        rise, run = y[second] - y[first], x[second] - x[first]
        slopes = (rise / run)[run > 0]
    if not len(slopes):
        return 0.0, 1.0, 0.0
    score = float((np.sign(rise) * np.sign(run)).sum())
    scale = math.sqrt(np.count_nonzero(rise) * np.count_nonzero(run))
    tau = score / scale if scale else 0.0
    return tau, _probability(score, y), 1000 * float(np.median(slopes))


def _probability(score: float, y: Floats) -> float:
    n = len(y)
    ties = np.unique(y, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0 or score == 0:
        return 1.0
    return math.erfc((abs(score) - 1) / math.sqrt(variance) / math.sqrt(2))
