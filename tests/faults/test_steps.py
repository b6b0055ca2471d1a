"""A producer is killed or frozen at every instruction of a call: FAULTS 21, 22 and 28, promise P1."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.faults.stepping import (
    LANES,
    LAP,
    Account,
    Arena,
    Parent,
    Snapshot,
    Stage,
    Victim,
    compile_producers,
    compile_stepper,
    tenancies_of,
)
from tests.support.slots import Books
from tests.support.tools import need

CASES = ["scalar", "half", "full", "new_name", "row", "event", "extend", "attach", "detach"]
SAMPLE = 20


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    need("cc")
    folder = tmp_path_factory.mktemp("steps")
    return Stage(folder, compile_stepper(folder), compile_producers(folder))


def check_victim(books: Books, account: Account, who: str = "v") -> None:
    found = tenancies_of(books, who)
    assert len(found) <= 1, f"I7: {who} owned {len(found)} lanes"
    account.check(found[0] if found else None)


def points_of(stage: Stage, case: str, seed: int, *, every: bool) -> list[int]:
    """Return all points of a call, or some: around its system calls, and a sample of the others."""
    count, calls = stage.trace(case)
    if every:
        return list(range(count + 1))
    chosen = {call + i for call in calls for i in (0, 1)} | {0, count}
    return sorted(chosen | set(random.Random(seed).sample(range(count), SAMPLE)))


def at_each(points: list[int], act: Callable[[int, int], None], case: str) -> None:
    """Act at each point, in a lane that is at another place each time."""
    for point in points:
        rounds = 1 + point % 4
        try:
            act(point, rounds)
        except AssertionError as error:
            error.add_note(f"case {case}, point {point} of {points[-1]}, {rounds} rounds before it")
            raise


# ---- killed ----


@pytest.mark.parametrize("case", CASES)
def test_a_producer_killed_at_any_instruction_loses_at_most_the_call_it_was_in(
    stage: Stage, case: str, full: bool, seed: int
) -> None:
    """FAULTS 21: the rest of its records is there, its lane goes on, and nobody waits for it."""

    def act(point: int, rounds: int) -> None:
        with stage.arena() as arena:
            victim = stage.victim(arena, case, rounds)
            victim.step(point)
            account = victim.kill()
            inherit_lane(arena, 2 if case == "attach" else 0, drained=bool(point % 2))
            books = arena.books()
            arena.assert_peers_are_whole(books)
            check_victim(books, account)

    at_each(points_of(stage, case, seed, every=full or case == "scalar"), act, case)


def inherit_lane(arena: Arena, expected: int, *, drained: bool) -> None:
    """Assert that a lane is given on, drained before or not, and wrap it."""
    if drained or fill_of(arena, expected) > LAP // 2:  # a fuller one would be left for later
        arena.pass_once()
    lane = arena.attach("heir")._counts()["lane"]
    assert lane == expected, f"P1: lane {expected} is free, the heir got {lane}"
    arena.run_laps(2)


def fill_of(arena: Arena, lane: int) -> int:
    state = arena.segment.lane(lane)
    return int(state["head"] - state["tail"])


# ---- every state of the segment ----


@pytest.mark.parametrize("case", CASES)
def test_every_state_that_a_kill_can_leave_is_drained_and_taken_over(stage: Stage, case: str) -> None:
    """FAULTS 21: whatever instruction a kill hits, the segment is one of these."""
    count, states = stage.snapshots(case)
    print(f"{case}: {count} instructions, {len(states)} states")
    for state in states:
        try:
            take_over(stage, state)
        except AssertionError as error:
            error.add_note(f"case {case}, the state after instruction {state.point} of {count}")
            raise


def take_over(stage: Stage, state: Snapshot) -> None:
    """Give every lane of a segment whose processes are all dead to a new owner."""
    arena = Arena(stage.folder, state.image)
    try:
        if state.point % 2 or fill_of(arena, 0) > LAP // 2:
            arena.pass_once()
        lanes = [arena.attach(f"heir{i}")._counts()["lane"] for i in range(LANES)]
        assert lanes == list(range(LANES)), f"P1: not every lane is given on: {lanes}"
        arena.run_laps(2)
        books = arena.books()
        arena.assert_peers_are_whole(books)
        check_victim(books, state.account)
    finally:
        arena.close()


# ---- frozen ----


@pytest.mark.parametrize("case", CASES)
def test_a_producer_frozen_at_any_instruction_holds_up_nobody_and_goes_on(
    stage: Stage, case: str, full: bool, seed: int
) -> None:
    """FAULTS 22: peers wrap their lanes twice and others attach; then it goes on as if nothing had been."""

    def act(point: int, rounds: int) -> None:
        with stage.arena() as arena:
            victim = stage.victim(arena, case, rounds)
            victim.step(point)
            arena.run_laps(2)
            late = arena.attach("late")
            arena.run_laps(2)
            victim.to_mark()
            if case != "detach":
                assert victim.lane != late._counts()["lane"], "I7: the lane of a frozen producer was given on"
            arena.pass_once()
            account = victim.to_end()
            arena.attach("heir")
            arena.run_laps(2)
            books = arena.books()
            arena.assert_peers_are_whole(books)
            check_victim(books, account)

    at_each(points_of(stage, case, seed, every=full or case == "scalar"), act, case)


# ---- forks ----


def test_a_forked_child_killed_at_any_instruction_harms_nobody(stage: Stage, full: bool, seed: int) -> None:
    """FAULTS 21 and 28: from its first instruction to the return of its first log call."""

    def act(point: int, rounds: int) -> None:
        with stage.arena() as arena:
            parent, child = forked(stage, arena, rounds)
            child.step(point)
            parent.go_on()
            killed = child.kill()
            parted = parent.wait()
            inherit_lane(arena, 0, drained=bool(point % 2))
            books = arena.books()
            arena.assert_peers_are_whole(books)
            check_victim(books, parted)
            check_victim(books, killed, "child")

    at_each(points_of(stage, "fork", seed, every=full), act, "fork")


def test_a_forked_child_frozen_at_any_instruction_never_logs_into_the_lane_of_its_parent(
    stage: Stage, full: bool, seed: int
) -> None:
    """FAULTS 22 and 28: the parent is killed meanwhile, and others attach."""

    def act(point: int, rounds: int) -> None:
        with stage.arena() as arena:
            parent, child = forked(stage, arena, rounds)
            child.step(point)
            parted = parent.kill()
            arena.run_laps(2)
            late = arena.attach("late")
            arena.run_laps(2)
            child.to_mark()
            assert child.lane not in (None, late._counts()["lane"]), "I7: a lane has two owners"
            arena.pass_once()
            ended = child.to_end()
            arena.attach("heir")
            arena.run_laps(2)
            books = arena.books()
            arena.assert_peers_are_whole(books)
            check_victim(books, parted)
            check_victim(books, ended, "child")

    at_each(points_of(stage, "fork", seed, every=full), act, "fork")


def forked(stage: Stage, arena: Arena, rounds: int) -> tuple[Parent, Victim]:
    """Return a parent that has just forked, and its child before its first instruction."""
    parent = stage.victim(arena, "fork", rounds)
    assert isinstance(parent, Parent)
    return parent, parent.to_fork()
