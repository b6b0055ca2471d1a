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
from multiprocessing import connection, get_context, parent_process, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import TYPE_CHECKING

import shmlog
from shmlog.demo.corpus import Vocabulary, windows

CONTEXT = 8
WINDOWS_PER_FILE = 128
STOP_TIMEOUT_S = 5.0

if TYPE_CHECKING:
    Reader = connection.Connection[bytes, bytes]
    Writer = connection.Connection[bytes, bytes]


@dataclass(frozen=True)
class Task:
    """What one worker is to do.

    Parameters
    ----------
    files : sequence of Path
        What it reads, again and again, each time in another order.
    """

    index: int
    files: Sequence[Path]
    vocabulary: Vocabulary
    seed: int


class Shared:
    """Numbers that the processes share: a count per worker and the word to stop.

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
        """Tell all workers to end after the file at hand."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether the workers shall end."""
        return bool(self._stop[0])


def work(task: Task, writer: Writer, shared: Shared) -> None:
    """Be a worker, until told to stop or until the trainer is gone."""
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


@dataclass
class Worker:
    """The trainer's view of one worker."""

    index: int
    process: BaseProcess
    reader: Reader
    killed: bool = False

    @property
    def name(self) -> str:
        """The worker's name in reports."""
        return f"worker {self.index}"

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.process.pid or 0


class Crew:
    """The workers of one run, each behind a pipe of its own.

    A pipe is a bounded queue: a worker that is ahead by some 64 KiB waits in
    ``send_bytes``, which its ``queue_time`` shows. One pipe for each, because a
    worker killed inside a queue that is shared would take the queue's lock with it.
    """

    def __init__(self, tasks: Sequence[Task], start_method: str | None = None) -> None:
        self.shared = Shared(len(tasks))
        self.workers: list[Worker] = []
        self._open: dict[Reader, Worker] = {}
        context = get_context(start_method)
        if context.get_start_method() != "fork":
            resource_tracker.ensure_running()  # starting it later would unblock SIGINT, see below
        try:
            for task in tasks:
                self._start(context, task)
        except BaseException:
            self.stop()
            raise

    def _start(self, context: BaseContext, task: Task) -> None:
        reader, writer = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=work, args=(task, writer, self.shared), name=f"worker-{task.index}", daemon=True
        )
        # A Ctrl-C before the worker ignores it would end the worker with a traceback.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            # The next worker must not inherit this end, or a dead worker's pipe never ends.
            writer.close()
        worker = Worker(task.index, process, reader)
        self.workers.append(worker)
        self._open[reader] = worker

    def batches(self) -> Iterator[bytes]:
        """Yield what the workers hand over, as it comes, until the last one is gone."""
        while self._open:
            for reader in connection.wait(list(self._open)):
                batch = self._receive(reader)  # type: ignore[arg-type]
                if batch:
                    yield batch

    def _receive(self, reader: Reader) -> bytes:
        """Return one batch, or nothing when the worker is gone, in the middle of a batch too."""
        try:
            return reader.recv_bytes()
        except (EOFError, OSError):
            del self._open[reader]
            reader.close()
            return b""

    def kill(self, index: int) -> Worker:
        """Kill a worker with SIGKILL and wait for its death."""
        worker = self.workers[index]
        worker.killed = True
        worker.process.kill()
        worker.process.join()
        return worker

    def stop(self) -> None:
        """End all workers: ask, take what still blocks them, and kill those that stay."""
        self.shared.stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._open and time.monotonic() < deadline:
            for reader in connection.wait(list(self._open), timeout=0.1):
                self._receive(reader)  # type: ignore[arg-type]
        for worker in self.workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                self.kill(worker.index)

    def failures(self) -> list[str]:
        """Return a sentence for each worker that ended badly by itself."""
        return [
            f"{worker.name} (pid {worker.pid}) ended with exit code {worker.process.exitcode}"
            for worker in self.workers
            if not worker.killed and worker.process.exitcode
        ]
