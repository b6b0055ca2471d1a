"""The tests can tell: deliberate mistakes in the code that is shipped, each of which fails a test."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.mutations import MUTATIONS, try_all
from tests.faults.workshop import ROOT, Mutation, Workshop

SAMPLE = 2
SLOW = (
    "faults/test_full_disk.py",
    "faults/test_power_loss.py",
    "faults/test_flusher_kills.py",
    "faults/test_hostile_bytes.py",
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mistake_is_not_out_of_date(mutation: Mutation) -> None:
    text = (ROOT / "shmlog" / mutation.file).read_text()
    wrong = mutation.applied_to(text)
    if not mutation.is_in_c:
        compile(wrong, mutation.file, "exec")
    path, _, name = mutation.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / path).read_text(), "its test is gone"


def test_there_are_mistakes_of_every_kind() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)
    in_c = sum(mutation.is_in_c for mutation in MUTATIONS)
    assert min(in_c, len(MUTATIONS) - in_c) >= 12


def test_a_mistake_that_has_gone_is_told(tmp_path: Path) -> None:
    mutation = Mutation("gone", "flusher/closing.py", "no such text", "", "nothing", "unit/test_core.py::test_x")
    with pytest.raises(ValueError, match="out of date"):
        Workshop.copy_of(ROOT, tmp_path / "copy").mutate(mutation)


def test_a_test_fails_for_each_mistake(tmp_path: Path, seed: int, full: bool) -> None:
    """A few that are quickly found, by chance; all of them with ``--faults=full``."""
    quick = [mutation for mutation in MUTATIONS if not mutation.test.startswith(SLOW)]
    chosen = MUTATIONS if full else random.Random(seed).sample(quick, SAMPLE)
    survivors = {
        mutation.name: verdict.said
        for mutation, verdict in try_all(chosen, tmp_path, seed=seed, jobs=1)
        if not verdict.caught
    }
    assert not survivors, f"no test notices {survivors}"
