"""What a run holds, in numbers: one row for each metric and kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from shmlog.records.order import ROW_KEYS
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


def summarise_pieces(pieces: Iterable[pa.Table]) -> Summary:
    """Return what the metrics of a run come to that was never resumed, whose pieces `StoredRun.reduce` gives."""
    newest: dict[tuple[str, str], tuple[Any, ...]] = {}  # when the last value so far was logged
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for piece in pieces:
        for group in _groups(piece):
            key, row = (group["name"], group["kind"]), _row(group)
            when = tuple(group[f"{column}_last"] for column in ROW_KEYS)
            rows[key] = _joined(rows[key], row, is_newer=when > newest[key]) if key in rows else row
            newest[key] = max(when, newest.get(key, when))
    return Summary(sorted(rows.values(), key=lambda row: (row["name"], row["kind"])), 0)


def _joined(row: dict[str, Any], other: dict[str, Any], *, is_newer: bool) -> dict[str, Any]:
    """Return the row of both; ``is_newer`` says whether the other has the last value."""
    latest = other if is_newer else row
    joined = {**latest, "count": row["count"] + other["count"]}
    for key, choose in (("min", min), ("max", max)):
        cells = [cell for cell in (row[key], other[key]) if cell is not None]
        joined[key] = choose(cells) if cells else None
    return joined


def _curve(table: pa.Table) -> pa.Table:
    """Return what no later attempt has superseded."""
    import pyarrow.compute as pc

    marks = table["superseded"]
    return table.filter(pc.invert(marks)) if pc.any(marks).as_py() else table


def _statistics(table: pa.Table) -> list[dict[str, Any]]:
    """Return a row for each name and kind; the table is ordered by step."""
    return [_row(group) for group in _groups(table)]


def _groups(table: pa.Table) -> list[dict[str, Any]]:
    """Return counts, least, largest and last values by name and kind."""
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
            *((key, "last") for key in ROW_KEYS),
        ]
    )
    groups_of_table: list[dict[str, Any]] = statistics.to_pylist()
    return groups_of_table


def _row(group: dict[str, Any]) -> dict[str, Any]:
    kind = group["kind"]
    row = {"name": group["name"], "kind": kind, "count": group["count_all"], "last_step": group["step_last"]}
    cells = {key: group.get(f"{COLUMN_OF[kind]}_{key}") for key in ("last", "min", "max")}
    if cells["min"] is not None and not cells["min"] <= cells["max"]:  # of NaN alone: NaN; inf and -inf by pyarrow 20
        cells["min"] = cells["max"] = None
    return row | {key: bool(cell) if kind == BOOL and cell is not None else cell for key, cell in cells.items()}
