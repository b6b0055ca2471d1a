"""What a run says of itself while it goes on: parameters, name, tags, notes, last values, why it has ended."""

from __future__ import annotations

import argparse
import copy
import json
import pickle
from collections import UserDict, UserList
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import shmlog
from tests.support.processes import run_script


@dataclass
class Settings:
    lr: float = 0.1
    depth: int = 3


@pytest.mark.parametrize(
    "config",
    [{"lr": 0.1, "depth": 3}, argparse.Namespace(lr=0.1, depth=3), Settings(), UserDict(lr=0.1, depth=3)],
    ids=lambda config: type(config).__name__,
)
def test_parameters_are_a_mapping_with_attributes(tmp_path: Path, config: Any) -> None:
    with shmlog.init("described", root=tmp_path, config=config) as run:
        assert run.config == {"lr": 0.1, "depth": 3}
        assert (run.config.lr, run.config["depth"], len(run.config)) == (0.1, 3, 2)
        run.log_config({"depth": 4, "model": {"width": 8}})
        assert run.config.depth == 4, "at once, before the flusher has written it"
        assert run.config.model.width == run.config["model"]["width"] == 8
        run.config["model"]["width"] = 9
        assert run.config.model.width == 8, "what a user gets is a copy"
        with pytest.raises(AttributeError, match="no parameter 'lrr', only lr, depth"):
            _ = run.config.lrr
        with pytest.raises(TypeError):
            run.config["lr"] = 1.0  # type: ignore[index]
        with pytest.raises(AttributeError, match=r"'lr' can't be set here: log_config\(\)"):
            run.config.lr = 1.0
    assert shmlog.load(run.dir).config == run.config


def test_parameters_are_copied_pickled_and_written_as_json(tmp_path: Path) -> None:
    parameters = {"lr": 0.1, "model": {"width": 8}}
    with shmlog.init("described", root=tmp_path, config=parameters) as run:
        assert json.loads(json.dumps(dict(run.config))) == parameters
        for same in (copy.copy(run.config), copy.deepcopy(run.config), pickle.loads(pickle.dumps(run.config))):
            assert same == parameters
            assert same.model.width == 8


def test_lists_of_other_libraries_stay_lists(tmp_path: Path) -> None:
    """As OmegaConf's, which are sequences but no lists."""
    with shmlog.init("described", root=tmp_path, config={"layers": UserList([1, UserDict(a=2)])}) as run:
        assert run.config.layers == [1, {"a": 2}]


def test_secrets_are_as_recorded(tmp_path: Path) -> None:
    with shmlog.init("described", root=tmp_path, config={"api_key": "abc"}) as run:
        assert run.config.api_key == "[redacted]"


def test_name_tags_and_notes_are_read_and_set(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path)
    run = shmlog.init("described", root=tmp_path, tags=["a"], notes="first")
    assert (run.name, run.tags, run.notes) == (run.id, ("a",), "first")
    run.name = "nice"
    run.notes = "second"
    run.add_tags(["b", "a"])
    assert (run.name, run.tags, run.notes) == ("nice", ("a", "b"), "second")
    store.tag(run.id, add=["c"])
    assert run.tags == ("a", "b", "c")
    assert run.finish()
    run.add_tags(["late"])
    record = store.get(run.id)
    assert (record.name, record.tags, record.notes) == ("nice", ("a", "b", "c", "late"), "second")
    for wrong in ("x", [3], [""], 3, {"k": "v"}):
        with pytest.raises((TypeError, ValueError)):
            run.add_tags(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name must be a str"):
        run.name = None  # type: ignore[assignment]


@pytest.mark.parametrize("tags", [3, 0, {"a": "b"}])
def test_tags_that_are_no_list_are_refused(tmp_path: Path, tags: Any) -> None:
    with pytest.raises(TypeError, match=f"tags must be a list of str, not {type(tags).__name__}"):
        shmlog.init("described", root=tmp_path, tags=tags)
    assert not list(tmp_path.iterdir())


CHILD = """
import multiprocessing, sys
import shmlog
def work(run):
    assert run.config.lr == 0.1 and run.name == "nice" and run.tags == ("a",), (run.config, run.name, run.tags)
    run.log("child", 7, step=1)
    run.add_tags(["child"])
if __name__ == "__main__":
    run = shmlog.init("described", root=sys.argv[1], config={"lr": 0.1}, name="nice", tags=["a"])
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=work, args=(run,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert run.tags == ("a", "child"), run.tags
        shmlog.Store(sys.argv[1]).tag(run.id, remove=["child"])
    run.log("loss", 0.5, step=2)
    run.log("loss", 0.25, step=1)
    run.log({"best": True, "word": "yes"})
    print(sorted(run.summary.items()))
"""


def test_children_see_the_same_and_the_summary_has_what_all_have_logged(tmp_path: Path) -> None:
    done = run_script(CHILD, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[('best', True), ('child', 7), ('loss', 0.5), ('word', 'yes')]\n"


def test_a_disabled_run_has_what_init_was_given(tmp_path: Path) -> None:
    run = shmlog.init("described", root=tmp_path, mode="disabled", config={"lr": 0.1}, tags=["a"], name="nice")
    run.log_config({"depth": 3})
    run.add_tags(["b"])
    run.notes = "n"
    assert (run.config, run.name, run.tags, run.notes) == ({"lr": 0.1, "depth": 3}, "nice", ("a", "b"), "n")
    assert run.summary == {}
    run.finish()
    assert not list(tmp_path.iterdir())


def test_a_finish_says_why(tmp_path: Path) -> None:
    run = shmlog.init("described", root=tmp_path)
    with pytest.raises(TypeError, match="reason must be a str, not int"):
        run.finish("failed", 3)  # type: ignore[arg-type]
    assert run.finish("failed", "the loss is NaN")
    (end,) = shmlog.load(run.dir).events("experiment_end")
    assert (end["data"]["status"], end["data"]["reason"]) == ("failed", "the loss is NaN")
    with shmlog.init("described", root=tmp_path) as other:
        shmlog.finish(reason="enough")
    assert shmlog.load(other.dir).events("experiment_end")[0]["data"]["reason"] == "enough"
