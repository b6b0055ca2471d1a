"""How fast records get from log calls into sealed Parquet, against pyarrow writing the same table."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from harness import Bench, main, wait_for_quiet

import shmlog
from shmlog.records.parts import row_groups
from shmlog.records.schema import write_options

NAMES = [f"metric{i}" for i in range(8)]
VALUES = 200_000  # logged again and again: forked producers share them
START_S = 2.0


def make_values(count: int) -> list[float]:
    """Return values like those of a noisy curve: full mantissas, which compress badly."""
    noise = random.Random(0)
    return [1.0 / (1 + i / count) + noise.gauss(0.0, 0.01) for i in range(count)]


def produce(run: shmlog.Run, values: list[float], rounds: int) -> None:
    """Log the values under eight names in turn, as a training loop does."""
    metrics = [run.metric(name) for name in NAMES]
    each_round = (zip(*[iter(values)] * len(NAMES), strict=True) for _ in range(rounds))
    for step, row in enumerate(itertools.chain.from_iterable(each_round)):
        for metric, value in zip(metrics, row, strict=True):
            metric(value, step)


def fork_producer(run: shmlog.Run, values: list[float], rounds: int) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            produce(run, values, rounds)
            run.finish()
            status = 0
        finally:
            os._exit(status)
    return child


def through_shmlog(folder: Path, producers: int, values: list[float], rounds: int) -> tuple[float, Path]:
    """Return the seconds from the first log call until all is sealed, and the run's folder.

    The flusher has started and imported pyarrow before, as our own pyarrow has been. Producers wait for
    room as long as it takes, since what is dropped would not count.
    """
    run = shmlog.init("throughput", root=folder, max_wait=60.0)
    run.log(NAMES[0], 0.0, 0)
    run.flush()
    time.sleep(START_S)
    start = time.perf_counter()
    children = [fork_producer(run, values, rounds) for _ in range(producers)]
    for child in children:
        if os.waitpid(child, 0)[1] != 0:
            raise SystemExit("a producer failed")
    if not run.finish():
        raise SystemExit("finish() gave up")
    return time.perf_counter() - start, run.dir


def read_back(run_dir: Path, records: int) -> pa.Table:
    """Return what was stored, in the order it was stored in; fail if it is not all of it."""
    stored = shmlog.load(run_dir)
    if any(stored.dropped.values()):
        raise SystemExit(f"records were dropped: {stored.dropped}")
    parts = sorted((run_dir / "metrics").rglob("part-*.parquet"))
    table = pa.concat_tables([pq.ParquetFile(part).read() for part in parts]).unify_dictionaries()
    if table.num_rows != records:
        raise SystemExit(f"{records:,} records were logged, {table.num_rows:,} are there")
    return table


def through_pyarrow(path: Path, table: pa.Table) -> float:
    """Return the seconds that pyarrow takes to write the same table with the same settings, durably."""
    groups = list(row_groups(table))
    start = time.perf_counter()
    with path.open("wb") as file:
        with pq.ParquetWriter(file, table.schema, **write_options()) as writer:
            for group in groups:
                writer.write_table(group, row_group_size=group.num_rows)
        file.flush()
        os.fsync(file.fileno())
    elapsed = time.perf_counter() - start
    path.unlink()
    return elapsed


def benchmark(bench: Bench) -> None:
    """Measure 1, 2 and 4 producers, each run followed by pyarrow writing what it stored."""
    total = bench.size(8_000_000, 800_000)
    values = make_values(VALUES)
    for producers in (1, 2, 4):
        rounds = total // producers // VALUES
        records = producers * rounds * VALUES + 1
        rates, base_rates = [], []
        for _ in range(bench.size(5, 2)):
            elapsed, run_dir = through_shmlog(bench.folder, producers, values, rounds)
            wait_for_quiet(run_dir)
            table = read_back(run_dir, records)
            base = statistics.mean(through_pyarrow(bench.folder / "base.parquet", table) for _ in range(2))
            rates.append(records / elapsed)
            base_rates.append(records / base)
        name = f"{producers} producer{'s' * (producers > 1)}"
        ratios = [rate / base for rate, base in zip(rates, base_rates, strict=True)]
        target = None if bench.quick else ">= 0.5"
        bench.record(f"{name}, log to sealed Parquet / pyarrow alone", "x", ratios, target)
        bench.record(f"{name}, log to sealed Parquet", "records/s", rates)
        bench.record(f"  pyarrow alone, table of {name}", "records/s", base_rates)


if __name__ == "__main__":
    main([benchmark])
