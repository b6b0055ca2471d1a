"""Tools that fault tests stand on. One that is missing fails the test: nothing is skipped in silence."""

from __future__ import annotations

import shutil

import pytest


def need(*commands: str) -> None:
    """Fail the test where a command is not on PATH."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        pytest.fail(f"missing on this machine: {', '.join(missing)}; CONTRIBUTING.md says how to install it")
