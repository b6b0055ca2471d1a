"""A run whose file operations are recorded, and what it logs: ``power_workload.py ROOT MARKS``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PHASES = 5
STEPS = 40
EVENT_EVERY = 10
TRIES = 20
LARGE = 40_000
"""Bytes of a text that is too large for the ring of this run, so that it gets a file of its own."""

FLUSHER = """
import os, sys
from pathlib import Path
from shmlog.flusher import loop, merger
from shmlog.flusher.__main__ import main
from shmlog.flusher.process import START_LOCK
os.dup2(int(sys.argv[2]), START_LOCK)
loop.LOG_BYTES_MAX = 4 << 10
merger.FAN_IN = 2
main(Path(sys.argv[1]))
"""


def value(who: str, step: int) -> float | int | bool | str:
    """Return what a process logs at a step."""
    if step == STEPS + 7:
        return f"{who} {step} " * (LARGE // 6)
    return (step / 8, step * 3, step % 2 == 0, f"{who}{step % 97}", f"a text of {who} at step {step}")[step % 5]


def artifact(phase: int) -> bytes:
    """Return what every process logs as an artifact at the end of a phase."""
    return f"what phase {phase} has come to\n".encode() * 200


def _start_flusher(layout: Any, segment: Any) -> None:
    lock = segment.mark_starting()
    with open(layout.flusher_log, "ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-c", FLUSHER, str(layout.dir), str(lock)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True, pass_fds=[lock],
        )  # fmt: skip
    segment.mark_started(lock)


def _work(run: Any, who: str, phase: int, marks: int, sources: Path) -> None:
    for step in range(phase * STEPS, (phase + 1) * STEPS):
        run.log(f"x-{who}", value(who, step), step=step)
        if step % EVENT_EVERY == 0:
            run.event("at", {"who": who, "step": step})
    is_durable = phase % 2 == 0
    if is_durable:
        source = sources / f"{who}-{phase}"
        source.write_bytes(artifact(phase))
        run.log_artifact(source, f"{who}/{phase}")
    # Under strace on a busy machine a flusher takes its time to start.
    assert any(run.flush(durable=is_durable, timeout=60) for _ in range(TRIES))
    if is_durable:
        told = {"who": who, "steps": (phase + 1) * STEPS}
        os.write(marks, json.dumps(told).encode())


def main(root: Path, marks_path: Path, sinks: list[str]) -> None:
    """Log in two processes, lose a flusher, finish."""
    import shmlog.flusher.process
    import shmlog.run.start

    shmlog.flusher.process.start_flusher = _start_flusher
    shmlog.run.start.start_flusher = _start_flusher
    marks = os.open(marks_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    run = shmlog.init("power", root=root, config={"lr": 0.5}, lane_records=2048, sinks=sinks)
    for phase in range(PHASES):
        _work(run, "a", phase, marks, marks_path.parent)
        pid = os.fork()
        if pid == 0:
            # The child continues as another producer with a lane of its own.
            _work(run, f"b{phase}", 0, marks, marks_path.parent)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        if phase == 1:
            run.log_config({"phase": phase})
            _kill_flusher(run)
        elif phase >= 2:
            time.sleep(0.3)  # to be sealed
    assert run.finish()
    os.write(marks, json.dumps({"who": "a", "steps": PHASES * STEPS, "finished": True}).encode())


def _kill_flusher(run: Any) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"loop.LOG_BYTES_MAX" in command and os.fsencode(run.dir) in command:
                os.kill(int(entry.name), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(","))
