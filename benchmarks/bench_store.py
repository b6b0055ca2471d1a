"""How long a store of a thousand runs takes to be listed: with nothing known of it, and again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from harness import Bench, main, seconds, wait_for_quiet

import shmlog
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.records import parts

LIST = """
import sys, time
from shmlog import Store
start = time.perf_counter()
runs = Store(sys.argv[1]).runs()
print(len(runs), time.perf_counter() - start)
"""


def make_store(folder: Path, runs: int) -> Path:
    """Make a run, and copies of it that are runs of their own."""
    root = folder / "runs"
    with shmlog.init("first", root=root, config={"lr": 0.1, "model": {"name": "small", "layers": [64, 64]}}) as run:
        for step in range(100):
            run.log({"loss": 1 / (1 + step), "accuracy": 0.5}, step=step)
    wait_for_quiet(run.dir)
    layout = RunLayout(run.dir)
    described = runfile.read(layout.run_yaml)
    (part,) = layout.parts()
    table = parts.read_part(part.path)
    for number in range(runs):
        copy = RunLayout(root / f"experiment{number % 10}" / f"20261121-{number:06d}-{number:06x}")
        copy.dir.mkdir(parents=True)
        changed = {"run_id": copy.run_id, "experiment": copy.experiment, "tags": [f"n{number % 7}"]}
        runfile.write(copy.run_yaml, {**described, **changed}, durable=False)
        runfile.write(copy.config_yaml, {"lr": 1 / (1 + number), "model": {"name": "small"}}, durable=False)
        copy.metrics.mkdir(parents=True)
        copied = copy.part(part.first, part.last)
        parts.write_part(copied, table, run_id=copy.run_id, first=part.first, last=part.last, progress=lambda: None)
    shutil.rmtree(root / "first")
    return root


def list_in_new_process(root: Path, runs: int) -> float:
    done = subprocess.run([sys.executable, "-P", "-c", LIST, str(root)], check=True, capture_output=True, text=True)
    count, took = done.stdout.split()
    assert int(count) == runs
    return float(took)


def benchmark(bench: Bench) -> None:
    """Measure whole listings; the files themselves are in the page cache."""
    runs = bench.size(1000, 100)
    root = make_store(bench.folder, runs)
    index = root / ".shmlog" / "index"
    cold, warm, again, filtered = [], [], [], []
    for _ in range(bench.size(10, 2)):
        shutil.rmtree(index, ignore_errors=True)
        cold.append(list_in_new_process(root, runs))
        warm.append(list_in_new_process(root, runs))
        store = shmlog.Store(root)
        store.runs()
        again.append(seconds(store.runs))
        store.runs(where="metrics.loss.min < 1")
        filtered.append(seconds(lambda store=store: store.runs(where="lr < 0.01 and metrics.loss.min < 0.1")))
    bench.record(f"list {runs:,} runs, no index", "s", cold, "<= 1")
    bench.record(f"list {runs:,} runs, index there", "s", warm, "<= 0.1")
    bench.record(f"list {runs:,} runs, same Store", "s", again)
    bench.record(f"filter {runs:,} runs by a parameter and a metric", "s", filtered)


if __name__ == "__main__":
    main([benchmark])
