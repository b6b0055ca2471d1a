"""What a run holds, in numbers: one row for each metric and kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from shmlog.records.values import BOOL, COLUMN_OF

if TYPE_CHECKING:
    import pyarrow as pa


class Summary(NamedTuple):
    """What a run's metrics come to.

    Attributes
    ----------
    rows : list of dict
        ``name``, ``kind``, ``count``, ``last_step``, ``last``, ``min`` and ``max`` of the curve of each metric, by
        name. ``last`` is the value of the highest step, which is ``last_step``. Text has neither ``min`` nor
        ``max``; NaN counts for neither, so that a metric of NaN alone has neither.
    superseded : int
        Records that a later attempt has superseded: no row counts them.
    """

    rows: list[dict[str, Any]]
    superseded: int

    @property
    def records(self) -> int:
        """How many records the curves have."""
        return sum(row["count"] for row in self.rows)


def summarise(portions: Iterable[pa.Table]) -> Summary:
    """Return what the metrics of a run come to, whose `StoredRun.portions` are given, superseded records included."""
    rows: list[dict[str, Any]] = []
    superseded = 0
    for table in portions:
        curve = _curve(table)
        rows += _statistics(curve)
        superseded += table.num_rows - curve.num_rows
    return Summary(sorted(rows, key=lambda row: (row["name"], row["kind"])), superseded)


def _curve(table: pa.Table) -> pa.Table:
    """Return what no later attempt has superseded."""
    import pyarrow.compute as pc

    marks = table["superseded"]
    return table.filter(pc.invert(marks)) if pc.any(marks).as_py() else table


def _statistics(table: pa.Table) -> list[dict[str, Any]]:
    """Return a row for each name and kind; the table is ordered by step."""
    # One thread: "last" needs the order of the rows.
    groups = table.unify_dictionaries().group_by(["name", "kind"], use_threads=False)
    statistics = groups.aggregate(
        [
            ([], "count_all"),
            ("value", "min"),
            ("value", "max"),
            ("value", "last"),
            ("int_value", "min"),
            ("int_value", "max"),
            ("int_value", "last"),
            ("text", "last"),
            ("step", "last"),
        ]
    )
    return [_row(group) for group in statistics.to_pylist()]


def _row(group: dict[str, Any]) -> dict[str, Any]:
    kind = group["kind"]
    row = {"name": group["name"], "kind": kind, "count": group["count_all"], "last_step": group["step_last"]}
    cells = {key: group.get(f"{COLUMN_OF[kind]}_{key}") for key in ("last", "min", "max")}
    if cells["min"] is not None and not cells["min"] <= cells["max"]:  # of NaN alone: NaN; inf and -inf by pyarrow 20
        cells["min"] = cells["max"] = None
    return row | {key: bool(cell) if kind == BOOL and cell is not None else cell for key, cell in cells.items()}
