"""What a run was made from, as far as it takes longer than init may: git."""

from __future__ import annotations

import os
import subprocess
from typing import Any

_TIMEOUT_S = 5.0


def _git(*arguments: str) -> str | None:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ("git", *arguments), capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_state() -> dict[str, Any] | None:
    """Return commit, branch and whether the work tree differs; None outside of git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    branch = _git("rev-parse", "--abbrev-ref", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "branch": branch, "dirty": bool(changes) if changes is not None else None}
