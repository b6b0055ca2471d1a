"""Sealed metrics: one Parquet file for one log, or for several merged ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from shmlog.base.durable import replacing
from shmlog.errors import CorruptDataError, RefusedError
from shmlog.records import footer
from shmlog.records.order import cut, sort_by_name, take_rows, with_names
from shmlog.records.schema import (
    GROUP_TEXT_BYTES,
    METRICS,
    NAME_GROUP_ROWS,
    ROW_GROUP_ROWS,
    TEXT_BYTES,
    TEXT_SHARE,
    VERSION,
    write_options,
)
from shmlog.records.texts import read_texts, refuse_unread, text_lengths

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

NAME_GROUPS = 16  # more would slow the writing down
_BUFFER_BYTES = 1 << 20

_CELLS = 100_000_000
_CELLS_PER_BYTE = 200  # ours have some 30 where all is alike

_TEXT = METRICS.get_field_index("text")
_TYPES_AS_READ = [*METRICS.types[:_TEXT], pa.dictionary(pa.int32(), pa.string()), *METRICS.types[_TEXT + 1 :]]


class _WholeWrites(FileIO):
    """A file that takes all it is given: pyarrow does not look at how much of it was written."""

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest) :]
        return size


@contextmanager
def open_part(path: Path, *, run_id: str, first: int, last: int, text_bytes: int) -> Iterator[pq.ParquetWriter]:
    """Write a part under a temporary name; it appears whole and durable, or not at all; see `open_writer`."""
    with replacing(path) as fd, open_writer(fd, text_bytes) as writer:
        yield writer
        writer.add_key_value_metadata({"shmlog.schema": str(VERSION), **footer.identity(run_id, first, last)})


@contextmanager
def open_writer(fd: int, text_bytes: int) -> Iterator[pq.ParquetWriter]:
    """Write metrics, with so much text, in bytes, into a file that is empty, and can be read, too."""
    with _WholeWrites(fd, "wb", closefd=False) as file, _buffered(file) as sink:
        with pq.ParquetWriter(sink, METRICS, **write_options(text_bytes)) as writer:
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
    path: Path, table: pa.Table, *, run_id: str, first: int, last: int, progress: Callable[[], None],
    read_large: Callable[[str], bytes] = refuse_unread,
) -> None:  # fmt: skip
    """Write ``table`` (schema `METRICS`) as the part of logs ``first`` … ``last``.

    Large texts are read from their files by ``read_large``, those of one row group at a time.

    Raises
    ------
    OSError
        If it can't be written; then there is no such part.
    """
    table = sort_by_name(table)
    text_bytes = int(text_lengths(table).sum())
    with open_part(path, run_id=run_id, first=first, last=last, text_bytes=text_bytes) as writer:
        for group in row_groups(table):
            write_group(writer, read_texts(group, read_large))
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
            yield from _text_groups(table.slice(start, ROW_GROUP_ROWS))
            start += ROW_GROUP_ROWS
        if end - start >= least:
            yield from _text_groups(table.slice(start, end - start))
            start = end
    if start < len(codes):
        yield from _text_groups(table.slice(start))


def _text_groups(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a row group in pieces whose texts are not too many for one."""
    for start, end in cut(text_lengths(table), GROUP_TEXT_BYTES):
        yield table.slice(start, end - start)


def write_group(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Write a row group whose dictionary of names holds just the names in it."""
    names: Any = table["name"].combine_chunks()
    codes = names.indices.to_numpy()
    used = np.flatnonzero(np.bincount(codes, minlength=len(names.dictionary)))
    position = np.zeros(len(names.dictionary), np.int32)
    position[used] = np.arange(len(used))
    table = with_names(table, position[codes], names.dictionary.take(pa.array(used)).to_pylist())
    writer.write_table(table, row_group_size=max(1, table.num_rows))


class PartFile:
    """A part that is open for reading: whatever reads rows of parts does so here.

    Texts are first read as dictionaries, in which one that stands a million times takes its room once. So it is known
    what they would expand to before they are.
    """

    def __init__(self, path: Path, file: pq.ParquetFile, size: int) -> None:
        self._path = path
        self._file = file
        self._text_bytes_max = max(TEXT_BYTES, int(size / TEXT_SHARE))
        self.metadata = file.metadata
        self._check_told_texts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def groups(self) -> range:
        """The numbers of the row groups."""
        return range(self.metadata.num_row_groups)

    def text_bytes(self, group: int) -> int:
        """Return how many bytes of text the footer tells of a row group, or a little more."""
        described = self.metadata.row_group(group)
        if described.total_byte_size <= described.num_rows:
            return 0
        return int(described.column(_TEXT).total_uncompressed_size)

    def read(self, groups: Iterable[int]) -> pa.Table:
        """Return the rows of some row groups, schema `METRICS` but for what may be null.

        Raises
        ------
        CorruptDataError
            If a page is damaged, or the texts would fill the memory.
        """
        tables: list[pa.Table] = []
        expanded = 0
        for portion in self._portions(list(groups)):
            try:
                table = self._file.read_row_groups(portion)
            except (OSError, pa.ArrowException) as error:
                raise_for(self._path, error)
            expanded += _expanded_bytes(table[_TEXT])
            self._check_texts(expanded)
            tables.append(_with_plain_texts(table))
        return pa.concat_tables(tables) if tables else METRICS.empty_table()

    def read_names(self, group: int) -> list[str]:
        """Return the names in a row group."""
        try:
            column: Any = self._file.read_row_group(group, columns=["name"])["name"]
        except (OSError, pa.ArrowException) as error:
            raise_for(self._path, error)
        return [name for chunk in column.chunks for name in chunk.dictionary.to_pylist()]

    def batches(self, group: int, rows: int) -> Iterator[pa.Table]:
        """Yield the rows of a row group, some at a time; raises as `read`."""
        expanded = 0
        batches = self._file.iter_batches(batch_size=rows, row_groups=[group])
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise_for(self._path, error)
            if batch is None:
                return
            table = pa.Table.from_batches([batch])
            expanded += _expanded_bytes(table[_TEXT])
            self._check_texts(expanded)
            yield _with_plain_texts(table)

    def _portions(self, groups: list[int]) -> list[list[int]]:
        """Return the groups as they can be read together: what an array of texts can hold is limited."""
        if sum(self.metadata.row_group(group).total_byte_size for group in groups) <= TEXT_BYTES:
            return [groups]
        return [[group] for group in groups]

    def _check_told_texts(self) -> None:
        """Refuse at once what the footer itself tells of; it counts four bytes more for each text, and its pages."""
        if sum(self.metadata.row_group(group).total_byte_size for group in self.groups) > self._text_bytes_max:
            self._check_texts((sum(map(self.text_bytes, self.groups)) - 4 * self.metadata.num_rows) // 2)

    def _check_texts(self, count: int) -> None:
        if count > self._text_bytes_max:
            raise RefusedError(
                f"{self._path}: {count:,} bytes of text in it, packed more than ours are: refused, since it may fill "
                "the memory"
            )


def _expanded_bytes(column: pa.ChunkedArray[Any]) -> int:
    """Return how many bytes the texts of a column of dictionaries are."""
    total = 0
    chunk: Any
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False).astype(np.int64)
            counts = np.bincount(chunk.indices.drop_null().to_numpy(), minlength=len(lengths))
            total += int(counts @ lengths)
    return total


def _with_plain_texts(table: pa.Table) -> pa.Table:
    """Return a table with its column of dictionaries as texts."""
    chunks: list[Any] = []
    chunk: Any
    for chunk in table[_TEXT].chunks:
        if chunk.null_count == len(chunk):
            chunks.append(pa.nulls(len(chunk), pa.string()))
        else:
            chunks.append(chunk.dictionary_decode())
    return table.set_column(_TEXT, METRICS.field(_TEXT), pa.chunked_array(chunks, pa.string()))


def open_file(path: Path) -> PartFile:
    """Open a part for reading, its footer and pages checked against their checksums.

    Raises
    ------
    FileNotFoundError
        If it is gone, perhaps merged into another.
    CorruptDataError
        If it is not a Parquet file, or not one of ours.
    """
    footer.check(path)
    return open_checked(path, path, path.stat().st_size)


def open_checked(path: Path, source: Path | pa.BufferReader, size: int) -> PartFile:
    """Open what has a footer that is in order: ``path``, or bytes that were taken from there."""
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=[_TEXT])
    except (OSError, pa.ArrowException) as error:
        raise_for(path, error)
    schema = file.schema_arrow
    if (schema.names, schema.types) != (METRICS.names, _TYPES_AS_READ):
        raise CorruptDataError(f"{path}: not a part of shmlog, or its schema is damaged ({schema.names})")
    check_cells(path, file.metadata.num_rows * file.metadata.num_columns, size)
    return PartFile(path, file, size)


def check_cells(path: Path, cells: int, size: int) -> None:
    """Raise RefusedError if a file would take much more memory than its size lets expect."""
    if cells > max(_CELLS, _CELLS_PER_BYTE * size):
        raise RefusedError(f"{path}: {cells} cells in {size} bytes: refused, since it may fill the memory")


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
        As in `open_file` and `PartFile.read`.
    """
    with open_file(path) as file:
        table = file.read(_groups_with(file, names))
    return table if names is None else only_names(table, names)


def _groups_with(file: PartFile, names: list[str] | None) -> Iterable[int]:
    if names is None:
        return file.groups
    column = METRICS.get_field_index("name")
    kept = []
    for group in file.groups:
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
    table = table.unify_dictionaries()
    if table.num_rows == 0:
        return table
    chunk: Any = table["name"].combine_chunks()
    wanted = {i for i, name in enumerate(chunk.dictionary.to_pylist()) if name in asked}
    codes = chunk.indices.to_numpy()
    rows = np.flatnonzero(np.isin(codes, list(wanted)))
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(int(rows[0]), len(rows))
    return take_rows(table, rows)
