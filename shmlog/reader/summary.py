"""What a run holds, in numbers: one row for each metric and kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

    from shmlog.reader.stored import StoredRun

_ROWS_AT_ONCE = 4_000_000


class Summary(NamedTuple):
    """What a run's metrics come to.

    Attributes
    ----------
    rows : list of dict
        ``name``, ``kind``, ``count``, ``last_step``, ``last``, ``min`` and ``max`` of the curve of each metric, by
        name. ``last`` is the value of the highest step, which is ``last_step``. Text has neither ``min`` nor
        ``max``; NaN counts for neither.
    superseded : int
        Records that a later attempt has superseded: no row counts them.
    """

    rows: list[dict[str, Any]]
    superseded: int

    @property
    def records(self) -> int:
        """How many records the curves have."""
        return sum(row["count"] for row in self.rows)


def summarise(stored: StoredRun) -> Summary:
    """Return what the metrics of a run come to."""
    rows: list[dict[str, Any]] = []
    superseded = 0
    for names in _portions(stored):
        table = stored.metrics(names, superseded=True)
        curve = _curve(table)
        rows += _statistics(curve)
        superseded += table.num_rows - curve.num_rows
    return Summary(sorted(rows, key=lambda row: (row["name"], row["kind"])), superseded)


def _curve(table: pa.Table) -> pa.Table:
    """Return what no later attempt has superseded."""
    import pyarrow.compute as pc

    marks = table["superseded"]
    return table.filter(pc.invert(marks)) if pc.any(marks).as_py() else table


def _portions(stored: StoredRun) -> Iterator[list[str]]:
    """Yield the names in lists, so that a huge run is not in memory all at once."""
    names = stored.names()
    records = int(stored.counts.get("metrics") or 0)
    length = max(1, len(names) * _ROWS_AT_ONCE // max(records, _ROWS_AT_ONCE))
    for start in range(0, len(names), length):
        yield names[start : start + length]


def _statistics(table: pa.Table) -> list[dict[str, Any]]:
    """Return a row for each name and kind; the table is ordered by step."""
    # One thread: "last" needs the order of the rows.
    groups = table.unify_dictionaries().group_by(["name", "kind"], use_threads=False)
    found = groups.aggregate(
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
    return [_row(group) for group in found.to_pylist()]


def _row(group: dict[str, Any]) -> dict[str, Any]:
    kind = group["kind"]
    row = {"name": group["name"], "kind": kind, "count": group["count_all"], "last_step": group["step_last"]}
    if kind == "text":
        return row | {"last": group["text_last"], "min": None, "max": None}
    column, convert = ("value", float) if kind == "float" else ("int_value", bool if kind == "bool" else int)
    return row | {
        key: None if group[f"{column}_{key}"] is None else convert(group[f"{column}_{key}"])
        for key in ("last", "min", "max")
    }
