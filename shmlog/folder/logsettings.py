"""The settings of a run's structured log, which every process of the run reads in run.yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from shmlog.errors import UnreadableError
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout

#: Levels of messages, with their numbers in `logging`.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

ROTATE_BYTES_MIN = 1024

#: Ends of names of secrets. Not names of models' own parameters: max_tokens, pad_token, num_key_value_heads.
# (Each lookbehind has a fixed length.)
_OWN_TOKENS = (
    r"(?<!(?:pad|eos|bos|unk|cls|sep|end)[_.-])(?<!(?:mask|stop|next)[_.-])"
    r"(?<!(?:image|audio|video|start)[_.-])(?<!special[_.-])"
)
SECRET_NAMES = (
    r"(?:passwords?|passwd|passphrase|pwd|secrets?|credentials?|authorization"
    r"|(?:access|account|api|auth|encryption|license|private|secret|service|signing|ssh"
    r"|anthropic|azure|github|gitlab|hf|kaggle|openai|wandb)[_.-]?keys?"
    rf"|(?:^|[._-]|(?<=access)|(?<=auth)|(?<=api)|(?<=bearer)){_OWN_TOKENS}token)$"
)

_SIZE = r"(\d+(?:\.\d+)?) ?(?:([kKMGT])(i?)B|B)?"
_POWERS = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


class LogSettings(NamedTuple):
    """The level of messages, whether they go to the console, the size of an event file, and what is not written."""

    level: str = "debug"
    console: bool = False
    rotate_bytes: int | None = None
    redact: str = SECRET_NAMES  # names of parameters whose values are not written; empty: all are written

    def keeps(self, level: int) -> bool:
        """Whether messages of that level are kept."""
        return level >= LEVELS[self.level]


def check_settings(
    level: str | int | None, console: bool | None, rotate_events: int | str | None, redact: str | None
) -> dict[str, Any]:
    """Return the settings that a user has given; raises TypeError or ValueError."""
    settings: dict[str, Any] = {}
    if level is not None:
        settings["level"] = _level(level)
    if console is not None:
        settings["console"] = bool(console)
    if rotate_events is not None:
        size = parse_size(rotate_events)
        if 0 != size < ROTATE_BYTES_MIN:
            raise ValueError(f"rotate_events must be 0, or at least {ROTATE_BYTES_MIN} bytes, not {size}")
        settings["rotate_bytes"] = size or None
    if redact is not None:
        if not isinstance(redact, str):
            raise TypeError(f"redact must be a str, not {type(redact).__name__}")
        if not _is_pattern(redact):
            raise ValueError(f"redact must be a regular expression, not {redact!r}")
        settings["redact"] = redact
    return settings


def _level(level: str | int) -> str:
    """Return the name of a level that is given by its name, or by its number in `logging`."""
    if isinstance(level, bool) or not isinstance(level, (str, int)):
        raise TypeError(f"level must be a str or a number of logging, not {type(level).__name__}")
    name = {number: name for name, number in LEVELS.items()}.get(level) if isinstance(level, int) else level.lower()
    if name not in LEVELS:
        numbers = ", ".join(f"{name} ({number})" for name, number in LEVELS.items())
        raise ValueError(f"level must be one of {numbers}, not {level!r}")
    return name


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def parse_size(size: int | str) -> int:
    """Return a number of bytes from an int, or from a text such as ``"64 MB"`` (10**6) or ``"64 MiB"`` (2**20)."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    if not isinstance(size, str):
        raise TypeError(f"a size must be an int or a str, not {type(size).__name__}")
    match = re.fullmatch(_SIZE, size.strip())
    if not match:
        raise ValueError(f"size {size!r}: write a number of bytes, or a text such as '64 MB' or '64 MiB'")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS.get(prefix, 0))


def settings_of(value: object) -> LogSettings:
    """Return the settings from run.yaml's ``structured_log``; the default for each that is missing or not valid."""
    mapping = value if isinstance(value, Mapping) else {}
    level, rotate_bytes, redact = mapping.get("level"), mapping.get("rotate_bytes"), mapping.get("redact")
    is_size = type(rotate_bytes) is int and rotate_bytes >= ROTATE_BYTES_MIN
    return LogSettings(
        level if isinstance(level, str) and level in LEVELS else LogSettings().level,
        mapping.get("console") is True,
        rotate_bytes if is_size else None,
        redact if isinstance(redact, str) and _is_pattern(redact) else SECRET_NAMES,
    )


def read_settings(layout: RunLayout) -> LogSettings:
    """Return the settings of a run; the default if run.yaml can't be read."""
    try:
        return settings_of(Description.read(layout).structured_log)
    except (OSError, UnreadableError):
        return LogSettings()
