"""What a Parquet file says that its pages hold: the pages themselves, for the footer may say less.

The footer is read here, too: pyarrow ends the process when it is asked of a column whose description is damaged.
Both are structs of Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from shmlog.errors import CorruptDataError

_TAIL = struct.Struct("<I4s")

# Fields of the footer, of a row group and of a column: https://github.com/apache/parquet-format
_ROW_GROUPS, _COLUMNS, _DESCRIPTION = 4, 1, 3
_VALUES, _PACKED_IN_ALL, _DATA_PAGE, _DICTIONARY_PAGE = 5, 7, 9, 11
# Of a page's header: its fields, and where a data page of version 1 and 2 says how its values are written.
_UNPACKED, _PACKED = 2, 3
_ENCODINGS = ((5, 2), (8, 4))
_DELTA_BYTE_ARRAY = 7

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 7, 8, 9, 12
_NUMBERS = (4, 5, 6)
_DEPTH_MAX = 16


def bytes_told(path: Path, data: bytes, value_bytes: int) -> int:
    """Return how many bytes the columns of a file take, unpacked, each value at least ``value_bytes``.

    Raises
    ------
    CorruptDataError
        If they are damaged, or their texts are written as what differs from the one before: few bytes
        are any number of them then.
    """
    try:
        size, _ = _TAIL.unpack(data[-_TAIL.size :])
        footer, _ = _read_struct(data, len(data) - _TAIL.size - size, 0)
        columns = [column[_DESCRIPTION] for group in footer[_ROW_GROUPS] for column in group[_COLUMNS]]
        return sum(max(_bytes_in_pages(path, data, one), one[_VALUES] * value_bytes) for one in columns)
    except (LookupError, AttributeError, TypeError, struct.error) as error:
        raise CorruptDataError(f"{path}: what it says of its columns and pages is damaged") from error


def _bytes_in_pages(path: Path, data: bytes, column: dict[int, Any]) -> int:
    begin = column[_DATA_PAGE]
    if 0 < column.get(_DICTIONARY_PAGE, 0) < begin:
        begin = column[_DICTIONARY_PAGE]
    at, end, total = begin, begin + column[_PACKED_IN_ALL], 0
    while at < end:
        header, at = _read_struct(data, at, 0)
        packed, unpacked = header[_PACKED], header[_UNPACKED]
        if packed < 0 or unpacked < 0:
            raise CorruptDataError(f"{path}: a page has no size")
        if _DELTA_BYTE_ARRAY in [header[kind].get(field) for kind, field in _ENCODINGS if kind in header]:
            raise CorruptDataError(f"{path}: a column is written as DELTA_BYTE_ARRAY, which any size can come out of")
        at, total = at + packed, total + unpacked
    return total


def _read_struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields by their numbers, and where the struct ends."""
    _check_depth(depth)
    if at < 0:
        raise LookupError("no struct of a Parquet file")
    found: dict[int, Any] = {}
    field = 0
    while data[at]:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step:
            field += step
        else:
            field, at = _read_number(data, at)
        found[field], at = _read(data, at, kind, depth)
    return found, at + 1


def _read(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _NUMBERS:
        return _read_number(data, at)
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    if kind == _BINARY:
        size, at = _read_varint(data, at)
        return None, at + size
    if kind == _STRUCT:
        return _read_struct(data, at, depth + 1)
    if kind == _LIST:
        return _read_list(data, at, depth + 1)
    raise LookupError(f"a Parquet file has no field of kind {kind}")


def _read_list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    _check_depth(depth)
    count, kind = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _read_varint(data, at)
    found = []
    for _ in range(count):
        item, at = _read(data, at, _BYTE if kind in (_TRUE, _FALSE) else kind, depth)
        if at > len(data):
            raise LookupError("a list without an end")
        found.append(item)
    return found, at


def _check_depth(depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise LookupError("structs and lists in one another without an end")


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    number, at = _read_varint(data, at)
    return (number >> 1) ^ -(number & 1), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise LookupError("a number of too many bytes")
