"""The rows of docs/coming_from.md, and what tries them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import shmlog

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
NOT_HERE = "not here"

Test = TypeVar("Test", bound=Callable[..., Any])


class Row(NamedTuple):
    """A row of the page, without its backquotes."""

    theirs: str
    ours: str
    remark: str


class Kept(NamedTuple):
    """A store of two finished runs."""

    root: Path
    first: Path
    second: Path

    @property
    def store(self) -> shmlog.Store:
        return shmlog.Store(self.root)

    @property
    def stored(self) -> shmlog.StoredRun:
        return shmlog.load(self.first)


def row(theirs: str) -> Callable[[Test], Test]:
    """Mark a test as that of the row whose first column begins with these words; see test_page.py."""

    def mark(test: Test) -> Test:
        assert test.__name__.startswith("test_"), f"{theirs}: nobody runs it"
        return test

    return mark


def rows() -> list[Row]:
    """Return all rows of the page."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "|---" not in line]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.replace("`", ""))[1:-1]] for line in lines]
    return [Row(*three) for three in cells if three[0] != "theirs"]


def codes() -> set[str]:
    """Return what stands in backquotes in the middle columns."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {code for line in lines for code in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", line)[2])}
