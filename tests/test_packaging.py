"""pyproject.toml against the tree, and what is installed against pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

import shmlog
from shmlog.base.extras import EXTRAS

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTENSIONS = {found["name"]: found for found in PYPROJECT["tool"]["setuptools"]["ext-modules"]}


def tree(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "shmlog" / "csrc").glob(pattern))


def test_every_c_source_is_built() -> None:
    assert EXTENSIONS["shmlog._core"]["sources"] == [*tree("core/*.c"), *tree("python/*.c")]
    assert EXTENSIONS["shmlog._bulk"]["sources"] == [*tree("bulk/*.c"), "shmlog/csrc/core/crc32.c"]


def test_every_header_is_shipped_and_rebuilds() -> None:
    assert EXTENSIONS["shmlog._core"]["depends"] == [*tree("core/*.h"), *tree("python/*.h")]
    assert EXTENSIONS["shmlog._bulk"]["depends"] == [
        *tree("bulk/*.h"),
        "shmlog/csrc/core/crc32.h",
        "shmlog/csrc/core/format.h",
    ]


def test_the_pythons_claimed_are_the_pythons_required() -> None:
    claimed = [re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", c) for c in classifiers()]
    minors = [int(match[1]) for match in claimed if match]
    assert PYPROJECT["project"]["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))


def classifiers() -> list[str]:
    found: list[str] = PYPROJECT["project"]["classifiers"]
    return found


def test_ci_tests_the_pythons_claimed() -> None:
    claimed = set(re.findall(r":: (3\.\d+)$", "\n".join(classifiers()), re.MULTILINE))
    versions = re.search(r"^PYTHONS=\((.*)\)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert versions is not None
    assert set(versions[1].split()) == claimed


def test_the_version_stands_once_and_is_in_the_changelog() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    quoted = [path for path in (ROOT / "shmlog").rglob("*.py") if f'"{version}"' in path.read_text()]
    assert quoted == []


def test_setup_cfg_says_nothing_that_pyproject_could() -> None:
    lines = (ROOT / "setup.cfg").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["[build_ext]", "inplace = true"]


def test_extras_refer_to_extras_that_are_there() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    for requirements in extras.values():
        for requirement in requirements:
            for name in re.findall(r"^shmlog\[(\w+)\]", requirement):
                assert name in extras


def test_every_package_that_code_asks_for_comes_with_the_extra_that_the_error_names() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert any(requirement.startswith(f"{package}>=") for requirement in extras[extra]), package


@pytest.fixture
def installed() -> list[str]:
    """Return the files of the installed distribution; who tests the bare tree has none to check."""
    if Path(shmlog.__file__).parent == ROOT / "shmlog":
        pytest.skip("it is the tree that is tested")
    return [str(file) for file in distribution("shmlog").files or []]


def test_the_installed_package_is_the_one_tested(installed: list[str]) -> None:
    assert "shmlog/__init__.py" in installed
    assert Path(shmlog.__file__) == distribution("shmlog").locate_file("shmlog/__init__.py")


def test_the_installed_package_is_whole(installed: list[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "shmlog").rglob("*.py")}
    assert modules == {name for name in installed if name.startswith("shmlog/") and name.endswith(".py")}
    assert {"shmlog/py.typed", "shmlog/_core.pyi"} <= set(installed)
    assert [name for name in installed if re.fullmatch(r"shmlog/_core\..*\.so", name)]
    assert [name for name in installed if name.endswith("licenses/LICENSE")]


def test_sources_are_not_installed(installed: list[str]) -> None:
    assert [name for name in installed if "csrc" in name or name.startswith(("tests", "benchmarks"))] == []


def test_the_version_is_that_of_pyproject(installed: list[str]) -> None:
    del installed
    assert shmlog.__version__ == PYPROJECT["project"]["version"]
    done = subprocess.run(
        [sys.executable, "-m", "shmlog", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert PYPROJECT["project"]["version"] in done.stdout
