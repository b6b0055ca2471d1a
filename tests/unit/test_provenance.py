"""What a run was made from: git answers, or does not; what is found is written once, and is no reason to stop."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.cli import details
from shmlog.flusher import closing, git, machine
from shmlog.flusher.git import Git, git_state
from shmlog.flusher.provenance import Provenance
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.reader.model import RunRecord
from shmlog.run.environment import VARIABLES, environment_of_process
from tests.support.processes import wait_until
from tests.support.repository import TRACKED, Repository
from tests.support.stores import add_run

SETTINGS = {
    "diff.noprefix": "true", "diff.mnemonicPrefix": "true", "diff.relative": "true", "diff.external": "false",
    "color.ui": "always", "core.pager": "false", "diff.wordRegex": ".", "diff.submodule": "log", "diff.context": "0",
}  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def fake_git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a shell script be what is called git."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# ---- git ----


def test_the_diff_makes_the_changes_again_whatever_the_settings_are(repository: Repository) -> None:
    changed = repository.change()
    for name, value in SETTINGS.items():
        repository.git("config", name, value)
    state, diff = git_state(str(repository.code), with_diff=True)
    assert state == {"commit": repository.git("rev-parse", "HEAD"), "branch": "trunk", "dirty": True, "diff": None}
    assert b"secret" not in diff, "an untracked file"
    repository.git("-c", "core.autocrlf=false", "stash", "-q")
    assert (repository.code / "train.py").read_bytes() == TRACKED
    repository.git("apply", "--binary", data=diff)
    assert {name: (repository.folder / name).read_bytes() for name in changed} == changed


def test_without_changes_or_a_wish_there_is_no_diff(repository: Repository) -> None:
    (repository.folder / "untracked.txt").write_text("a secret")
    state, diff = git_state(str(repository.folder), with_diff=True)
    assert (state or {})["dirty"] is False
    assert diff == b""
    repository.change()
    state, diff = git_state(str(repository.folder), with_diff=False)
    assert (state or {})["dirty"] is True
    assert diff == b""


FILTERS = ("filter.{0}.clean", "filter.{0}.process", "filter.{0}.smudge", "core.fsmonitor")


@pytest.mark.parametrize("with_diff", [False, True])
@pytest.mark.parametrize("name", ["evil", "a.b"])
def test_no_program_of_the_repository_is_run(
    repository: Repository, name: str, with_diff: bool, tmp_path: Path
) -> None:
    repository.change()
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(stat.S_IRWXU)
    (repository.folder / ".git" / "info" / "attributes").write_text(f"* filter={name}\n")
    for setting in FILTERS:
        repository.git("config", setting.format(name), str(program))
    repository.git("config", f"filter.{name}.required", "true")
    state, diff = git_state(str(repository.code), with_diff=with_diff)
    assert (state or {})["dirty"] is True
    assert bool(diff) == with_diff
    assert not ran.exists()


def test_a_filter_that_cannot_be_left_out_leaves_the_changes_unknown(repository: Repository) -> None:
    with open(repository.folder / ".git" / "config", "a") as config:
        config.write('[filter "a=b"]\n\tclean = touch ran\n')
    repository.change()
    state, diff = git_state(str(repository.code), with_diff=True)
    assert (state or {})["dirty"] is None
    assert "a filter with the name 'a=b'" in (state or {})["diff_problem"]
    assert diff == b""


def test_a_filter_of_the_user_is_used(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings").write_text('[filter "upper"]\n\tclean = tr a-z A-Z\n')
    (repository.folder / ".git" / "info" / "attributes").write_text("*.py filter=upper\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    (repository.code / "train.py").write_bytes(b"lr = 0.2\n")
    assert b"+LR = 0.2" in git_state(str(repository.code), with_diff=True)[1]


def test_a_detached_head_is_on_no_branch(repository: Repository) -> None:
    repository.git("checkout", "-q", "--detach")
    state, _ = git_state(str(repository.code), with_diff=False)
    commit = repository.git("rev-parse", "HEAD")
    assert state == {"commit": commit, "branch": None, "dirty": False, "diff": None}
    assert details._git(state) == f"{commit[:12]}, detached"
    assert details._git({"commit": commit}) == commit[:12], "of another system, which tells no branch"


def test_where_there_is_no_commit_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").mkdir()
    Repository(tmp_path / "new", commit=False)
    for name in ("plain", "new", "missing"):
        assert git_state(str(tmp_path / name), with_diff=True) == (None, b"")
    monkeypatch.setenv("PATH", str(tmp_path / "plain"))
    assert git_state(str(tmp_path), with_diff=True) == (None, b""), "no git"


@pytest.mark.parametrize(("more", "kept"), [(0, True), (1, False)])
def test_a_diff_that_is_too_large_is_told_not_cut(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, more: int, kept: bool
) -> None:
    repository.change()
    whole = git_state(str(repository.folder), with_diff=True)[1]
    monkeypatch.setattr(git, "DIFF_BYTES_MAX", len(whole) - more)
    state, diff = git_state(str(repository.folder), with_diff=True)
    assert diff == (whole if kept else b"")
    assert (state or {}).get("diff_problem") == (None if kept else f"larger than {len(whole) - 1:,} bytes")


def test_a_git_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "pid"
    fake_git(tmp_path / "bin", f"sleep 1000 & echo $! > {told}; wait", monkeypatch)
    with pytest.raises(TimeoutError, match=r"git took more than 0\.5 s"):
        Git(str(tmp_path), timeout=0.5).output("status")
    wait_until(lambda: not Path(f"/proc/{told.read_text().strip()}").exists(), "the end of what it has started")


def test_a_diff_that_takes_too_long_is_told(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.change()
    real = shutil.which("git")
    fake_git(tmp_path / "bin", f'case "$*" in *"diff HEAD"*) sleep 1000;; *) exec {real} "$@";; esac', monkeypatch)
    ask = Git.output

    def output(self: Git, *arguments: str, bytes_max: int = 1 << 20) -> bytes:
        monkeypatch.setattr(self, "_deadline_s", time.monotonic() + (0 if arguments[0] == "diff" else 600))
        return ask(self, *arguments, bytes_max=bytes_max)

    monkeypatch.setattr(Git, "output", output)
    state, diff = git_state(str(repository.folder), with_diff=True)
    assert diff == b""
    assert (state or {})["dirty"] is True
    assert (state or {})["diff_problem"] == "git took more than 30 s"


def test_git_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_git(tmp_path / "bin", 'echo "$GIT_TERMINAL_PROMPT $GIT_ASKPASS $GIT_ALLOW_PROTOCOL"; cat', monkeypatch)
    assert Git(str(tmp_path)).text("status") == "0 true none"


# ---- the machine ----


def test_only_known_variables_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SLURM_JOB_NAME", "x" * 1001)
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    found = environment_of_process()
    assert found["variables"] == {"SLURM_JOB_ID": "12"}
    assert "secret" not in repr(found)


def test_a_removed_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert environment_of_process()["cwd"] is None


OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\nGCC version:  gcc 12.3.0\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2026\n"


@pytest.mark.parametrize(("version", "driver"), [(OPEN, "570.86.15"), (CLOSED, "535.129.03"), ("nonsense", None)])
def test_the_driver_and_its_gpus_are_told(tmp_path: Path, version: str, driver: str | None) -> None:
    (tmp_path / "version").write_text(version)
    for number, text in enumerate(("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 12\n", "IRQ: 13\n")):
        folder = tmp_path / "gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text(text)
    found = machine.machine(tmp_path)
    assert (found["gpus"], found["gpu_driver"]) == (["NVIDIA H100 80GB HBM3"], driver)


def test_packages_have_versions_and_damaged_ones_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("good-1.0", "Name: good\nVersion: 1.0\n"), ("good-2.0", "Name: good\nVersion: 2.0\n")):
        (tmp_path / name / f"{name}.dist-info").mkdir(parents=True)
        (tmp_path / name / f"{name}.dist-info" / "METADATA").write_text(text)
    (tmp_path / "good-1.0" / "bad-1.0.dist-info").mkdir()
    monkeypatch.setattr("sys.path", [str(tmp_path / "good-1.0"), str(tmp_path / "good-2.0")])
    assert machine.packages() == {"good": "1.0"}, "the one that is imported"


# ---- the files ----


def described(layout: RunLayout) -> dict[str, Any]:
    return runfile.read(layout.run_yaml)


@pytest.fixture
def layout(tmp_path: Path, repository: Repository) -> RunLayout:
    """Return a run of changed code, of which nothing is known yet."""
    repository.change()
    environment = {"cwd": str(repository.folder), "variables": {"SLURM_JOB_ID": "12"}}
    return add_run(tmp_path / "runs", "one", git_diff=True, environment=environment, attempt=1)


def found_and_kept(layout: RunLayout, reports: list[str]) -> None:
    provenance = Provenance(layout, reports.append)
    provenance.start()
    provenance.finish()


def test_what_is_found_is_written(layout: RunLayout, repository: Repository) -> None:
    reports: list[str] = []
    found_and_kept(layout, reports)
    assert reports == []
    record = shmlog.Store(layout.root).get("one")
    assert record.git is not None
    assert (record.git.commit, record.git.diff) == (repository.git("rev-parse", "HEAD"), "git.diff")
    assert record.environment["variables"] == {"SLURM_JOB_ID": "12"}
    assert record.environment["implementation"] == "cpython"
    assert "packages" not in record.environment, "run.yaml is read when a store is listed"
    assert RunRecord.from_json(record.to_json()) == record
    stored = shmlog.load(layout.dir)
    assert "numpy" in stored.packages()
    assert (stored.git_diff() or b"").startswith(b"diff --git a/code/")
    with pytest.raises(ValueError, match="no attempt 2; they are numbered from 1 to 1"):
        stored.git_diff(2)


def test_a_later_flusher_does_not_look_again(layout: RunLayout, repository: Repository) -> None:
    found_and_kept(layout, [])
    before = described(layout)
    runfile.write_sealed(layout.run_yaml, {**before, "git": None, "environment": {}})  # killed before it was written
    repository.git("checkout", "-q", "-f", "-b", "other")
    found_and_kept(layout, [])
    assert described(layout) == before
    runfile.write_sealed(layout.run_yaml, {**before, "git": None, "environment": {}})
    Provenance(layout, pytest.fail).finish()  # a recovery
    assert described(layout) == before


def test_a_recovery_does_not_take_what_it_finds_for_what_was(layout: RunLayout) -> None:
    before = described(layout)
    Provenance(layout, pytest.fail).finish()
    assert described(layout) == before
    assert layout.provenance_files() == []


@pytest.mark.parametrize("name", ["git.diff", "provenance.yaml"])
def test_what_cannot_be_written_is_told_once_and_given_up(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(closing, "RETRY_S", 0.001)
    (layout.dir / name).mkdir()
    reports: list[str] = []
    found_and_kept(layout, reports)
    assert len(reports) == 1
    assert name in reports[0]
    assert described(layout).get("git") is None


def test_a_damaged_provenance_is_told(layout: RunLayout) -> None:
    found_and_kept(layout, [])
    path = layout.provenance(1)
    path.write_bytes(path.read_bytes().replace(b'"numpy"', b'"numpi"'))
    with pytest.warns(shmlog.ShmlogWarning, match="provenance.yaml: its checksum is wrong"):
        assert shmlog.load(layout.dir).packages() == {}


def test_a_damaged_description_is_made_from_it_again(layout: RunLayout) -> None:
    found_and_kept(layout, [])
    before = described(layout)
    layout.run_yaml.unlink()
    layout.wal.mkdir()  # a run is known by its logs, too
    layout.log(0).touch()
    record = shmlog.Store(layout.root).rebuild("one")
    assert record.git is not None
    assert record.git.to_dict() == {**before["git"], "diff_problem": None}
    assert record.environment == before["environment"]


def test_a_limit_of_threads_is_told(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reports: list[str] = []
    found_and_kept(layout, reports)
    assert len(reports) == 1
    assert "can't start new thread" in reports[0]
