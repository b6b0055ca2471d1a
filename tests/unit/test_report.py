"""One page about a run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import shmlog
from shmlog.cli.main import main


def make(root: Path, lr: float, end: float) -> shmlog.StoredRun:
    with shmlog.init("my exp", root=root, config={"lr": lr, "model": {"depth": 18}}, name=f"lr_{lr}") as run:
        for step in range(200):
            run.log("loss", end if step > 180 else 1.0, step=step)
            run.log("acc", step / 200, step=step)
        run.log("note", "a|b", step=0)
        run.log_result({"best": {"acc": 0.995}})
    return shmlog.load(run.dir)


def test_a_report_says_what_people_ask_first(tmp_path: Path) -> None:
    first, second = make(tmp_path, 0.1, 1.0), make(tmp_path, 0.2, 50.0)
    text = second.report()
    assert text.startswith("# my exp: lr_0.2\n\n- Status: success, ")
    assert "- lr: 0.2\n- model.depth: 18\n" in text
    assert "## Results\n\n- best.acc: 0.995\n" in text
    assert "| loss | 200 | 50 | 1 | 50 |" in text
    assert "| note | 1 | a\\|b |  |  |" in text
    assert "- **loss** diverges from step 181 on: 50 at the end, about 1 before. Go on from a checkpoint" in text
    assert f"## Since the previous run\n\n`{first.id}`, success\n" in text
    assert "| lr | 0.1 | 0.2 |" in text
    assert "| loss, last | 1 | 50 |" in text
    assert "depth" not in text.partition("Since")[2]
    assert "Not in the run" not in text
    assert "Since the previous run" not in first.report()


def test_a_report_of_a_run_that_has_nothing(tmp_path: Path) -> None:
    with shmlog.init("empty", root=tmp_path) as run:
        pass
    text = shmlog.load(run.dir).report()
    assert "- Records: 0 metrics, 2 events" in text
    assert "##" not in text


def test_nan_in_a_report_has_advice(tmp_path: Path) -> None:
    with shmlog.init("bad", root=tmp_path) as run:
        run.log("loss", math.nan, step=3)
    assert "- **loss** 1 of 1 values are NaN, the first at step 3. Look at" in shmlog.load(run.dir).report()


def test_the_command_writes_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = make(tmp_path / "runs", 0.1, 1.0)
    assert main(["report", "latest"]) == 0
    assert capsys.readouterr().out == stored.report()
    assert main(["report", "my exp", "-o", "page.md"]) == 0
    assert main(["report", "my exp", "-o", "page.md"]) == 3
    assert "page.md is there already; --force replaces it" in capsys.readouterr().err
    assert main(["report", "my exp", "-o", "page.md", "--force"]) == 0
    assert (tmp_path / "page.md").read_text() == stored.report()
