"""What a log call costs: its ratio to an empty C function of three arguments."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Bench, alternate, main, seconds

import shmlog

LANE = 65_536
DICT = 10  # metrics in a dict
UNROLLED = 10


def compile_noop(folder: Path) -> Callable[..., None]:
    """Return the empty C function of noop.c, compiled as Python's own extensions are."""
    source = Path(__file__).with_name("noop.c")
    target = folder / f"noop{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = ["-O3", "-shared", "-fPIC", "-I", sysconfig.get_path("include")]
    subprocess.run(["cc", *flags, str(source), "-o", str(target)], check=True)
    spec = importlib.util.spec_from_file_location("noop", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., None] = module.noop
    return function


Loop = Callable[[Any, range], None]


def make_loop(call: str) -> Loop:
    """Return a function that makes a call ten times a turn, so that the loop hardly counts."""
    lines = [
        "def loop(target, steps):",
        "    value = 0.5",
        f"    values = {{f'metric{{i}}': 0.5 + i for i in range({DICT})}}",
        "    for step in steps:",
        *[f"        {call}"] * UNROLLED,
    ]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    loop: Loop = names["loop"]
    return loop


def burst(run: shmlog.Run, loop: Loop, target: Any, calls: int) -> float:
    """Return the seconds that one call takes, on a drained lane."""
    if not run.flush():
        raise SystemExit("the flusher does not drain the lane")
    steps = range(calls // UNROLLED)
    return seconds(lambda: loop(target, steps)) / (len(steps) * UNROLLED)


def measure(bench: Bench, run: shmlog.Run, noop: Callable[..., None]) -> None:
    """Measure each way to call beside the empty call, with the lane drained between the bursts."""
    loss = run.metric("loss")
    ways: list[tuple[str, str, Any, int, str | None]] = [
        ("metric(value, step)", "target(value, step)", loss, 1, "<= 3"),
        ("metric.log(value, step)", "target.log(value, step)", loss, 1, None),
        ("run.log(name, value, step)", "target.log('loss', value, step)", run, 1, None),
        ("run.log(name, value, step=step)", "target.log('loss', value, step=step)", run, 1, None),
        (
            f"run.log(dict of {DICT}, step=step), each metric",
            "target.log(values, step=step)",
            run,
            DICT,
            None,
        ),
    ]
    empties: list[float] = []
    empty = make_loop("target('loss', value, step)")
    for name, call, target, metrics, wanted in ways:
        calls = 20_000 if metrics == 1 else LANE // 2 // (metrics + 1)
        loop = make_loop(call)
        pairs = alternate(
            bench.size(300, 30),
            lambda loop=loop, target=target, calls=calls: burst(run, loop, target, calls),  # type: ignore[misc]
            lambda calls=calls: burst(run, empty, noop, calls),  # type: ignore[misc]
        )
        bench.record(f"{name} / empty C call", "x", [mine / metrics / base for mine, base in pairs], wanted)
        bench.record(name, "ns", [mine / metrics * 1e9 for mine, _ in pairs])
        empties += [base * 1e9 for _, base in pairs]
    bench.record("empty C call", "ns", empties)


def benchmark(bench: Bench) -> None:
    """Measure the log calls, and fail if any record was dropped."""
    noop = compile_noop(bench.folder)
    with shmlog.init("call", root=bench.folder, lane_records=LANE) as run:
        run.log("started", True)
        time.sleep(2.0)  # the flusher is there, and its imports are over
        measure(bench, run, noop)
        dropped = run.stats["dropped"]
    if any(dropped.values()):
        raise SystemExit(f"records were dropped: {dropped}")


if __name__ == "__main__":
    main([benchmark])
