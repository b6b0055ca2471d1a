"""How a run is named, in every command: by its id or the beginning of it, its name, its commit, or for the newest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shmlog
from shmlog.cli.main import build_parser, main
from shmlog.errors import RunNotFoundError, RunStateError
from tests.support.cli import commands_of
from tests.support.stores import add_run

COMMITS = {"one": "a1b2c3d4e5f6", "two": "a1b2ffffffff"}
WITHOUT_RUNS = {"demo", "env", "completion", "gc", "import"}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> shmlog.Store:
    """Return a store below ./elsewhere, which is no default, with two experiments."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "elsewhere"
    add_run(root, "20261121-031522-aaaaaa", days=3, name="first try", git={"commit": COMMITS["one"]})
    add_run(root, "20261121-031523-bbbbbb", days=2, name="lr/high", git={"commit": COMMITS["two"]})
    add_run(root, "20261122-031522-cccccc", "letters", days=1, name="first try")
    return shmlog.Store(root)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("20261121-031522-aaaaaa", "aaaaaa"), ("digits/20261121-031522-aaaaaa", "aaaaaa"), ("20261122", "cccccc"),
        ("letters/2026", "cccccc"), ("digits/20261121-031523", "bbbbbb"), ("lr/high", "bbbbbb"),
        ("digits/first try", "aaaaaa"), ("a1b2c", "aaaaaa"), (COMMITS["two"], "bbbbbb"), ("latest", "cccccc"),
        ("digits", "bbbbbb"), ("letters", "cccccc"),
    ],
)  # fmt: skip
def test_a_run_goes_by_each_of_its_names(store: shmlog.Store, text: str, ends: str) -> None:
    assert store.get(text).run_id.endswith(ends)
    assert main(["tag", text, "seen", "--root", "elsewhere"]) == 0
    assert [record.run_id[-6:] for record in store.runs(tags="seen")] == [ends]


@pytest.mark.parametrize(
    ("text", "others"),
    [("2026", 3), ("first try", 2), ("digits/2026", 2), ("20261121-03152", 2), ("a1b2", 2)],
)
def test_what_fits_several_runs_is_an_error_that_lists_them(store: shmlog.Store, text: str, others: int) -> None:
    with pytest.raises(ValueError, match=rf"fits {others} runs; write more of one: .*digits/") as error:
        store.get(text)
    assert "digits/20261121-031522-aaaaaa (first try)" in str(error.value)


@pytest.mark.parametrize("text", ["a1b", "first", "nowhere", "digits/20261122", "first tr"])
def test_what_fits_no_run_is_none(store: shmlog.Store, text: str) -> None:
    with pytest.raises((RunNotFoundError, ValueError), match=r"no run|use 1 to 64"):
        store.get(text)


def test_a_new_name_counts_and_the_old_one_no_more(store: shmlog.Store) -> None:
    store.rename("lr/high", "second try")
    assert store.get("second try").run_id.endswith("bbbbbb")
    with pytest.raises(RunNotFoundError):
        store.get("lr/high")


def test_an_exact_id_is_meant_even_if_another_begins_with_it(store: shmlog.Store) -> None:
    add_run(store.root, "run", "digits")
    add_run(store.root, "run-2", "digits", name="run")
    assert store.get("run").run_id == "run"
    assert store.get("run-").run_id == "run-2"
    with pytest.raises(RunNotFoundError):
        shmlog.init("digits", root=store.root, resume="run-")


def test_a_record_means_its_own_run_and_no_other(store: shmlog.Store) -> None:
    add_run(store.root, "run", "digits")
    add_run(store.root, "run-2", "digits")
    record = store.get("digits/run")
    store.delete(record)
    with pytest.raises(RunNotFoundError):
        store.delete(record)
    assert store.get("run-2")


@pytest.mark.parametrize("command", sorted(commands_of(build_parser()).keys() - WITHOUT_RUNS))
def test_every_command_has_a_root(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = build_parser()
    required = {"sql": ["select 1"], "compare": ["A", "B"], "metrics": ["A", "loss"]}
    required |= dict.fromkeys(("tag", "annotate", "pin", "unpin", "rm", "restore"), ("A",))
    words = [command, *required.get(command, [])]
    assert parser.parse_args(words).root == "runs"
    assert parser.parse_args([*words, "--root", "elsewhere"]).root == "elsewhere"
    monkeypatch.setenv("SHMLOG_ROOT", "/by/variable")
    assert build_parser().parse_args(words).root == "/by/variable"


@pytest.mark.parametrize(
    "words", [["show"], ["tail", "--no-follow"], ["verify"], ["export"], ["artifacts"], ["recover"]]
)
@pytest.mark.parametrize("name", ["first", "2026", "digits"])
def test_reading_commands_look_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with shmlog.init("digits", root="elsewhere", name="first") as run:
        run.log("loss", 0.5, step=1)
    assert main([*words, name, "--root", "elsewhere"]) == 0
    assert main([*words, name]) == 3


# ---- rm ----


def test_rm_of_an_experiment_takes_force(store: shmlog.Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.pin("lr/high")
    assert main(["rm", "digits", "--root", "elsewhere"]) == 3
    assert "'digits' is an experiment of 2 runs; --force deletes it with all of them" in capsys.readouterr().err
    assert len(store.runs("digits")) == 2
    assert main(["rm", "digits", "--root", "elsewhere", "--force"]) == 0
    assert [experiment.name for experiment in store.experiments()] == ["letters"]


def test_an_exact_name_is_meant_even_if_the_id_of_another_begins_with_it(
    store: shmlog.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(store.root, "baseline-2", "digits")
    named = add_run(store.root, "20261123-000000-dddddd", "letters", name="baseline")
    assert store.get("baseline").run_id == named.run_id
    assert store.get("baseline-").run_id == "baseline-2"
    assert main(["show", "baseline", "--root", "elsewhere", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == named.run_id
    assert main(["rm", "baseline", "--root", "elsewhere"]) == 0
    assert not named.dir.exists()
    assert store.get("digits/baseline-2")


def test_two_runs_of_one_name_are_not_the_one_whose_id_begins_with_it(store: shmlog.Store) -> None:
    add_run(store.root, "twin-2")
    for run_id in ("one", "other"):
        add_run(store.root, run_id, name="twin")
    with pytest.raises(ValueError, match="fits 2 runs"):
        store.get("twin")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("20261122", "letters/20261122-031522-cccccc"), ("letters/2026", "letters/20261122-031522-cccccc"),
        ("a1b2c", "digits/20261121-031522-aaaaaa"), (COMMITS["two"], "digits/20261121-031523-bbbbbb"),
        ("latest", "letters/20261122-031522-cccccc"),
    ],
)  # fmt: skip
def test_what_may_mean_another_run_tomorrow_is_deleted_with_force_alone(
    store: shmlog.Store, text: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunNotFoundError, match=meant):
        store.delete(text)
    assert main(["rm", text, "--root", "elsewhere"]) == 3
    said = capsys.readouterr().err
    assert meant in said
    assert "--force" in said
    assert len(store.runs()) == 3
    store.delete(text, force=True)
    assert meant.partition("/")[2] not in {record.run_id for record in store.runs()}


@pytest.mark.parametrize(
    "text",
    ["20261121-031523-bbbbbb", "digits/20261121-031523-bbbbbb", "elsewhere/digits/20261121-031523-bbbbbb", "lr/high"],
)
def test_rm_takes_a_whole_name_without_force(store: shmlog.Store, text: str) -> None:
    assert main(["rm", text, "--root", "elsewhere"]) == 0
    assert len(store.runs()) == 2
    assert not (store.root / "digits" / "20261121-031523-bbbbbb").exists()


def test_rm_says_which_run_a_part_of_its_name_meant(store: shmlog.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", "20261122", "latest", "--force", "--root", "elsewhere"]) == 0
    said = capsys.readouterr().err
    assert "shmlog: letters/20261122-031522-cccccc: deleted" in said
    assert "shmlog: digits/20261121-031523-bbbbbb: deleted" in said


def test_an_experiment_with_a_running_run_is_left_whole(tmp_path: Path) -> None:
    add_run(tmp_path, "done")
    store = shmlog.Store(tmp_path)
    with shmlog.init("digits", root=tmp_path), pytest.raises(RunStateError, match="is running; finish it first"):
        store.delete_experiment("digits", force=True)
    assert len(store.runs("digits")) == 2


def test_no_run_is_deleted_by_a_name_of_several(store: shmlog.Store) -> None:
    for force in (False, True):
        with pytest.raises(RunNotFoundError, match="name one by its id"):
            store.delete("digits", force=force)
    assert len(store.runs()) == 3
