"""How events, parameters and results hold types of your own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shmlog.base.plain import register

T = TypeVar("T")


def register_type(cls: type[T], to_plain: Callable[[T], Any]) -> None:
    """Have values of a class written as what a function makes of them.

    That holds in this process, and in children that it forks: in data of events, in parameters, results and
    artifacts of `Run.log_dict`, at any depth. Values of metrics are numbers and texts; they are not converted so.

    Parameters
    ----------
    cls : type
        The class; also of subclasses that are not registered themselves. Registering it again replaces the function.
    to_plain : callable
        Returns what JSON has, or what is converted in turn: a dict, a list, an array, a path, a time.

    Raises
    ------
    TypeError
        If ``cls`` is not a class, or one that JSON has itself, or ``to_plain`` can't be called.
    """
    if not isinstance(cls, type) or cls in (object, dict, list, str, int, float, bool, type(None)):
        raise TypeError(f"register_type() takes a class of yours, not {cls!r}")
    if not callable(to_plain):
        raise TypeError(f"to_plain must be callable, not {type(to_plain).__name__}")
    register(cls, to_plain)
