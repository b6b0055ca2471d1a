"""Python objects to strict JSON, and the words for the numbers that JSON lacks."""

from __future__ import annotations

import enum
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

DEPTH_MAX = 100
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Keys = tuple[str | int, ...]


def word_of(value: float) -> str:
    """Return the word for NaN or an infinity."""
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def from_word(value: Any) -> Any:
    """Return the number that a word stands for, and anything else as it is."""
    return WORDS.get(value, value) if isinstance(value, str) else value


_to_plain: dict[type, Callable[[Any], Any]] = {}
_told: set[str] = set()  # the types that a warning has named


def register(cls: type, to_plain: Callable[[Any], Any]) -> None:
    """Have values of a class and its subclasses converted by a function, whose result is converted in turn."""
    _to_plain[cls] = to_plain


def described(value: Any) -> str:
    """Return the repr of a value; an address in it, which says nothing, goes, with one warning for each type."""
    import re  # rarely needed

    text = repr(value)
    stable = re.sub(r" at 0x[0-9a-fA-F]+", "", text)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if stable != text and kind not in _told:
        _told.add(kind)
        from shmlog.base.warn import warn_caller  # as above

        warn_caller(
            f"JSON has nothing for a {kind}: {stable!r} is written for it. Convert it, or register how with "
            f"shmlog.types.register_type({type(value).__qualname__}, to_plain)"
        )
    return stable


class _Rules(NamedTuple):
    unknown: Callable[[Any], Any] | None
    default: Callable[[Any], Any] | None
    words: bool
    name: str


def plain(
    value: Any,
    unknown: Callable[[Any], Any] | None = described,
    *,
    default: Callable[[Any], Any] | None = None,
    words: bool = True,
    name: str = "value",
) -> Any:
    """Return ``value`` as dicts, lists, str, int, float, bool and None.

    numpy and torch scalars and arrays, paths, dates, enums, bytes, dataclasses, sets and namespaces are converted.

    Parameters
    ----------
    unknown : callable, optional
        Converts anything else; with None, it is refused, and so are two keys whose texts are equal.
    default : callable, optional
        Converts anything else before that, to what is converted in turn.
    words : bool
        NaN and infinities become the strings of `WORDS`; else they stay floats.
    name : str
        What messages call the value.

    Raises
    ------
    TypeError
        If ``unknown`` is None, and JSON has nothing for a value in it.
    ValueError
        If it is nested more than 100 levels deep, or in itself, or two keys are refused.
    """
    return _plain(value, _Rules(unknown, default, words, name), ())


def fields_of(value: Any, name: str) -> dict[str, Any]:
    """Return the fields of a mapping, `argparse.Namespace` or dataclass as `plain` converts them; {} for None.

    Raises
    ------
    TypeError
        If it is not one of these; ``name`` is what the message calls it.
    """
    fields = plain({} if value is None else value)
    if not isinstance(fields, dict):
        raise TypeError(f"{name} must be a mapping, a Namespace or a dataclass, not {type(value).__name__}")
    return fields


def _plain(value: Any, rules: _Rules, where: Keys) -> Any:
    if len(where) > DEPTH_MAX:
        raise ValueError(f"{rules.name} is nested more than {DEPTH_MAX} levels deep, or in itself")
    if value is None or isinstance(value, bool):
        return value
    if _to_plain:
        for cls in type(value).__mro__:
            if cls in _to_plain:
                return _plain(_to_plain[cls](value), rules, (*where, cls.__name__))
    if isinstance(value, enum.Enum):
        return _plain(value.value, rules, (*where, "value"))
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return word_of(value) if rules.words and not math.isfinite(value) else float(value)
    if isinstance(value, Mapping):
        return _mapping(value, rules, where)
    if isinstance(value, (list, tuple)):
        return [_plain(item, rules, (*where, i)) for i, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return [_plain(item, rules, (*where, i)) for i, item in enumerate(sorted(value, key=repr))]
    return _foreign(value, rules, where)


def _mapping(value: Mapping[Any, Any], rules: _Rules, where: Keys) -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, item in value.items():
        text = str(key) if isinstance(key, str) else _text(key)
        if rules.unknown is None and text in items:
            raise ValueError(f"{_path(rules, where)}: two keys are {text!r} as text")
        items[text] = _plain(item, rules, (*where, text))
    return items


def _text(key: Any) -> str:
    converted = plain(key)
    return converted if isinstance(converted, str) else json.dumps(converted)


def _foreign(value: Any, rules: _Rules, where: Keys) -> Any:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    datetime: Any = sys.modules.get("datetime")  # slow to import; it is imported if a date was made
    if datetime is not None and isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return str(value.isoformat())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    dataclasses: Any = sys.modules.get("dataclasses")  # likewise
    if dataclasses is not None and dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name), rules, (*where, field.name)) for field in fields}
    tolist = getattr(value, "tolist", None)  # numpy and torch: scalars and arrays
    if tolist is not None and not isinstance(value, type):
        converted = tolist()
        if converted is not value:
            return _plain(converted, rules, (*where, "tolist()"))
    if isinstance(value, Sequence) and not isinstance(value, range):  # such as a list of OmegaConf
        return [_plain(item, rules, (*where, i)) for i, item in enumerate(value)]
    if type(value).__name__ == "Namespace" and hasattr(value, "__dict__"):
        return _mapping(vars(value), rules, where)
    if rules.default is not None:
        return _plain(rules.default(value), rules, (*where, "default()"))
    if rules.unknown is None:
        raise TypeError(f"{_path(rules, where)}: JSON has nothing for a {type(value).__name__}")
    return rules.unknown(value)


def _path(rules: _Rules, where: Keys) -> str:
    return rules.name + "".join(f"[{key!r}]" for key in where)


def dumps(data: Mapping[str, Any]) -> bytes:
    r"""Return the data of an event as one line of strict JSON in UTF-8.

    Lone surrogates are kept as ``\udXXX`` escapes, and every character that
    any reader takes for a line break is escaped.

    Raises
    ------
    TypeError
        If ``data`` is not a mapping.
    ValueError
        If it is nested too deeply.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"the data of an event must be a dict, not {type(data).__name__}")
    return json.dumps(plain(data), allow_nan=False, separators=(",", ":")).encode("ascii")
