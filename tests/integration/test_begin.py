"""Runs that the store has made, and that a process begins; experiments, and when they were made."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import shmlog
from shmlog.errors import RunNotFoundError, RunStateError
from shmlog.reader.verify.verify import verify
from tests.support.books import assert_books_balance
from tests.support.processes import run_script, wait_for_end


def test_a_pending_run_is_begun_logged_to_and_finished(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path)
    made = store.create_run("digits", params={"lr": 0.1, "bs": 8}, name="mine", tags=["a"], description="why")
    run = shmlog.init(run=made.run_id, root=tmp_path, config={"bs": 16}, tags=["b"])
    assert (run.id, run.dir) == (made.run_id, made.dir)
    run.log("loss", 0.5, 3)
    assert run.finish()
    record = store.get(made.run_id)
    assert (record.status, record.name, record.description, record.tags) == ("success", "mine", "why", ("b",))
    assert record.params == {"lr": 0.1, "bs": 16}
    assert record.created_at == made.created_at
    assert record.started_at is not None
    assert record.created_at is not None
    assert record.started_at > record.created_at
    stored = shmlog.load(run.dir)
    assert stored.to_numpy("loss")[1].tolist() == [0.5]
    assert [event["event_type"] for event in stored.events()] == ["experiment_start", "config", "experiment_end"]
    assert stored.events("config")[0]["data"] == {"lr": 0.1, "bs": 16}
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)
    assert verify(run.dir).ok


def test_a_run_is_begun_whatever_experiment_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shmlog.Store(tmp_path).create_run("digits")
    monkeypatch.setenv("SHMLOG_EXPERIMENT", "letters")
    with shmlog.init(run=made.run_id, root=tmp_path) as run:
        assert (run.experiment, run.id) == ("digits", made.run_id)


def test_a_run_that_was_begun_can_be_resumed(tmp_path: Path) -> None:
    made = shmlog.Store(tmp_path).create_run("digits")
    for step, argument in enumerate(("run", "resume")):
        run = shmlog.init(root=tmp_path, **{argument: made})  # type: ignore[arg-type]
        run.log("x", float(step), step)
        assert run.finish()
    stored = shmlog.load(made.dir)
    assert [attempt["attempt"] for attempt in stored.attempts] == [1, 2]
    assert stored.to_numpy("x")[1].tolist() == [0.0, 1.0]


def test_only_a_pending_run_is_begun(tmp_path: Path) -> None:
    run = shmlog.init("digits", root=tmp_path)
    with pytest.raises(RunStateError, match="is running, not pending: init"):
        shmlog.init(run=run.id, root=tmp_path)
    run.finish()
    with pytest.raises(RunStateError, match="is success, not pending"):
        shmlog.init(run=run.id, root=tmp_path)
    with pytest.raises(RunNotFoundError, match="no run 'other' to begin"):
        shmlog.init(run="other", root=tmp_path)
    for resume in (run.id, "auto", "latest"):
        with pytest.raises(ValueError, match="not both"):
            shmlog.init(run=run.id, resume=resume, root=tmp_path)
    with pytest.raises(TypeError, match="run must be the id of a run"):
        shmlog.init(run=3, root=tmp_path)  # type: ignore[arg-type]


def test_auto_begins_a_pending_run_and_other_words_say_how(tmp_path: Path) -> None:
    made = shmlog.Store(tmp_path).create_run("digits", params={"lr": 0.1})
    for resume in ("latest", made.run_id):
        with pytest.raises(RunStateError, match=r"is pending, .*: init\(run=…\) begins it"):
            shmlog.init("digits", resume=resume, root=tmp_path)
    for attempt in (1, 2):
        with shmlog.init("digits", id=made.run_id, resume="auto", root=tmp_path) as run:
            assert run.config == {"lr": 0.1}
        assert len(shmlog.load(made.dir).attempts) == attempt


@pytest.mark.parametrize("resume", [None, "auto"])
def test_the_folder_of_an_init_that_was_killed_is_told(tmp_path: Path, resume: str | None) -> None:
    half = tmp_path / "digits" / "half"
    half.mkdir(parents=True)
    for name in ("", "wal"):
        (half / name).mkdir(exist_ok=True)
        with pytest.raises(RunStateError, match=r"half is there, and no run in it yet: .* remove the folder"):
            shmlog.init("digits", id="half", resume=resume, root=tmp_path)
    (half / "events.jsonl").write_text("{}\n")
    with pytest.raises(RunStateError, match=r"half holds something that has no run.yaml: .*rebuild"):
        shmlog.init("digits", id="half", resume=resume, root=tmp_path)


BEGIN = """
import sys
import shmlog
run = shmlog.init(run=sys.argv[2], root=sys.argv[1])
run.log("x", 1.0)
run.finish()
"""


def test_ranks_of_a_launch_begin_one_run(tmp_path: Path) -> None:
    launch = """
import os, subprocess, sys
def environment(rank):
    return {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
ranks = [subprocess.Popen([sys.executable, *sys.argv[1:]], env=environment(rank)) for rank in range(2)]
sys.exit(max(rank.wait() for rank in ranks))
"""
    root = tmp_path / "runs"
    made = shmlog.Store(root).create_run("digits")
    (tmp_path / "rank.py").write_text(BEGIN)
    done = run_script(launch, tmp_path / "rank.py", root, made.run_id, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    wait_for_end(made.dir)
    assert shmlog.load(made.dir).counts["metrics"] == 2
    assert {producer["rank"] for producer in shmlog.load(made.dir).producers} == {0, 1}


def test_a_run_whose_begin_was_killed_long_ago_can_be_begun(tmp_path: Path) -> None:
    made = shmlog.Store(tmp_path).create_run("digits")
    (made.dir / "wal").mkdir()
    with pytest.raises(RunStateError, match="by another process"):
        shmlog.init(run=made, root=tmp_path)
    long_ago = time.time() - 7200
    os.utime(made.dir / "wal", (long_ago, long_ago))
    assert shmlog.init(run=made, root=tmp_path).finish()


def test_a_pending_run_can_be_cancelled(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path)
    made = store.create_run("digits")
    with pytest.raises(RunStateError, match="only running or cancelled"):
        store.set_status(made, "success")
    cancelled = store.set_status(made, "cancelled")
    assert (cancelled.status, cancelled.complete, cancelled.started_at) == ("cancelled", True, None)
    assert cancelled.ended_at is not None


@pytest.mark.parametrize("how", ["init", "create_run", "create_experiment", "import"])
def test_an_experiment_was_made_when_its_folder_was(tmp_path: Path, how: str) -> None:
    store = shmlog.Store(tmp_path)
    before = datetime.now(UTC)
    if how == "init":
        shmlog.init("digits", root=tmp_path).finish()
    elif how == "import":
        (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
        shmlog.import_run(tmp_path / "log.jsonl", tmp_path, experiment="digits")
    else:
        getattr(store, how)("digits")
    after = datetime.now(UTC)
    created_at = store.experiment("digits").created_at
    assert created_at is not None
    assert before <= created_at <= after
    assert store.annotate_experiment("digits", description="later").created_at == created_at
    store.create_run("digits")
    assert store.experiment("digits").created_at == created_at


def test_an_older_folder_has_no_time_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    store = shmlog.Store(tmp_path)
    assert store.annotate_experiment("digits", description="later").created_at is None
