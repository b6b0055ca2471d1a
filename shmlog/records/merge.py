"""Merge parts into one, in bounded memory: each part is sorted, so that only their heads are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shmlog.base.durable import TEMPORARY_SUFFIX, fsync_dir, replacing
from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.folder.files import LOCAL, RunFiles
from shmlog.folder.layout import Part, RunLayout
from shmlog.records import footer
from shmlog.records.order import ROW_KEYS, row_order, take_rows
from shmlog.records.parts import (
    PartFile,
    open_file,
    open_part,
    open_writer,
    row_groups,
    write_group,
)
from shmlog.records.schema import GROUP_TEXT_BYTES, METRICS, ROW_GROUP_ROWS
from shmlog.records.texts import text_lengths

# The limits of rows, text and files in memory at a time. More files are merged in rounds.
_CHUNK_ROWS = 1 << 16
_CHUNK_TEXT_BYTES = 8 << 20
_FAN_IN = 16

_Key = tuple[int, ...]


def names_of(parts: list[Part], files: RunFiles = LOCAL) -> list[str]:
    """Return the names of the metrics in some parts, sorted.

    Raises
    ------
    FileNotFoundError, CorruptDataError
        If a part is gone, or can't be read.
    """
    return _names_in([part.path for part in parts], files=files)


def merge(layout: RunLayout, *, run_id: str, parts: list[Part], progress: Callable[[], None]) -> Path:
    """Write one part, sorted by name and step, that covers ``parts``; then delete these.

    Parameters
    ----------
    progress : callable
        Called after each chunk of rows; an exception of it ends the merge.

    Raises
    ------
    OSError, CorruptDataError
        If a part can't be read or is another run's, or the new one can't be written; then nothing has changed.
    """
    if len(parts) == 1:
        return parts[0].path
    rows = sum(_rows_of(part, run_id) for part in parts)
    path = layout.part(parts[0].first, parts[-1].last)
    temporaries: list[Path] = []
    try:
        sources = [part.path for part in parts]
        while len(sources) > _FAN_IN:
            sources = _merge_round(path, sources, temporaries, progress)
        with open_part(
            path, run_id=run_id, first=parts[0].first, last=parts[-1].last, text_bytes=_text_bytes(sources)
        ) as writer:
            merged = _merge_files(writer, sources, progress)
            if merged != rows:
                raise CorruptDataError(f"{path}: {merged} rows were merged, of {rows}")
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    remove_covered(layout, run_id)
    return path


def remove_covered(layout: RunLayout, run_id: str) -> None:
    """Delete the parts that another part covers, after a merge or after one that was interrupted.

    A part that is damaged, or another run's, as when a run folder was copied over this one, covers nothing.
    """
    covered = layout.covered_parts()
    if covered:
        covers = [part for part in layout.parts() if _is_sound(part, run_id)]
        fsync_dir(layout.metrics)  # the covering part must survive a power failure
        for part in covered:
            if any(cover.first <= part.first and part.last <= cover.last for cover in covers):
                part.path.unlink(missing_ok=True)
        fsync_dir(layout.metrics)


def _is_sound(part: Part, run_id: str) -> bool:
    try:
        _rows_of(part, run_id)
    except UnreadableError:
        return False
    return True


def _rows_of(part: Part, run_id: str) -> int:
    """Return how many rows a part has; raises CorruptDataError if its name does not match its footer."""
    facts = footer.read_facts(part.path)
    if facts.metadata != footer.identity(run_id, part.first, part.last):
        raise CorruptDataError(f"{part.path}: not of this run, or not of the logs that its name says; not merged")
    return facts.rows


def _merge_round(path: Path, sources: list[Path], temporaries: list[Path], progress: Callable[[], None]) -> list[Path]:
    """Merge groups of files, each into a temporary file; return the temporary files."""
    merged: list[Path] = []
    for start in range(0, len(sources), _FAN_IN):
        temporary = path.with_name(f"{path.name}.{len(temporaries)}{TEMPORARY_SUFFIX}")
        temporaries.append(temporary)
        merged.append(temporary)
        group = sources[start : start + _FAN_IN]
        with replacing(temporary, durable=False) as fd, open_writer(fd, _text_bytes(group)) as writer:
            _merge_files(writer, group, progress)
    return merged


def _text_bytes(paths: list[Path]) -> int:
    """Return how many bytes of text some files hold, or a little more."""
    total = 0
    for path in paths:
        with open_file(path) as file:
            total += sum(map(file.text_bytes, file.groups))
    return total


def _names_in(paths: list[Path], progress: Callable[[], None] = lambda: None, files: RunFiles = LOCAL) -> list[str]:
    names: set[str] = set()
    for path in paths:
        with open_file(path, files) as file:
            for group in file.groups:
                names.update(file.read_names(group))
                progress()
    return sorted(names)


# ---- sorted files as streams ----


class _Stream:
    """The rows of a sorted file, a chunk at a time; the codes of names are common to all files."""

    def __init__(self, file: PartFile, names: pa.Array[Any], code_of: dict[str, int]) -> None:
        self._file = file
        self._names = names
        self._code_of = code_of
        self._batches = self._read()
        self.table = METRICS.empty_table()
        self._keys: list[NDArray[np.int64]] = []

    def _read(self) -> Iterator[pa.Table]:
        for group in self._file.groups:
            rows = self._file.metadata.row_group(group).num_rows
            fitting = rows * _CHUNK_TEXT_BYTES // max(1, self._file.text_bytes(group))
            yield from self._file.batches(group, max(1, min(_CHUNK_ROWS, fitting)))

    def fill(self) -> bool:
        """Load the next chunk if the last one is used up; return False at the end."""
        while self.table.num_rows == 0:
            table = next(self._batches, None)
            if table is None:
                return False
            self._load(table)
        return True

    def _load(self, table: pa.Table) -> None:
        name: Any = table["name"].combine_chunks()
        code_of = np.array([self._code_of[text] for text in name.dictionary.to_pylist()], np.int32)
        codes = code_of[name.indices.to_numpy()]
        column = METRICS.get_field_index("name")
        common: Any = pa.DictionaryArray.from_arrays(codes, self._names)
        self.table = table.set_column(column, METRICS.field(column), common)
        keys = [table[key].cast(pa.int64()).to_numpy() for key in ROW_KEYS]
        self._keys = [codes.astype(np.int64), *keys]

    def last_key(self) -> _Key:
        """Return the key of the last row of the chunk."""
        return tuple(int(key[-1]) for key in self._keys)

    def take(self, bound: _Key) -> tuple[pa.Table, list[NDArray[np.int64]]]:
        """Remove the rows up to ``bound`` and return them, with their keys."""
        count = self._count(bound)
        rows, keys = self.table.slice(0, count), [key[:count] for key in self._keys]
        self.table = self.table.slice(count)
        self._keys = [key[count:] for key in self._keys]
        return rows, keys

    def _count(self, bound: _Key) -> int:
        low, high = 0, self.table.num_rows
        for key, limit in zip(self._keys, bound, strict=True):
            candidates = key[low:high]
            begin = low
            low = begin + int(np.searchsorted(candidates, limit, side="left"))
            high = begin + int(np.searchsorted(candidates, limit, side="right"))
        count: int = high
        return count


def _merge_files(writer: pq.ParquetWriter, paths: list[Path], progress: Callable[[], None]) -> int:
    """Write the rows of sorted files, merged; return their number."""
    names = _names_in(paths, progress)
    rows = 0
    code_of = {name: code for code, name in enumerate(names)}
    dictionary = pa.array(names, pa.string())
    waiting: list[pa.Table] = []
    with ExitStack() as stack:
        files = [stack.enter_context(open_file(path)) for path in paths]
        streams = [_Stream(file, dictionary, code_of) for file in files]
        for table in _merged(streams):
            rows += table.num_rows
            waiting.append(table)
            if _is_enough(waiting):
                *whole, last = row_groups(pa.concat_tables(waiting).combine_chunks())
                for group in whole:
                    write_group(writer, group)
                waiting = [last]  # the following rows may belong to it
            progress()
    if waiting:
        for group in row_groups(pa.concat_tables(waiting).combine_chunks()):
            write_group(writer, group)
    return rows


def _is_enough(tables: list[pa.Table]) -> bool:
    """Whether some tables together exceed a row group."""
    rows = sum(table.num_rows for table in tables)
    return rows > ROW_GROUP_ROWS or sum(int(text_lengths(table).sum()) for table in tables) > GROUP_TEXT_BYTES


def _merged(streams: list[_Stream]) -> Iterator[pa.Table]:
    """Yield all rows, sorted.

    Rows up to the end of the chunk that ends first can't be followed by a smaller
    row, so that they come next.
    """
    while streams := [stream for stream in streams if stream.fill()]:
        bound = min(stream.last_key() for stream in streams)
        heads = [stream.take(bound) for stream in streams]
        heads = [(table, keys) for table, keys in heads if table.num_rows]
        table = pa.concat_tables([table for table, _ in heads])
        if len(heads) > 1:
            codes, *keys = (np.concatenate(parts) for parts in zip(*(keys for _, keys in heads), strict=True))
            table = take_rows(table, row_order(keys, codes.astype(np.int32), int(codes.max()) + 1))
        yield table
