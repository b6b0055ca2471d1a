"""What starts workers and keeps them, each kind behind the same three methods.

``begin(workers)`` starts them, ``start(job, calls)`` hands out calls and returns
what waits for their results, ``end()`` ends the workers.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tests.support.followers import jobs

Job = Callable[..., Any]
Calls = Sequence[tuple[Any, ...]]
Collect = Callable[[], list[Any]]

_numbers = itertools.count()


class Crew(Protocol):
    def begin(self, workers: int) -> None: ...

    def start(self, job: Job, calls: Calls) -> Collect: ...

    def end(self) -> None: ...


class Pool:
    def __init__(self, method: str, folder: Path) -> None:
        self._context = multiprocessing.get_context(method)

    def begin(self, workers: int) -> None:
        self._pool = self._context.Pool(workers)

    def start(self, job: Job, calls: Calls) -> Collect:
        return self._pool.starmap_async(job, calls, chunksize=1).get

    def end(self) -> None:
        self._pool.close()
        self._pool.join()


class Executor:
    def __init__(self, method: str, folder: Path) -> None:
        self._context = multiprocessing.get_context(method)

    def begin(self, workers: int) -> None:
        self._executor = ProcessPoolExecutor(workers, mp_context=self._context)
        self._executor.submit(jobs.nothing).result()  # it starts workers when they are needed

    def start(self, job: Job, calls: Calls) -> Collect:
        futures = [self._executor.submit(job, *call) for call in calls]
        return lambda: [future.result() for future in futures]

    def end(self) -> None:
        self._executor.shutdown()


class Joblib:
    """Processes of loky, which all of a program's `Parallel` share, or threads."""

    def __init__(self, backend: str, folder: Path) -> None:
        self._backend = backend

    def begin(self, workers: int) -> None:
        self._workers = max(workers, 2)  # one is the caller itself
        self.start(jobs.nothing, [()] * self._workers)()

    def start(self, job: Job, calls: Calls) -> Collect:
        from joblib import Parallel, delayed  # slow to import, and with numpy

        parallel = Parallel(self._workers, backend=self._backend, return_as="generator", batch_size=1)
        results = parallel(delayed(job)(*call) for call in calls)
        return lambda: list(results)

    def end(self) -> None:
        if self._backend == "loky":
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown()


class Loader:
    """The life of torch's DataLoader: forked workers with a queue each, kept over epochs or ended with each."""

    def __init__(self, persistent: bool, folder: Path) -> None:
        self._persistent = persistent

    def begin(self, workers: int) -> None:
        self._count = workers
        if self._persistent:
            self._launch()

    def start(self, job: Job, calls: Calls) -> Collect:
        if not self._persistent:
            self._launch()
        for index, call in enumerate(calls):
            self._indices[index % self._count].put((index, job, call))
        return lambda: self._collect(len(calls))

    def end(self) -> None:
        if self._persistent:
            self._shut_down()

    def _launch(self) -> None:
        context = multiprocessing.get_context("fork")
        self._results = context.Queue()
        self._indices = [context.Queue() for _ in range(self._count)]
        self._workers = [
            context.Process(target=self._work, args=(indices, self._results), daemon=True) for indices in self._indices
        ]
        for worker in self._workers:
            worker.start()

    @staticmethod
    def _work(indices: Any, results: Any) -> None:
        for index, job, call in iter(indices.get, None):
            try:
                results.put((index, job(*call)))
            except Exception as error:  # it is raised where the results are collected
                results.put((index, error))

    def _collect(self, count: int) -> list[Any]:
        found = dict(self._results.get() for _ in range(count))
        if not self._persistent:
            self._shut_down()
        for error in found.values():
            if isinstance(error, Exception):
                raise error
        return [found[index] for index in range(count)]

    def _shut_down(self) -> None:
        for indices in self._indices:
            indices.put(None)
        for worker in self._workers:
            worker.join()


class _Connected:
    """Processes that take calls from a connection of their own."""

    def __init__(self, folder: Path) -> None:
        self._address = str(folder / f"{next(_numbers)}.socket")
        self._connections: list[Connection] = []

    def start(self, job: Job, calls: Calls) -> Collect:
        turns = [self._connections[index % len(self._connections)] for index in range(len(calls))]
        for connection, call in zip(turns, calls, strict=True):
            connection.send((job, call))
        return lambda: [connection.recv() for connection in turns]

    def end(self) -> None:
        for connection in self._connections:
            connection.send(None)
            connection.close()


class NestedFork(_Connected):
    """Children of children."""

    def begin(self, workers: int) -> None:
        self._pids = []
        for _ in range(workers):
            ours, theirs = multiprocessing.Pipe()
            self._connections.append(ours)
            self._pids.append(jobs.fork(partial(self._be_middle, theirs)))
            theirs.close()

    def end(self) -> None:
        super().end()
        for pid in self._pids:
            os.waitpid(pid, 0)

    def _be_middle(self, connection: Connection) -> None:
        for ours in self._connections:
            ours.close()
        pid = jobs.fork(partial(jobs.serve, connection))
        connection.close()
        os.waitpid(pid, 0)


class Script(_Connected):
    """Another program, started by `subprocess`."""

    def begin(self, workers: int) -> None:
        command = [sys.executable, "-m", "tests.support.followers.script", self._address]
        with Listener(self._address) as listener:
            self._processes = [subprocess.Popen(command) for _ in range(workers)]
            self._connections = [listener.accept() for _ in self._processes]

    def end(self) -> None:
        super().end()
        for process in self._processes:
            process.wait()


class Actor(_Connected):
    """Processes of a server that was there before and is no parent of ours, as those of Ray."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        subprocess.run([sys.executable, "-m", "tests.support.followers.server", self._address], check=True)
        self._control = Client(self._address)

    def begin(self, workers: int) -> None:
        self._control.send(workers)
        self._connections = [Client(self._address) for _ in range(workers)]

    def end(self) -> None:
        super().end()
        self._control.close()


class Prefork:
    """A server as gunicorn: forked workers that take turns at one listening socket."""

    def __init__(self, folder: Path) -> None:
        self._listener = Listener(str(folder / f"{next(_numbers)}.socket"), backlog=16)

    def begin(self, workers: int) -> None:
        self._pids = [jobs.fork(self._be_worker) for _ in range(workers)]

    def start(self, job: Job, calls: Calls) -> Collect:
        connections = []
        for call in calls:
            connections.append(Client(self._listener.address))
            connections[-1].send((job, call))
        return lambda: [self._receive(connection) for connection in connections]

    def end(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)

    def _be_worker(self) -> None:
        while True:
            with self._listener.accept() as connection:
                jobs.serve(connection)

    @staticmethod
    def _receive(connection: Connection) -> Any:
        with connection:
            return connection.recv()


class Kind(NamedTuple):
    """A kind of workers, and what holds for it alone."""

    make: Callable[[Path], Crew]
    inherits: bool = False  # workers are forks that are kept, so they have the parent's objects
    kept: bool = True  # workers outlive what is asked of them at once
    processes: bool = True  # else workers are threads of the parent
    descends: bool = True  # else workers know only what comes with a task


KINDS = {
    "pool-fork": Kind(partial(Pool, "fork"), inherits=True),
    "pool-spawn": Kind(partial(Pool, "spawn")),
    "pool-forkserver": Kind(partial(Pool, "forkserver")),
    "executor-fork": Kind(partial(Executor, "fork"), inherits=True),
    "executor-spawn": Kind(partial(Executor, "spawn")),
    "joblib-loky": Kind(partial(Joblib, "loky")),
    "joblib-threading": Kind(partial(Joblib, "threading"), processes=False),
    "loader-persistent": Kind(partial(Loader, True), inherits=True),
    "loader": Kind(partial(Loader, False), kept=False),
    "actor": Kind(Actor, descends=False),
    "prefork": Kind(Prefork, inherits=True),
    "subprocess": Kind(Script),
    "nested-fork": Kind(NestedFork, inherits=True),
}
