"""Print data to stdout and messages to stderr, and word the commands that messages name."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys

from shmlog.base.plain import plain
from shmlog.cli.text import clean


def say(text: object) -> None:
    """Print a message for the user to stderr."""
    print(clean(text), file=sys.stderr, flush=True)


def to_json(value: object, indent: int | None = None) -> str:
    """Return strict JSON in ASCII: NaN, infinities, paths and times are strings."""
    return json.dumps(plain(value, str), indent=indent, allow_nan=False)


def print_json(value: object) -> None:
    """Print ``value`` as JSON."""
    print(to_json(value, indent=2))


def one_line(error: Exception) -> str:
    """Return an error as a line for people; only that of a bug names its class."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip() or type(error).__name__
    is_expected = isinstance(error, (OSError, ValueError)) or type(error).__module__.startswith("shmlog")
    return text if is_expected else f"{type(error).__name__}: {text} (--debug shows the traceback)"


def command(*words: object) -> str:
    """Return the command line that runs shmlog with ``words``, started as this process was."""
    return f"{_program()} {shlex.join(str(word) for word in words)}"


def python() -> str:
    """Return the command by which the user starts this interpreter."""
    name = os.path.basename(sys.executable)
    return name if shutil.which(name) == sys.executable else shlex.quote(sys.executable)


def _program() -> str:
    script = sys.argv[0]
    if os.path.basename(script) != "shmlog":
        return f"{python()} -m shmlog"
    return "shmlog" if shutil.which("shmlog") == script else shlex.quote(script)
