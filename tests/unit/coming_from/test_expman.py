"""What users of expman-rs know, done with shmlog."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.folder.status import RunStatus
from shmlog.reader.verify.verify import verify
from tests.support.coming_from import Kept, row
from tests.support.processes import only_run, run_script, wait_until


@row("Experiment(name, run_name, base_dir)")
def test_a_run_lies_below_its_root(live: shmlog.Run) -> None:
    assert live.dir.parent.name == live.experiment == "live"
    assert (live.dir / "run.yaml").is_file()


@row("run_name, run_dir")
def test_two_runs_of_a_second_are_two(kept: Kept) -> None:
    ids = [shmlog.load(path).id for path in (kept.first, kept.second)]
    assert len(set(ids)) == 2
    assert [kept.store.get(run_id).name for run_id in ids] == ["try 0", "try 1"]


@row("flush_interval_rows")
def test_what_was_logged_is_read_from_a_live_run(live: shmlog.Run) -> None:
    live.log("flushed", 1.0, step=1)
    assert live.flush()
    assert shmlog.load(live.dir).metrics("flushed").num_rows == 1


@row("log_vector(values, step)")
def test_a_forked_worker_logs_and_nan_is_kept(live: shmlog.Run) -> None:
    def work() -> None:
        live.log({"worker/loss": float("nan"), "worker/n": 3}, step=5)
        live.metric("worker/handle")(0.5, 5)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    live.flush()
    wait_until(lambda: shmlog.load(live.dir).metrics("worker/*").num_rows == 3, "what the worker has logged")
    values = dict(
        zip(*(shmlog.load(live.dir).metrics("worker/*")[name].to_pylist() for name in ("name", "value")), strict=True)
    )
    assert math.isnan(values.pop("worker/loss"))
    assert values == {"worker/n": 3.0, "worker/handle": 0.5}


@row("log_scalar(key, value)")
def test_the_last_value_counts(live: shmlog.Run) -> None:
    for value in (1.0, 3.0, 2.0):
        live.log("scalar", value)
    live.flush()
    found = shmlog.Store(live.dir.parents[1]).summary(live.id)["scalar"]
    assert (found["last"], found["max"], found["count"]) == (2.0, 3.0, 3)


@row("MetricValue Float, Int")
def test_kinds_are_kept(logged: Kept) -> None:
    found = {record.name: (record.kind, record.value) for record in logged.store.metrics(logged.stored.id)}
    assert found["epoch"] == ("int", 2**53 + 1)
    assert found["good"] == ("bool", True)
    assert found["note"] == ("text", "warm")
    assert found["loss"][0] == "float"


@row("VectorRow step")
def test_each_record_has_step_and_time(logged: Kept) -> None:
    table = logged.stored.metrics("loss")
    assert table["step"].to_pylist() == list(range(50))
    age = datetime.now(UTC) - table["ts"][0].as_py()
    assert 0 <= age.total_seconds() < 3600


@row("log_params(map)")
def test_parameters_are_merged(live: shmlog.Run) -> None:
    live.log_config({"batch": 32})
    live.log_config({"lr": 0.5})
    live.flush()
    wait_until(lambda: {"batch": 32, "lr": 0.5}.items() <= shmlog.load(live.dir).config.items(), "config.yaml")


@row("save_artifact(path)")
def test_a_file_is_kept(live: shmlog.Run, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    live.log_artifact(tmp_path / "model.bin", "models/final.bin")
    (tmp_path / "model.bin").unlink()
    assert (live.dir / "artifacts" / "models" / "final.bin").read_bytes() == b"weights"


@row("log_message, info")
def test_messages_have_levels(live: shmlog.Run) -> None:
    live.info("an info")
    live.warning("a warning")
    live.flush()
    told = [event["data"] for event in shmlog.load(live.dir).events("log")]
    assert {"level": "info", "message": "an info"} in told
    assert {"level": "warning", "message": "a warning"} in told


@row("close(status, reason)")
def test_a_run_ends_with_a_status_and_a_reason(tmp_path: Path) -> None:
    run = shmlog.init(root=tmp_path)
    with pytest.raises(ValueError, match="status"):
        run.finish("splendid")
    run.log_error(RuntimeError("no data"))
    run.finish("failed", reason="the disk was full")
    stored = shmlog.load(run.dir)
    assert stored.status == "failed"
    assert stored.events("experiment_end")[0]["data"]["reason"] == "the disk was full"
    assert stored.events("error")[0]["data"]["error_message"] == "no data"


@row("EXPMAN_BASE_DIR")
def test_the_environment_says_where_and_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"ROOT": str(tmp_path), "EXPERIMENT": "e", "TAGS": "a,b", "NAME": "n", "GROUP": "g", "CONFIG": "lr=0.1"}
    for name, value in values.items():
        monkeypatch.setenv(f"SHMLOG_{name}", value)
    with shmlog.init() as run:
        pass
    record = shmlog.Store(tmp_path).get(run.id)
    assert (record.experiment, record.tags, record.name, record.group) == ("e", ("a", "b"), "n", "g")
    assert record.params == {"lr": 0.1}


@row("exit status inference")
def test_an_uncaught_exception_makes_a_run_failed(tmp_path: Path) -> None:
    done = run_script(
        "import shmlog\nshmlog.init(root='runs')\nshmlog.log('x', 1.0)\nraise ValueError('y')", cwd=tmp_path
    )
    assert done.returncode == 1
    stored = shmlog.load(only_run(tmp_path / "runs"))
    wait_until(lambda: stored.status != "running", "the end")
    assert stored.status == "failed"


@row("with Experiment(")
def test_leaving_the_block_by_an_exception_logs_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), shmlog.init(root=tmp_path) as run:
        run.log("x", 1 / 0)
    stored = shmlog.load(run.dir)
    assert stored.status == "failed"
    assert "ZeroDivisionError" in stored.events("error")[0]["data"]["traceback"]


@row("module functions")
def test_the_current_run_is_logged_to(tmp_path: Path) -> None:
    run = shmlog.init(root=tmp_path)
    assert shmlog.current() is run
    shmlog.log({"a": 1.0}, step=1)
    shmlog.metric("b")(2.0, 1)
    shmlog.event("checked", {"all": True})
    shmlog.finish()
    stored = shmlog.load(run.dir)
    assert stored.names() == ["a", "b"]
    assert stored.events("checked")[0]["data"] == {"all": True}
    assert shmlog.current() is not run


@row("RunStatus RUNNING")
def test_their_words_are_understood() -> None:
    words = [RunStatus.parse(word) for word in ("RUNNING", "FINISHED", "FAILED", "CRASHED")]
    assert words == ["running", "success", "failed", "crashed"]


@row("RunMetadata, run.yaml")
def test_what_is_known_of_a_run(kept: Kept) -> None:
    record = kept.store.get(kept.first.name)
    assert (record.name, record.experiment, record.status, record.tags) == (
        "try 0", "digits", "success", ("arm:tiered", "study:0"),
    )  # fmt: skip
    assert record.duration_s is not None
    assert kept.stored.metadata["run_id"] == record.run_id
    (kept.first / "run.yaml").write_text("{")
    assert kept.store.get(kept.first.name).status == "success", "the events tell it"


@row("ExperimentMetadata")
def test_an_experiment_has_a_name_for_people(kept: Kept) -> None:
    kept.store.annotate_experiment("digits", display_name="Digits", description="by hand", tags=["vision"])
    found = kept.store.experiment("digits")
    assert (found.display_name, found.description, found.tags, found.runs) == ("Digits", "by hand", ("vision",), 2)


@row("set_tags, add_tags")
def test_a_run_is_tagged_and_described(kept: Kept) -> None:
    kept.store.annotate(kept.first.name, tags=["a"], description="text")
    record = kept.store.tag(kept.first.name, add=["b"], remove=["a"])
    assert (record.tags, record.description) == (("b",), "text")


@row("group, rank, is_primary")
def test_ranks_are_told_apart_in_one_run(live: shmlog.Run, logged: Kept, tmp_path: Path) -> None:
    assert live.is_owner
    live.flush()
    attach = (
        "import shmlog, sys\n"
        "run = shmlog.attach(sys.argv[1], rank=int(sys.argv[2]) if sys.argv[2:] else None)\n"
        "assert run.is_owner\nrun.log('ranked', 1.0)\nrun.flush()"
    )
    assert run_script(attach, live.dir, "3", cwd=tmp_path).returncode == 0
    assert run_script(attach, live.dir, cwd=tmp_path, env={"SHMLOG_RANK": "4", "RANK": "9"}).returncode == 0
    assert sorted(shmlog.load(live.dir).metrics("ranked")["rank"].to_pylist()) == [3, 4]
    assert logged.store.get(logged.first.name).group == "sweep"


@row("heartbeat_interval_secs")
def test_whether_somebody_works_on_a_run_is_known_at_once(live: shmlog.Run, logged: Kept) -> None:
    assert shmlog.load(live.dir).live is True
    assert logged.stored.live is False


@row("capture_provenance")
def test_where_a_run_comes_from_is_known(logged: Kept) -> None:
    record = logged.store.get(logged.first.name)
    assert record.host == os.uname().nodename
    assert record.user
    assert record.argv
    assert record.python == ".".join(map(str, __import__("sys").version_info[:3]))
    assert record.environment["variables"]["SLURM_JOB_ID"] == "12"


@row("capture_diff")
def test_what_the_code_had_changed_is_kept(logged: Kept) -> None:
    assert b"+lr = 0.2" in (logged.stored.git_diff() or b"")


@row("log_image, log_figure")
def test_media_are_artifacts(logged: Kept) -> None:
    image = logged.stored.artifact("plots/loss.png")
    assert image.media_type == "image/png"
    with image.open() as file:
        assert file.read() == b"png"


@row("log_histogram")
def test_a_histogram_is_an_event(live: shmlog.Run) -> None:
    counts, edges = np.histogram([1, 2, 2, 3], bins=2)
    live.event("histogram", {"name": "weights", "counts": counts, "edges": edges})
    live.flush()
    (event,) = shmlog.load(live.dir).events("histogram")
    assert event["data"] == {"name": "weights", "counts": [1, 3], "edges": [1.0, 2.0, 3.0]}


@row("load_runs(base_dir")
def test_runs_are_found(logged: Kept) -> None:
    find = logged.store.runs
    assert [run.name for run in find("digits", tags="arm:tiered AND (study:1 OR study:2)")] == ["try 1"]
    assert [run.name for run in find(where="run.group = sweep and lr > 0.05", status="finished")] == ["try 0"]


@row("read_metrics(run_dir")
def test_metrics_long_and_wide(logged: Kept) -> None:
    wide = logged.stored.pivot(["epoch", "loss"])
    assert wide.column_names == ["step", "epoch", "loss"]
    assert wide.num_rows == 50
    assert logged.stored.to_pandas("loss")["value"].iloc[1] == 0.5
    assert logged.stored.metrics(["loss"]).num_rows == 50


@row("load_config, load_run")
def test_parameters_are_read_back(logged: Kept) -> None:
    assert logged.stored.config == {"lr": 0.1, "model": {"depth": 18}}
    assert logged.store.get(logged.first.name).params == logged.stored.config


@row("SummaryWriter: add_scalar")
def test_what_a_summary_writer_writes(tmp_path: Path) -> None:
    run = shmlog.init(root=tmp_path)
    run.log("loss", 0.5, 1)
    run.log({"main/a": 1.0, "main/b": 2.0}, 1)
    run.log("text", "hello", 1)
    run.log_config({"lr": 0.1})
    run.log_result({"accuracy": 0.9})
    assert run.flush()
    run.finish()
    stored = shmlog.load(run.dir)
    assert stored.names() == ["loss", "main/a", "main/b", "text"]
    assert stored.metrics("text")["text"].to_pylist() == ["hello"]
    assert (stored.config, stored.events("result")[0]["data"]) == ({"lr": 0.1}, {"accuracy": 0.9})


@row("tensorboard_dir")
def test_an_event_file_is_written(logged: Kept, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.warns(shmlog.ShmlogWarning, match="1 ints of more than 53 bits"):
        (path,) = shmlog.export_run(logged.first, tmp_path / "tb", "tensorboard")
    assert "tfevents" in path.name
    report = shmlog.import_run(path, tmp_path / "back")
    assert shmlog.load(report.dir).to_numpy("loss")[1].tolist() == logged.stored.to_numpy("loss")[1].tolist()


@row("vectors.parquet")
def test_metrics_are_parquet(logged: Kept) -> None:
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(path).num_rows for path in logged.first.glob("metrics/*/*.parquet"))
    assert rows == logged.stored.scan().count_rows() == logged.stored.counts["metrics"] == 103


@row("config.yaml, run.log")
def test_files_have_the_same_names(logged: Kept) -> None:
    assert "lr" in (logged.first / "config.yaml").read_text()
    assert "half way" in (logged.first / "run.log").read_text()
    assert (logged.first / "artifacts" / "plots" / "loss.png").read_bytes() == b"png"
    assert logged.first.relative_to(logged.root).parts == ("digits", logged.stored.id)


@row("exp list")
def test_the_command_lists(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--status", "finished", "--where", "lr < 0.05", "--since", "1d", "--tag", "study:1", "--sort", "lr"]
    assert main(["runs", "--root", str(logged.root), "--json", *words]) == 0
    assert [run["name"] for run in json.loads(capsys.readouterr().out)] == ["try 1"]
    assert main(["runs", "--root", str(logged.root), "--columns", "lr,metrics.loss.min"]) == 0
    assert main(["experiments", "--root", str(logged.root)]) == 0
    assert "loss.min" in capsys.readouterr().out


@row("exp inspect RUN_DIR")
def test_the_command_shows(logged: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(logged.first)]) == 0
    assert main(["artifacts", str(logged.first)]) == 0
    out = capsys.readouterr().out
    assert "loss" in out
    assert "plots/loss.png" in out


@row("exp clean --keep 5")
def test_the_command_prunes(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "--keep", "1", "--root", str(kept.root)]) == 0
    assert kept.first.is_dir(), "without --force nothing goes"
    kept.store.pin(kept.first.name)
    assert main(["prune", "--keep", "0", "--force", "--root", str(kept.root)]) == 0
    assert (kept.first.is_dir(), kept.second.is_dir()) == (True, False)
    assert main(["prune", "--root", str(kept.root)]) == 2, "a rule is needed"


@row("exp export -f")
def test_the_command_exports(logged: Kept, tmp_path: Path) -> None:
    for format, suffix in (("csv", "csv"), ("json", "json"), ("wide-csv", "wide.csv")):
        path = tmp_path / f"out.{suffix}"
        assert main(["export", str(logged.first), "-f", format, "-o", str(path)]) == 0
        assert "loss" in path.read_text()


@row("exp import")
def test_the_command_imports_their_runs(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "theirs" / "20260101_000000"
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text("name: r\nexperiment: e\nstatus: FINISHED\nstarted_at: 2026-01-01T00:00:00Z\n")
    (folder / "config.yaml").write_text("lr: 0.1\n")
    times = pa.array([0, 1], pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"step": [0, 1], "timestamp": times, "loss": [1.0, 0.5]}), folder / "vectors.parquet")
    assert main(["import", str(folder), "--root", str(tmp_path / "runs")]) == 0
    (record,) = shmlog.Store(tmp_path / "runs").runs()
    assert (record.status, record.params) == ("success", {"lr": 0.1})
    assert shmlog.load(record.dir).to_numpy("loss")[1].tolist() == [1.0, 0.5]


@row("exp reap")
def test_the_command_recovers(tmp_path: Path) -> None:
    script = "import shmlog, os\nshmlog.init(root='runs').log('x', 1.0)\nos.kill(os.getpid(), 9)"
    assert run_script(script, cwd=tmp_path).returncode == -signal.SIGKILL
    run_dir = only_run(tmp_path / "runs")
    assert main(["recover", str(run_dir)]) == 0
    stored = shmlog.load(run_dir)
    assert (stored.status, stored.metrics("x").num_rows) == ("crashed", 1)
    assert verify(run_dir).ok
