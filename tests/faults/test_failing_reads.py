"""Every call that reads a run fails once: the answer is right, or an error, or told; and the next one is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import shmlog
from tests.support.csource import WARNINGS, run_tool
from tests.support.processes import wait_for_end
from tests.support.tools import need

SOURCE = Path(__file__).with_name("failingreads.c")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a store with a pinned run, a copy of it with another artifact, and a run that has just begun."""
    root = tmp_path / "runs"
    weights = tmp_path / "weights"
    weights.write_bytes(b"of this run")
    with shmlog.init("asked", root=root, lanes=2, lane_records=256, rotate_events="2 KiB", config={"lr": 0.1}) as run:
        for step in range(100):
            run.log("loss", float(step), step=step)
            run.event("checked", {"count": step})
        run.log_artifact(weights)
    wait_for_end(run.dir)
    shmlog.Store(root).pin(run.id)
    changed, begun = (run.dir.with_name(f"{run.id}-{name}") for name in ("changed", "just-begun"))
    shutil.copytree(run.dir, changed)
    (changed / "manifest.json").unlink()  # so that the events alone tell what the artifact was
    artifact = next((changed / "artifacts").rglob("weights"))
    artifact.unlink()
    artifact.write_bytes(b"of no run at all")
    for folder in ("wal", "kept"):
        (begun / folder).mkdir(parents=True)
    shutil.copy(run.dir / "run.yaml", begun)
    (begun / "kept" / "000000.wal").touch()
    return root


def test_a_read_that_fails_is_never_taken_for_an_answer(tmp_path: Path, root: Path) -> None:
    need("gcc")
    library = tmp_path / "failingreads.so"
    run_tool("gcc", "-std=c11", "-O2", *WARNINGS, "-shared", "-fPIC", SOURCE, "-o", library)
    path = os.pathsep.join(p for p in sys.path if p)
    asked = subprocess.run(
        [sys.executable, "-m", "tests.faults.failing_reads", root],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    outcomes = json.loads(asked.stdout)
    wrong = {name: outcome["wrong"][:5] for name, outcome in outcomes.items() if outcome["wrong"]}
    assert not wrong, json.dumps(wrong, indent=1)
    assert all(outcome["calls"] for outcome in outcomes.values()), "no call was seen"
    print({name: outcome["calls"] for name, outcome in outcomes.items()})
