"""A producer is killed or frozen at every instruction of a call: FAULTS 21, 22 and 28, promise P1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.extension import run_main
from tests.faults.fates import (
    Fate,
    Size,
    child_frozen,
    child_killed,
    creator_killed,
    frozen,
    killed,
    meet,
    parent_killed,
    points_of,
    run_closed,
    taken_over,
)
from tests.faults.stage import Stage
from tests.support.books import assert_books_balance, assert_in_order
from tests.support.processes import TIMEOUT_S, run_script, wait_for_end
from tests.support.tools import need

RUN = "import sys; from tests.faults.runs import main; main(*sys.argv[1:])"
CASES = ["scalar", "half", "full", "new_name", "row", "event", "extend", "attach", "detach"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    need("cc")
    return Stage(tmp_path_factory.mktemp("steps"))


def size_of(case: str, *, full: bool) -> Size:
    return "full" if full else "whole" if case == "scalar" else "sample"


@pytest.mark.parametrize("fate", [killed, frozen])
@pytest.mark.parametrize("case", CASES)
def test_a_producer_is_killed_or_frozen_at_any_instruction(
    stage: Stage, case: str, fate: Fate, full: bool, seed: int
) -> None:
    """FAULTS 21 and 22: at most the call it was in is lost, and nobody waits for it."""
    meet(fate, stage, case, points_of(stage, case, seed, size_of(case, full=full)))


@pytest.mark.parametrize("fate", [child_killed, child_frozen])
def test_a_forked_child_is_killed_or_frozen_at_any_instruction(stage: Stage, fate: Fate, full: bool, seed: int) -> None:
    """FAULTS 21, 22 and 28: it logs into a lane of its own, from its first instruction on."""
    meet(fate, stage, "fork_child", points_of(stage, "fork_child", seed, size_of("fork_child", full=full)))


def test_a_producer_is_killed_at_any_instruction_of_its_fork(stage: Stage, full: bool, seed: int) -> None:
    """FAULTS 21 and 28: its lane is not given on before its child has moved."""
    meet(parent_killed, stage, "fork_parent", points_of(stage, "fork_parent", seed, size_of("fork_parent", full=full)))


def test_a_run_is_closed_at_any_instruction_of_an_attach(stage: Stage, full: bool, seed: int) -> None:
    """FAULTS 22: who attaches while the last one leaves is refused, or is heard."""
    meet(run_closed, stage, "attach", points_of(stage, "attach", seed, size_of("attach", full=full)))


def test_a_segment_is_whole_or_refused_whose_creator_was_killed_at_any_instruction(
    stage: Stage, full: bool, seed: int
) -> None:
    """FAULTS 21: nobody attaches to half a segment."""
    meet(creator_killed, stage, "create", points_of(stage, "create", seed, size_of("create", full=full)))


@pytest.mark.parametrize("fate", [killed, frozen])
@pytest.mark.parametrize("case", [*CASES, "log_name", "numbers", "flush"])
def test_the_extension_is_killed_or_frozen_at_any_instruction(
    stage: Stage, case: str, fate: Fate, full: bool, seed: int, tmp_path: Path
) -> None:
    """FAULTS 21 and 22: the same with the machine code that is shipped, from entering it to leaving it."""
    run_main(stage.folder, "alone", fate.__name__, case, seed, size_of(case, full=full), cwd=tmp_path)


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


def test_the_books_of_a_run_balance_whose_children_were_killed_at_any_instruction(
    stage: Stage, tmp_path: Path, seed: int
) -> None:
    """FAULTS 21 and 28: forked children of a run with its flusher; read back as users read it."""
    done = run_script(RUN, stage.folder, tmp_path / "runs", str(seed), cwd=tmp_path, timeout=2 * TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    wait_for_end(Path(told["run_dir"]))
    stored = assert_books_balance(Path(told["run_dir"]), offered=told["offered"], killed=told["killed"])
    assert_in_order(stored, told["names"])
    assert stored.dropped == {}
