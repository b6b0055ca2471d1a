"""Dicts and lists as files for people and programs: JSON, and YAML."""

from __future__ import annotations

from typing import Any

from shmlog.base.plain import plain
from shmlog.folder import runfile


def document(data: Any, name: str) -> bytes:
    """Return a dict or list as JSON or YAML, as the end of the name says.

    Raises
    ------
    TypeError
        If it is neither, or a value in it is not one that files have.
    ValueError
        If the name has another end.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an artifact must be a str, not {type(name).__name__}")
    is_json, is_yaml = name.endswith(".json"), name.endswith((".yaml", ".yml"))
    if not is_json and not is_yaml:
        raise ValueError(f"artifact name {name!r}: log_dict() needs one that ends in .json, .yaml or .yml")
    value = plain(data, None, words=is_json, name=name)
    if not isinstance(value, (dict, list)):
        raise TypeError(f"log_dict() takes a dict or a list, not {type(data).__name__}")
    if is_json:
        return runfile.render(value).encode()
    import yaml  # slow to import

    text: str = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    return text.encode()
