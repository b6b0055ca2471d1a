"""YAML 1.2, by its core schema: what a plain scalar is there, a number, a bool, null or a text.

PyYAML reads YAML 1.1, where ``yes`` and ``on`` are bools, ``1:30`` is 90, ``1_000`` is 1000 and ``1e-8`` is a text.
Source: YAML 1.2.2, section 10.3.2.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from shmlog.base.plain import DEPTH_MAX
from shmlog.errors import CorruptDataError

_NULL = r"~|null|Null|NULL|"
_BOOL = r"true|True|TRUE|false|False|FALSE"
_INT = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"


class _Loader(yaml.SafeLoader):
    """Refuses aliases: a few lines of them can expand to gigabytes, or to a list that contains itself."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted here")
        if self.depth > DEPTH_MAX:
            raise yaml.YAMLError(f"nested more than {DEPTH_MAX} levels deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        """Leave ``<<`` as the key that it is: only YAML 1.1 merges."""


def _int(loader: Any, node: Any) -> int:
    text = node.value
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(loader: Any, node: Any) -> float:
    text = node.value.lower().replace(".inf", "inf").replace(".nan", "nan")
    return math.nan if text == "nan" else float(text)


_Loader.yaml_implicit_resolvers = {}  # those of YAML 1.1 are not inherited
for _tag, _pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT)):  # the first that fits
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def parse(path: Path, data: bytes) -> dict[str, Any]:
    """Return the mapping that a file holds.

    Raises
    ------
    CorruptDataError
        If it is not YAML, or not a mapping.
    """
    try:
        value = yaml.load(data, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise CorruptDataError(f"{path}: not YAML ({line}{error.problem or error.context})") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptDataError(f"{path}: not YAML ({str(error) or type(error).__name__})") from error
    if not isinstance(value, dict):
        raise CorruptDataError(f"{path}: expected a mapping, found {type(value).__name__}")
    return value
