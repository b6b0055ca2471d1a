"""What reading costs, against pyarrow reading just the row groups that are needed, and what a record takes on disk."""

from __future__ import annotations

import math
import random
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from harness import Bench, alternate, main, seconds, wait_for_quiet

import shmlog
from shmlog.flusher.merger import due
from shmlog.folder.layout import RunLayout
from shmlog.records import parts
from shmlog.records.merge import merge

METRICS = 10
NAMES = ["loss", "lr", "accuracy", "step_time", "grad_norm", "val_loss", "tokens_per_s", "data_time", "gpu_mem", "ppl"]


PARTS = 100


def make_run(folder: Path, points: int) -> tuple[Path, float]:
    """Return a finished run of ten metrics of so many points each, merged into one part, and what finish() took."""
    run = shmlog.init("read", root=folder, max_wait=60.0)
    noise = np.random.default_rng(0)
    block = 10_000
    for first in range(0, points, block):
        for metric in range(METRICS):
            run.metric(f"metric{metric}").extend(noise.normal(size=block), np.arange(first, first + block))
    elapsed = seconds(run.finish)
    wait_for_quiet(run.dir)
    return run.dir, elapsed


def in_parts(run_dir: Path, copy: Path) -> Path:
    """Return a copy of a run whose records lie in many parts as they were sealed, in the order of time."""
    shutil.copytree(run_dir, copy)
    whole = only_part(copy)
    table = pq.read_table(whole).sort_by("ts")
    whole.unlink()
    rows = -(-table.num_rows // PARTS)
    layout = RunLayout(copy)
    for number in range(PARTS):
        part = table.slice(number * rows, rows)
        parts.write_part(
            layout.part(number), part, run_id=run_dir.name, first=number, last=number, progress=lambda: None
        )
    return copy


def as_while_live(run_dir: Path, copy: Path) -> Path:
    """Return a copy of a run in many parts as the flusher has merged them while it was at work."""
    shutil.copytree(run_dir, copy)
    layout = RunLayout(copy)
    while group := next(due(layout.parts(), PARTS), None):
        merge(layout, run_id=run_dir.name, parts=group, progress=lambda: None)
    return copy


def only_part(run_dir: Path) -> Path:
    (path,) = (run_dir / "metrics").rglob("*.parquet")
    return path


def read_by_pyarrow(path: Path, name: str) -> pa.Table:
    """Return the rows of a name from the row groups whose statistics allow it."""
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("name")
        groups = []
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(column).statistics
            if statistics.min <= name <= statistics.max:
                groups.append(group)
        table = file.read_row_groups(groups)
    return table.filter(pc.equal(table["name"], name))


def training_curves(folder: Path, steps: int, *, from_float32: bool) -> float:
    """Return the bytes a record that a run of ten typical training curves takes on disk."""
    noise = random.Random(1)
    run = shmlog.init("disk", root=folder, max_wait=60.0)
    for step in range(steps):
        loss = 2.5 * math.exp(-3.3 * step / steps) + 0.5 + noise.gauss(0, 0.05)
        step_time = 0.12 + noise.gauss(0, 0.004)
        values = [
            loss, 5e-4 * (1 + math.cos(step / steps * math.pi)), 1 - loss / 4 + noise.gauss(0, 0.01), step_time,
            abs(noise.gauss(1, 0.2)), loss + 0.1 + noise.gauss(0, 0.02), 1e5 / step_time,
            abs(noise.gauss(0.01, 0.002)), 17.5 if step % 100 else 17.25, math.exp(loss),
        ]  # fmt: skip
        if from_float32:
            values = list(struct.unpack("10f", struct.pack("10f", *values)))
        run.log(dict(zip(NAMES, values, strict=True)), step=step)
    run.finish()
    wait_for_quiet(run.dir)
    return only_part(run.dir).stat().st_size / (steps * len(NAMES))


def benchmark(bench: Bench) -> None:
    """Measure one run; its file stays in the page cache."""
    points = bench.size(1_000_000, 20_000)
    run_dir, finished = make_run(bench.folder, points)
    bench.record(f"finish() of a run of {points * METRICS:,} records", "s", [finished], "<= 5")
    path, name = only_part(run_dir), "metric5"
    if shmlog.load(run_dir).metrics(name).num_rows != read_by_pyarrow(path, name).num_rows:
        raise SystemExit("shmlog and pyarrow read different rows")
    turns = bench.size(15, 3)
    pairs = alternate(
        turns,
        lambda: seconds(lambda: shmlog.load(run_dir).metrics(name)),
        lambda: seconds(lambda: read_by_pyarrow(path, name)),
    )
    target = None if bench.quick else "<= 1.5"
    bench.record(
        f"one of {METRICS} metrics, {points:,} points each, read / by pyarrow", "x", [a / b for a, b in pairs], target
    )
    bench.record("  read by pyarrow", "ms", [b * 1e3 for _, b in pairs])
    scattered = in_parts(run_dir, bench.folder / "scattered" / run_dir.name)
    if shmlog.load(scattered).metrics(name).num_rows != points:
        raise SystemExit("not all is in the parts")
    live = as_while_live(scattered, bench.folder / "live" / run_dir.name)
    for label, folder, limit in (
        (f"the same of {PARTS} logs while the run is live / in one part", live, "<= 2"),
        (f"the same in {PARTS} parts, none merged / in one", scattered, None),
    ):
        pairs = alternate(
            turns,
            lambda folder=folder: seconds(lambda: shmlog.load(folder).metrics(name)),
            lambda: seconds(lambda: shmlog.load(run_dir).metrics(name)),
        )
        bench.record(label, "x", [a / b for a, b in pairs], None if bench.quick else limit)
    opened = []
    for _ in range(turns):
        start = time.perf_counter()
        shmlog.load(run_dir).names()
        opened.append((time.perf_counter() - start) * 1e3)
    bench.record("a run opened, its metrics listed", "ms", opened, None if bench.quick else "<= 20")
    steps = bench.size(100_000, 2_000)
    for label, from_float32, limit in (("full precision", False, 8.7), ("from float32", True, 6.5)):
        size = training_curves(bench.folder, steps, from_float32=from_float32)
        bench.record(f"on disk, training curves, {label}", "B/record", [size], None if bench.quick else f"<= {limit}")


if __name__ == "__main__":
    main([benchmark])
