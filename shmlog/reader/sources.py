"""Where the metrics of a snapshot lie: in parts that a query engine scans itself, the rest as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from shmlog.errors import UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.reader import read
from shmlog.reader.belonging import own_parts
from shmlog.reader.snapshot import Snapshot
from shmlog.records.pages import check_whole
from shmlog.records.schema import METRICS

NO_ROWS: pa.Table = METRICS.empty_table()


@dataclass(frozen=True)
class Sources:
    """The metrics of a run, each once.

    Attributes
    ----------
    parts : list of Path
        Parquet files of which every row counts.
    rows : pyarrow.Table
        Schema `METRICS`; what is not in them, in no order.
    """

    parts: list[Path]
    rows: pa.Table


def find_sources(layout: RunLayout, taken: Snapshot, *, in_memory: bool = False) -> tuple[Sources, list[str]]:
    """Return where the metrics of a run are, and what is damaged.

    All of them are rows where parts alone don't tell: of a run whose sealed metrics are lines of
    events.jsonl, of one whose books or parts are damaged, of one that lacks parts and has all of it in
    events.jsonl, and if ``in_memory`` is asked for.

    Raises
    ------
    FileNotFoundError
        If a part has gone.
    """
    own, problems = own_parts(layout, taken)
    faults: list[str] = []
    is_read = in_memory or taken.overlaps or taken.metrics_are_lines or bool(problems and taken.has_sink("jsonl"))
    if not is_read:
        faults = [fault for fault in (_fault_of(part.path) for part in own) if fault]
    if is_read or faults:
        table, problems = read.read_metrics(layout, taken, None)
        if faults and not problems:  # right all the same, but at a price: that should not be a riddle
            problems = [f"{faults[0]}; its rows are sound all the same: all of the run is read into memory"]
        return Sources([], table), problems
    tables = []
    for batch, damage in taken.batches(layout):
        tables.append(batch.metrics)
        problems += read.texts_of(damage)
    rows = pa.concat_tables(tables).unify_dictionaries() if tables else NO_ROWS
    return Sources([part.path for part in own], rows), problems


def _fault_of(path: Path) -> str | None:
    """Return what of a part is not as it was written, to the last page; None if nothing."""
    try:
        read.guarded(path, lambda: check_whole(path))
    except UnreadableError as error:
        return str(error)
    return None
