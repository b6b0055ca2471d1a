"""Texts of metrics. Large ones stay in their own files until they are written into a part or a line.

All texts of a log may be more than memory, or one array, can hold. Until a large text is read, its row has the kind
`UNREAD`: its text is the path of the file, and its int_value is the size of the file in bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from shmlog.records.values import KINDS, TEXT

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid

UNREAD = len(KINDS)
"""The code of the kind of unread texts; no file has it."""

_TEXT = KINDS.index(TEXT)
_KINDS = [*KINDS, "unread"]


def refuse_unread(path: str) -> bytes:
    """Raise ValueError: the table should have no unread text."""
    raise ValueError(f"{path}: its text should be in the table")


def kind_column(codes: NDArray[np.int8]) -> Any:
    """Return the column of kinds for some codes."""
    kinds = _KINDS if (codes == UNREAD).any() else KINDS
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(kinds, pa.string()))


def text_lengths(table: pa.Table) -> NDArray[np.int64]:
    """Return the bytes of each row's text."""
    column: Any = table["text"]
    if column.null_count == len(column):
        return np.zeros(len(column), np.int64)
    lengths: NDArray[np.int64] = pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
    codes = _codes_if_unread(table)
    if codes is not None:
        lengths[codes == UNREAD] = table["int_value"].filter(pa.array(codes == UNREAD)).to_numpy()
    return lengths


def read_texts(table: pa.Table, read: Callable[[str], bytes], rows: NDArray[np.bool_] | None = None) -> pa.Table:
    """Return a table in which the large texts of all rows, or of ``rows``, are read from their files."""
    codes = _codes_if_unread(table)
    if codes is None:
        return table
    is_read = codes == UNREAD if rows is None else (codes == UNREAD) & rows
    mask: Any = pa.array(is_read)
    texts = pa.array([read(path) for path in table["text"].filter(mask).to_pylist()], pa.string())
    columns = {
        "text": pc.replace_with_mask(table["text"].combine_chunks(), mask, texts),
        "int_value": pc.if_else(mask, None, table["int_value"].combine_chunks()),
        "kind": kind_column(np.where(is_read, np.int8(_TEXT), codes)),
    }
    for name, column in columns.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.field(position), column)
    return table


def _codes_if_unread(table: pa.Table) -> NDArray[np.int8] | None:
    """Return the codes of the kinds if any text of the log is unread, in these rows or others, else None."""
    kinds: Any = table["kind"].combine_chunks()
    return kinds.indices.to_numpy() if kinds.dictionary.to_pylist() == _KINDS else None
