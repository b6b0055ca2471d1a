"""Read a source in a process of its own, which may end or run out of memory instead of this one.

A warm process, which has imported what importers need, forks a reader for each source, and ends with this one. The
reader returns the run in three unnamed files: one holds the records as an Arrow stream, one JSON lines, the first with
all but the records and the events, then one for each event, and one the content of the
artifacts that lie inside a file of the source. The limits prevent harm; they are not a sandbox.
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
from shmlog.errors import CorruptDataError, RefusedError, StorageError
from shmlog.folder.description import Description
from shmlog.transfer.imported import ImportedRun, Problems

BYTES_MAX = 6 << 30
"""Most memory that reading a source may take unless it is trusted."""

SECONDS_PER_GIB = 600
"""Most processor time for each GiB of memory that reading may take: some twenty times what that much takes."""

_FIELDS = ("experiment", "params", "annotations", "of_experiment", "status", "attempts", "further", "identity")
_REPORTS = ("problems", "notes")
_OUTPUT_BYTES_MAX = 1 << 16
_ANSWER_BYTES_MAX = 16
DESCRIPTORS = 4
_TRUSTED = "if you trust it, raise the limit: import_run(…, max_bytes=…), shmlog import --max-gib …"


class Order(NamedTuple):
    """Which source to read. Four descriptors go with it: for records, JSON lines, artifacts, and for the output."""

    format: str
    source: str
    max_bytes: int
    seconds: int


def read_apart(format: str, path: Path, max_bytes: int) -> ImportedRun:
    """Return the run that a source of a format describes.

    Raises
    ------
    CorruptDataError
        If it is damaged.
    RefusedError
        If it can't be read within the limits of memory and time.
    MissingExtraError
        If a package for the format is missing.
    StorageError
        If there is no room for the run, or no process can be started.
    """
    if not sys.executable:
        raise StorageError(f"{path}: no process can be started to read it: sys.executable is empty")
    seconds = -(-max_bytes // (1 << 30)) * SECONDS_PER_GIB
    order = Order(format, str(path), max_bytes, seconds)
    with ExitStack() as stack:
        try:
            files = tuple(stack.enter_context(tempfile.TemporaryFile()) for _ in range(DESCRIPTORS))
            code = _run(order, files)
        except OSError as error:
            raise StorageError(f"{path}: no process can be started to read it ({error})") from error
        *parts, output = files
        output.seek(0)
        text = output.read(_OUTPUT_BYTES_MAX).decode("utf-8", "replace")
        if code:
            raise RefusedError(f"{path}: refused, since {_fate(order, code, text)}")
        if text and sys.stderr:
            sys.stderr.write(text)
        return _receive(order, *parts)


# ---- the warm process ----


class _Reader:
    """A warm process that carries out one order after the other, each in a fork of its own."""

    def __init__(self, surroundings: tuple[str, ...], output: IO[bytes]) -> None:
        self.surroundings = surroundings
        self._is_warm = False
        self._orders, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end:
            self._process = subprocess.Popen(
                surroundings[:-1], env=helper_environment(), stdin=its_end.fileno(), stdout=output, stderr=output,
                cwd="/",
            )  # fmt: skip

    def read(self, order: Order, files: tuple[IO[bytes], ...]) -> int | None:
        """Return the exit code of the fork that reads, or None if the caller must ask another reader."""
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
        if not answer:  # the warm process has ended; if a new one ends before it is warm, its exit code says why
            code = self.end()
            return None if self._is_warm else code
        self._is_warm = True
        _idle.append(self)
        return int(answer)

    def end(self) -> int:
        """End the process and its forks; return its exit code. In a fork of this process, it goes on."""
        self._orders.close()
        self._process.kill()
        return self._process.wait()


_idle: list[_Reader] = []  # readers that wait for an order; threads share them


def _run(order: Order, files: tuple[IO[bytes], ...]) -> int:
    """Return the exit code of the process that reads; when this process is interrupted, that one ends."""
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
        else:  # a reader of the process that forked this one, or one that imports from other folders
            reader.end()
    return code


@atexit.register
def end_readers() -> None:
    """End the readers that wait for an order."""
    while _idle:
        _idle.pop().end()


# ---- what the reader writes ----


def hand_over(run: ImportedRun, table: IO[bytes], lines: IO[bytes], contents: IO[bytes]) -> None:
    """Write the run; raises StorageError, and MemoryError if a file exceeds the limit."""
    records = run.table()
    try:
        with pa.ipc.new_stream(table, records.schema) as stream:
            stream.write_table(records)
        head = {name: getattr(run, name) for name in _FIELDS} | {"described": run.described.mapping}
        head["files"] = {name: str(path) for name, path in run.files.items()}
        head["artifacts"] = {name: _place(content, contents) for name, content in run.artifacts.items()}
        head |= {name: list(getattr(run, name)) for name in _REPORTS} | {"events": len(run.events)}
        for line in (head, *run.events):
            lines.write(json.dumps(line).encode() + b"\n")
        for file in (table, lines, contents):
            file.flush()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise MemoryError from error
        text = f"no room for what was read ({error.strerror}); set TMPDIR to a folder that has more"
        raise StorageError(error.errno, text, tempfile.gettempdir()) from error


def _place(content: Path | bytes | memoryview, contents: IO[bytes]) -> str | tuple[int, int]:
    """Return the path of a file; or write what has no path, and return its place."""
    if isinstance(content, Path):
        return str(content)
    begin = contents.tell()
    contents.write(content)
    return begin, len(content)


def hand_over_error(error: Exception, lines: IO[bytes]) -> None:
    """Write an error in place of the run."""
    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    name = "MemoryError" if any(isinstance(cause, MemoryError) for cause in causes) else type(error).__name__
    arguments: list[Any] = [str(error)]
    if isinstance(error, OSError) and error.errno is not None:
        arguments = [error.errno, error.strerror, error.filename]
    trace = "".join(traceback.format_exception(error))
    line = {"events": 0, "error": name, "arguments": arguments, "trace": trace}
    lines.seek(0)
    lines.truncate()
    lines.write(json.dumps(line, default=str).encode() + b"\n")
    lines.flush()


# ---- what this process reads of that ----


def _receive(order: Order, table: IO[bytes], lines: IO[bytes], contents: IO[bytes]) -> ImportedRun:
    head, *events = _parse(order, lines)
    if "error" in head:
        _raise(order, **head)
    described = Description(head.pop("described"))
    reports: dict[str, Any] = {name: Problems() for name in _REPORTS}
    for name, problems in reports.items():
        for text in head.pop(name):
            problems.add(text, text)
    head["files"] = {name: Path(path) for name, path in head["files"].items()}
    data = _mapped(contents)
    for name, place in head["artifacts"].items():
        head["artifacts"][name] = Path(place) if isinstance(place, str) else data[place[0] : sum(place)]
    with pa.ipc.open_stream(pa.py_buffer(_mapped(table))) as stream:
        return ImportedRun(described=described, metrics=stream.read_all(), events=events, **reports, **head)


def _mapped(file: IO[bytes]) -> memoryview:
    """Return a file's content, mapped, not read: the system takes its pages back when memory is short."""
    is_empty = os.fstat(file.fileno()).st_size == 0
    return memoryview(b"" if is_empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _parse(order: Order, lines: IO[bytes]) -> list[dict[str, Any]]:
    """Return the objects of the JSON lines; raises RefusedError if some are missing."""
    lines.seek(0)
    try:
        objects = [json.loads(line) for line in lines]
    except ValueError:
        objects = []
    if not objects or len(objects) != 1 + objects[0].pop("events"):
        # The reader's exit code, which would say so, is lost where SIGCHLD is ignored.
        raise RefusedError(f"{order.source}: refused, since the process that reads it ended before it was done")
    return objects


def _raise(order: Order, error: str, arguments: list[Any], trace: str) -> NoReturn:
    """Raise the error that the reader has written."""
    if error == "MemoryError":
        raise RefusedError(f"{order.source}: refused, since {_too_much(order)}")
    error_type: Any = getattr(errors, error, None if len(arguments) == 1 else OSError)
    if error_type is None:
        bug = CorruptDataError(f"{order.source}: cannot be read ({error}: {arguments[0]})")
        bug.add_note(trace)
        raise bug
    raise error_type(*arguments)


def _fate(order: Order, code: int, output: str) -> str:
    """Return in words how a reader ended that wrote no error."""
    if code == -signal.SIGXCPU:
        return f"reading it takes more than {order.seconds:,} s; {_TRUSTED}"
    if code == -signal.SIGKILL:
        return f"the system has ended the process that reads it, as it does when memory is short: {_too_much(order)}"
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"it ends the process that reads it ({how}; {output.strip().rpartition(chr(10))[2]})"


def _too_much(order: Order) -> str:
    return f"reading it takes more than the {order.max_bytes:,} bytes of memory that an import may take; {_TRUSTED}"
