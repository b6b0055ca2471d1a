"""Packages that shmlog does without until they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from shmlog.errors import MissingExtraError


def import_extra(package: str, what: str) -> Any:
    """Return a package that an extra of pyproject.toml lists.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    extra = {"duckdb": "sql", "shtab": "completion"}.get(package, package)
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtraError(f"{what} needs the package {package}: pip install 'shmlog[{extra}]'") from error
