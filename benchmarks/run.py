"""Run all benchmarks: `python benchmarks/run.py`; some: `python benchmarks/run.py call start`; or with `--quick`."""

from __future__ import annotations

import bench_artifacts
import bench_call
import bench_demo
import bench_drain
import bench_export
import bench_idle
import bench_import
import bench_jsonl
import bench_many
import bench_memory
import bench_read
import bench_sql
import bench_start
import bench_store
import bench_throughput
from harness import HERE, machine_name, main

ALL = (
    bench_import,
    bench_start,
    bench_call,
    bench_many,
    bench_idle,
    bench_drain,
    bench_throughput,
    bench_jsonl,
    bench_memory,
    bench_demo,
    bench_read,
    bench_store,
    bench_sql,
    bench_export,
    bench_artifacts,
)

if __name__ == "__main__":
    main([module.benchmark for module in ALL], HERE / "results" / f"{machine_name()}.json")
