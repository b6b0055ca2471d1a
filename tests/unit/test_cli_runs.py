"""The table of runs: what it shows, in which order, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import shmlog
from shmlog.cli import text
from shmlog.cli.main import main
from shmlog.store import catalog
from tests.support.stores import add_metrics, add_run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> shmlog.Store:
    """Return ./runs, with runs that differ in two parameters and a metric."""
    monkeypatch.chdir(tmp_path)
    for i, lr in enumerate((0.1, 0.01, 0.001)):
        with shmlog.init("digits", name=f"try {i}", config={"lr": lr, "opt": {"wd": i}, "model": "vit"}) as run:
            run.log({"loss": lr * 10, "note": "x"}, step=1)
            run.log("loss", lr, step=0)
    return shmlog.Store("runs")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    capsys.readouterr()
    assert main(["runs", *words]) == 0
    return [line.replace("try ", "try-").split() for line in capsys.readouterr().out.splitlines()]


def test_what_differs_and_the_last_values_are_shown(store: shmlog.Store, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = printed(capsys)
    assert head == ["run", "name", "status", "lr", "opt.wd", "loss", "note", "took", "started"]
    assert [row[1:7] for row in rows] == [
        ["try-2", "success", "0.001", "2", "0.01", "x"],
        ["try-1", "success", "0.01", "1", "0.1", "x"],
        ["try-0", "success", "0.1", "0", "1", "x"],
    ]


def test_the_sort_key_and_chosen_columns_are_shown(store: shmlog.Store, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = printed(capsys, "--sort", "metrics.loss.min")
    assert head[:4] == ["run", "name", "status", "loss.min"]
    assert [row[3] for row in rows] == ["0.001", "0.01", "0.1"]
    head, *rows = printed(capsys, "--columns", "metrics.loss.max, opt.wd,run.experiment")
    assert head == ["run", "name", "status", "loss.max", "opt.wd", "run.experiment", "took", "started"]
    assert rows[0][3:6] == ["0.01", "2", "digits"]
    assert main(["runs", "--json", "--columns", "lr", "--limit", "1"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["columns"] == {"lr": 0.001}


def test_experiments_are_told_apart(store: shmlog.Store, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(store.root, "other", "letters")
    assert printed(capsys)[0][:2] == ["run", "experiment"]
    assert printed(capsys, "digits")[0][:2] == ["run", "name"]


def test_a_narrow_window_keeps_what_tells_runs_apart(
    store: shmlog.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "window_columns", lambda: 80)
    lines = printed(capsys)
    assert {"name", "lr", "opt.wd", "loss"} <= set(lines[0])
    assert "started" in lines[-1]


def test_times_are_local_and_say_the_zone(
    store: shmlog.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began = store.latest("digits")
    assert began is not None
    monkeypatch.setenv("TZ", "Etc/GMT-5")
    time.tzset()
    try:
        assert printed(capsys)[1][-1] == "+05"
        monkeypatch.setenv("TZ", "CET")
        time.tzset()
        shown = printed(capsys)[1]
        assert shown[-1] in ("CET", "CEST")
        assert " ".join(shown[-3:-1]) == f"{began.began_at.astimezone():%Y-%m-%d %H:%M}"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_takes_long_is_left_for_the_next_list(
    store: shmlog.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = store.runs()
    assert store.summaries(records, seconds=0) == [None] * 3
    first, *others = store.summaries(records[:1], seconds=60) + store.summaries(records[1:], seconds=0)
    assert first is not None
    assert first["loss"]["min"] == 0.001
    assert others == [None, None]
    monkeypatch.setattr("shmlog.cli.commands.runs._SECONDS", 0.0)
    assert main(["runs", "--root", str(store.root)]) == 0
    assert "runs not summarised yet" in capsys.readouterr().err


def test_a_list_of_runs_that_are_known_reads_no_data(store: shmlog.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_metrics(store.root, "old")
    wait = time.monotonic() + 60
    while not all(map(store._summaries.known, store.runs())) and time.monotonic() < wait:  # the clock's tick is over
        store.summaries(store.runs())
    monkeypatch.setattr(catalog, "_summarise", None)
    assert all(shmlog.Store(store.root).summaries(store.runs()))
    code = (
        "import sys; from shmlog.cli.main import main; main(['runs'])\n"
        "print(*{'numpy', 'pyarrow', 'pandas', 'yaml', 'secrets'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []
    assert "loss" in done.stdout


def test_a_command_imports_no_other(store: shmlog.Store) -> None:
    code = (
        "import sys; from shmlog.cli.main import main; main(['--debug', 'runs'])\n"
        "print(*[name for name in sys.modules if name.startswith('shmlog.cli.commands.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "shmlog.cli.commands.runs"


def test_unknown_names_in_sql_are_told_with_what_there_is(
    store: shmlog.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    for query, words in {
        "select valu from metrics": "The columns are of metrics: run_id, experiment, ",
        "select m.valu from metrics m": "The columns are of metrics: run_id, experiment, ",
        "select nme from runs": "The columns are of runs: run_id, experiment, name",
        "select * from metric": "The tables are metrics, events, runs, params, artifacts.",
    }.items():
        assert main(["sql", query]) == 3
        assert words in capsys.readouterr().err
