"""A follower's part of a run ends at every instruction of a call: FAULTS 21 and 22, promises I3 and I4."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cuts import killed_while_moving, owner_finished, run_is_being_closed, run_main, run_was_closed
from tests.faults.fates import Fate, Size
from tests.support.tools import need

CASES = ["scalar", "log_name", "half", "full", "numbers", "row", "event", "extend", "first"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cc")
    return tmp_path_factory.mktemp("cuts")


def size_of(case: str, *, full: bool) -> Size:
    return "full" if full else "whole" if case == "scalar" else "sample"


@pytest.mark.parametrize("fate", [run_was_closed, run_is_being_closed, owner_finished])
@pytest.mark.parametrize("case", CASES)
def test_a_follower_is_cut_at_any_instruction(
    folder: Path, case: str, fate: Fate, full: bool, seed: int, tmp_path: Path
) -> None:
    """Each record is in the run, in the next one, or counted, and in one of them only."""
    run_main(folder, fate.__name__, case, seed, size_of(case, full=full), cwd=tmp_path)


@pytest.mark.parametrize("case", ["scalar", "event", "first"])
def test_a_follower_is_killed_at_any_instruction_of_its_move(
    folder: Path, case: str, full: bool, seed: int, tmp_path: Path
) -> None:
    """From entering the extension to leaving it, with the Python code in between: one call at most is lost."""
    run_main(folder, killed_while_moving.__name__, case, seed, "full" if full else "sample", cwd=tmp_path)
