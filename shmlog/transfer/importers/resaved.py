"""A CSV export of ours that another program has saved again: other quotes, line ends, order of columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shmlog.errors import RefusedError
from shmlog.reader.foreign import step_of, time_us
from shmlog.records.schema import METRICS, RECORDS
from shmlog.transfer.imported import OWNER, ImportedRun, owner_of
from shmlog.transfer.importers.checked import note_superseded
from shmlog.transfer.importers.csv_cells import Column

_INDEX = ("", "Unnamed: 0", "index")  # what pandas adds
TEXTS = ("name", "kind", "text")
"""The columns whose cells are texts, whatever they look like."""

_EXACT = 1 << 53  # from here on, a float may have been rounded


def is_resaved(head: Iterable[str]) -> bool:
    """Whether the names of columns are those of an export."""
    names = set(head) - set(_INDEX)
    return set(METRICS.names) <= names <= set(RECORDS.names)


def read_resaved(path: Path, numbers: list[int], columns: Mapping[str, Column], run: ImportedRun) -> None:
    """Add the records of an export, whose rows begin at the lines ``numbers``; those of superseded ones are left out.

    Raises
    ------
    RefusedError
        If an int has become a float that may have been rounded.
    """
    superseded = 0
    for i, number in enumerate(numbers):
        cells: dict[str, Any] = {
            name: column.text(i) if name in TEXTS else column.value(i) for name, column in columns.items()
        }
        if cells.get("superseded"):
            superseded += 1
            continue
        where = f"line {number}"
        try:
            step, ts = _whole(cells, "step"), time_us(cells["ts"])
            if ts is None:
                raise ValueError(f"ts {cells['ts']!r} is not a time")
            if not cells["name"]:
                raise ValueError("no name")
            value = _value(cells)
        except ArithmeticError as error:
            raise RefusedError(f"{path}: {where}: {error}") from error
        except ValueError as error:
            run.problems.add("rows", f"{where}: {error}; left out")
            continue
        owner = owner_of({name: cells[name] for name in OWNER})
        run.add(where, cells["name"], step, value, ts, owner=owner)
    note_superseded(run.problems, superseded)


def _whole(cells: Mapping[str, Any], name: str) -> int:
    """Return the int in a cell, which may have become a float; raises ValueError, and ArithmeticError if rounded."""
    number = cells[name]
    if isinstance(number, float) and abs(number) >= _EXACT:
        raise ArithmeticError(f"the program that saved this table may have rounded {name} {number!r}")
    whole = step_of(number)
    if whole is None:
        raise ValueError(f"{name} {number!r} is not an integer")
    return whole


def _value(cells: Mapping[str, Any]) -> Any:
    """Return the value of a record; such programs leave NaN and empty texts empty. Raises as `_whole`."""
    kind = cells["kind"]
    if kind == "text":
        return cells["text"] or ""
    if kind == "float":
        return math.nan if cells["value"] is None else float(cells["value"])
    if kind not in ("int", "bool"):
        raise ValueError(f"unknown kind {kind!r}")
    number = _whole(cells, "int_value")
    return bool(number) if kind == "bool" else number
