"""How fast records get into events.jsonl, against a Python loop over orjson that writes the same lines."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

from bench_throughput import VALUES, fork_producer, make_values
from harness import Bench, main, wait_for_quiet

import shmlog

START_S = 2.0


def through_shmlog(folder: Path, values: list[float], rounds: int) -> tuple[float, Path]:
    """Return the seconds from the first log call until all lines are durable, and the run's folder."""
    run = shmlog.init("lines", root=folder, sinks=("jsonl",), max_wait=60.0)
    run.flush()
    time.sleep(START_S)  # the flusher has imported what it needs
    start = time.perf_counter()
    child = fork_producer(run, values, rounds)
    if os.waitpid(child, 0)[1] != 0 or not run.finish():
        raise SystemExit("a producer failed, or finish() gave up")
    return time.perf_counter() - start, run.dir


def through_orjson(path: Path, orjson: Any, columns: list[list[Any]]) -> float:
    """Return the seconds that a loop takes which makes each line from Python objects, durably."""
    utc, from_timestamp = datetime.UTC, datetime.datetime.fromtimestamp
    start = time.perf_counter()
    with path.open("wb") as file:
        for name, value, step, ts_us, pid, lane, seq in zip(*columns, strict=True):
            line = {
                "timestamp": from_timestamp(ts_us / 1e6, utc), "event_type": "metrics",
                "data": {"step": step, "metrics": {name: value}},
                "rank": None, "local_rank": None, "worker": None, "pid": pid, "lane": lane, "seq": seq,
            }  # fmt: skip
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        file.flush()
        os.fsync(file.fileno())
    elapsed = time.perf_counter() - start
    path.unlink()
    return elapsed


def benchmark(bench: Bench) -> None:
    """Measure both, one after the other."""
    try:
        import orjson
    except ImportError:
        print("events.jsonl against orjson: not measured, orjson is not installed (pip install orjson)")
        return
    rounds = bench.size(5, 1)
    records = rounds * VALUES
    values = make_values(VALUES)
    rates, ratios = [], []
    for _ in range(bench.size(5, 2)):
        elapsed, run_dir = through_shmlog(bench.folder, values, rounds)
        wait_for_quiet(run_dir)
        table = shmlog.load(run_dir).metrics()
        if table.num_rows != records:
            raise SystemExit(f"{records:,} records were logged, {table.num_rows:,} are there")
        columns = [table[name].to_pylist() for name in ("name", "value", "step")]
        columns.append(table["ts"].cast("int64").to_pylist())
        columns += [table[name].to_pylist() for name in ("pid", "lane", "seq")]
        ratios.append(through_orjson(bench.folder / "loop.jsonl", orjson, columns) / elapsed)
        rates.append(records / elapsed)
    target = None if bench.quick else ">= 2.5"
    bench.record("log to durable events.jsonl / Python loop over orjson", "x", ratios, target)
    bench.record("log to durable events.jsonl", "records/s", rates)


if __name__ == "__main__":
    main([benchmark])
