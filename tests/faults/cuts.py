"""Followers whose lane is cut at any instruction of a call, and where their records are then: FAULTS 21 and 22.

A process of its own forks the victims, which log with the extension; see `tests.faults.extension`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

from shmlog import _core
from tests.faults import fates
from tests.faults.arena import TAIL, TAIL_STEP, Arena, Peer, Units, call_units, records, scalar, tenancies_of
from tests.faults.extension import Call, ExtensionStage, Logger
from tests.faults.fates import Point
from tests.faults.stage import Stage
from tests.faults.stepping import MARKED, Victim
from tests.support.processes import TIMEOUT_S, run_script
from tests.support.slots import Books

TOKEN = 77
"""Of the owner whose follower a victim is."""

LATE, FINISHED = 2, 3
"""Places in the notes: records that the run did not take after its end; whether the owner has finished."""

CHANGES = 70
"""Points of a sample that lie around changes of the segment."""

# ---- victims ----


class Runs(Arena):
    """A run that ends for a victim, and the one that it may go on to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.after = Arena(folder)
        self.has_next = True

    def close(self) -> None:
        super().close()
        self.after.close()


class Follower(Peer):
    """A producer whose part ends when its owner's does."""

    def __init__(self, who: str, arena: Arena) -> None:
        super().__init__(who)
        self._join(arena.segment, str(arena.path), False, TOKEN)

    def _is_open(self, if_unknown: bool) -> bool:
        return True


class Outliving(Follower):
    """One that lives on after the end of its run, and goes on to the next one if there is any."""

    def __init__(self, runs: Runs, notes: memoryview) -> None:
        super().__init__(runs.who, runs)
        self._runs = runs
        self._notes = notes
        self._follower: Follower | None = None

    def _is_open(self, if_unknown: bool) -> bool:
        return not self._notes[FINISHED]

    def _count_late(self, records: int) -> None:
        self._notes[LATE] += records

    def _next(self) -> Follower | None:
        if self._follower is None and self._runs.has_next:
            self._follower = Follower(self.who, self._runs.after)
        return self._follower


class FollowersLogger(Logger):
    """What a follower runs. It lives until it is told to end."""

    def join(self) -> None:
        assert isinstance(self.arena, Runs)
        self.producer = Outliving(self.arena, self.notes)

    def returned(self) -> None:
        self.notes[0] += 1

    def run(self, case: str, rounds: int) -> None:
        super().run(case, rounds)
        os.kill(os.getpid(), signal.SIGSTOP)

    def first(self) -> Call:
        """Its first record, for which it takes a lane."""
        return self.scalar()


class CutStage(ExtensionStage):
    """A place for followers that are cut in the middle of a call."""

    def arena(self, image: object = None) -> contextlib.AbstractContextManager[Arena]:
        return self.clean_up(Runs(self.folder))

    def logger(self, arena: Arena, notes: memoryview) -> Logger:
        return FollowersLogger(self, arena, notes)

    def victim(self, arena: Arena, case: str, rounds: int) -> Victim:
        return super().victim(arena, case, 0 if case == "first" else rounds)

    def changes(self, case: str, rounds: int) -> list[Point]:
        """Return points around each change of the segment. Several stores in a row may change but one of its words."""
        route = self.route(case, rounds)
        _, states = self.snapshots(case, rounds)
        found = [state.point - route.begin for state in states]
        return [Point(rounds, i) for at in found for i in (at - 4, at - 1, at) if 0 <= i <= len(route)]


class MovingStage(CutStage):
    """A place for followers that find in a call that they were cut before it, and go on to the next run."""

    def victim(self, arena: Arena, case: str, rounds: int) -> Victim:
        victim = super().victim(arena, case, rounds)
        fates.attach_peers(arena)
        finish_owner(arena, victim)
        return victim


def finish_owner(arena: Arena, victim: Victim) -> None:
    """End the part of the victim, as its owner does while others keep the run alive."""
    victim.tell(FINISHED, 1)
    arena.segment.cut_followers(TOKEN)


# ---- fates ----


@contextlib.contextmanager
def frozen(stage: Stage, case: str, point: Point, *, has_next: bool) -> Iterator[tuple[Runs, Victim]]:
    """Return a follower that is frozen in the middle of a call."""
    with stage.arena() as arena:
        assert isinstance(arena, Runs)
        arena.has_next = has_next
        victim = stage.victim(arena, case, point.rounds)
        victim.go_to(point.instruction, stage.route(case, point.rounds))
        yield arena, victim


def run_was_closed(stage: Stage, case: str, point: Point) -> None:
    """The flusher has closed the run when the follower goes on: what it had not committed is dropped or moves."""
    for has_next in (True, False):
        with frozen(stage, case, point, has_next=has_next) as (runs, victim):
            assert runs.segment.lock(_core.LOCK_MEMBER), "a follower keeps the run alive"
            runs.end()
            go_on(victim)
            if point.instruction % 2:
                runs.close_once()
            assert victim.finish() == 0
            check(runs, runs.read(), victim)


def run_is_being_closed(stage: Stage, case: str, point: Point) -> None:
    """The follower goes on before the flusher, which has drained, decides: nothing of it is dropped."""
    for has_next in (True, False):
        with frozen(stage, case, point, has_next=has_next) as (runs, victim):
            assert runs.segment.lock(_core.LOCK_MEMBER), "a follower keeps the run alive"
            runs.segment.cut_all()
            runs.drain_once()
            go_on(victim)
            runs.decide()
            assert victim.finish() == 0
            check(runs, runs.read(), victim)
            check_nothing_dropped(victim, has_next=has_next)


def owner_finished(stage: Stage, case: str, point: Point) -> None:
    """The run lives on without the follower: its lane is given on while it lives, and not while it may write."""
    for has_next in (True, False):
        with frozen(stage, case, point, has_next=has_next) as (runs, victim):
            fates.attach_peers(runs)
            finish_owner(runs, victim)
            late = fates.others_go_on(runs)
            assert late or case == "first", "I7: the lane of a frozen follower was given on"
            go_on(victim)
            if case != "first":  # the peers took their lanes before it could
                fates.inherit_lane(runs, 0, drained=bool(point.instruction % 4 > 1))
            assert victim.finish() == 0
            first = runs.books()
            runs.assert_peers_are_whole(first)
            check(runs, first, victim)
            check_nothing_dropped(victim, has_next=has_next)


def killed_while_moving(stage: Stage, case: str, point: Point) -> None:
    """A kill while it goes on to the next run costs that call at most, and no run a lane."""
    with frozen(stage, case, point, has_next=True) as (runs, victim):
        victim.kill()
        books = []
        for run in (runs, runs.after):
            if run is runs.after or case != "first":
                fates.inherit_lane(run, 0, drained=bool(point.instruction % 2))
            books.append(run.books())
            run.assert_peers_are_whole(books[-1])
        call = call_units(case, victim.before)
        assert units_of(books[0], victim.who) == lead_of(victim), "I3: a record is lost, or came after the end"
        assert units_of(books[1], victim.who) in ([], call), "I3: a torn call in the next run"
        assert victim.note(LATE) == 0, "I4: a record was dropped"


def go_on(victim: Victim) -> None:
    """Let a frozen victim finish its call and log some more. It lives on."""
    victim.to_mark()
    victim.resume(MARKED)


# ---- what must hold ----


def count(units: Units) -> int:
    return sum(map(len, units))


def lead_of(victim: Victim) -> Units:
    """Return what a victim had logged when the stepped call began."""
    return [scalar(step) for step in range(victim.before)]


def units_of(books: Books, who: str) -> Units:
    """Return what is on disk of a victim, which had one lane at most."""
    found = tenancies_of(books, who)
    assert len(found) <= 1, f"I7: {who} owned {len(found)} lanes"
    return records(found[0]) if found else []


def check(runs: Runs, first: Books, victim: Victim) -> None:
    """Assert I3 and I4 of a follower that was cut: each record is in one run or counted, and in one place."""
    lead, call = lead_of(victim), call_units(victim.case, victim.before)
    tail = [scalar(TAIL_STEP + i) for i in range(TAIL)]
    found, moved = units_of(first, victim.who), units_of(runs.after.books(), victim.who)
    told = sum(tenancy.dropped for tenancy in tenancies_of(first, victim.who))
    assert found[: len(lead)] == lead, "I3: a record is lost whose call had returned before the end"
    kept = found[len(lead) :]
    assert kept == call[: len(kept)], "I3: a torn unit, or a record that was logged after the end"
    if not runs.has_next:
        assert not moved
    elif kept:
        assert moved == tail, "I3: a call is in both runs, or what came after it is not whole"
    else:
        assert moved in (tail, call + tail), "I3: what was logged after the end is not whole in the next run"
    gone = told + victim.note(LATE)
    assert count(kept) + count(moved) + gone == count(call) + TAIL, f"I4: {told} told, {victim.note(LATE)} late"


def check_nothing_dropped(victim: Victim, *, has_next: bool) -> None:
    """Assert that a follower had its say: what it had committed is kept, and the rest moves."""
    if has_next and victim.case != "extend":  # a column that is cut has no place in the next run
        assert victim.note(LATE) == 0, "I4: a record was dropped though the run was open"


# ---- a process of its own ----

SCRIPT = "import sys; from tests.faults.cuts import main; main(*sys.argv[1:])"
HOURS_S = 4 * 3600.0


def run_main(folder: Path, fate: str, case: str, seed: int, size: fates.Size, *, cwd: Path) -> None:
    """Run main() in a process of its own."""
    timeout = 2 * TIMEOUT_S if size == "sample" else HOURS_S
    done = run_script(SCRIPT, folder, fate, case, str(seed), size, cwd=cwd, timeout=timeout)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


def main(folder: str, fate: str, case: str, seed: str, size: fates.Size) -> None:
    """Have followers meet a fate at points of a case."""
    fate_of = {meet.__name__: meet for meet in (run_was_closed, run_is_being_closed, owner_finished)}
    meet = fate_of.get(fate, killed_while_moving)
    stage = (MovingStage if meet is killed_while_moving else CutStage)(Path(folder))
    points = fates.points_of(stage, case, int(seed), size)
    if size == "sample" and meet is not killed_while_moving:
        points += few(stage.changes(case, points[0].rounds), int(seed))
    fates.meet(meet, stage, case, points)


def few(points: list[Point], seed: int) -> list[Point]:
    """Return those of these points that a sample has time for."""
    return random.Random(seed).sample(points, min(CHANGES, len(points)))
