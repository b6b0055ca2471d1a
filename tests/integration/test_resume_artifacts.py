"""Attempts, artifacts, the manifest and rotated events in one run: nothing of one undoes what another promises."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.flusher.recover import recover
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.reader.verify.verify import verify
from shmlog.run import resume
from tests.support.artifacts import digits, stored
from tests.support.processes import start_script, wait_for_end, wait_for_flusher, wait_until

ROTATE = 4096
GO_ON = """
import signal, sys, shmlog
run = shmlog.init("digits", root=sys.argv[1], resume=sys.argv[2])
run.log("loss", 2.0, 60)
assert run.flush()
print("ready", flush=True)
signal.pause()
"""


def attempt(root: Path, run: str | None = None, first: int = 0, **artifacts: bytes) -> RunLayout:
    """Log an attempt that succeeds, with enough events for several files, and some artifacts."""
    options: dict[str, Any] = {"resume": run} if run else {}
    with shmlog.init("digits", root=root, rotate_events=ROTATE, **options) as made:
        for number in range(first, first + 60):
            made.log("loss", 1.0, number)
            made.event("many", {"number": number, "text": "x" * 100})
        for name, data in artifacts.items():
            source = root.parent / name
            source.write_bytes(data)
            made.log_artifact(source)
    wait_for_end(made.dir)
    return RunLayout(made.dir)


def listed(layout: RunLayout) -> set[str]:
    return set(json.loads(layout.manifest.read_text())["files"])


def problems(layout: RunLayout) -> list[str]:
    return [f"{finding.file.name}: {finding.message}" for finding in verify(layout.dir).findings]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def twofold(root: Path) -> RunLayout:
    """Make a run of two attempts, each with artifacts and several files of events."""
    first = attempt(root, model=b"first")
    assert len(first.event_files()) > 2
    return attempt(root, first.run_id, 60, model=b"first", second=b"second")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    return twofold(tmp_path_factory.mktemp("twofold") / "runs")


@pytest.fixture
def twice(made: RunLayout, root: Path) -> RunLayout:
    """Return a copy of a run of two attempts."""
    return RunLayout(shutil.copytree(made.dir, root / "digits" / made.run_id))


def test_each_file_of_events_is_in_the_manifest(twice: RunLayout) -> None:
    names = {path.name for path in twice.event_files().values()}
    assert len(names) > 4
    assert names | {"artifacts/model", "artifacts/second", "run.log", "config.yaml"} <= listed(twice)
    assert problems(twice) == []


def test_a_changed_or_missing_file_of_events_is_named(twice: RunLayout) -> None:
    for number in range(3):
        path = twice.event_file(number)
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"xxx", b"xyx", 1))
        assert any(problem.startswith(f"{path.name}: ") for problem in problems(twice)), number
        path.unlink()
        assert any(path.name in problem for problem in problems(twice)), number
        path.write_bytes(whole)
    assert problems(twice) == []


def test_a_manifest_goes_when_the_run_goes_on_and_comes_back_at_its_end(root: Path) -> None:
    layout = attempt(root, model=b"first")
    before = listed(layout)
    with shmlog.init("digits", root=root, resume=layout.run_id, rotate_events=ROTATE) as run:
        run.log("loss", 2.0, 60)
        assert run.flush()
        assert not layout.manifest.exists(), "it would be about another attempt"
        assert problems(layout) == []
        assert main(["verify", "--write-manifest", str(layout.dir)]) == 3, "the run is not over"
    wait_for_end(layout.dir)
    assert {name for name in before if not name.startswith("metrics/")} <= listed(layout)
    assert problems(layout) == []


def test_a_manifest_that_is_of_an_earlier_attempt_is_never_believed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the new run.yaml and the removal, then finished where none can be written."""
    layout = attempt(root, model=b"first")
    old = layout.manifest.read_bytes()
    process = start_script(GO_ON, root, layout.run_id, cwd=root)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(wait_for_flusher(layout.dir), signal.SIGKILL)
    process.kill()
    process.communicate()
    layout.manifest.write_bytes(old)
    monkeypatch.setattr("shmlog.flusher.closing.write_manifest", _no_space)
    wait_until(lambda: recover(layout.dir).changed, "the killed flusher to let go of its lock, and the recovery")
    wait_for_end(layout.dir)
    assert shmlog.load(layout.dir).status == "crashed"
    assert problems(layout) == []


def _no_space(layout: RunLayout) -> None:
    raise OSError(28, "No space left on device", str(layout.manifest))


def test_a_resumption_that_fails_leaves_the_manifest(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = attempt(root, model=b"first")
    monkeypatch.setattr(resume, "open_segment", _no_segment)
    with pytest.raises(shmlog.errors.SegmentError):
        shmlog.init("digits", root=root, resume=layout.run_id)
    monkeypatch.undo()
    assert layout.manifest.exists()
    assert problems(layout) == []


def _no_segment(*_: object, **__: object) -> None:
    raise shmlog.errors.SegmentError("no room")


def test_a_name_means_one_content_over_all_attempts(root: Path, tmp_path: Path) -> None:
    layout = attempt(root, model=b"first")
    with shmlog.init("digits", root=root, resume=layout.run_id) as run:
        (tmp_path / "model").write_bytes(b"other")
        with pytest.raises(shmlog.errors.RunStateError, match="model"):
            run.log_artifact(tmp_path / "model")
        (tmp_path / "model").write_bytes(b"first")
        run.log_artifact(tmp_path / "model")
        run.log_artifact(tmp_path / "model", "again")
    wait_for_end(layout.dir)
    found = shmlog.load(layout.dir).artifacts
    assert [artifact.name for artifact in found] == ["again", "model"]
    assert len({artifact.digest for artifact in found}) == 1
    assert stored(root) == {digits(b"first"): 3}
    assert problems(layout) == []


def test_artifacts_are_found_whatever_file_their_event_is_in(twice: RunLayout) -> None:
    events = [json.loads(line) for line in twice.event_file(0).read_text().splitlines()]
    assert not any(event["event_type"] == "artifact" for event in events), "it is further on"
    run = shmlog.load(twice.dir)
    assert all(artifact.digest for artifact in run.artifacts)
    run.artifact("second").verify()
    assert [event["data"]["number"] for event in run.events("many")] == list(range(120))


def test_an_export_has_the_events_of_all_files_and_attempts(twice: RunLayout, tmp_path: Path) -> None:
    shmlog.export_run(twice.dir, tmp_path / "out.json")
    report = shmlog.import_run(tmp_path / "out.json", tmp_path / "other")
    back = shmlog.load(report.dir)
    assert [event["data"]["number"] for event in back.events("many")] == list(range(120))
    assert back.metrics("loss")["step"].to_pylist() == list(range(120))
    assert verify(report.dir).ok
    assert [str(note) for note in report.notes] == [
        "artifact 'model' was logged, and is not in the source",
        "artifact 'second' was logged, and is not in the source",
    ]
    assert {message for message in problems(RunLayout(report.dir)) if "artifact" not in message} == {
        f"{name}: is not here: what the run was imported from did not hold it" for name in ("model", "second")
    }


def test_an_archived_run_is_restored_and_resumed(root: Path) -> None:
    twice = twofold(root)
    store = shmlog.Store(root)
    before = {path.relative_to(twice.dir): path.read_bytes() for path in twice.dir.rglob("*") if path.is_file()}
    result = store.prune(keep=0, archive=True, dry_run=False)
    assert [run.run_id for run in result.runs] == [twice.run_id]
    assert stored(root) == {}, "nobody holds the contents of the artifacts"
    assert store.restore(twice.run_id).attempt == 2
    after = {path.relative_to(twice.dir): path.read_bytes() for path in twice.dir.rglob("*") if path.is_file()}
    assert after == before
    assert problems(twice) == []
    attempt(root, twice.run_id, 120, third=b"third")
    assert [one["attempt"] for one in shmlog.load(twice.dir).attempts] == [1, 2, 3]
    assert problems(twice) == []


def test_a_run_that_goes_on_keeps_what_it_shares(root: Path) -> None:
    twice = twofold(root)
    other = attempt(root, model=b"first")
    run = shmlog.init("digits", root=root, resume=twice.run_id)
    try:
        result = shmlog.Store(root).prune(keep=0, dry_run=False)
        assert ([pruned.run_id for pruned in result.runs], result.kept) == ([other.run_id], {"running": 1})
        assert stored(root) == {digits(b"first"): 2, digits(b"second"): 2}
        shmlog.load(twice.dir).artifact("model").verify()
    finally:
        run.finish()
    wait_for_end(twice.dir)
    assert problems(twice) == []


def test_an_imported_run_with_artifacts_goes_on(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "c0ffee"
    (source / "files").mkdir(parents=True)
    (source / "files" / "train.py").write_text("print()")
    (source / "meta.bin").write_bytes(b"\x01" + bytes(8) + b"\x06c0ffee")
    report = shmlog.import_run(source, root, experiment="digits")
    layout = attempt(root, report.run_id, second=b"second")
    assert {"artifacts/files/train.py", "artifacts/second"} <= listed(layout)
    assert problems(layout) == []


def test_a_manifest_of_a_run_that_is_over_is_not_touched_by_recovery(twice: RunLayout) -> None:
    before = (twice.manifest.read_bytes(), os.stat(twice.manifest).st_mtime_ns)
    assert main(["recover", str(twice.dir)]) == 0
    assert (twice.manifest.read_bytes(), os.stat(twice.manifest).st_mtime_ns) == before
    assert runfile.read(twice.run_yaml)["complete"] is True
