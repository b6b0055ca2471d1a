"""The demo's worker processes: read files, tokenise them, hand windows of tokens to the trainer.

A worker imports the standard library and shmlog alone. It logs what it does
with handles of its own, and counts each call in shared memory before it makes
it, so that after a SIGKILL the trainer knows what must be on disk: that many
records, or one less if the kill came between the count and the commit.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import TYPE_CHECKING

import shmlog
from shmlog.demo.corpus import Vocabulary, windows

CONTEXT = 8
WINDOWS_PER_FILE = 128

if TYPE_CHECKING:
    Writer = connection.Connection[bytes, bytes]


@dataclass(frozen=True)
class Task:
    """The work of one worker.

    Parameters
    ----------
    files : sequence of Path
        Files that it reads again and again, each time in another order.
    """

    index: int
    files: Sequence[Path]
    vocabulary: Vocabulary
    seed: int


class Shared:
    """Numbers that the processes share: a count per worker and the request to stop.

    Without locks, because a worker killed while it holds one would leave it
    locked for ever. Each number has one writer.
    """

    def __init__(self, workers: int) -> None:
        self._logged = RawArray(ctypes.c_int64, workers)
        self._stop = RawArray(ctypes.c_int8, 1)

    def about_to_log(self, worker: int) -> None:
        """Count a call that ``worker`` is about to make."""
        self._logged[worker] += 1

    def logged(self, worker: int) -> int:
        """Return how many calls ``worker`` has begun."""
        return int(self._logged[worker])

    def stop(self) -> None:
        """Ask all workers to end after the file at hand."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether the workers must end."""
        return bool(self._stop[0])


def work(task: Task, writer: Writer, shared: Shared) -> None:
    """Run a worker until the trainer asks it to stop, or is gone."""
    _leave_interrupts_to_the_trainer()
    _end_with_the_trainer()
    run = shmlog.attach(worker=task.index)
    names = ("read_time", "tokenize_time", "queue_time", "files", "bytes")
    handles = {name: run.metric(name) for name in names}
    rng = random.Random(f"{task.seed}/{task.index}")

    def log(name: str, value: float, step: int) -> None:
        shared.about_to_log(task.index)
        handles[name](value, step)

    total = 0
    for count, path in enumerate(_endless(task.files, rng), start=1):
        if shared.stopped:
            break
        total += _feed(path, count, task, writer, rng, log)
        log("files", count, count)
        log("bytes", total, count)
    writer.close()


def _feed(
    path: Path,
    step: int,
    task: Task,
    writer: Writer,
    rng: random.Random,
    log: Callable[[str, float, int], None],
) -> int:
    """Read, tokenise and hand over one file, log what that took, return its size in bytes."""
    start = time.perf_counter()
    text = path.read_bytes()
    read = time.perf_counter()
    batch = windows(task.vocabulary.encode(text), CONTEXT + 1, WINDOWS_PER_FILE, rng)
    tokenized = time.perf_counter()
    if batch:
        writer.send_bytes(batch)
    queued = time.perf_counter()

    log("read_time", read - start, step)
    log("tokenize_time", tokenized - read, step)
    log("queue_time", queued - tokenized, step)
    return len(text)


def _endless(files: Sequence[Path], rng: random.Random) -> Iterator[Path]:
    order = list(files)
    while True:
        rng.shuffle(order)
        yield from order


def _leave_interrupts_to_the_trainer() -> None:
    """Ignore Ctrl-C: the whole process group gets it, and the trainer ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_the_trainer() -> None:
    """Exit when the trainer does, however it dies, also while a full pipe blocks this worker."""
    trainer = parent_process()
    if trainer is None:
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(trainer.sentinel,), daemon=True).start()
