"""Experiments have the names that people write; runs have the ids that users give them."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.folder.names import check_experiment, experiment_of, folder_name, is_experiment
from shmlog.folder.root import Root
from tests.support.processes import wait_for_end
from tests.support.stores import add_run

PEOPLES = ["resnet50.v2", "my exp", "Überblick", "実験", "a=1,b=2", "100%", "%41", ".hidden", "...", "[x]*?", "-", "🙂"]
REFUSED = ["", " ", "a/b", "/", "..//", "a\n", "a\0b", " a", "a ", "x" * 300, "\u202egpj", "\ud800"]


def one_run(root: Path, experiment: str) -> shmlog.StoredRun:
    with shmlog.init(experiment, root=root) as run:
        run.log("loss", 0.5, step=1)
    wait_for_end(run.dir)
    return shmlog.load(run.dir)


# ---- the rule ----


@given(st.text(max_size=30), st.text(max_size=30))
def test_two_names_never_share_a_folder_and_none_leads_out(one: str, other: str) -> None:
    for name in (one, other):
        if not is_experiment(name):
            continue
        folder = folder_name(name)
        assert folder.isascii()
        assert "/" not in folder
        assert not folder.startswith(".")
        assert experiment_of(folder) == name
    if is_experiment(one) and is_experiment(other):
        assert (folder_name(one) == folder_name(other)) == (one == other)


@given(st.text(alphabet="%.aA0-4C3 ü", max_size=12))
def test_a_folder_that_the_rule_does_not_give_is_no_experiment(folder: str) -> None:
    name = experiment_of(folder)
    assert name is None or folder_name(name) == folder


def test_names_of_earlier_versions_are_their_folders() -> None:
    assert folder_name("A-b_9") == "A-b_9"
    assert folder_name("resnet50.v2") == "resnet50.v2"
    assert folder_name("my exp") == "my%20exp"


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_names_without_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="experiment"):
        shmlog.init(name, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_looks_the_same_is_the_same_name() -> None:
    assert check_experiment(unicodedata.normalize("NFD", "Überblick")) == "Überblick"


# ---- experiments ----


@pytest.mark.parametrize("name", PEOPLES)
def test_an_experiment_is_shown_as_it_was_written(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = one_run(tmp_path / "runs", name)
    assert stored.experiment == name
    store = shmlog.Store(tmp_path / "runs")
    (record,) = store.runs(name)
    assert record.experiment == name
    assert store.get(f"{name}/{stored.id}").run_id == stored.id
    assert [found.name for found in store.experiments()] == [name]
    assert main(["runs", "--root", str(tmp_path / "runs"), "--json", name]) == 0
    assert [run["experiment"] for run in json.loads(capsys.readouterr().out)] == [name]
    assert main(["show", str(stored.dir)]) == 0
    assert name in capsys.readouterr().out
    (row,) = store.sql("SELECT experiment, run_id, value FROM metrics").to_pylist()
    assert row == {"experiment": name, "run_id": stored.id, "value": 0.5}
    assert main(["verify", str(stored.dir)]) == 0


@pytest.mark.parametrize("name", [*PEOPLES, "."])
@pytest.mark.parametrize("root", ["runs", "."])
def test_rm_takes_an_experiment_by_the_name_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, root: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for experiment in (name, "other"):
        add_run(tmp_path / root, "a-run", folder_name(experiment))
    store = shmlog.Store(root)
    if root == name == ".":  # the folder, which comes first
        assert main(["rm", name, "--root", root, "--force"]) == 3
        assert len(store.runs()) == 2
        return
    assert main(["rm", name, "--root", root]) == 3
    assert main(["rm", name, "--root", root, "--force"]) == 0
    assert [experiment.name for experiment in store.experiments()] == ["other"]


def test_folders_of_several_experiments_are_kept_apart(tmp_path: Path) -> None:
    names = ["a b", "a%20b", "a.b", "a_b"]
    ids = {name: one_run(tmp_path, name).id for name in names}
    store = shmlog.Store(tmp_path)
    assert {record.experiment: record.run_id for record in store.runs()} == ids
    assert Root(tmp_path).experiments() == sorted(names)
    rows = store.sql("SELECT experiment, run_id FROM metrics").to_pylist()
    assert {row["experiment"]: row["run_id"] for row in rows} == ids


def test_an_index_of_metrics_is_not_that_of_another_experiment(tmp_path: Path) -> None:
    """The store's caches lie side by side."""
    for name in ("a", "a.metrics"):
        one_run(tmp_path, name)
    store = shmlog.Store(tmp_path)
    for _ in range(2):
        assert len(store.runs("a", where="metrics.loss.last = 0.5")) == 1
        assert len(store.runs("a.metrics", where="metrics.loss.last = 0.5")) == 1


def test_archives_of_any_experiment_come_back(tmp_path: Path) -> None:
    run_id = one_run(tmp_path, "my exp").id
    store = shmlog.Store(tmp_path)
    store.prune(keep=0, archive=True, dry_run=False)
    assert list(store.runs()) == []
    store.restore(f"my exp/{run_id}")
    assert [record.experiment for record in store.runs()] == ["my exp"]


# ---- ids ----


def test_an_id_of_ones_own(tmp_path: Path) -> None:
    with shmlog.init("exp", root=tmp_path, id="run-001") as run:
        run.log("loss", 1.0)
    assert run.dir == tmp_path / "exp" / "run-001"
    assert run.id == "run-001"
    with pytest.raises(shmlog.errors.RunStateError, match=r"there is a run 'run-001' .*resume='auto'"):
        shmlog.init("exp", root=tmp_path, id="run-001")
    with shmlog.init("other", root=tmp_path, id="run-001"):
        pass
    assert shmlog.load(run.dir).metrics("loss").num_rows == 1


@pytest.mark.parametrize("text", ["", "a b", "a/b", "../x", ".", "x" * 65, "latest", "auto"])
def test_unusable_ids_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="id"):
        shmlog.init("exp", root=tmp_path, id=text)
    assert list(tmp_path.iterdir()) == []


def test_auto_goes_on_with_the_run_if_it_is_there(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with shmlog.init("my exp", root=tmp_path, id="mine", resume="auto", tags=(t for t in ["t"])) as run:
            run.log("loss", value)
    stored = shmlog.load(tmp_path / "my%20exp" / "mine")
    assert len(stored.attempts) == 2
    assert stored.metadata["tags"] == ["t"]
    assert run.id == "mine"


def test_auto_takes_variables_for_a_new_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMLOG_EXPERIMENT", "from env")
    for name in ("first", "second"):
        monkeypatch.setenv("SHMLOG_NAME", name)
        with shmlog.init(root=tmp_path, id="mine", resume="auto"):
            pass
    (record,) = shmlog.Store(tmp_path).runs("from env")
    assert record.name == "first"


def test_latest_is_the_newest_run_of_the_experiment(tmp_path: Path) -> None:
    with pytest.raises(shmlog.errors.RunNotFoundError, match=r"experiment 'exp' in .* has none yet"):
        shmlog.init("exp", root=tmp_path, resume="latest")
    ids = [one_run(tmp_path, name).id for name in ("exp", "exp", "other")]
    with shmlog.init("exp", root=tmp_path, resume="latest") as run:
        pass
    assert run.id in ids[:2]
    assert len(list(shmlog.Store(tmp_path).runs("exp"))) == 2


def test_words_and_ids_that_contradict_are_refused(tmp_path: Path) -> None:
    stored = one_run(tmp_path, "exp")
    with pytest.raises(ValueError, match="pass id="):
        shmlog.init("exp", root=tmp_path, resume="auto")
    with pytest.raises(ValueError, match=f"has the id '{stored.id}', not 'mine'"):
        shmlog.init("exp", root=tmp_path, id="mine", resume=stored)


RANK = """
import sys
import shmlog
run = shmlog.init("exp", root=sys.argv[1], id="job", resume="auto")
run.log("loss", 1.0)
print(run.id, flush=True)
sys.stdin.read()
run.finish()
"""

LAUNCH = """
import os, subprocess, sys
def start(rank):
    env = {**os.environ, "LOCAL_RANK": str(rank), "RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
ranks = [start(rank) for rank in range(2)]
assert [rank.stdout.readline() for rank in ranks] == ["job\\n"] * 2
for rank in ranks:
    rank.communicate()
    assert rank.returncode == 0
"""


def test_ranks_share_the_run_of_their_id(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", LAUNCH, RANK, str(tmp_path)], check=True)
    stored = shmlog.load(tmp_path / "exp" / "job")
    assert len(stored.attempts) == 2
    assert stored.metrics("loss", superseded=True).num_rows == 4
