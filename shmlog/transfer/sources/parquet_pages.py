"""What the pages of a Parquet file say that they hold: a file's footer, which sums it up, may say less.

The headers are structs of Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError

# Of a page's header: its fields, and where a data page of version 1 and 2 says how its values are written.
_UNPACKED, _PACKED = 2, 3
_ENCODINGS = ((5, 2), (8, 4))
_DELTA_BYTE_ARRAY = 7

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_NUMBERS = (4, 5, 6)
_DEPTH_MAX = 8


def unpacked_bytes(path: Path, data: bytes, chunk: pq.ColumnChunkMetaData) -> int:
    """Return how many bytes the pages of a column take, unpacked.

    Raises
    ------
    CorruptDataError
        If they are damaged, or their texts are written as what differs from the one before: few bytes
        are any number of them then.
    """
    begin = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < begin:
        begin = chunk.dictionary_page_offset
    at, end, total = begin, begin + chunk.total_compressed_size, 0
    while at < end:
        try:
            header, at = _read_struct(data, at, 0)
            packed, unpacked = header[_PACKED], header[_UNPACKED]
            encodings = [header[kind].get(field) for kind, field in _ENCODINGS if kind in header]
        except (LookupError, ValueError, AttributeError) as error:
            raise CorruptDataError(f"{path}: a page of column {chunk.path_in_schema!r} is damaged") from error
        if packed < 0 or unpacked < 0:
            raise CorruptDataError(f"{path}: a page of column {chunk.path_in_schema!r} has no size")
        if _DELTA_BYTE_ARRAY in encodings:
            raise CorruptDataError(f"{path}: column {chunk.path_in_schema!r} is written as DELTA_BYTE_ARRAY; refused")
        at, total = at + packed, total + unpacked
    return total


def _read_struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields by their numbers, and where the struct ends."""
    if depth > _DEPTH_MAX:
        raise ValueError("nested too deep")
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
    raise ValueError(f"a page has no field of kind {kind}")


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
    raise ValueError("a number of too many bytes")
