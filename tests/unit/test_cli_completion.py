"""``shmlog completion``: bash really completes; the other shells get the same in their own words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shmlog.cli.main import build_parser, main
from shmlog.cli.shells import SHELLS, commands_of
from tests.support.stores import add_run

ASK = """
source script.sh
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
$(complete -p shmlog | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a current folder with a store, and the script of bash in it."""
    add_run(tmp_path / "runs", "20261121-aaa")
    add_run(tmp_path / "runs", "20261121-bbb", "letters")
    add_run(tmp_path / "other", "elsewhere")
    (tmp_path / "data.csv").touch()
    (tmp_path / "script.sh").write_text(SHELLS["bash"](build_parser()))
    return tmp_path


def complete(folder: Path, *words: str) -> list[str]:
    """Return what bash offers when Tab is pressed behind the last word."""
    command = ["bash", "--norc", "-uc", ASK, "bash", "shmlog", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    return sorted(done.stdout.split("\n")[:-1])


@bash
def test_commands_and_options(folder: Path) -> None:
    commands = [command.name for command in commands_of(build_parser()) if command.name]
    assert complete(folder, "") == sorted(commands)
    assert complete(folder, "-") == ["--debug", "--help", "--version", "-h"]
    assert complete(folder, "com") == ["compare", "completion"]
    assert complete(folder, "prune", "--o") == ["--older-than"]
    assert complete(folder, "--debug", "prune", "--arch") == ["--archive"]


@bash
def test_values(folder: Path) -> None:
    assert complete(folder, "completion", "") == ["bash", "fish", "zsh"]
    assert complete(folder, "prune", "--mode", "a") == ["all", "any"]
    assert complete(folder, "export", "-f", "wide") == ["wide-csv"]
    assert complete(folder, "import", "dat") == ["data.csv"]
    (folder / "with blank.csv").touch()
    assert complete(folder, "import", "with") == ["with blank.csv"]
    assert complete(folder, "runs", "--limit", "") == [""], "a number is up to the user"


@bash
def test_runs_and_experiments(folder: Path) -> None:
    assert complete(folder, "show", "2026") == ["20261121-aaa", "20261121-bbb"]
    assert complete(folder, "show", "oth") == ["other"], "a folder"
    assert complete(folder, "rm", "--root", "other", "els") == ["elsewhere"]
    assert complete(folder, "runs", "") == ["digits", "letters"]
    assert complete(folder, "tag", "20261121-a") == ["20261121-aaa"]
    assert complete(folder, "prune", "--experiment", "d") == ["digits"]


@bash
def test_no_name_of_a_folder_is_run(folder: Path) -> None:
    """FAULTS 63: what a stranger has called a folder is data."""
    for name in ("$(touch pwned)", "`touch pwned`", "a;touch pwned", "-rf", "x\ny", "*"):
        hostile = folder / "runs" / "digits" / name
        hostile.mkdir()
        (hostile / "run.yaml").touch()
        (folder / "runs" / name).mkdir()
    assert "20261121-aaa" in complete(folder, "show", "")
    assert complete(folder, "prune", "--experiment", "") == ["-rf", "digits", "letters"]
    assert not (folder / "pwned").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_has_all_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command in commands_of(build_parser()):
        assert command.name in script
        for option in command.options:
            longest = max(option.flags, key=len)
            assert (f"-l {longest[2:]}" if shell == "fish" else longest) in script
    assert main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(SHELLS[shell](build_parser()))
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=30)


def test_help_loads_nothing_that_is_slow() -> None:
    script = (
        "import sys\nfrom shmlog.cli.main import main\n"
        "try: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    slow = {"numpy", "pyarrow", "pandas", "polars", "duckdb", "yaml", "tensorboard", "torch"}
    assert slow.isdisjoint(done.stderr.split())
