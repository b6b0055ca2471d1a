"""The calls of the Python extension, stepped: a process of its own, that forks its victims.

The window is from entering the extension to leaving it, so that every
instruction of the shipped fast paths is a point, and none of the interpreter's
around them.
"""

from __future__ import annotations

import array
import gc
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

from shmlog import _core
from tests.faults import crowd, fates
from tests.faults.arena import EXTENDED, LAP, ROUND, TAIL, TAIL_STEP, TEXT, Arena, Peer, event_payload
from tests.faults.stage import Stage
from tests.faults.stepping import SYSTEM_CALL, Route, Victim, map_notes
from tests.support.processes import TIMEOUT_S, run_script

Call = Callable[[], object]


def value_of(step: int) -> float:
    return step / 2 + 0.25


class Logger:
    """What a victim runs after it was forked."""

    def __init__(self, stage: Stage, arena: Arena, notes: memoryview) -> None:
        self.stage = stage
        self.arena = arena
        self.notes = notes
        self.producer = Peer(arena.who)
        self.metric: _core.Metric | None = None
        self.step = 0

    def join(self) -> None:
        self.producer._join(self.arena.segment, str(self.arena.path), True, 0)

    def log(self, step: int) -> None:
        assert self.metric
        self.metric(value_of(step), step)
        self.returned()

    def returned(self) -> None:
        self.notes[0] += 1
        self.notes[1] = self.producer._counts()["lane"] + 1

    def log_next(self) -> None:
        self.log(self.step)
        self.step += 1

    def run(self, case: str, rounds: int) -> None:
        kill, pid, stop = os.kill, os.getpid(), signal.SIGSTOP
        if case != "attach":
            self.join()
            self.metric = self.producer.metric("v.x")
        for round in range(rounds):
            for _ in range(ROUND):
                self.log_next()
            if round + 1 < rounds:
                kill(pid, stop)
        call = getattr(self, case)()
        kill(pid, stop)
        call()
        self.notes[0] += 1
        kill(pid, stop)
        for i in range(TAIL if case != "detach" else 0):
            self.log(TAIL_STEP + i)

    # Each prepares its call, which is what is stepped through.

    def scalar(self) -> Call:
        metric, value, step = self.metric, value_of(self.step), self.step
        assert metric
        return lambda: metric(value, step)

    def log_name(self) -> Call:
        log, value, step = self.producer.log, value_of(self.step), self.step
        return lambda: log("v.x", value, step)

    def half(self) -> Call:
        while self.producer._positions()[0][1] % (LAP // 2):
            self.log_next()
        return self.scalar()

    def full(self) -> Call:
        while self.arena.segment.lane(0)["head"] - self.arena.segment.lane(0)["tail"] < LAP:
            self.log_next()
        return self.scalar()

    def new_name(self) -> Call:
        log, value, step = self.producer.log, value_of(self.step), self.step
        return lambda: log("v.new", value, step)

    def row(self) -> Call:
        log, step = self.producer.log, self.step
        values = {"v.0": value_of(step), "v.1": step, "v.2": TEXT.decode(), "v.3": True}
        for name in values:
            self.producer.metric(name)
        return lambda: log(values, step)

    def numbers(self) -> Call:
        log, step = self.producer.log, self.step
        values = {"v.0": value_of(step), "v.1": step, "v.2": -0.0}
        for name in values:
            self.producer.metric(name)
        return lambda: log(values, step)

    def event(self) -> Call:
        put, payload = self.producer._put_event, event_payload(self.step)
        return lambda: put("v.x", payload)

    def extend(self) -> Call:
        assert self.metric
        steps = range(self.step, self.step + EXTENDED)
        metric, values, numbers = self.metric, array.array("d", map(value_of, steps)), array.array("q", steps)
        return lambda: metric.extend(values, numbers)

    def flush(self) -> Call:
        return self.producer._request_sync

    def attach(self) -> Call:
        def call() -> None:
            self.join()
            self.metric = self.producer.metric("v.x")
            self.metric(value_of(0), 0)

        return call

    def detach(self) -> Call:
        return self.producer._leave


class ExtensionStage(Stage):
    """A place for victims that are children of this process, and log with the extension."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._core = code_of(_core.__file__)

    def logger(self, arena: Arena, notes: memoryview) -> Logger:
        """Return what a victim runs."""
        return Logger(self, arena, notes)

    def start(self, arena: Arena, case: str, rounds: int) -> Victim:
        mapped = map_notes(arena.folder / "notes")
        pid = os.fork()
        if pid == 0:
            try:
                gc.disable()
                signal.alarm(int(TIMEOUT_S))  # one that hangs is to fail the test
                logger = self.logger(arena, memoryview(mapped).cast("Q"))
                self.stepper.stepper_offer()
                os.kill(os.getpid(), signal.SIGSTOP)
                logger.run(case, rounds)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(2)
        assert self.stepper.stepper_take(pid) > 0
        return Victim(self.stepper, case, arena.who, pid, mapped)

    def cut(self, traced: list[int]) -> Route:
        """Leave out what comes before the extension is entered, and after it is left."""
        begin, end = self._core
        inside = [i for i, address in enumerate(traced) if begin <= address & ~SYSTEM_CALL < end]
        return Route(traced, inside[0], inside[-1] + 1)


def code_of(library: str) -> tuple[int, int]:
    """Return the addresses between which the code of a library lies in this process and its children."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode, *_, path = line.split()
        if path == library and "x" in mode:
            begin, end = span.split("-")
            return int(begin, 16), int(end, 16)
    raise AssertionError(f"{library} is not mapped")


SCRIPT = "import sys; from tests.faults.extension import main; main(*sys.argv[1:])"
HOURS_S = 4 * 3600.0


def run_main(folder: Path, place: str, fate: str, case: str, seed: int, size: fates.Size, *, cwd: Path) -> None:
    """Run main() in a process of its own."""
    timeout = TIMEOUT_S if size == "sample" else HOURS_S
    done = run_script(SCRIPT, folder, place, fate, case, str(seed), size, cwd=cwd, timeout=timeout)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


def main(folder: str, place: str, fate: str, case: str, seed: str, size: fates.Size) -> None:
    """Have victims meet a fate at points of a case, among idle peers or in a "crowd"."""
    stage = ExtensionStage(Path(folder))
    points = fates.points_of(stage, case, int(seed), size)
    if place == "crowd":
        crowd.meet(getattr(crowd, fate), stage, case, points)
    else:
        fates.meet(getattr(fates, fate), stage, case, points)
