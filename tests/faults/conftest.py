"""Fixtures of the fault tests."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import prepared, sweep, syscalls


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> sweep.Bench:
    """Return what trials with a prepared run need."""
    return _make_bench(tmp_path_factory.mktemp("bench"), resumed=False)


@pytest.fixture(scope="session")
def resumed_bench(tmp_path_factory: pytest.TempPathFactory) -> sweep.Bench:
    """Return the same with the second attempt of a run, whose events are in several files."""
    return _make_bench(tmp_path_factory.mktemp("resumed"), resumed=True)


def _make_bench(folder: Path, *, resumed: bool) -> sweep.Bench:
    run = prepared.prepare(folder, resumed=resumed)
    scratch = folder / "scratch"
    scratch.mkdir()
    return sweep.Bench(syscalls.build(folder), run, sweep.expected_content(run, folder), scratch)


@pytest.fixture
def choice(seed: int) -> random.Random:
    """Return what picks the points."""
    return random.Random(seed)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that everybody may look into, as /tmp and a home folder often are."""
    folder = Path(tempfile.mkdtemp(prefix="shmlog-neighbours-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
