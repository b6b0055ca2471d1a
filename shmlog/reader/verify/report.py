"""What `verify` says of the files of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ERROR, WARNING = "error", "warning"

COUNTED = ("logs", "frames", "parts", "rows", "events", "artifacts")


class Finding(NamedTuple):
    """Something that is not as it should be, and the file it was found in."""

    severity: str  # "error": data are missing or wrong; "warning": nothing is lost
    file: Path
    message: str


@dataclass
class Report:
    """What `verify` says of a run.

    Attributes
    ----------
    run_dir : Path
        Folder of the run.
    findings : list of Finding
        In the order in which the files were looked at.
    counts : dict of str to int
        What was looked at: logs and the frames in them, parts, rows of metrics, events, artifacts.
    """

    run_dir: Path
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not any(finding.severity == ERROR for finding in self.findings)

    def error(self, file: Path, message: str) -> None:
        """Book damage."""
        self.findings.append(Finding(ERROR, file, message))

    def warning(self, file: Path, message: str) -> None:
        """Book something that is no loss."""
        self.findings.append(Finding(WARNING, file, message))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as it goes into JSON."""
        findings = [{"severity": f.severity, "file": str(f.file), "message": f.message} for f in self.findings]
        return {"run_dir": str(self.run_dir), "ok": self.ok, "findings": findings, "counts": self.counts}
