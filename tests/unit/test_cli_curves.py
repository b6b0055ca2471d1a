"""Curves and exports of some of a run's records; experiments, notes, new roots, and verifying many runs."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.errors import UnknownNameError
from tests.support.stores import add_run


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run below ./runs that has logged three curves of 100 steps."""
    monkeypatch.chdir(tmp_path)
    with shmlog.init("digits", config={"lr": 0.1}) as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1), "val/acc": step / 100}, step=step)
            run.log("val/n", step, step=step)
    return run.dir


def rows_of(capfdbinary: pytest.CaptureFixture[bytes], *words: str) -> list[dict[str, str]]:
    capfdbinary.readouterr()
    assert main([*words]) == 0
    return list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))


def test_a_curve_is_csv_in_a_pipe(run_dir: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    rows = rows_of(capfdbinary, "metrics", "digits", "loss")
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [(step, 1 / (step + 1)) for step in range(100)]
    rows = rows_of(capfdbinary, "metrics", "digits", "val/*", "--steps", "10:19", "--every", "4")
    assert [row["step"] for row in rows if row["val/acc"]] == ["10", "14", "18", "19"]
    assert [row["step"] for row in rows if row["val/n"]] == ["10", "14", "18", "19"]


def test_a_curve_is_a_table_on_a_terminal(run_dir: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "shmlog", "metrics", "digits", "loss", "--limit", "3"]
    subprocess.run(words, stdout=theirs, check=True, env={**os.environ, "COLUMNS": "80"})
    os.close(theirs)
    lines = [line.split() for line in os.read(ours, 10_000).decode().splitlines()]
    os.close(ours)
    assert lines[0] == ["step", "ts", "loss"]
    assert [(line[0], line[-1]) for line in lines[1:]] == [("0", "1"), ("49", "0.02"), ("99", "0.01")]


def test_names_of_metrics(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "digits"]) == 0
    assert capsys.readouterr().out.split() == ["loss", "val/acc", "val/n"]
    assert main(["metrics", "digits", "los"]) == 3
    assert "has no metric 'los'; perhaps loss is meant; there are loss, val/acc, val/n" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "summary"])
def test_an_export_takes_names_steps_and_a_thinning(run_dir: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out" / "file"
    words = ["export", "digits", "-f", format, "-o", str(out), "--metric", "val/a*", "--metric", "loss"]
    assert main([*words, "--steps", "50:", "--every", "10"]) == 0
    if format == "summary":
        statistics = json.loads(out.read_text())["statistics"]
        assert {name: figures["records"] for name, figures in statistics.items()} == {"loss": 6, "val/acc": 6}
        return
    back = shmlog.import_run(out, tmp_path / "back", format=format)
    table = shmlog.load(back.dir).metrics()
    assert sorted(set(table["name"].to_pylist())) == ["loss", "val/acc"]
    assert sorted(set(table["step"].to_pylist())) == [50, 60, 70, 80, 90, 99]


def test_an_export_of_no_such_metric_writes_nothing(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="there are loss"):
        shmlog.export_run(run_dir, tmp_path / "out.csv", names="nope")
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(ValueError, match="1 or more"):
        shmlog.export_run(run_dir, tmp_path / "out.csv", every=0)


def test_a_file_that_is_there_is_replaced_by_force_alone(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("mine")
    assert main(["export", "digits", "-o", str(out)]) == 3
    assert "is there already; --force replaces it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["export", "digits", "-o", str(out), "--force"]) == 0
    assert out.read_text() != "mine"
    folder = ["export", "digits", "-f", "all", "-o", str(tmp_path / "all")]
    assert [main(folder), main(folder), main([*folder, "--force"])] == [0, 3, 0]


def test_experiments_are_listed(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(Path("runs"), "bad", "letters", status="failed")
    shmlog.Store("runs").annotate_experiment("letters", display_name="Letters", description="all of them", tags=["x"])
    assert main(["experiments"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[:5] == ["experiment", "runs", "running", "failed", "newest"]
    assert [row[:4] for row in rows] == [["digits", "1", "0", "0"], ["letters", "1", "0", "1"]]
    assert rows[1][-5:] == ["Letters:", "all", "of", "them", "x"]
    assert main(["experiments", "--json"]) == 0
    assert [found["name"] for found in json.loads(capsys.readouterr().out)] == ["digits", "letters"]


def test_a_note_is_appended_with_author_and_time(run_dir: Path) -> None:
    store = shmlog.Store("runs")
    store.add_note("digits", "first", author="ada")
    assert main(["annotate", "latest", "--note", "second"]) == 0
    first, second = (store.get("latest").notes or "").splitlines()
    assert first.endswith(", ada: first")
    assert second.endswith(": second")
    assert second[:2] == "20"


def test_git_ignores_a_new_root_and_no_other(run_dir: Path, tmp_path: Path) -> None:
    assert Path("runs/.gitignore").read_text() == "*\n"
    shmlog.Store("made").create_experiment("digits")
    assert Path("made/.gitignore").exists()
    Path("mine").mkdir()
    shmlog.init("digits", root="mine").finish()
    assert not Path("mine/.gitignore").exists()
    assert [experiment.name for experiment in shmlog.Store("runs").experiments()] == ["digits"]


def test_a_folder_of_runs_is_verified_whole(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shmlog.init("letters") as run:
        run.log("loss", 0.5)
    assert main(["verify", "runs"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count(": ok (") == 2
    assert "2 runs, all ok" in printed.err
    next(run_dir.glob("metrics/*/*.parquet")).write_bytes(b"damaged")
    assert main(["verify", "runs", "--json"]) == 1
    assert [report["ok"] for report in json.loads(capsys.readouterr().out)] == [False, True]
    assert main(["verify", "letters"]) == 0
    assert main(["verify", "digits"]) == 1
