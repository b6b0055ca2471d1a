"""Parquet files from outside, whose few bytes must not become gigabytes of memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError
from shmlog.storage.parts import check_cells
from shmlog.transfer.found import BYTES_MAX

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

_ROWS_AT_ONCE = 1 << 14


def read_batches(path: Path, data: bytes) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, texts by codes: one that stands there a million times is there once.

    Raises
    ------
    CorruptDataError
        If it would take much more memory than its size lets expect.
    OSError, ArrowException
        If it is damaged.
    """
    with pq.ParquetFile(io.BytesIO(data)) as file:
        check_cells(path, file.metadata, len(data))
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    with pq.ParquetFile(io.BytesIO(data), read_dictionary=texts, page_checksum_verification=True) as file:
        expanded = 0
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            batch.validate(full=True)
            expanded += sum(map(_text_bytes, batch.columns))
            if expanded > BYTES_MAX:
                raise CorruptDataError(f"{path}: its texts are more than the {BYTES_MAX} bytes that are read")
            yield batch


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text_bytes(column: Any) -> int:
    """Return how long the texts of a column are in all."""
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return 0
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(column.indices)).as_py() or 0
