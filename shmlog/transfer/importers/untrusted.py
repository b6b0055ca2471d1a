"""Parquet and Arrow files of strangers, batch by batch: each is checked before the next one takes memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from shmlog.errors import RefusedError

_ROWS_AT_ONCE = 1 << 14


def read_batches(path: Path, data: bytes) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file, texts dictionary-encoded: one that is repeated a million times is held once.

    Raises
    ------
    CorruptDataError
        If a column has a type that no column of metrics has.
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
            raise RefusedError(
                f"{path}: column {field.name!r} has the type {field.type}, which no value of a metric has"
            )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
