"""Measure one way to log, in the environment that it needs: `python peer.py SETUP CALL FOLDER CALLS PAIRS`.

Prints, as JSON, pairs of seconds: of a call, and of an empty C call of the same three arguments right beside
it. SETUP is a program; CALL an expression in which ``step`` counts and ``value`` is a float.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Loop = Callable[[range, float], None]


def make_loop(call: str, names: dict[str, Any]) -> Loop:
    """Return a function that makes a call for each step."""
    exec(f"def loop(steps, value):\n    for step in steps:\n        {call}", names)
    loop: Loop = names["loop"]
    return loop


def seconds(loop: Loop, first: int, count: int) -> float:
    """Return the seconds that one call takes, the loop included."""
    steps = range(first, first + count)
    start = time.perf_counter()
    loop(steps, 0.5)
    return (time.perf_counter() - start) / count


def main(setup: str, call: str, folder: str, calls: int, pairs: int) -> None:
    sys.path.insert(0, folder)  # where the empty call is
    from noop import noop

    os.chdir(folder)
    names: dict[str, Any] = {"folder": folder, "settle": lambda: None}
    exec(setup, names)
    loop = make_loop(call, names)
    empty = make_loop("noop('loss', value, step)", {"noop": noop})
    found = []
    for pair in range(pairs + 1):  # the first warms up
        names["settle"]()
        found.append((seconds(loop, pair * calls, calls), seconds(empty, 0, max(calls, 1000))))
    print(json.dumps(found[1:]), flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)  # what a peer does at its exit is not what is measured


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
