"""Victims among busy peers and a running drain: FAULTS 21 and 22, promise P1."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.crowd import VICTIMS_LANE, Crowd
from tests.faults.fates import Point, points_of
from tests.faults.stage import Stage
from tests.support.tools import need

CASES = ["scalar", "row", "event", "attach"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    need("cc")
    return Stage(tmp_path_factory.mktemp("steps"))


@pytest.fixture
def crowd(stage: Stage) -> Iterator[Crowd]:
    with stage.clean_up(Crowd(stage.folder, stage.program)) as crowd:
        yield crowd


def killed(stage: Stage, crowd: Crowd, case: str, point: Point) -> None:
    """Its lane goes on, and the peers go on meanwhile."""
    victim = stage.victim(crowd, case, point.rounds)
    victim.go_to(point.instruction, stage.route(case, point.rounds))
    crowd.accounts.append(victim.kill())
    crowd.wait_for(lambda: crowd.fill_of(VICTIMS_LANE) <= crowd.lap // 2, "the drain")
    lane = crowd.newcomer()
    assert lane == VICTIMS_LANE, f"P1: lane {VICTIMS_LANE} is free, the heir got {lane}"


def frozen(stage: Stage, crowd: Crowd, case: str, point: Point) -> None:
    """Peers wrap their lanes twice and another one attaches; then it goes on."""
    victim = stage.victim(crowd, case, point.rounds)
    victim.go_to(point.instruction, stage.route(case, point.rounds))
    crowd.run_laps(2)
    late = crowd.newcomer()
    crowd.accounts.append(victim.to_end())
    assert victim.lane not in (None, late), "I7: the lane of a frozen producer was given on"


@pytest.mark.parametrize("fate", [killed, frozen])
@pytest.mark.parametrize("case", CASES)
def test_a_producer_is_killed_or_frozen_among_busy_peers(
    stage: Stage, crowd: Crowd, case: str, fate: object, full: bool, seed: int
) -> None:
    """FAULTS 21 and 22: nobody waits for it, none of their records is missing or moved."""
    points = points_of(stage, case, seed, "whole" if full or case == "scalar" else "sample")
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
    print(f"{case}: {len(points)} points beside {[peer.returned for peer in crowd.busy]} records")
