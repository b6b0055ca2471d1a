"""Imports point downwards only, and a process that only logs imports next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "shmlog"

# Lowest first. A module imports from lower rows and from its own package.
LAYERS = [
    ["errors", "_core", "_bulk"],
    ["base"],
    ["storage"],
    ["segment", "reader"],
    ["flusher"],
    ["run", "store"],
    ["checkpoint", "analysis", "transfer"],
    ["shmlog"],  # the façade, shmlog/__init__.py
    ["demo"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Closer than the rows say: the read side works where there is no core.
ONLY = {
    "base": {"errors"},
    "reader": {"errors", "base", "storage"},
    "storage": {"errors", "base", "_bulk"},
    "store": {"errors", "base", "storage", "reader"},
    "analysis": {"errors", "base", "storage", "reader", "store"},
    "transfer": {"errors", "base", "storage", "reader", "store"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    """Return the row entry that the module at ``path`` belongs to."""
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    return "shmlog" if name == "__init__" else name


def named(module: str, names: list[str]) -> Iterator[str]:
    """Return the row entries that ``from module import names`` reaches."""
    parts = module.split(".")
    if len(parts) > 1:
        yield parts[1]
    else:
        for name in names:
            is_ours = (
                (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() or (PACKAGE / f"{name}.pyi").exists()
            )
            yield name if is_ours else "shmlog"


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and row entry of each import of ours, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "shmlog":
                    yield node.lineno, [*alias.name.split("."), "shmlog"][1]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            if node.module and node.module.split(".")[0] == "shmlog":
                for target in named(node.module, [alias.name for alias in node.names]):
                    yield node.lineno, target


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    layer = layer_of(path)
    for line, target in imports(ast.parse(path.read_text())):
        if target == layer:
            continue
        where = f"{path.relative_to(PACKAGE.parent)}:{line}: {layer} imports {target}"
        assert LEVEL[target] < LEVEL[layer], where
        assert target in ONLY.get(layer, LEVEL), where


def test_every_module_has_a_row() -> None:
    assert {layer_of(path) for path in MODULES} <= set(LEVEL)


def test_packages_on_the_way_to_logging_are_empty() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert path.parent == PACKAGE or path.read_text().strip() == "", path


def loaded_by(code: str, folder: Path) -> set[str]:
    """Return the packages in ``sys.modules`` after ``code``."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


LOG = """
import shmlog
run = shmlog.init("imports", root=".")
run.metric("loss")(0.5, 1)
shmlog.log({"loss": 0.25, "text": "x"}, step=2)
run.event("checked", {"all": True})
run.flush()
"""


def test_reading_needs_no_shared_memory(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LOG + "run.finish()"], cwd=tmp_path, timeout=60, check=True)
    read = """
import sys
sys.modules["posix_ipc"] = sys.modules["shmlog._core"] = None  # as if they were not installed
import pathlib, shmlog
(path,) = pathlib.Path("imports").iterdir()
assert shmlog.load(path).metrics("loss").num_rows == 2
"""
    subprocess.run([sys.executable, "-c", read], cwd=tmp_path, timeout=60, check=True)


RESUME = """
run.finish()
import logging
logging.getLogger().addHandler(shmlog.LoggingHandler())
run = shmlog.init(root=".", resume=run, config={"lr": 0.5}, console=True)
logging.warning("again")
run.finish()
"""


@pytest.mark.parametrize("code", ["import shmlog", LOG, LOG + RESUME], ids=["import", "log", "resume"])
def test_logging_needs_no_numpy_no_pyarrow_no_yaml(code: str, tmp_path: Path) -> None:
    loaded = loaded_by(code, tmp_path) - loaded_by("", tmp_path)
    assert "shmlog" in loaded
    assert loaded - sys.stdlib_module_names <= {"shmlog", "posix_ipc"}
