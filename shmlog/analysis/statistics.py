"""Summary statistics of metrics, of all producers together or of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

pc: Any = pyarrow.compute

PRODUCER = ("node", "lane", "pid", "rank", "local_rank", "worker")
"""What tells producers apart in a table of metrics."""


def statistics(tables: Iterable[pa.Table], by: str | None, ddof: int, quantiles: Sequence[float]) -> pa.Table:
    """Return a row for each metric, or for each metric and producer; see `StoredRun.statistics`.

    Parameters
    ----------
    tables : iterable of pyarrow.Table
        With the columns of `shmlog.records.schema.METRICS`, by producer of `OF_NODES`. Each by step and time; each
        metric in one of them.
    """
    if by not in (None, "producer"):
        raise ValueError(f"by must be None or 'producer', not {by!r}")
    if isinstance(ddof, bool) or not isinstance(ddof, int) or ddof < 0:
        raise ValueError(f"ddof must be an int of at least 0, not {ddof!r}")
    if not all(0 <= q <= 1 for q in quantiles):
        raise ValueError(f"quantiles must lie between 0 and 1, not {list(quantiles)}")
    keys = ["name", *(PRODUCER if by else ())]
    rows: list[dict[str, Any]] = []
    for table in tables:
        rows += [{**key, **describe(values, ddof, quantiles)} for key, values, _ in number_rows(table, keys)]
    rows.sort(key=lambda row: tuple((row[key] is not None, row[key]) for key in keys))
    return pa.Table.from_pylist(rows, schema=_schema(keys, quantiles))


def _schema(keys: Sequence[str], quantiles: Sequence[float]) -> pa.Schema:
    numbers = ["mean", "std", "min", "max", "median", *map(_title, quantiles), "first", "last"]
    fields = [(key, pa.string() if key == "name" else pa.int32()) for key in keys]
    return pa.schema([*fields, ("count", pa.int64()), ("nan", pa.int64()), *((name, pa.float64()) for name in numbers)])


def _title(quantile: float) -> str:
    return f"q{100 * quantile:g}"


def number_rows(
    table: pa.Table, keys: list[str]
) -> Iterator[tuple[dict[str, Any], NDArray[np.float64], NDArray[np.int64]]]:
    """Yield the values and steps of each group that has numbers, by step and time."""
    table = table.filter(pc.not_equal(table["kind"].cast(pa.string()), "text")).unify_dictionaries()
    numbered = table.select([*keys, "value"]).append_column("row", pa.array(np.arange(table.num_rows)))
    # One thread: the order of the rows within a group is kept.
    groups = numbered.group_by(keys, use_threads=False).aggregate([("row", "list")])
    values, steps = table["value"].to_numpy(), table["step"].to_numpy()
    for key, rows in zip(groups.select(keys).to_pylist(), _lists(groups["row_list"]), strict=True):
        yield key, values[rows], steps[rows]


def _lists(column: Any) -> Iterator[NDArray[np.int64]]:
    for chunk in column.chunks:
        items, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        for begin, end in pairwise(offsets):
            yield items[begin:end]


def describe(values: NDArray[np.float64], ddof: int = 1, quantiles: Sequence[float] = ()) -> dict[str, Any]:
    """Return the statistics of some numbers, NaN counted and otherwise left out.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        In the order that ``first`` and ``last`` mean; at least one.
    ddof : int
        The divisor of the variance is n - ddof; 1 is the estimate from a sample, 0 that of numpy.
    quantiles : sequence of float
        Each in 0 … 1, linear between the two nearest values (type 7 of Hyndman and Fan, 1996).
    """
    kept = values[~np.isnan(values)]
    row = {"count": len(values), "nan": len(values) - len(kept), "first": float(values[0]), "last": float(values[-1])}
    if not len(kept):
        return row
    with np.errstate(invalid="ignore", over="ignore"):  # infinities have no spread
        row |= {"mean": float(kept.mean()), "min": float(kept.min()), "max": float(kept.max())}
        if len(kept) > ddof:
            row["std"] = float(kept.std(ddof=ddof))
        quantile_values = np.quantile(kept, [0.5, *quantiles])
    return row | dict(zip(["median", *map(_title, quantiles)], quantile_values.tolist(), strict=True))
