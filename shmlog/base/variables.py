"""Environment variables that stand for arguments that a program does not give."""

from __future__ import annotations

import json
import os
from typing import Any

ROOT, EXPERIMENT, NAME = "SHMLOG_ROOT", "SHMLOG_EXPERIMENT", "SHMLOG_NAME"
TAGS, GROUP, CONFIG = "SHMLOG_TAGS", "SHMLOG_GROUP", "SHMLOG_CONFIG"
QUIET = "SHMLOG_QUIET"

_WORDS = {"True": True, "False": False, "None": None}  # as Python writes them; JSON has its own

DEFAULT_ROOT = "runs"
DEFAULT_EXPERIMENT = "default"


def value_of(variable: str) -> str | None:
    """Return the value of a variable; None if it is not set, or empty."""
    return os.environ.get(variable) or None


def is_set(variable: str) -> bool:
    """Whether a variable is set to anything but 0, false or no."""
    return (os.environ.get(variable) or "0").lower() not in ("0", "false", "no")


def root_or_default(root: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """Return the folder of all experiments: the given one, else ``$SHMLOG_ROOT``, else ``runs``."""
    return root if root is not None else value_of(ROOT) or DEFAULT_ROOT


def tags() -> list[str] | None:
    """Return the tags in ``$SHMLOG_TAGS``, which commas separate; None if there are none."""
    names = [tag.strip() for tag in (value_of(TAGS) or "").split(",")]
    return [name for name in names if name] or None


def config() -> dict[str, Any]:
    """Return the parameters in ``$SHMLOG_CONFIG``: a JSON object, or ``a=1,b=2``, whose values are JSON or texts.

    Raises
    ------
    ValueError
        If it is neither.
    """
    text = value_of(CONFIG)
    if text is None:
        return {}
    if text.lstrip().startswith("{"):
        try:
            parameters = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"${CONFIG} is not a JSON object ({error}): {text!r:.200}") from None
        return dict(parameters)
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ValueError(
            f"${CONFIG} must be a JSON object, as for values with commas, or name=value,name=value, not {text!r:.200}"
        )
    return {name.strip(): _scalar(value.strip()) for name, _, value in pairs}


def _scalar(text: str) -> Any:
    try:
        return _WORDS[text] if text in _WORDS else json.loads(text)
    except (ValueError, RecursionError):
        return text
