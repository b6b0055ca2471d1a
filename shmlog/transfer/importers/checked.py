"""Check tables of records that strangers may have written: every row must be a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute

from shmlog.base.times import time_in_range
from shmlog.errors import CorruptDataError
from shmlog.records.schema import METRICS, RECORDS
from shmlog.records.values import misfits
from shmlog.transfer.imported import Problems

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid


def checked_table(path: Path, table: pa.Table) -> pa.Table:
    """Return a table as one of schema `METRICS`.

    Raises
    ------
    CorruptDataError
        If it has other columns, a row that is not a record, or a time that no calendar has.
    """
    if table.column_names != METRICS.names:
        raise CorruptDataError(f"{path}: not a table of shmlog (columns {table.column_names})")
    try:
        arrays = [_cast(table[column.name], column.type) for column in METRICS]
        checked = pa.Table.from_arrays(arrays, schema=METRICS)
        checked.validate(full=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise CorruptDataError(f"{path}: a table of shmlog that is damaged ({error})") from error
    if any(checked[column.name].null_count for column in METRICS if not column.nullable) or misfits(checked).any():
        raise CorruptDataError(f"{path}: a table of shmlog with rows whose kind and values don't fit")
    ends = pc.min_max(checked["ts"].cast(pa.int64())).as_py()
    if checked.num_rows and not all(map(time_in_range, ends.values())):  # most that reads a run could not show it
        raise CorruptDataError(f"{path}: a table of shmlog with times outside the years 1 to 9999")
    return checked


def curve_of(path: Path, table: pa.Table, problems: Problems) -> pa.Table:
    """Return the table without superseded records, if it marks them: an imported run has one attempt.

    Raises
    ------
    CorruptDataError
        If a mark is missing, or not a bool.
    """
    if table.column_names != RECORDS.names:
        return table
    marks: Any = table["superseded"]
    if not pa.types.is_boolean(marks.type) or marks.null_count:
        raise CorruptDataError(f"{path}: a table of shmlog that does not say of each row whether it is superseded")
    note_superseded(problems, pc.sum(marks).as_py() or 0)
    return table.filter(pc.invert(marks)).select(METRICS.names)


def note_superseded(problems: Problems, count: int) -> None:
    """Note how many superseded records are left out, if there are any."""
    if count:
        problems.add("superseded records", f"{count} records that a later attempt has superseded; left out")


def _cast(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        column = column.cast(kind.value_type).combine_chunks()
        column = column.dictionary_encode()
    return column.cast(kind)
