"""Retention: which runs go, and that each is whole or gone whenever it is killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.errors import QueryError, StorageError
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.reader.model import RunRecord
from shmlog.reader.verify.verify import verify
from shmlog.records.late import LateDrops
from shmlog.store import archive
from shmlog.store.prune import PruneResult
from tests.support.stores import add_metrics, add_run, tree

DEAD = {"segment": {"name": "/x", "path": "/dev/shm/x", "device": 1, "inode": 1}, "complete": False}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def pruned(result: PruneResult) -> list[str]:
    return [run.run_id for run in result.runs]


def left(root: Path) -> set[str]:
    return {path.name for path in root.glob("*/*") if not path.parent.name.startswith(".")}


def ten_runs(root: Path) -> None:
    """Make r0 … r9, of which rN began N days ago."""
    for days in range(10):
        add_run(root, f"r{days}", days=days)


# ---- which ----


def test_nothing_is_changed_by_default(root: Path) -> None:
    ten_runs(root)
    before = tree(root)
    result = shmlog.Store(root).prune(keep=3, older_than="2d")
    assert result.dry_run is True
    assert pruned(result) == [f"r{days}" for days in range(3, 10)]
    assert result.freed_bytes == sum(run.size_bytes for run in result.runs) > 0
    assert tree(root) == before


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        ({"keep": 4}, range(4, 10)),
        ({"keep": 0}, range(10)),
        ({"keep": 99}, []),
        ({"older_than": "6d"}, range(7, 10)),  # r6 ended an hour after it began
        ({"older_than": timedelta(days=6)}, range(7, 10)),
        ({"older_than": "0d"}, range(1, 10)),  # r0 ends in an hour
        ({"keep": 4, "older_than": "6d"}, range(7, 10)),
        ({"keep": 8, "older_than": "6d"}, range(8, 10)),
        ({"keep": 4, "older_than": "6d", "mode": "any"}, range(4, 10)),
        ({"keep": 8, "older_than": "6d", "mode": "any"}, range(7, 10)),
        ({"keep": 4, "mode": "any"}, range(4, 10)),
    ],
)
def test_rules(root: Path, rules: dict[str, Any], gone: Any) -> None:
    ten_runs(root)
    result = shmlog.Store(root).prune(**rules, dry_run=False)
    assert pruned(result) == [f"r{days}" for days in gone]
    assert left(root) == {f"r{days}" for days in range(10)} - set(pruned(result))
    assert result.failed == ()


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ({}, ValueError), ({"keep": -1}, ValueError), ({"keep": 1.5}, ValueError), ({"keep": True}, ValueError),
        ({"keep": 1, "mode": "some"}, ValueError), ({"older_than": "soon"}, QueryError),
        ({"keep": 0, "status": "splendid"}, QueryError), ({"keep": 0, "experiment": "absent"}, LookupError),
        ({"keep": 0, "experiment": "../x"}, ValueError),
    ],
)  # fmt: skip
def test_a_rule_that_is_none_deletes_nothing(root: Path, rules: dict[str, Any], error: type[Exception]) -> None:
    ten_runs(root)
    before = tree(root)
    with pytest.raises(error):
        shmlog.Store(root).prune(**rules, dry_run=False)
    assert tree(root) == before


def test_filters_choose_what_the_rules_are_for(root: Path) -> None:
    for days in range(6):
        status = ("success", "failed")[days % 2]
        add_run(root, f"a{days}", "a", days=days, status=status, tags=["old"] if days > 3 else [])
        add_run(root, f"b{days}", "b", days=days, status=status)
    store = shmlog.Store(root)
    assert pruned(store.prune(keep=1, status="failed", experiment="a")) == ["a3", "a5"]
    assert pruned(store.prune(keep=0, tags="old")) == ["a4", "a5"]
    assert sorted(pruned(store.prune(keep=5))) == ["a5", "b5"], "the newest of each experiment are kept"


def test_running_pinned_pending_and_damaged_runs_are_kept(root: Path) -> None:
    add_run(root, "elsewhere", status="running", **DEAD)
    add_run(root, "finishing", status="success", **DEAD)
    add_run(root, "pinned", pinned=True)
    add_run(root, "annotated")
    add_run(root, "pending", status="pending", complete=False)
    add_run(root, "damaged").run_yaml.write_bytes(b"{")
    add_run(root, "half").config_yaml.write_bytes(b"{")
    add_run(root, "timeless", created_at=None, started_at=None, ended_at=None)
    add_run(root, "free")
    store = shmlog.Store(root)
    store.pin("annotated")
    before = tree(root)
    result = store.prune(keep=0, older_than="1s", mode="any", dry_run=False)
    assert pruned(result) == ["free"]
    assert result.kept == {"running": 2, "pinned": 2, "pending": 1}
    assert [name.split(":")[0] for name in sorted(result.unreadable)] == [
        "digits/damaged", "digits/half", "digits/timeless",
    ]  # fmt: skip
    assert tree(root) == {name: content for name, content in before.items() if not name.startswith("digits/free")}


RUNS = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 50),
        st.sampled_from(["success", "failed", "crashed", "running", "pending"]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    RUNS, st.none() | st.integers(0, 5), st.none() | st.integers(1, 40), st.sampled_from(["all", "any"]), st.booleans()
)
def test_what_goes_is_what_the_definition_says(
    tmp_path: Path, runs: list[Any], keep: int | None, older: int | None, mode: str, dry_run: bool
) -> None:
    root = tmp_path / "runs"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for number, (experiment, hours, status, pinned) in enumerate(runs):
        add_run(
            root, f"r{number}", experiment, days=hours + 0.5, status=status, pinned=pinned,
            complete=status in ("success", "failed", "crashed"),
        )  # fmt: skip
    if keep is None and older is None:
        return
    result = shmlog.Store(root).prune(
        keep=keep, older_than=None if older is None else f"{older}d", mode=mode, dry_run=dry_run
    )
    gone = set(pruned(result))
    by_id = {f"r{number}": run for number, run in enumerate(runs)}
    free = {i for i, run in by_id.items() if run[2] not in ("running", "pending") and not run[3]}
    assert gone <= free
    for run_id in free:
        experiment, days, *_ = by_id[run_id]
        newer = {i for i in free if by_id[i][0] == experiment and by_id[i][1] < days}
        as_new = {i for i in free if by_id[i][0] == experiment and by_id[i][1] == days}
        reasons = []
        if keep is not None:
            # Of runs that began at the same time any may be kept, but not more of them than there is room for.
            reasons.append(len(newer) >= keep if len(as_new) == 1 or len(newer) >= keep else None)
        if older is not None:
            reasons.append(days + 0.5 - 1 / 24 > older)
        if None not in reasons:
            assert (run_id in gone) == (all(reasons) if mode == "all" else any(reasons)), run_id
    assert left(root) == set(by_id) - (set() if dry_run else gone)


# ---- archives ----


def test_an_archive_holds_the_whole_run(root: Path, tmp_path: Path) -> None:
    layout = add_metrics(root, "one")
    before = tree(layout.dir)
    result = shmlog.Store(root).prune(keep=0, archive=True, dry_run=False)
    (run,) = result.runs
    assert run.archive == root / ".archive" / "digits" / "one.tar.zst"
    assert result.freed_bytes == run.size_bytes - run.archive.stat().st_size
    assert not layout.dir.exists()
    with (
        pa.CompressedInputStream(pa.OSFile(str(run.archive)), "zstd") as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        archive.extractall(tmp_path / "back", filter="tar")
    assert tree(tmp_path / "back" / "one") == before
    shutil.move(tmp_path / "back" / "one", layout.dir)
    assert verify(layout.dir).ok


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd here")
def test_an_archive_is_what_tar_and_zstd_read(root: Path) -> None:
    add_run(root, "one")
    (run,) = shmlog.Store(root).prune(keep=0, archive=True, dry_run=False).runs
    done = subprocess.run(["tar", "--zstd", "-tf", str(run.archive)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["one/", "one/run.yaml", "one/config.yaml"]


def test_an_archive_is_not_replaced_by_one_that_holds_less(root: Path) -> None:
    layout = add_metrics(root, "one")
    store = shmlog.Store(root)
    for _ in range(2):
        store.prune(keep=0, archive=True, dry_run=False)
        assert [path.name for path in (root / ".archive" / "digits").iterdir()] == ["one.tar.zst"]
        store.restore("one")
    first = (root / ".archive" / "digits" / "one.tar.zst").read_bytes()
    layout.events.unlink()
    (run,) = store.prune(keep=0, archive=True, dry_run=False).runs
    assert run.archive is not None
    assert run.archive.with_name("one.1.tar.zst").read_bytes() == first != run.archive.read_bytes()
    store.restore("one.1")
    assert layout.events.exists()


def test_two_that_archive_a_run_at_a_time_do_not_write_into_one_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where folders can't be locked."""
    layout = add_metrics(root, "one")
    read = archive._read

    def archive_beside(fd: int) -> Any:
        monkeypatch.setattr(archive, "_read", read)
        archive.write_archive(Root(root), layout)
        return read(fd)

    monkeypatch.setattr(archive, "_read", archive_beside)
    try:
        path = archive.write_archive(Root(root), layout)
    except StorageError as error:
        pytest.fail(f"its file was taken: {error}")
    assert list(path.parent.iterdir()) == [path]
    shutil.rmtree(layout.dir)
    shmlog.Store(root).restore("one")
    assert verify(layout.dir).ok


def test_a_run_that_cannot_be_archived_is_kept(root: Path) -> None:
    add_run(root, "one")
    add_run(root, "two", "other")
    (root / ".archive").mkdir()
    (root / ".archive" / "digits").touch()
    before = tree(root / "digits")
    result = shmlog.Store(root).prune(keep=0, archive=True, dry_run=False)
    assert pruned(result) == ["two"]
    assert len(result.failed) == 1
    assert "digits/one" in result.failed[0]
    assert tree(root / "digits") == before


@pytest.mark.parametrize(
    "put",
    [
        lambda place: place.symlink_to("/etc/passwd"),
        lambda place: place.symlink_to("run.yaml"),
        os.mkfifo,
    ],
    ids=["link", "link within", "pipe"],
)
def test_a_run_whose_archive_could_not_be_restored_is_kept(root: Path, put: Callable[[Path], None]) -> None:
    layout = add_run(root, "one")
    add_run(root, "two")
    (layout.dir / "artifacts").mkdir(exist_ok=True)
    put(layout.dir / "artifacts" / "odd")
    result = shmlog.Store(root).prune(keep=0, archive=True, dry_run=False)
    assert pruned(result) == ["two"]
    (failure,) = result.failed
    assert f"digits/one: {layout.dir}: 'one/artifacts/odd' is neither a file nor a folder" in failure
    assert os.path.lexists(layout.dir / "artifacts" / "odd")
    assert os.listdir(root / ".archive" / "digits") == ["two.tar.zst"]


# ---- killed midway ----


def steps_until(limit: int, act: Callable[[], object]) -> bool:
    """Do something in a forked child that is gone before step ``limit``; return whether it got to its end."""
    pid = os.fork()
    if pid == 0:
        taken = 0
        for name in ("rename", "replace", "unlink", "rmdir", "fsync", "mkdir"):
            step = getattr(os, name)

            def stepping(*args: Any, step: Callable[..., Any] = step, **options: Any) -> Any:
                nonlocal taken
                if taken == limit:
                    os._exit(9)
                taken += 1
                return step(*args, **options)

            setattr(os, name, stepping)
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 0


@pytest.mark.parametrize("archive", [False, True])
def test_killed_at_any_step_each_run_is_whole_or_gone(tmp_path: Path, archive: bool) -> None:
    for limit in range(200):
        root = tmp_path / str(limit) / "runs"
        for name in ("one", "two"):
            (add_run(root, name).dir / "artifacts").mkdir()
            (root / "digits" / name / "artifacts" / "file").write_bytes(b"x" * 100)
        whole = tree(root / "digits" / "one")
        store = shmlog.Store(root)
        done = steps_until(limit, lambda store=store: store.prune(keep=0, archive=archive, dry_run=False))
        for name in left(root):
            found = tree(root / "digits" / name)
            assert found.keys() == whole.keys(), f"step {limit}: {name} is neither whole nor gone"
        if archive:
            kept = {path.name for path in (root / ".archive").rglob("*.tar.zst")}
            assert {f"{name}.tar.zst" for name in {"one", "two"} - left(root)} <= kept
        again = store.prune(keep=0, archive=archive, dry_run=False)
        assert again.failed == ()
        assert left(root) == set()
        assert list((root / ".shmlog" / "trash").iterdir()) == []
        if done:
            return
    raise AssertionError("there is no end of steps")


def test_what_a_kill_has_left_is_told_and_finished(root: Path) -> None:
    add_run(root, "one")
    store = shmlog.Store(root)
    assert not steps_until(5, lambda: store.delete("one"))
    assert left(root) == set()
    assert store.runs() == []
    told = store.prune(keep=0)
    assert (told.leftovers, told.freed_bytes > 0) == (1, True)
    assert store.prune(keep=0, dry_run=False).leftovers == 1
    assert store.prune(keep=0).leftovers == 0


def test_a_run_that_is_pinned_meanwhile_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(root, "one")
    store = shmlog.Store(root)
    runs = store.runs

    def pin_behind(*args: Any, **options: Any) -> list[RunRecord]:
        found = runs(*args, **options)
        shmlog.Store(root).pin("one")
        return found

    monkeypatch.setattr(store, "runs", pin_behind)
    result = store.prune(keep=0, dry_run=False)
    assert (pruned(result), result.failed) == ([], ("digits/one: kept, since it is pinned by now",))
    assert left(root) == {"one"}


def annotate(layout: RunLayout) -> None:
    shmlog.Store(layout.root).annotate(layout.run_id, notes="the archive does not have this")


def count_a_drop(layout: RunLayout) -> None:
    LateDrops(layout).add("closed", 1)


def add_to_a_file(layout: RunLayout) -> None:
    with open(layout.events, "ab") as file:
        file.write(b"\n")


@pytest.mark.parametrize("change", [annotate, count_a_drop, add_to_a_file])
def test_a_run_that_changes_while_it_is_archived_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[RunLayout], None]
) -> None:
    layout = add_metrics(root, "one")
    write = archive.write_archive

    def change_behind(*args: Any) -> Path:
        path = write(*args)
        change(layout)
        return path

    monkeypatch.setattr(archive, "write_archive", change_behind)
    result = shmlog.Store(root).prune(keep=0, archive=True, dry_run=False)
    assert (pruned(result), result.failed) == ([], ("digits/one: kept, since it has changed while it was archived",))
    assert left(root) == {"one"}


def test_a_run_that_somebody_else_deletes_meanwhile_does_not_stop_the_others(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(root, "one")
    add_run(root, "two")
    store = shmlog.Store(root)
    found = store.runs()
    shmlog.Store(root).delete("one")
    monkeypatch.setattr(store, "runs", lambda *args, **options: found)
    result = store.prune(keep=0, dry_run=False)
    assert pruned(result) == ["two"]
    assert "digits/one" in result.failed[0]


# ---- the command ----


def test_the_command_tells_then_acts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ten_runs(root)
    add_run(root, "damaged").run_yaml.write_bytes(b"{")
    argv = ["prune", "--keep", "8", "--root", str(root)]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["run", "r8", "r9"]
    assert "would delete 2 runs" in err
    assert "nothing is changed without --force" in err
    assert "damaged" in err
    assert "kept: 8 newest" in err
    assert len(left(root)) == 11
    assert main([*argv, "--force"]) == 0
    assert "deleted 2 runs" in capsys.readouterr().err
    assert left(root) == {"damaged", *(f"r{days}" for days in range(8))}
    assert main([*argv, "--force", "--archive", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["freed_bytes"], told["dry_run"]) == ([], 0, False)


def test_the_command_needs_a_rule(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ten_runs(root)
    assert main(["prune", "--force", "--root", str(root)]) == 2
    assert "needs a rule" in capsys.readouterr().err
    assert len(left(root)) == 10
