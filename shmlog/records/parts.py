"""Sealed metrics: a Parquet file for one log, or for several after a merge."""

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
from shmlog.folder.files import LOCAL, RunFiles
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

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid

NAME_GROUPS = 16  # more would slow writing down
_BUFFER_BYTES = 1 << 20

_CELLS = 100_000_000
_CELLS_PER_BYTE = 200  # ours have some 30 if all values are the same

_TEXT = METRICS.get_field_index("text")
_TYPES_AS_READ = [*METRICS.types[:_TEXT], pa.dictionary(pa.int32(), pa.string()), *METRICS.types[_TEXT + 1 :]]


class _WholeWrites(FileIO):
    """A file whose `write` writes all data: pyarrow does not check how much was written."""

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest) :]
        return size


@contextmanager
def open_part(path: Path, *, run_id: str, first: int, last: int, text_bytes: int) -> Iterator[pq.ParquetWriter]:
    """Write a part under a temporary name, so that it appears whole and durable, or not at all; see `open_writer`."""
    with replacing(path) as fd, open_writer(fd, text_bytes) as writer:
        yield writer
        about = {"shmlog.schema": str(VERSION), "shmlog.experiment": _experiment_of(path)}
        writer.add_key_value_metadata({**about, **footer.identity(run_id, first, last)})


def _experiment_of(path: Path) -> str:
    """Return the name of the experiment's folder, for people who find a part by itself."""
    above = list(path.absolute().parents)  # node=N, metrics, the run, the experiment
    return above[3].name.encode(errors="replace").decode() if len(above) > 3 else ""


@contextmanager
def open_writer(fd: int, text_bytes: int) -> Iterator[pq.ParquetWriter]:
    """Write metrics, with ``text_bytes`` bytes of text, into an empty file that is open for reading, too."""
    with _WholeWrites(fd, "wb", closefd=False) as file, _buffered(file) as sink:
        with pq.ParquetWriter(sink, METRICS, **write_options(text_bytes)) as writer:
            yield writer
            writer.add_key_value_metadata({footer.KEY: footer.UNSEALED})
        sink.flush()
        footer.seal(fd)


@contextmanager
def _buffered(file: FileIO) -> Iterator[pa.NativeFile]:
    """Buffer the writes of pyarrow, one for each page: each write of a Python file waits for the GIL."""
    sink = pa.BufferedOutputStream(pa.PythonFile(file, mode="w"), _BUFFER_BYTES)
    try:
        yield sink
    except BaseException:
        with suppress(OSError):
            sink.close()  # else it would try to write its buffer when it is collected
        raise
    sink.close()


def write_part(
    path: Path, table: pa.Table, *, run_id: str, first: int, last: int, progress: Callable[[], None],
    read_large: Callable[[str], bytes] = refuse_unread,
) -> None:  # fmt: skip
    """Write ``table`` (schema `METRICS`) as the part of logs ``first`` … ``last``.

    ``read_large`` reads large texts from their files, those of one row group at a time.

    Raises
    ------
    OSError
        If the part can't be written; then it does not exist.
    """
    table = sort_by_name(table)
    text_bytes = int(text_lengths(table).sum())
    with open_part(path, run_id=run_id, first=first, last=last, text_bytes=text_bytes) as writer:
        for group in row_groups(table):
            write_group(writer, read_texts(group, read_large))
            progress()


def row_groups(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the row groups of a table that is sorted by name: about sixteen, if it has as many names."""
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
    """Yield a row group in pieces whose texts are not too large for one."""
    for start, end in cut(text_lengths(table), GROUP_TEXT_BYTES):
        yield table.slice(start, end - start)


def write_group(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Write a row group with a dictionary of just the names that it uses."""
    names: Any = table["name"].combine_chunks()
    codes = names.indices.to_numpy()
    used = np.flatnonzero(np.bincount(codes, minlength=len(names.dictionary)))
    position = np.zeros(len(names.dictionary), np.int32)
    position[used] = np.arange(len(used))
    table = with_names(table, position[codes], names.dictionary.take(pa.array(used)).to_pylist())
    writer.write_table(table, row_group_size=max(1, table.num_rows))


class PartFile:
    """A part that is open for reading; all code that reads rows of parts uses it.

    Texts are first read as dictionaries, in which a text that occurs a million times takes its room once. So their
    expanded size is known before they are expanded.
    """

    def __init__(self, path: Path, file: pq.ParquetFile, size: int) -> None:
        self._path = path
        self._file = file
        self._text_bytes_max = max(TEXT_BYTES, int(size / TEXT_SHARE))
        self.metadata = file.metadata
        self._check_texts_of_footer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)

    @property
    def groups(self) -> range:
        """The numbers of the row groups."""
        return range(self.metadata.num_row_groups)

    def text_bytes(self, group: int) -> int:
        """Return how many bytes of text a row group has according to the footer, or a little more."""
        metadata = self.metadata.row_group(group)
        if metadata.total_byte_size <= metadata.num_rows:
            return 0
        return int(metadata.column(_TEXT).total_uncompressed_size)

    def read(self, groups: Iterable[int]) -> pa.Table:
        """Return the rows of some row groups, schema `METRICS` except for nullability.

        Raises
        ------
        CorruptDataError
            If a page is damaged.
        RefusedError
            If the texts could fill the memory.
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
        """Yield the rows of a row group, at most ``rows`` at a time; raises as `read`."""
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
        """Return the groups that can be read together: the size of an array of texts is limited."""
        if sum(self.metadata.row_group(group).total_byte_size for group in groups) <= TEXT_BYTES:
            return [groups]
        return [[group] for group in groups]

    def _check_texts_of_footer(self) -> None:
        """Refuse a file by its footer alone, whose sizes include four bytes for each text, and page headers."""
        if sum(self.metadata.row_group(group).total_byte_size for group in self.groups) > self._text_bytes_max:
            self._check_texts((sum(map(self.text_bytes, self.groups)) - 4 * self.metadata.num_rows) // 2)

    def _check_texts(self, count: int) -> None:
        if count > self._text_bytes_max:
            raise RefusedError(
                f"{self._path}: {count:,} bytes of text, packed more tightly than shmlog packs them: refused, since "
                "they may fill the memory"
            )


def _expanded_bytes(column: pa.ChunkedArray[Any]) -> int:
    """Return the expanded size of a dictionary-encoded column of texts, in bytes."""
    total = 0
    chunk: Any
    for chunk in column.chunks:
        if chunk.null_count < len(chunk):
            lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False).astype(np.int64)
            counts = np.bincount(chunk.indices.drop_null().to_numpy(), minlength=len(lengths))
            total += int(counts @ lengths)
    return total


def _with_plain_texts(table: pa.Table) -> pa.Table:
    """Return a table with its dictionary-encoded texts as plain texts."""
    chunks: list[Any] = []
    chunk: Any
    for chunk in table[_TEXT].chunks:
        if chunk.null_count == len(chunk):
            chunks.append(pa.nulls(len(chunk), pa.string()))
        else:
            chunks.append(chunk.dictionary_decode())
    return table.set_column(_TEXT, METRICS.field(_TEXT), pa.chunked_array(chunks, pa.string()))


def open_file(path: Path, files: RunFiles = LOCAL) -> PartFile:
    """Open a part for reading; its footer and pages are compared with their checksums.

    Raises
    ------
    FileNotFoundError
        If the part is gone, perhaps merged into another.
    CorruptDataError
        If it is damaged, or not a part of shmlog.
    """
    footer.checked(path, files)
    try:
        source = files.open_for_arrow(path)
        file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=[_TEXT])
    except (OSError, pa.ArrowException) as error:
        raise_for(path, error)
    schema = file.schema_arrow
    if (schema.names, schema.types) != (METRICS.names, _TYPES_AS_READ):
        raise CorruptDataError(f"{path}: not a part of shmlog, or its schema is damaged ({schema.names})")
    check_cells(path, file.metadata.num_rows * file.metadata.num_columns, source.size())
    return PartFile(path, file, source.size())


def check_cells(path: Path, cells: int, size: int) -> None:
    """Raise RefusedError if a file would take much more memory than its size suggests."""
    if cells > max(_CELLS, _CELLS_PER_BYTE * size):
        raise RefusedError(f"{path}: {cells} cells in {size} bytes: refused, since it may fill the memory")


def raise_for(path: Path, error: Exception) -> NoReturn:
    """Raise ``error`` of reading ``path`` if it is the system's, else CorruptDataError."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    raise CorruptDataError(f"{path}: damaged ({error})") from error


def read_part(path: Path, names: list[str] | None = None, files: RunFiles = LOCAL) -> pa.Table:
    """Return the rows of a part, or those of some names.

    Parameters
    ----------
    names : list of str, optional
        Names to return. Row groups without any of them are not read.

    Raises
    ------
    FileNotFoundError, CorruptDataError
        As in `open_file` and `PartFile.read`.
    """
    with open_file(path, files) as file:
        table = file.read(_groups_with(file, names))
    return table if names is None else only_names(table, names)


def _groups_with(file: PartFile, names: list[str] | None) -> Iterable[int]:
    if names is None:
        return file.groups
    column = METRICS.get_field_index("name")
    groups = []
    for group in file.groups:
        statistics: Any = file.metadata.row_group(group).column(column).statistics
        unknown = statistics is None or not statistics.has_min_max
        if unknown or any(statistics.min <= name <= statistics.max for name in names):
            groups.append(group)
    return groups


def only_names(table: pa.Table, names: list[str]) -> pa.Table:
    """Return the rows of some names."""
    column: Any = table["name"]
    chosen = set(names)
    if all(chosen.issuperset(chunk.dictionary.to_pylist()) for chunk in column.chunks):
        return table  # most row groups end with a name, so that their rows need no check
    table = table.unify_dictionaries()
    if table.num_rows == 0:
        return table
    chunk: Any = table["name"].combine_chunks()
    codes = [code for code, name in enumerate(chunk.dictionary.to_pylist()) if name in chosen]
    rows = np.flatnonzero(np.isin(chunk.indices.to_numpy(), codes))
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(int(rows[0]), len(rows))
    return take_rows(table, rows)
