"""README and docs say what is true: their code runs, their links lead somewhere, their lists are whole."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import shmlog
from shmlog.cli.main import build_parser

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES_WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name_of)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    """The blocks of a page, one after the other, are a program."""
    program = tmp_path / "page.py"
    program.write_text("\n".join(BLOCK.findall(page.read_text())))
    environment = {name: value for name, value in os.environ.items() if name != "SHMLOG_RUN"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_begins_on_the_first_screen() -> None:
    assert README.read_text().splitlines().index("```python") < 20


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    table = load(ROOT / "benchmarks" / "table.py")
    for page, wanted in table.pages().items():
        assert page.read_text() == wanted, page


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_ci_finds_the_commands(heading: str) -> None:
    commands = load(ROOT / ".ci" / "readme_commands.py").commands(README.read_text(), heading)
    assert len(commands) == 1
    assert ".venv/bin/pip install" in commands[0]


def public(thing: type) -> list[str]:
    return [name for name in dir(thing) if not name.startswith("_")]


@pytest.mark.parametrize(
    "name",
    [
        *(f"shmlog.{name}" for name in shmlog.__all__),
        *(f"run.{name}" for name in public(shmlog.Run)),
        *(f"metric.{name}" for name in public(shmlog.Metric)),
        *(f"stored.{name}" for name in public(shmlog.StoredRun)),
        *(f"store.{name}" for name in public(shmlog.Store)),
        *(f"manager.{name}" for name in public(shmlog.CheckpointManager) if name != "for_run"),
    ],
)
def test_the_api_page_has(name: str) -> None:
    assert re.search(rf"`(?:\w+ = )?{re.escape(name)}\b", (ROOT / "docs" / "api.md").read_text())


def test_the_errors_page_has_every_error() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    for name in shmlog.errors.__all__:
        assert f"`{name}`" in page


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("command", sorted(commands()))
def test_the_command_page_has(command: str) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    section = re.search(rf"^## `shmlog {command}.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    everywhere = {"--help", "--json", "--debug", "--root"}
    for action in commands()[command]._actions:
        longest = max(action.option_strings, key=len, default="")
        assert longest in everywhere or longest in section[0], longest
