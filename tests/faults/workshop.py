"""A copy of the tree in which a mistake is made, built as pyproject.toml says, and tested."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = ("shmlog", "tests", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "*.pyc")
SECONDS = 240.0
GRACE_S = 60.0
ASSERTED = re.compile(r"^E?[\s|]*(AssertionError|assert |Failed: )", re.MULTILINE)


@dataclass(frozen=True)
class Mutation:
    """A deliberate mistake.

    Attributes
    ----------
    name : str
        How it is asked for.
    file : str
        Path below ``shmlog``.
    right, wrong : str
        What stands there exactly once, and what it is replaced by.
    breaks : str
        The promise that it breaks.
    test : str
        The quickest test that fails, as pytest calls it, below ``tests``.
    """

    name: str
    file: str
    right: str
    wrong: str
    breaks: str
    test: str

    @property
    def is_in_c(self) -> bool:
        """Whether the extension has to be built for it."""
        return self.file.endswith((".c", ".h"))

    def applied_to(self, text: str) -> str:
        """Return the text of its file with the mistake in it.

        Raises
        ------
        ValueError
            If the file has changed since the mistake was thought of.
        """
        if text.count(self.right) != 1:
            raise ValueError(f"{self.name}: out of date, {self.file} has {text.count(self.right)} times {self.right!r}")
        return text.replace(self.right, self.wrong)


class Verdict(NamedTuple):
    """Whether a test noticed, what it said, and whether all passed."""

    caught: bool
    said: str
    passed: bool = False
    seconds: float = 0.0


class BuildError(Exception):
    """The compiler refuses: a mistake that no test could meet."""


class Workshop:
    """A copy of the tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def copy_of(cls, source: Path, folder: Path) -> Workshop:
        """Copy a tree, with what was compiled in it."""
        folder.mkdir()
        for name in (*COPIED, "objects"):
            path = source / name
            if path.is_dir():
                shutil.copytree(path, folder / name, ignore=LEFT_OUT)
            elif path.exists():
                shutil.copy2(path, folder / name)
        return cls(folder)

    def mutate(self, mutation: Mutation) -> None:
        """Make the mistake."""
        path = self.folder / "shmlog" / mutation.file
        path.write_text(mutation.applied_to(path.read_text()))

    # ---- building ----

    def build(self) -> None:
        """Compile what has changed, and link the extensions beside their package."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())
        for extension in project["tool"]["setuptools"]["ext-modules"]:
            objects = [self._compile(extension, Path(source)) for source in extension["sources"]]
            target = extension["name"].replace(".", "/") + sysconfig.get_config_var("EXT_SUFFIX")
            self._run_compiler("-shared", *objects, "-o", target, "-lpthread")

    def _compile(self, extension: dict[str, Any], source: Path) -> str:
        made = self.folder / "objects" / extension["name"] / f"{source.stem}.o"
        made.parent.mkdir(parents=True, exist_ok=True)
        newest = max((self.folder / name).stat().st_mtime for name in (str(source), *extension["depends"]))
        if not made.exists() or made.stat().st_mtime < newest:
            macros = [f"-D{name}={value}" for name, value in extension["define-macros"]]
            flags = [*extension["extra-compile-args"], *macros, "-fPIC", f"-I{sysconfig.get_path('include')}"]
            self._run_compiler(*flags, "-c", str(source), "-o", str(made))
        return str(made)

    def _run_compiler(self, *arguments: str) -> None:
        done = subprocess.run(["cc", *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(done.stderr)

    # ---- testing ----

    def test(self, tests: list[str], seed: int) -> Verdict:
        """Run some tests; caught means that one of them has failed by an assertion."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "pytest", *(f"tests/{test}" for test in tests), "-q", "-x", "-p", "no:cacheprovider",
            f"--seed={seed}", f"--hypothesis-seed={seed}", f"--basetemp={self.folder / 'tmp'}", f"--junitxml={report}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        begun = time.monotonic()
        with open(self.folder / "output", "w+") as output:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
            code = _wait(process)
            output.seek(0)
            said = output.read()
        return Verdict(*_judge(code, report, said), passed=code == 0, seconds=time.monotonic() - begun)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit status; None if it takes too long and has to be interrupted."""
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest cleans up then
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return None


def _judge(code: int | None, report: Path, said: str) -> tuple[bool, str]:
    """Return whether an assertion failed: an import that fails, a hang or a crash shows no promise broken."""
    if code is None:
        return False, f"no end within {SECONDS:g} s"
    if code == 0:
        return False, "all tests pass"
    if code != 1 or not report.exists():
        return False, f"pytest ended with {code}:\n{said}"
    told = ElementTree.parse(report)
    # What fails while cleaning up counts only if the test itself has passed.
    for found in [*told.iter("failure")] or [*told.iter("error")]:
        if ASSERTED.search(f"{found.get('message')}\n{found.text}"):
            return True, str(found.get("message")).splitlines()[0]
    return False, f"failed, though by no assertion:\n{said}"
