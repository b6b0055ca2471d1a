"""Checks of the sealed Parquet files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.folder.layout import Part, RunLayout
from shmlog.reader.belonging import fault_of
from shmlog.reader.read import guarded
from shmlog.reader.snapshot import Snapshot
from shmlog.reader.tally import Tally
from shmlog.reader.verify.numbers import NUMBER_MAX, Numbers
from shmlog.reader.verify.report import Report
from shmlog.records.lanes import lane_keys
from shmlog.records.parts import open_file
from shmlog.records.schema import METRICS, VERSION, with_node
from shmlog.records.values import PRODUCER, misfits

_NAME = METRICS.get_field_index("name")


def check(layout: RunLayout, snapshot: Snapshot, numbers: Numbers, tally: Tally, report: Report) -> None:
    """Check all pages of all parts, and the rows in them; add their numbers."""
    for part in snapshot.parts:
        report.counts["parts"] += 1
        tables = _read(layout, part, snapshot.run_id, report)
        try:
            while (table := guarded(part.path, lambda tables=tables: next(tables, None))) is not None:
                report.counts["rows"] += table.num_rows
                tally.add_metrics(table)
                numbers.add(lane_keys(table), table["seq"].to_numpy())
        except UnreadableError as error:
            report.error(part.path, str(error).removeprefix(f"{part.path}: "))
        except OSError as error:
            report.error(part.path, f"can't be read ({error.strerror})")


def _read(layout: RunLayout, part: Part, run_id: str | None, report: Report) -> Iterator[pa.Table]:
    """Yield who logged the rows, and their numbers, by row group."""
    with open_file(part.path, layout.files) as file:
        _check_metadata(part, file.metadata, run_id, report)
        for group in file.groups:
            table = file.read([group]).cast(METRICS)
            table.validate(full=True)
            for fault in (*_faults(table), *_faults_of_statistics(table, file.metadata.row_group(group))):
                report.error(part.path, f"row group {group}: {fault}")
            yield with_node(table.select(PRODUCER), part.node)


def _check_metadata(part: Part, metadata: pq.FileMetaData, run_id: str | None, report: Report) -> None:
    texts = {key.decode(): value.decode("utf-8", "replace") for key, value in (metadata.metadata or {}).items()}
    if texts.get("shmlog.schema") != str(VERSION):
        report.error(part.path, f"shmlog.schema is {texts.get('shmlog.schema')!r}, not {str(VERSION)!r}")
    fault = fault_of(part, run_id, texts)
    if fault:
        report.error(part.path, fault)


def _faults(table: pa.Table) -> Iterator[str]:
    """Yield what the columns of a row can't be together."""
    seq, lane = table["seq"].to_numpy(), table["lane"].to_numpy()
    if ((seq < 0) | (seq >= NUMBER_MAX) | (lane < 0)).any():
        raise CorruptDataError("numbers of records that make no sense")
    wrong = int(misfits(table).sum())
    if wrong:
        yield f"{wrong} rows whose kind and values don't fit"


def _faults_of_statistics(table: pa.Table, group: pq.RowGroupMetaData) -> Iterator[str]:
    """Yield it if a reader that wants one name would pass over a row group that has it."""
    statistics = group.column(_NAME).statistics
    if table.num_rows and statistics is not None and statistics.has_min_max:
        names = table["name"].unique().to_pylist()
        if not all(statistics.min <= name <= statistics.max for name in names):
            yield "names outside of what its statistics say"
