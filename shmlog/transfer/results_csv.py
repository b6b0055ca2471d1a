"""Lists of dicts as CSV and back: RFC 4180, sorted columns, no formulas.

Texts stand in quotes and numbers do not, so that a reader can tell the text ``"1"`` from the
number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.base.plain import plain
from shmlog.errors import CorruptDataError, RefusedError
from shmlog.transfer.cells import guard, unguard
from shmlog.transfer.values import flatten

_INTEGER = re.compile(r"-?[0-9]{1,4000}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|inf|nan)", re.ASCII)


class Cell(NamedTuple):
    """A cell, and whether it stood in quotes."""

    text: str
    is_quoted: bool


def to_rows(
    results: Sequence[Mapping[str, Any]], *, flatten_nested: bool, default: Callable[[Any], Any] | None = None
) -> list[dict[str, Any]]:
    """Return each result as a row of scalars; lists, and dicts that stay, are JSON.

    Raises
    ------
    ValueError
        If two fields of a result come to the same column.
    TypeError
        If JSON has nothing for a value.
    """
    rows = []
    for i, result in enumerate(results):
        fields = plain(result, None, default=default, words=False, name=f"results[{i}]")
        rows.append(_row(i, fields, flatten_nested))
    return rows


def _row(number: int, fields: Mapping[str, Any], flatten_nested: bool) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in flatten(fields) if flatten_nested else fields.items():
        if name in row:
            raise ValueError(f"results[{number}] has two fields {name!r}; pass flatten_nested=False")
        row[name] = json.dumps(value) if isinstance(value, (list, dict)) else value
    return row


def render(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a CSV file with all columns, sorted."""
    columns = sorted({name for row in rows for name in row})
    yield ",".join(_quote(guard(name)) for name in columns) + "\r\n"
    for row in rows:
        yield ",".join(_cell(row.get(name)) for name in columns) + "\r\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _quote(guard(value)) if isinstance(value, str) else repr(value)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@cache
def _cell_by(separator: str) -> re.Pattern[str]:
    """Return the form of a cell and what ends it; spaces may stand around quotes."""
    end = re.escape(separator)
    return re.compile(rf'(?: *"((?:[^"]|"")*)" *|([^"{end}\r\n]*))({end}|\r\n|\r|\n|\Z)')


def split(text: str, path: Path | str, separator: str = ",") -> Iterator[tuple[int, list[Cell]]]:
    """Yield the lines of a CSV file: the number of the line where a row begins, and its cells.

    Spaces around a cell are no part of it, unless they stand in quotes.

    Raises
    ------
    CorruptDataError
        If quotes are not as RFC 4180 has them: the cells after them can't be separated.
    """
    at, line, begin = 0, 1, 1
    row: list[Cell] = []
    cell = _cell_by(separator)
    while at < len(text):
        match = cell.match(text, at)
        if match is None:
            raise CorruptDataError(f"{path}: line {line}: quotes that do not fit together")
        quoted, bare, end = match.groups()
        row.append(Cell(quoted.replace('""', '"'), True) if quoted is not None else Cell(bare.strip(" "), False))
        line += match[0].count("\n")
        at = match.end()
        if end != separator:
            yield begin, row
            row, begin = [], line
        elif at == len(text):
            row.append(Cell("", False))
    if row:
        yield begin, row


def parse(text: str, path: Path | str) -> list[dict[str, Any]]:
    """Return the rows from which `render` made the text; empty cells are left out.

    Raises
    ------
    CorruptDataError
        If the text is not such a table.
    RefusedError
        If two columns have the same name.
    """
    lines = split(text, path)
    head = [unguard(cell.text) for cell in next(lines, (0, []))[1]]
    if len(set(head)) != len(head):
        raise RefusedError(f"{path}: two columns have the same name")
    rows = []
    for number, cells in lines:
        if len(cells) != len(head):
            if head == [""] or cells == [Cell("", False)]:
                cells = [Cell("", False)] * len(head)  # a row without any value
            else:
                raise CorruptDataError(f"{path}: line {number}: {len(cells)} cells in {len(head)} columns")
        row = zip(head, cells, strict=True)
        rows.append({name: value_of(cell) for name, cell in row if cell != ("", False)})
    return rows


def value_of(cell: Cell) -> Any:
    """Return the value of a cell as `render` writes it."""
    text = cell.text
    if cell.is_quoted:
        return unguard(text)
    if text in ("True", "False"):
        return text == "True"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
