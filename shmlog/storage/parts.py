"""Sealed metrics: one Parquet file for one log, or for several merged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shmlog.base.durable import replacing
from shmlog.errors import CorruptDataError
from shmlog.storage import footer
from shmlog.storage.order import sort_by_name, with_names
from shmlog.storage.schema import METRICS, NAME_GROUP_ROWS, ROW_GROUP_ROWS, VERSION, write_options

NAME_GROUPS = 16  # more would slow the writing down
_BUFFER_BYTES = 1 << 20

_CELLS = 100_000_000
_CELLS_PER_BYTE = 200  # ours have some 30 where all is alike


class _WholeWrites(FileIO):
    """A file that takes all it is given: pyarrow does not look at how much of it was written."""

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest) :]
        return size


@contextmanager
def open_part(path: Path, *, run_id: str, first: int, last: int) -> Iterator[pq.ParquetWriter]:
    """Write a part under a temporary name; it appears whole and durable, or not at all."""
    with replacing(path) as fd, open_writer(fd) as writer:
        yield writer
        writer.add_key_value_metadata(
            {
                "shmlog.schema": str(VERSION),
                footer.RUN_ID: run_id,
                footer.FIRST_LOG: str(first),
                footer.LAST_LOG: str(last),
            }
        )


@contextmanager
def open_writer(fd: int) -> Iterator[pq.ParquetWriter]:
    """Write metrics into a file that is empty, and can be read, too."""
    with _WholeWrites(fd, "wb", closefd=False) as file, _buffered(file) as sink:
        with pq.ParquetWriter(sink, METRICS, **write_options()) as writer:
            yield writer
            writer.add_key_value_metadata({footer.KEY: footer.UNSEALED})
        sink.flush()
        footer.seal(fd)


@contextmanager
def _buffered(file: FileIO) -> Iterator[pa.NativeFile]:
    """Gather what pyarrow writes page by page: each write of a Python file waits for the GIL."""
    sink = pa.BufferedOutputStream(pa.PythonFile(file, mode="w"), _BUFFER_BYTES)
    try:
        yield sink
    except BaseException:
        with suppress(OSError):
            sink.close()  # it would try to write what is left when it is collected
        raise
    sink.close()


def write_part(
    path: Path, table: pa.Table, *, run_id: str, first: int, last: int, progress: Callable[[], None]
) -> None:
    """Write ``table`` (schema `METRICS`) as the part of logs ``first`` … ``last``.

    Raises
    ------
    OSError
        If it can't be written; then there is no such part.
    """
    table = sort_by_name(table)
    with open_part(path, run_id=run_id, first=first, last=last) as writer:
        for group in row_groups(table):
            write_group(writer, group)
            progress()


def row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the row groups of a table that is sorted by name: some sixteen, if there are as many names."""
    column: Any = table["name"].combine_chunks()
    codes = column.indices.to_numpy()
    name_ends = [*(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    least = max(NAME_GROUP_ROWS, len(codes) // NAME_GROUPS)
    start = 0
    for end in name_ends:
        while end - start > ROW_GROUP_ROWS:
            yield table.slice(start, ROW_GROUP_ROWS)
            start += ROW_GROUP_ROWS
        if end - start >= least:
            yield table.slice(start, end - start)
            start = end
    if start < len(codes):
        yield table.slice(start)


def write_group(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Write a row group whose dictionary of names holds just the names in it."""
    names: Any = table["name"].combine_chunks()
    codes = names.indices.to_numpy()
    used = np.flatnonzero(np.bincount(codes, minlength=len(names.dictionary)))
    position = np.zeros(len(names.dictionary), np.int32)
    position[used] = np.arange(len(used))
    table = with_names(table, position[codes], names.dictionary.take(pa.array(used)).to_pylist())
    writer.write_table(table, row_group_size=max(1, table.num_rows))


def open_file(path: Path) -> pq.ParquetFile:
    """Open a part for reading, its footer and pages checked against their checksums.

    Raises
    ------
    FileNotFoundError
        If it is gone, perhaps merged into another.
    CorruptDataError
        If it is no Parquet file, or not one of ours.
    """
    footer.check(path)
    return open_checked(path, path, path.stat().st_size)


def open_checked(path: Path, source: Path | pa.BufferReader, size: int) -> pq.ParquetFile:
    """Open what has a footer that is in order: ``path``, or bytes that were taken from there."""
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise_for(path, error)
    schema = file.schema_arrow
    if (schema.names, schema.types) != (METRICS.names, METRICS.types):
        raise CorruptDataError(f"{path}: not a part of shmlog, or its schema is damaged ({schema.names})")
    check_cells(path, file.metadata.num_rows * file.metadata.num_columns, size)
    return file


def check_cells(path: Path, cells: int, size: int) -> None:
    """Raise CorruptDataError if a file would take much more memory than its size lets expect."""
    if cells > max(_CELLS, _CELLS_PER_BYTE * size):
        raise CorruptDataError(f"{path}: {cells} cells in {size} bytes: refused, since it may fill the memory")


def raise_for(path: Path, error: Exception) -> NoReturn:
    """Raise what reading ``path`` means: an error of the system as it is, or that the file is damaged."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    raise CorruptDataError(f"{path}: damaged ({error})") from error


def read_part(path: Path, names: list[str] | None = None) -> pa.Table:
    """Return the rows of a part, or those of some names.

    Parameters
    ----------
    names : list of str, optional
        Names wanted. Row groups without any of them are not read.

    Raises
    ------
    FileNotFoundError, CorruptDataError
        As in `open_file`, and if a page is damaged.
    """
    with open_file(path) as file:
        groups = _groups_with(file, names)
        try:
            table = file.read_row_groups(groups)
        except (OSError, pa.ArrowException) as error:
            raise_for(path, error)
    return table if names is None else only_names(table, names)


def _groups_with(file: pq.ParquetFile, names: list[str] | None) -> list[int]:
    groups = list(range(file.num_row_groups))
    if names is None:
        return groups
    column = METRICS.get_field_index("name")
    kept = []
    for group in groups:
        statistics: Any = file.metadata.row_group(group).column(column).statistics
        unknown = statistics is None or not statistics.has_min_max
        if unknown or any(statistics.min <= name <= statistics.max for name in names):
            kept.append(group)
    return kept


def only_names(table: pa.Table, names: list[str]) -> pa.Table:
    """Return the rows of some names, by their codes."""
    column: Any = table["name"]
    asked = set(names)
    if all(asked.issuperset(chunk.dictionary.to_pylist()) for chunk in column.chunks):
        return table  # as row groups end with a name, most need no look at their rows
    table = table.unify_dictionaries().combine_chunks()
    if table.num_rows == 0:
        return table
    chunk: Any = table["name"].chunk(0)
    wanted = {i for i, name in enumerate(chunk.dictionary.to_pylist()) if name in asked}
    codes = chunk.indices.to_numpy()
    rows = np.flatnonzero(np.isin(codes, list(wanted)))
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(int(rows[0]), len(rows))
    return table.take(rows)
