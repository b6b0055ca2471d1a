"""Runs that tell what they were made from: at once, in each attempt, in copies, whatever git does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.reader.verify.verify import verify
from tests.support.processes import wait_for_end
from tests.support.repository import Repository


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return a repository that the process works in."""
    made = Repository(tmp_path / "repository")
    monkeypatch.chdir(made.code)
    return made


def test_a_run_that_ends_at_once_has_its_diff(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.change()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("WANDB_API_KEY", "a password")
    with shmlog.init("digits", root=tmp_path / "runs", git_diff=True) as run:
        run.log("loss", 1.0)
    stored = shmlog.load(run.dir)
    commit = repository.git("rev-parse", "HEAD")
    assert stored.metadata["git"] == {"commit": commit, "branch": "trunk", "dirty": True, "diff": "git.diff"}
    assert b"GIT binary patch" in (stored.git_diff() or b"")
    assert stored.metadata["environment"]["variables"]["OMP_NUM_THREADS"] == "7", "not that of the flusher"
    assert stored.metadata["environment"]["cwd"] == str(repository.code)
    assert stored.packages()["numpy"]
    wait_for_end(run.dir)
    assert not any(b"a password" in path.read_bytes() for path in run.dir.rglob("*") if path.is_file())
    listed = json.loads((run.dir / "manifest.json").read_text())["files"]
    assert {"git.diff", "provenance.yaml"} <= set(listed)
    assert verify(run.dir).findings == []
    assert main(["show", str(run.dir)]) == 0
    assert f"git      {commit[:12]} on trunk, changed since: git.diff" in capsys.readouterr().out
    (run.dir / "git.diff").write_bytes(b"forged")
    assert [finding.file.name for finding in verify(run.dir).findings] == ["git.diff"]


def test_each_attempt_has_its_own_and_is_made_as_the_one_before(tmp_path: Path, repository: Repository) -> None:
    root = tmp_path / "runs"
    for options in ({"git_diff": True}, {}, {"git_diff": False}):
        (repository.code / "train.py").write_text(f"options = {options}\n")
        resume = next(root.glob("*/*/"), None) if root.exists() else None
        with shmlog.init("digits", root=root, resume=resume, **options) as run:
            run.log("loss", 1.0)
        wait_for_end(run.dir)
    stored = shmlog.load(run.dir)
    assert [attempt["git"]["diff"] for attempt in stored.attempts] == ["git.diff", "git.2.diff", None]
    assert b"+options = {'git_diff': True}" in (stored.git_diff(1) or b"")
    assert b"+options = {}" in (stored.git_diff(2) or b"")
    assert stored.git_diff() is None
    assert stored.packages(1) == stored.packages()
    assert [attempt["environment"]["platform"] for attempt in stored.attempts] == [
        stored.metadata["environment"]["platform"]
    ] * 3
    assert sorted(path.name for path in run.dir.glob("provenance*")) == [
        "provenance.2.yaml", "provenance.3.yaml", "provenance.yaml",
    ]  # fmt: skip
    assert verify(run.dir).findings == []


def test_copies_tell_it_too(tmp_path: Path, repository: Repository) -> None:
    repository.change()
    store = shmlog.Store(tmp_path / "runs")
    with shmlog.init("digits", root=store.root, git_diff=True) as run:
        run.log("loss", 1.0)
    wait_for_end(run.dir)
    record, diff = store.get(run.id), store.load(run.id).git_diff()
    assert [found.run_id for found in store.runs(where=f"run.environment.cwd = '{repository.code}'")] == [run.id]
    assert store.runs(where="run.environment.variables.SLURM_JOB_ID = '12'") == []
    report = shmlog.import_run(*shmlog.export_run(run.dir, tmp_path / "run.json"), root=tmp_path / "imported")
    imported = shmlog.Store(tmp_path / "imported").get(report.run_id)
    assert imported.environment == record.environment
    assert imported.git is not None
    assert record.git is not None
    assert (imported.git.commit, imported.git.diff) == (record.git.commit, None), "an export does not hold it"
    store.prune(keep=0, archive=True, dry_run=False)
    store.restore(run.id)
    assert store.get(run.id) == record
    assert store.load(run.id).git_diff() == diff
    assert verify(run.dir).findings == []


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 3", "yes", "echo; kill -9 $$"])
def test_whatever_git_does_the_run_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "git").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with shmlog.init("digits", root=tmp_path / "runs", git_diff=True) as run:
        run.log("loss", 1.0)
    wait_for_end(run.dir)
    assert shmlog.load(run.dir).status == "success"
    assert shmlog.load(run.dir).metadata["git"] is None
    assert shmlog.load(run.dir).packages()["numpy"]
    assert verify(run.dir).findings == []
