"""The order of metrics: by step, time, lane and seq, in parts by name first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from shmlog import _bulk
from shmlog.records.schema import METRICS

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid

TEXT_ARRAY_BYTES = (1 << 31) - (1 << 20)
"""An array of texts holds at most 2 GiB; a column with more has several arrays."""

ROW_KEYS = ("step", "ts", "lane", "seq")
"""The columns that sort the rows of a name, the most significant first."""


def sort_rows(table: pa.Table) -> pa.Table:
    """Return the rows by step, time, lane and seq."""
    if _is_in_order(table["step"].to_numpy()):
        return table
    return _sorted(table, np.zeros(table.num_rows, np.int32), 1)


def sort_by_name(table: pa.Table) -> pa.Table:
    """Return the rows by name, step, time, lane and seq.

    Then a name's values lie together and compress better, a reader of one name skips
    the rest, and sorted files can be merged in bounded memory.
    """
    column: Any = table["name"].unify_dictionaries().combine_chunks()
    names = column.dictionary.to_pylist()
    by_name = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int32)
    rank[by_name] = np.arange(len(names))
    group = rank.take(column.indices.to_numpy(), mode="clip")  # they are in range; this mode is the fast one
    codes = np.repeat(np.arange(len(names), dtype=np.int32), np.bincount(group, minlength=len(names)))
    return with_names(_sorted(table, group, len(names), unsorted="name"), codes, [names[i] for i in by_name])


def with_names(table: pa.Table, codes: NDArray[np.int32], names: list[str]) -> pa.Table:
    """Return the table with the column of names that ``codes`` and ``names`` make."""
    column = METRICS.get_field_index("name")
    array: Any = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    return table.set_column(column, METRICS.field(column), array)


def row_order(keys: Iterable[NDArray[np.int64]], group: NDArray[np.int32], groups: int) -> NDArray[np.uint32]:
    """Return the stable order of rows by group and then by keys, the most significant first."""
    order = np.empty(len(group), np.uint32)
    _bulk.order(group, groups, tuple(np.ascontiguousarray(key) for key in keys), order)
    return order


def take_rows(table: pa.Table, rows: NDArray[Any]) -> pa.Table:
    """Return the rows of a table in the order of ``rows``, even if its texts do not fit one array."""
    text = table["text"]
    if text.nbytes <= TEXT_ARRAY_BYTES:
        return table.combine_chunks().take(pa.array(rows))
    column = table.column_names.index("text")
    others = table.remove_column(column).combine_chunks().take(pa.array(rows))
    return others.add_column(column, table.field(column), _take_texts(text, rows))


def _take_texts(column: Any, rows: NDArray[Any]) -> Any:
    """Return the texts of some rows, as arrays that are not too large."""
    large = column.cast(pa.large_string()).combine_chunks()
    lengths = pc.fill_null(pc.binary_length(large), 0).to_numpy()[rows]
    pieces = cut(lengths, TEXT_ARRAY_BYTES)
    chunks = [large.take(pa.array(rows[start:end])).cast(pa.string()) for start, end in pieces]
    return pa.chunked_array(chunks, pa.string())


def cut(sizes: NDArray[np.int64], size_max: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of pieces whose sizes sum up to at most ``size_max``; a larger element is a piece itself."""
    ends = sizes.cumsum()
    start = 0
    while start < len(ends):
        done = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, done + size_max, side="right")))
        yield start, end
        start = end


def _sorted(table: pa.Table, group: NDArray[np.int32], groups: int, unsorted: str | None = None) -> pa.Table:
    """Return the rows by group and keys; column ``unsorted`` stays as it is."""
    texts = table["text"] if table["text"].nbytes > TEXT_ARRAY_BYTES else None
    as_they_are = (unsorted, None if texts is None else "text")
    columns = {
        name: column if name in as_they_are or _is_constant(column) else column.combine_chunks()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    keys = [columns[key].cast(pa.int64()).to_numpy() for key in ROW_KEYS if not _is_chunked(columns[key])]
    if not keys or (groups == 1 and _is_in_order(keys[0])):
        return table
    rows = row_order(keys, group, groups)
    if texts is not None:
        columns["text"] = _take_texts(texts, rows)
    order: Any = pa.array(rows)
    arrays = [
        column if _is_chunked(column) else pc.take(column, order, boundscheck=False) for column in columns.values()
    ]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def _is_in_order(key: NDArray[np.int64]) -> bool:
    """Whether the first key alone sorts the rows, and they are sorted, as those of one part are."""
    return bool((key[1:] > key[:-1]).all())


def _is_chunked(column: Any) -> bool:
    return isinstance(column, pa.ChunkedArray)


def _is_constant(column: Any) -> bool:
    """Whether all values of a column are the same, so that their order does not matter."""
    if len(column) == 0:
        return True
    if column.null_count:
        return bool(column.null_count == len(column))
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([chunk.indices for chunk in column.unify_dictionaries().chunks])
    if not pa.types.is_integer(column.type):
        return False
    bounds = pc.min_max(column)
    return bool(bounds["min"] == bounds["max"])
