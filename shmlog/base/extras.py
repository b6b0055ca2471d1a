"""Optional packages, which are imported only by features that need them."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, cast

from shmlog.errors import MissingExtraError

EXTRAS = {
    "duckdb": "sql",
    "pandas": "pandas",
    "polars": "polars",
    "shtab": "completion",
    "tensorboard": "tensorboard",
}
"""The extra of pyproject.toml that brings each package; other packages have none."""


class _NoPandas:
    """Finds pandas, and does not load it. None in `sys.modules` would not do: C code takes it for the module."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_there = name == "pandas" and PathFinder.find_spec(name) is not None
        return ModuleSpec(name, cast("Any", cls())) if is_there else None  # importlib.abc takes 10 ms to import

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        raise ModuleNotFoundError("shmlog's own programs do without pandas", name=module.__name__)


def do_without_pandas() -> None:
    """Have this process not import pandas, for programs of ours that need none.

    pyarrow imports it, where it is installed, to see whether a value that becomes an array is one of its types: that
    costs a quarter of a second of processor time, and 30 MB.
    """
    sys.meta_path.insert(0, _NoPandas)


def import_extra(module: str, what: str) -> Any:
    """Return a module of an optional package.

    Parameters
    ----------
    module : str
        Its full name, such as ``"tensorboard.compat.proto.event_pb2"``.
    what : str
        The feature that needs it; the message begins with this.

    Raises
    ------
    MissingExtraError
        If it can't be imported; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        extra = f"'shmlog[{EXTRAS[package]}]'" if package in EXTRAS else package
        raise MissingExtraError(f"{what}: needs the package {package}: pip install {extra} ({error})") from error
