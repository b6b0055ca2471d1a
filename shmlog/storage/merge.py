"""Merge parts into one that is sorted by name and step, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shmlog.storage.layout import Part, RunLayout
from shmlog.storage.parts import open_file, open_part, read_part, write_group
from shmlog.storage.schema import METRICS, ROW_GROUP_ROWS


def sort_rows(table: pa.Table) -> pa.Table:
    """Return the rows by step, then time, lane and seq."""
    table = table.combine_chunks()
    keys = [table[name].cast(pa.int64()).to_numpy() for name in ("seq", "lane", "ts", "step")]
    return table.take(pa.array(np.lexsort(keys))) if table.num_rows else table


def names_of(parts: list[Part]) -> list[str]:
    """Return the names of the metrics in some parts, sorted."""
    names: set[str] = set()
    for part in parts:
        with open_file(part.path) as file:
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, columns=["name"])["name"]
                for chunk in column.chunks:
                    names.update(chunk.dictionary.to_pylist())
    return sorted(names)


def merge(layout: RunLayout, *, run_id: str, parts: list[Part], progress: Callable[[], None]) -> Path:
    """Write one part that covers ``parts``, then delete these.

    Works name by name: memory holds the rows of one name at a time. Names with
    few rows share row groups.

    Raises
    ------
    OSError, CorruptDataError
        If a part can't be read or the new one not written; then nothing has changed.
    """
    first, last = parts[0].first, parts[-1].last
    path = layout.part(first, last)
    with open_part(path, run_id=run_id, first=first, last=last) as writer:
        _write_names(writer, parts, progress)
    for part in parts:
        part.path.unlink(missing_ok=True)
    return path


def _write_names(writer: pq.ParquetWriter, parts: list[Part], progress: Callable[[], None]) -> None:
    waiting: list[pa.Table] = []
    rows = 0
    for name in names_of(parts):
        tables = [read_part(part.path, [name]) for part in parts]
        table = sort_rows(pa.concat_tables(tables).unify_dictionaries())
        waiting.append(table)
        rows += table.num_rows
        if rows >= ROW_GROUP_ROWS:
            _write_group(writer, waiting)
            waiting, rows = [], 0
        progress()
    if rows:
        _write_group(writer, waiting)


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    write_group(writer, pa.concat_tables(tables).cast(METRICS).unify_dictionaries().combine_chunks())
