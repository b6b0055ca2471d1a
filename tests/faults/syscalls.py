"""Children whose system calls are followed, and at one of them killed or failed; see sysfault.c."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.support.tools import need

SOURCE = Path(__file__).with_name("sysfault.c")
NOTHING, KILL_BEFORE, KILL_AFTER, FAIL, SHORT = range(5)
ACTIONS = ("nothing", "kill before", "kill after", "fail", "short")


class Point(NamedTuple):
    """The n-th call on a file, which is named by its path in the run folder."""

    call: str
    path: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.call} {self.path} #{self.occurrence}"


class Seen(NamedTuple):
    """A call that was followed to its end."""

    point: Point
    changes: bool
    result: int
    is_main: bool


class _Plan(ctypes.Structure):
    _fields_ = (
        ("folder", ctypes.c_char_p),
        ("segment", ctypes.c_char_p),
        ("bell", ctypes.c_char_p),
        ("action", ctypes.c_int),
        ("call", ctypes.c_char_p),
        ("path", ctypes.c_char_p),
        ("occurrence", ctypes.c_long),
        ("times", ctypes.c_long),
        ("error", ctypes.c_int),
        ("bytes", ctypes.c_long),
        ("sticky", ctypes.c_int),
        ("healed", ctypes.c_int),
        ("log_fd", ctypes.c_int),
        ("go_fd", ctypes.c_int),
        ("hits", ctypes.c_long),
    )


def build(folder: Path) -> Path:
    """Compile sysfault.c; return the library."""
    need("gcc")
    library = folder / "sysfault.so"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(library)], check=True)
    return library


NOWHERE = Point("", "", 0)


@dataclass
class Fault:
    """What is to happen at which point; by default nothing, and the calls are listed."""

    action: int = NOTHING
    point: Point = NOWHERE
    times: int = 1
    error: int = 0
    bytes: int = 0
    sticky: bool = False

    def __str__(self) -> str:
        what = ACTIONS[self.action]
        if self.action == FAIL:
            what += f" with {errno.errorcode[self.error]}"
        if self.sticky:
            what += ", and all that follow"
        elif self.times > 1:
            what += f", {self.times} times"
        return f"{what}: {self.point}"


@dataclass
class Traced:
    """A child that waits, with all its modules imported, until it is followed."""

    library: Path
    pid: int
    go: int
    plan: _Plan = field(default_factory=_Plan)

    def follow(self, fault: Fault, *, folder: Path, shared: Path | None, log: Path | None = None) -> int:
        """Have it run to its end; return its exit code, negative if a signal ended it."""
        plan = self.plan
        plan.folder = os.fsencode(folder)
        if shared is not None:
            plan.segment, plan.bell = os.fsencode(shared), os.fsencode(shared.with_name(f"sem.{shared.name}"))
        plan.action, plan.error, plan.bytes = fault.action, fault.error, fault.bytes
        plan.call, plan.path = fault.point.call.encode(), fault.point.path.encode()
        plan.occurrence = fault.point.occurrence
        plan.times, plan.sticky, plan.go_fd, plan.log_fd = fault.times, fault.sticky, self.go, -1
        if log is not None:
            plan.log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        status = ctypes.CDLL(str(self.library)).sysfault_follow(self.pid, ctypes.byref(plan))
        os.close(self.go)
        if plan.log_fd >= 0:
            os.close(plan.log_fd)
        if status < 0:
            raise OSError(-status, f"ptrace: {os.strerror(-status)}")
        return os.waitstatus_to_exitcode(status)

    @property
    def hits(self) -> int:
        """How often the fault has struck."""
        return int(self.plan.hits)

    def heal(self) -> None:
        """Let all calls through from now on."""
        self.plan.healed = 1


def fork_traced(library: Path, work: Callable[[], None]) -> Traced:
    """Fork a child that does ``work`` when it is followed."""
    wait, go = os.pipe()
    pid = fork(work, wait)
    os.close(wait)
    return Traced(library, pid, go)


def fork(work: Callable[[], None], wait: int | None = None) -> int:
    """Fork a child that does ``work``, after it has read a byte from ``wait``; return its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if wait is None or os.read(wait, 1):
            work()
            code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait_for(pid: int) -> int:
    """Return the exit code of a child, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_log(path: Path) -> list[Seen]:
    """Return the calls that were followed, in the order in which they ended."""
    found = []
    for line in path.read_text().splitlines():
        call, name, occurrence, changes, result, is_main = line.split("\t")
        found.append(Seen(Point(call, name, int(occurrence)), changes == "1", int(result), is_main == "1"))
    return found


class Background:
    """Work of another thread, begun after a fork; its exception is raised by `join`."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
