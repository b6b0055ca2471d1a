"""What git says of the folder that a run was started in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from typing import Any

TIMEOUT_S = 30.0  # for all questions together
DIFF_BYTES_MAX = 10_000_000
_TEXT_BYTES_MAX = 1 << 20
_OWN_SCOPES = ("local", "worktree")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")

# It must ask nobody for a password, fetch nothing, and leave the index and the machine as they are.
_ALONE = {
    "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true",
    "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1",
}  # fmt: skip
_PLAIN = ("-c", "core.fsmonitor=false", "-c", "diff.relative=false")
# Whatever the user's settings are: what `git apply` takes.
_DIFF = (
    "diff", "HEAD", "--binary", "-U3", "--no-color", "--no-ext-diff", "--no-textconv", "--submodule=short",
    "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=dirty",
)  # fmt: skip


class NoneFoundError(OSError):
    """Git has no setting that matches."""


class Git:
    """Asks git about a folder.

    Parameters
    ----------
    folder : str
    timeout : float
        Seconds for all questions together.
    """

    def __init__(self, folder: str, timeout: float = TIMEOUT_S) -> None:
        self._folder = folder
        self._timeout = timeout
        self._deadline_s = time.monotonic() + timeout
        self._settings: tuple[str, ...] = _PLAIN

    def distrust_filters(self) -> None:
        """Have git run none of the programs that the repository's own settings name for its files.

        The repository may have come with an archive. Those that are set for the user or the machine, as those of
        git-lfs are, stay.

        Raises
        ------
        OSError
            If git doesn't tell what they are.
        """
        try:
            told = self.output("config", "--show-scope", "-z", "--name-only", "--get-regexp", r"^filter\..*")
        except NoneFoundError:
            return
        fields = told.decode("utf-8", "surrogateescape").split("\0")
        of_repository = [key for scope, key in zip(fields[::2], fields[1::2], strict=False) if scope in _OWN_SCOPES]
        for name in sorted({key.removeprefix("filter.").rpartition(".")[0] for key in of_repository}):
            if "=" in name:
                raise OSError(f"the repository has a filter called {name!r}, which can't be left out")
            for setting in ("clean=", "process=", "required=false"):
                self._settings += ("-c", f"filter.{name}.{setting}")

    def output(self, *arguments: str, most: int = _TEXT_BYTES_MAX) -> bytes:
        """Return what a git command prints, or the first ``most`` bytes of it.

        Raises
        ------
        OSError
            If there is no git, it fails, or it takes too long.
        """
        command = ("git", "-C", self._folder, *self._settings, *arguments)
        process = subprocess.Popen(
            command, env={**os.environ, **_ALONE}, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        timer = threading.Timer(max(0.0, self._deadline_s - time.monotonic()), _kill, (process,))
        timer.daemon = True
        with process:
            try:
                timer.start()
                printed = process.stdout.read(most)
                code = process.wait() if len(printed) < most else 0
            finally:
                timer.cancel()
                _kill(process)
            said = process.stderr.read(_TEXT_BYTES_MAX).decode("utf-8", "replace").partition("\n")[0]
        if code == 0:
            return printed
        if time.monotonic() >= self._deadline_s:
            raise TimeoutError(f"git took more than {self._timeout:g} s")
        if code == 1 and arguments[0] == "config":
            raise NoneFoundError("there is no such setting")
        raise OSError(f"git {arguments[0]} ended with {code}: {said}")

    def text(self, *arguments: str) -> str | None:
        """Return what a git command prints as text; None if it fails."""
        try:
            return self.output(*arguments).decode("utf-8", "replace").strip()
        except OSError:
            return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill git and what it has started: one of those could hold the pipe open for ever."""
    try:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just ended


def git_state(folder: str, *, with_diff: bool) -> tuple[dict[str, Any] | None, bytes]:
    """Return commit, branch and whether the work tree differs, and if wanted how; None where there is no commit.

    ``diff`` is for the caller to keep; ``diff_problem`` says why there is none, if there should be one.
    """
    git = Git(folder)
    commit = git.text("rev-parse", "HEAD")
    if commit is None or not _COMMIT.fullmatch(commit):
        return None, b""
    branch = git.text("symbolic-ref", "--quiet", "--short", "HEAD")  # fails where HEAD is detached
    try:
        git.distrust_filters()
    except OSError as error:
        unknown = {"commit": commit, "branch": branch, "dirty": None, "diff": None}
        return {**unknown, "diff_problem": str(error)} if with_diff else unknown, b""
    # In a submodule git would run what the settings there name.
    changes = git.text("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
    state = {"commit": commit, "branch": branch, "dirty": bool(changes) if changes is not None else None, "diff": None}
    if not with_diff or changes == "":
        return state, b""
    try:
        diff = git.output(*_DIFF, most=DIFF_BYTES_MAX + 1)
    except OSError as error:
        return {**state, "diff_problem": str(error)}, b""
    if len(diff) > DIFF_BYTES_MAX:
        return {**state, "diff_problem": f"larger than {DIFF_BYTES_MAX:,} bytes"}, b""
    return state, diff
