"""Git repositories for tests, whatever the settings of who runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TRACKED = b"lr = 0.1\n"
BINARY = bytes(range(256))


class Repository:
    """A repository with one commit, if wanted, of a text in a folder and of a binary file."""

    def __init__(self, folder: Path, *, commit: bool = True) -> None:
        self.folder = folder
        self.code = folder / "code"
        self.code.mkdir(parents=True)
        (self.code / "train.py").write_bytes(TRACKED)
        (folder / "weights.bin").write_bytes(BINARY)
        self.git("init", "-q", "-b", "trunk")
        if commit:
            self.commit()

    def git(self, *arguments: str, data: bytes | None = None) -> str:
        """Return what a git command prints; it must succeed."""
        own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ("git", "-C", str(self.folder), *who, *arguments), env={**os.environ, **own}, input=data, check=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        return done.stdout.decode().strip()

    def commit(self) -> None:
        """Commit all there is."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a commit")

    def change(self) -> dict[str, bytes]:
        """Change a text and a binary file, stage a new file, leave another untracked; return what git then knows."""
        changed = {"code/train.py": b"lr = 0.2\r\n", "weights.bin": BINARY[::-1], "code/new file": b"\xff\x00 new\n"}
        for name, data in changed.items():
            (self.folder / name).write_bytes(data)
        self.git("add", "code/new file")
        (self.folder / "untracked.txt").write_text("a secret")
        return changed
