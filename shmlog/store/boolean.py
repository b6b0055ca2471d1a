"""Expressions with ``and``, ``or``, ``not`` and parentheses: parsed, never evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from shmlog.errors import QueryError

LENGTH_MAX = 4096
DEPTH_MAX = 50

Predicate = Callable[[Any], bool]

_WORD = r"""(?P<word>(?:[^\s()"'%s]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+)"""
_PIECES = r"(?P<space>\s+)|(?P<parenthesis>[()])"
WORDS = re.compile(f"{_PIECES}|{_WORD % ''}", re.DOTALL)
COMPARISONS = re.compile(f"{_PIECES}|(?P<operator><=|>=|==|!=|[<>=])|{_WORD % '<>=!'}", re.DOTALL)


class Token(NamedTuple):
    """A piece of an expression, and where it begins."""

    kind: str
    text: str
    at: int

    def is_keyword(self, word: str) -> bool:
        """Whether this is ``word``, in capitals or not."""
        return self.kind == "word" and self.text.lower() == word


class ExpressionParser:
    """Turns an expression into a function that says whether an object meets it.

    Parameters
    ----------
    what : str
        The name of the expression in errors.
    pattern : re.Pattern
        `COMPARISONS`, or `WORDS`, for which ``=`` and the like are ordinary letters.
    term : callable
        Takes the parser in front of a term, takes the term from it, and returns the predicate.
    """

    def __init__(
        self, what: str, text: str, pattern: re.Pattern[str], term: Callable[[ExpressionParser], Predicate]
    ) -> None:
        self._what, self._text, self._term = what, text, term
        if not isinstance(text, str):
            raise TypeError(f"{what} must be a str that holds an expression, not {type(text).__name__}")
        if len(text) > LENGTH_MAX:
            raise QueryError(f"{what}: {len(text)} characters, the most is {LENGTH_MAX}")
        self._tokens = self._split(pattern)
        self._next = 0
        self._depth = 0

    def parse(self) -> Predicate:
        """Return the predicate that the whole expression means.

        Raises
        ------
        QueryError
            If the text is not an expression.
        """
        predicate = self._any()
        if self.peek().kind != "end":
            raise self.error("expected 'and', 'or' or the end")
        return predicate

    def peek(self) -> Token:
        """Return the next piece and stay in front of it."""
        return self._tokens[self._next]

    def take(self) -> Token:
        """Return the next piece and go behind it."""
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def error(self, expected: str, at: Token | None = None) -> QueryError:
        """Return the error that the next piece is not the expected one."""
        token = at or self.peek()
        actual = f"found {token.text!r:.60}" if token.kind != "end" else "it ends"
        return QueryError(f"{self._what}, character {token.at + 1}: {expected}, {actual}")

    def _split(self, pattern: re.Pattern[str]) -> list[Token]:
        tokens: list[Token] = []
        at = 0
        while at < len(self._text):
            match = pattern.match(self._text, at)
            if match is None:
                raise self.error("expected a name, a value or a closing quote", Token("", self._text[at:], at))
            if match.lastgroup != "space":
                tokens.append(Token(str(match.lastgroup), match[0], at))
            at = match.end()
        return [*tokens, Token("end", "", at)]

    def _any(self) -> Predicate:
        parts = [self._all()]
        while self.peek().is_keyword("or"):
            self.take()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda thing: any(part(thing) for part in parts)

    def _all(self) -> Predicate:
        parts = [self._one()]
        while self.peek().is_keyword("and"):
            self.take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda thing: all(part(thing) for part in parts)

    def _one(self) -> Predicate:
        token = self.peek()
        if not token.is_keyword("not") and token.text != "(":
            return self._term(self)
        self.take()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self.error(f"nested more than {DEPTH_MAX} levels deep")
        inner = self._one() if token.text != "(" else self._group()
        self._depth -= 1
        return inner if token.text == "(" else lambda thing: not inner(thing)

    def _group(self) -> Predicate:
        inner = self._any()
        if self.peek().text != ")":
            raise self.error("expected ')'")
        self.take()
        return inner


_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def is_quoted(text: str) -> bool:
    """Whether a word is one text in quotes."""
    return text[0] in "\"'" and len(text) > 1 and text[0] not in _ESCAPED.sub("", text[1:-1]) and text[-1] == text[0]


def unquote(text: str) -> str:
    """Return a word without the quotes around it, if there are any."""
    return _ESCAPED.sub(r"\1", text[1:-1]) if is_quoted(text) else text
