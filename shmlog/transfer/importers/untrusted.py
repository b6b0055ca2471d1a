"""Parquet and Arrow files from outside, whose few bytes must not become gigabytes of memory.

What they hold is summed up from what they say of themselves before any of it is unpacked, and
again batch by batch. Arrow allocates no more than a packed buffer or page says that it holds, so
that one which says too little is damaged, and one which says too much is refused.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError
from shmlog.transfer.found import Budget
from shmlog.transfer.importers.parquet_pages import bytes_told

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

_ROWS_AT_ONCE = 1 << 14
_CELL_BYTES = 8  # also of a null, or of a column that takes no bytes in the file

# Of the flatbuffers in an Arrow message: the tables' fields, and the kinds of headers.
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DATA = 1
_LENGTH, _NODES, _BUFFERS, _COMPRESSION = range(4)


def read_batches(path: Path, data: bytes, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, texts by codes: one that stands there a million times is there once.

    Raises
    ------
    CorruptDataError
        If it holds what no metric is, or more than the budget allows.
    OSError, ArrowException
        If it is damaged.
    """
    with pq.ParquetFile(io.BytesIO(data)) as file:
        _check_types(path, file.schema_arrow)
        budget.foresee(bytes_told(path, data, _CELL_BYTES))
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    with pq.ParquetFile(io.BytesIO(data), read_dictionary=texts, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False):
            yield _checked(batch, budget)


def read_arrow(path: Path, data: bytes, budget: Budget) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an Arrow stream; raises as `read_batches` does."""
    _check_messages(path, data, budget)
    with pa.ipc.open_stream(data) as stream:
        _check_types(path, stream.schema)
        while True:
            try:
                batch = stream.read_next_batch()
            except StopIteration:
                return
            yield _checked(batch, budget)


def _checked(batch: pa.RecordBatch, budget: Budget) -> pa.RecordBatch:
    batch.validate(full=True)
    budget.spend(sum(map(_bytes_of, batch.columns)))
    return batch


def _bytes_of(column: Any) -> int:
    """Return what a column takes when each text in it stands for itself."""
    if not pa.types.is_dictionary(column.type):
        return max(int(column.nbytes), len(column) * _CELL_BYTES)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return len(column) * _CELL_BYTES + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _check_types(path: Path, schema: pa.Schema) -> None:
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_plain = pa.types.is_primitive(kind) or pa.types.is_null(kind)
        if not (_is_text(kind) or (is_plain and kind == field.type)):
            raise CorruptDataError(f"{path}: column {field.name!r} is of {field.type}, which no metric can be")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


# ---- Arrow's messages ----


def _check_messages(path: Path, data: bytes, budget: Budget) -> None:
    """Raise CorruptDataError if the messages say that they hold more than the budget allows."""
    told = 0
    reader = pa.ipc.MessageReader.open_stream(data)
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, OSError, pa.ArrowException):
            return  # what is behind a torn end is not read either
        try:
            told += _bytes_in(message.metadata.to_pybytes(), memoryview(message.body or b""))
        except (struct.error, IndexError) as error:
            raise CorruptDataError(f"{path}: a message of Arrow that makes no sense") from error
        budget.foresee(told)


def _bytes_in(header: bytes, body: memoryview) -> int:
    """Return what the columns of a message take, unpacked."""
    message = _Table(header, _at("<I", header, 0))
    kind = message.number("<B", _HEADER_TYPE)
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = message.table(_HEADER)
    batch = batch.table(_DATA) if kind == _DICTIONARY_BATCH else batch
    cells = batch.number("<q", _LENGTH) * len(list(batch.pairs(_NODES)))
    is_packed = bool(batch.place(_COMPRESSION))
    buffers = [(begin, size) for begin, size in batch.pairs(_BUFFERS) if size > 0]
    held = sum(max(_at("<q", body, begin), size) if is_packed else size for begin, size in buffers)
    return max(cells * _CELL_BYTES, held)


class _Table:
    """A table of flatbuffers: https://flatbuffers.dev/internals/."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - _at("<i", data, at)
        self._end = self._fields + _at("<H", data, self._fields)

    def place(self, field: int) -> int:
        """Return where a field is; 0 if it is not there."""
        entry = self._fields + 4 + 2 * field
        offset = _at("<H", self._data, entry) if entry < self._end else 0
        return self._at + offset if offset else 0

    def number(self, form: str, field: int) -> int:
        place = self.place(field)
        return _at(form, self._data, place) if place else 0

    def table(self, field: int) -> _Table:
        return _Table(self._data, self._follow(self.place(field)))

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield the structs of two numbers in a vector."""
        place = self.place(field)
        if place:
            begin = self._follow(place)
            count = _at("<I", self._data, begin)
            yield from struct.iter_unpack("<qq", self._data[begin + 4 : begin + 4 + 16 * count])

    def _follow(self, place: int) -> int:
        return place + _at("<I", self._data, place)


def _at(form: str, data: bytes | memoryview, place: int) -> int:
    if place < 0:
        raise IndexError(place)
    number: int = struct.unpack_from(form, data, place)[0]
    return number
