"""The word at the end of a run, on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shmlog
from tests.support.processes import only_run

RUN = """
import os, sys
import shmlog
run = shmlog.init("digits", root=sys.argv[1]{options})
run.log("loss", 0.5, step=1)
if os.fork() == 0:
    shmlog.log("loss", 0.25, step=2)
    shmlog.current().flush()
    sys.exit()
os.wait()
{end}
"""


def said(tmp_path: Path, *, options: str = "", end: str = "", on_terminal: bool = True, **env: str) -> str:
    """Return what a program writes on standard error, which is a terminal or not."""
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        subprocess.run(
            [sys.executable, "-c", RUN.format(options=options, end=end), tmp_path / "runs"], cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, **env}, stderr=theirs, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(theirs)
    text = b""
    try:
        while data := os.read(ours, 4096):
            text += data
    except OSError:
        pass  # so ends a terminal that nobody has open
    finally:
        os.close(ours)
    return text.decode().replace("\r\n", "\n")


def test_a_run_says_how_it_has_ended_and_where_it_lies(tmp_path: Path) -> None:
    first, *others = said(tmp_path, end="run.finish('failed', 'no data')").splitlines()
    run_dir = only_run(tmp_path / "runs")
    assert re.fullmatch(rf"shmlog: digits/{run_dir.name}: failed after \d+\.\d s: no data", first)
    assert others == [
        "  records  4, 0 dropped",
        f"  folder   {run_dir}",
        f"  look     shmlog show runs/digits/{run_dir.name}",
    ]


@pytest.mark.parametrize(("end", "status"), [("", "ended"), ("raise SystemExit(3)", "ended"), ("1 / 0", "failed")])
def test_the_exit_of_the_process_says_it_too(tmp_path: Path, end: str, status: str) -> None:
    text = said(tmp_path, end=end)
    assert text.count("shmlog: digits/") == 1
    assert f": {status} after " in text, "the code of the exit is not known yet"
    assert f"  folder   {only_run(tmp_path / 'runs')}\n" in text


@pytest.mark.parametrize("way", ["no terminal", "quiet", "variable"])
def test_it_is_silent(tmp_path: Path, way: str) -> None:
    text = said(
        tmp_path, end="run.finish()", on_terminal=way != "no terminal",
        options=", quiet=True" if way == "quiet" else "", SHMLOG_QUIET="1" if way == "variable" else "",
    )  # fmt: skip
    assert text == ""
    assert shmlog.load(only_run(tmp_path / "runs")).status == "success"


def test_arguments_go_before_the_variable(tmp_path: Path) -> None:
    assert "shmlog: " in said(tmp_path, end="run.finish()", options=", quiet=False", SHMLOG_QUIET="1")
    with pytest.raises(TypeError, match="quiet must be True or False, not 3"):
        shmlog.init(root=tmp_path, quiet=3)  # type: ignore[arg-type]
