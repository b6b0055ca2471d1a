"""What an export to CSV costs, against pyarrow's own writer on the same table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from harness import Bench, alternate, main, seconds, wait_for_quiet

import shmlog
from shmlog.records.schema import METRICS
from shmlog.transfer.exporters.csv import widen

NAMES = [f"metric{number}" for number in range(10)]


def make_run(folder: Path, records: int) -> Path:
    """Return a finished run of so many records, ten in each call."""
    steps = records // len(NAMES)
    run = shmlog.init("export", root=folder, max_wait=60.0)
    rows = np.random.default_rng(0).normal(size=(steps, len(NAMES))).tolist()
    for step, row in enumerate(rows):
        run.log(dict(zip(NAMES, row, strict=True)), step=step)
    run.finish()
    wait_for_quiet(run.dir)
    return run.dir


def read_parts(run_dir: Path) -> pa.Table:
    """Return the records as one would read them without shmlog, in the order of the file."""
    paths = sorted((run_dir / "metrics").rglob("*.parquet"))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])


def benchmark(bench: Bench) -> None:
    """Measure one run; its file stays in the page cache."""
    records = bench.size(1_000_000, 20_000)
    run_dir = make_run(bench.folder, records)
    ours, theirs = bench.folder / "ours.csv", bench.folder / "theirs.csv"
    table = shmlog.load(run_dir).metrics().select(METRICS.names)
    wide = widen(table)
    shmlog.export_run(run_dir, ours)
    pa.csv.write_csv(table, theirs)
    if ours.read_bytes() != theirs.read_bytes():
        raise SystemExit("shmlog and pyarrow write different files")
    target = None if bench.quick else "<= 1.5"
    for label, format, write, limit in (
        ("written by pyarrow", "csv", lambda: pa.csv.write_csv(table, theirs), target),
        ("read and written by pyarrow", "csv", lambda: pa.csv.write_csv(read_parts(run_dir), theirs), target),
        ("a ready table written by pyarrow", "wide-csv", lambda: pa.csv.write_csv(wide, theirs), None),
    ):
        pairs = alternate(
            bench.size(9, 3),
            lambda format=format: seconds(lambda: shmlog.export_run(run_dir, ours, format)),
            lambda write=write: seconds(write),
        )
        bench.record(f"export of {records:,} records, {format} / {label}", "x", [a / b for a, b in pairs], limit)
        bench.record("  export alone", "ms", [a * 1e3 for a, _ in pairs])


if __name__ == "__main__":
    main([benchmark])
