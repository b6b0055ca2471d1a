"""What must not be written: passwords and the like, told by the names that they are given under."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"

_ASSIGNMENT = re.compile(r"([-+~]*[\w.-]+)=.*", re.DOTALL)


def redact_config(config: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Return plain parameters without the values, at any depth, of names that a pattern finds."""
    found: dict[str, Any] = _redact(dict(config), re.compile(pattern, re.IGNORECASE)) if pattern else dict(config)
    return found


def _redact(value: Any, secret: re.Pattern[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _hidden(inner) if secret.search(name) else _redact(inner, secret) for name, inner in value.items()
        }
    return [_redact(inner, secret) for inner in value] if isinstance(value, list) else value


def _hidden(value: Any) -> Any:
    """Return what is written instead; that there is none, or whether, is no secret."""
    return value if value is None or isinstance(value, bool) else REDACTED


def redact_argv(arguments: Sequence[str], pattern: str) -> list[str]:
    """Return arguments without the values of names that a pattern finds: ``--name=value``, ``--name value``."""
    if not pattern:
        return list(arguments)
    secret = re.compile(pattern, re.IGNORECASE)
    found: list[str] = []
    is_next = False
    for argument in arguments:
        assigned = _ASSIGNMENT.fullmatch(argument)
        if assigned and secret.search(assigned[1].lstrip("-+~")):
            found.append(f"{assigned[1]}={REDACTED}")
        else:
            found.append(REDACTED if is_next and not argument.startswith("-") else argument)
        is_next = argument.startswith("-") and not assigned and bool(secret.search(argument.lstrip("-")))
    return found
