"""How a user is told of what raises nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shmlog

NO_DESCRIPTOR = """
import os, resource, sys
from shmlog.errors import log_warning
assert "logging" not in sys.modules
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True: os.dup(0)
except OSError: pass
"""


@pytest.mark.parametrize(
    ("before", "expected"), [("", "run a1 is gone\n"), (NO_DESCRIPTOR, "shmlog: run a1 is gone\n")]
)
def test_a_warning_needs_no_descriptor(before: str, expected: str, tmp_path: Path) -> None:
    script = f"from shmlog.errors import log_warning\n{before}\nlog_warning('run %s is gone', 'a1')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == expected


def test_a_warning_does_without_standard_error(tmp_path: Path) -> None:
    script = f"{NO_DESCRIPTOR}\nos.close(2)\nos.dup(0)\nlog_warning('gone')"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=tmp_path, stdin=subprocess.DEVNULL).returncode == 0


def test_a_root_that_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"r\xff")
    with pytest.raises(ValueError, match=r"root '.*r\\udcff': its name is not UTF-8"):
        shmlog.init("errors", root=root)
    assert not root.exists()
