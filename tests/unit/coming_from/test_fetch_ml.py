"""What users of fetch_ml know, done with shmlog."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.reader.verify.verify import verify
from tests.support.coming_from import Kept, row
from tests.support.stores import add_run


@row("NewManager(base)")
def test_a_store_touches_no_file(tmp_path: Path) -> None:
    assert shmlog.Store(tmp_path / "none").runs() == []
    assert list(tmp_path.iterdir()) == []


@row("GetExperimentPath")
def test_paths(logged: Kept) -> None:
    assert logged.stored.dir == logged.first
    assert {"run.yaml", "metrics", "artifacts"} <= {path.name for path in logged.stored.dir.iterdir()}


@row("ExperimentExists")
def test_whether_there_is_a_run(logged: Kept) -> None:
    assert logged.store.get(logged.first.name).run_id == logged.first.name
    with pytest.raises(shmlog.errors.RunNotFoundError):
        logged.store.get("c0ffee")


@row("CreateExperiment, WriteMetadata")
def test_a_run_is_made_with_its_job(tmp_path: Path) -> None:
    record = shmlog.Store(tmp_path).create_run("digits", job_name="train " + "x" * 300)
    assert record.job_name == "train " + "x" * 300
    assert (record.dir / "run.yaml").is_file()


@row("ReadMetadata")
def test_what_is_told_of_a_run(tmp_path: Path) -> None:
    run = add_run(tmp_path, "a", job_name="train", user="ann", git={"commit": "c0ffee"})
    record = shmlog.Store(tmp_path).get(run.run_id)
    assert (record.commit_id, record.job_name, record.user) == ("c0ffee", "train", "ann")
    assert record.created_at is not None


@row("ListExperiments()")
def test_runs_are_listed(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--root", str(logged.root), "--json"]) == 0
    listed = [run["run_id"] for run in json.loads(capsys.readouterr().out)]
    assert listed == [run.run_id for run in logged.store.runs()] == [logged.second.name, logged.first.name]


@row("PruneExperiments")
def test_their_rule_and_ours(tmp_path: Path) -> None:
    for days in (1, 2, 50):
        add_run(tmp_path, f"d{days}", days=days)
    store = shmlog.Store(tmp_path)
    gone = {
        mode: [run.run_id for run in store.prune(keep=1, older_than="30d", mode=mode).runs] for mode in ("any", "all")
    }
    assert gone == {"any": ["d2", "d50"], "all": ["d50"]}
    assert (
        main(["prune", "--keep", "1", "--older-than", "30d", "--mode", "any", "--force", "--root", str(tmp_path)]) == 0
    )
    assert [run.run_id for run in store.runs()] == ["d1"]


@row("LogMetric(commit")
def test_long_names_negative_steps_and_microseconds(live: shmlog.Run) -> None:
    name = "ü" * 300
    for step in (-1, 2**40):
        live.log(name, 0.5, step)
    live.flush()
    found = list(shmlog.Store(live.dir.parents[1]).metrics(live.id, name))
    assert [(record.name, record.step) for record in found] == [(name, -1), (name, 2**40)]
    assert any(record.timestamp.microsecond for record in found)


@row("meta.bin, metrics.bin")
def test_their_folders_are_imported(tmp_path: Path) -> None:
    folder = tmp_path / "c0ffee"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "train.py").write_text("print()")
    (folder / "meta.bin").write_bytes(struct.pack(">Bq", 1, 1_700_000_000) + b"\x06c0ffee\x05train\x03ann")
    (folder / "metrics.bin").write_bytes(struct.pack(">qIdB", 1_700_000_001, 7, 0.5, 4) + b"loss" + b"torn")
    report = shmlog.import_run(folder, tmp_path / "runs")
    assert len(report.problems) == 1
    stored = shmlog.load(report.dir)
    assert [column.tolist() for column in stored.to_numpy("loss")] == [[7], [0.5]]
    assert [artifact.name for artifact in stored.artifacts] == ["files/train.py"]
    assert main(["import", str(folder), "--root", str(tmp_path / "again")]) == 1


@row("Manifest files")
def test_a_manifest_tells_what_has_changed(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((kept.first / "manifest.json").read_text())["files"]["events.jsonl"]["digest"].startswith(
        "sha256:"
    )
    assert main(["verify", str(kept.first)]) == 0
    with open(kept.first / "run.log", "a") as file:
        file.write("forged\n")
    capsys.readouterr()
    assert main(["verify", str(kept.first)]) == 1
    assert "run.log" in capsys.readouterr().out


@row("run_manifest.json")
def test_artifacts_and_environment(logged: Kept) -> None:
    (artifact,) = logged.stored.artifacts
    record = logged.store.get(logged.first.name)
    assert (artifact.name, artifact.size_bytes) == ("plots/loss.png", 3)
    assert all((record.host, record.python, record.argv, record.git))
    assert logged.stored.packages()["numpy"]


@row("narrative, outcome")
def test_what_it_was_for_and_what_came_out(kept: Kept) -> None:
    record = kept.store.annotate(kept.first.name, notes="hypothesis: deeper is better. validated")
    assert "validated" in (record.notes or "")
    assert (record.parent, record.group, record.tags) == ("base", "sweep", ("arm:tiered", "study:0"))
    assert kept.stored.events("result")[0]["data"] == {"accuracy": 0.9}


@row("archive instead of delete")
def test_an_archived_run_comes_back(kept: Kept) -> None:
    before = kept.stored.metrics().to_pylist()
    kept.store.prune(keep=0, archive=True, dry_run=False)
    assert not kept.first.exists()
    assert kept.store.restore(kept.first.name).status == "success"
    assert repr(kept.stored.metrics().to_pylist()) == repr(before)
    assert verify(kept.first).ok
    assert main(["restore", f"digits/{kept.second.name}", "--root", str(kept.root)]) == 0
    assert len(kept.store.runs()) == 2


@row("ml init, ml experiment create")
def test_what_there_is(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--root", str(logged.root)]) == 0
    assert main(["show", str(logged.first)]) == 0
    assert logged.first.name in capsys.readouterr().out


@row("ml watch")
def test_a_live_run_is_looked_at(live: shmlog.Run, capsys: pytest.CaptureFixture[str]) -> None:
    live.info("look here")
    live.flush()
    assert main(["tail", str(live.dir), "--no-follow", "-n", "100"]) == 0
    assert "look here" in capsys.readouterr().out


@row("ml sync")
def test_a_copy_reads_as_the_run_does(logged: Kept, tmp_path: Path) -> None:
    shutil.copytree(logged.first, tmp_path / "copy" / logged.first.name)
    stored = shmlog.load(tmp_path / "copy" / logged.first.name)
    assert stored.counts == logged.stored.counts
    assert verify(stored.dir).ok
