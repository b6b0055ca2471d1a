"""The demo's trainer: fit the language model on the workers' batches, and log each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from shmlog import ShmlogError
from shmlog.demo.crew import Crew
from shmlog.demo.model import Adam, LanguageModel, Tokens
from shmlog.demo.workers import CONTEXT

if TYPE_CHECKING:
    from shmlog import Run

FILES_PER_STEP = 20
LEARNING_RATE = 3e-3
PROGRESS_LINES = 10
PROGRESS_STEPS = 100


@dataclass
class Training:
    """What a training has done so far."""

    steps: int
    losses: list[float] = field(default_factory=list)
    records: int = 0


def train(
    run: Run, crew: Crew, model: LanguageModel, steps: int, kill_at: int | None, say: Callable[[str], None]
) -> Training:
    """Fit ``model`` for ``steps`` steps; kill the first worker at step ``kill_at``.

    Raises
    ------
    ShmlogError
        If no worker is left before the last step.
    """
    training = Training(steps)
    adam = Adam(model.parameters, LEARNING_RATE)
    batches = crew.batches()
    for step in range(steps):
        if step == kill_at:
            worker = crew.kill(0)
            say(f"step {step}: killed {worker.name} (pid {worker.pid}) with SIGKILL; the others go on")
        start = time.perf_counter()
        loss, gradients = model.gradients(_gather(batches, crew, step))
        adam.step(gradients)
        _log_step(run, training, step, loss, time.perf_counter() - start)
        _log_progress(run, training, say)
    return training


def _gather(batches: Iterator[bytes], crew: Crew, step: int) -> Tokens:
    """Return the windows of the next ``FILES_PER_STEP`` files."""
    parts = list(islice(batches, FILES_PER_STEP))
    if len(parts) < FILES_PER_STEP:
        raise ShmlogError("; ".join([f"no worker is left at step {step}", *crew.failures()]))
    return np.frombuffer(b"".join(parts), dtype=np.uint16).reshape(-1, CONTEXT + 1)


def _log_step(run: Run, training: Training, step: int, loss: float, seconds: float) -> None:
    values = {"loss": loss, "perplexity": math.exp(loss), "step_time": seconds}
    run.log(values, step=step)
    training.losses.append(loss)
    training.records += len(values)


def _log_progress(run: Run, training: Training, say: Callable[[str], None]) -> None:
    """Log and print the progress, some ten times in all, or more often in a long training."""
    done, steps = len(training.losses), training.steps
    if done % max(1, min(steps // PROGRESS_LINES, PROGRESS_STEPS)) and done != steps:
        return
    loss = training.losses[-1]
    run.log_progress(done, steps, {"loss": loss})
    say(f"step {done}/{steps}  loss {loss:.3f}  perplexity {math.exp(loss):.1f}")
