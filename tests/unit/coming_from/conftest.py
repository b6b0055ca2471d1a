"""A store that the rows of docs/coming_from.md are tried on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmlog
from tests.support.coming_from import Kept
from tests.support.processes import wait_for_end
from tests.support.repository import Repository

SPAN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="package")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Return two finished runs, with everything that can be logged; nothing in them is changed."""
    folder = tmp_path_factory.mktemp("coming_from")
    (folder / "plot.png").write_bytes(b"png")
    changed = Repository(folder / "repository")
    changed.change()
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEPARENT", SPAN)
        patch.setenv("SLURM_JOB_ID", "12")
        patch.chdir(changed.folder)
        for number, lr in enumerate((0.1, 0.01)):
            run = shmlog.init(
                "digits", root=folder / "runs", name=f"try {number}", config={"lr": lr, "model": {"depth": 18}},
                tags=["arm:tiered", f"study:{number}"], group="sweep", parent="base",
                git_diff=True,
            )  # fmt: skip
            for step in range(50):
                run.log({"loss": (1 + number) / (1 + step), "good": step > 9}, step)
            run.log("epoch", 2**53 + 1, step=49)
            run.log("note", "warm", step=49)
            run.log("nan", float("nan"), step=0)
            run.log_artifact(folder / "plot.png", "plots/loss.png")
            run.info("half way")
            run.log_result({"accuracy": 0.9})
            run.finish()
            runs.append(run.dir)
    for run_dir in runs:
        wait_for_end(run_dir)
    return Kept(folder / "runs", *runs)


@pytest.fixture
def kept(logged: Kept, tmp_path: Path) -> Kept:
    """Return a copy of the two runs, to be changed."""
    shutil.copytree(logged.root, tmp_path / "kept")
    return Kept(
        tmp_path / "kept",
        *(tmp_path / "kept" / path.relative_to(logged.root) for path in (logged.first, logged.second)),
    )


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shmlog.Run]:
    """Return a running run that all rows may log to."""
    run = shmlog.init("live", root=tmp_path_factory.mktemp("live"))
    yield run
    run.finish()
