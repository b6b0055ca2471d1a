"""The store beside runs that live: it finds their state, and neither side spoils what the other writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import shmlog
from shmlog.errors import RunStateError
from shmlog.flusher.recover import recover
from shmlog.folder import runfile
from tests.support.books import assert_books_balance
from tests.support.processes import is_flusher_gone, only_run, start_script, wait_for_end, wait_for_flusher, wait_until

LOG_ON = """
import sys, time
import shmlog
run = shmlog.init("digits", root=sys.argv[1], config={"lr": 0.1}, tags=["given"])
for step in range(100):
    run.log("loss", float(step), step=step)
run.flush()
print("ready", flush=True)
time.sleep(60)
"""


def test_a_live_run_is_annotated_and_never_deleted(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    store = shmlog.Store(root)
    with shmlog.init("digits", root=root, config={"lr": 0.1}, tags=["given"]) as run:
        run.log("loss", 0.5, step=1)
        assert run.flush()
        record = store.get(run.id)
        assert (record.status, record.live, record.params) == ("running", True, {"lr": 0.1})
        store.tag(run.id, ["best"], ["given"])
        store.annotate(run.id, name="nice", notes="so far so good")
        for force in (False, True):
            with pytest.raises(RunStateError, match="is running"):
                store.delete(run.id, force=force)
        result = store.prune(keep=0, dry_run=False)
        assert (result.runs, result.kept) == ((), {"running": 1})
        assert store.runs(where="metrics.loss = 0.5")[0].run_id == run.id
    wait_for_end(run.dir)
    record = store.get(run.id)
    assert (record.status, record.live, record.complete) == ("success", False, True)
    assert (record.tags, record.name, record.notes) == (("best",), "nice", "so far so good")
    assert runfile.read(run.dir / "run.yaml")["tags"] == ["given"]
    assert_books_balance(run.dir)
    assert [gone.run_id for gone in store.prune(keep=0, dry_run=False).runs] == [run.id]
    assert not run.dir.exists()


def test_that_a_run_has_crashed_is_found_and_not_written(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    process = start_script(LOG_ON, root, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    run_dir = only_run(root)
    store = shmlog.Store(root)
    assert store.latest(status="running").live is True
    os.kill(wait_for_flusher(run_dir), signal.SIGKILL)
    process.kill()
    process.communicate()
    wait_until(lambda: is_flusher_gone(run_dir), "the flusher to be gone")
    before = (run_dir / "run.yaml").read_bytes()
    (record,) = store.runs(status="crashed")
    assert (record.live, record.complete) == (False, False)
    assert store.runs(status="running") == []
    assert store.summary(record)["loss"]["count"] == 100
    assert (run_dir / "run.yaml").read_bytes() == before
    recover(run_dir)
    assert store.get(record).complete is True
    assert store.get(record).status == "crashed"


def test_a_live_run_whose_run_yaml_is_damaged_is_rebuilt_and_finishes(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run = shmlog.init("digits", root=root, config={"lr": 0.1}, tags=["given"])
    run.log("loss", 0.5, step=1)
    assert run.flush()
    path = run.dir / "run.yaml"
    pid = wait_for_flusher(run.dir)
    os.kill(pid, signal.SIGSTOP)  # it writes run.yaml once at the start
    text = path.read_text()
    path.write_text(text[: text.index('"sinks"')])
    store = shmlog.Store(root)
    (record,) = store.runs()
    assert (record.status, record.live) == ("running", True), "where the segment is still stands there"
    with pytest.raises(RunStateError, match="is running"):
        store.delete(run.id, force=True)
    assert store.rebuild(run.id).problems == ()
    os.kill(pid, signal.SIGCONT)
    run.finish()
    wait_for_end(run.dir)
    assert store.get(run.id).status == "success"
    assert_books_balance(run.dir)
