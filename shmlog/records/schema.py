"""The Arrow schema of metrics, and the options with which it is written to Parquet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

VERSION = 1
"""Increases when readers must treat older parts differently."""

ROW_GROUP_ROWS = 1 << 18
"""Maximum rows of a row group."""

NAME_GROUP_ROWS = 1 << 12
"""A row group with at least so many rows may end with a name, so that a reader of one name skips most others."""

TEXT_BYTES = 1 << 30
"""A part with more bytes of text is packed less tightly; see `TEXT_SHARE`."""

TEXT_SHARE = 1 / 32
"""Readers refuse a file with more than `TEXT_BYTES` of text if the file is a smaller share of its text: shmlog writes
none such. Snappy packs nothing more tightly than 1 to 22."""

GROUP_TEXT_BYTES = 64 << 20
"""Maximum bytes of text in a row group of several rows: so much is in memory at a time."""

METRICS: pa.Schema = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("name", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("int_value", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("ts", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("local_rank", pa.int32()),
        pa.field("worker", pa.int32()),
        pa.field("pid", pa.int32(), nullable=False),
        pa.field("lane", pa.int32(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
    ]
)
"""Columns of a metrics table, in this order.

``value`` holds floats exactly, ints and bools for convenience, and is null for text;
``int_value`` holds ints and bools exactly; ``text`` holds texts alone.
"""

RECORDS: pa.Schema = pa.schema(
    [*METRICS, pa.field("attempt", pa.int32(), nullable=False), pa.field("superseded", pa.bool_(), nullable=False)]
)
"""Columns of metrics as readers return them. No file has the last two: they follow from run.yaml and the lane."""

OF_NODES: pa.Schema = METRICS.append(pa.field("node", pa.int32(), nullable=False))
"""Columns of metrics while they are read: the folder of a part says its node, and lanes are numbered on each."""

RECORDS_OF_NODES: pa.Schema = RECORDS.append(OF_NODES.field("node"))

_FEW_VALUES = ["name", "kind", "rank", "local_rank", "worker", "pid", "lane"]


def with_node(table: pa.Table, node: int) -> pa.Table:
    """Return metrics that are all of one node, which is said in one more column."""
    nodes = np.zeros(table.num_rows, np.int32)  # takes neither time nor memory until somebody reads it
    if node:
        nodes.fill(node)
    return table.append_column(OF_NODES.field("node"), pa.chunked_array([pa.array(nodes)]))


def write_options(text_bytes: int = 0) -> dict[str, Any]:
    """Return the keyword arguments with which ``pyarrow.parquet.ParquetWriter`` writes metrics.

    Parameters
    ----------
    text_bytes : int
        Bytes of text in the file.
    """
    # A page of few values has a few bytes, for which the setup of zstd costs more than it saves.
    lightly_packed = [*_FEW_VALUES, "text"] if text_bytes > TEXT_BYTES else _FEW_VALUES
    return {
        "compression": {name: "snappy" if name in lightly_packed else "zstd" for name in METRICS.names},
        "compression_level": {name: 1 for name in METRICS.names if name not in lightly_packed},
        "use_dictionary": _FEW_VALUES,
        "column_encoding": {
            "step": "DELTA_BINARY_PACKED",
            "value": "BYTE_STREAM_SPLIT",
            "int_value": "DELTA_BINARY_PACKED",
            "text": "PLAIN",
            "ts": "DELTA_BINARY_PACKED",
            "seq": "DELTA_BINARY_PACKED",
        },
        "write_statistics": True,
        "write_page_index": True,
        "write_page_checksum": True,
        "version": "2.6",
    }
