"""Cells of CSV files that no spreadsheet takes for a formula (OWASP ASVS 5.0, 1.2.10).

A text that begins with a character that starts a formula gets a ``'`` in front. So does one
in which only ``'`` stand before such a character, so that taking one ``'`` away is exact.
Numbers are never touched: they are not texts.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

# The last four are what some input methods make of the first four; spreadsheets take them alike.
_PATTERN = r"^'*[=+\-@\t\r\n\x00" + "\uff1d\uff0b\uff0d\uff20]"
_DANGEROUS = re.compile(_PATTERN)


def guard(text: str) -> str:
    """Return ``text`` as one that no spreadsheet evaluates."""
    return f"'{text}" if _DANGEROUS.match(text) else text


def unguard(text: str) -> str:
    """Return what `guard` was given."""
    return text[1:] if text.startswith("'") and _DANGEROUS.match(text) else text


def guard_column(column: Any) -> Any:
    """Return a column of strings, plain or by codes, with each `guard`-ed."""
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([guard_column(chunk) for chunk in column.chunks], column.type)
    if pa.types.is_dictionary(column.type):
        return pa.DictionaryArray.from_arrays(column.indices, guard_column(column.dictionary))
    if column.null_count == len(column):
        return column
    is_dangerous = pc.match_substring_regex(column, _PATTERN)
    if not pc.any(is_dangerous).as_py():
        return column
    return pc.if_else(is_dangerous, pc.binary_join_element_wise("'", column, ""), column)


def unguard_column(column: Any) -> Any:
    """Return what `guard_column` was given, of plain strings."""
    is_guarded = pc.and_(pc.starts_with(column, "'"), pc.match_substring_regex(column, _PATTERN))
    return pc.if_else(is_guarded, pc.utf8_slice_codeunits(column, 1), column)
