"""Models of the lane and of sealing, searched to the end by Spin: a crash at every step, and seeded mistakes.

FAULTS P12, rows 21, 22, 38, 39, 54. ``model/lane.pml`` is one lane with its producers, its flusher, the
log and the hand-over (I1 to I4, I7); ``model/cut.pml`` the end of a follower's part in a lane, at its
owner's finish and at the close (I3, I4, I6); ``model/seal.pml`` the way from the logs to parts and
events.jsonl under kills and losses of power, with a reader (I6). A model without a
mistake shows that the protocol is right as far as its bounds go; that Spin finds every
mistake seeded by ``-D`` shows that the model can tell.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.csource import run_tool
from tests.support.tools import need

MODELS = Path(__file__).with_name("model")
MISTAKE = re.compile(r"\bMISTAKE_[A-Z_]+[A-Z]\b")
SECONDS = 1800
SEARCH_FLAGS = ["-DSAFETY", "-DCOLLAPSE", "-DNOFAIR", "-DVECTORSZ=2048"]


@dataclass(frozen=True)
class Search:
    """What a search found."""

    errors: int
    states: int
    output: str


def search(model: str, folder: Path, *defines: str, optimize: str = "-O0") -> Search:
    """Search all states of a model; the first error ends it."""
    need("spin", "gcc")
    flags = [f"-D{define}" for define in defines]
    done = subprocess.run(
        ["spin", "-a", *flags, str(MODELS / model)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = folder / "pan"
    run_tool("gcc", optimize, "-w", *SEARCH_FLAGS, "-o", made, folder / "pan.c")
    output = subprocess.run(
        [str(made), "-m200000"], cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS
    ).stdout
    errors = re.search(r"errors: (\d+)", output)
    states = re.search(r"(\d+) states, stored", output)
    assert errors, output
    assert states, output
    assert "max search depth too small" not in output, output
    return Search(int(errors[1]), int(states[1]), output)


def trail_of(model: str, folder: Path, *defines: str) -> str:
    """Return the last steps on the way to the error that a search found."""
    (folder / model).write_bytes((MODELS / model).read_bytes())
    flags = [f"-D{define}" for define in defines]
    command = ["spin", "-t", "-p", "-k", str(folder / f"{model}.trail"), *flags, model]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return "\n".join(done.stdout.splitlines()[-80:])


NO_DEATHS = ["FOLLOWER_DEATHS=0", "FLUSHER_DEATHS=0"]
RIGHT = {
    "two owners, one killed": ("lane.pml", ["UNITS=3"]),
    "units of up to three slots": ("lane.pml", ["UNITS=2", "UNIT_MAX=3"]),
    "many laps of a tiny lane": ("lane.pml", ["UNITS=5", "SLOTS=2", "UNIT_MAX=1"]),
    "a log that loses its last frame": ("lane.pml", ["UNITS=3", "LOG_DAMAGES=1", "UNIT_MAX=1", "SLOTS=2"]),
    "fsync on request": ("lane.pml", ["UNITS=3", "SLOTS=2", "SYNC=1", "UNIT_MAX=1"]),
    "the flusher killed twice": ("lane.pml", ["UNITS=3", "FLUSHER_DEATHS=2", "PRODUCER_DEATHS=0", "PRODUCERS=1"]),
    "a lane that is cut": ("cut.pml", ["UNITS=3", "FOLLOWERS=1"]),
    "a lane that is full and cut": ("cut.pml", ["UNITS=3", "FOLLOWERS=1", "SLOTS=1"]),
    "a lane that is cut and given on": ("cut.pml", ["UNITS=2", "FLUSHER_DEATHS=0"]),
    "a lane that the flusher alone cuts": ("cut.pml", ["UNITS=2", "OWNERS=0"]),
    "a lane that a slow owner cuts when it has been given on": ("cut.pml", ["UNITS=2", "OWNERS=2", *NO_DEATHS]),
    "a lane that is cut and given on to an owner": ("cut.pml", ["UNITS=2", "LAST_IS_OWNER=1"]),
    "sealing, killed twice, and a reader": ("seal.pml", ["KILLS=2", "POWER_LOSSES=0", "LOOKS=2"]),
    "sealing, killed, and a loss of power": ("seal.pml", ["KILLS=1", "POWER_LOSSES=1"]),
    "sealing, and merging meanwhile": ("seal.pml", ["LOGS=3", "KILLS=1", "POWER_LOSSES=1"]),
}
RIGHT_FULL = {
    "two owners, four records": ("lane.pml", []),
    "many laps of a tiny lane": ("lane.pml", ["UNITS=7", "SLOTS=2", "UNIT_MAX=1"]),
    "three owners, two killed": ("lane.pml", ["UNITS=3", "PRODUCERS=3", "PRODUCER_DEATHS=2"]),
    "the flusher killed twice, a producer once": ("lane.pml", ["UNITS=4", "UNIT_MAX=1", "FLUSHER_DEATHS=2"]),
    "units of three slots, four records": ("lane.pml", ["UNITS=4", "UNIT_MAX=3"]),
    "fsync on request": ("lane.pml", ["UNITS=3", "SYNC=1"]),
    "a log that loses its last frame": ("lane.pml", ["UNITS=4", "LOG_DAMAGES=1"]),
    "a lane that is cut and given on, the flusher killed": ("cut.pml", ["UNITS=2"]),
    "a full lane that is cut and given on": ("cut.pml", ["UNITS=3", "SLOTS=1", "FLUSHER_DEATHS=0"]),
    "a lane that is cut, the flusher killed twice": ("cut.pml", ["UNITS=2", "FOLLOWERS=1", "FLUSHER_DEATHS=2"]),
    "a lane that a slow owner cuts, a follower killed": ("cut.pml", ["UNITS=2", "OWNERS=2", "FLUSHER_DEATHS=0"]),
    "a lane that a slow owner cuts, both killed": ("cut.pml", ["UNITS=1", "OWNERS=2"]),
    "four logs": ("seal.pml", ["LOGS=4", "KILLS=2", "POWER_LOSSES=0", "LOOKS=2"]),
    "four logs and losses of power": ("seal.pml", ["LOGS=4", "KILLS=2", "POWER_LOSSES=2"]),
}

# What a mistake needs beside the bounds that most are found in.
NEEDS = {
    "MISTAKE_GAP_FORGOTTEN": ["UNITS=4", "SLOTS=2", "UNIT_MAX=1"],
    "MISTAKE_GAP_TELLS_ONE": ["UNITS=4", "SLOTS=2", "UNIT_MAX=1"],
    "MISTAKE_RESTART_AT_LOG": ["UNITS=3", "LOG_DAMAGES=1"],
    "MISTAKE_NO_FSYNC": ["UNITS=3", "SYNC=1"],
}
SMALL = {"lane.pml": ["UNITS=3"], "cut.pml": ["UNITS=2", "FOLLOWERS=1"], "seal.pml": ["KILLS=1", "POWER_LOSSES=1"]}
# Found by a reader that looks while nothing is lost.
LOOKING = ["KILLS=1", "POWER_LOSSES=0"]
# Found with a lane that is full, so that there are drops to be told.
FULL = ["UNITS=2", "FOLLOWERS=1", "SLOTS=1"]
# Found with a cut that was meant for a follower which had the lane before.
SLOW_OWNER = ["UNITS=2", "OWNERS=2", *NO_DEATHS]
NEEDS |= {
    "MISTAKE_CUT_IS_PROOF": SLOW_OWNER,
    "MISTAKE_CUT_IS_PROOF_TO_AN_OWNER": ["UNITS=2", "LAST_IS_OWNER=1", *NO_DEATHS],
    "MISTAKE_NO_FENCE_AFTER_UNCUT": SLOW_OWNER,
    "MISTAKE_NO_LOOK_AFTER_UNCUT": SLOW_OWNER,
    "MISTAKE_CLOSED_NOT_LOOKED_AT_FIRST": ["UNITS=2"],
    "MISTAKE_NO_LOOK_AFTER_DROP": FULL,
    "MISTAKE_SETTLE_TELLS_DROPPED": FULL,
    "MISTAKE_TOLD_AFTER_FINAL": FULL,
    "MISTAKE_TOLD_NOT_NOTED_AGAIN": FULL,
    "MISTAKE_UNTOLD_NOT_COUNTED": FULL,
}
NEEDS |= {"MISTAKE_BOOKS_READ_ONCE": LOOKING, "MISTAKE_BOOKS_BEFORE_PART": LOOKING}


def mistakes() -> list[tuple[str, str]]:
    return [
        (model, mistake) for model in SMALL for mistake in sorted(set(MISTAKE.findall((MODELS / model).read_text())))
    ]


def check_right(model: str, folder: Path, bounds: list[str], optimize: str) -> int:
    found = search(model, folder, *bounds, optimize=optimize)
    assert found.errors == 0, (
        f"I1-I7: {model} {bounds}\n{found.output}\n{trail_of(model, folder, *bounds) if found.errors else ''}"
    )
    return found.states


@pytest.mark.parametrize("case", RIGHT)
def test_no_step_of_the_right_protocol_breaks_an_invariant(case: str, tmp_path: Path) -> None:
    model, bounds = RIGHT[case]
    states = check_right(model, tmp_path, bounds, "-O1")
    assert states > 10_000, "the search has gone somewhere"


@pytest.mark.parametrize("case", RIGHT_FULL)
def test_nor_within_larger_bounds(case: str, tmp_path: Path, full: bool) -> None:
    if not full:
        return  # the same claim as above, for minutes
    model, bounds = RIGHT_FULL[case]
    print(f"{case}: {check_right(model, tmp_path, bounds, '-O2')} states")


@pytest.mark.parametrize(("model", "mistake"), mistakes(), ids=lambda value: value.removeprefix("MISTAKE_"))
def test_a_mistake_is_found(model: str, mistake: str, tmp_path: Path) -> None:
    found = search(model, tmp_path, mistake, *NEEDS.get(mistake, SMALL[model]))
    assert found.errors == 1, f"{mistake} is not found\n{found.output}"
    assert "assertion violated" in found.output, f"{mistake}: no invariant is broken\n{found.output}"


def test_there_are_mistakes_of_every_kind() -> None:
    assert len(mistakes()) >= 40
