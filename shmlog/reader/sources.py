"""Locate the metrics of a snapshot: parts that a query engine scans itself, and a table of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from shmlog.errors import UnreadableError
from shmlog.folder.layout import Part, RunLayout
from shmlog.reader import read
from shmlog.reader.belonging import own_parts
from shmlog.reader.snapshot import Snapshot
from shmlog.records.lanes import NODE
from shmlog.records.pages import check_whole
from shmlog.records.schema import OF_NODES, with_node

NO_ROWS: pa.Table = OF_NODES.empty_table()


@dataclass(frozen=True)
class Sources:
    """The metrics of a run, each once.

    Attributes
    ----------
    parts : list of Part
        Parquet files; each of their rows counts.
    rows : pyarrow.Table
        Schema `OF_NODES`; the metrics outside the parts, in no order.
    """

    parts: list[Part]
    rows: pa.Table


def find_sources(layout: RunLayout, snapshot: Snapshot, *, in_memory: bool = False) -> tuple[Sources, list[str]]:
    """Return where the metrics of a run are, and what is damaged.

    All metrics are ``rows`` if parts are not enough: if the sealed metrics are lines of events.jsonl, if books or
    parts are damaged, if parts are missing and events.jsonl has their metrics, and if ``in_memory`` is true.

    Raises
    ------
    FileNotFoundError
        If a part has disappeared.
    """
    own, problems = own_parts(layout, snapshot)
    faults: list[str] = []
    is_read = in_memory or snapshot.overlaps or snapshot.metrics_are_lines
    is_read = is_read or bool(problems and snapshot.has_sink("jsonl"))
    if not is_read:
        faults = [fault for fault in (_fault_of(layout.files.local(part.path)) for part in own) if fault]
    if is_read or faults:
        table, problems = read.read_metrics(layout, snapshot, None)
        if faults and not problems:  # the metrics are complete, but take memory: say why
            problems = [f"{faults[0]}; its rows are sound, but the whole run is read into memory"]
        return Sources([], table), problems
    tables = []
    for batch, damage in snapshot.batches(layout):
        tables.append(with_node(batch.metrics, NODE))
        problems += read.texts_of(damage)
    rows = pa.concat_tables(tables).unify_dictionaries() if tables else NO_ROWS
    return Sources(own, rows), problems


def _fault_of(path: Path) -> str | None:
    """Return the damage of a part, all pages included; None if it is as it was written."""
    try:
        read.guarded(path, lambda: check_whole(path))
    except UnreadableError as error:
        return str(error)
    return None
