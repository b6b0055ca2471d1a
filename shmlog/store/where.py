"""Test the parameters and metrics of a run by a condition such as ``lr > 0.01 and metrics.loss.min < 2``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shmlog.base.times import moment
from shmlog.errors import QueryError, UnknownNameError
from shmlog.folder.root import some
from shmlog.folder.status import RunStatus
from shmlog.reader.model import RunRecord, flat_params
from shmlog.store.boolean import COMPARISONS, LENGTH_MAX, ExpressionParser, Predicate, is_quoted, unquote

MISSING = object()

STATISTICS = ("last", "min", "max", "count")
_TIMES = ("created_at", "started_at", "ended_at", "began_at")
_LISTS = ("tags", "argv", "problems")
_FIELDS = (
    "run_id", "experiment", "name", "status", "live", "attempt", *_TIMES, "duration_s", "paused_s", "description",
    "notes", "group", "parent", "job_name", "user", "host", "commit_id", "python", "trace_id", "span_id",
    "pinned", "complete", *_LISTS,
)  # fmt: skip
_NESTED = ("environment", "git", "counts")

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_WORDS = ("contains", "startswith")

_SEGMENT = re.compile(r"""(?:[^."']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+""", re.DOTALL)
_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


@dataclass(frozen=True)
class Subject:
    """A run that a condition is tested on.

    Attributes
    ----------
    record : RunRecord
    metrics : callable
        Returns for each metric its `STATISTICS`; called only if a condition asks for one.
    """

    record: RunRecord
    metrics: Callable[[], Mapping[str, Mapping[str, Any]]]


Field = Callable[[Subject], Any]


def parse_where(text: str) -> Predicate:
    """Return a function that says whether a `Subject` meets the condition ``text``.

    Raises
    ------
    QueryError
        If it can't be understood.
    """
    return ExpressionParser("where", text, COMPARISONS, _parse_comparison).parse()


def parse_field(text: str) -> Field:
    """Return a function that returns what a name stands for in a `Subject`, or `MISSING`.

    Parameters
    ----------
    text : str
        ``lr`` or ``params.lr``: a parameter, nested ones with dots between. ``metrics.loss``,
        ``metrics.loss.min``: the last or least value of a metric. ``run.user``: a field of the
        `RunRecord`; ``run.environment.cpus``: one of its environment. Parts with dots or blanks in
        them stand in quotes. ``user``: the field, in a run without a parameter of that name.

    Raises
    ------
    QueryError
        If there is no such field.
    """
    if len(text) > LENGTH_MAX:
        raise QueryError(f"{text!r:.60}…: {len(text)} characters, the most is {LENGTH_MAX}")
    parts = [unquote(part) for part in _SEGMENT.findall(text)]
    if not parts or text.startswith(".") or text.endswith(".") or ".." in text:
        raise QueryError(f"{text!r:.60} is not a name; write name or part.part")
    if parts[0] == "run" and len(parts) > 1:
        return _field_of_run(parts[1:])
    if parts[0] == "metrics" and len(parts) > 1:
        return _statistic(parts[1:])
    path = parts[1:] if parts[0] == "params" and len(parts) > 1 else parts
    default = (lambda subject: getattr(subject.record, text)) if text in _FIELDS else (lambda subject: MISSING)
    return lambda subject: default(subject) if (value := _param(subject, path)) is MISSING else value


def _param(subject: Subject, path: list[str]) -> Any:
    return _look_up(subject.record.params, path)


def _field_of_run(parts: list[str]) -> Field:
    name = ".".join(parts)
    if parts[0] in _NESTED and len(parts) > 1:
        return lambda subject: _look_up(subject.record.to_dict()[parts[0]] or {}, parts[1:])
    if name not in _FIELDS:
        nested = ", ".join(f"{field}.NAME" for field in _NESTED)
        raise UnknownNameError(f"run.{name:.40}: a run has no such field; it has {', '.join(_FIELDS)}, {nested}")
    return lambda subject: getattr(subject.record, name)


def _statistic(parts: list[str]) -> Field:
    statistic = parts.pop() if len(parts) > 1 and parts[-1] in STATISTICS else "last"
    name = ".".join(parts)
    return lambda subject: subject.metrics().get(name, {}).get(statistic, MISSING)


def _look_up(params: Any, path: list[str]) -> Any:
    whole = ".".join(path)
    if whole in params:
        return params[whole]
    for part in path:
        if not isinstance(params, dict) or part not in params:
            return MISSING
        params = params[part]
    return params


# ---- names that no run has ----


def names_in(text: str) -> list[str]:
    """Return the names in a condition, each once; raises QueryError."""
    names: list[str] = []

    def note(parser: ExpressionParser) -> Predicate:
        names.append(parser.peek().text)
        return _parse_comparison(parser)

    ExpressionParser("where", text, COMPARISONS, note).parse()
    return list(dict.fromkeys(names))


def unknown_names(names: Iterable[str], subjects: Sequence[Subject]) -> dict[str, list[str]]:
    """Return the names that none of the runs has, and for each the most similar ones that some have."""
    from difflib import get_close_matches

    unknown = [name for name in names if not _is_known(parse_field(name), name, subjects)]
    if not unknown:
        return {}
    known = {name for subject in subjects for name in (*flat_params(subject.record.params), *_metrics_of(subject))}
    known.update(_FIELDS)
    return {name: get_close_matches(name, known) for name in unknown}


def check_known(what: str, names: Iterable[str], subjects: Sequence[Subject]) -> None:
    """Raise UnknownNameError if none of the runs has a name; it lists what there is."""
    problem = problem_of(what, names, subjects)
    if problem is not None:
        raise UnknownNameError(problem)


def problem_of(what: str, names: Iterable[str], subjects: Sequence[Subject]) -> str | None:
    """Return which name none of the runs has, and what there is; None if there is none, or no run."""
    for name, similar in unknown_names(names, subjects).items() if subjects else ():
        if name.startswith("metrics."):
            there = sorted({f"metrics.{metric}" for subject in subjects for metric in subject.metrics()})
        else:
            there = sorted({param for subject in subjects for param in flat_params(subject.record.params)})
        perhaps = f"; perhaps {' or '.join(similar)} is meant" if similar else ""
        return (
            f"{what}: no run has {name!r:.60}{perhaps}; there are {some(there)}; beside them metrics.NAME.min "
            "(max, last, count) and run.FIELD"
        )
    return None


def _is_known(field: Field, name: str, subjects: Sequence[Subject]) -> bool:
    is_of_run = name.startswith("run.")  # a field that was not set is known all the same
    return is_of_run or any(field(subject) is not MISSING for subject in subjects)


def _metrics_of(subject: Subject) -> Iterator[str]:
    for name in subject.metrics():
        yield from (f"metrics.{name}", *(f"metrics.{name}.{statistic}" for statistic in STATISTICS))


# ---- comparisons ----


def _parse_comparison(parser: ExpressionParser) -> Predicate:
    name = parser.peek()
    if name.kind != "word" or is_quoted(name.text):
        raise parser.error("expected the name of a parameter, metrics.NAME.last or run.FIELD")
    field = parse_field(parser.take().text)
    compare = parser.take()
    relation = compare.text.lower()
    if compare.kind != "operator" and relation not in _WORDS:
        raise parser.error(f"expected one of {' '.join(_COMPARE)} {' '.join(_WORDS)}", compare)
    value = parser.peek()
    if value.kind != "word":
        raise parser.error("expected a value")
    operand = _literal(parser.take().text)
    of_field = _convert(name.text, relation, operand)
    test = _TESTS.get(relation) or _compare_by(_COMPARE[relation])

    def holds(subject: Subject) -> bool:
        is_param = name.text in _FIELDS and _param(subject, [name.text]) is not MISSING
        return _holds(test, relation, field(subject), operand if is_param else of_field)

    return holds


def _literal(text: str) -> Any:
    if is_quoted(text):
        return unquote(text)
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        return float(text) if text.isascii() and "_" not in text else text
    except ValueError:
        return text


def _convert(name: str, relation: str, operand: Any) -> Any:
    """Return an operand in the type of its field, if the name is, or may be, that of one: a time, a status."""
    field = name.removeprefix("run.")
    of_param = "" if name.startswith("run.") else f"; a parameter of that name is params.{name}"
    if field in _LISTS and relation != "contains" and operand is not None:
        raise QueryError(f"where: {name} is a list: write {name} contains {str(operand)!r:.60}{of_param}")
    try:
        if field in _TIMES and operand is not None:
            return moment(str(operand))
        return RunStatus.parse(operand) if field == "status" and relation not in _WORDS else operand
    except (TypeError, ValueError, AttributeError) as error:
        raise QueryError(f"where: {name}: {error}{of_param}") from error


def _holds(test: Callable[[Any, Any], bool], relation: str, actual: Any, operand: Any) -> bool:
    """Compare; a value that a run lacks equals null, and meets no other comparison."""
    if actual is MISSING or actual is None:
        return operand is None and relation in ("=", "==")
    if operand is None:
        return relation == "!="
    return test(actual, operand)


def _compare_by(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a comparison that holds only between values of one kind; others are just unequal."""

    def test(actual: Any, operand: Any) -> bool:
        if _kind(actual) != _kind(operand):
            return compare is operator.ne
        if _kind(actual) is bool and compare not in (operator.eq, operator.ne):
            return False
        return compare(actual, operand)

    return test


def _kind(value: Any) -> type:
    for kind in (bool, (int, float), str, datetime):
        if isinstance(value, kind):
            return kind[0] if isinstance(kind, tuple) else kind
    return type(value)


def _contains(actual: Any, operand: Any) -> bool:
    if isinstance(actual, str):
        return isinstance(operand, str) and operand in actual
    if isinstance(actual, (list, tuple, dict)):
        return any(_kind(item) == _kind(operand) and item == operand for item in actual)
    return False


def _starts_with(actual: Any, operand: Any) -> bool:
    return isinstance(actual, str) and isinstance(operand, str) and actual.startswith(operand)


_TESTS = {"contains": _contains, "startswith": _starts_with}
