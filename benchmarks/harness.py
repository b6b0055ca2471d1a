"""What every benchmark needs: pairs of measurements, figures with their spread, a record of the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """One measured quantity: the median and the spread of its samples."""

    name: str
    unit: str
    samples: int
    median: float
    low: float  # first quartile
    high: float  # third quartile
    least: float
    most: float
    target: str | None = None  # such as "<= 3"
    met: bool | None = None

    def line(self) -> str:
        """Return the figure for people."""
        spread = f"[{number(self.low)} … {number(self.high)}]"
        text = f"{self.name:<58} {number(self.median):>9} {self.unit:<10} {spread:<20} n={self.samples}"
        return text + (f"   target {self.target}: {'met' if self.met else 'MISSED'}" if self.target else "")


def number(value: float) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def make_figure(name: str, unit: str, samples: Iterable[float], target: str | None = None) -> Figure:
    """Return the figure of some samples; its median is held against the target."""
    values = sorted(samples)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Figure(name, unit, len(values), median, low, high, values[0], values[-1], target, _meets(median, target))


def _meets(value: float, target: str | None) -> bool | None:
    if target is None:
        return None
    relation, _, limit = target.partition(" ")
    return value <= float(limit) if relation == "<=" else value >= float(limit)


@dataclass
class Bench:
    """One session of benchmarks: where it may write, how thorough it is, what it found."""

    folder: Path
    quick: bool = False
    figures: list[Figure] = field(default_factory=list)

    def size(self, full: int, quick: int) -> int:
        """Return the size to use: the full one, or the quick one of CI."""
        return quick if self.quick else full

    def record(self, name: str, unit: str, samples: Iterable[float], target: str | None = None) -> None:
        """Keep a figure and print it."""
        figure = make_figure(name, unit, samples, target)
        self.figures.append(figure)
        print(figure.line(), flush=True)


def alternate(count: int, first: Callable[[], float], second: Callable[[], float]) -> list[tuple[float, float]]:
    """Return ``count`` pairs of results, taken side by side, each going first in every other pair.

    The two of a pair meet the same state of a shared machine, so their ratio is
    steadier than that of two medians.
    """
    pairs = []
    for turn in range(count):
        if turn % 2:
            later = second()
            pairs.append((first(), later))
        else:
            earlier = first()
            pairs.append((earlier, second()))
    return pairs


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def flusher_of(run_dir: Path) -> Path | None:
    """Return the /proc folder of a run's flusher, or None if it has none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"shmlog.flusher" in command and os.fsencode(run_dir) in command:
            return entry
    return None


def wait_for_quiet(run_dir: Path) -> None:
    """Wait until the flusher of a finished run has merged its parts and ended."""
    while flusher_of(run_dir) is not None:
        time.sleep(0.05)


def machine() -> dict[str, Any]:
    """Return what a figure depends on besides the code."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "load_before": os.getloadavg()[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: version(name) for name in ("shmlog", "numpy", "pyarrow", "posix_ipc")},
        "commit": _commit(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def machine_name() -> str:
    """Return a file name for this machine: its processor and its number of cores."""
    return re.sub(r"[^a-z0-9]+", "-", f"{_cpu()} {len(os.sched_getaffinity(0))} cores".lower()).strip("-")


def _cpu() -> str:
    match = re.search(r"^model name\s*: (.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _commit() -> str | None:
    """Return the commit of the tree around this file, with ``+`` if it was changed."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=HERE, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def main(benchmarks: Sequence[Callable[[Bench], None]], results: Path | None = None) -> None:
    """Run benchmarks as the command line says; write the figures to ``--json``, or all of them to ``results``."""
    names = [benchmark.__module__.removeprefix("bench_") for benchmark in benchmarks]
    parser = argparse.ArgumentParser(description="Prints median [quartiles] of each figure.")
    if len(names) > 1:
        text = f"only these, of {', '.join(names)} (default: all, whose figures go to {results})"
        parser.add_argument("only", nargs="*", metavar="NAME", help=text)
    parser.add_argument("--quick", action="store_true", help="smaller, for CI: shows that it works")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure (default: the temporary one)")
    args = parser.parse_args()
    only = getattr(args, "only", []) or names
    if unknown := set(only) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}, but {', '.join(names)}")
    described = machine()
    print(f"{described['cpu']}, {described['cores']} cores, Linux {described['kernel']}, {described['python']}")
    with tempfile.TemporaryDirectory(prefix="shmlog-benchmark-", dir=args.dir, ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), args.quick)
        for name, benchmark in zip(names, benchmarks, strict=True):
            if name in only:
                benchmark(bench)
    path = args.json or (results if only == names else None)
    if path:
        write(path, described, bench)


def write(path: Path, described: dict[str, Any], bench: Bench) -> None:
    """Write the machine and the figures as JSON."""
    figures = {
        figure.name: {key: _rounded(value) for key, value in asdict(figure).items() if key != "name"}
        for figure in bench.figures
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": described, "quick": bench.quick, "figures": figures}, indent=2) + "\n")
    print(f"written to {path}")


def _rounded(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value
