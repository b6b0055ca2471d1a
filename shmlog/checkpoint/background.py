"""Saving in the background: a snapshot in memory, and a process that writes it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from shmlog.base.spawn import helper_command, helper_environment
from shmlog.checkpoint.container import write_all
from shmlog.errors import StorageError

_NAP_S = 0.005
_REAP_S = 1.0
_ANSWER_BYTES = 1 << 16


class Writer:
    """A process that writes one snapshot.

    Every method may be called again, also by a signal handler that has interrupted
    the same method: asking consumes nothing.

    Raises
    ------
    StorageError
        If there is no memory for the snapshot, or no process can be started.
    """

    def __init__(self, path: Path, chunks: Iterable[memoryview]) -> None:
        self.owner_pid = os.getpid()
        self._path = path
        self._closed = False
        with ExitStack() as failed, ExitStack() as always:

            def keep(fd: int, until: ExitStack) -> int:
                until.callback(os.close, fd)
                return fd

            try:
                # The process prints its answer into a file: a pipe could be read only once.
                self._answer = keep(os.memfd_create("shmlog-answer"), failed)
                self._ended, ended = os.pipe()
                keep(self._ended, failed)
                keep(ended, always)
                snapshot = keep(os.memfd_create("shmlog-checkpoint"), always)
                # A copy, so that training may go on changing the state.
                for chunk in chunks:
                    write_all(snapshot, chunk)
                self._process = _start(path, snapshot, self._answer, ended)
            except OSError as error:
                raise StorageError(
                    f"{path}: cannot be saved in the background ({error.strerror}); use save(), which needs no copy"
                ) from error
            failed.pop_all()

    @property
    def done(self) -> bool:
        """Whether the process has ended, well or not."""
        try:
            # A child that was forked meanwhile may hold the pipe open: then the process itself is asked.
            return self._closed or bool(select.select([self._ended], [], [], 0)[0]) or self._process.poll() is not None
        except OSError:  # a signal handler has closed it just now
            return True

    def wait(self, timeout: float | None) -> bool:
        """Wait until the process has ended; return whether it has."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.done:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_NAP_S)
        return True

    def answer(self) -> tuple[str | None, str | None]:
        """Return the SHA-256 of the file, or why there is no file, once the process has ended."""
        lines = os.pread(self._answer, _ANSWER_BYTES, 0).decode("utf-8", "replace").splitlines()
        try:
            answer = json.loads(lines[-1])
            return answer.get("sha256"), answer.get("error")
        except (ValueError, AttributeError, IndexError):
            output = f": {lines[-1]}" if lines else ""
            return None, f"cannot write {self._path}: the process that writes it has died{output}"

    def close(self) -> None:
        """Release the process, after its answer is known."""
        self._closed = True
        deadline = time.monotonic() + _REAP_S
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(_NAP_S)
        os.close(self._answer)
        os.close(self._ended)


def _start(path: Path, snapshot: int, answer: int, ended: int) -> subprocess.Popen[bytes]:
    """Start the process; its end of the pipe ``ended`` closes with it, whoever reaps it."""
    return subprocess.Popen(
        helper_command("shmlog.checkpoint.writer", str(snapshot), os.fspath(path)),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=answer, pass_fds=(snapshot, ended),
        env=helper_environment(), start_new_session=True,
    )  # fmt: skip
