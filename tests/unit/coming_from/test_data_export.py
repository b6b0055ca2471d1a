"""What users of data_export, experiment_logger and checkpointing know, done with shmlog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmlog
from shmlog import CheckpointManager
from shmlog.cli.main import main
from shmlog.logs import analyze_logs, load_structured_logs
from shmlog.results import (
    create_results_dataframe,
    export_all_formats,
    export_results_csv,
    export_results_json,
    export_results_pickle,
    export_summary_statistics,
    load_results_csv,
    load_results_json,
    load_results_pickle,
)
from tests.support.coming_from import Kept, row
from tests.support.sources import experiment_logger_folder

RESULTS: list[dict[str, Any]] = [{"acc": 0.5, "model": {"depth": 18}}, {"acc": 1.0, "loss": float("inf")}]


@pytest.fixture
def manager(tmp_path: Path) -> CheckpointManager:
    """Return a manager with three checkpoints, of steps 0, 10 and 20."""
    manager = CheckpointManager(tmp_path / "models", "exp", keep_last=3, save_every=10)
    for step in (0, 10, 20):
        manager.save({"w": np.full(2, step)}, step, metadata={"note": f"step {step}"})
    return manager


def events_of(run: shmlog.Run, event_type: str) -> list[Any]:
    assert run.flush()
    return [event["data"] for event in shmlog.load(run.dir).events(event_type)]


# ---- data_export ----


@row("NumpyEncoder")
def test_numpy_becomes_json(live: shmlog.Run, tmp_path: Path) -> None:
    values = {"f": np.float32(0.5), "i": np.int64(2), "b": np.bool_(True), "a": np.arange(2), "f64": np.float64(1)}
    plain = {"f": 0.5, "i": 2, "b": True, "a": [0, 1], "f64": 1.0}
    live.event("numpy", values)
    assert events_of(live, "numpy") == [plain]
    export_results_json([values], tmp_path / "r.json")
    assert load_results_json(tmp_path / "r.json")["results"] == [plain]


@row("export_results_json(")
def test_results_as_json(tmp_path: Path) -> None:
    export_results_json(RESULTS, tmp_path / "new" / "r.json", metadata={"by": "ann"}, pretty=False)
    found = load_results_json(tmp_path / "new" / "r.json")
    assert (found["results"], found["metadata"], found["num_experiments"]) == (RESULTS, {"by": "ann"}, 2)
    assert "timestamp" in found


@row("export_results_csv(")
def test_results_as_csv(tmp_path: Path) -> None:
    export_results_csv(RESULTS, tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().splitlines()[0].replace('"', "") == "acc,loss,model.depth"
    assert load_results_csv(tmp_path / "r.csv")[0] == {"acc": 0.5, "model.depth": 18}
    export_results_csv([{"x": "=1+1"}], tmp_path / "s.csv")
    assert "'=1+1" in (tmp_path / "s.csv").read_text()


@row("export_results_pickle")
def test_results_as_pickle(tmp_path: Path) -> None:
    export_results_pickle(RESULTS, tmp_path / "r.pkl")
    with pytest.raises(shmlog.errors.UnsafeDataError):
        load_results_pickle(tmp_path / "r.pkl")
    assert load_results_pickle(tmp_path / "r.pkl", allow_pickle=True)["results"] == RESULTS


@row("export_summary_statistics")
def test_figures_of_every_numeric_field(tmp_path: Path) -> None:
    export_summary_statistics(RESULTS, tmp_path / "s.json")
    found = json.loads((tmp_path / "s.json").read_text())["statistics"]
    assert set(found) == {"acc", "loss", "model.depth"}
    assert (found["acc"]["std"], found["acc"]["median"], found["loss"]["non_finite"]) == (0.25, 0.75, 1)


@row("export_all_formats")
def test_all_formats(tmp_path: Path) -> None:
    export_all_formats(RESULTS, tmp_path / "out", "base", pickle=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"base.json", "base.csv", "base.pkl", "base_summary.json"}


@row("create_results_dataframe")
def test_a_data_frame() -> None:
    assert create_results_dataframe(RESULTS)["acc"].tolist() == [0.5, 1.0]


# ---- experiment_logger ----


@row("ExperimentLogger(")
def test_console_and_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shmlog.init("logger", root=tmp_path, console=True, level="info")
    run.info("seen")
    run.debug("not seen")
    run.finish()
    *begin, end = capsys.readouterr().out.splitlines()
    assert begin == ["INFO: Experiment started: logger", "INFO: seen"]
    assert end.startswith("INFO: Experiment completed: logger after ")
    assert (run.dir / "run.log").read_text().count("seen") == 1


@row("<name>.log")
def test_a_log_for_people(logged: Kept) -> None:
    (line,) = [line for line in (logged.first / "run.log").read_text().splitlines() if "half way" in line]
    assert "info" in line.lower()
    assert line[:4].isdigit() or line[1:5].isdigit(), "the year"


@row("<name>_structured.jsonl")
def test_a_line_has_the_same_keys(logged: Kept) -> None:
    lines = [json.loads(line) for line in (logged.first / "events.jsonl").read_text().splitlines()]
    assert all({"timestamp", "event_type", "data"} <= set(line) for line in lines)
    types = [event["event_type"] for event in logged.stored.events()]
    assert types == ["experiment_start", "config", "artifact", "log", "result", "experiment_end"]


@row("log_event(type, data)")
def test_an_event_of_any_type(live: shmlog.Run) -> None:
    live.event("my_type", {"a": [1, None]})
    assert events_of(live, "my_type") == [{"a": [1, None]}]


@row("log_config, log_progress, log_result")
def test_config_progress_and_result(live: shmlog.Run) -> None:
    live.log_config({"logger": 1})
    live.log_progress(100, 1000, {"loss": 0.5})
    live.log_progress(0, 0)
    live.log_result({"acc": 0.9})
    assert {"logger": 1} in events_of(live, "config")
    assert events_of(live, "progress") == [
        {"iteration": 100, "total": 1000, "progress_pct": 10.0, "metrics": {"loss": 0.5}},
        {"iteration": 0, "total": 0, "progress_pct": 0.0},
    ]
    assert {"acc": 0.9} in events_of(live, "result")


@row("log_metrics(metrics, step)")
def test_metrics_are_records_and_an_event(live: shmlog.Run) -> None:
    live.log_metrics({"lm/loss": np.float32(0.5), "lm/acc": 1}, 100)
    live.flush()
    stored = shmlog.load(live.dir)
    assert stored.metrics("lm/*")["step"].to_pylist() == [100, 100]
    assert stored.to_numpy("lm/loss")[1].tolist() == [0.5]
    (said,) = [data for data in events_of(live, "log") if "metrics" in data]
    assert said["message"] == "Step 100 - Metrics: lm/loss=0.5000, lm/acc=1"
    assert (said["step"], said["metrics"]) == (100, {"lm/loss": 0.5, "lm/acc": 1})


@row("log_error(error, context)")
def test_an_error_has_its_traceback(live: shmlog.Run) -> None:
    try:
        raise KeyError("batch")
    except KeyError as error:
        live.log_error(error, {"step": 3})
    (found,) = events_of(live, "error")
    assert (found["error_type"], found["context"]) == ("KeyError", {"step": 3})
    assert "test_data_export" in found["traceback"]


@row("log_checkpoint")
def test_a_checkpoint_is_logged(live: shmlog.Run) -> None:
    live.log_checkpoint(live.dir / "checkpoints" / "a.pt", step=5, metrics={"loss": 0.5})
    assert events_of(live, "checkpoint") == [{"path": "checkpoints/a.pt", "step": 5, "metrics": {"loss": 0.5}}]


@row("info, warning, error, debug")
def test_levels(live: shmlog.Run) -> None:
    for level in ("debug", "info", "warning", "error"):
        getattr(live, level)(f"at {level}")
    levels = {data["level"] for data in events_of(live, "log") if data["message"].startswith("at ")}
    assert levels == {"debug", "info", "warning", "error"}


@row("finalize(final_status)")
@pytest.mark.parametrize(("theirs", "ours"), [("completed", "success"), ("interrupted", "cancelled")])
def test_the_end(theirs: str, ours: str, tmp_path: Path) -> None:
    run = shmlog.init(root=tmp_path)
    assert run.finalize(theirs)
    assert shmlog.load(run.dir).status == ours


@row("load_structured_logs(path)")
def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "old_structured.jsonl").write_text('{"timestamp": "t", "event_type": "config", "data": {}}\n{"time')
    assert [event["event_type"] for event in load_structured_logs(tmp_path / "old_structured.jsonl")] == ["config"]


@row("analyze_logs(path)")
def test_logs_are_counted(logged: Kept) -> None:
    found = analyze_logs(logged.first / "events.jsonl")
    assert set(found) == {"total_events", "event_counts", "start_time", "end_time", "final_status"}
    assert (found["event_counts"]["config"], found["final_status"]) == (1, "success")


@row("RotatingFileHandler")
def test_events_go_on_in_further_files(tmp_path: Path) -> None:
    run = shmlog.init(root=tmp_path, rotate_events=4096)
    for number in range(100):
        run.event("many", {"number": number, "text": "x" * 100})
    run.finish()
    assert len(list(run.dir.glob("events*.jsonl"))) > 2
    assert [event["data"]["number"] for event in shmlog.load(run.dir).events("many")] == list(range(100))


# ---- checkpointing ----


@row("CheckpointManager(")
def test_what_earlier_processes_saved_counts(manager: CheckpointManager) -> None:
    CheckpointManager(manager.folder, "exp2").save({}, 5)
    again = CheckpointManager(manager.folder, "exp", keep_last=3)
    again.save({}, 30)
    assert [info.step for info in again.list()] == [10, 20, 30]


@row("save_checkpoint(")
def test_a_checkpoint_is_safetensors(manager: CheckpointManager) -> None:
    from safetensors.numpy import load_file

    info = manager.save({"w": np.ones(2), "epoch": 3}, 30, metadata={"note": "last"})
    assert info.path.suffix == ".safetensors"
    assert any(array.tolist() == [1.0, 1.0] for array in load_file(info.path).values())
    assert info.metadata == {"note": "last"}


@row("load_checkpoint(path)")
def test_a_checkpoint_is_loaded(manager: CheckpointManager, tmp_path: Path) -> None:
    assert manager.load().info.step == 20
    assert manager.load(10).state["w"].tolist() == [10, 10]
    with pytest.raises(shmlog.errors.CheckpointNotFoundError):
        CheckpointManager(tmp_path / "none").load()
    theirs = experiment_logger_folder(tmp_path / "theirs") / "digits_iter_000010.ckpt"
    assert CheckpointManager(tmp_path, allow_pickle=True).load(theirs).state == {"weights": [1.0, 1.0]}


@row("a folder of theirs")
def test_a_folder_of_theirs_is_imported(tmp_path: Path) -> None:
    report = shmlog.import_run(experiment_logger_folder(tmp_path / "theirs"), tmp_path / "runs")
    assert (report.problems, report.counts["artifacts"]) == ((), 4)


@row("get_latest_checkpoint")
def test_the_latest_is_that_of_the_highest_step(manager: CheckpointManager) -> None:
    infos = manager.list()
    infos[0].path.touch()
    latest = manager.latest()
    assert latest is not None
    assert (latest.step, [info.step for info in infos]) == (20, [0, 10, 20])


@row("should_save_checkpoint(i)")
def test_when_a_checkpoint_is_due(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, save_every=10, keep_last=0)
    for step in range(25):
        if manager.should_save(step):
            manager.save({}, step)
    assert [info.step for info in manager.list()] == [0, 10, 20]
    assert not CheckpointManager(tmp_path).should_save(0)


@row("delete_all_checkpoints")
def test_all_are_deleted(manager: CheckpointManager) -> None:
    manager.delete(*manager.list())
    assert manager.list() == []


@row("resume_from_checkpoint(path)")
def test_a_training_resumes(manager: CheckpointManager, tmp_path: Path) -> None:
    found = manager.resume_from_checkpoint()
    assert found is not None
    assert found.info.step == 20
    assert CheckpointManager(tmp_path / "none").resume_from_checkpoint() is None


@row("backup_checkpoint(")
def test_a_checkpoint_is_backed_up(manager: CheckpointManager, tmp_path: Path) -> None:
    manager.backup_checkpoint(20, tmp_path / "backup")
    assert CheckpointManager(tmp_path / "backup", "exp").load(20).state["w"].tolist() == [20, 20]


@row("AutoCheckpoint(")
def test_an_interrupted_training_is_saved(manager: CheckpointManager) -> None:
    with pytest.raises(KeyboardInterrupt), shmlog.AutoCheckpoint(manager, lambda: {"w": 1}, lambda: 25):
        raise KeyboardInterrupt
    found = manager.load(25)
    assert (found.state, found.info.metadata["interrupted"]) == ({"w": 1}, True)


@row("<name>_index.json")
def test_the_command_lists_checkpoints(manager: CheckpointManager, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", str(manager.folder), "--json"]) == 0
    assert [one["step"] for one in json.loads(capsys.readouterr().out)] == [0, 10, 20]
    assert not list(manager.folder.glob("*index*"))
