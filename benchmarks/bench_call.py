"""What a log call costs: its ratio to an empty C function of three arguments."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from harness import Bench, alternate, main, seconds

import shmlog

LANE = 1 << 16  # as by default
BURST = 20_000  # calls
DICT = 10  # metrics in a dict
VALUES = 100_000  # of extend()
RECORD_BYTES = 32
UNROLLED = 10


def compile_noop(folder: Path) -> ModuleType:
    """Return the empty C functions of noop.c, compiled as Python's own extensions are."""
    source = Path(__file__).with_name("noop.c")
    target = folder / f"noop{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = ["-O3", "-shared", "-fPIC", "-I", sysconfig.get_path("include")]
    subprocess.run(["cc", *flags, str(source), "-o", str(target)], check=True)
    spec = importlib.util.spec_from_file_location("noop", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Loop = Callable[[Any, range], None]


def make_loop(call: str) -> Loop:
    """Return a function that makes a call ten times a turn, so that the loop hardly counts."""
    ten = ", ".join(f"'metric{i}': {0.5 + i}" for i in range(DICT))
    lines = [
        "def loop(target, steps):",
        "    value = 0.5",
        f"    values = {{{ten}}}",
        "    for step in steps:",
        *[f"        {call}"] * UNROLLED,
    ]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    loop: Loop = names["loop"]
    return loop


EMPTY = make_loop("target('loss', value, step)")


def drain(run: shmlog.Run) -> None:
    if not run.flush():
        raise SystemExit("the flusher does not drain the lane")


def burst(run: shmlog.Run, loop: Loop, target: Any, calls: int) -> float:
    """Return the seconds that one call takes, on a drained lane."""
    drain(run)
    steps = range(calls // UNROLLED)
    return seconds(lambda: loop(target, steps)) / (len(steps) * UNROLLED)


def measure_scalars(bench: Bench, run: shmlog.Run, noop: ModuleType, clock: str) -> None:
    """Measure each way to log one value beside the empty call, with the lane drained between the bursts."""
    loss = run.metric("loss")
    ways: list[tuple[str, str, Any, str | None]] = [
        ("metric.log(value, step)", "target.log(value, step)", loss, "<= 2.1" if clock == "auto" else "<= 3.1"),
        ("metric(value, step)", "target(value, step)", loss, "<= 2.5"),
        ("run.log(name, value, step)", "target.log('loss', value, step)", run, None),
        ("run.log(name, value, step=step)", "target.log('loss', value, step=step)", run, None),
    ]
    for name, call, target, wanted in ways[: None if clock == "auto" else 1]:
        loop = make_loop(call)
        pairs = alternate(
            bench.size(300, 30),
            lambda loop=loop, target=target: burst(run, loop, target, BURST),  # type: ignore[misc]
            lambda: burst(run, EMPTY, noop.noop, BURST),
        )
        label = name if clock == "auto" else f"{name}, clock='{clock}'"
        bench.record(f"{label} / empty C call", "x", [mine / base for mine, base in pairs], wanted)
        bench.record(label, "ns", [mine * 1e9 for mine, _ in pairs])
    if clock == "auto":
        bench.record("empty C call", "ns", [base * 1e9 for _, base in pairs])


def measure_dict(bench: Bench, run: shmlog.Run, noop: ModuleType) -> None:
    """Measure a dict beside the walk over it, the handle and the empty call."""
    loss, calls = run.metric("loss"), LANE // 8 // (DICT + 1)
    log, walk = make_loop("target.log(values, step=step)"), make_loop("target(values, step)")
    handle = make_loop("target.log(value, step)")
    taken = [
        (
            burst(run, log, run, calls), burst(run, walk, noop.walk, calls),
            burst(run, handle, loss, BURST), burst(run, EMPTY, noop.noop, BURST),
        )
        for _ in range(bench.size(300, 30))
    ]  # fmt: skip
    name = f"run.log(dict of {DICT}, step=step)"
    over = [(mine - walked) / one for mine, walked, one, _ in taken]
    bench.record(f"{name}, over walking it / metric.log", "x", over, "<= 4")
    bench.record(f"{name}, each metric / empty C call", "x", [mine / DICT / empty for mine, _, _, empty in taken])
    bench.record(f"{name}, each metric", "ns", [mine / DICT * 1e9 for mine, *_ in taken])


def measure_extend(bench: Bench, run: shmlog.Run) -> None:
    """Measure extend() beside a numpy copy of as many bytes as it writes."""
    loss, values, steps = run.metric("loss"), np.random.default_rng(0).normal(size=VALUES), np.arange(VALUES)
    source = np.ones(VALUES * RECORD_BYTES // 8)
    target = np.ones_like(source)

    def extend() -> float:
        drain(run)
        return seconds(lambda: loss.extend(values, steps))

    pairs = alternate(bench.size(300, 30), extend, lambda: seconds(lambda: np.copyto(target, source)))
    name = f"metric.extend({VALUES:,} values, steps)"
    bench.record(f"{name} / numpy copy of its records' bytes", "x", [mine / copy for mine, copy in pairs], "<= 3")
    bench.record(f"{name}, each", "ns", [mine / VALUES * 1e9 for mine, _ in pairs])


def in_run(bench: Bench, lane: int, clock: str, measure: Callable[[shmlog.Run], None]) -> None:
    """Measure in a run of its own; fail if any record was dropped."""
    with shmlog.init("call", root=bench.folder, lane_records=lane, clock=clock) as run:
        run.log("started", True)
        time.sleep(2.0)  # the flusher is there, and its imports are over
        measure(run)
        dropped = run.stats["dropped"]
    if any(dropped.values()):
        raise SystemExit(f"records were dropped: {dropped}")


def benchmark(bench: Bench) -> None:
    """Measure the log calls."""
    noop = compile_noop(bench.folder)

    def measure_calls(run: shmlog.Run) -> None:
        measure_scalars(bench, run, noop, "auto")
        measure_dict(bench, run, noop)

    in_run(bench, LANE, "auto", measure_calls)
    in_run(bench, LANE, "monotonic", lambda run: measure_scalars(bench, run, noop, "monotonic"))
    in_run(bench, 4 * LANE, "auto", lambda run: measure_extend(bench, run))


if __name__ == "__main__":
    main([benchmark])
