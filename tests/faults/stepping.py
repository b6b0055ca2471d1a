"""Producers that are stepped, killed and frozen at any instruction, and what must be on disk then."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import secrets
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shmlog import _core
from tests.support.frames import BOOL, EVENT, FLOAT, INT, LONGTEXT
from tests.support.slots import Books, Record, Tenancy

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "shmlog" / "csrc"
CORE = [CSRC / f"{name}.c" for name in ("clock", "lane", "lock", "names", "producer", "segment")]

LANES, LAP = 5, 64
CHUNK = 20
ROUND = 24
TAIL = 24
EXTENDED = 20
EVENT_BYTES = 200
TAIL_STEP, FORKED_STEP = 1000, 5000
TEXT = b"a text that takes two slots and not one"
NOTES_BYTES = 64

TRACE_ROOM = 1_000_000
WALL = 0x40000000  # wait for any child, also one that was only traced

ENDED, STEPPED, MARKED, FORKED, FAILED = 0, 1, 2, 3, -1


# ---- programs ----


def _compile(sources: Sequence[Path], target: Path, *options: str) -> Path:
    command = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O3", "-D_GNU_SOURCE=1", *options]
    subprocess.run([*command, *map(str, sources), "-o", str(target), "-lpthread"], check=True)
    return target


def compile_producers(folder: Path) -> Path:
    """Compile the producers that know nothing of Python."""
    return _compile([HERE / "producers.c", *CORE], folder / "producers", "-Wl,-z,now")


class Region(ctypes.Structure):
    """A piece of memory to be compared with its shadow."""

    _fields_ = [("live", ctypes.c_void_p), ("shadow", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


CHANGED = ctypes.CFUNCTYPE(None, ctypes.c_long)


def compile_stepper(folder: Path) -> ctypes.CDLL:
    """Compile and load stepper.c."""
    library = ctypes.CDLL(str(_compile([HERE / "stepper.c"], folder / "libstepper.so", "-fPIC", "-shared")))
    library.stepper_step.restype = library.stepper_trace.restype = library.stepper_sweep.restype = ctypes.c_long
    library.stepper_step.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.POINTER(ctypes.c_int)]
    library.stepper_enter.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]
    library.stepper_trace.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_uint64), ctypes.c_long]
    library.stepper_sweep.argtypes = [ctypes.c_int, ctypes.POINTER(Region), ctypes.c_int, CHANGED]
    return library


# ---- a segment and those who log to it ----


class Peer(_core.Producer):
    """A producer of this process: who logs beside the victim, comes after it, or takes its lane."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.count = 0

    def _identity(self) -> bytes:
        return b'{"who":"%s"}' % self.who.encode()

    def _ring(self) -> None:
        pass

    def _flusher_lost(self) -> bool:
        return False

    def _first_drop(self, reason: str) -> None:
        pass

    def log_some(self, count: int) -> None:
        name = f"{self.who}.x"
        for i in range(self.count, self.count + count):
            self.log(name, float(i), i)
        self.count += count

    def units(self) -> list[tuple[Record, ...]]:
        """Return what must be on disk of it."""
        return [((f"{self.who}.x", FLOAT, bits(float(i)), i),) for i in range(self.count)]


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


class Arena:
    """A segment with its drain, and the peers that log to it."""

    def __init__(self, folder: Path, image: Sequence[tuple[int, bytes]] | None = None, lanes: int = LANES) -> None:
        """Make a segment, or one as a kill has left it: ``image`` are its bytes."""
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.path = Path("/dev/shm") / f"shmlog-step-{secrets.token_hex(8)}"
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if image is None:
            self.segment = _core.Segment.create(fd, str(self.path), "run", str(folder), lanes, LAP, 0)
        else:
            os.ftruncate(fd, _core.head_bytes(lanes) + lanes * LAP * _core.SLOT_BYTES)
            for offset, data in image:
                os.pwrite(fd, data, offset)
            self.segment = _core.Segment.open(fd, str(self.path))
        self.drain = _core.Drain(self.segment, os.open(self.folder, os.O_RDONLY), 0, None)
        assert self.drain.next_log() == 0
        self.peers: list[Peer] = []
        self.victims: list[int] = []

    def close(self) -> None:
        for pid in self.victims:  # those that a failure has left
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while not os.WIFSIGNALED(os.waitpid(pid, WALL)[1]):
                    pass
        self.path.unlink()
        shutil.rmtree(self.folder)

    def attach(self, who: str, records: int = 1) -> Peer:
        """Have another producer log."""
        peer = Peer(who)
        peer._join(self.segment, str(self.path), False, 0.0, False)
        peer.log_some(records)
        assert peer._counts()["lane"] is not None, f"{who} found no lane"
        self.peers.append(peer)
        return peer

    def pass_once(self) -> None:
        error, _ = self.drain.drain_pass()
        assert error == 0, os.strerror(error)

    def run_laps(self, laps: int) -> None:
        """Have every peer wrap its lane, drained as a flusher does."""
        for _ in range(-(-laps * LAP // CHUNK)):
            for peer in self.peers:
                peer.log_some(CHUNK)
            self.pass_once()

    def books(self) -> Books:
        """End the run, and read what is in the log."""
        for peer in self.peers:
            dropped = sum(peer._counts()["dropped"].values())
            assert dropped == 0, f"P1: {peer.who} was held up: it dropped {dropped} records"
            peer._leave()
        self.pass_once()
        if self.drain.settle():
            self.pass_once()
        for number in range(self.segment.lanes):
            assert not self.segment.lane(number)["damaged"], f"I10: lane {number} is damaged"
        return Books(LAP).read(self.folder / "000000.wal")

    def assert_peers_are_whole(self, books: Books) -> None:
        """I3 of those that were not killed."""
        for peer in self.peers:
            tenancy = only(books, peer.who)
            assert records(tenancy) == peer.units(), f"I3: {peer.who}'s records"

    def lane_is_held(self, lane: int) -> bool:
        return self.segment.probe(_core.LOCK_LANE + lane)


def tenancies_of(books: Books, who: str) -> list[Tenancy]:
    return [tenancy for tenancy in books.tenancies() if tenancy.owner == who]


def only(books: Books, who: str) -> Tenancy:
    found = tenancies_of(books, who)
    assert len(found) == 1, f"I7: {who} owned {[tenancy.lane for tenancy in found]}"
    return found[0]


def records(tenancy: Tenancy) -> list[tuple[Record, ...]]:
    """Return the units of a tenancy; their times must not go back."""
    times = [unit.ts for unit in tenancy.units]
    assert times == sorted(times), f"I3: {tenancy.owner}'s times go back"
    return [unit.records for unit in tenancy.units]


# ---- what a victim logs ----


Units = list[tuple[Record, ...]]


def scalar(step: int, name: str = "v.x") -> tuple[Record, ...]:
    return ((name, FLOAT, bits(step / 2 + 0.25), step),)


def call_units(case: str, step: int) -> Units:
    """Return the units of the call that is stepped through."""
    if case == "row":
        values = [(FLOAT, bits(step / 2 + 0.25)), (INT, step), (LONGTEXT, TEXT), (BOOL, 1)]
        return [tuple(("v.x", kind, value, step) for kind, value in values)]
    if case == "event":
        payload = (b'{"step":%d} ' % step).ljust(EVENT_BYTES, b"e")
        return [(("v.x", EVENT, payload, 0),)]
    if case == "extend":
        return [scalar(step + i) for i in range(EXTENDED)]
    if case == "new_name":
        return [scalar(step, "v.new")]
    if case == "child":
        return [scalar(FORKED_STEP)]
    return [] if case in ("detach", "fork") else [scalar(step)]


@dataclass(frozen=True)
class Account:
    """What a victim had done when its fate was sealed."""

    case: str
    before: int
    """Calls that had returned when the stepped call began."""
    returned: int
    """Calls that have returned."""
    tail: bool = False
    """It was let go on, and logged more."""

    def check(self, tenancy: Tenancy | None) -> None:
        """Assert I3 and I4 of a victim; ``tenancy`` is None if it left nothing on disk."""
        lead = [scalar(step) for step in range(self.before)]
        call = call_units(self.case, self.before)
        first = FORKED_STEP + 1 if self.case == "child" else TAIL_STEP
        after = [scalar(first + i) for i in range(TAIL)] if self.tail else []
        found = records(tenancy) if tenancy else []
        dropped = tenancy.dropped if tenancy else 0
        assert dropped <= (self.case == "full"), f"I4: {dropped} records dropped"
        middle = found[len(lead) : len(found) - len(after)]
        assert found[: len(lead)] == lead, "I3: a record is lost whose call had returned"
        assert found[len(found) - len(after) :] == after, "I3: a record is lost that was logged after the freeze"
        assert middle == call[: len(middle)], "I3: a torn unit, or one of the wrong order"
        if self.returned > self.before:
            assert len(middle) + dropped == len(call), "I4: the call had returned, and its records are not there"
        else:
            assert len(middle) + dropped <= len(call), "I4: more than was logged"


# ---- victims ----


class Victim:
    """A producer in a process of its own, that stops before and after one call."""

    def __init__(self, stage: Stage, arena: Arena, case: str, rounds: int) -> None:
        self.stepper = stage.stepper
        self.arena = arena
        self.case = case
        self._notes = _map_notes(arena.folder / "notes")
        self._marked = False
        arguments = [stage.program, "step", arena.path, arena.folder / "notes", case, str(rounds)]
        argv = (ctypes.c_char_p * (len(arguments) + 1))(*map(os.fsencode, arguments), None)
        self.pid: int = self.stepper.stepper_spawn(argv)
        assert self.pid > 0, "the victim does not start"
        arena.victims.append(self.pid)
        for round in range(max(rounds, 1)):
            if round:
                arena.pass_once()
            self.resume(MARKED)
        self.before = self.returned

    def note(self, index: int) -> int:
        return int(struct.unpack_from("<Q", self._notes, 8 * index)[0])

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

    def step(self, count: int) -> bool:
        """Execute instructions of the call. False: the mark behind it was reached."""
        stop = ctypes.c_int(STEPPED)
        while count:
            count -= self.stepper.stepper_step(self.pid, count, ctypes.byref(stop))
            if stop.value != FORKED:
                break
            self.on_fork()
            count -= 1
        assert stop.value in (STEPPED, FORKED, MARKED), f"the victim ended by itself: {stop.value}"
        self._marked = stop.value == MARKED
        return not self._marked

    def on_fork(self) -> None:
        raise AssertionError("the call forks")

    def account(self, *, tail: bool = False) -> Account:
        return Account(self.case, self.before, self.returned, tail)

    def kill(self) -> Account:
        """Kill it where it is."""
        assert self.stepper.stepper_kill(self.pid) == 0
        return self.account()

    def to_mark(self) -> None:
        """Let it go on to the mark behind the call."""
        if not self._marked:
            self.resume(MARKED)
            self._marked = True

    def to_end(self) -> Account:
        """Let it log some more, and end by itself."""
        self.to_mark()
        self.resume(ENDED)
        return self.account(tail=self.case != "detach")


class Parent(Victim):
    """A victim that forks; its child is stepped or stopped as well."""

    child: Child | None = None

    def on_fork(self) -> None:
        self.child = Child(self)
        self.arena.victims.append(self.child.pid)

    def to_fork(self) -> Child:
        self.resume(FORKED)
        self.on_fork()
        assert self.child
        return self.child

    def go_on(self) -> None:
        """Let it log on, untraced. It ends after its child."""
        self.to_mark()
        assert self.stepper.stepper_release(self.pid) == 0

    def wait(self) -> Account:
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, "the parent ended badly"
        return self.account(tail=True)


class Child(Victim):
    """The child of a victim, stopped before its first instruction."""

    def __init__(self, parent: Parent) -> None:
        self.stepper = parent.stepper
        self.case = "child"
        self._notes = parent._notes
        self._marked = False
        self.pid = self.stepper.stepper_child(parent.pid)
        assert self.pid > 0, "there is no child"
        self.before = 0

    def note(self, index: int) -> int:
        return super().note(4 + index)


def _map_notes(path: Path) -> mmap.mmap:
    path.write_bytes(bytes(NOTES_BYTES))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), NOTES_BYTES)


# ---- every instruction ----


@dataclass(frozen=True)
class Stage:
    """What every point needs."""

    folder: Path
    stepper: ctypes.CDLL
    program: Path

    @contextlib.contextmanager
    def arena(self) -> Iterator[Arena]:
        arena = Arena(self.folder)
        try:
            yield arena
        finally:
            arena.close()

    def victim(self, arena: Arena, case: str, rounds: int) -> Victim:
        """Return a victim before its call, and have two peers beside it."""
        kind = Parent if case == "fork" else Victim
        victim = kind(self, arena, case, 0 if case == "attach" else rounds)
        for who in ("p0", "p1"):
            arena.attach(who)
        return victim

    def trace(self, case: str) -> tuple[int, list[int]]:
        """Return the number of instructions of a call, and where its system calls are."""
        with self.arena() as arena:
            victim = self.victim(arena, case, 1)
            if isinstance(victim, Parent):
                child = victim.to_fork()
                traced = self._trace(child.pid)
                child.kill()
                victim.go_on()
                victim.wait()
            else:
                traced = self._trace(victim.pid)
                victim.kill()
        return traced

    def _trace(self, pid: int) -> tuple[int, list[int]]:
        addresses = (ctypes.c_uint64 * TRACE_ROOM)()
        count = self.stepper.stepper_trace(pid, addresses, TRACE_ROOM)
        assert count > 0, "the call can't be traced"
        return count, [i for i in range(count) if addresses[i] >> 63]

    def snapshots(self, case: str) -> tuple[int, list[Snapshot]]:
        """Step through a call, and keep the segment as it is after each instruction that changes it.

        Returns the number of instructions, and the segment's states.
        """
        with self.arena() as arena:
            victim = Victim(self, arena, case, 0 if case == "attach" else 1)
            with _Shadow(arena) as shadow:
                states: list[Snapshot] = []

                def changed(point: int) -> None:
                    states.append(Snapshot(point, shadow.image(), victim.account()))

                shadow.refresh()
                changed(0)
                count = self.stepper.stepper_sweep(victim.pid, shadow.regions, len(shadow.regions), CHANGED(changed))
            assert count > 0, "the call can't be swept"
            victim.kill()
        return count, states


@dataclass(frozen=True)
class Snapshot:
    """A segment as a kill leaves it."""

    point: int
    image: Sequence[tuple[int, bytes]]
    account: Account


class _Shadow:
    """The parts of a segment that a few records can change, and a copy of them."""

    def __init__(self, arena: Arena) -> None:
        lanes = arena.segment.lanes
        head = _core.head_bytes(lanes)
        lane_headers = head - -(-lanes * 384 // 4096) * 4096
        names = 4096
        ids, text = names + 128 + 32768 * 4, names + 128 + 32768 * 4 + 16384 * 8
        spans = [(0, ids + 8 * 64), (text, 1024), (lane_headers, head - lane_headers + lanes * LAP * 32)]
        with arena.path.open("r+b") as file:
            self._live = mmap.mmap(file.fileno(), 0)
        self._offsets = [offset for offset, _ in spans]
        self._copies = [(ctypes.c_char * size)() for _, size in spans]
        self._held = ctypes.c_char.from_buffer(self._live)
        base = ctypes.addressof(self._held)
        self.regions = (Region * len(spans))(
            *[
                Region(base + offset, ctypes.addressof(copy), size)
                for (offset, size), copy in zip(spans, self._copies, strict=True)
            ]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._held
        self._live.close()

    def refresh(self) -> None:
        for offset, copy in zip(self._offsets, self._copies, strict=True):
            copy[:] = self._live[offset : offset + len(copy)]

    def image(self) -> list[tuple[int, bytes]]:
        return [(offset, copy.raw) for offset, copy in zip(self._offsets, self._copies, strict=True)]
