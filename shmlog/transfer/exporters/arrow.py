"""A run's metrics as one Parquet or Arrow file that also holds the description of the run."""

from __future__ import annotations

import json
from typing import IO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from shmlog.reader.stored import StoredRun
from shmlog.records.schema import ROW_GROUP_ROWS, write_options
from shmlog.transfer import sealed
from shmlog.transfer.exporters.describe import describe
from shmlog.transfer.exporters.output import Progress, slices
from shmlog.transfer.sealed import SealedStream

KEY = b"shmlog.run"


def _with_description(run: StoredRun, table: pa.Table) -> pa.Table:
    """Return the metrics with the description of the run in the schema's metadata."""
    return table.unify_dictionaries().replace_schema_metadata({KEY: json.dumps(describe(run), allow_nan=False)})


def write_parquet(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write a Parquet file; return how many records it has."""
    table = _with_description(run, table)
    stream = SealedStream(file)
    with pq.ParquetWriter(stream, table.schema, **write_options()) as writer:
        for start in range(0, table.num_rows, ROW_GROUP_ROWS):
            writer.write_table(table.slice(start, ROW_GROUP_ROWS))
            progress(min(start + ROW_GROUP_ROWS, table.num_rows), table.num_rows)
        writer.add_key_value_metadata({sealed.KEY: sealed.UNSEALED})
        stream.begin_end()
    stream.seal()
    return int(table.num_rows)


def write_arrow(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write an Arrow file (IPC, random access); return how many records it has."""
    table = _with_description(run, table).combine_chunks()
    with pa.ipc.new_file(file, table.schema) as writer:
        for portion in slices(table, progress):
            writer.write_table(portion)
    return int(table.num_rows)
