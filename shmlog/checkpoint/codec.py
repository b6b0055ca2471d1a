"""A state, however nested, as JSON and tensors; and back, to the same types.

What JSON has is itself. What it lacks is an object with the key ``"$"``, which names
the type. Types are matched exactly: a subclass would come back as something else.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

from shmlog.checkpoint import tensor as tensors
from shmlog.checkpoint.container import Reader
from shmlog.errors import CorruptDataError, ShmlogError, UnsafeDataError

DEPTH_MAX = 100
_TAG = "$"
_INT_MAX = 2**64
_RESERVED = ("shmlog.", "__")  # names of tensors that are not the user's

Node = Any
_ADVICE = "save its state_dict(), plain values or arrays, or pass allow_pickle=True"


class Encoder:
    """Turns values into nodes of JSON and collects their tensors.

    Parameters
    ----------
    allow_pickle : bool
        Whether what has no other form is pickled.
    tensors : dict, optional
        Where arrays and bytes go, by name. None: they are refused.
    """

    def __init__(self, *, allow_pickle: bool, tensors: dict[str, tensors.Tensor] | None) -> None:
        self.allow_pickle = allow_pickle
        self.tensors = tensors
        self.has_pickled = False

    def encode(self, value: Any, path: tuple[Any, ...], depth: int = 0) -> Node:
        """Return the node of a value.

        Parameters
        ----------
        path : tuple
            Name of the root, then the keys that lead to the value.

        Raises
        ------
        TypeError
            If it can't be stored; the message names the key path.
        ValueError
            If it is nested too deeply, or in itself.
        """
        if depth > DEPTH_MAX:
            raise ValueError(f"{_spell(path[:4])}…: nested more than {DEPTH_MAX} levels deep, or in itself")
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return value if abs(value) < _INT_MAX else {_TAG: "int", "hex": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
        if kind in _CONTAINERS:
            return self._container(value, kind, path, depth)
        if kind in _SIMPLE:
            tag, text, _ = _SIMPLE[kind]
            return {_TAG: tag, "value": text(value)}
        return self._other(value, path)

    # ---- containers ----

    def _container(self, value: Any, kind: type, path: tuple[Any, ...], depth: int) -> Node:
        if kind is dict:
            if _TAG not in value and all(type(key) is str for key in value):
                return {key: self.encode(item, (*path, key), depth + 1) for key, item in value.items()}
            return {_TAG: "dict", "items": self._pairs(value, path, depth)}
        if kind is OrderedDict:
            return self._ordered(value, path, depth)
        nodes = [self.encode(item, (*path, at), depth + 1) for at, item in enumerate(value)]
        return nodes if kind is list else {_TAG: kind.__name__, "items": nodes}

    def _pairs(self, value: dict[Any, Any], path: tuple[Any, ...], depth: int) -> Node:
        return [
            [self.encode(key, (*path, key), depth + 1), self.encode(item, (*path, key), depth + 1)]
            for key, item in value.items()
        ]

    def _ordered(self, value: OrderedDict[Any, Any], path: tuple[Any, ...], depth: int) -> Node:
        node: dict[str, Any] = {_TAG: "OrderedDict", "items": self._pairs(value, path, depth)}
        if vars(value):  # torch keeps the versions of its modules there
            node["attributes"] = self.encode(vars(value), (*path, "__dict__"), depth + 1)
        return node

    # ---- leaves ----

    def _other(self, value: Any, path: tuple[Any, ...]) -> Node:
        try:
            return self._leaf(value, path)
        except TypeError as error:
            if self.allow_pickle and self.tensors is not None:
                return self._pickled(value, path)
            raise TypeError(f"{_spell(path)}: cannot save {error}; {_ADVICE}") from None

    def _leaf(self, value: Any, path: tuple[Any, ...]) -> Node:
        numpy: Any = sys.modules.get("numpy")
        if type(value) in (bytes, bytearray):
            return {_TAG: type(value).__name__, "tensor": self._add(tensors.from_bytes(bytes(value)), path)}
        if type(value) in (datetime, time):
            return _encode_time(value)
        if numpy is not None and type(value) is numpy.ndarray:
            found, node = tensors.encode_numpy(value)
            return {_TAG: "ndarray", "tensor": self._add(found, path), **node}
        if numpy is not None and isinstance(value, numpy.generic):
            return _encode_scalar(value)
        if tensors.is_torch(value):
            found, node = tensors.encode_torch(value)
            return {_TAG: "tensor", "tensor": self._add(found, path), **node}
        raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__}")

    def _add(self, tensor: tensors.Tensor, path: tuple[Any, ...]) -> str:
        """Give a tensor the name that its key path makes, so that other tools find it."""
        if self.tensors is None:
            raise TypeError("arrays or bytes here")
        name = ".".join(str(part).encode("utf-8", "replace").decode() for part in path[1:]) or str(path[0])
        if name.startswith(_RESERVED):
            name = f"{path[0]}.{name}"
        unique = next(
            other for other in chain([name], map(f"{name}#{{}}".format, count(2))) if other not in self.tensors
        )
        self.tensors[unique] = tensor
        return unique

    def _pickled(self, value: Any, path: tuple[Any, ...]) -> Node:
        import pickle

        try:
            data = pickle.dumps(value, protocol=5)
        except Exception as error:  # whatever the objects of the user raise
            raise TypeError(f"{_spell(path)}: cannot be pickled: {error}") from error
        self.has_pickled = True
        return {_TAG: "pickle", "tensor": self._add(tensors.from_bytes(data), path)}


def _spell(path: tuple[Any, ...]) -> str:
    return str(path[0]) + "".join(f"[{part!r}]" for part in path[1:])


# ---- simple values ----

_CONTAINERS = {dict, OrderedDict, list, tuple, set, frozenset}

_SIMPLE: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    complex: ("complex", lambda v: [repr(v.real), repr(v.imag)], lambda v: complex(float(v[0]), float(v[1]))),
    date: ("date", date.isoformat, date.fromisoformat),
    timedelta: ("timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda v: timedelta(*v)),
    type(Path()): ("Path", str, Path),
    PurePosixPath: ("PurePosixPath", str, PurePosixPath),
}


def _encode_time(value: datetime | time) -> Node:
    """Return the node of a datetime or time; ISO text lacks the name of its zone and the fold."""
    node: dict[str, Any] = {_TAG: type(value).__name__, "value": value.replace(tzinfo=None, fold=0).isoformat()}
    if value.fold:
        node["fold"] = 1
    if value.tzinfo is not None:
        node["zone"] = _encode_zone(value.tzinfo)
    return node


def _encode_zone(zone: tzinfo) -> Node:
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        return [offset.days, offset.seconds, offset.microseconds, zone.tzname(None)]
    raise TypeError(f"a time in a zone of type {type(zone).__name__}")


def _decode_zone(node: Any) -> tzinfo | None:
    if node is None:
        return None
    if isinstance(node, str):
        return ZoneInfo(node)
    *offset, name = node
    plain = timezone(timedelta(*offset))
    return plain if plain.tzname(None) == name else timezone(timedelta(*offset), name)


def _encode_scalar(value: Any) -> Node:
    """Return the node of a numpy scalar: its dtype and its bytes."""
    if value.dtype.kind not in "biufcmMSU" or not tensors.is_plain(value.dtype):
        raise TypeError(f"a numpy scalar of dtype {value.dtype}")
    return {_TAG: "numpy", "dtype": value.dtype.str, "hex": value.tobytes().hex()}


def _decode_scalar(node: dict[str, Any]) -> Any:
    import numpy as np

    dtype = np.dtype(node["dtype"])
    if dtype.hasobject:
        raise ValueError("a numpy scalar of dtype object")
    data = bytes.fromhex(node["hex"])
    # An empty text has no size, and some bytes. To numpy no bytes mean memory of its own, with what was in it before.
    if dtype.itemsize and len(data) != dtype.itemsize:
        raise ValueError(f"a numpy scalar of {dtype.itemsize} bytes, of which {len(data)} are there")
    return np.ndarray((), dtype, data or None)[()]


# ---- and back ----


class Decoder:
    """Turns nodes into values.

    Parameters
    ----------
    reader : Reader, optional
        The file with the tensors.
    allow_pickle : bool
        Whether pickled objects are loaded, which runs code that the file names.
    """

    def __init__(self, reader: Reader | None, *, allow_pickle: bool) -> None:
        self._reader = reader
        self._allow_pickle = allow_pickle

    def decode(self, node: Node) -> Any:
        """Return the value of a node.

        Raises
        ------
        CorruptDataError
            If it is not one.
        UnsafeDataError
            If it is pickled and that is not allowed.
        """
        try:
            return self._decode(node)
        except (ShmlogError, MemoryError):
            raise
        except Exception as error:  # whatever the libraries make of a node that is not one of ours
            where = self._reader.path if self._reader else "metadata"
            raise CorruptDataError(f"{where}: holds what this version can't read ({error})") from error

    def _decode(self, node: Node) -> Any:
        if isinstance(node, list):
            return [self._decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        if _TAG not in node:
            return {key: self._decode(item) for key, item in node.items()}
        tag = node[_TAG]
        if tag in _MADE_FROM_ITEMS:
            return _MADE_FROM_ITEMS[tag](self._decode(item) for item in node["items"])
        if tag in _BY_TAG:
            return _BY_TAG[tag](node["value"])
        if tag in _MADE_FROM_NODE:
            return _MADE_FROM_NODE[tag](node)
        return self._from_tensor(tag, node)

    def _from_tensor(self, tag: str, node: dict[str, Any]) -> Any:
        if tag == "OrderedDict":
            found = OrderedDict(self._decode(item) for item in node["items"])
            vars(found).update(self._decode(node.get("attributes", {})))
            return found
        name = node["tensor"]
        assert self._reader is not None
        if tag == "ndarray":
            return tensors.decode_numpy(self._reader, name, node)
        if tag == "tensor":
            return tensors.decode_torch(self._reader, name, node)
        data = self._reader.numpy(name).tobytes()
        if tag == "pickle":
            return self._unpickle(name, data)
        return {"bytes": bytes, "bytearray": bytearray}[tag](data)

    def _unpickle(self, name: str, data: bytes) -> Any:
        assert self._reader is not None
        if not self._allow_pickle:
            raise UnsafeDataError(
                f"{self._reader.path}: {name} is pickled, and loading it runs code that the file names; "
                "pass allow_pickle=True if you trust whoever wrote it"
            )
        import pickle

        return pickle.loads(data)


_MADE_FROM_ITEMS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
_BY_TAG: dict[str, Callable[[Any], Any]] = {
    "float": float,
    **{tag: make for tag, _, make in _SIMPLE.values()},
}
_MADE_FROM_NODE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "int": lambda node: int(node["hex"], 16),
    "numpy": _decode_scalar,
    "datetime": lambda node: _decode_time(datetime, node),
    "time": lambda node: _decode_time(time, node),
}


def _decode_time(kind: Any, node: dict[str, Any]) -> Any:
    return kind.fromisoformat(node["value"]).replace(fold=node.get("fold", 0), tzinfo=_decode_zone(node.get("zone")))
