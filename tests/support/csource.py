"""The C sources as the build compiles them: for tests that compile them in other ways."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

from tests.support.tools import need

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "shmlog" / "csrc"
CORE, BINDING = CSRC / "core", CSRC / "python"
WARNINGS = ("-Wall", "-Wextra", "-Werror")


def core_sources() -> list[Path]:
    """Return the C files of ``_core`` that know nothing of Python."""
    return sorted(CORE.glob("*.c"))


def build_flags() -> list[str]:
    """Return the flags that pyproject.toml gives the compiler for ``_core``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    core = next(one for one in project["tool"]["setuptools"]["ext-modules"] if one["name"] == "shmlog._core")
    macros = [f"-D{name}={value}" for name, value in core["define-macros"]]
    return [*core["extra-compile-args"], *macros, "-fPIC"]


def python_flags() -> list[str]:
    """Return where Python.h lies."""
    return [f"-I{sysconfig.get_path('include')}"]


def run_tool(*command: str | Path) -> str:
    """Run a compiler or the like; fail the test with what it says."""
    need(str(command[0]))
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def mutated(folder: Path, name: str, right: str, wrong: str) -> Path:
    """Return a copy of the sources with one text replaced, in a folder of ``folder``."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    path = csrc / name
    text = path.read_text()
    assert text.count(right) == 1, f"the mistake is out of date: {right!r} in {name}"
    path.write_text(text.replace(right, wrong))
    return csrc
