"""The store: what it lists, what it makes of damage, and what it never does."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.errors import (
    CorruptDataError,
    ExperimentNotFoundError,
    QueryError,
    RunNotFoundError,
    RunStateError,
    ShmlogError,
    StorageError,
)
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import is_experiment
from shmlog.folder.root import Root
from shmlog.reader import facts
from shmlog.reader.model import MetricRecord, RunRecord
from shmlog.reader.verify.verify import verify
from shmlog.store import index
from tests.support.folders import Folder, fill
from tests.support.frames import Log
from tests.support.stores import add_metrics, add_run, ago, tree


@pytest.fixture(autouse=True)
def _no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the index take files that have just been written."""
    monkeypatch.setattr(index, "_TICK_NS", -(10**12))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def ids(records: list[RunRecord]) -> list[str]:
    return [record.run_id for record in records]


# ---- listing ----


def test_a_store_that_is_not_there_is_empty(root: Path) -> None:
    store = shmlog.Store(root)
    assert (store.experiments(), store.runs()) == ([], [])
    assert store.latest() is None
    with pytest.raises(ExperimentNotFoundError, match="it has none"):
        store.runs("digits")
    assert not root.exists()


def test_runs_are_listed_newest_first_and_filtered(root: Path) -> None:
    add_run(root, "old", days=9, tags=["a", "b"], params={"lr": 0.1, "model": {"name": "resnet50"}})
    add_run(root, "new", days=1, tags=["b"], status="failed", params={"lr": 0.01, "model": {"name": "vit"}})
    add_run(root, "mid", "letters", days=5, tags=["a"], params={"lr": 0.5})
    store = shmlog.Store(root)
    assert ids(store.runs()) == ["new", "mid", "old"]
    assert ids(store.runs("digits")) == ["new", "old"]
    assert ids(store.runs(status="finished")) == ["mid", "old"]
    assert ids(store.runs(status=["failed", "crashed"])) == ["new"]
    assert ids(store.runs(tags="a and not b")) == ["mid"]
    assert ids(store.runs(tags=["a", "b"])) == ["old"]
    assert ids(store.runs(where="lr >= 0.1")) == ["mid", "old"]
    assert ids(store.runs(where='model.name contains "resnet"')) == ["old"]
    assert ids(store.runs(since="6d")) == ["new", "mid"]
    assert ids(store.runs(until="6d")) == ["old"]
    assert ids(store.runs(since="6d", until="2d", status="success", tags="a", where="lr = 0.5")) == ["mid"]
    assert ids(store.runs(sort="lr")) == ["new", "old", "mid"]
    assert ids(store.runs(sort="-lr", limit=2)) == ["mid", "old"]
    assert ids(store.runs(sort="model.name")) == ["old", "new", "mid"], "who lacks it comes last"
    assert ids(store.runs(sort="-model.name")) == ["new", "old", "mid"]
    assert store.latest("digits", status="success").run_id == "old"
    assert [(e.name, e.runs) for e in store.experiments()] == [("digits", 2), ("letters", 1)]


def test_wrong_questions_are_refused(root: Path) -> None:
    add_run(root, "one")
    store = shmlog.Store(root)
    for wrong in ({"status": "splendid"}, {"where": "lr >"}, {"tags": "("}, {"since": "soon"}, {"sort": "run.x"}):
        with pytest.raises(QueryError):
            store.runs(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        store.runs(limit=-1)


def test_the_duration_of_a_resumed_run_is_what_its_attempts_ran(root: Path) -> None:
    times = [(ago(hours=10), ago(hours=9)), (ago(hours=5), ago(hours=3)), (ago(hours=2), None)]
    attempts = [
        {"attempt": i + 1, "first_lane": i, "started_at": start, "ended_at": end}
        for i, (start, end) in enumerate(times)
    ]
    layout = add_run(root, "three", attempt=3, attempts=attempts, started_at=times[0][0], ended_at=ago(hours=1))
    add_run(root, "once")
    store = shmlog.Store(root)
    record = store.get("three")
    assert (record.paused_s, record.duration_s) == (5 * 3600, 4 * 3600)
    assert shmlog.load(layout.dir).paused_s == 5 * 3600
    assert [one.duration_s for one in shmlog.Store(root).runs(sort="run.duration_s")] == [3600, 4 * 3600]
    assert [one.duration_s for one in shmlog.Store(root).runs(sort="run.duration_s")] == [3600, 4 * 3600], (
        "by the index"
    )
    assert store.sql("select duration_s from runs where run_id = 'three'").to_pylist() == [{"duration_s": 4 * 3600}]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"where": ["lr > 1"]}, "where must be a str that holds an expression, not list"),
        ({"sort": 3}, "sort must be a str, such as 'lr'"),
        ({"status": 3}, "status must be a str, or a list of them, not int"),
        ({"tags": 3}, "tags must be a list of str, not int"),
        ({"tags": [3]}, "a tag must be a str, not int"),
        ({"experiment": 3}, "experiment must be a str, not int"),
    ],
)
def test_a_question_of_another_type_is_refused_by_name(root: Path, wrong: dict[str, Any], says: str) -> None:
    add_run(root, "one", tags=["a"])
    with pytest.raises(TypeError, match=re.escape(says)):
        shmlog.Store(root).runs(**wrong)


def test_a_run_is_named_by_a_str_or_its_record(root: Path) -> None:
    add_run(root, "one")
    store = shmlog.Store(root)
    for ask in (store.get, store.load, store.summary, store.delete):
        with pytest.raises(TypeError, match="its id, 'experiment/id' or its RunRecord, not by int"):
            ask(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="names must be the name of a metric, or a list of them, not int"):
        store.load("one").metrics(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="or a list of them, not NoneType"):
        store.load("one").metrics(["loss", None])  # type: ignore[list-item]


def test_a_run_is_loaded_by_its_folder_or_what_has_it(root: Path) -> None:
    layout = add_run(root, "one")
    record = shmlog.Store(root).get("one")
    assert shmlog.load(record).dir == shmlog.load(layout.dir).dir == layout.dir
    with pytest.raises(TypeError, match=r"load takes the folder of a run, .*not int"):
        shmlog.load(3)  # type: ignore[arg-type]


def test_sorting_by_what_no_run_has_says_what_there_is(root: Path) -> None:
    add_metrics(root, "logged")
    add_run(root, "other", params={"lr": 0.1, "model": {"name": "x"}})
    store = shmlog.Store(root)
    with pytest.raises(QueryError, match=r"no run has 'nosuch'; there are lr, model\.name; beside them metrics\.NAME"):
        store.runs(sort="nosuch")
    with pytest.raises(QueryError, match=r"no run has 'metrics\.nosuch'; .*there are .*metrics\.loss"):
        store.runs(sort="-metrics.nosuch")
    assert ids(store.runs(sort="lr", where="lr = 7")) == [], "some other run has it"
    assert store.runs("digits", sort="run.group"), "a field that every run may have"
    assert shmlog.Store(root / "nowhere").runs(sort="lr") == []


def test_a_record_has_what_the_files_say(root: Path) -> None:
    add_run(
        root, "one", name="nice", group="g", notes="n", parent="p", user="ada", host="h", argv=["a", "b"],
        git={"commit": "abc", "branch": "main", "dirty": True, "diff": "git.diff"}, environment={"cpus": 2},
        job_name="j", description="d", trace_id="t", span_id="s", attempt=2, python="3.11.7",
        params={"a": {"b": [1, 2.5, None]}}, counts={"metrics": 5, "events": 2, "dropped": 0},
    )  # fmt: skip
    record = shmlog.Store(root).get("one")
    assert record.to_dict() == {
        "run_id": "one", "experiment": "digits", "dir": str(root / "digits" / "one"), "status": "success",
        "live": False, "name": "nice", "attempt": 2, "created_at": ago(days=1), "started_at": ago(days=1),
        "ended_at": ago(hours=23), "paused_s": 0.0, "params": {"a": {"b": [1, 2.5, None]}}, "tags": [],
        "description": "d", "notes": "n", "group": "g", "parent": "p", "job_name": "j", "user": "ada", "host": "h",
        "git": {"commit": "abc", "branch": "main", "dirty": True, "diff": "git.diff", "diff_problem": None},
        "argv": ["a", "b"], "python": "3.11.7",
        "environment": {"cpus": 2}, "trace_id": "t", "span_id": "s", "pinned": False, "complete": True,
        "counts": {"metrics": 5, "events": 2, "dropped": 0}, "problems": [],
    }  # fmt: skip
    assert (record.commit_id, record.duration_s) == ("abc", 3600)


def test_metrics_are_filters_sort_keys_and_records(root: Path) -> None:
    add_metrics(root, "logged")
    add_run(root, "empty")
    store = shmlog.Store(root)
    assert ids(store.runs(where="metrics.loss.max > 4")) == ["logged"]
    assert ids(store.runs(where="metrics.loss.max > 4.75")) == []
    assert ids(store.runs(where="metrics.n.count = 20 and metrics.good = false")) == ["logged"]
    assert ids(store.runs(sort="metrics.n")) == ["logged", "empty"]
    assert store.summary("logged")["n"] == {"last": 19, "min": 0, "max": 19, "count": 20}
    found = list(store.metrics("logged", "n"))
    assert [(record.step, record.value, record.kind) for record in found] == [(i, i, "int") for i in range(20)]
    assert {record.kind for record in store.metrics("logged")} == {"float", "int", "bool", "text"}
    assert store.load("logged").metrics("n").num_rows == 20


def test_artifacts_are_listed_and_links_are_not_followed(root: Path) -> None:
    layout = add_run(root, "one")
    (layout.artifacts / "deep").mkdir(parents=True)
    (layout.artifacts / "deep" / "model.bin").write_bytes(b"abc")
    (layout.artifacts / "link").symlink_to("/etc/passwd")
    (found,) = shmlog.Store(root).artifacts("one")
    assert (found.path, found.size_bytes, found.digest) == ("deep/model.bin", 3, None)


# ---- the index ----


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose files were read."""
    found: list[str] = []
    read = facts.read_facts

    def read_and_tell(layout: RunLayout) -> Any:
        found.append(layout.run_id)
        return read(layout)

    monkeypatch.setattr("shmlog.store.catalog.read_facts", read_and_tell)
    return found


def test_what_has_not_changed_is_not_read_again(root: Path, reads: list[str]) -> None:
    for name in ("a", "b", "c"):
        add_run(root, name, params={"lr": 1})
    first = shmlog.Store(root).runs()
    assert sorted(reads) == ["a", "b", "c"]
    reads.clear()
    assert shmlog.Store(root).runs() == first
    assert reads == []
    add_run(root, "d")
    runfile.write(RunLayout(root / "digits" / "b").config_yaml, {"lr": 2})
    shutil.rmtree(root / "digits" / "c")
    found = shmlog.Store(root).runs()
    assert sorted(ids(found)) == ["a", "b", "d"]
    assert sorted(reads) == ["b", "d"]
    assert {record.run_id: record.params for record in found}["b"] == {"lr": 2}


def test_a_change_within_a_tick_of_the_clock_is_seen(
    root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(root, "a")
    monkeypatch.setattr(index, "_TICK_NS", 10**12)  # all files are new
    store = shmlog.Store(root)
    store.runs()
    store.runs()
    assert reads == ["a", "a"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_damaged_index_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "runs"
    if not root.exists():
        for i in range(3):
            add_run(root, f"r{i}", params={"lr": i})
    expected = shmlog.Store(root).runs()
    path = root / ".shmlog" / "index" / "digits.json"
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "replace"]))
    if kind == "flip":
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del content[data.draw(st.integers(0, len(content))) :]
    else:
        content[:] = data.draw(st.binary(max_size=50))
    path.write_bytes(content)
    assert shmlog.Store(root).runs() == expected


def test_an_index_of_another_version_is_written_anew(root: Path) -> None:
    add_run(root, "a")
    expected = shmlog.Store(root).runs()
    path = root / ".shmlog" / "index" / "digits.json"
    entries = {
        run_id: index.IndexEntry(entry.signature, {"record": {"tags": 5}, "members": {"complete": True}})
        for run_id, entry in index.load(path).items()
    }
    index.save(Root(root), path, entries)
    assert shmlog.Store(root).runs() == expected
    assert index.load(path) != entries


def test_a_store_whose_own_folder_cannot_be_made_is_listed(root: Path) -> None:
    add_run(root, "a")
    (root / ".shmlog").write_text("in the way")
    store = shmlog.Store(root)
    assert ids(store.runs()) == ["a"]
    with pytest.raises(StorageError):
        store.pin("a")


# ---- names that lead elsewhere ----

HOSTILE = [
    "../../etc/x", "/etc/passwd", "..", ".", "", "a/b/c", "%2e%2e", "..;/", "a#/../", "a\x00b", "é", "a" * 65, "a.b",
    "-rf /", "digits/..", "../digits/one", "digits/", "/one", "digits//one", ".shmlog/trash",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leads_out_of_the_root(root: Path, name: str) -> None:
    """FAULTS 64: as in tests/unit/test_names.py."""
    add_run(root, "one")
    (root.parent / "outside").mkdir()
    before = tree(root.parent)
    store = shmlog.Store(root)
    for act in (store.get, store.pin, store.delete, store.load, store.artifacts, store.rebuild):
        with pytest.raises((ValueError, RunNotFoundError)):
            act(name)  # type: ignore[operator]
    if is_experiment(name):  # its folder has a name that leads nowhere
        record = store.create_run(name)
        assert record.experiment == name
        store.delete(record, force=True)
        store.delete_experiment(name)
        shutil.rmtree(root / ".shmlog")
        assert tree(root.parent) == before
        return
    for act in (store.experiment, store.create_experiment, store.create_run, store.runs, store.delete_experiment):
        with pytest.raises((ValueError, ExperimentNotFoundError)):
            act(name)  # type: ignore[operator]
    assert tree(root.parent) == before


def test_links_are_refused(root: Path, tmp_path: Path) -> None:
    """FAULTS 64: whatever they lead to."""
    elsewhere = add_run(tmp_path / "elsewhere", "secret")
    add_run(root, "one")
    (root / "linked").symlink_to(elsewhere.dir.parent)
    (root / "digits" / "linked").symlink_to(elsewhere.dir)
    store = shmlog.Store(root)
    assert ids(store.runs()) == ["one"]
    assert [experiment.name for experiment in store.experiments()] == ["digits"]
    for name in ("digits/linked", "linked/secret"):
        for act in (store.get, store.pin, store.delete, store.load):
            with pytest.raises(StorageError, match="refused"):
                act(name)  # type: ignore[operator]
    assert elsewhere.run_yaml.exists()
    assert not elsewhere.annotations_yaml.exists()


def test_a_root_that_is_a_link_is_followed(root: Path, tmp_path: Path) -> None:
    add_run(root, "one")
    (tmp_path / "link").symlink_to(root)
    store = shmlog.Store(tmp_path / "link")
    assert store.root == root
    assert store.pin("one").pinned


@pytest.mark.parametrize("name", ["run.yaml", "config.yaml", "annotations.yaml"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_files_that_are_none_are_told_and_not_opened(root: Path, tmp_path: Path, name: str, kind: str) -> None:
    layout = add_run(root, "one")
    layout.events.touch()
    path = layout.dir / name
    path.unlink(missing_ok=True)
    secret = tmp_path / "secret"
    secret.write_text('{"name": "secret", "lr": 1}')
    {"link": lambda: path.symlink_to(secret), "fifo": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    (record,) = shmlog.Store(root).runs()
    assert "not a regular file" in record.problems[0]
    assert "secret" not in record.to_json()


def test_the_own_folder_may_not_be_a_link(root: Path, tmp_path: Path) -> None:
    add_run(root, "one")
    (tmp_path / "outside").mkdir()
    (root / ".shmlog").symlink_to(tmp_path / "outside")
    store = shmlog.Store(root)
    assert ids(store.runs()) == ["one"]
    for act in (store.pin, store.delete):
        with pytest.raises(StorageError):
            act("one")  # type: ignore[operator]
    assert list((tmp_path / "outside").iterdir()) == []


def test_an_id_of_two_experiments_must_say_which(root: Path) -> None:
    add_run(root, "same", "a")
    add_run(root, "same", "b")
    store = shmlog.Store(root)
    with pytest.raises(ValueError, match="a/same or b/same"):
        store.get("same")
    assert store.get("b/same").experiment == "b"
    assert store.get(store.runs("a")[0]).experiment == "a"


# ---- damage ----

DAMAGE = [b"", b"\0" * 100, b"{", b"[1]", b"- a\n- b", b"{{{{", b"&a [*a]", b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("content", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_run_yaml_is_told_and_made_up_for(root: Path, content: bytes) -> None:
    layout = add_metrics(root, "20261121-031522-7f3a9c")
    add_run(root, "whole")
    layout.run_yaml.write_bytes(content)
    store = shmlog.Store(root)
    found = {record.run_id: record for record in store.runs()}
    assert found["whole"].problems == ()
    record = found[layout.run_id]
    assert "run.yaml" in record.problems[0]
    assert "rebuilt" in record.problems[0]
    assert "\n" not in record.problems[0]
    assert str(record.created_at) == "2026-11-21 03:15:22+00:00"
    assert record.status == "crashed"
    assert record == store.get(layout.run_id)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_what_is_left_of_a_cut_run_yaml_is_used(root: Path, share: float) -> None:
    layout = add_run(root, "one", tags=["t"], notes="some", status="failed")
    whole = layout.run_yaml.read_text()
    expected = runfile.read(layout.run_yaml)
    part = whole[: int(len(whole) * share)]
    layout.run_yaml.write_text(part)
    record = shmlog.Store(root).get("one").to_dict()
    for name in ("tags", "notes", "status", "started_at"):
        if f'"{name}"' in part.rpartition(",\n")[0]:
            assert record[name] == expected[name], name


def test_the_events_tell_how_a_run_without_run_yaml_went(root: Path) -> None:
    folder = Folder(root / "digits" / "one")
    log = Log()
    lane = log.lane(0)
    lane.event("experiment_start", {"experiment": "digits", "name": "nice", "tags": ["t"]}, 0)
    log.frame(now=1)
    fill(log)
    lane.event("experiment_end", {"status": "failed"}, 99)
    log.frame(now=100)
    folder.add(log)
    folder.complete()
    folder.layout.run_yaml.unlink()
    store = shmlog.Store(root)
    record = store.get("one")
    assert (record.status, record.name, record.tags) == ("failed", "nice", ("t",))
    assert record.started_at is not None
    assert record.problems == (f"{folder.layout.run_yaml}: missing; rebuilt",)
    assert store.rebuild("one").problems == ()
    assert verify(folder.dir).ok, verify(folder.dir).findings
    assert store.load("one").counts["metrics"] == len(folder.records)


def test_rebuilding_keeps_what_was_there_and_nothing_else_changes(root: Path) -> None:
    layout = add_metrics(root, "one")
    before = shmlog.load(layout.dir)
    rows, events = repr(before.metrics().to_pylist()), before.events()  # NaN equals its text alone
    layout.run_yaml.write_bytes(b'{\n  "schema": 1,\n  "tags": ["t"],\n  "sta')
    store = shmlog.Store(root)
    record = store.rebuild("one")
    assert (record.tags, record.problems) == (("t",), ())
    assert (layout.dir / "run.yaml.damaged").read_bytes().endswith(b'"sta')
    assert verify(layout.dir).ok, verify(layout.dir).findings
    assert repr(store.load("one").metrics().to_pylist()) == rows
    assert store.load("one").events() == events
    with pytest.raises(RunStateError, match="can be read and is not rebuilt"):
        store.rebuild("one")


def test_a_field_that_is_none_is_told_and_the_others_are_there(root: Path) -> None:
    add_run(root, "one", tags="not a list", started_at="soon", git={"branch": 1}, name="nice", attempt="x")
    record = shmlog.Store(root).get("one")
    assert record.name == "nice"
    assert record.tags == ()
    told = " ".join(record.problems)
    assert all(field in told for field in ("tags", "started_at", "git", "attempt"))


@pytest.mark.parametrize("content", DAMAGE, ids=range(len(DAMAGE)))
@pytest.mark.parametrize("name", ["config.yaml", "annotations.yaml"])
def test_other_damaged_files_are_told(root: Path, name: str, content: bytes) -> None:
    layout = add_run(root, "one", tags=["t"])
    (layout.dir / name).write_bytes(content)
    store = shmlog.Store(root)
    (record,) = store.runs()
    assert (record.tags, record.params, record.status) == (("t",), {}, "success")
    assert len(record.problems) == 1
    assert name in record.problems[0]
    if name == "annotations.yaml":
        with pytest.raises(CorruptDataError):
            store.pin("one")
        assert (layout.dir / name).read_bytes() == content


def test_parameters_of_yaml_become_those_of_json(root: Path) -> None:
    layout = add_run(root, "one")
    layout.config_yaml.write_text("when: 2026-11-21\nat: 2026-11-21T03:15:00Z\nnan: .nan\nbig: 1e3\n1: one\n")
    record = shmlog.Store(root).get("one")
    expected = {"when": "2026-11-21", "at": "2026-11-21T03:15:00+00:00", "nan": "NaN", "big": "1e3", "1": "one"}
    assert record.params == expected
    assert RunRecord.from_json(record.to_json()) == record


def test_a_folder_that_is_no_run_is_passed_over(root: Path) -> None:
    (root / "digits" / "empty").mkdir(parents=True)
    (root / "digits" / "new" / "wal").mkdir(parents=True)
    (root / "digits" / "notes.txt").touch()
    (root / "file").touch()
    store = shmlog.Store(root)
    assert store.runs() == []
    with pytest.raises(RunNotFoundError):
        store.get("empty")


# ---- annotations ----


def test_annotations_take_the_place_of_run_yaml_and_leave_it_alone(root: Path) -> None:
    layout = add_run(root, "one", tags=["a", "b"], notes="old", description="kept", name="given")
    before = layout.run_yaml.read_bytes()
    store = shmlog.Store(root)
    assert store.tag("one", ["c", "a"], ["b"]).tags == ("a", "c")
    assert store.pin("one").pinned is True
    assert store.rename("one", "best").name == "best"
    record = store.annotate("one", notes=None, group="g")
    assert (record.notes, record.group, record.description, record.tags) == (None, "g", "kept", ("a", "c"))
    assert store.pin("one", False).pinned is False
    assert store.annotate("one", tags=[]).tags == ()
    assert layout.run_yaml.read_bytes() == before
    assert shmlog.Store(root).runs() == [store.get("one")]
    assert shmlog.load(layout.dir).annotations["name"] == "best"


def test_a_field_that_a_later_version_wrote_is_kept(root: Path) -> None:
    layout = add_run(root, "one")
    runfile.write(layout.annotations_yaml, {"schema": 1, "colour": "red"})
    shmlog.Store(root).pin("one")
    assert runfile.read(layout.annotations_yaml) == {"schema": 1, "colour": "red", "pinned": True}


@pytest.mark.parametrize(
    "said", [{"name": None}, {"name": 5}, {"notes": 5}, {"tags": "one"}, {"tags": [1]}, {"tags": [" "]}, {"group": []}]
)
def test_what_cannot_be_said_changes_nothing(root: Path, said: dict[str, Any]) -> None:
    add_run(root, "one")
    before = tree(root)
    with pytest.raises((TypeError, ValueError)):
        shmlog.Store(root).annotate("one", **said)
    assert tree(root) == before


def _tag(root: Path, tags: list[str]) -> None:
    store = shmlog.Store(root)
    for tag in tags:
        store.tag("one", [tag])


def test_annotations_of_several_processes_are_all_kept(root: Path) -> None:
    add_run(root, "one")
    context = multiprocessing.get_context("fork")
    expected = {f"{i}:{n}" for i in range(4) for n in range(20)}
    processes = [context.Process(target=_tag, args=(root, [f"{i}:{n}" for n in range(20)])) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert set(shmlog.Store(root).get("one").tags) == expected


# ---- experiments, and runs without processes ----


def test_an_experiment_is_made_annotated_and_deleted(root: Path) -> None:
    store = shmlog.Store(root)
    made = store.create_experiment("digits", display_name="Ziffern", tags=["a"])
    assert (made.display_name, made.tags, made.runs) == ("Ziffern", ("a",), 0)
    assert made.created_at is not None
    with pytest.raises(RunStateError, match="there is an experiment"):
        store.create_experiment("digits")
    changed = store.annotate_experiment("digits", display_name="Digits", description="d")
    assert (changed.display_name, changed.description, changed.tags) == ("Digits", "d", ("a",))
    assert changed.created_at == made.created_at
    add_run(root, "one")
    with pytest.raises(RunStateError, match="not empty: it holds one"):
        store.delete_experiment("digits")
    store.delete("one")
    store.delete_experiment("digits")
    assert store.experiments() == []


@pytest.mark.parametrize("content", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_experiment_yaml_is_told_and_kept(root: Path, content: bytes) -> None:
    store = shmlog.Store(root)
    made = store.create_experiment("digits")
    path = made.dir / "experiment.yaml"
    path.write_bytes(content)
    (found,) = store.experiments()
    assert found.display_name == "digits"
    assert "experiment.yaml" in found.problems[0]
    with pytest.raises(CorruptDataError):
        store.annotate_experiment("digits", description="x")
    assert path.read_bytes() == content


def test_a_run_without_processes_goes_from_pending_to_its_end(root: Path) -> None:
    store = shmlog.Store(root)
    run = store.create_run("digits", params={"lr": 0.1, "opt": {"name": "adam"}}, tags=["t"], name="n", job_name="j")
    assert (run.status, run.params["opt"], run.tags, run.name, run.job_name) == (
        "pending", {"name": "adam"}, ("t",), "n", "j",
    )  # fmt: skip
    with pytest.raises(RunStateError, match="pending can't become success"):
        store.set_status(run, "success")
    assert store.get(run) == run
    running = store.set_status(run, "running")
    assert (running.status, running.started_at is not None) == ("running", True)
    done = store.set_status(run, "completed")
    assert (done.status, done.complete, done.ended_at is not None, done.attempt) == ("success", True, True, 1)
    again = store.set_status(run, "running")
    assert (again.status, again.attempt, again.ended_at, again.started_at) == ("running", 2, None, running.started_at)


@pytest.mark.parametrize(
    "statuses", [["cancelled"], ["running", "success"], ["running", "failed", "running", "success"], ["running"], []]
)
def test_a_run_without_processes_is_sound_in_each_status(root: Path, statuses: list[str]) -> None:
    store = shmlog.Store(root)
    run = store.create_run("digits")
    for status in statuses:
        run = store.set_status(run, status)
    report = verify(run.dir)
    assert report.ok, report.problems
    assert main(["verify", str(run.dir)]) == 0
    assert main(["show", str(run.dir)]) == 0


def test_the_status_of_a_run_with_processes_is_theirs(root: Path) -> None:
    layout = add_run(root, "one", segment={"name": "/x", "path": "/dev/shm/x", "device": 1, "inode": 1})
    before = layout.run_yaml.read_bytes()
    with pytest.raises(RunStateError, match="processes of its own"):
        shmlog.Store(root).set_status("one", "running")
    assert layout.run_yaml.read_bytes() == before


@pytest.mark.parametrize("told", [{"colour": "red"}, {"name": 5}, {"tags": "x"}, {"params": {"a": [[[]]] * 2}, "x": 1}])
def test_a_run_that_cannot_be_made_leaves_nothing(root: Path, told: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        shmlog.Store(root).create_run("digits", **told)
    assert not root.exists()


# ---- conditions on fields, and curves ----


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("tags contains 't'", ["one"]), ("run.tags contains 't'", ["one"]), ("not tags contains t", ["two"]),
        ("status = 'success'", ["one"]), ("status = completed", ["one"]), ("status != success", ["two"]),
        ("host = elsewhere and group = g", ["one"]), ("began_at > 2000-01-01", ["one", "two"]),
        ("run.git.branch = main", ["one"]), ("run.counts.events = 0", ["one", "two"]), ("name = adam", ["two"]),
        ("params.name = adam", ["two"]), ("run.name = two", ["two"]), ("argv contains '--fast'", ["one"]),
    ],
)  # fmt: skip
def test_a_condition_can_name_each_field(root: Path, where: str, ids: list[str]) -> None:
    git = {"commit": "a1b2c3d4", "branch": "main"}
    add_run(root, "one", tags=["t"], group="g", git=git, argv=["train.py", "--fast"])
    add_run(root, "two", status="failed", params={"name": "adam"})
    assert sorted(run.run_id for run in shmlog.Store(root).runs(where=where)) == ids


def test_a_name_in_a_condition_that_no_run_has_is_told(root: Path) -> None:
    add_run(root, "one", params={"lr": 2})
    store = shmlog.Store(root)
    with pytest.warns(shmlog.ShmlogWarning, match="no run has 'lrr'; perhaps lr is meant; there are lr") as told:
        assert store.runs(where="lrr > 1") == []
    assert told[0].filename == __file__
    with pytest.warns(shmlog.ShmlogWarning, match="no run has 'statsu'; perhaps status"):
        store.latest(where="statsu = success")
    for where, hint in {"tags = t": "write tags contains 't'", "status = foo": "params.status"}.items():
        with pytest.raises(QueryError, match=hint):
            store.runs(where=where)


def test_runs_of_a_group(root: Path) -> None:
    for run_id, group in {"one": "g", "two": "h", "three": None}.items():
        add_run(root, run_id, group=group)
    assert [run.run_id for run in shmlog.Store(root).runs(group="g")] == ["one"]
    with pytest.raises(TypeError, match="group must be a str"):
        shmlog.Store(root).runs(group=5)  # type: ignore[arg-type]


def test_the_metrics_of_a_run_are_a_sequence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = add_metrics(root, "one")
    records = shmlog.Store(root).metrics("one")
    every = list(records)
    assert len(records) == len(every) == shmlog.load(layout.dir).metrics().num_rows > 3
    assert [records[i].seq for i in (0, -1, 2)] == [every[i].seq for i in (0, -1, 2)]  # NaN is not itself
    for piece in (slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(5, 2)):
        assert [record.seq for record in records[piece]] == [record.seq for record in every[piece]]
    with pytest.raises(IndexError):
        records[len(records)]
    made: list[str] = []
    of_row = MetricRecord.of_row
    monkeypatch.setattr(MetricRecord, "of_row", lambda *args: made.append("one") or of_row(*args))
    assert records[1:][0] == every[1]
    assert made == ["one"]


# ---- deleting ----


def test_a_deleted_run_is_gone_with_all_its_files(root: Path) -> None:
    add_metrics(root, "one")
    kept = add_run(root, "two")
    store = shmlog.Store(root)
    store.delete("one")
    assert sorted(tree(root)) == ["digits", *(f"digits/two{name}" for name in ("", "/config.yaml", "/run.yaml"))]
    assert store.runs() == [store.get(kept.run_id)]
    assert list((root / ".shmlog" / "trash").iterdir()) == []
    with pytest.raises(RunNotFoundError):
        store.delete("one")


def test_a_pinned_run_is_deleted_by_force_alone(root: Path) -> None:
    add_run(root, "one")
    store = shmlog.Store(root)
    store.pin("one")
    with pytest.raises(RunStateError, match="pinned; unpin it first"):
        store.delete("one")
    store.delete("one", force=True)
    assert store.runs() == []


def test_a_run_of_another_machine_is_deleted_by_force_alone(root: Path) -> None:
    segment = {"name": "/x", "path": "/dev/shm/x", "device": 1, "inode": 1}
    add_run(root, "one", status="running", complete=False, segment=segment, ended_at=None)
    store = shmlog.Store(root)
    assert store.get("one").live is None
    with pytest.raises(RunStateError, match="as far as can be seen"):
        store.delete("one")
    store.delete("one", force=True)
    assert store.runs() == []


def test_links_in_a_run_are_deleted_and_not_what_they_lead_to(root: Path, tmp_path: Path) -> None:
    layout = add_run(root, "one")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    (layout.dir / "link").symlink_to(tmp_path / "precious")
    shmlog.Store(root).delete("one")
    assert (tmp_path / "precious" / "file").exists()


def test_what_is_no_run_is_not_deleted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is named is a run, or stays: neither an experiment, nor a root, nor any other."""
    add_run(root, "one")
    (tmp_path / "src" / "precious").mkdir(parents=True)
    (tmp_path / "src" / "precious" / "file").touch()
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path / "src")
    for name in (str(root), str(root / "digits"), "precious", str(tmp_path)):
        assert main(["rm", name, "--force", "--root", str(root)]) == 3, name
    with pytest.raises(RunNotFoundError):
        shmlog.Store(tmp_path).delete("src/precious", force=True)
    assert tree(tmp_path) == before


def test_what_fails_says_so_in_one_line(root: Path) -> None:
    add_run(root, "one")
    store = shmlog.Store(root)
    for act in (lambda: store.get("two"), lambda: store.experiment("x"), lambda: store.delete("two")):
        with pytest.raises(ShmlogError) as error:
            act()
        assert "\n" not in str(error.value)
        assert str(root) in str(error.value)


def test_listing_writes_nothing_but_the_index(root: Path) -> None:
    add_metrics(root, "one")
    add_run(root, "two").run_yaml.write_bytes(b"{")
    before = tree(root)
    store = shmlog.Store(root)
    with pytest.warns(shmlog.ShmlogWarning, match=r"two/run\.yaml"):
        store.runs(where="metrics.loss.min < 1")
    store.experiments()
    assert tree(root) == before
    assert json.loads((root / ".shmlog" / "index" / "digits.json").read_bytes().splitlines()[0])["schema"] == 2
