"""What is done to a producer at a point of a call, and what must hold after it: FAULTS 21, 22 and 28."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shmlog import _core
from shmlog.errors import SegmentError
from tests.faults.arena import LANES, LAP, NEW_NAME, Account, Arena
from tests.faults.stage import Snapshot, Stage
from tests.faults.stepping import Parent, Victim

Size = Literal["sample", "whole", "full"]

RUN_IS_CLOSED = 3
"""Exit status of a producer that may not attach; see client.h."""

SAMPLE = 6
TRIES = 3
ROUNDS = range(1, 5)
"""Rounds of records, drained one by one, before the call: the lane is at another place each time."""

Fate = Callable[[Stage, str, "Point"], None]


@dataclass(frozen=True)
class Point:
    """A place in a call: so many instructions after its begin, with so many rounds of records before it."""

    rounds: int
    instruction: int


def all_points(stage: Stage, case: str, rounds: int) -> list[Point]:
    """Return the points of a call."""
    return [Point(rounds, i) for i in range(len(stage.route(case, rounds)) + 1)]


def some_points(stage: Stage, case: str, seed: int) -> list[Point]:
    """Return the points around the call's system calls, and a sample of the others."""
    chance = random.Random(seed)
    chosen = []
    for rounds in ROUNDS:
        points = all_points(stage, case, rounds)
        chosen += chance.sample(points, min(SAMPLE, len(points)))
    points = all_points(stage, case, chance.choice(ROUNDS))
    calls = stage.route(case, points[0].rounds).calls
    return chosen + [points[call + i] for call in calls for i in (0, 1)]


def points_of(stage: Stage, case: str, seed: int, size: Size) -> list[Point]:
    """Return points of a call: a sample, with or without a whole call, or all in lanes at all places."""
    if size == "full":
        return [point for rounds in ROUNDS for point in all_points(stage, case, rounds)]
    return some_points(stage, case, seed) + (all_points(stage, case, 1) if size == "whole" else [])


def meet(fate: Fate, stage: Stage, case: str, points: list[Point]) -> None:
    """Have a victim meet its fate at each point."""
    strays = 0
    for point in points:
        try:
            strays += not any(_met(fate, stage, case, point) for _ in range(TRIES))
        except AssertionError as error:
            length = len(stage.route(case, point.rounds))
            error.add_note(f"case {case}, instruction {point.instruction} of {length}, {point.rounds} rounds before it")
            raise
    length = len(stage.route(case, points[0].rounds))
    print(f"{case}, {length} instructions: {fate.__name__} at {len(points)} points, {strays} strays")
    assert strays <= len(points) // 2, "the sweep misses too many points"


def _met(fate: Fate, stage: Stage, case: str, point: Point) -> bool:
    """Return whether a victim met its fate at the very point: the kernel's clock takes another way at each reading."""
    stage.strays = 0
    fate(stage, case, point)
    return stage.strays == 0


def killed(stage: Stage, case: str, point: Point) -> None:
    """The rest of its records is there, its lane goes on, and nobody waits for it."""
    with stage.arena() as arena:
        victim = stage.victim(arena, case, point.rounds)
        attach_peers(arena)
        victim.go_to(point.instruction, stage.route(case, point.rounds))
        arena.first_name = NEW_NAME
        account = victim.kill()
        inherit_lane(arena, 2 if case == "attach" else 0, drained=bool(point.instruction % 2))
        books = arena.books()
        arena.assert_peers_are_whole(books)
        account.check(books)


def frozen(stage: Stage, case: str, point: Point) -> None:
    """Peers wrap their lanes twice and others attach; then it goes on as if nothing had been."""
    with stage.arena() as arena:
        victim = stage.victim(arena, case, point.rounds)
        attach_peers(arena)
        victim.go_to(point.instruction, stage.route(case, point.rounds))
        arena.first_name = NEW_NAME
        late = others_go_on(arena)
        account = finish(arena, victim)
        if case != "detach":
            assert victim.lane not in (None, late), "I7: the lane of a frozen producer was given on"
        books = arena.books()
        arena.assert_peers_are_whole(books)
        account.check(books)


def child_killed(stage: Stage, case: str, point: Point) -> None:
    """A forked child is killed between its first instruction and the return of its first log call."""
    with stage.arena() as arena:
        parent, child = forked(stage, arena, case, point.rounds)
        child.go_to(point.instruction, stage.route(case, point.rounds))
        parent.go_on()
        accounts = [child.kill(), parent.wait()]
        inherit_lane(arena, 0, drained=bool(point.instruction % 2))
        books = arena.books()
        arena.assert_peers_are_whole(books)
        for account in accounts:
            account.check(books)


def child_frozen(stage: Stage, case: str, point: Point) -> None:
    """A forked child is frozen, its parent killed, and others attach. It never logs into its parent's lane."""
    with stage.arena() as arena:
        parent, child = forked(stage, arena, case, point.rounds)
        child.go_to(point.instruction, stage.route(case, point.rounds))
        accounts = [parent.kill()]
        late = others_go_on(arena)
        accounts.append(finish(arena, child))
        assert child.lane not in (None, late), "I7: a lane has two owners"
        books = arena.books()
        arena.assert_peers_are_whole(books)
        for account in accounts:
            account.check(books)


def parent_killed(stage: Stage, case: str, point: Point) -> None:
    """A producer is killed while it forks. Its child, if it has one, goes on; its lane is free once the child moves."""
    with stage.arena() as arena:
        parent = stage.victim(arena, case, point.rounds)
        attach_peers(arena)
        child = stage.step_parent(parent, point.instruction)
        accounts = [parent.kill()]
        if child:
            late = others_go_on(arena)
            assert late != 0, "I7: a lane was given on that a child still holds"
            accounts.append(child.to_end())
            assert child.lane not in (None, late), "I7: a lane has two owners"
        inherit_lane(arena, 0, drained=bool(point.instruction % 2))
        books = arena.books()
        arena.assert_peers_are_whole(books)
        for account in accounts:
            account.check(books)


def run_closed(stage: Stage, case: str, point: Point) -> None:
    """A run is closed while a producer attaches to it: it is refused, or keeps the run open and logs."""
    with stage.arena() as arena:
        victim = stage.victim(arena, case, point.rounds)
        victim.go_to(point.instruction, stage.route(case, point.rounds))
        if arena.segment.lock(_core.LOCK_MEMBER):
            arena.end()
            if point.instruction % 2:
                arena.segment.unlock(_core.LOCK_MEMBER)
            assert victim.finish() == RUN_IS_CLOSED, "a producer attached to a closed run"
            assert not arena.books().tenancies()
        else:
            victim.to_mark()
            arena.pass_once()
            victim.to_end().check(arena.books())


def creator_killed(stage: Stage, case: str, point: Point) -> None:
    """A segment that is being made is refused, or is whole."""
    with stage.arena() as arena:
        victim = stage.victim(arena, case, point.rounds)
        victim.go_to(point.instruction, stage.route(case, point.rounds))
        victim.kill()
        made = open_segment(arena.another)
        if made:
            assert (made.lanes, made.lane_slots, made.run_id, made.run_dir) == (2, 64, "made", "/nowhere")
        else:
            assert point.instruction < len(stage.route(case, point.rounds)), "it was made, and can't be opened"


def open_segment(path: Path) -> _core.Segment | None:
    """Return the segment in a file, or None if there is none."""
    if not path.exists():
        return None
    fd = os.open(path, os.O_RDWR)
    try:
        return _core.Segment.open(fd, str(path))
    except SegmentError:
        os.close(fd)
        return None


def forked(stage: Stage, arena: Arena, case: str, rounds: int) -> tuple[Parent, Victim]:
    """Return a parent that has just forked, and its child before its first instruction."""
    parent = stage.victim(arena, case, rounds)
    attach_peers(arena)
    assert isinstance(parent, Parent)
    return parent, stage.child(parent)


def attach_peers(arena: Arena) -> None:
    for who in ("p0", "p1"):
        arena.attach(who)


def inherit_lane(arena: Arena, expected: int, *, drained: bool) -> None:
    """Assert that a lane is given on, drained before or not, and wrap it."""
    arena.wait_for_lane(expected)
    if drained or arena.fill_of(expected) > LAP // 2:  # a fuller one would be left for later
        arena.pass_once()
    lane = arena.attach("heir")._counts()["lane"]
    assert lane == expected, f"P1: lane {expected} is free, the heir got {lane}"
    arena.run_laps(2)


def others_go_on(arena: Arena) -> int:
    """Have the peers wrap their lanes twice, and another one attach, whose lane is returned."""
    arena.run_laps(2)
    late = arena.attach("late")
    arena.run_laps(2)
    return int(late._counts()["lane"])


def finish(arena: Arena, victim: Victim) -> Account:
    """Let a victim that was frozen log some more and end, and give its lane on."""
    victim.to_mark()
    arena.pass_once()
    account = victim.to_end()
    arena.attach("heir")
    arena.run_laps(2)
    return account


def taken_over(stage: Stage, state: Snapshot) -> None:
    """Every lane of a segment whose processes are all dead is given to a new owner."""
    with stage.arena(state.image) as arena:
        arena.first_name = NEW_NAME
        if state.point % 2 or arena.fill_of(0) > LAP // 2:
            arena.pass_once()
        lanes = [arena.attach(f"heir{i}")._counts()["lane"] for i in range(LANES)]
        assert lanes == list(range(LANES)), f"P1: not every lane is given on: {lanes}"
        arena.run_laps(2)
        books = arena.books()
        arena.assert_peers_are_whole(books)
        state.account.check(books)
