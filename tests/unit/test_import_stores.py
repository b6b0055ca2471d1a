"""Stores of other systems, written by these systems, come over whole with one command."""

from __future__ import annotations

import json
import shutil
from ast import literal_eval
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.transfer.importers import yaml12
from tests.support.processes import run_script
from tests.support.records import sound
from tests.support.sources import experiment_logger_folder, fetch_ml_folder

PARAMS = {
    "lr": 1e-8, "big": 1e22, "yes": "yes", "on": "on", "time": "1:30", "under": "1_000", "hex": "0x1F",
    "date": "2026-01-01", "ok": True, "no": False, "word": "nan", "tilde": "~", "nothing": "",
    "digits": "0123", "f": 1.0, "i": 10,
}  # fmt: skip

EXPMAN = """
import os, signal, sys, time
import numpy as np
import expman

base, params = sys.argv[1], eval(sys.argv[2])
with expman.Experiment(
    "digits", run_name="whole", base_dir=base, project="vision", tags=["a", "b:c"], description="first", rank=3,
    group="g", system_metrics_interval_secs=1,
) as run:
    run.log_params(params)
    for step in range(5):
        run.log_vector({"loss": 1 / (1 + step), "acc": step}, step=step)
    run.log_scalar("best", 0.9)
    run.log_image("picture", np.zeros((8, 8, 3), "uint8"), step=1)
    run.log_histogram("weights", np.arange(100.0), bins=4, step=2)
    run.warn("careful")
    while not os.path.exists(os.path.join(base, "digits", "whole", "system-0000.arrow")):
        time.sleep(0.01)
if os.fork() == 0:
    run = expman.Experiment("digits", run_name="killed", base_dir=base, flush_interval_rows=1)
    run.log_vector({"loss": 0.5}, step=7)
    while not os.path.exists(os.path.join(base, "digits", "killed", "vectors-0000.arrow")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""


@pytest.fixture(scope="module")
def expman(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expman")
    done = run_script(EXPMAN, folder / "experiments", repr(PARAMS), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "experiments"


def test_a_store_of_expman(expman: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(expman)]) == 0
    outcomes = json.loads(capsys.readouterr().out)
    assert {Path(one["source"]).name: (one["status"], one["problems"]) for one in outcomes} == {
        "killed": ("crashed", []), "whole": ("success", []),
    }  # fmt: skip
    store = shmlog.Store(tmp_path / "runs")
    whole, killed = (next(run for run in store.runs() if run.name == name) for name in ("whole", "killed"))
    assert whole.params == PARAMS
    assert {name: type(value) for name, value in whole.params.items()} == {n: type(v) for n, v in PARAMS.items()}
    assert (whole.tags, whole.description, whole.group) == (("a", "b:c"), "first", "g")
    assert whole.host is not None
    assert whole.argv[1:2] != ()
    assert store.experiment("digits").tags == ("project:vision",)
    stored = sound(whole.dir)
    table = stored.metrics(["loss", "acc"])
    assert set(table["rank"].to_pylist()) == {3}
    assert stored.metrics("loss")["value"].to_pylist() == [1 / (1 + step) for step in range(5)]
    assert any(name.startswith("sys/") for name in stored.names())
    events: dict[str, Any] = {event["event_type"]: event["data"] for event in stored.events()}
    assert events["result"] == {"best": 0.9}
    assert events["log"] == {"level": "warning", "message": "careful"}
    assert events["histogram"]["tag"] == "weights"
    assert events["histogram"]["counts"] == [25, 25, 25, 25]
    (picture,) = (artifact for artifact in stored.artifacts if artifact.name.startswith("media/"))
    assert events["media"]["file"] == picture.name
    assert sound(killed.dir).metrics("loss")["step"].to_pylist() == [7]


def test_what_is_said_of_an_experiment_here_stays(expman: Path, tmp_path: Path) -> None:
    folder = expman / "digits" / "whole"
    shmlog.import_run(folder, tmp_path / "runs")
    store = shmlog.Store(tmp_path / "runs")
    store.annotate_experiment("digits", tags=["mine"], description="here")
    shmlog.import_run(expman / "digits" / "killed", tmp_path / "runs")
    assert store.experiment("digits").tags == ("mine",)
    assert not shmlog.import_run(folder, tmp_path / "runs").is_new


def test_a_folder_of_runs_of_fetch_ml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("c0ffee", "decade"):
        fetch_ml_folder(tmp_path / "ml" / name)
    (tmp_path / "ml" / "notes.txt").write_text("x")
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(tmp_path / "ml")]) == 0
    assert [Path(one["source"]).name for one in json.loads(capsys.readouterr().out)] == ["c0ffee", "decade"]


def test_a_run_that_fails_does_not_stop_the_others(expman: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / "s" / "e" / name).mkdir(parents=True)
        (tmp_path / "s" / "e" / name / "run.yaml").write_text("status: FINISHED\n")
    pq.write_table(pq.read_table(expman / "digits" / "whole" / "vectors.parquet"), tmp_path / "s/e/b/vectors.parquet")
    assert main(["import", "--root", str(tmp_path / "runs"), str(tmp_path / "s")]) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "s/e/a: holds nothing that can be imported" in err


def test_a_run_of_shmlog_in_a_folder_does_not_stop_the_others(expman: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(expman / "digits" / "whole", tmp_path / "mix" / "a")
    (tmp_path / "mix" / "b" / "metrics").mkdir(parents=True)
    (tmp_path / "mix" / "b" / "run.yaml").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "mix")
    assert main(["import", "--root", str(tmp_path / "runs"), str(tmp_path / "link")]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "link/b: is a run of shmlog; copy the folder" in err


@pytest.mark.parametrize(("tags", "due"), [("5", ("project:vision",)), ("abc", ("abc", "project:vision"))])
def test_odd_tags_of_an_experiment(expman: Path, tmp_path: Path, tags: str, due: tuple[str, ...]) -> None:
    shutil.copytree(expman, tmp_path / "s")
    (tmp_path / "s" / "digits" / "experiment.yaml").write_text(f"tags: {tags}\nproject: vision\n")
    report = shmlog.import_run(tmp_path / "s" / "digits" / "whole", tmp_path / "runs")
    assert report.problems == (() if tags == "abc" else ("experiment.yaml: tags 5 are not a list; left out",))
    assert shmlog.Store(tmp_path / "runs").experiment("digits").tags == due


# ---- experiment_logger and checkpointing ----


def test_a_folder_of_experiment_logger(tmp_path: Path) -> None:
    folder = experiment_logger_folder(tmp_path / "out")
    report = shmlog.import_run(folder, tmp_path / "runs")
    assert (report.format, report.status, report.experiment) == ("experiment_logger", "failed", "digits")
    assert report.problems == ()
    assert [note for note in report.notes if "digits_iter_000010.ckpt: a pickle" in note]
    assert not [note for note in report.notes if "damage" in note]
    stored = sound(report.dir)
    assert stored.config == {"lr": 0.1}
    assert stored.metrics("loss")["value"].to_pylist() == [0.5]
    assert [event["event_type"] for event in stored.events()][-2:] == ["error", "experiment_end"]
    names = [artifact.name for artifact in stored.artifacts]
    assert names == [
        "checkpoints/digits_iter_000010.ckpt", "checkpoints/digits_iter_000020.ckpt", "experiment_logger/digits.log",
        "experiment_logger/digits_index.json",
    ]  # fmt: skip
    assert not shmlog.import_run(folder, tmp_path / "runs").is_new


def test_experiments_whose_names_begin_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = experiment_logger_folder(tmp_path / "out", "exp")
    experiment_logger_folder(folder, "exp2")
    (folder / "checkpoints").mkdir()
    (folder / "exp_iter_000020.ckpt").rename(folder / "checkpoints" / "exp_iter_000020.ckpt")
    with pytest.raises(shmlog.errors.SeveralRunsError, match="holds 2 runs") as caught:
        shmlog.import_run(folder, tmp_path / "runs")
    assert caught.value.sources == (str(folder / "exp"), str(folder / "exp2"))
    with pytest.raises(shmlog.errors.RefusedError, match="the folder has exp, exp2"):
        shmlog.import_run(folder / "exp3", tmp_path / "runs")
    (folder / "notes.txt").write_text("x")
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(folder)]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["problems"], second["problems"]) == (["notes.txt belongs to no experiment; left out"], [])
    names = [artifact.name for artifact in sound(Path(first["dir"])).artifacts]
    assert names == [
        "checkpoints/exp_iter_000010.ckpt", "checkpoints/exp_iter_000020.ckpt", "experiment_logger/exp.log",
        "experiment_logger/exp_index.json",
    ]  # fmt: skip


def test_a_folder_of_checkpoints_alone(tmp_path: Path) -> None:
    folder = experiment_logger_folder(tmp_path / "out")
    (folder / "digits_structured.jsonl").unlink()
    (folder / "digits_iter_000020.ckpt").write_bytes(b"PK\3\4")
    report = shmlog.import_run(folder, tmp_path / "runs")
    assert report.counts == {"metrics": 0, "events": 0, "artifacts": 4}
    assert "digits_iter_000020.ckpt: a zip archive" in report.notes[1]
    sound(report.dir)


# ---- YAML 1.2 ----


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-8", 1e-8), ("1e22", 1e22), (".5", 0.5), ("1.", 1.0), ("-.inf", float("-inf")), ("12", 12), ("0o17", 15),
        ("0x1F", 31), ("+3", 3), ("0123", 123), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("y", "y"),
        ("1:30", "1:30"), ("1_000", "1_000"), ("2026-01-01", "2026-01-01"), ("0b11", "0b11"), ("true", True),
        ("~", None), ("", None), ("null", None), ("'1'", "1"), ("=", "="), ("nan", "nan"), ("1e5x", "1e5x"),
        (f"{2**70}", 2**70),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    parsed = yaml12.parse(Path("a.yaml"), f"a: {text}\n".encode())["a"]
    assert (parsed, type(parsed)) == (value, type(value))


def test_keys_are_scalars_as_well() -> None:
    assert yaml12.parse(Path("a.yaml"), b"yes: 1\n1:30: 2\n<<: {a: 1}\n") == {"yes": 1, "1:30": 2, "<<": {"a": 1}}
    assert str(yaml12.parse(Path("a.yaml"), b"a: .nan\n")["a"]) == "nan"


@pytest.mark.parametrize(
    "text", ["a: &a [*a]\n", "[1]\n", "a: {b\n", "!!python/object:os.system {}\n", "\x00", "a: !!bool maybe\n"]
)
def test_what_is_no_plain_mapping_is_refused(text: str) -> None:
    with pytest.raises(shmlog.errors.CorruptDataError, match=r"^a\.yaml: "):
        yaml12.parse(Path("a.yaml"), text.encode())


# ---- several imports at once ----

AT_ONCE = """
import sys, threading
import shmlog

source, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
together = threading.Barrier(count)

def one(number):
    shmlog.import_run(source, f"{root}-warm-{number}")  # so that all are as fast
    together.wait()
    report = shmlog.import_run(source, root, experiment=f"e{number}")
    reports.append((report.is_new, str(report.dir)))

reports = []
threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(reports)
"""


def test_of_several_imports_at_once_one_makes_the_run(tmp_path: Path) -> None:
    folder = fetch_ml_folder(tmp_path / "c0ffee")
    for attempt in range(3):
        done = run_script(AT_ONCE, folder, tmp_path / f"runs{attempt}", "6", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        reports = literal_eval(done.stdout)
        assert sorted(is_new for is_new, _ in reports) == [False] * 5 + [True]
        assert len({folder for _, folder in reports}) == 1
        assert len(shmlog.Store(tmp_path / f"runs{attempt}").runs()) == 1
