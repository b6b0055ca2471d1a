"""The C core under ThreadSanitizer, and under AddressSanitizer with UBSan: runs clean, and its books balance.

FAULTS P12, rows 17, 21, 28, 36: ``stress.c`` has authors come, log, leave or be killed, and take over each
other's lanes, against a drain that is begun anew; it checks I1, I3, I4, I5 and I7 in what comes into the log,
so that it is a test without a sanitizer, too.
"""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from tests.support.csource import CSRC, WARNINGS, build_flags, core_sources, mutated, run_tool

STRESS = Path(__file__).with_name("stress.c")
SANITIZERS = {
    "plain": ["-O3"],
    # It knows no fences; those of CUT stand between atomics, of which it reports none.
    "thread": ["-O1", "-g", "-fsanitize=thread", "-Wno-tsan"],
    "address and undefined": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}
# One report ends it: what follows is of no worth.
OPTIONS = {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def build(sanitizer: str, folder: Path, csrc: Path = CSRC) -> Path:
    """Compile the stress program with the core's sources in ``csrc``."""
    made = folder / "stress"
    flags = [*build_flags(), *WARNINGS, *SANITIZERS[sanitizer], f"-I{csrc / 'core'}"]
    sources = [csrc / "core" / source.name for source in core_sources()]
    run_tool("gcc", *flags, STRESS, *sources, "-o", made, "-lpthread")
    return made


def stress(
    program: Path, folder: Path, seed: int, authors: int, records: int, mode: str
) -> subprocess.CompletedProcess[str]:
    place = folder / f"{mode}-{seed}"
    place.mkdir()
    command = [str(program), str(place), str(seed), str(authors), str(records), mode]
    return subprocess.run(
        command, env=OPTIONS, capture_output=True, text=True, errors="replace", check=False, timeout=1800
    )


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_the_core_runs_clean_and_its_books_balance(sanitizer: str, tmp_path: Path, full: bool, seed: int) -> None:
    program = build(sanitizer, tmp_path)
    authors, records = (300, 80_000) if full else (60, 3000)
    for one, mode in itertools.product(range(seed, seed + (1 if full else 2)), ["threads", "processes"]):
        done = stress(program, tmp_path, one, authors, records, mode)
        assert done.returncode == 0, f"--seed={one}, {sanitizer}, {mode}:\n{done.stdout}\n{done.stderr}"
        print(done.stdout.strip())


RACES = {
    "COMMIT, release": (
        "core/lane.h",
        "name_id, kind, flags),\n                          memory_order_release",
        "name_id, kind, flags),\n                          memory_order_relaxed",
    ),
    "COMMIT, acquire": ("core/lane.c", "&slot->commit, memory_order_acquire", "&slot->commit, memory_order_relaxed"),
    "RECLAIM, release": (
        "core/drain.c",
        "&shared->tail, cursor->position, memory_order_release",
        "&shared->tail, cursor->position, memory_order_relaxed",
    ),
    "RECLAIM, acquire": (
        "core/room.c",
        "&lane->shared->tail, memory_order_acquire);\n    if",
        "&lane->shared->tail, memory_order_relaxed);\n    if",
    ),
    "NAME, release": (
        "core/names.c",
        "memory_order_acq_rel, memory_order_acquire",
        "memory_order_relaxed, memory_order_relaxed",
    ),
    "NAME, acquire": (
        "core/names.c",
        "&names->index[place], memory_order_acquire",
        "&names->index[place], memory_order_relaxed",
    ),
}


@pytest.mark.parametrize("side", RACES)
def test_a_side_of_a_pair_that_is_relaxed_is_a_race(side: str, tmp_path: Path, seed: int) -> None:
    program = build("thread", tmp_path, mutated(tmp_path, *RACES[side]))
    done = stress(program, tmp_path, seed, 60, 3000, "threads")
    assert done.returncode != 0, f"{side}: not seen\n{done.stdout}"
    assert "data race" in done.stderr, done.stderr


OVERRUNS = {
    "a text is read by its end, not by its slots": (
        "core/lane.c",
        "left < SHMLOG_DATA_BYTES ? left : SHMLOG_DATA_BYTES);\n    }\n    shmlog_lane_commit",
        "left > SHMLOG_DATA_BYTES ? left : SHMLOG_DATA_BYTES);\n    }\n    shmlog_lane_commit",
    ),
    "owners have less room than they take": (
        "core/drain.c",
        "malloc((size_t)lanes * (8 + SHMLOG_OWNER_BYTES_MAX))",
        "malloc((size_t)lanes * 8)",
    ),
    "a lane is copied as if it did not wrap": (
        "core/frame.c",
        "uint64_t head = slots < until_wrap ? slots : until_wrap;",
        "uint64_t head = slots + 0 * until_wrap;",
    ),
}


@pytest.mark.parametrize("overrun", OVERRUNS)
def test_an_overrun_is_found(overrun: str, tmp_path: Path, seed: int) -> None:
    program = build("address and undefined", tmp_path, mutated(tmp_path, *OVERRUNS[overrun]))
    done = stress(program, tmp_path, seed, 60, 3000, "threads")
    assert done.returncode != 0, f"{overrun}: not seen\n{done.stdout}"
