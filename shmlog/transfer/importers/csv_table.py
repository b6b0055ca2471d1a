"""CSV: what `export_run` wrote, or a table with a column for each metric."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from shmlog.base.times import parse_us, time_in_range
from shmlog.errors import CorruptDataError, RefusedError
from shmlog.records.schema import METRICS, RECORDS
from shmlog.transfer.cells import unguard, unguard_column
from shmlog.transfer.imported import ImportedRun, owner_of
from shmlog.transfer.importers.checked import checked_table, curve_of
from shmlog.transfer.results_csv import Cell, split

_STEPS = ("step", "global_step", "_step", "iteration", "iter", "epoch")
_TIMES = ("ts", "timestamp", "time", "wall_time", "wall time", "_timestamp", "datetime")
_OWNER = ("rank", "local_rank", "worker", "pid")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}|-?[0-9]{19}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE
)


def read(path: Path) -> ImportedRun:
    """Return the run whose metrics the table holds.

    Raises
    ------
    CorruptDataError
        If it is not CSV, or damaged.
    RefusedError
        If its first line is not a list of different names.
    """
    run = ImportedRun(experiment=path.stem)
    data = run.read("table", path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{path}: not UTF-8 ({error})") from error
    if text.startswith((_head(METRICS), _head(RECORDS))):
        run.metrics = _exported(path, data, run)
    else:
        _read_wide(path, text, run)
    _set_times(run)
    return run


def _head(schema: pa.Schema) -> str:
    return ",".join(f'"{name}"' for name in schema.names) + "\n"


def _set_times(run: ImportedRun) -> None:
    times = run.table()["ts"].cast(pa.int64()).to_numpy()
    times = times[times != 0]
    if len(times):
        run.lasted(int(times.min()), int(times.max()))


# ---- an export of ours ----


def _exported(path: Path, data: bytes, run: ImportedRun) -> pa.Table:
    types = {
        column.name: column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        for column in RECORDS
    }  # fmt: skip

    def skip(row: Any) -> str:
        run.problems.add("rows", f"row {row.number}: {row.actual_columns} cells, not {row.expected_columns}; left out")
        return "skip"

    options: dict[str, Any] = {
        "read_options": pa.csv.ReadOptions(use_threads=False),
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        "convert_options": pa.csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    }
    try:
        table = pa.csv.read_csv(pa.BufferReader(data), **options)
    except pa.ArrowException as error:
        raise CorruptDataError(f"{path}: a table of shmlog that is damaged ({error})") from error
    for name in ("name", "text"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, unguard_column(table[name]))
    return checked_table(path, curve_of(path, table, run.problems))


# ---- a column for each metric ----


def _read_wide(path: Path, text: str, run: ImportedRun) -> None:
    lines = split(text, path)
    head = [unguard(cell.text) for cell in next(lines, (0, []))[1]]
    if not any(head) or len(set(head)) != len(head):
        raise RefusedError(f"{path}: its first line is not a list of different names")
    rows = list(_whole_rows(lines, len(head), run))
    columns = {name: _Column([cells[i] for _, cells in rows]) for i, name in enumerate(head)}
    step_name = next((name for word in _STEPS for name in head if name.lower() == word), None)
    time_name = next((name for word in _TIMES for name in head if name.lower() == word), None)
    if step_name is None:
        run.problems.add("steps", f"no column {', '.join(_STEPS[:3])} …: the rows are numbered from 0")
    special = {step_name, time_name, *(name for name in _OWNER if name in head)}
    for i, (number, _) in enumerate(rows):
        where = f"line {number}"
        step = columns[step_name].value(i) if step_name else i
        ts = _time(where, columns[time_name].value(i), run) if time_name else 0
        owner = owner_of({name: columns[name].value(i) for name in _OWNER if name in head})
        for name, column in columns.items():
            if name not in special and (value := column.value(i)) is not None:
                run.add(where, name, _whole_step(step, i), value, ts, owner)


def _whole_rows(
    lines: Iterator[tuple[int, list[Cell]]], width: int, run: ImportedRun
) -> Iterator[tuple[int, list[Cell]]]:
    for number, cells in lines:
        if len(cells) == width:
            yield number, cells
        elif cells != [Cell("", False)]:
            run.problems.add("rows", f"line {number}: {len(cells)} cells in {width} columns; left out")


def _whole_step(step: Any, row: int) -> Any:
    """Return a step as an int: of ``3.0`` 3, and of a row without one the number of the row."""
    if step is None:
        return row
    return int(step) if isinstance(step, float) and step.is_integer() else step


def _time(where: str, value: Any, run: ImportedRun) -> int:
    """Return a time in µs, from RFC 3339 or from seconds since 1970."""
    value = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
    ts = round(value * 1e6) if is_number else parse_us(value)
    if ts is None or not time_in_range(ts):
        run.problems.add("times", f"{where}: {value!r} is not a time; 1970 instead")
        return 0
    return ts


class _Column:
    """A column whose cells are all ints, all floats, all bools, or else texts."""

    def __init__(self, cells: list[Cell]) -> None:
        self._cells = cells
        texts = {cell.text for cell in cells if cell.text or cell.is_quoted}
        if texts and all(_INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 for text in texts):
            self._convert: Any = int
        elif texts and all(_NUMBER.fullmatch(text) for text in texts):
            self._convert = float
        elif texts and all(text.lower() in ("true", "false") for text in texts):
            self._convert = _is_true
        else:
            self._convert = unguard

    def value(self, row: int) -> Any:
        """Return the value of a row, or None."""
        cell = self._cells[row]
        return self._convert(cell.text) if cell.text or cell.is_quoted else None


def _is_true(text: str) -> bool:
    return text.lower() == "true"
