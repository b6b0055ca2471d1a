"""What users of trueno-db and entrenar know, done with shmlog."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.folder.status import RunStatus
from shmlog.reader.model import ArtifactRecord, ExperimentRecord, MetricRecord, RunRecord
from tests.support.coming_from import Kept, row
from tests.support.entrenar import fill
from tests.support.processes import wait_until


@row("ExperimentRecord, builder")
def test_an_experiment_is_a_record(tmp_path: Path) -> None:
    made = shmlog.Store(tmp_path).create_experiment("digits", description="by hand")
    assert isinstance(made, ExperimentRecord)
    assert (made.name, made.description) == ("digits", "by hand")
    assert ExperimentRecord.from_json(made.to_json()) == made


@row("RunRecord: start()")
def test_a_run_that_somebody_else_runs_keeps_its_start(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path)
    run = store.create_run("digits")
    assert run.status == "pending"
    with pytest.raises(shmlog.errors.RunStateError):
        store.set_status(run, "success")
    started = store.set_status(run, "running").started_at
    assert store.set_status(run, "success").started_at == started is not None


@row("RunStatus Pending")
def test_statuses() -> None:
    words = ["Pending", "Running", "Success", "Failed", "Cancelled"]
    assert [RunStatus.parse(word) for word in words] == [word.lower() for word in words]
    assert set(RunStatus) == {*(word.lower() for word in words), "crashed"}


@row("MetricRecord, get_metrics_for_run")
def test_metrics_come_by_step_and_equal_steps_as_logged(live: shmlog.Run) -> None:
    for value, step in ((1.0, 3), (2.0, 1), (3.0, 3), (4.0, 1)):
        live.log("sorted", value, step)
    live.flush()
    found = list(shmlog.Store(live.dir.parents[1]).metrics(live.id, "sorted"))
    assert [(record.step, record.value) for record in found] == [(1, 2.0), (1, 4.0), (3, 1.0), (3, 3.0)]
    assert isinstance(found[0], MetricRecord)


@row("ArtifactRecord cas_hash")
def test_an_artifact_is_a_record_with_a_digest(logged: Kept) -> None:
    (found,) = logged.store.artifacts(logged.first.name)
    assert isinstance(found, ArtifactRecord)
    assert (found.path, found.size_bytes) == ("plots/loss.png", 3)
    assert found.digest == f"sha256:{hashlib.sha256(b'png').hexdigest()}"


@row("ExperimentStore: is_empty")
def test_a_store_counts(logged: Kept, tmp_path: Path) -> None:
    assert shmlog.Store(tmp_path / "none").experiments() == []
    assert (len(logged.store.experiments()), len(logged.store.runs())) == (1, 2)
    assert logged.store.sql("select count(*) as n from metrics").to_pylist() == [{"n": 206}]


@row("add_experiment, add_run")
def test_what_is_added_is_found_and_nothing_replaced(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path)
    store.create_experiment("digits")
    with pytest.raises(shmlog.errors.RunStateError):
        store.create_experiment("digits")
    runs = [store.create_run("digits") for _ in range(2)]
    assert store.experiment("digits").runs == 2
    assert store.get(runs[0]) == runs[0]
    assert {run.run_id for run in store.runs("digits")} == {run.run_id for run in runs}


@row("serde JSON of records")
def test_records_come_back_from_json(logged: Kept) -> None:
    record = logged.store.get(logged.first.name)
    assert RunRecord.from_json(record.to_json()) == record
    assert json.loads(record.to_json())["created_at"].endswith("Z")
    (nan,) = logged.store.metrics(logged.first.name, "nan")
    assert MetricRecord.from_json(nan.to_json()).to_json() == nan.to_json()


@row("records in JSON")
def test_records_and_databases_are_imported(tmp_path: Path) -> None:
    records = [
        {"run_id": "r", "experiment_id": "e", "status": "Success", "started_at": "2026-01-01T12:00:00Z"},
        {"run_id": "r", "key": "loss", "step": 1, "value": 0.5, "timestamp": "2026-01-01T12:00:01.5Z"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "project" / ".entrenar").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "project" / ".entrenar" / "experiments.db")) as database:
        fill(database, ["r"])
    report = shmlog.import_run(tmp_path / "a.json", tmp_path / "runs")
    assert (report.status, report.counts["metrics"], report.problems) == ("success", 1, ())
    assert main(["import", "--root", str(tmp_path / "runs"), str(tmp_path / "project")]) == 1, "one is damaged there"
    assert len(shmlog.Store(tmp_path / "runs").runs()) == 2


@row("SQL: SELECT")
def test_sql(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    query = "select step, value from metrics where name = 'loss' order by value desc limit 2"
    assert logged.stored.sql(query).to_pylist() == [{"step": 0, "value": 1.0}, {"step": 1, "value": 0.5}]
    assert logged.store.sql("select sum(value) s, avg(value) a from metrics where name = 'loss'")["a"][0].as_py() > 0
    assert main(["sql", query, str(logged.first), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


@row("create_experiment, create_run, start_run")
def test_a_run_is_taken_through_its_life(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path)
    run = store.create_run("digits", params={"lr": 0.1})
    store.set_status(run, "running")
    store.set_status(run, "failed")
    with pytest.raises(shmlog.errors.RunStateError):
        store.set_status(run, "success")
    assert store.load(run).status == "failed"
    assert store.load(run).config == {"lr": 0.1}


@row("log_metric(run, key, step, value)")
def test_a_metric_at_a_step(live: shmlog.Run) -> None:
    live.log("at", 0.5, 17)
    live.flush()
    assert [column.tolist() for column in shmlog.load(live.dir).to_numpy("at")] == [[17], [0.5]]


@row("log_metric(key, value) with")
def test_a_handle_counts_its_steps(live: shmlog.Run) -> None:
    counted, other = live.metric("counted"), live.metric("counted too")
    for _ in range(3):
        counted(1.0)
    other(1.0)
    live.flush()
    steps, _ = shmlog.load(live.dir).to_numpy("counted")
    assert (steps.tolist(), int(steps[-1])) == ([0, 1, 2], 2)
    assert shmlog.load(live.dir).to_numpy("counted too")[0].tolist() == [0]


@row("log_artifact(run, key, bytes)")
def test_the_bytes_of_an_artifact_come_back(logged: Kept) -> None:
    assert [artifact.name for artifact in logged.stored.artifacts] == ["plots/loss.png"]
    with logged.stored.artifact("plots/loss.png").open() as file:
        assert file.read() == b"png"


@row("set_span_id, get_span_id")
def test_a_run_knows_its_span(logged: Kept, live: shmlog.Run) -> None:
    record = logged.store.get(logged.first.name)
    assert (record.trace_id, record.span_id) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    other = shmlog.Store(live.dir.parents[1]).get(live.id)
    assert (other.trace_id, other.span_id) == (None, None)


@row("ExperimentNotFound, RunNotFound")
def test_errors(kept: Kept, tmp_path: Path) -> None:
    with pytest.raises(shmlog.errors.ExperimentNotFoundError):
        kept.store.experiment("none")
    with pytest.raises(shmlog.errors.RunNotFoundError):
        kept.store.get("none")
    with pytest.raises(shmlog.errors.RunStateError):
        kept.store.set_status(kept.first.name, "running")
    (kept.first / "annotations.yaml").write_text("[")
    with pytest.raises(shmlog.errors.CorruptDataError):
        kept.store.tag(kept.first.name, add=["a"])
    (tmp_path / "file").touch()
    with pytest.raises(shmlog.errors.StorageError):
        shmlog.init(root=tmp_path / "file")


@row("log_param(s), get_params")
def test_parameters_keep_their_types(live: shmlog.Run) -> None:
    params = {"s": "x", "i": 2**60, "f": 0.5, "b": True, "list": [1, "a"], "dict": {"deep": {"er": None}}}
    live.log_config({"typed": params})
    live.flush()
    wait_until(lambda: "typed" in shmlog.load(live.dir).config, "config.yaml")
    assert shmlog.load(live.dir).config["typed"] == params


@row("search_runs_by_params")
def test_runs_are_searched_by_parameters(logged: Kept) -> None:
    def names(where: str) -> list[str]:
        return sorted(run.name for run in logged.store.runs(where=where))

    assert names("lr = 0.1") == ["try 0"]
    assert names("lr != 0.1 and model.depth >= 18") == ["try 1"]
    assert names("run.name startswith try and not run.name contains '1'") == ["try 0"]
    assert names("lr = '0.1'") == [], "a text is no number"


@row("list_experiments, list_runs")
def test_lists(logged: Kept) -> None:
    assert [experiment.name for experiment in logged.store.experiments()] == ["digits"]
    assert [run.name for run in logged.store.runs()] == ["try 1", "try 0"], "newest first"


@row("Run::new, ExperimentTracker")
def test_a_run_is_on_disk_from_its_first_call(tmp_path: Path) -> None:
    run = shmlog.init("tracked", root=tmp_path, tags=["a"])
    found = shmlog.Store(tmp_path).get(run.id)
    assert (found.status, found.tags) == ("running", ("a",))
    run.finish("killed")
    assert shmlog.Store(tmp_path).get(run.id).status == "cancelled"


@row("entrenar experiments list")
def test_the_commands(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(kept.root)]
    assert main(["runs", "digits", "--json", *root]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert main(["show", "--json", str(kept.first)]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "success"
    assert main(["experiments", "--json", *root]) == 0
    assert [found["name"] for found in json.loads(capsys.readouterr().out)] == ["digits"]
    assert main(["show", "--json", kept.first.name[:-1], *root]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == kept.first.name
    assert main(["metrics", kept.first.name, *root]) == 0
    capsys.readouterr()
    assert main(["export", str(kept.first), "-f", "json", "-o", str(kept.root / "out.json")]) == 0
    assert json.loads((kept.root / "out.json").read_text())["metrics"]
    assert main(["rm", kept.first.name, "--json", *root]) == 0
    assert not kept.first.exists()


@row("runs watch RUN")
def test_a_run_is_followed_to_its_end(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", str(logged.first), "-n", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 3


@row("MetricsCollector, query_stats")
def test_statistics(logged: Kept) -> None:
    values = 1 / (1 + np.arange(50))
    (found,) = logged.stored.statistics("loss").to_pylist()
    assert (found["count"], found["min"], found["max"]) == (50, values.min(), 1.0)
    assert found["mean"] == pytest.approx(values.mean())
    assert found["std"] == pytest.approx(values.std(ddof=1))
    assert logged.stored.statistics("nan")["nan"].to_pylist() == [1]


@row("write_batch, query_range")
def test_a_batch_and_a_range(live: shmlog.Run) -> None:
    live.metric("batch").extend(np.arange(100.0), steps=range(100))
    assert live.flush()
    stored = shmlog.load(live.dir)
    found = stored.sql("select value from metrics where name = 'batch' and step between 10 and 12 order by step")
    assert found["value"].to_pylist() == [10.0, 11.0, 12.0]
    assert stored.sql("select count(*) as n from metrics where name = 'batch'")["n"].to_pylist() == [100]


@row("trend Rising, Falling")
def test_findings(live: shmlog.Run) -> None:
    values = np.concatenate([np.linspace(1, 0.5, 200), np.full(200, 0.5) + np.tile([0.001, -0.001], 100)])
    values[100], values[120] = 50, np.nan
    live.metric("watched").extend(values, steps=range(400))
    live.metric("rising").extend(np.arange(100.0), steps=range(100))
    live.flush()
    stored = shmlog.load(live.dir)
    kinds = {finding.kind: finding for finding in stored.findings("watched")}
    assert {"nan", "spike"} <= set(kinds)
    assert kinds["spike"].first_step == 100
    (trend,) = stored.findings("rising")
    assert (trend.kind, trend.value > 0) == ("trend", True)


@row("Hansei initial, final")
def test_first_is_the_first_and_last_the_last(logged: Kept) -> None:
    (found,) = logged.stored.statistics("loss").to_pylist()
    assert (found["first"], found["last"]) == (1.0, 1 / 50)


@row("ParamDiff")
def test_parameters_that_differ(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = logged.first.name, logged.second.name
    found = logged.store.compare([first, second])
    assert found.params == {"lr": {first: 0.1, second: 0.01}}
    assert found.same_params == {"model.depth": 18}
    assert main(["compare", first, second, "--root", str(logged.root), "--json"]) == 0
    assert "lr" in json.loads(capsys.readouterr().out)["params"]


@row("export JSON, CSV")
def test_an_export_of_figures(logged: Kept, tmp_path: Path) -> None:
    shmlog.export_run(logged.first, tmp_path / "figures.json", "summary")
    text = (tmp_path / "figures.json").read_text()
    assert all(f'"{figure}"' in text for figure in ("mean", "std", "min", "max", "count"))
    shmlog.export_run(logged.first, tmp_path / "all.csv")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 104


@row("Callback Checkpoint")
def test_checkpoints_every_n_and_the_best(tmp_path: Path) -> None:
    manager = shmlog.CheckpointManager(tmp_path, keep_last=1, keep_best=("loss", "min"), save_every=2)
    losses = [3.0, 9.0, 1.0, 9.0, 2.0]
    for step, loss in enumerate(losses):
        if manager.should_save(step):
            manager.save({"w": np.full(3, loss)}, step, metrics={"loss": loss})
    best = manager.best()
    assert best is not None
    assert (best.step, [info.step for info in manager.list()]) == (2, [2, 4])
    assert manager.load(best).state["w"].tolist() == [1.0] * 3


@row("Prometheus export")
def test_last_values_go_to_prometheus(tmp_path: Path) -> None:
    with shmlog.init("e", root=tmp_path / "runs") as run:
        for step in range(3):
            run.log("loss", 1 / (1 + step), step=step)
    (path,) = shmlog.export_run(run.dir, tmp_path / "e.prom")
    assert f'shmlog_metric{{experiment="e",run="{run.id}",metric="loss"}} {1 / 3}\n' in path.read_text()


@row("golden runs")
def test_a_run_is_held_against_a_baseline(kept: Kept) -> None:
    base, new = kept.first.name, kept.second.name
    assert kept.store.pin(base).pinned
    words = [
        "--root",
        str(kept.root),
        "--metric",
        "loss",
        "--last",
        "30",
        "--lower-is-better",
        "--fail-if",
        "worse by 5%",
    ]
    assert main(["compare", base, new, *words]) == 1
    assert main(["compare", new, base, *words]) == 0


@row("parent of a run")
def test_a_run_has_a_parent(logged: Kept) -> None:
    assert logged.store.get(logged.first.name).parent == "base"
