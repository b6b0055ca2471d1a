"""A run's metrics as CSV: a row for each record, or for each call."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
from numpy.typing import NDArray

from shmlog.reader.stored import StoredRun
from shmlog.records.order import row_order
from shmlog.records.values import VALUE_COLUMNS
from shmlog.transfer.cells import guard, guard_column
from shmlog.transfer.exporters.output import Progress, slices

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid

_CALL = ["step", "ts", "rank", "local_rank", "worker", "attempt"]


def write_long(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write a row for each record, with all its columns; return how many."""
    return _write(safe_table(table), file, progress)


def write_wide(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write a row for each call of ``log``, with a column for each metric, sorted; return how many."""
    return _write(safe_table(widen(table)), file, progress)


def safe_table(table: pa.Table) -> pa.Table:
    """Return the table with no text that a spreadsheet would evaluate."""
    columns = [_safe(column) if _is_text(column.type) else column for column in table.columns]
    return pa.Table.from_arrays(columns, names=[guard(name) for name in table.column_names])


def _safe(column: Any) -> Any:
    return guard_column(column.combine_chunks() if pa.types.is_dictionary(column.type) else column)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))


def _write(table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    with pa.csv.CSVWriter(file, table.schema) as writer:
        for portion in slices(table, progress):
            writer.write_table(portion)
    return int(table.num_rows)


def widen(table: pa.Table) -> pa.Table:
    """Return a row for each call: the records of one step, time and producer.

    A call that has a name twice makes a second row.
    """
    codes, names = _codes(table)
    row, first = _rows(table, codes)
    columns = {name: table[name].take(pa.array(first)) for name in _CALL if name in table.column_names}
    calls = list(columns)
    by_name = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    values = table.select(list(VALUE_COLUMNS))
    for code in sorted(range(len(names)), key=names.__getitem__):
        at = by_name[ends[code - 1] if code else 0 : ends[code]]
        if len(at):
            label = names[code] if names[code] not in calls else f"metric {names[code]}"
            columns[label] = _spread(_values(values.take(pa.array(at))), row[at], len(first))
    return pa.table(columns)


def _codes(table: pa.Table) -> tuple[NDArray[np.int32], list[str]]:
    column: Any = table["name"].unify_dictionaries().combine_chunks()
    return column.indices.to_numpy(), column.dictionary.to_pylist()


def _rows(table: pa.Table, codes: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row of each record, and the first record of each row.

    A record goes into the first row of its call that has no record of its name yet. The records of a call
    follow each other, since the table is ordered by step, time and lane.
    """
    count = len(codes)
    keys = [table[name].cast(pa.int64()).to_numpy() for name in ("step", "ts", "lane")]
    begins = np.any([np.diff(key, prepend=key[:1]) != 0 for key in keys], axis=0)
    call = np.cumsum(begins)
    order = row_order([codes.astype(np.int64)], call.astype(np.int32), int(call[-1]) + 1 if count else 0)
    is_again = np.zeros(count, bool)
    is_again[1:] = (np.diff(call[order]) == 0) & (np.diff(codes[order]) == 0)
    position = np.arange(count)
    again = np.empty(count, np.int64)
    again[order] = position - np.maximum.accumulate(np.where(is_again, 0, position))
    heights = np.zeros(int(call[-1]) + 1 if count else 0, np.int64)
    np.maximum.at(heights, call, again + 1)
    row = (np.cumsum(heights) - heights)[call] + again
    first = np.empty(int(heights.sum()), np.int64)
    first[row[::-1]] = position[::-1]  # backwards, so that the first record of a row is written last and stays
    return row, first


def _values(table: pa.Table) -> Any:
    """Return the values of one metric, as numbers if all of them are."""
    kinds = set(table["kind"].unique().to_pylist())
    if kinds <= {"float"}:
        return table["value"].combine_chunks()
    if kinds <= {"int"}:
        return table["int_value"].combine_chunks()
    if kinds <= {"bool"}:
        return table["int_value"].cast(pa.bool_()).combine_chunks()
    if kinds <= {"text"}:
        return table["text"].combine_chunks()
    columns = (table[name].cast(pa.string()) for name in ("text", "int_value", "value"))
    return pc.coalesce(*columns).combine_chunks()


def _spread(values: Any, rows: NDArray[np.int64], count: int) -> Any:
    """Return a column of ``count`` rows with ``values`` in some of them."""
    at = np.full(count, -1, np.int64)
    at[rows] = np.arange(len(rows))
    return values.take(pa.array(at, mask=at < 0))
