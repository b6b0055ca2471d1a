"""The manifest of a run, and artifacts held against what was logged: each file that differs is named, no other."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.errors import CorruptDataError, RefusedError
from shmlog.flusher import closing
from shmlog.folder import runfile
from shmlog.folder.content import content_of
from shmlog.folder.layout import RunLayout
from shmlog.folder.manifest import write_manifest
from shmlog.reader.artifacts import find_artifacts
from shmlog.reader.verify.verify import verify
from tests.support.artifacts import digits, finished_run
from tests.support.folders import Folder, fill, simple_log
from tests.support.stores import add_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """Return a run with artifacts, of which each test changes a copy."""
    return finished_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run_copy(finished: RunLayout, tmp_path: Path) -> RunLayout:
    """Return a copy, as on another disk: without the objects."""
    target = tmp_path / "copied" / "digits" / finished.run_id
    shutil.copytree(finished.dir, target)
    return RunLayout(target)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return add_run(tmp_path / "runs", "one")


def errors_of(layout: RunLayout) -> dict[str, str]:
    """Return what is wrong, by the file's path in the run."""
    findings = verify(layout.dir).findings
    return {f.file.relative_to(layout.dir).as_posix(): f.message for f in findings if f.severity == "error"}


def test_an_untouched_run_verifies(finished: RunLayout, run_copy: RunLayout) -> None:
    for layout in (finished, run_copy):
        report = verify(layout.dir)
        assert report.findings == []
        assert report.counts["artifacts"] == 3


def test_the_manifest_lists_every_file(finished: RunLayout) -> None:
    told = json.loads(finished.manifest.read_text())
    listed = {name: (one["size_bytes"], one["digest"]) for name, one in told["files"].items()}
    files = [path for path in finished.dir.rglob("*") if path.is_file()]
    expected = {path.relative_to(finished.dir).as_posix(): tuple(content_of(path)) for path in files}
    del expected["run.yaml"], expected["manifest.json"]
    assert listed == expected
    assert {"events.jsonl", "run.log", "config.yaml", "artifacts/model.bin"} < set(listed)
    assert any(name.startswith("large/") for name in listed)
    assert any(name.endswith(".parquet") for name in listed)


def test_the_manifest_is_about_the_merged_parts(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runs" / "one")
    log = simple_log()
    for _ in range(3):
        folder.add(log)
        log = log.next()
        fill(log)
    folder.complete()
    assert len(folder.layout.parts()) == 3
    closing.clean_up(folder.layout, None, lambda message: pytest.fail(message))
    (part,) = folder.layout.parts()
    assert part.path.relative_to(folder.dir).as_posix() in json.loads(folder.layout.manifest.read_text())["files"]
    assert errors_of(folder.layout) == {}


def test_every_file_that_differs_or_is_missing_is_named(finished: RunLayout, tmp_path: Path) -> None:
    names = json.loads(finished.manifest.read_text())["files"]
    for number, name in enumerate(names):
        for harm in ("flip", "cut", "remove"):
            copy = RunLayout(tmp_path / f"{number}{harm}" / "digits" / finished.run_id)
            shutil.copytree(finished.dir, copy.dir)
            path = copy.dir / name
            data = bytearray(path.read_bytes())
            path.unlink()
            if harm != "remove":
                data[len(data) // 2] ^= 1
                path.write_bytes(data if harm == "flip" else data[:-1])
            assert name in errors_of(copy), (name, harm)
            shutil.rmtree(copy.dir)


def test_what_is_said_of_a_run_later_is_no_damage(run_copy: RunLayout) -> None:
    store = shmlog.Store(run_copy.root)
    store.annotate(run_copy.run_id, notes="later", tags=["t"])
    run_copy.checkpoints.mkdir()
    (run_copy.checkpoints / "checkpoint-00000001.safetensors").write_bytes(b"x")
    (run_copy.dir / "notes.txt").write_text("mine")
    assert verify(run_copy.dir).findings == []


def test_a_file_that_was_put_there_is_told_and_no_damage(run_copy: RunLayout) -> None:
    (run_copy.artifacts / "later.txt").write_text("x")
    (run_copy.large / "extra").write_text("x")
    report = verify(run_copy.dir)
    assert report.ok
    assert {f.file.name for f in report.findings} == {"later.txt", "extra"}
    assert all("after the run" in f.message for f in report.findings)


def test_artifacts_are_held_against_what_was_logged_without_a_manifest_too(run_copy: RunLayout) -> None:
    run_copy.manifest.unlink()
    (run_copy.artifacts / "unknown").write_text("x")
    shutil.rmtree(run_copy.artifacts / "eval")
    model = run_copy.artifacts / "model.bin"
    model.unlink()
    model.write_bytes(b"MODEL")
    report = verify(run_copy.dir)
    told = {f.file.relative_to(run_copy.artifacts).as_posix(): f.message for f in report.findings}
    assert set(told) == {"unknown", "eval/plots/a.png", "eval/plots/b.csv", "model.bin"}
    assert "was not logged" in told["unknown"]
    assert "is missing" in told["eval/plots/a.png"]
    assert "has changed" in told["model.bin"]
    run = shmlog.load(run_copy.dir)
    for name in ("model.bin", "eval"):
        with pytest.raises(CorruptDataError, match="artifacts"):
            run.artifact(name).verify()
    with pytest.raises(CorruptDataError, match="is missing"):
        run.artifact("eval/plots/a.png").open()


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"{}", b"\0" * 100, b'{"schema": 1, "files": {"a": 3}}', b'{"schema": 9, "files": {}}',
        b'{"schema": 1, "files": {"../../x": {"size_bytes": -1, "digest": "sha256:00"}}}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named_and_hides_nothing(run_copy: RunLayout, damage: bytes) -> None:
    run_copy.manifest.write_bytes(damage)
    (run_copy.artifacts / "model.bin").chmod(0o600)
    (run_copy.artifacts / "model.bin").write_bytes(b"MODEL")
    assert set(errors_of(run_copy)) == {"manifest.json", "artifacts/model.bin"}


def test_a_manifest_that_names_files_elsewhere_reads_none_of_them(run_copy: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    told = runfile.read(run_copy.manifest)
    listed = {**told["files"], "../../../secret": content_of(tmp_path / "secret")._asdict()}
    runfile.write_sealed(run_copy.manifest, {**told, "files": listed})
    (error,) = [f for f in verify(run_copy.dir).findings if f.severity == "error"]
    assert "is missing" in error.message


def test_a_link_in_the_place_of_an_artifact_is_not_followed(run_copy: RunLayout, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"model")
    model = run_copy.artifacts / "model.bin"
    model.unlink()
    model.symlink_to(tmp_path / "model")
    assert set(errors_of(run_copy)) == {"artifacts/model.bin"}
    with pytest.raises(RefusedError, match="link"):
        shmlog.load(run_copy.dir).artifact("model.bin").open()
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(CorruptDataError, match="not a regular file"):
        shmlog.load(run_copy.dir).artifact("model.bin").verify()


EVENT = {
    "event_type": "artifact", "timestamp": "2026-11-21T00:00:00Z",
    "data": {"name": "x", "size_bytes": 1, "digest": f"sha256:{digits(b'x')}"},
}  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        {"name": "../x"}, {"name": 3}, {"name": None}, {"size_bytes": "1"}, {"size_bytes": -1}, {"size_bytes": True},
        {"digest": "md5:00"}, {"digest": "sha256:"}, {"digest": "sha256:" + "g" * 64}, {"digest": None},
        {"digest": ["x"]},
    ],
)  # fmt: skip
def test_an_event_that_is_none_of_ours_is_passed_over(layout: RunLayout, data: dict[str, Any]) -> None:
    assert len(find_artifacts(layout, [EVENT])) == 1
    assert find_artifacts(layout, [{**EVENT, "data": {**EVENT["data"], **data}}, {**EVENT, "data": []}]) == []  # type: ignore[dict-item]
    (odd,) = find_artifacts(layout, [{**EVENT, "timestamp": 3}])
    assert odd.created_at.tzinfo is not None


def test_a_manifest_is_written_anew_of_a_run_that_is_as_it_should_be(
    run_copy: RunLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_copy.manifest.read_bytes()
    run_copy.manifest.unlink()
    assert main(["verify", str(run_copy.dir), "--write-manifest"]) == 0
    assert run_copy.manifest.read_bytes() == before
    (run_copy.dir / "run.log").write_bytes(b"")
    assert main(["verify", str(run_copy.dir), "--write-manifest"]) == 1
    assert run_copy.manifest.read_bytes() == before
    capsys.readouterr()


def test_a_run_that_is_not_over_gets_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shmlog.init("digits", root=tmp_path / "runs") as run:
        assert run.flush()
        assert main(["verify", str(run.dir), "--write-manifest"]) == 3
        assert "is not over" in capsys.readouterr().err
        assert not (run.dir / "manifest.json").exists()


def test_a_manifest_that_fails_keeps_the_one_before(run_copy: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_copy.manifest.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_manifest(run_copy)
    assert run_copy.manifest.read_bytes() == before
