"""Replace values that must not be written, such as passwords, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[redacted]"

_ASSIGNMENT = re.compile(r"([-+~]*[\w.-]+)=.*", re.DOTALL)


def redact_config(config: Mapping[str, Any], pattern: str) -> dict[str, Any]:
    """Return plain parameters in which the values of names that match, at any depth, are replaced."""
    redacted: dict[str, Any] = _redact(dict(config), re.compile(pattern, re.IGNORECASE)) if pattern else dict(config)
    return redacted


def _redact(value: Any, secret: re.Pattern[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _hidden(inner) if secret.search(name) else _redact(inner, secret) for name, inner in value.items()
        }
    return [_redact(inner, secret) for inner in value] if isinstance(value, list) else value


def _hidden(value: Any) -> Any:
    """Return the text written instead of a value; None, True and False are not secret."""
    return value if value is None or isinstance(value, bool) else REDACTED


def redact_argv(arguments: Sequence[str], pattern: str) -> list[str]:
    """Return arguments in which the values of names that match are replaced: ``--name=value``, ``--name value``."""
    if not pattern:
        return list(arguments)
    secret = re.compile(pattern, re.IGNORECASE)
    redacted: list[str] = []
    is_next = False
    for argument in arguments:
        assigned = _ASSIGNMENT.fullmatch(argument)
        if assigned and secret.search(assigned[1].lstrip("-+~")):
            redacted.append(f"{assigned[1]}={REDACTED}")
        else:
            redacted.append(REDACTED if is_next and not argument.startswith("-") else argument)
        is_next = argument.startswith("-") and not assigned and bool(secret.search(argument.lstrip("-")))
    return redacted
