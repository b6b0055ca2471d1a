"""The trainer's side of the workers: start them, take what they hand over, end them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from shmlog.demo.workers import Shared, Task, work

if TYPE_CHECKING:
    Reader = connection.Connection[bytes, bytes]

STOP_TIMEOUT_S = 5.0


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
        """Return one batch, or nothing if the worker is gone, even in the middle of a batch."""
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
