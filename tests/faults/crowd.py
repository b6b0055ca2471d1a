"""A segment at work: two busy peers and a running drain, among which victims come and go."""

from __future__ import annotations

import mmap
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.arena import Account, Arena, records, scalar, tenancies_of
from tests.faults.fates import Point
from tests.faults.stage import Stage
from tests.faults.stepping import map_notes
from tests.support.processes import TIMEOUT_S
from tests.support.slots import Books

LANES = 6
VICTIMS_LANE = 2
LOG_BYTES = 1 << 40


class Busy:
    """A process that logs all the time."""

    def __init__(self, program: Path, arena: Arena, who: str) -> None:
        self.who = who
        notes = arena.folder / f"notes-{who}"
        self._notes: mmap.mmap = map_notes(notes)
        self._process = subprocess.Popen([program, "busy", arena.path, notes, who])

    @property
    def returned(self) -> int:
        """How many of its calls have returned."""
        return int(struct.unpack_from("<Q", self._notes, 0)[0])

    def stop(self) -> None:
        struct.pack_into("<Q", self._notes, 16, 1)
        assert self._process.wait(TIMEOUT_S) == 0, f"{self.who} ended badly"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def check(self, books: Books) -> None:
        """I3: all that it logged is there, in its order."""
        (tenancy,) = tenancies_of(books, self.who)
        expected = [scalar(step, f"{self.who}.x") for step in range(self.returned)]
        assert records(tenancy) == expected, f"I3: {self.who}'s records"
        assert tenancy.dropped == 0, f"P1: {self.who} was held up"


class Crowd(Arena):
    """A segment at work."""

    def __init__(self, folder: Path, program: Path) -> None:
        super().__init__(folder, lanes=LANES)
        self.accounts: list[Account] = []
        self._drainer = threading.Thread(target=self.drain.run, args=(LOG_BYTES,))
        self._drainer.start()
        self.busy: list[Busy] = []
        for who in ("b0", "b1"):
            self.busy.append(Busy(program, self, who))
            self.wait_for(lambda: self.busy[-1].returned > 0, f"{who} to log")

    def wait_for(self, is_true: Callable[[], object], what: str) -> None:
        """Wait for something that takes about a millisecond."""
        deadline = time.monotonic() + TIMEOUT_S
        while not is_true():
            assert time.monotonic() < deadline, f"P1: waited {TIMEOUT_S:g} s for {what}"
            time.sleep(0.0002)

    def pass_once(self) -> None:
        """Wait for the drain, which runs by itself, in all lanes but those of the busy ones."""
        for lane in range(VICTIMS_LANE, self.segment.lanes):
            self.wait_for(lambda: self.fill_of(lane) <= 0, "the drain")  # noqa: B023

    def run_laps(self, laps: int) -> None:
        """Wait until the busy ones have wrapped their lanes."""
        for peer in self.busy:
            goal = peer.returned + laps * self.lap
            self.wait_for(lambda: peer.returned >= goal, f"{peer.who} to wrap its lane")  # noqa: B023

    def newcomer(self) -> int:
        """Have another one attach and log, and return its lane."""
        peer = self.attach(f"n{len(self.peers)}", 5)
        return int(peer._counts()["lane"])

    def next_victim(self) -> None:
        """Give the lanes of all but the busy ones back."""
        self.who = f"v{len(self.accounts)}"
        for peer in self.peers:
            peer._leave()

    def books(self) -> Books:
        for peer in self.busy:
            peer.stop()
        self._stop_drain()
        return super().books()

    def close(self) -> None:
        for peer in self.busy:
            peer.kill()
        self._stop_drain()
        super().close()

    def _stop_drain(self) -> None:
        self.drain.stop()
        self._drainer.join()


# ---- fates ----

Fate = Callable[[Stage, Crowd, str, Point], None]


def killed(stage: Stage, crowd: Crowd, case: str, point: Point) -> None:
    """Its lane goes on, and the peers go on meanwhile."""
    victim = stage.victim(crowd, case, point.rounds)
    victim.go_to(point.instruction, stage.route(case, point.rounds))
    crowd.accounts.append(victim.kill())
    crowd.wait_for_lane(VICTIMS_LANE)
    crowd.pass_once()
    lane = crowd.newcomer()
    assert lane == VICTIMS_LANE, f"P1: lane {VICTIMS_LANE} is free, the heir got {lane}"


def frozen(stage: Stage, crowd: Crowd, case: str, point: Point) -> None:
    """Peers wrap their lanes twice and another one attaches; then it goes on."""
    victim = stage.victim(crowd, case, point.rounds)
    victim.go_to(point.instruction, stage.route(case, point.rounds))
    crowd.run_laps(2)
    late = crowd.newcomer()
    crowd.accounts.append(victim.to_end())
    if case != "detach":
        assert victim.lane not in (None, late), "I7: the lane of a frozen producer was given on"


def meet(fate: Fate, stage: Stage, case: str, points: list[Point]) -> None:
    """Have one victim after the other meet its fate, then look at what all of them have logged."""
    with stage.clean_up(Crowd(stage.folder, stage.program)) as crowd:
        for point in points:
            crowd.next_victim()
            try:
                fate(stage, crowd, case, point)
            except AssertionError as error:
                error.add_note(f"case {case}, {point}")
                raise
        books = crowd.books()
        crowd.assert_peers_are_whole(books)
        for peer in crowd.busy:
            peer.check(books)
        for account in crowd.accounts:
            account.check(books)
        returned = [peer.returned for peer in crowd.busy]
    print(f"{case}: {fate.__name__} at {len(points)} points beside {returned} records")
