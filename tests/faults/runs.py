"""Children of a whole run, with its flusher, killed at any instruction of a log call: a process of its own."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import signal
from pathlib import Path

import shmlog
from tests.faults.extension import ExtensionStage
from tests.faults.stepping import MARKED, Route, Victim, map_notes
from tests.support.processes import TIMEOUT_S

LEAD = 10
SAMPLE = 40


def log_and_mark(run: shmlog.Run, name: str, notes: memoryview, lead: int) -> None:
    """Log step = value = 0, 1, 2 …, with marks around the last."""
    kill, pid, stop = os.kill, os.getpid(), signal.SIGSTOP
    metric = run.metric(name)
    for i in range(lead):
        metric(float(i), i)
        notes[0] += 1
    kill(pid, stop)
    metric(float(lead), lead)
    kill(pid, stop)


def start(stage: ExtensionStage, run: shmlog.Run, name: str, lead: int) -> Victim:
    """Fork a child, and have it log up to its mark."""
    mapped = map_notes(stage.folder / "notes")
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            gc.disable()
            signal.alarm(int(TIMEOUT_S))
            stage.stepper.stepper_offer()
            log_and_mark(run, name, memoryview(mapped).cast("Q"), lead)
        os._exit(0)
    victim = Victim(stage.stepper, "scalar", name, pid, mapped)
    assert stage.stepper.stepper_take(pid) == MARKED
    return victim


def main(folder: str, root: str, seed: str) -> None:
    """Kill a child at every instruction of a steady call, and at some of its first one. Tells what was logged."""
    stage = ExtensionStage(Path(folder))
    names: list[str] = []
    offered = 0
    with shmlog.init("steps", root=root, lanes=4, lane_records=4096) as run:
        for lead in (LEAD, 0):
            route = trace(stage, start(stage, run, f"traced{lead}", lead))
            offered += lead + 1
            points = range(len(route) + 1)
            chosen = points if lead else sorted(random.Random(int(seed)).sample(points, SAMPLE))
            for point in chosen:
                victim = start(stage, run, f"v{lead}.{point}", lead)
                victim.go_to(point, route)
                assert victim.kill().returned == lead
                names.append(victim.who)
                offered += lead + 1
    print(json.dumps({"run_dir": str(run.dir), "names": names, "offered": offered, "killed": len(names) + 2}))


def trace(stage: ExtensionStage, victim: Victim) -> Route:
    route = stage.cut(stage.trace(victim))
    victim.kill()
    return route
