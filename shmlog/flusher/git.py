"""The git state of the folder in which a run was started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from typing import Any

TIMEOUT_S = 30.0  # for all commands together
DIFF_BYTES_MAX = 10_000_000
_TEXT_BYTES_MAX = 1 << 20
_OWN_SCOPES = ("local", "worktree")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")

# Git must not ask for a password, fetch anything, or change the index or the machine.
_ALONE = {
    "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true",
    "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1",
}  # fmt: skip
_PLAIN = ("-c", "core.fsmonitor=false", "-c", "diff.relative=false")
# A diff that `git apply` accepts, whatever the user's settings are.
_DIFF = (
    "diff", "HEAD", "--binary", "-U3", "--no-color", "--no-ext-diff", "--no-textconv", "--submodule=short",
    "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=dirty",
)  # fmt: skip


class NoneFoundError(OSError):
    """Git has no setting that matches."""


class Git:
    """Runs git commands in a folder.

    Parameters
    ----------
    folder : str
    timeout : float
        Seconds for all commands together.
    """

    def __init__(self, folder: str, timeout: float = TIMEOUT_S) -> None:
        self._folder = folder
        self._timeout = timeout
        self._deadline_s = time.monotonic() + timeout
        self._settings: tuple[str, ...] = _PLAIN

    def distrust_filters(self) -> None:
        """Keep git from running programs that the repository's own settings name as filters.

        The repository may come from a foreign archive. Filters of the user or the machine, such as those of
        git-lfs, stay.

        Raises
        ------
        OSError
            If git can't list the settings.
        """
        try:
            output = self.output("config", "--show-scope", "-z", "--name-only", "--get-regexp", r"^filter\..*")
        except NoneFoundError:
            return
        fields = output.decode("utf-8", "surrogateescape").split("\0")
        of_repository = [key for scope, key in zip(fields[::2], fields[1::2], strict=False) if scope in _OWN_SCOPES]
        for name in sorted({key.removeprefix("filter.").rpartition(".")[0] for key in of_repository}):
            if "=" in name:
                raise OSError(f"the repository has a filter with the name {name!r}, which can't be disabled")
            for setting in ("clean=", "process=", "required=false"):
                self._settings += ("-c", f"filter.{name}.{setting}")

    def output(self, *arguments: str, bytes_max: int = _TEXT_BYTES_MAX) -> bytes:
        """Return the output of a git command, or its first ``bytes_max`` bytes.

        Raises
        ------
        OSError
            If git is not installed, fails, or takes too long.
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
                output = process.stdout.read(bytes_max)
                code = process.wait() if len(output) < bytes_max else 0
            finally:
                timer.cancel()
                _kill(process)
            message = process.stderr.read(_TEXT_BYTES_MAX).decode("utf-8", "replace").partition("\n")[0]
        if code == 0:
            return output
        if time.monotonic() >= self._deadline_s:
            raise TimeoutError(f"git took more than {self._timeout:g} s")
        if code == 1 and arguments[0] == "config":
            raise NoneFoundError("there is no such setting")
        raise OSError(f"git {arguments[0]} ended with {code}: {message}")

    def text(self, *arguments: str) -> str | None:
        """Return the output of a git command as text; None if it fails."""
        try:
            return self.output(*arguments).decode("utf-8", "replace").strip()
        except OSError:
            return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill git and its children: one of them could hold the pipe open for ever."""
    try:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has just ended


def git_state(folder: str, *, with_diff: bool) -> tuple[dict[str, Any] | None, bytes]:
    """Return commit, branch, whether the work tree differs, and the diff if asked for; None without a commit.

    ``diff`` is left for the caller to set; ``diff_problem`` says why the diff is missing.
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
    # In a submodule, git would run the programs that the settings there name.
    changes = git.text("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
    state = {"commit": commit, "branch": branch, "dirty": bool(changes) if changes is not None else None, "diff": None}
    if not with_diff or changes == "":
        return state, b""
    try:
        diff = git.output(*_DIFF, bytes_max=DIFF_BYTES_MAX + 1)
    except OSError as error:
        return {**state, "diff_problem": str(error)}, b""
    if len(diff) > DIFF_BYTES_MAX:
        return {**state, "diff_problem": f"larger than {DIFF_BYTES_MAX:,} bytes"}, b""
    return state, diff
