"""What the processes that shmlog starts import: what the program can, but nothing in the place of Python's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.books import assert_books_balance
from tests.support.processes import TIMEOUT_S, only_run, run_script, wait_for_end

# Names of the standard library that a project may well have a file of.
OWN = (
    *("calendar", "copy", "dataclasses", "numbers", "platform", "queue", "random"),
    *("resource", "select", "signal", "token", "tokenize"),
)
ENDS_A_FLUSHER = "import sys\nif 'shmlog.flusher' in sys.orig_argv: raise SystemExit('a file of the project')\n"
PROGRAM = """
import sys
import shmlog
run = shmlog.init("imports", root=sys.argv[1])
run.log("x", 1.0)
print(run.finish())
"""


def test_files_of_the_project_do_not_end_the_flusher(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in OWN:
        (project / f"{name}.py").write_text(ENDS_A_FLUSHER)
    has_python_own = f"import sys, {', '.join(OWN)}\nsys.path.insert(0, {str(project)!r})\n"
    done = run_script(has_python_own + PROGRAM, tmp_path / "runs", cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr
    wait_for_end(only_run(tmp_path / "runs"))
    assert_books_balance(only_run(tmp_path / "runs"), offered=1)


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize"])
def test_what_the_program_does_not_run_at_its_start_runs_in_no_flusher(tmp_path: Path, name: str) -> None:
    """Beside a script it is not found by Python, which looks before the script's folder is on the path."""
    mark = tmp_path / "mark"
    (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    done = run_script(PROGRAM, tmp_path / "runs", cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr
    wait_for_end(only_run(tmp_path / "runs"))
    assert not mark.exists()


def test_what_the_program_has_put_on_its_path_the_flusher_finds(tmp_path: Path) -> None:
    """As where a bundle unpacks itself: neither the environment nor an installation says where shmlog is."""
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.path.extend(sys.argv[2:])\n" + PROGRAM)
    command = [sys.executable, "-I", script, tmp_path / "runs", *filter(None, sys.path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout == "True\n", done.stderr
    wait_for_end(only_run(tmp_path / "runs"))
    assert_books_balance(only_run(tmp_path / "runs"), offered=1)
