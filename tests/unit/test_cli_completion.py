"""``shmlog completion``: each shell really completes, but PowerShell, which gets the same in its own words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

import shmlog
from shmlog.cli.main import build_parser, main
from tests.support.cli import commands_of
from tests.support.stores import add_run

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
ASK = """
source script.sh
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
$(complete -p shmlog | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""
# How each shell that completes at a terminal only is told the script; what it prints then, the line has not said.
INTERACTIVE = {
    "zsh": (["-f", "-i"], "fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy"),
    "tcsh": (["-f"], "set edit; set autolist; source script.tcsh; echo rea''dy"),
}
HOSTILE = ("$(touch pwned)", "`touch pwned`", "a;touch pwned", "-rf", "x\ny", "*")

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return a current folder with a store, and the script of bash in it."""
    add_run(tmp_path / "runs", "20261121-aaa")
    add_run(tmp_path / "runs", "20261121-bbb", "letters")
    add_run(tmp_path / "other", "elsewhere")
    (tmp_path / "data.csv").touch()
    (tmp_path / "script.sh").write_text(script_of("bash", capsys))
    return tmp_path


def complete(folder: Path, *words: str) -> list[str]:
    """Return what bash offers when Tab is pressed behind the last word."""
    command = ["bash", "--norc", "-uc", ASK, "bash", "shmlog", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    return sorted(done.stdout.split("\n")[:-1])


@bash
def test_commands_and_options(folder: Path) -> None:
    assert complete(folder, "") == sorted(commands_of(build_parser()))
    assert complete(folder, "-") == ["--debug", "--help", "--version", "-h"]
    assert complete(folder, "com") == ["compare", "completion"]
    assert complete(folder, "prune", "--o") == ["--older-than"]
    assert complete(folder, "--debug", "prune", "--arch") == ["--archive"]


@bash
def test_values(folder: Path) -> None:
    assert complete(folder, "completion", "") == sorted(SHELLS)
    assert complete(folder, "prune", "--mode", "a") == ["all", "any"]
    assert complete(folder, "export", "-f", "wide") == ["wide-csv"]
    assert complete(folder, "import", "dat") == ["data.csv"]
    (folder / "with blank.csv").touch()
    assert complete(folder, "import", "with") == ["with blank.csv"]
    assert complete(folder, "runs", "--limit", "") == [""], "a number is up to the user"


@bash
def test_runs_and_experiments(folder: Path) -> None:
    assert complete(folder, "show", "2026") == ["20261121-aaa", "20261121-bbb"]
    assert complete(folder, "show", "l") == ["latest", "letters"]
    assert complete(folder, "show", "oth") == ["other"], "a folder"
    assert complete(folder, "rm", "--root", "other", "els") == ["elsewhere"]
    assert complete(folder, "runs", "") == ["digits", "letters"]
    assert complete(folder, "tag", "20261121-a") == ["20261121-aaa"]
    assert complete(folder, "prune", "--experiment", "d") == ["digits"]


@bash
def test_names_that_people_gave(folder: Path) -> None:
    add_run(folder / "runs", "20261121-ccc", name="resnet50.v2")
    add_run(folder / "runs", "20261121-ddd", name="re run $(touch pwned)")
    add_run(folder / "runs", "20261121-eee", name="renamed-later")
    shmlog.Store(folder / "runs").rename("20261121-eee", "reborn")
    assert complete(folder, "show", "re") == ["reborn", "resnet50.v2"]
    assert not (folder / "pwned").exists()


def plant(folder: Path) -> None:
    """Make folders whose names a shell could take for commands or options."""
    for name in HOSTILE:
        hostile = folder / "runs" / "digits" / name
        hostile.mkdir()
        (hostile / "run.yaml").touch()
        (folder / "runs" / name).mkdir()


@bash
def test_no_name_of_a_folder_is_run(folder: Path) -> None:
    """FAULTS 63: what a stranger has called a folder is data."""
    plant(folder)
    assert "20261121-aaa" in complete(folder, "show", "")
    assert complete(folder, "prune", "--experiment", "") == ["-rf", "digits", "letters"]
    assert not (folder / "pwned").exists()


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(folder)
    (folder / "script.fish").write_text(script_of("fish", capsys))

    def offered(line: str) -> list[str]:
        ask = f"source script.fish; complete -C {line!r}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", ask], cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        return sorted(entry.partition("\t")[0] for entry in done.stdout.splitlines())

    assert offered("shmlog show 2026") == ["20261121-aaa", "20261121-bbb"]
    add_run(folder / "runs", "20261121-ccc", name="largest.v2")
    assert offered("shmlog show la") == ["largest.v2", "latest"]
    assert offered("shmlog runs d") == ["digits"]
    assert offered("shmlog rm --root other els") == ["elsewhere"]
    assert offered("shmlog prune --mode ") == ["all", "any"]
    assert offered("shmlog prune --arch") == ["--archive"]
    assert offered("shmlog import dat") == ["data.csv"]
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_a_shell_completes_at_a_terminal(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    plant(folder)
    (folder / "functions").mkdir()
    for name in ("functions/_shmlog", "script.tcsh"):
        (folder / name).write_text(script_of(shell, capsys))
    options, prepare = INTERACTIVE[shell]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "vt100"}
    child = pexpect.spawn(shell, options, cwd=str(folder), env=environment, encoding="utf-8", timeout=60)
    child.sendline(prepare)
    child.expect("ready\r")
    for line, offers in {
        "show 2026": ("20261121-aaa", "20261121-bbb"),
        "runs ": ("digits", "letters"),
        "show l": ("latest", "letters"),
        "prune --mode ": ("all", "any"),
        "import dat": ("a.csv",),
    }.items():
        child.send(f"shmlog {line}\t\t")
        for offer in offers:
            child.expect_exact(offer)
        child.send("\x15")  # Ctrl-U: the line is gone
    child.close(force=True)
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_has_all_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_of(shell, capsys)
    for name, parser in commands_of(build_parser()).items():
        assert name in script
        for action in parser._get_optional_actions():
            longest = max(action.option_strings, key=len)
            assert (longest if shell in ("bash", "zsh", "powershell") else longest[2:]) in script
    assert main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script.removesuffix("\n")}


def test_help_loads_nothing_that_is_slow() -> None:
    script = (
        "import sys\nfrom shmlog.cli.main import main\n"
        "try: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    slow = {"numpy", "pyarrow", "pandas", "polars", "duckdb", "yaml", "tensorboard", "torch"}
    assert slow.isdisjoint(done.stderr.split())
