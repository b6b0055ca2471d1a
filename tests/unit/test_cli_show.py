"""``shmlog show``: the failure on top, results, artifacts, parameters, and long lists folded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shmlog
from shmlog.cli import details
from shmlog.cli.main import main


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run that failed, with more of everything than people read."""
    monkeypatch.chdir(tmp_path)
    params = {"opt": {"lr": 0.1, "betas": [0.9, 0.99]}, "model": "vit", **{f"p{i}": i for i in range(60)}}
    run = shmlog.init("digits", config=params, notes="first\nsecond")
    run.log({f"m{i}": i for i in range(80)}, step=1)
    run.log_result({"accuracy": 0.93, "best": {"step": 7}})
    (tmp_path / "model.bin").write_bytes(b"x" * 1500)
    run.log_artifact("model.bin", "models/model.bin")
    try:
        raise ValueError("the batch is empty")
    except ValueError as error:
        run.log_error(error, {"step": 100})
    run.finish("failed")
    return run.dir


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    capsys.readouterr()
    assert main(["show", "digits", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_failure_stands_on_top_with_its_traceback(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    assert lines[0] == "error    ValueError: the batch is empty"
    assert '{"step": 100}' in lines[2]
    at = lines.index("  Traceback (most recent call last):")
    assert "  ValueError: the batch is empty" in lines[at:]
    assert next(i for i, line in enumerate(lines) if line.startswith("run  ")) > at
    found = json.loads(capsys.readouterr().out) if main(["show", "digits", "--json"]) == 0 else {}
    assert found["failure"]["data"]["error_message"] == "the batch is empty"


def test_parameters_results_and_artifacts_stand_one_a_line(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    for words in (["opt.lr", "0.1"], ["opt.betas", "[0.9,", "0.99]"], ["accuracy", "0.93"], ["best.step", "7"],
                  ["models/model.bin", "1.5", "kB"]):  # fmt: skip
        assert words in [line.split() for line in lines]
    assert lines[lines.index("notes    first") + 1] == "         second"


def test_long_lists_are_cut_and_all_of_it_is_there(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    assert "… 33 more parameters; --all shows all" in lines
    assert "… 30 more metrics; --all shows all, --metric 'GLOB' those of a name" in lines
    everything = [line.split()[0] for line in shown(capsys, "--all") if line]
    assert {f"m{i}" for i in range(80)} | {f"p{i}" for i in range(60)} <= set(everything)
    assert "…" not in everything
    names = [line.split()[0] for line in shown(capsys, "--metric", "m1?") if line.startswith("m1")]
    assert names == [f"m{i}" for i in range(10, 20)]


def test_many_producers_are_folded_by_role() -> None:
    common = {"lane": 1, "metrics": 2, "events": 1, "dropped": {"full": 1}}
    readers = [{**common, "pid": i, "rank": 0, "worker": 0, "process": f"Process-{i}"} for i in range(25)]
    main_process = {**common, "pid": 99, "rank": 0, "worker": None, "process": "MainProcess"}
    many = [{**common, "pid": None, "rank": 1, "worker": 0, "process": None, "tenancies": 1000}] * 2
    rows = list(details._producers([main_process, *readers, *many], everything=False))
    assert rows == [
        ["1", "99", "0", None, "MainProcess", 2, 1, 1],
        [None, None, "0", "0", "25 processes Process", 50, 25, 25],
        [None, None, "1", "0", "2,000 processes", 4, 2, 2],
    ]
    assert len(list(details._producers(readers, everything=True))) == 25
    assert len(list(details._producers(readers[:4], everything=False))) == 4
