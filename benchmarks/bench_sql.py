"""What SQL over a finished run costs, against DuckDB alone on the same Parquet."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from harness import Bench, alternate, main, seconds, wait_for_quiet

import shmlog
from shmlog.records import pages

METRICS = 10
QUERIES = {
    "group by name": "select name, count(*), avg(value), max(value) from metrics group by name order by name",
    "one metric": "select count(*), sum(value), min(step) from metrics where name = 'metric5'",
    "by 1,000 steps": "select step // 1000 as k, avg(value) from metrics where name = 'metric5' group by k order by k",
}


def make_run(folder: Path, points: int) -> Path:
    """Return a finished run of ten metrics of so many points each."""
    run = shmlog.init("sql", root=folder, max_wait=60.0)
    noise = np.random.default_rng(0)
    block = 10_000
    for first in range(0, points, block):
        for metric in range(METRICS):
            run.metric(f"metric{metric}").extend(noise.normal(size=block), np.arange(first, first + block))
    run.finish()
    wait_for_quiet(run.dir)
    return run.dir


def ask_duckdb(run_dir: Path, query: str) -> pa.Table:
    """Answer a query as one would without shmlog."""
    with duckdb.connect() as connection:
        connection.execute(f"create view metrics as from read_parquet('{run_dir}/metrics/*/*.parquet')")
        return connection.sql(query).to_arrow_table()


class FirstQuery:
    """A run asked as by a process that has not read its parts yet, and so checks them."""

    def __init__(self, stored: shmlog.StoredRun) -> None:
        self._stored = stored

    def sql(self, query: str) -> pa.Table:
        pages._sound.clear()
        return self._stored.sql(query)


def is_close(first: pa.Table, second: pa.Table) -> bool:
    pairs = zip(first.to_pydict().values(), second.to_pydict().values(), strict=True)
    return all(a == b if isinstance(a[0], str) else np.allclose(a, b) for a, b in pairs)


def benchmark(bench: Bench) -> None:
    """Measure one run; its file stays in the page cache."""
    points = bench.size(1_000_000, 20_000)
    root = bench.folder / "sql"  # a store of this run alone, not of what other benchmarks left
    run_dir = make_run(root, points)
    stored, store = shmlog.load(run_dir), shmlog.Store(root)
    for label, query in QUERIES.items():
        # Sums of floats differ by the order in which threads add them up.
        if not is_close(stored.sql(query), ask_duckdb(run_dir, query)):
            raise SystemExit(f"shmlog and DuckDB answer differently: {query}")
        for name, asked in (("run", stored), ("store", store), ("run, first query", FirstQuery(stored))):
            pairs = alternate(
                bench.size(15, 3),
                lambda asked=asked, query=query: seconds(lambda: asked.sql(query)),
                lambda query=query: seconds(lambda: ask_duckdb(run_dir, query)),
            )
            target = None if bench.quick else "<= 1.3"
            bench.record(
                f"SQL, {points * METRICS:,} records, {label}, {name} / DuckDB", "x", [a / b for a, b in pairs], target
            )
        bench.record("  DuckDB alone", "ms", [b * 1e3 for _, b in pairs])


if __name__ == "__main__":
    main([benchmark])
