"""Parquet and Arrow files from outside, batch by batch, so that what they hold is checked before all of it is there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError

_ROWS_AT_ONCE = 1 << 14


def read_batches(path: Path, data: bytes) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, texts by codes: one that stands there a million times is there once.

    Raises
    ------
    CorruptDataError
        If it holds what no metric is.
    OSError, ArrowException
        If it is damaged.
    """
    with pq.ParquetFile(io.BytesIO(data)) as file:
        _check_types(path, file.schema_arrow)
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    with pq.ParquetFile(io.BytesIO(data), read_dictionary=texts, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False):
            batch.validate(full=True)
            yield batch


def read_arrow(path: Path, data: bytes) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an Arrow stream; raises as `read_batches` does."""
    with pa.ipc.open_stream(data) as stream:
        _check_types(path, stream.schema)
        for batch in stream:
            batch.validate(full=True)
            yield batch


def _check_types(path: Path, schema: pa.Schema) -> None:
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_plain = pa.types.is_primitive(kind) or pa.types.is_null(kind)
        if not (_is_text(kind) or (is_plain and kind == field.type)):
            raise CorruptDataError(f"{path}: column {field.name!r} is of {field.type}, which no metric can be")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
