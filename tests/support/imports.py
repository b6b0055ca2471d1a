"""Importers without a process for each source: for tests that read hundreds."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmlog.transfer.found import Found
from shmlog.transfer.importers.formats import reader_of


def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import_run` read sources in this process, from now on to the end of the test."""

    def read(format: str, path: Path, max_bytes: int) -> Found:
        return reader_of(format)(path)

    monkeypatch.setattr("shmlog.transfer.imports.read_apart", read)
