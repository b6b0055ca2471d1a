"""Count the instructions that a log call takes in the C core, with callgrind: they repeat, times do not.

`python benchmarks/instructions.py` prints them; with `--check` it fails where one is more than 3 % above
benchmarks/instructions.json, with `--write` it puts them there. What the interpreter itself takes is not
counted. Counts of another compiler are printed only: they can't be compared.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from shmlog import _core

COMMITTED = Path(__file__).with_name("instructions.json")
MARGIN = 0.03
CALLS = 2000
WAYS = {
    "metric(value, step)": "loss(0.5, step)",
    "metric.log(value, step)": "loss.log(0.5, step)",
    "run.log(name, value, step)": "run.log('loss', 0.5, step)",
    "run.log(name, value, step=step)": "run.log('loss', 0.5, step=step)",
    "run.log(dict of 10, step=step)": "run.log(ten, step=step)",
}
PROGRAM = """
import os, sys
import shmlog
run = shmlog.init("count", root=sys.argv[1], clock="tsc", sinks=["parquet"])
loss = run.metric("loss")
ten = {{"a0": 0.5, "a1": 0.5, "a2": 0.5, "a3": 0.5, "a4": 0.5, "a5": 0.5, "a6": 0.5, "a7": 0.5, "a8": 0.5, "a9": 0.5}}
def calls(first, count):
    for step in range(first, first + count):
        {call}
calls(0, 100)
calls(100, int(sys.argv[2]))
os._exit(0)
"""


def count(call: str, calls: int, folder: Path) -> int:
    """Return the instructions that a process took in the core, with so many calls."""
    out = folder / "callgrind.out"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"]
    program = [sys.executable, "-P", "-c", PROGRAM.format(call=call), str(folder / "runs"), str(calls)]
    done = subprocess.run([*command, *program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"callgrind failed: {done.stderr}")
    return sum_of_core(out.read_text())


def sum_of_core(profile: str) -> int:
    """Return the self cost of the core in callgrind's format (Valgrind manual, 'Callgrind Format Specification')."""
    names: dict[str, str] = {}
    total, is_core, is_call = 0, False, False
    for line in profile.splitlines():
        if line.startswith(("ob=", "cob=")):  # of a function, and of one that is called: the first names it
            number, _, name = line.partition("=")[2].partition(" ")
            names.setdefault(number, name)
            if line.startswith("ob="):
                is_core = Path(names[number]).name == Path(_core.__file__).name
        elif line.startswith("calls="):
            is_call = True  # the next line is the cost of what is called
        elif re.match(r"[\d+*-]", line):
            if is_core and not is_call:
                total += int(line.split()[1])
            is_call = False
    return total


def compiler() -> str:
    """Return what the core was compiled with, as it says itself."""
    told = re.search(rb"GCC: \([^)]*\) [\d.]+|clang version [\d.]+", Path(_core.__file__).read_bytes())
    return told[0].decode() if told else "unknown"


def measure() -> dict[str, float]:
    """Return the instructions of one call, for each way to call."""
    found = {}
    for way, call in WAYS.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # its flusher ends a little later
            few, many = (count(call, calls, Path(folder)) for calls in (CALLS, 2 * CALLS))
        found[way] = (many - few) / CALLS
        print(f"{way:34} {found[way]:8.2f} instructions", flush=True)
    return found


def check(found: dict[str, float]) -> int:
    """Hold the counts against those that were committed. Returns the exit code."""
    committed = json.loads(COMMITTED.read_text())
    if committed["compiler"] != compiler():
        print(f"not compared: the committed counts are of {committed['compiler']}, these of {compiler()}")
        return 0
    worse = [way for way, number in found.items() if number > committed["calls"][way] * (1 + MARGIN)]
    for way in worse:
        print(f"{way}: more than {committed['calls'][way]:.2f} and {MARGIN:.0%}")
    return 1 if worse else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a count is above the committed one")
    parser.add_argument("--write", action="store_true", help="commit these counts")
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is missing: apt-get install valgrind")
    found = measure()
    if args.write:
        COMMITTED.write_text(json.dumps({"compiler": compiler(), "calls": found}, indent=2) + "\n")
    return check(found) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
