"""Records as JSON and back; the type of a field says how to read it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, Self, get_args, get_origin, get_type_hints

from shmlog.base.plain import plain
from shmlog.base.times import moment, rfc3339
from shmlog.errors import CorruptDataError
from shmlog.folder.status import RunStatus


class Record:
    """Base of the dataclasses that describe what a store holds."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as dicts, lists, str, int, float, bool and None."""
        return {name: _to_json(getattr(self, name)) for name in readers(type(self))}

    def to_json(self) -> str:
        """Return the record as one line of strict JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` turned into ``data``.

        Raises
        ------
        CorruptDataError
            If a field is missing or has a wrong type or value.
        """
        if not isinstance(data, Mapping):
            raise CorruptDataError(f"{cls.__name__}: expected a JSON object, found {type(data).__name__}")
        fields = {}
        for name, reader in readers(cls).items():
            if name in data:
                try:
                    fields[name] = reader.read(data[name])
                except (TypeError, ValueError, OverflowError) as error:
                    raise CorruptDataError(f"{cls.__name__}: {name}: {error}") from error
        try:
            return cls(**fields)
        except TypeError as error:
            raise CorruptDataError(f"{cls.__name__}: {error}") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the record that `to_json` turned into ``text``.

        Raises
        ------
        CorruptDataError
            If it is not a JSON object, or a field has a wrong type or value.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CorruptDataError(f"{cls.__name__}: not JSON ({error})") from error


class Reader(NamedTuple):
    """How to read a field: the types that its JSON may have, and how to convert it."""

    types: frozenset[type]  # empty: any type
    convert: Callable[[Any], Any] | None = None

    def read(self, value: Any) -> Any:
        """Return the value of the field; raises TypeError or ValueError if ``value`` does not fit."""
        if self.types and type(value) not in self.types:
            expected = " or ".join(sorted(kind.__name__ for kind in self.types))
            raise TypeError(f"expected {expected}, found {type(value).__name__}")
        return value if self.convert is None or value is None else self.convert(value)


def readers(cls: Any) -> dict[str, Reader]:
    """Return the reader of each field of a record, by its type."""
    if cls not in _READERS_OF:
        hints = get_type_hints(cls)
        _READERS_OF[cls] = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(cls)}
    return _READERS_OF[cls]


def _reader(hint: Any) -> Reader:
    if hint in _READERS:
        return _READERS[hint]
    arguments = get_args(hint)
    if get_origin(hint) is UnionType:
        options = [_reader(kind) for kind in arguments]
        converts = [reader.convert for reader in options if reader.convert]
        types = frozenset[type]().union(*(reader.types for reader in options))
        return Reader(types, converts[0] if converts else None)
    if get_origin(hint) is tuple:
        item = _reader(arguments[0])
        return Reader(frozenset({list}), lambda value: tuple(map(item.read, value)))
    if get_origin(hint) is dict:
        item = _reader(arguments[1])
        return Reader(frozenset({dict}), lambda value: {name: item.read(member) for name, member in value.items()})
    return Reader(frozenset({dict}), hint.from_dict)


_READERS_OF: dict[Any, dict[str, Reader]] = {}


def _to_json(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return plain(value) if isinstance(value, (float, dict)) else value


_READERS: dict[Any, Reader] = {
    **{kind: Reader(frozenset({kind})) for kind in (str, int, float, bool, NoneType)},
    Path: Reader(frozenset({str}), Path),
    datetime: Reader(frozenset({str, datetime}), moment),
    RunStatus: Reader(frozenset({str, RunStatus}), RunStatus.parse),
    Any: Reader(frozenset(), plain),
}
