"""Read a source in a process of its own, which may end or run out of memory instead of this one.

A warm process, which has imported what importers need, forks one for each source, and ends with this one. What that has
found comes back in two files that have no names: the records as an Arrow stream, and JSON lines, of which
the first says all else, and the rest are the events. The limits keep a source from hurting; they are no sandbox.
"""

from __future__ import annotations

import array
import atexit
import errno
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.ipc

from shmlog import errors
from shmlog.base.spawn import IMPORT_PATH, helper_command, helper_environment
from shmlog.errors import CorruptDataError, StorageError
from shmlog.folder.description import Description
from shmlog.transfer.found import Found, Problems

BYTES_MAX = 6 << 30
"""Of memory, that reading a source may take unless it is trusted."""

SECONDS_PER_GIB = 600
"""Of work, for each GiB of memory that it may take: some twenty times what reading that much takes."""

_TOLD = ("experiment", "params", "annotations", "status")
_PLACES = ("artifacts", "files")
_SAID_BYTES_MAX = 1 << 16
_ANSWER_BYTES_MAX = 16
_TRUSTED = "if you trust it, raise the limit: import_run(…, max_bytes=…), shmlog import --max-gib …"


class Order(NamedTuple):
    """What a process is to do; with it go three descriptors: for the records, all else, and its standard output."""

    format: str
    source: str
    max_bytes: int
    seconds: int


def read_apart(format: str, path: Path, max_bytes: int) -> Found:
    """Return what a source of that format tells.

    Raises
    ------
    CorruptDataError
        If nothing of it can be read, or that takes more memory or time than it may.
    MissingExtraError
        If a package for the format is missing.
    StorageError
        If there is no room for what is found, or no process can be started.
    """
    if not sys.executable:
        raise StorageError(f"{path}: sys.executable is empty: no process can be started that reads it")
    seconds = -(-max_bytes // (1 << 30)) * SECONDS_PER_GIB
    order = Order(format, str(path), max_bytes, seconds)
    with ExitStack() as stack:
        try:
            files = table, told, said = tuple(stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            code = _run(order, files)
        except OSError as error:
            raise StorageError(f"{path}: no process can be started that reads it ({error})") from error
        said.seek(0)
        words = said.read(_SAID_BYTES_MAX).decode("utf-8", "replace")
        if code:
            raise CorruptDataError(f"{path}: refused, since {_fate(order, code, words)}")
        if words and sys.stderr:
            sys.stderr.write(words)
        return _take(order, table, told)


# ---- the warm process ----


class _Reader:
    """A process that takes one order after the other, each in a fork of its own."""

    def __init__(self, surroundings: tuple[str, ...], said: IO[bytes]) -> None:
        self.surroundings = surroundings
        self._is_warm = False
        self._orders, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self._process = subprocess.Popen(
                surroundings[:-1], env=helper_environment(), stdin=its_end.fileno(), stdout=said, stderr=said, cwd="/"
            )

    def read(self, order: Order, files: tuple[IO[bytes], ...]) -> int | None:
        """Return the exit code of the process that reads, or None if another reader is to be asked."""
        descriptors = array.array("i", [file.fileno() for file in files])
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)
        try:
            self._orders.sendmsg([json.dumps(order).encode()], [rights], socket.MSG_NOSIGNAL)
            answer = self._orders.recv(_ANSWER_BYTES_MAX)
        except ConnectionError:
            answer = b""
        except BaseException:
            self.end()
            raise
        if not answer:  # it has ended, while it waited or by a signal: a new one tells why, if it does so too
            code = self.end()
            return None if self._is_warm else code
        self._is_warm = True
        _idle.append(self)
        return int(answer)

    def end(self) -> int:
        """End the process, and with it what it has forked; return its exit code. In a fork of ours, nothing ends."""
        self._orders.close()
        self._process.kill()
        return self._process.wait()


_idle: list[_Reader] = []  # those that wait for an order; threads share it


def _run(order: Order, files: tuple[IO[bytes], ...]) -> int:
    """Return the exit code of the process that reads; it is ended when this one is interrupted."""
    command = helper_command("shmlog.transfer.importers", str(os.getpid()))
    surroundings = (*command, helper_environment()[IMPORT_PATH])
    code = None
    while code is None:
        try:
            reader = _idle.pop()
        except IndexError:
            reader = _Reader(surroundings, files[-1])
        if reader.surroundings == surroundings:
            code = reader.read(order, files)
        else:  # of the process that this one is a fork of, or what can be imported has changed
            reader.end()
    return code


@atexit.register
def end_readers() -> None:
    """End the processes that wait for an order."""
    while _idle:
        _idle.pop().end()


# ---- what it hands over, in that process ----


def hand_over(found: Found, table: IO[bytes], told: IO[bytes]) -> None:
    """Write what was found; raises StorageError, and MemoryError if it is larger than it may be."""
    records = found.table()
    try:
        with pa.ipc.new_stream(table, records.schema) as stream:
            stream.write_table(records)
        head = {name: getattr(found, name) for name in _TOLD} | {"described": found.described.mapping}
        head |= {name: {key: str(path) for key, path in getattr(found, name).items()} for name in _PLACES}
        head |= {"problems": list(found.problems), "events": len(found.events)}
        for line in (head, *found.events):
            told.write(json.dumps(line).encode() + b"\n")
        table.flush()
        told.flush()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise MemoryError from error
        text = f"no room for what was read ({error.strerror}); TMPDIR says where there is more"
        raise StorageError(error.errno, text, tempfile.gettempdir()) from error


def hand_over_error(error: Exception, told: IO[bytes]) -> None:
    """Write why nothing was found instead."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    name = "MemoryError" if any(isinstance(one, MemoryError) for one in causes) else type(error).__name__
    arguments: list[Any] = [str(error)]
    if isinstance(error, OSError) and error.errno is not None:
        arguments = [error.errno, error.strerror, error.filename]
    trace = "".join(traceback.format_exception(error))
    line = {"events": 0, "error": name, "arguments": arguments, "trace": trace}
    told.seek(0)
    told.truncate()
    told.write(json.dumps(line, default=str).encode() + b"\n")
    told.flush()


# ---- and how it is taken, in this one ----


def _take(order: Order, table: IO[bytes], told: IO[bytes]) -> Found:
    head, *events = _lines(order, told)
    if "error" in head:
        _raise(order, **head)
    described, problems = Description(head.pop("described")), Problems()
    for text in head.pop("problems"):
        problems.add(text, text)
    for name in _PLACES:
        head[name] = {key: Path(place) for key, place in head[name].items()}
    # The pages of the file are this process's memory only as long as there is room for them.
    data = mmap.mmap(table.fileno(), 0, access=mmap.ACCESS_READ)
    with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
        return Found(described=described, metrics=stream.read_all(), events=events, problems=problems, **head)


def _lines(order: Order, told: IO[bytes]) -> list[dict[str, Any]]:
    """Return all that was told; raises CorruptDataError if that is not all that there was to tell."""
    told.seek(0)
    try:
        lines = [json.loads(line) for line in told]
    except ValueError:
        lines = []
    if not lines or len(lines) != 1 + lines[0].pop("events"):
        # Its exit code is lost where SIGCHLD is ignored.
        raise CorruptDataError(f"{order.source}: refused, since what reads it has ended before it was done")
    return lines


def _raise(order: Order, error: str, arguments: list[Any], trace: str) -> NoReturn:
    """Raise what the process has written of its error."""
    if error == "MemoryError":
        raise CorruptDataError(f"{order.source}: refused, since {_too_much(order)}")
    known: Any = getattr(errors, error, None if len(arguments) == 1 else OSError)
    if known is None:
        bug = CorruptDataError(f"{order.source}: cannot be read ({error}: {arguments[0]})")
        bug.add_note(trace)
        raise bug
    raise known(*arguments)


def _fate(order: Order, code: int, words: str) -> str:
    """Return how the process has ended that did not live to tell."""
    if code == -signal.SIGXCPU:
        return f"reading it takes more than {order.seconds:,} s; {_TRUSTED}"
    if code == -signal.SIGKILL:
        return f"the system has ended what reads it, as it does when memory is short: {_too_much(order)}"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"it ends what reads it ({how}; {words.strip().rpartition(chr(10))[2]})"


def _too_much(order: Order) -> str:
    return f"reading it takes more than the {order.max_bytes:,} bytes of memory that an import may take; {_TRUSTED}"
