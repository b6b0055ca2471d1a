"""A run that is over goes on as its next attempt: nothing is mixed up, lost or counted twice."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shmlog
from shmlog.errors import CorruptDataError, RefusedError, RunNotFoundError, RunStateError, StorageError
from shmlog.flusher.recover import recover
from shmlog.folder import flock, runfile
from shmlog.folder.layout import RunLayout
from shmlog.reader.verify.verify import verify
from shmlog.run import resume
from shmlog.run.options import Options, check, check_place
from shmlog.run.resume import find
from shmlog.segment import gc, shm
from shmlog.segment.doorbell import Doorbell
from tests.support.books import assert_books_balance
from tests.support.processes import (
    flusher_pid,
    is_flusher_gone,
    only_run,
    run_script,
    segments_below,
    start_script,
    wait_for_end,
    wait_for_flusher,
    wait_until,
)

RESUME = """
import os, signal, sys
import shmlog
run = shmlog.init("digits", root=sys.argv[1], resume=sys.argv[2] if len(sys.argv) > 2 else None)
first, last = int(os.environ["FIRST"]), int(os.environ["LAST"])
loss = run.metric("loss")
for step in range(first, last):
    loss(float(os.environ["VALUE"]), step)
assert run.flush()
run.event("logged", {"to": last})
assert run.flush()
print("ready", flush=True)
signal.pause()
"""


def make(root: Path, steps: range, value: float = 1.0, **options: Any) -> Path:
    """Log an attempt that succeeds; return its folder."""
    with shmlog.init("digits", root=root, **options) as run:
        for step in steps:
            run.log("loss", value, step=step)
    wait_for_end(run.dir)
    return run.dir


def check_with(**given: Any) -> Options:
    """Return the options of `init` with these arguments."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(shmlog.init).parameters.items()}
    arguments = {name: value for name, value in (defaults | given).items() if name not in ("mode", "resume", "run")}
    place = check_place(*(arguments.pop(name) for name in ("root", "experiment", "id")), is_new=False)
    return check(place, **arguments, is_new=False)


def curve(run_dir: Path, name: str = "loss") -> list[tuple[int, float, int]]:
    """Return step, value and attempt of a metric."""
    table = shmlog.load(run_dir).metrics(name)
    return list(zip(*(table[column].to_pylist() for column in ("step", "value", "attempt")), strict=True))


def statuses(run_dir: Path) -> list[str]:
    return [attempt["status"] for attempt in shmlog.load(run_dir).attempts]


# ---- what it becomes ----


@pytest.mark.parametrize("status", ["failed", "crashed"])
def test_a_run_that_is_over_goes_on_in_its_folder(tmp_path: Path, status: str) -> None:
    run = shmlog.init("digits", root=tmp_path, config={"lr": 0.1, "seed": 1}, tags=["a"])
    for step in range(10):
        run.log("loss", 1.0, step=step)
    run.finish(status)  # not waited for: init does
    again = shmlog.init(root=tmp_path, resume=run.id, config={"lr": 0.2, "seed": 1})
    assert (again.dir, again.id, again.experiment) == (run.dir, run.id, "digits")
    assert shmlog.load(run.dir).status == "running"
    assert shmlog.load(run.dir).config == {"lr": 0.2, "seed": 1}
    for step in range(5, 15):
        again.log("loss", 2.0, step=step)
    assert again.flush()
    due = [(step, 1.0, 1) for step in range(5)] + [(step, 2.0, 2) for step in range(5, 15)]
    assert curve(run.dir) == due, "while it runs"
    assert again.finish("failed")
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=20)
    assert curve(run.dir) == due
    assert stored.metrics("loss", superseded=True)["superseded"].to_pylist().count(True) == 5
    assert (stored.status, statuses(run.dir)) == ("failed", [status, "failed"])
    assert [attempt["config"] for attempt in stored.attempts] == [{}, {"lr": 0.2}]
    assert stored.metadata["tags"] == ["a"]
    assert [event["data"].get("attempt") for event in stored.events("experiment_start")] == [None, 2]
    assert len(list((run.dir / "metrics" / "node=0").iterdir())) == 1, "the parts of both attempts are merged"
    record = shmlog.Store(tmp_path).get(run.id)
    assert (record.attempt, record.status, record.started_at) == (2, "failed", record.created_at)
    assert record.counts is not None
    assert record.counts["metrics"] == 20


def test_an_attempt_logs_as_the_one_before_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[dict[str, Any]] = [
        {"level": "warning", "console": True, "rotate_events": 1024}, {}, {"level": "info", "rotate_events": 0}, {},
    ]  # fmt: skip
    run_dir, printed, kept = None, [], []
    for number, options in enumerate(given):
        with shmlog.init("digits", root=tmp_path, resume=run_dir, **options) as run:
            run.info(f"info {number}")
            run.warning(f"warning {number}")
            run.event("long", {"text": "x" * 2000})
        run_dir = run.dir
        wait_for_end(run_dir)
        printed.append([line for line in capsys.readouterr().out.splitlines() if "info" in line or "warning" in line])
        settings = shmlog.load(run_dir).metadata["structured_log"]
        assert settings.pop("redact")
        kept.append(settings)
    first = {"level": "warning", "console": True, "rotate_bytes": 1024}
    later = {"level": "info", "console": True, "rotate_bytes": None}
    assert kept == [first, first, later, later]
    assert printed == [
        ["WARNING: warning 0"], ["WARNING: warning 1"],
        *([f"INFO: info {number}", f"WARNING: warning {number}"] for number in (2, 3)),
    ]  # fmt: skip
    messages = [event["data"]["message"] for event in shmlog.load(run_dir).events("log")]
    assert messages == ["warning 0", "warning 1", "info 2", "warning 2", "info 3", "warning 3"]
    assert verify(run_dir).findings == []


NAMINGS: dict[str, Callable[[Path], Any]] = {
    "id": lambda run_dir: run_dir.name,
    "experiment and id": lambda run_dir: f"digits/{run_dir.name}",
    "folder": lambda run_dir: run_dir,
    "folder as text": str,
    "stored run": shmlog.load,
    "record": lambda run_dir: shmlog.Store(run_dir.parents[1]).get(run_dir.name),
}


def test_a_run_is_named_in_any_way(tmp_path: Path) -> None:
    run_dir = make(tmp_path, range(2))
    options = check_with(root=tmp_path, experiment="digits")
    for naming in NAMINGS.values():
        assert find(naming(run_dir), options, "resume").dir == run_dir


@pytest.mark.parametrize("sinks", [("parquet",), ("jsonl",)])
def test_each_attempt_is_counted_apart(tmp_path: Path, sinks: tuple[str, ...]) -> None:
    run_dir = make(tmp_path, range(10), sinks=sinks, rotate_events="2 KB")
    for attempt in (2, 3):
        with shmlog.init(root=tmp_path, resume=run_dir, rotate_events="2 KB") as run:
            for step in range(attempt * 3, attempt * 3 + 4):
                run.log("loss", float(attempt), step=step)
        wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=18)
    assert curve(run_dir) == [
        *((step, 1.0, 1) for step in range(6)),
        *((step, 2.0, 2) for step in range(6, 9)),
        *((step, 3.0, 3) for step in range(9, 13)),
    ]
    assert [(p["lane"], p["metrics"]) for p in stored.producers] == [(0, 10), (1, 4), (2, 4)]
    assert stored.metadata["sinks"] == list(sinks)
    assert stored.sql("select attempt, count(*) as n from metrics group by all order by all").to_pylist() == [
        {"attempt": 1, "n": 10}, {"attempt": 2, "n": 4}, {"attempt": 3, "n": 4},
    ]  # fmt: skip


def work(run: shmlog.Run, step: int) -> None:
    run.log("child", 1.0, step=step)
    assert run.flush()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_log_into_the_attempt(tmp_path: Path, method: str) -> None:
    run_dir = make(tmp_path, range(3))
    with shmlog.init(root=tmp_path, resume=run_dir) as run:
        child = multiprocessing.get_context(method).Process(target=work, args=(run, 7))
        child.start()
        child.join()
    wait_for_end(run_dir)
    assert curve(run_dir, "child") == [(7, 1.0, 2)]
    assert_books_balance(run_dir, offered=4)


def drop_one(run: shmlog.Run) -> None:
    run.log("child", 1.0, step=0)


def test_drops_of_processes_without_a_lane_add_up(tmp_path: Path) -> None:
    run_dir = None
    for _ in range(2):
        with shmlog.init(root=tmp_path, resume=run_dir, lanes=1, max_wait=0.0) as run:
            child = multiprocessing.get_context("fork").Process(target=drop_one, args=(run,))
            child.start()
            child.join()
        run_dir = run.dir
        wait_for_end(run_dir)
    assert run_dir is not None
    assert shmlog.load(run_dir).dropped == {"lane": 2}
    assert_books_balance(run_dir, offered=2)


# ---- crashes ----


def kill(process: subprocess.Popen[str], run_dir: Path, *, flusher: bool) -> None:
    """Kill the process of an attempt, and its flusher first if that is to find nothing."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    pid = flusher_pid(run_dir)
    if flusher and pid is not None:
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate()
    if flusher:
        wait_until(lambda: is_flusher_gone(run_dir), "the flusher to be gone")


def begin(root: Path, folder: Path, steps: range, value: float, *resume: str) -> subprocess.Popen[str]:
    environment = {"FIRST": str(steps.start), "LAST": str(steps.stop), "VALUE": str(value)}
    return start_script(RESUME, root, *resume, cwd=folder, env=environment)


def test_a_crashed_attempt_is_recovered_and_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    process = begin(root, tmp_path, range(100), 1.0)
    wait_until(lambda: root.is_dir() and any(root.glob("*/*/run.yaml")), "the run")
    run_dir = only_run(root)
    kill(process, run_dir, flusher=True)
    kill(begin(root, tmp_path, range(60, 160), 2.0, run_dir.name), run_dir, flusher=True)  # recovers attempt 1
    assert statuses(run_dir) == ["crashed", "crashed"]
    assert shmlog.load(run_dir).unrecovered
    unrecovered = curve(run_dir)
    assert verify(run_dir).ok
    assert recover(run_dir).status == "crashed"
    assert not recover(run_dir).changed
    assert curve(run_dir) == unrecovered
    kill(begin(root, tmp_path, range(120, 200), 3.0, run_dir.name), run_dir, flusher=False)
    with shmlog.init(root=root, resume=run_dir.name) as run:  # its flusher closes it meanwhile
        run.log("loss", 4.0, step=190)
    wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=281)
    assert statuses(run_dir) == ["crashed", "crashed", "crashed", "success"]
    assert curve(run_dir) == [
        *((step, 1.0, 1) for step in range(60)),
        *((step, 2.0, 2) for step in range(60, 120)),
        *((step, 3.0, 3) for step in range(120, 190)),
        (190, 4.0, 4),
    ]
    assert len(stored.events("logged")) == 3
    shown = run_script("from shmlog.cli.main import main\nmain(['show'])", cwd=tmp_path)
    assert "1 crashed, 2 crashed, 3 crashed, 4 success" in shown.stdout


def resume_and_die(root: Path, run_id: str, steps: int) -> int:
    """Resume a run in a child that dies before one more step than ``steps``; return its exit code, 0 if it lived."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = iter(range(steps))

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os._exit(9)
            return function(*arguments, **options)

        return step

    try:
        for owner, name in ((Path, "mkdir"), (os, "replace"), (os, "fsync"), (shm, "_fill"), (Doorbell, "create")):
            setattr(owner, name, dying(getattr(owner, name)))
        shmlog.init(root=root, resume=run_id, config={"lr": 0.5}).finish()
        os._exit(0)
    finally:
        os._exit(1)


def test_who_is_killed_while_resuming_leaves_a_run_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, full: bool
) -> None:
    run_dir = make(tmp_path, range(10), config={"lr": 0.1})
    first, stride = (0, 1) if full else (seed % 3, 3)
    codes: list[int] = []
    while 0 not in codes:
        codes.append(resume_and_die(tmp_path, run_dir.name, first + stride * len(codes)))
        assert codes[-1] in (0, 9)
        assert curve(run_dir) == [(step, 1.0, 1) for step in range(10)]
    assert len(codes) > 8 // stride
    wait_for_end(run_dir)
    assert_books_balance(run_dir, offered=10)
    assert shmlog.load(run_dir).status == "success"
    assert shmlog.load(run_dir).config == {"lr": 0.5}
    monkeypatch.setattr(gc, "_YOUNG_S", 0.0)
    for segment in gc.find_stale():  # those that run.yaml has not come to name: as after any init
        if segment.run_id == run_dir.name:
            with suppress(FileNotFoundError):  # the flusher of another test has removed it meanwhile
                gc.remove(segment)
    assert list(segments_below(run_dir)) == []
    assert_books_balance(run_dir, offered=10)


# ---- refusals ----


def assert_refused(error: type[Exception], match: str, run_dir: Path, **options: Any) -> None:
    """Assert that it is not resumed, and that nothing has changed."""
    before = {path: path.read_bytes() for path in run_dir.rglob("*.yaml")}
    with pytest.raises(error, match=match):
        shmlog.init(resume=run_dir, **options)
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*.yaml")}


def test_a_running_run_is_not_resumed(tmp_path: Path) -> None:
    with shmlog.init("digits", root=tmp_path) as run:
        assert_refused(RunStateError, "is running.*shmlog.attach", run.dir)
        done = run_script("import shmlog, sys\nshmlog.init(resume=sys.argv[1])", run.dir, cwd=tmp_path)
        assert "RunStateError" in done.stderr
        run.log("loss", 1.0, step=1)
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def delete_meanwhile(run_dir: Path, outcomes: list[Any]) -> None:
    """Delete a run as another process would, by `Store.delete` and `Store.prune`."""
    store = shmlog.Store(run_dir.parents[1])
    with pytest.raises(RunStateError, match="recovering or resuming the run"):
        store.delete(run_dir.name)
    outcomes += store.prune(keep=0, dry_run=False).failed


def test_a_run_that_is_being_resumed_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run.yaml still says that it is complete, and nobody has a segment of it."""
    monkeypatch.setattr(flock, "PATIENCE_S", 0.01)
    run_dir = make(tmp_path, range(2))
    failed: list[Any] = []
    with monkeypatch.context() as patched:
        claim = resume._claim
        patched.setattr(resume, "_claim", lambda layout: (delete_meanwhile(run_dir, failed), claim(layout)))
        run = shmlog.init(root=tmp_path, resume=run_dir.name)
    assert len(failed) == 1
    run.log("loss", 2.0, step=2)
    assert run.finish()
    wait_for_end(run_dir)
    assert len(assert_books_balance(run_dir, offered=3).attempts) == 2


def test_a_run_that_is_deleted_before_it_is_resumed_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes it away when it was found to be over."""
    run_dir = make(tmp_path, range(2))
    reading = resume._reopen

    def reopen(options: Options, layout: RunLayout, turn: int) -> shmlog.Run:
        os.rename(run_dir, tmp_path / "elsewhere")
        return reading(options, layout, turn)

    monkeypatch.setattr(resume, "_reopen", reopen)
    with pytest.raises(RunNotFoundError, match="is gone"):
        shmlog.init(root=tmp_path, resume=run_dir.name)
    assert not run_dir.exists()


def test_a_run_of_another_host_that_may_live_is_not_resumed(tmp_path: Path) -> None:
    run_dir = make(tmp_path, range(2))
    path = run_dir / "run.yaml"
    told = {**runfile.read(path), "complete": False, "status": "running", "host": "far", "boot_id": "another"}
    runfile.write_sealed(path, told)
    assert_refused(RunStateError, "made on host 'far'.*recover --force", run_dir)


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    run_dir = make(tmp_path, range(2))
    for name in ("nobody", tmp_path, "digits/nobody", run_dir / "metrics", "x" * 300, "x/" * 3000):
        with pytest.raises(RunNotFoundError, match="no run"):
            shmlog.init(root=tmp_path, resume=name)
    assert_refused(ValueError, "belongs to experiment 'digits'", run_dir, experiment="letters")
    with pytest.raises(TypeError, match="resume must be"):
        shmlog.init(root=tmp_path, resume=3)  # type: ignore[arg-type]


def test_books_that_are_damaged_are_not_gone_on_with(tmp_path: Path) -> None:
    run_dir = make(tmp_path, range(2))
    path = run_dir / "run.yaml"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"metrics": 2', b'"metrics": 3', 1))
    assert_refused(CorruptDataError, "checksum.*rebuild", run_dir)
    for wrong in ({"attempts": [{"attempt": 2, "first_lane": 0}]}, {"attempts": []}, {"producers": None}):
        runfile.write_sealed(path, {**runfile.parse(path, whole), **wrong})
        assert_refused(CorruptDataError, "run.yaml", run_dir)
        if "attempts" in wrong:
            assert not verify(run_dir).ok
    path.unlink()
    shmlog.Store(tmp_path).rebuild(run_dir.name)
    with shmlog.init(resume=run_dir) as run:
        run.log("loss", 2.0, step=1)
    wait_for_end(run_dir)
    path.unlink()
    shmlog.Store(tmp_path).rebuild(run_dir.name)
    assert curve(run_dir) == [(0, 1.0, 1), (1, 2.0, 2)], "the events tell the attempts"


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "link": lambda path: path.symlink_to(path.with_name("elsewhere")),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_a_run_with_something_else_in_the_place_of_its_events_is_not_resumed(tmp_path: Path, kind: str) -> None:
    run_dir = make(tmp_path, range(2))
    (run_dir / "events.jsonl").rename(run_dir / "elsewhere")
    IN_THE_WAY[kind](run_dir / "events.jsonl")
    assert_refused(RefusedError, "events.jsonl: not a regular file", run_dir)


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_a_flusher_ends_that_finds_something_else_in_the_place_of_its_events(tmp_path: Path, kind: str) -> None:
    run = shmlog.init("resumed", root=tmp_path)
    run.log("loss", 1.0, step=0)
    assert run.flush()
    flusher = wait_for_flusher(run.dir)
    wait_until((run.dir / "events.jsonl").exists, "the flusher to write events")
    (run.dir / "events.jsonl").rename(run.dir / "elsewhere")
    IN_THE_WAY[kind](run.dir / "events.jsonl")
    run.event("later", {})
    assert run.finish() is False
    wait_until(lambda: not Path(f"/proc/{flusher}").exists(), "the flusher to end")
    if kind == "folder":
        (run.dir / "events.jsonl").rmdir()
    else:
        (run.dir / "events.jsonl").unlink()
    (run.dir / "elsewhere").rename(run.dir / "events.jsonl")
    recover(run.dir)
    assert [event["event_type"] for event in shmlog.load(run.dir).events()].count("later") == 1


def test_a_run_yaml_of_an_earlier_attempt_cuts_nothing_that_a_later_one_has_written(tmp_path: Path) -> None:
    run_dir = make(tmp_path, range(2), sinks=("jsonl",))
    path = run_dir / "run.yaml"
    earlier = path.read_bytes()
    with shmlog.init(resume=run_dir) as run:
        run.log("loss", 2.0, step=1)
    wait_for_end(run_dir)
    path.write_bytes(earlier)
    events = (run_dir / "events.jsonl").read_bytes()
    assert_refused(CorruptDataError, "says less than events.jsonl holds.*rebuild", run_dir)
    assert (run_dir / "events.jsonl").read_bytes() == events
    path.unlink()
    shmlog.Store(tmp_path).rebuild(run_dir.name)
    with shmlog.init(resume=run_dir) as run:
        run.log("loss", 3.0, step=2)
    wait_for_end(run_dir)
    assert (run_dir / "events.jsonl").read_bytes().startswith(events)
    assert curve(run_dir) == [(0, 1.0, 1), (1, 2.0, 2), (2, 3.0, 3)]


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = make(tmp_path, range(2))
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: Any, **options: Any) -> None:  # root may write everywhere
        if path.parent == run_dir:
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        assert_refused(StorageError, f"can't be resumed: {run_dir}/wal: Permission denied", run_dir)
    assert verify(run_dir).ok
    assert shmlog.load(run_dir).status == "success"


def test_what_fails_on_the_way_leaves_the_run_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = make(tmp_path, range(2))

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    for owner, name in ((runfile, "write_sealed"), (resume, "open_segment")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            assert_refused(StorageError, "can't be resumed.*No space", run_dir)
        assert not (run_dir / "wal").exists()
        assert verify(run_dir).ok
    with shmlog.init(resume=run_dir) as run:
        run.log("loss", 2.0, step=2)
    wait_for_end(run_dir)
    assert_books_balance(run_dir, offered=3)
    table = shmlog.load(run_dir).metrics("nobody")
    assert (table.num_rows, table.schema.field("superseded").type) == (0, pa.bool_())


# ---- several at once ----


def test_who_comes_a_moment_later_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = make(tmp_path, range(2))
    monkeypatch.setattr(resume, "_wait_until_over", lambda layout: None)  # both have seen that it is over
    (run_dir / "wal").mkdir()
    assert_refused(RunStateError, "being resumed or recovered by another process", run_dir)
    (run_dir / "wal").rmdir()
    with shmlog.init(resume=run_dir):
        assert_refused(RunStateError, "another process has just resumed it", run_dir)
    wait_for_end(run_dir)
    assert_books_balance(run_dir, offered=2)


AT_ONCE = """
import sys, time
import shmlog
try:
    run = shmlog.init(root=sys.argv[1], resume=sys.argv[2])
except shmlog.errors.RunStateError as error:
    print("refused", flush=True)
else:
    run.log("loss", 2.0, step=5)
    print(run.is_owner, flush=True)
    sys.stdin.readline()
    run.finish()
"""


@pytest.mark.parametrize("launched", [False, True], ids=["strangers", "ranks"])
def test_of_several_at_once_one_resumes(tmp_path: Path, launched: bool) -> None:
    root = tmp_path / "runs"
    run_dir = make(root, range(2))
    processes = []
    for rank in range(3):
        ranks = {"RANK": str(rank), "WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": run_dir.name} if launched else {}
        processes.append(
            start_script(AT_ONCE, root, run_dir.name, cwd=tmp_path, env=ranks, stdin=subprocess.PIPE)  # type: ignore[arg-type]
        )
    said = []
    for process in processes:
        assert process.stdout is not None
        said.append(process.stdout.readline().strip())
    for process in processes:
        process.communicate("\n")
    assert sorted(said) == (["True", "True", "True"] if launched else ["True", "refused", "refused"])
    wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=2 + (3 if launched else 1))
    assert len(stored.attempts) == 2
