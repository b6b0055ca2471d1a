"""CSV: what `export_run` wrote, or a table with a column for each metric."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from shmlog.errors import CorruptDataError, RefusedError
from shmlog.reader.foreign import STEPS, TIMES, first_of, lacks_zone, step_of, time_us
from shmlog.records.schema import METRICS, RECORDS
from shmlog.transfer.cells import unguard, unguard_column
from shmlog.transfer.imported import ImportedRun, owner_of
from shmlog.transfer.importers.checked import checked_table, curve_of
from shmlog.transfer.importers.csv_cells import Column, has_decimal_comma, separator_of
from shmlog.transfer.importers.resaved import is_resaved, read_resaved
from shmlog.transfer.results_csv import Cell, split

_OWNER = ("rank", "local_rank", "worker", "pid")


def read(path: Path) -> ImportedRun:
    """Return the run whose metrics the table holds.

    Raises
    ------
    CorruptDataError
        If it is not CSV, or damaged.
    RefusedError
        If its first line is not a list of different names, or it can be read in two ways.
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
        _read_any(path, text, run)
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


# ---- any other table ----


def _read_any(path: Path, text: str, run: ImportedRun) -> None:
    lines = split(text, path, separator_of(text, path))
    cells = next(lines, (0, []))[1]
    head = [unguard(cell.text) for cell in cells]
    if not any(head) or len(set(head)) != len(head):
        raise RefusedError(f"{path}: its first line is not a list of different names")
    rows = list(_whole_rows(lines, len(head), run))
    columns = {name: [cells[i] for _, cells in rows] for i, name in enumerate(head)}
    has_comma = has_decimal_comma(columns.values(), path)
    is_wide_export = head[:2] == ["step", "ts"] and all(cell.is_quoted for cell in cells)
    values = {name: Column(column, has_comma=has_comma, has_nan=is_wide_export) for name, column in columns.items()}
    numbers = [number for number, _ in rows]
    if is_resaved(head):
        read_resaved(path, numbers, values, run)
    else:
        _read_wide(numbers, values, run)


def _whole_rows(
    lines: Iterator[tuple[int, list[Cell]]], width: int, run: ImportedRun
) -> Iterator[tuple[int, list[Cell]]]:
    for number, cells in lines:
        if len(cells) == width:
            yield number, cells
        elif cells != [Cell("", False)]:
            run.problems.add("rows", f"line {number}: {len(cells)} cells in {width} columns; left out")


def _read_wide(numbers: list[int], columns: dict[str, Column], run: ImportedRun) -> None:
    """Add the records of a table with a column for each metric, whose rows begin at the lines ``numbers``."""
    step_name, time_name = first_of(STEPS, columns), first_of(TIMES, columns)
    if step_name is None:
        run.notes.add("steps", f"no column {', '.join(STEPS[:3])} …: the rows are numbered from 0")
    if time_name is None:
        run.notes.add("times", "no column of times: all records have 1970-01-01T00:00:00Z")
    metrics = {name: column for name, column in columns.items() if name not in (step_name, time_name, *_OWNER)}
    following = 0
    for i, number in enumerate(numbers):
        where = f"line {number}"
        step = _step(where, columns[step_name].value(i) if step_name else following, following, run)
        if step is None:
            continue
        following = step + 1
        ts = _time(where, columns[time_name].value(i), run) if time_name else 0
        owner = owner_of({name: columns[name].value(i) for name in _OWNER if name in columns})
        for name, column in metrics.items():
            if (value := column.value(i)) is not None:
                run.add(where, name, step, value, ts, owner)


def _step(where: str, value: Any, following: int, run: ImportedRun) -> int | None:
    """Return the step of a row, by default the following number; None, reported, if it has no valid one."""
    if value is None:
        run.notes.add("rows without a step", f"{where}: no step; it is numbered {following}")
        return following
    step = step_of(value)
    if step is None:
        run.problems.add("rows without a valid step", f"{where}: step {value!r} is not an integer; left out")
    return step


def _time(where: str, value: Any, run: ImportedRun) -> int:
    """Return a time in µs since 1970."""
    ts = time_us(value)
    if ts is None:
        text = "no time" if value is None else f"{value!r} is not a time"
        run.problems.add("times", f"{where}: {text}; 1970 instead")
        return 0
    if lacks_zone(value):
        run.notes.add("times without a zone", f"{where}: {value} has no zone; read as UTC")
    return ts
