"""A segment of a few short lanes, those who log to it, and what must be on disk then."""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shmlog import _core
from shmlog.segment.clock import clock_number
from tests.support.frames import BOOL, EVENT, FLOAT, INT, LONGTEXT
from tests.support.processes import wait_until
from tests.support.slots import Books, Record, Tenancy

LANES, LAP = 5, 64
CLOCK = clock_number("auto")
"""The time-stamp counter if it can be: reading the kernel's clock takes another way each time."""
CHUNK = 20
ROUND = 24
TAIL = 24
EXTENDED = 20
EVENT_BYTES = 200
TAIL_STEP, FORKED_STEP = 1000, 5000
NEW_NAME = "v.new"
TEXT = b"a text that takes two slots and not one"

# ---- a segment and those who log to it ----


class Peer(_core.RunBase):
    """A producer of this process: who logs beside the victim, comes after it, or takes its lane."""

    def __init__(self, who: str, first_name: str | None = None) -> None:
        self.who = who
        self.first_name = first_name or f"{who}.x"
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
        for i in range(self.count, self.count + count):
            self.log(self._name(i), float(i), i)
        self.count += count

    def units(self) -> list[tuple[Record, ...]]:
        """Return what must be on disk of it."""
        return [((self._name(i), FLOAT, bits(float(i)), i),) for i in range(self.count)]

    def _name(self, i: int) -> str:
        return f"{self.who}.x" if i else self.first_name


def bits(value: float) -> int:
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


Image = Sequence[tuple[int, bytes]]
"""Offsets in a segment, and what lies there."""


class Arena:
    """A segment with its drain, and the peers that log to it."""

    def __init__(self, folder: Path, image: Image | None = None, *, lanes: int = LANES, lap: int = LAP) -> None:
        """Make a segment, or one as a kill has left it: ``image`` are its bytes."""
        self.lap = lap
        self.who = "v"
        """What the next victim calls itself."""
        self.first_name: str | None = None
        """What those who attach log first; their own names if it is None."""
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.path = Path("/dev/shm") / f"shmlog-step-{secrets.token_hex(8)}"
        self.another = self.path.with_name(f"{self.path.name}.new")
        """Where a victim makes a segment of its own."""
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if image is None:
            self.segment = _core.Segment.create(
                fd, str(self.path), run_id="run", run_dir=str(folder), lanes=lanes, lane_slots=lap, clock=CLOCK
            )
        else:
            os.ftruncate(fd, _core.head_bytes(lanes) + lanes * lap * _core.SLOT_BYTES)
            for offset, data in image:
                os.pwrite(fd, data, offset)
            self.segment = _core.Segment.open(fd, str(self.path))
        self.drain = _core.Drain(self.segment, os.open(self.folder, os.O_RDONLY), 0, None)
        assert self.drain.next_log() == 0
        self.peers: list[Peer] = []

    def close(self) -> None:
        self.path.unlink()
        self.another.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def attach(self, who: str, records: int = 1) -> Peer:
        """Have another producer log."""
        peer = Peer(who, self.first_name)
        peer._join(self.segment, str(self.path), True, 0)
        peer.log_some(records)
        assert peer._counts()["lane"] is not None, f"{who} found no lane"
        self.peers.append(peer)
        return peer

    def pass_once(self) -> None:
        """Do what a running flusher does all the time."""
        self.drain_once()

    def drain_once(self) -> None:
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
        self.end()
        return self.read()

    def read(self) -> Books:
        """Read what is in the log."""
        return Books(self.lap).read(self.folder / "000000.wal")

    def end(self) -> None:
        """Close the run, as a flusher does when the last owner is gone."""
        self.segment.cut_all()
        self.close_once()

    def close_once(self) -> None:
        """Drain the rest and decide where the lanes end. A flusher that fails later does it again."""
        self.drain_once()
        self.decide()

    def decide(self) -> None:
        """Decide where the lanes end, and drain up to there."""
        if self.drain.finalize():
            self.drain_once()
        assert self.drain.settle() == 0
        for number in range(self.segment.lanes):
            assert not self.segment.lane(number)["damaged"], f"I10: lane {number} is damaged"

    def assert_peers_are_whole(self, books: Books) -> None:
        """I3 of those that were not killed."""
        for peer in self.peers:
            found = tenancies_of(books, peer.who)
            assert len(found) == 1, f"I7: {peer.who} owned {len(found)} lanes"
            assert records(found[0]) == peer.units(), f"I3: {peer.who}'s records"

    def wait_for_lane(self, lane: int) -> None:
        """Wait until the kernel has dropped the lock of a lane whose owner is gone.

        It keeps the locks of a process that is gone while somebody, such as another test, reads its command line.
        """
        wait_until(lambda: not self.segment.probe(_core.LOCK_LANE + lane), f"P1: lane {lane} to be free")

    def fill_of(self, lane: int) -> int:
        """Return how many slots of a lane hold what is not drained, as its header hints."""
        state = self.segment.lane(lane)
        return int(state["head"] - state["tail"])


def tenancies_of(books: Books, who: str) -> list[Tenancy]:
    return [tenancy for tenancy in books.tenancies() if tenancy.owner == who]


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
        return [tuple((f"v.{i}", kind, value, step) for i, (kind, value) in enumerate(values))]
    if case == "numbers":
        values = [(FLOAT, bits(step / 2 + 0.25)), (INT, step), (FLOAT, bits(-0.0))]
        return [tuple((f"v.{i}", kind, value, step) for i, (kind, value) in enumerate(values))]
    if case == "event":
        return [(("v.x", EVENT, event_payload(step), 0),)]
    if case == "extend":
        return [scalar(step + i) for i in range(EXTENDED)]
    if case == "new_name":
        return [scalar(step, NEW_NAME)]
    if case == "child":
        return [scalar(FORKED_STEP)]
    return [] if case in ("detach", "fork_child", "fork_parent", "flush") else [scalar(step)]


def event_payload(step: int) -> bytes:
    return (b'{"step":%d} ' % step).ljust(EVENT_BYTES, b"e")


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
    who: str = "v"

    def check(self, books: Books) -> None:
        """Assert I3 and I4 of a victim."""
        tenancies = tenancies_of(books, self.who)
        assert len(tenancies) <= 1, f"I7: the victim owned {len(tenancies)} lanes"
        tenancy = tenancies[0] if tenancies else None
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
