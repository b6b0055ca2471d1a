"""Why a record is dropped; in docs/format.md the order of the six counters."""

from __future__ import annotations

REASONS = ("full", "names", "large", "lane", "closed", "disk")

CLOSED = "closed"
AMBIGUOUS = "ambiguous"  # several runs were open, and none was meant: counted in files of late drops alone
LATE_REASONS = (CLOSED, AMBIGUOUS)
