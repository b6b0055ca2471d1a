"""Cells of CSV files of others as values: what separates them, and which numbers, bools and texts they are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
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
_DIGITS_MAX = 4000
_INTEGER = re.compile(rf"[+-]?[0-9]{{1,{_DIGITS_MAX}}}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE
)
_WITH_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?", re.ASCII)
_WITH_POINT = re.compile(r"[+-]?[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?", re.ASCII)
_EUROPEAN = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+(?:[eE][+-]?[0-9]+)?", re.ASCII)
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

    A cell of another form among numbers is a text. Among numbers, ``NA``, ``null``, ``nan`` and the like are no
    values, as empty cells are. In a file that shmlog has written, ``is_ours``, texts stand in quotes, and ``nan`` is
    NaN.

    Attributes
    ----------
    remark : str or None
        How cells were read that could be read otherwise.
    """

    def __init__(self, cells: Sequence[Cell], *, has_comma: bool = False, is_ours: bool = False) -> None:
        self._cells = cells
        self._has_comma = has_comma
        self._is_ours = is_ours
        texts = [self._point(cell.text) for cell in cells if not (is_ours and cell.is_quoted)]
        present = [text for text in texts if text.lower() not in _MISSING]
        numbers = [text for text in present if _NUMBER.fullmatch(text)]
        self._is_of_ints = all(map(_INTEGER.fullmatch, numbers))
        self._missing = _MISSING - {"nan"} if is_ours or not present else _MISSING
        self.remark: str | None = None
        if len(numbers) * 2 > len(present) or not present:
            self._convert: Any = self._number
            self._remark_on([text for text in texts if text and text.lower() in self._missing], "are no values")
            self._remark_on([text for text in numbers if _is_too_large(text)], "are too large for a float: infinite")
        elif all(text.lower() in ("true", "false") for text in present):
            self._convert = _bool
        else:
            self._convert = None
            self._remark_on(numbers, "are read as texts, as most of the column are")

    def _remark_on(self, texts: Sequence[str], what: str) -> None:
        if texts:
            remark = f"{len(texts)} of {len(self._cells)} cells, such as {texts[0]!r}, {what}"
            self.remark = f"{self.remark}; {remark}" if self.remark else remark

    def _point(self, text: str) -> str:
        """Return a text, with a point where it has a decimal comma."""
        if self._has_comma and _EUROPEAN.fullmatch(text):
            text = text.replace(".", "")
        return text.replace(",", ".") if self._has_comma and _WITH_COMMA.fullmatch(text) else text

    def value(self, row: int) -> Any:
        """Return the value of a row, or None."""
        cell = self._cells[row]
        if self._convert is None or (self._is_ours and cell.is_quoted):
            return self.text(row)
        text = self._point(cell.text)
        return None if text.lower() in self._missing else self._convert(text)

    def text(self, row: int) -> str | None:
        """Return what stands in the cell of a row, or None."""
        cell = self._cells[row]
        return unguard(cell.text) if cell.text or cell.is_quoted else None

    def values(self) -> list[Any]:
        """Return the values of all rows that have one."""
        return [value for value in map(self.value, range(len(self._cells))) if value is not None]

    def _number(self, text: str) -> Any:
        """Return an int in a column of ints, and where a float would not be exact; else a float."""
        if not _NUMBER.fullmatch(text) or (len(text) > _DIGITS_MAX and text.lstrip("+-").isdigit()):
            return unguard(text)
        if not _INTEGER.fullmatch(text):
            return float(text)
        number = int(text)
        is_exact = abs(number) < 1 << 53 or (number in INT64 and int(float(number)) == number)
        return float(number) if is_exact and not self._is_of_ints else number


def _is_too_large(number: str) -> bool:
    return not _INTEGER.fullmatch(number) and "n" not in number.lower() and math.isinf(float(number))


def _bool(text: str) -> bool:
    return text.lower() == "true"


def has_decimal_comma(columns: Mapping[str, Sequence[Cell]], lines: Sequence[int], path: Path) -> bool:
    """Return whether the numbers of a file have a comma for the point; ``lines`` are those at which its rows begin.

    Raises
    ------
    RefusedError
        If a number with a comma can be read in two ways.
    """
    points, commas = list[tuple[str, str]](), list[tuple[str, str]]()
    for name, cells in columns.items():
        texts = [(cell.text, f"line {line}, column {name!r}") for cell, line in zip(cells, lines, strict=True)]
        texts = [(text, where) for text, where in texts if text.lower() not in _MISSING]
        with_comma = [(text, where) for text, where in texts if _may_have_comma(text)]
        if 2 * (len(with_comma) + sum(_NUMBER.fullmatch(text) is not None for text, _ in texts)) > len(texts):
            points += [(text, where) for text, where in texts if _WITH_POINT.fullmatch(text)][:1]
            commas += with_comma
    if not commas:
        return False
    certain = [comma for comma in commas if not _THOUSANDS.fullmatch(comma[0])]
    if certain and not points:
        return True
    text, where = (certain or commas)[0]
    if certain:
        point, where_else = points[0]
        fault = f"{text!r} ({where}) has a decimal comma, {point!r} ({where_else}) a decimal point"
    else:
        fault = f"{text!r} ({where}) can be read as {text.replace(',', '.', 1)} or {text.replace(',', '')}"
    raise RefusedError(f"{path}: {fault}; write numbers with a point alone")


def _may_have_comma(text: str) -> bool:
    return any(form.fullmatch(text) for form in (_WITH_COMMA, _THOUSANDS, _EUROPEAN))
