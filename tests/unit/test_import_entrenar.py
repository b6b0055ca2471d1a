"""Records of trueno-db and entrenar: JSON as serde_json writes their types, and databases as SqliteBackend fills them.

Both follow the sources of trueno-db 0.3 (src/experiment) and entrenar 0.7.13 (src/storage/sqlite, src/tracking): names,
types, the words of a status, times of RFC 3339 with nanoseconds, null for NaN.
"""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.transfer.importers.formats import reader_of
from tests.support.entrenar import TIME, fill
from tests.support.processes import run_script
from tests.support.records import sound


def experiment(**fields: Any) -> dict[str, Any]:
    record = {"experiment_id": "e1", "name": "digits v2", "created_at": TIME.format(0) + "Z", "config": {"lr": 0.1}}
    return record | fields


def run(run_id: str, **fields: Any) -> dict[str, Any]:
    times = {"started_at": TIME.format(1) + "Z", "ended_at": TIME.format(9) + "Z"}
    return {"run_id": run_id, "experiment_id": "e1", "status": "Success", **times, "renacer_span_id": None} | fields


def metric(run_id: str, step: int, value: float | None) -> dict[str, Any]:
    return {"run_id": run_id, "key": "loss", "step": step, "value": value, "timestamp": TIME.format(2) + "Z"}


def values_of(report: Any) -> list[tuple[int, float]]:
    table = sound(report.dir).metrics("loss")
    return list(zip(table["step"].to_pylist(), table["value"].to_pylist(), strict=True))


# ---- trueno-db ----


def test_records_of_a_run(tmp_path: Path) -> None:
    artifact = {
        "run_id": "r/1", "key": "model.bin", "cas_hash": "sha256:" + "0" * 64, "size_bytes": 5,
        "created_at": TIME.format(3) + "Z",
    }  # fmt: skip
    one = run("r/1", renacer_span_id="00f067aa0ba902b7")
    records = [experiment(), one, metric("r/1", 1, 0.5), metric("r/1", 0, 1.0), artifact]
    (tmp_path / "a.json").write_text(json.dumps(records))
    report = shmlog.import_run(tmp_path / "a.json", tmp_path / "runs")
    assert (report.format, report.status, report.experiment, report.problems) == ("json", "success", "digits v2", ())
    assert values_of(report) == [(0, 1.0), (1, 0.5)]
    store = shmlog.Store(tmp_path / "runs")
    record = store.get(report.run_id)
    assert (record.name, record.params, record.span_id) == ("r/1", {"lr": 0.1}, "00f067aa0ba902b7")
    assert record.started_at is not None
    assert record.started_at.isoformat() == "2026-01-01T12:00:01.123456+00:00"
    assert record.duration_s == 8
    assert store.experiment("digits v2").display_name == "digits v2"
    assert report.notes == ("artifact 'model.bin' was logged, and is not in the source",)
    (event,) = shmlog.load(report.dir).events("artifact_record")
    assert event["data"] == {"name": "model.bin", "size_bytes": 5, "digest": "sha256:" + "0" * 64}
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    again = shmlog.import_run(tmp_path / "b.jsonl", tmp_path / "other")
    assert (values_of(again), again.notes) == (values_of(report), report.notes)


def test_records_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "all.json"
    runs = [run("a"), run("b/c", status="Failed"), run("d", status="Pending", started_at=None, ended_at=None)]
    metrics = [metric("a", 1, 0.5), metric("b/c", 1, None), metric("d", 2**63, 1.0)]
    path.write_text(json.dumps({"experiments": [experiment()], "runs": runs, "metrics": metrics}))
    with pytest.raises(shmlog.errors.SeveralRunsError) as caught:
        shmlog.import_run(path, tmp_path / "runs")
    assert [Path(source).name for source in caught.value.sources] == ["a", "b%2Fc", "d"]
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(path)]) == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert (first["status"], second["status"], third["status"]) == ("success", "failed", "crashed")
    assert second["notes"] == ["metric 0: its value is null, as serde writes NaN and infinities; read as NaN"]
    assert third["problems"] == ["metric 0: 'loss' has step an int of 64 bits and a sign"]
    path.write_text(json.dumps([run("a"), metric("a", 1, 0.5), experiment()]))
    assert not shmlog.import_run(path, tmp_path / "runs").is_new, "what else is in the file is other runs"
    with pytest.raises(shmlog.errors.RefusedError, match="holds no run 'x'"):
        shmlog.import_run(path / "x", tmp_path / "runs")
    path.write_text(json.dumps(experiment()))
    with pytest.raises(shmlog.errors.RefusedError, match="holds no run"):
        shmlog.import_run(path, tmp_path / "runs")


def test_a_line_that_is_no_record_is_told(tmp_path: Path) -> None:
    lines = [run("a"), metric("a", 1, 0.5), {"x": 1}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"run_id": "a", "ke')
    report = shmlog.import_run(tmp_path / "a.jsonl", tmp_path / "runs")
    assert report.problems == tuple(f"line {n}: not a record of trueno-db; left out" for n in (3, 4))


# ---- entrenar's tracker ----


def test_a_folder_of_the_tracker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tracked").mkdir()
    for number in (1, 2):
        record = {
            "run_id": f"digits-{number}", "run_name": None if number == 1 else "best", "experiment_name": "digits",
            "status": "Completed", "params": {"lr": "0.1"},
            "metrics": {"loss": [{"value": 0.5, "step": 1}, {"value": 0.25, "step": 2}]},
            "artifacts": ["model.bin"] if number == 1 else [], "tags": {"team": "a"},
            "start_time_ms": 1_767_268_800_000 + number, "end_time_ms": 1_767_268_900_000,
        }  # fmt: skip
        (tmp_path / "tracked" / f"digits-{number}.json").write_text(json.dumps(record, indent=2))
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(tmp_path / "tracked")]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["problems"] == ["artifact 'model.bin' was logged by its path, and is not in the source"]
    assert second["problems"] == []
    best = shmlog.Store(tmp_path / "runs").get(second["run_id"])
    assert (best.name, best.tags, best.params, best.status) == ("best", ("team:a",), {"lr": "0.1"}, "success")
    assert sound(best.dir).metrics("loss")["value"].to_pylist() == [0.5, 0.25]


# ---- entrenar's database ----


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project of entrenar with a database of one run."""
    (tmp_path / "project" / ".entrenar").mkdir(parents=True)
    database = sqlite3.connect(tmp_path / "project" / ".entrenar" / "experiments.db")
    fill(database, ["18f01"])
    database.close()
    return tmp_path / "project"


def test_a_database_of_a_run(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in (project / ".entrenar").iterdir()}
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(project)]) == 1
    assert {path.name: path.read_bytes() for path in (project / ".entrenar").iterdir()} == before
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["problems"] == ["artifact 'bad': its content is not that of its SHA-256; kept as it is"]
    assert (outcome["format"], outcome["status"], outcome["experiment"]) == ("entrenar", "success", "digits")
    stored = sound(Path(outcome["dir"]))
    assert stored.metrics("loss")["value"].to_pylist() == [0, 1 / 3, float("inf")]
    assert stored.config == {
        "seed": 7, "lr": 1e-8, "size": 32, "opt": "x", "amp": True, "nan": "NaN", "sizes": [1, 2.0],
        "model": {"depth": 18},
    }  # fmt: skip
    names = [artifact.name for artifact in stored.artifacts]
    assert [name for name in names if not name.startswith("entrenar/")] == ["bad", "model.bin"]
    assert len(names) == 3, "one that could lead out of the folder has another name"
    assert (stored.dir / "artifacts" / "model.bin").read_bytes() == b"model.bin"
    assert shmlog.Store(tmp_path / "runs").get(outcome["run_id"]).span_id == "00f067aa0ba902b7"


def test_a_database_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "experiments.db"
    database = sqlite3.connect(path)
    fill(database, ["a", "b"])
    database.close()
    with pytest.raises(shmlog.errors.SeveralRunsError, match="holds 2 runs"):
        shmlog.import_run(path, tmp_path / "runs")
    assert shmlog.import_run(path / "b", tmp_path / "runs").counts["metrics"] == 3
    main(["import", "--json", "--root", str(tmp_path / "runs"), str(path)])
    assert [one["is_new"] for one in json.loads(capsys.readouterr().out)] == [True, False]
    with pytest.raises(shmlog.errors.RefusedError, match="holds no run 'c'"):
        shmlog.import_run(path / "c", tmp_path / "runs")


KILLED = """
import os, signal, sqlite3, sys
sys.path.insert(0, sys.argv[2])
from tests.support.entrenar import fill
database = sqlite3.connect(sys.argv[1])
fill(database, ["a"])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_program_has_left_in_the_log_of_the_database(tmp_path: Path) -> None:
    done = run_script(KILLED, tmp_path / "experiments.db", Path(__file__).parents[2], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "experiments.db-wal").stat().st_size
    before = {path.name: path.read_bytes() for path in tmp_path.glob("experiments.db*")}
    report = shmlog.import_run(tmp_path / "experiments.db", tmp_path / "runs")
    assert report.counts["metrics"] == 3
    assert {path.name: path.read_bytes() for path in tmp_path.glob("experiments.db*")} == before


def test_a_database_with_flipped_bits_is_read_or_refused(project: Path) -> None:
    """SQLite has no checksums, so that a digit may have become another one; nothing else may happen."""
    path = project / ".entrenar" / "experiments.db"
    whole, read, refused = path.read_bytes(), reader_of("entrenar"), 0
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            read(path)
        except shmlog.errors.UnreadableError:
            refused += 1
    assert refused


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_records_of_any_values_are_read_or_refused(data: st.DataObject) -> None:
    values = st.sampled_from(
        [None, -1, 2**70, 10**400, 0.5, float("nan"), "x", "", [], {}, [1], {"a": 1}, True, "2026"]
    )
    records: list[dict[str, Any]] = [experiment(), run("a"), metric("a", 1, 0.5)]
    tracked = {"run_id": "a", "experiment_name": "e", "metrics": {"loss": [{"value": 1.0, "step": 1}]}}
    if data.draw(st.booleans()):
        records = [tracked | dict.fromkeys(("params", "tags", "artifacts", "start_time_ms", "status"))]
    record = data.draw(st.sampled_from(records))
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(values)
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_text(json.dumps(records))
        try:
            reader_of("json")(path).table()
        except shmlog.errors.UnreadableError:
            pass


@pytest.mark.parametrize("damage", ["text", "cut", "other"])
def test_databases_that_are_none(project: Path, tmp_path: Path, damage: str) -> None:
    path = project / ".entrenar" / "experiments.db"
    error: type[Exception] = shmlog.errors.CorruptDataError
    if damage == "text":
        path.write_text("no database")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
        database = sqlite3.connect(path)
        database.execute("create table x (a)")
        database.close()
        error = shmlog.errors.RefusedError
    with pytest.raises(error, match=r"experiments\.db"):
        shmlog.import_run(path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
