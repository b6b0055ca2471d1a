"""Environment variables stand for arguments that a program does not give, and for those alone."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import shmlog
from shmlog.base import variables
from shmlog.cli.main import main
from tests.support.processes import run_script, wait_for_end

SET = {
    "SHMLOG_ROOT": "elsewhere", "SHMLOG_EXPERIMENT": "nightly", "SHMLOG_NAME": "n", "SHMLOG_TAGS": "a, b,,c d",
    "SHMLOG_GROUP": "g", "SHMLOG_CONFIG": "lr=0.1,depth=18,opt=adam,amp=true",
}  # fmt: skip


@pytest.fixture
def _set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SET.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_set")
def test_variables_stand_for_what_is_not_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shmlog.init() as run:
        run.log("loss", 1.0, step=0)
    wait_for_end(run.dir)
    assert run.dir.parent == tmp_path / "elsewhere" / "nightly"
    record = shmlog.Store().get(run.id)
    assert (record.name, record.tags, record.group) == ("n", ("a", "b", "c d"), "g")
    assert record.params == {"lr": 0.1, "depth": 18, "opt": "adam", "amp": True}
    assert main(["show"]) == 0
    assert run.id in capsys.readouterr().out
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n")
    assert shmlog.import_run(tmp_path / "log.csv").dir.parents[1] == tmp_path / "elsewhere"


@pytest.mark.usefixtures("_set")
def test_arguments_go_first(tmp_path: Path) -> None:
    with shmlog.init("mine", root="here", name="x", tags=[], group="", config={"lr": 0.5, "seed": 1}) as run:
        pass
    wait_for_end(run.dir)
    record = shmlog.Store("here").get(run.id)
    assert (record.experiment, record.name, record.tags, record.group) == ("mine", "x", (), "")
    assert record.params == {"lr": 0.5, "depth": 18, "opt": "adam", "amp": True, "seed": 1}


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("SHMLOG_EXPERIMENT", "a/b", r"\$SHMLOG_EXPERIMENT"),
        ("SHMLOG_CONFIG", "lr", r"\$SHMLOG_CONFIG must be a JSON object, .* or name=value,name=value, not 'lr'"),
        ("SHMLOG_CONFIG", "{lr: 1}", r"\$SHMLOG_CONFIG is not a JSON object"),
        ("SHMLOG_CONFIG", "=1", r"\$SHMLOG_CONFIG must be"),
    ],
)
def test_a_wrong_variable_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, match: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=match):
        shmlog.init()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ('{"a": [1, "x"]}', {"a": [1, "x"]}),
        ("a=b=c", {"a": "b=c"}),
        ("a=True,b=null,c=[", {"a": True, "b": None, "c": "["}),
    ],
)
def test_config(monkeypatch: pytest.MonkeyPatch, text: str, parameters: dict[str, object]) -> None:
    monkeypatch.setenv("SHMLOG_CONFIG", text)
    assert variables.config() == parameters


def test_variables_replace_nothing_of_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shmlog.init("mine", root=tmp_path, name="x", tags=["t"], config={"lr": 1}) as run:
        pass
    wait_for_end(run.dir)
    for name, value in SET.items():
        monkeypatch.setenv(name, value)
    with shmlog.init(resume=run.dir):
        pass
    wait_for_end(run.dir)
    record = shmlog.Store(tmp_path).get(run.id)
    assert (record.name, record.tags, record.params) == ("x", ("t",), {"lr": 1})


def test_a_root_with_a_percent_sign_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHMLOG_ROOT", "100%_runs")
    for command in ("runs", "show", "sql"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert "100%_runs" in capsys.readouterr().out


@pytest.mark.usefixtures("_set")
def test_env_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert all(name in out and value in out for name, value in SET.items())
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["SHMLOG_GROUP"] == "g"


def test_a_program_of_its_own_takes_them(tmp_path: Path) -> None:
    done = run_script("import shmlog\nprint(shmlog.init().dir)", cwd=tmp_path, env=SET)
    assert Path(done.stdout.strip()).parent == tmp_path / "elsewhere" / "nightly"
    wait_for_end(Path(done.stdout.strip()))


@dataclass
class Config:
    lr: float = 0.1
    layers: tuple[int, ...] = (2, 3)


@pytest.mark.parametrize("config", [argparse.Namespace(lr=0.1, layers=[2, 3]), Config(), {"lr": 0.1, "layers": [2, 3]}])
def test_parameters_may_be_what_programs_have_them_in(tmp_path: Path, config: object) -> None:
    with shmlog.init(root=tmp_path, config=config) as run:
        run.log_config(argparse.Namespace(seed=1))
    wait_for_end(run.dir)
    assert shmlog.load(run.dir).config == {"lr": 0.1, "layers": [2, 3], "seed": 1}
