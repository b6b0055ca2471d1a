"""Text for terminals: harmless, aligned, and at most as wide as the window."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

# C0 and C1 controls, line and paragraph separators, everything that reorders
# text, and lone surrogates, which no terminal can be sent.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_FIGURES = re.compile(
    r"(?:[-+0-9.,:eE%… ]{1,40}|[+-]?(?:nan|inf))(?: [kMGT]?B)?|[-0-9]{10} [:0-9]{5,8}(?: [A-Z]{1,5})?"
)
_CUT_TO = 12  # columns that a text keeps
_KEYS_CUT_TO = (24, 32, 48, 64, 96, 128)  # and a text that names its row: the first of these that keeps all names apart
_ALIGNED_TO = 200  # wider cells stick out, so that one of them does not widen every row of a file


def clean(text: object) -> str:
    """Return ``text`` with every character escaped that could act on a terminal."""
    return _HARMFUL.sub(lambda m: _escape(m[0]), str(text))


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def width(text: str) -> int:
    """Return how many columns ``text`` occupies."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, columns: int) -> str:
    """Return ``text`` cut in the middle to at most ``columns`` columns."""
    if width(text) <= columns:
        return text
    head = (columns - 1) // 2
    return f"{_fit(text, head)}…{_fit(text[::-1], columns - 1 - head)[::-1]}"


def _fit(text: str, columns: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _columns(character)
        if used > columns:
            return text[:index]
    return text


def window_columns() -> int | None:
    """Return the width of the terminal that stdout is, or None if it is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of a table, its columns two spaces apart.

    On a terminal, it is at most as wide as the window: first the widest texts are cut in the middle, but no figure;
    then the last columns are left out, and one more line names them. Elsewhere the table is whole.

    Parameters
    ----------
    head : sequence of str
        Titles.
    rows : iterable of sequences
        Cells; None is an empty cell. The first names the row: it is cut less than others, and never left out.
    left : sequence of str
        Titles of the columns that are aligned left; the others, such as numbers, are aligned right.
    """
    titles = [clean(title) for title in head]
    lines = [titles, *([_cell(cell) for cell in row] for row in rows)]
    columns = window_columns()
    whole = [max(width(line[i]) for line in lines) for i in range(len(titles))]
    widths = [min(wide, _ALIGNED_TO) for wide in whole] if columns is None else _widths(lines, whole, columns)
    is_left = [title in left for title in head]
    if columns is not None:
        keys = _cut_apart([line[0] for line in lines], widths[0]) if widths else []
        lines = [[key, *map(shorten, line[1:], widths[1:])] for key, line in zip(keys, lines, strict=True)]
        lines[0] = [lines[0][0], *_cut_titles(titles[1:], widths[1:])]
    for line in lines:
        yield "  ".join(map(_pad, line, widths, is_left)).rstrip()
    missing = titles[len(widths) :]
    if missing and columns is not None:
        yield shorten(f"… {plural(len(missing), 'more column')}: {', '.join(missing)}", columns)


def _widths(lines: Sequence[Sequence[str]], whole: Sequence[int], columns: int) -> list[int]:
    """Return the widths of the columns that are shown; ``whole`` has the widths of their widest cells."""
    titles = lines[0]
    least = [
        max(min(wide, _CUT_TO), *(width(line[i]) for line in lines[1:] if is_figure(line[i])), 0)
        for i, wide in enumerate(whole)
    ]
    cut = _cut_keys(titles)
    least = [max(narrow, min(width(title), cut)) for narrow, title in zip(least, titles, strict=True)]
    least[:1] = [max(narrow, _cut_keys([line[0] for line in lines])) for narrow in least[:1]]
    count = len(least)
    while count > 1 and _total(least[:count]) > columns:
        count -= 1
    widths = list(whole[:count])
    for most in range(min(max(widths, default=0), columns), 0, -1):
        if _total(widths) <= columns:
            break
        widths = [max(min(wide, most), narrow) for wide, narrow in zip(whole, least[:count], strict=False)]
    return widths if _total(widths) <= columns else [columns]


def _cut_apart(texts: Sequence[str], columns: int) -> list[str]:
    """Return texts cut to ``columns``; different ones stay different."""
    cut: dict[str, str] = {}
    taken: set[str] = set()
    for text in dict.fromkeys(texts):
        cut[text] = _free(text, columns, taken)
    return [cut[text] for text in texts]


def _cut_titles(titles: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the titles of columns, cut to their widths; different ones stay different."""
    taken: set[str] = set()
    return [_free(title, columns, taken) for title, columns in zip(titles, widths, strict=False)]


def _free(text: str, columns: int, taken: set[str]) -> str:
    """Return a text cut to ``columns``, with a number at its end if that is taken already; add it to what is taken."""
    marks = (f"~{number}" for number in range(2, 10 ** max(columns - 2, 0)))
    numbered = (shorten(text, max(columns - len(mark), 1)) + mark for mark in marks)
    shown = next((cut for cut in chain([shorten(text, columns)], numbered) if cut not in taken), shorten(text, columns))
    taken.add(shown)
    return shown


def _cut_keys(keys: Sequence[str]) -> int:
    """Return how wide the names of the rows must be so that people can tell them apart."""
    for columns in _KEYS_CUT_TO:
        if len({shorten(key, columns) for key in keys}) == len(set(keys)):
            break
    return min(columns, max(map(width, keys)))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def is_figure(cell: str) -> bool:
    """Whether a cell is a number, a time or a size, which would mean something else if it were cut."""
    return _FIGURES.fullmatch(cell) is not None


def paragraph(title: str, text: str, indent: int) -> Iterator[str]:
    """Yield a title and a text beside it, wrapped to the window."""
    columns = window_columns()
    if columns is None or indent + width(text) <= columns:
        yield f"{title:<{indent}}{text}"
    else:
        below = " " * min(indent, columns // 3)
        yield from wrap(text, columns, initial_indent=f"{title:<{indent}}", subsequent_indent=below)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else clean(value)


def _pad(text: str, columns: int, left: bool) -> str:
    blank = " " * (columns - width(text))  # empty if the text is wider
    return text + blank if left else blank + text


def value(number: object, columns: int = 40) -> str:
    """Return a logged value for people: a float in six digits, and a text cut to ``columns`` on a terminal."""
    if number is None:
        return ""
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, float):
        return f"{number:.6g}"
    return str(number) if window_columns() is None else shorten(clean(number), columns)


def statistic(number: object) -> str:
    """Return the last, least or largest value of a metric for people; a dash if it has none, as if all are NaN."""
    return "-" if number is None else value(number)


def size(count: int) -> str:
    """Return a number of bytes for people, such as ``1.4 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.3g} {unit}" if unit != "B" else f"{count} B"
        amount /= 1000
    return f"{amount:.3g} TB"


def local_time(when: datetime | None, seconds: bool = False) -> str:
    """Return a time in the time zone of the machine, with that zone, such as ``2026-11-21 04:15 CET``."""
    return "" if when is None else f"{when.astimezone():%Y-%m-%d %H:%M{':%S' if seconds else ''} %Z}"


def plural(count: int, noun: str) -> str:
    """Return ``count`` and ``noun``, in the plural if need be, such as ``1,200 metrics``."""
    end = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{end}"


def relative(path: os.PathLike[str]) -> str:
    """Return ``path`` relative to the current folder if that is shorter, else absolute."""
    full = os.path.abspath(path)
    try:
        short = os.path.relpath(full)
    except OSError:  # the current folder is gone
        return full
    return short if len(short) < len(full) else full


def or_one_of(names: Sequence[str]) -> str:
    """Return the end of a sentence that offers other names; empty if there are none."""
    return f"; perhaps {' or '.join(names)} is meant" if names else ""
