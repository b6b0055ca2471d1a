"""A producer is killed or frozen at every instruction of a call: FAULTS 21, 22 and 28, promise P1."""

from __future__ import annotations

import pytest

from tests.faults.fates import (
    ROUNDS,
    Fate,
    Point,
    all_points,
    child_frozen,
    child_killed,
    frozen,
    killed,
    meet,
    some_points,
    taken_over,
)
from tests.faults.stage import Stage
from tests.support.tools import need

CASES = ["scalar", "half", "full", "new_name", "row", "event", "extend", "attach", "detach"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    need("cc")
    return Stage(tmp_path_factory.mktemp("steps"))


def points_of(stage: Stage, case: str, seed: int, *, full: bool) -> list[Point]:
    if full:
        return [point for rounds in ROUNDS for point in all_points(stage, case, rounds)]
    whole = all_points(stage, case, 1) if case == "scalar" else []
    return whole + some_points(stage, case, seed)


@pytest.mark.parametrize("fate", [killed, frozen])
@pytest.mark.parametrize("case", CASES)
def test_a_producer_is_killed_or_frozen_at_any_instruction(
    stage: Stage, case: str, fate: Fate, full: bool, seed: int
) -> None:
    """FAULTS 21 and 22: at most the call it was in is lost, and nobody waits for it."""
    meet(fate, stage, case, points_of(stage, case, seed, full=full))


@pytest.mark.parametrize("fate", [child_killed, child_frozen])
def test_a_forked_child_is_killed_or_frozen_at_any_instruction(stage: Stage, fate: Fate, full: bool, seed: int) -> None:
    """FAULTS 21, 22 and 28: it logs into a lane of its own, from its first instruction on."""
    meet(fate, stage, "fork", points_of(stage, "fork", seed, full=full))


@pytest.mark.parametrize("case", CASES)
def test_every_state_that_a_kill_can_leave_is_drained_and_taken_over(stage: Stage, case: str) -> None:
    """FAULTS 21: whatever instruction a kill hits, the segment is one of these."""
    count, states = stage.snapshots(case)
    print(f"{case}: {count} instructions, {len(states)} states")
    for state in states:
        try:
            taken_over(stage, state)
        except AssertionError as error:
            error.add_note(f"case {case}, the state after instruction {state.point} of {count}")
            raise
