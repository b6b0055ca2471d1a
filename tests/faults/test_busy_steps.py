"""Victims among busy peers and a running drain: FAULTS 21 and 22, promise P1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.crowd import Fate, frozen, killed, meet
from tests.faults.extension import run_main
from tests.faults.fates import Size, points_of
from tests.faults.stage import Stage
from tests.support.tools import need

CASES = ["scalar", "new_name", "row", "event", "extend", "attach", "detach"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    need("cc")
    return Stage(tmp_path_factory.mktemp("steps"))


def size_of(case: str, *, full: bool) -> Size:
    return "whole" if full or case == "scalar" else "sample"


@pytest.mark.parametrize("fate", [killed, frozen])
@pytest.mark.parametrize("case", CASES)
def test_a_producer_is_killed_or_frozen_among_busy_peers(
    stage: Stage, case: str, fate: Fate, full: bool, seed: int
) -> None:
    """FAULTS 21 and 22: nobody waits for it, none of their records is missing or moved."""
    meet(fate, stage, case, points_of(stage, case, seed, size_of(case, full=full)))


@pytest.mark.parametrize("fate", [killed, frozen])
@pytest.mark.parametrize("case", ["scalar", "row", "attach"])
def test_the_extension_is_killed_or_frozen_among_busy_peers(
    stage: Stage, case: str, fate: Fate, full: bool, seed: int, tmp_path: Path
) -> None:
    """FAULTS 21 and 22: the same with the machine code that is shipped."""
    run_main(stage.folder, "crowd", fate.__name__, case, seed, size_of(case, full=full), cwd=tmp_path)
