"""Producers that are run instruction by instruction: what Python sees of stepper.c and producers.c."""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.faults.arena import Account, Arena

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "shmlog" / "csrc"
CORE = [CSRC / "core" / f"{name}.c" for name in ("clock", "lane", "lock", "names", "producer", "room", "segment")]

NOTES_BYTES = 64

SYSTEM_CALL = 1 << 63
"""Bit that stepper_trace() sets in the address of a system call."""

ENDED, STEPPED, MARKED, FORKED, FAILED = 0, 1, 2, 3, -1


# ---- programs ----


def _compile(sources: Sequence[Path], target: Path, *options: str) -> Path:
    if target.exists():
        return target
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O3", "-D_GNU_SOURCE=1", *options]
    subprocess.run([*command, *map(str, sources), "-o", str(target), "-lpthread"], check=True)
    return target


def compile_producers(folder: Path) -> Path:
    """Compile the producers that know nothing of Python."""
    return _compile([HERE / "producers.c", *CORE], folder / "producers", "-Wl,-z,now")


def compile_storm(folder: Path) -> Path:
    """Compile the producers that are killed at random times."""
    return _compile([HERE / "storm.c", *CORE], folder / "storm")


class Region(ctypes.Structure):
    """A piece of memory to be compared with its shadow."""

    _fields_ = [("live", ctypes.c_void_p), ("shadow", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


CHANGED = ctypes.CFUNCTYPE(None, ctypes.c_long)


def compile_stepper(folder: Path) -> ctypes.CDLL:
    """Compile and load stepper.c."""
    library = ctypes.CDLL(str(_compile([HERE / "stepper.c"], folder / "libstepper.so", "-fPIC", "-shared")))
    library.stepper_step.restype = library.stepper_trace.restype = library.stepper_sweep.restype = ctypes.c_long
    library.stepper_step.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.POINTER(ctypes.c_int)]
    library.stepper_where.restype = ctypes.c_uint64
    library.stepper_run_to.argtypes = [ctypes.c_int, ctypes.c_uint64]
    library.stepper_trace.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_uint64), ctypes.c_long]
    library.stepper_sweep.argtypes = [ctypes.c_int, ctypes.POINTER(Region), ctypes.c_int, CHANGED]
    return library


class Route:
    """The instructions of a call, in the order in which they are executed."""

    def __init__(self, traced: Sequence[int], begin: int = 0, end: int | None = None, *, fixed: bool = True) -> None:
        """``traced`` is from mark to mark; the call begins and ends at these places of it.

        ``fixed`` says whether the addresses are the same in every victim.
        """
        self.addresses = [address & ~SYSTEM_CALL for address in traced[begin:end]]
        self.calls = [i for i, address in enumerate(traced[begin:end]) if address & SYSTEM_CALL]
        seen = {address & ~SYSTEM_CALL for address in traced[:begin]}
        self._landmarks = []
        for i, address in enumerate(self.addresses):
            if address not in seen:
                self._landmarks.append(i)
            seen.add(address)
        self.begin = begin
        self.is_fixed = fixed
        if not fixed:
            self._landmarks = [0]

    def __len__(self) -> int:
        return len(self.addresses)

    def landmark(self, point: int) -> int:
        """Return the last instruction up to this one that a breakpoint finds: it is executed for the first time."""
        return self._landmarks[bisect.bisect_right(self._landmarks, point) - 1]


# ---- victims ----


class Victim:
    """A producer in a process of its own, that stops before and after one call."""

    def __init__(self, stepper: ctypes.CDLL, case: str, who: str, pid: int, notes: mmap.mmap) -> None:
        assert pid > 0, "the victim does not start"
        self.stepper = stepper
        self.case = case
        self.who = who
        self.pid = pid
        self.before = 0
        self._notes = notes
        self.strayed = False
        """It took another way to the point than the one that was traced."""
        self._marked = False
        self._alive = True

    def prepare(self, arena: Arena, rounds: int) -> None:
        """Have it log its rounds, drained one by one, up to the mark before the call."""
        for round in range(max(rounds, 1)):
            if round:
                arena.pass_once()
            self.resume(MARKED)
        self.before = self.returned

    def note(self, index: int) -> int:
        return int(struct.unpack_from("<Q", self._notes, 8 * index)[0])

    def tell(self, index: int, value: int) -> None:
        """Write into its notes what it looks at."""
        struct.pack_into("<Q", self._notes, 8 * index, value)

    @property
    def returned(self) -> int:
        """How many of its calls have returned."""
        return self.note(0)

    @property
    def lane(self) -> int | None:
        """The lane that it says it has."""
        return self.note(1) - 1 if self.note(1) else None

    def resume(self, expected: int) -> None:
        stop = self.stepper.stepper_resume(self.pid)
        assert stop == expected, f"the victim's next stop is {stop}, not {expected}"

    def go_to(self, point: int, route: Route) -> None:
        """Execute this many instructions of the call, whose mark may come before."""
        near = route.landmark(point)
        if near or route.begin:
            stopped = self.stepper.stepper_run_to(self.pid, route.addresses[near])
            assert stopped in (STEPPED, MARKED), f"the victim ended by itself: {stopped}"
            self._marked = stopped == MARKED
        if not self._marked:
            stop = ctypes.c_int(STEPPED)
            self.stepper.stepper_step(self.pid, point - near, ctypes.byref(stop))
            assert stop.value in (STEPPED, MARKED), f"the victim ended by itself: {stop.value}"
            self._marked = stop.value == MARKED
        if route.is_fixed and point < len(route):
            self.strayed = self._marked or self.stepper.stepper_where(self.pid) != route.addresses[point]

    def account(self, *, tail: bool = False) -> Account:
        return Account(self.case, self.before, self.returned, tail, self.who)

    def kill(self) -> Account:
        """Kill it where it is."""
        assert self.stepper.stepper_kill(self.pid) == 0
        self._alive = False
        return self.account()

    def clean_up(self) -> None:
        """End it, if it is not at its end: a failed assertion may have left it anywhere."""
        if self._alive:
            self.stepper.stepper_kill(self.pid)

    def to_mark(self) -> None:
        """Let it go on to the mark behind the call."""
        if not self._marked:
            self.resume(MARKED)
            self._marked = True

    def finish(self) -> int:
        """Let it run to its end. Returns its exit status."""
        self._alive = False
        return int(self.stepper.stepper_finish(self.pid))

    def to_end(self) -> Account:
        """Let it log some more, and end by itself."""
        self.to_mark()
        assert self.finish() == 0, "the victim ended badly"
        return self.account(tail=self.case != "detach")


class Parent(Victim):
    """A victim that forks."""

    def to_fork(self) -> Child:
        """Let it go on until it has forked. Returns the child before its first instruction."""
        self.resume(FORKED)
        return self._take_child()

    def _take_child(self) -> Child:
        return Child(self.stepper, "child", "child", self.stepper.stepper_child(self.pid), self._notes)

    def step(self, count: int) -> Child | None:
        """Execute instructions of the call, at most up to its mark. Returns the child that it has by then."""
        stop = ctypes.c_int(STEPPED)
        done = self.stepper.stepper_step(self.pid, count, ctypes.byref(stop))
        child = self._take_child() if stop.value == FORKED else None
        if child:  # the step that forked has stopped before it was done
            self.stepper.stepper_step(self.pid, count - done, ctypes.byref(stop))
        assert stop.value in (STEPPED, MARKED), f"the parent ended by itself: {stop.value}"
        self._marked = stop.value == MARKED
        return child

    def go_on(self) -> None:
        """Let it log on, untraced. It ends after its child."""
        self.to_mark()
        assert self.stepper.stepper_release(self.pid) == 0

    def wait(self) -> Account:
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, "the parent ended badly"
        self._alive = False
        return self.account(tail=True)


class Child(Victim):
    """The child of a victim, stopped before its first instruction."""

    def note(self, index: int) -> int:
        return super().note(4 + index)


def spawn(stepper: ctypes.CDLL, *arguments: str | Path) -> int:
    """Start a program that the stepper steps."""
    argv = (ctypes.c_char_p * (len(arguments) + 1))(*map(os.fsencode, arguments), None)
    return int(stepper.stepper_spawn(argv))


def map_notes(path: Path) -> mmap.mmap:
    """Make the file in which a victim tells how far it is."""
    path.write_bytes(bytes(NOTES_BYTES))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), NOTES_BYTES)
