"""Test the tags of a run by an expression such as ``arm:tiered AND (study:1 OR study:2)``."""

from __future__ import annotations

from collections.abc import Iterable

from shmlog.folder.annotations import check_tags
from shmlog.store.boolean import WORDS, ExpressionParser, Predicate, unquote

_KEYWORDS = ("and", "or")


def parse_tags(query: str | Iterable[str]) -> Predicate:
    """Return a function that says whether the tags of a run meet a query.

    Parameters
    ----------
    query : str or iterable of str
        An expression of tags, ``AND``, ``OR``, ``NOT`` and parentheses, where a tag with
        blanks or parentheses in it stands in quotes; or tags that must all be there.

    Raises
    ------
    QueryError
        If it can't be understood.
    """
    if isinstance(query, str):
        return ExpressionParser("tags", query, WORDS, _parse_tag).parse()
    all_of = frozenset(check_tags(query))
    return lambda tags: all_of.issubset(tags)


def _parse_tag(parser: ExpressionParser) -> Predicate:
    token = parser.peek()
    if token.kind != "word" or token.text.lower() in _KEYWORDS:
        raise parser.error("expected a tag")
    tag = unquote(parser.take().text)
    return lambda tags: tag in tags
