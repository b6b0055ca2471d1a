"""The demo: worker processes and a trainer log one real training into one run."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import shmlog
from shmlog.demo import books
from shmlog.demo.corpus import Vocabulary, stdlib_files
from shmlog.demo.crew import Crew
from shmlog.demo.workers import CONTEXT, WINDOWS_PER_FILE, Task

if TYPE_CHECKING:
    from shmlog import Run

SAMPLE_FILES = 60


@dataclass(frozen=True)
class DemoOptions:
    """Choices of the user.

    Parameters
    ----------
    start_method : str or None
        ``fork``, ``spawn`` or ``forkserver``; None is Python's own default.
    kill_a_worker : bool
        Kill one worker with SIGKILL midway. Needs a second one that goes on.
    """

    root: Path = Path("runs")
    workers: int = 2
    steps: int = 200
    start_method: str | None = None
    kill_a_worker: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kill_a_worker and self.workers < 2:
            raise ValueError("to kill a worker and go on, the demo needs at least 2 workers")


@dataclass(frozen=True)
class Result:
    """The result of a demo, read back from the run folder."""

    run_dir: Path
    status: str
    seconds: float
    accounts: list[books.Account]
    metrics: int
    events: int
    dropped: dict[str, int]
    first_loss: float
    last_loss: float
    files: list[tuple[str, int]]
    failures: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing was dropped, the books balance and no worker failed."""
        balanced = all(account.balanced for account in self.accounts)
        return balanced and not self.failures and not sum(self.dropped.values())


def run_demo(options: DemoOptions, say: Callable[[str], None]) -> Result:
    """Train with ``options``, and return what is on disk afterwards.

    ``say`` takes a line for the user now and then.
    """
    start = time.perf_counter()
    files = stdlib_files()
    random.Random(options.seed).shuffle(files)
    vocabulary = Vocabulary.of(path.read_bytes() for path in files[:SAMPLE_FILES])
    with shmlog.init("demo", root=options.root, tags=["demo"]) as run:
        say(f"run {run.dir}")
        claims, failures = train_with_workers(run, options, files, vocabulary, say)
    return _result(Path(run.dir), claims, failures, time.perf_counter() - start)


def train_with_workers(
    run: Run, options: DemoOptions, files: Sequence[Path], vocabulary: Vocabulary, say: Callable[[str], None]
) -> tuple[list[books.Claim], list[str]]:
    """Start the workers, train, end the workers; return what each process claims to have logged, and failures."""
    # One thread: the workers have the other cores. Python 3.12 and later warn of a fork beside
    # the threads of a matrix library, so numpy comes after the workers.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    crew = Crew(_tasks(options, files, vocabulary), options.start_method)
    try:
        from shmlog.demo import trainer
        from shmlog.demo.model import LanguageModel

        model = LanguageModel(len(vocabulary), CONTEXT, seed=options.seed)
        run.log_config(_config(options, files, vocabulary, model.size))
        say(f"{options.workers} workers tokenise {len(files)} files, the model has {model.size} weights")
        kill_at = options.steps // 2 if options.kill_a_worker else None
        training = trainer.train(run, crew, model, options.steps, kill_at, say)
    finally:
        crew.stop()
    run.log_result({"loss": training.losses[-1], "steps": training.steps})
    workers = [books.Claim(w.name, w.pid, crew.shared.logged(w.index), w.killed) for w in crew.workers]
    return [books.Claim("trainer", os.getpid(), training.records), *workers], crew.failures()


def _tasks(options: DemoOptions, files: Sequence[Path], vocabulary: Vocabulary) -> list[Task]:
    """Deal the files out to the workers."""
    return [
        Task(index, files[index :: options.workers] or files, vocabulary, options.seed)
        for index in range(options.workers)
    ]


def _config(options: DemoOptions, files: Sequence[Path], vocabulary: Vocabulary, weights: int) -> dict[str, object]:
    from shmlog.demo import trainer

    return {
        "workers": options.workers,
        "steps": options.steps,
        "start_method": options.start_method or multiprocessing.get_start_method(),
        "seed": options.seed,
        "files": len(files),
        "files_per_step": trainer.FILES_PER_STEP,
        "windows_per_file": WINDOWS_PER_FILE,
        "context": CONTEXT,
        "vocabulary": len(vocabulary),
        "weights": weights,
        "learning_rate": trainer.LEARNING_RATE,
    }


def _result(run_dir: Path, claims: list[books.Claim], failures: list[str], seconds: float) -> Result:
    stored = shmlog.load(run_dir)
    accounts = books.balance(stored, claims)
    first, last = books.loss_at_ends(stored)
    return Result(
        run_dir=run_dir,
        status=stored.status,
        seconds=seconds,
        accounts=accounts,
        metrics=sum(account.on_disk for account in accounts),
        events=len(stored.events()),
        dropped=stored.dropped,
        first_loss=first,
        last_loss=last,
        files=books.files(run_dir),
        failures=failures,
    )
