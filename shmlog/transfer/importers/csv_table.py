"""CSV: what `export_run` wrote, or a table with a column for each metric."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from shmlog.errors import CorruptDataError, RefusedError
from shmlog.reader.foreign import STEPS, TIMES, first_of, is_elapsed
from shmlog.records.schema import METRICS, RECORDS
from shmlog.transfer.cells import unguard, unguard_column
from shmlog.transfer.imported import OWNER, ImportedRun, owner_of
from shmlog.transfer.importers.checked import checked_table, curve_of
from shmlog.transfer.importers.csv_cells import Column, has_decimal_comma, separator_of
from shmlog.transfer.importers.resaved import TEXTS, is_resaved, read_resaved
from shmlog.transfer.results_csv import Cell, split

_SEPARATOR_LINE = re.compile(r"sep=(.)(?:\r\n|\r|\n)")  # which Excel reads and writes


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
    given = _SEPARATOR_LINE.match(text)
    lines = split(text, path, given[1] if given else separator_of(text, path))
    if given:
        next(lines)
    cells = next(lines, (0, []))[1]
    head = [unguard(cell.text) for cell in cells]
    _check_head(path, head)
    rows = list(_whole_rows(lines, len(head), run))
    numbers = [number for number, _ in rows]
    columns = {name: [cells[i] for _, cells in rows] for i, name in enumerate(head)}
    if is_resaved(head):
        has_comma = has_decimal_comma({n: c for n, c in columns.items() if n not in TEXTS}, numbers, path)
        read_resaved(path, numbers, {name: Column(c, has_comma=has_comma) for name, c in columns.items()}, run)
        return
    is_ours = head[:2] == ["step", "ts"] and all(cell.is_quoted for cell in cells)
    has_comma = not is_ours and has_decimal_comma(columns, numbers, path)
    values = {name: Column(c, has_comma=has_comma, is_ours=is_ours) for name, c in columns.items()}
    _read_wide(numbers, values, run, names=_names_of_ours(head) if is_ours else {})


def _check_head(path: Path, head: list[str]) -> None:
    """Raise RefusedError if the first line does not name the columns."""
    names = [name for name in head if name]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names:
        raise RefusedError(f"{path}: is empty, or its first line names no column")
    if twice is not None:
        raise RefusedError(f"{path}: two columns have the name {twice!r}")
    if names[0].startswith("#"):
        raise RefusedError(f"{path}: begins with a comment; remove that line, or its '#' if it names the columns")
    if head.count("") > 1:
        raise RefusedError(f"{path}: {head.count('')} columns have no name")


def _names_of_ours(head: list[str]) -> dict[str, str]:
    """Return the names of metrics whose columns have another name, since that is taken."""
    return {name: name.removeprefix("metric ") for name in head if name.removeprefix("metric ") in head[:6]}


def _whole_rows(
    lines: Iterator[tuple[int, list[Cell]]], width: int, run: ImportedRun
) -> Iterator[tuple[int, list[Cell]]]:
    for number, cells in lines:
        if len(cells) == width:
            yield number, cells
        elif cells != [Cell("", False)]:
            run.problems.add("rows", f"line {number}: {len(cells)} cells in {width} columns; left out")


def _read_wide(numbers: list[int], columns: dict[str, Column], run: ImportedRun, *, names: dict[str, str]) -> None:
    """Add the records of a table with a column for each metric, whose rows begin at the lines ``numbers``."""
    index = columns.pop("", None)  # of pandas
    if index is not None and index.values() != list(range(len(numbers))):
        run.problems.add("columns", "a column without a name; left out")
    step_name, time_name = first_of(STEPS, columns), _time_name(columns, run)
    if step_name is None:
        run.notes.add("steps", f"no column {', '.join(STEPS[:3])} …: the rows are numbered from 0")
    if time_name is None:
        run.notes.add("times", "no column of times: all records have 1970-01-01T00:00:00Z")
    owners = [name for name in OWNER if name in columns and _are_owners(name, columns[name])]
    metrics = {name: column for name, column in columns.items() if name not in (step_name, time_name, *owners)}
    for name, column in metrics.items():
        if column.remark:
            run.notes.add(f"cells of {name}", f"column {name!r}: {column.remark}")
    following = 0
    for i, number in enumerate(numbers):
        where = f"line {number}"
        step = run.step(where, columns[step_name].value(i), following) if step_name else following
        if step is None:
            continue
        following = step + 1
        ts = run.time(where, columns[time_name].value(i)) if time_name else 0
        owner = owner_of({name: columns[name].value(i) for name in owners})
        for name, column in metrics.items():
            if (value := column.value(i)) is not None:
                run.add(where, names.get(name, name), step, value, ts, owner=owner)


def _time_name(columns: dict[str, Column], run: ImportedRun) -> str | None:
    """Return the name of the column of times; one of elapsed seconds is a metric."""
    name = first_of(TIMES, columns)
    if name is None or not all(map(is_elapsed, values := columns[name].values())) or not values:
        return name
    run.notes.add("times", f"column {name!r} has seconds that have elapsed, not times: it is read as a metric")
    return None


def _are_owners(name: str, column: Column) -> bool:
    """Whether all values of a column are whole numbers of 32 bits."""
    return all(name in owner_of({name: value}) for value in column.values())
