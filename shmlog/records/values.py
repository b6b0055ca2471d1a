"""The kinds of values of metrics, and the four columns that hold a value: kind, value, int_value and text.

Listing a store needs neither numpy nor pyarrow: functions that need them import them when called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

FLOAT, INT, BOOL, TEXT = KINDS = ("float", "int", "bool", "text")
"""In the order of csrc/core/format.h, whose numbers begin with 1."""

VALUE_COLUMNS = ("kind", "value", "int_value", "text")

COLUMN_OF = {FLOAT: "value", INT: "int_value", BOOL: "int_value", TEXT: "text"}
"""By kind, the column that holds its values exactly."""

Value = float | int | bool | str
Cells = tuple[str, float | None, int | None, str | None]

INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)

RANKS = ("rank", "local_rank", "worker")
PRODUCER = (*RANKS, "pid", "lane", "seq")
"""Columns that identify the producer of a record, and the record among its records."""


def is_text(value: object) -> bool:
    """Whether a value is a string without lone surrogates, which JSON can have but UTF-8 can't."""
    try:
        return isinstance(value, str) and value.encode("utf-8") is not None
    except UnicodeEncodeError:
        return False


def cells_of(value: object) -> Cells | None:
    """Return kind, value, int_value and text for a value; None if no metric can have it."""
    if isinstance(value, bool):
        return BOOL, float(value), int(value), None
    if isinstance(value, int):
        return (INT, float(value), value, None) if value in INT64 else None
    if isinstance(value, float):
        return FLOAT, value, None, None
    return (TEXT, None, None, value) if isinstance(value, str) and is_text(value) else None


def value_of(kind: str, value: float | None, int_value: int | None, text: str | None) -> Any:
    """Return the value in the cells of a row."""
    if kind == FLOAT:
        return value
    if kind == TEXT:
        return text
    return bool(int_value) if kind == BOOL else int_value


def value_in(row: Mapping[str, Any]) -> Any:
    """Return the value of a row of a table of schema `shmlog.records.schema.METRICS`."""
    return value_of(*(row[column] for column in VALUE_COLUMNS))


def misfits(table: pa.Table) -> NDArray[np.bool_]:
    """Return for each row of a table of schema `METRICS` whether its kind is unknown, or its values don't fit it.

    Returns
    -------
    ndarray of bool, shape (rows,)
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute

    positions = pyarrow.compute.index_in(table["kind"].cast(pa.string()), pa.array(KINDS))
    kind = positions.fill_null(-1).to_numpy()
    has_value, has_whole, has_text = (np.asarray(table[name].is_valid()) for name in VALUE_COLUMNS[1:])
    is_bool, is_text_kind = kind == KINDS.index(BOOL), kind == KINDS.index(TEXT)
    is_whole = is_bool | (kind == KINDS.index(INT))
    wrong = (kind < 0) | (has_value == is_text_kind) | (has_whole != is_whole) | (has_text != is_text_kind)
    whole, value = table["int_value"].fill_null(0).to_numpy(), table["value"].fill_null(0.0).to_numpy()
    wrong |= is_whole & (whole.astype(np.float64) != value)
    mask: NDArray[np.bool_] = wrong | (is_bool & (whole != 0) & (whole != 1))
    return mask
