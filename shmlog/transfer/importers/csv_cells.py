"""Cells of CSV files of others as values: what separates them, and which numbers, bools and texts they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from shmlog.errors import CorruptDataError, RefusedError
from shmlog.records.values import INT64
from shmlog.transfer.cells import unguard
from shmlog.transfer.results_csv import Cell, split

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_LINES_LOOKED_AT = 200
_MISSING = frozenset(("", "na", "n/a", "#n/a", "nan", "null", "none"))  # in any case of their letters
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE
)
_WITH_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?", re.ASCII)
_WITH_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+", re.ASCII)


def separator_of(text: str, path: Path) -> str:
    """Return what separates the cells of a file: the only separator that gives its first lines equally many.

    Raises
    ------
    RefusedError
        If two do.
    """
    shares = {separator: _share_that_fits(text, separator, path) for separator in _SEPARATORS}
    best = max(shares.values())
    if not best:
        return ","  # a single column
    likely = [separator for separator, share in shares.items() if share == best]
    if len(likely) > 1:
        readings = " or ".join(f"by a {_SEPARATORS[separator]}" for separator in likely)
        raise RefusedError(
            f"{path}: its cells may be separated {readings}; write it with commas, and quotes around texts"
        )
    return likely[0]


def _share_that_fits(text: str, separator: str, path: Path) -> float:
    """Return the share of the first rows that have as many cells as the head; 0 if that has one."""
    try:
        head, *rows = [cells for _, cells in islice(split(text, path, separator), _LINES_LOOKED_AT)]
    except (ValueError, CorruptDataError):
        return 0.0
    if len(head) < 2:
        return 0.0
    rows = [cells for cells in rows if any(cell.text for cell in cells)]
    return (1 + sum(len(cells) == len(head) for cells in rows)) / (1 + len(rows))


class Column:
    """A column whose cells are numbers, bools or texts: what most of them are.

    A cell of another form among numbers or bools is a text. Among numbers, ``NA``, ``null``, ``nan`` and the like are
    no values, as empty cells are; ``has_nan`` says that the file is of shmlog, which writes NaN as ``nan``.
    """

    def __init__(self, cells: Sequence[Cell], *, has_comma: bool = False, has_nan: bool = False) -> None:
        self._cells = cells
        self._has_comma = has_comma
        self._missing = _MISSING - {"nan"} if has_nan else _MISSING
        texts = [text for text in map(self._text, cells) if text.lower() not in self._missing]
        numbers = [text for text in texts if _NUMBER.fullmatch(text)]
        self._is_of_ints = all(map(_INTEGER.fullmatch, numbers))
        if len(numbers) * 2 > len(texts):
            self._convert: Any = self._number
        elif texts and all(text.lower() in ("true", "false") for text in texts):
            self._convert = _bool
        else:
            self._convert = None

    def _text(self, cell: Cell) -> str:
        """Return the text of a cell, with a point where it has a decimal comma."""
        is_number = self._has_comma and _WITH_COMMA.fullmatch(cell.text)
        return cell.text.replace(",", ".") if is_number else cell.text

    def value(self, row: int) -> Any:
        """Return the value of a row, or None."""
        if self._convert is None:
            return self.text(row)
        text = self._text(self._cells[row])
        return None if text.lower() in self._missing else self._convert(text)

    def text(self, row: int) -> str | None:
        """Return what stands in the cell of a row, or None."""
        cell = self._cells[row]
        return unguard(cell.text) if cell.text or cell.is_quoted else None

    def _number(self, text: str) -> Any:
        """Return an int in a column of ints, and where a float would not be exact; else a float."""
        if not _NUMBER.fullmatch(text):
            return unguard(text)
        if not _INTEGER.fullmatch(text):
            return float(text)
        number = int(text)
        return number if self._is_of_ints or (number in INT64 and int(float(number)) != number) else float(number)


def _bool(text: str) -> bool:
    return text.lower() == "true"


def has_decimal_comma(columns: Iterable[Sequence[Cell]], path: Path) -> bool:
    """Return whether the numbers of a file have a comma for the point.

    Raises
    ------
    RefusedError
        If a number with a comma can be read in two ways.
    """
    points, commas = list[str](), list[str]()
    for cells in columns:
        texts = [cell.text for cell in cells if cell.text.lower() not in _MISSING]
        points += [text for text in texts if _WITH_POINT.fullmatch(text)][:1]
        if all(_WITH_COMMA.fullmatch(text) or _THOUSANDS.fullmatch(text) or _INTEGER.fullmatch(text) for text in texts):
            commas += [text for text in texts if "," in text]
    if not commas:
        return False
    certain = [text for text in commas if not _THOUSANDS.fullmatch(text)]
    if certain and not points:
        return True
    text = (certain or commas)[0]
    readings = f"{text.replace(',', '.')} or {text.replace(',', '')}"
    beside = f", beside {points[0]!r}" if points else ""
    raise RefusedError(f"{path}: {text!r}{beside} can be read as {readings}; write numbers with a point alone")
