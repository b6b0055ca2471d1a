"""Why a record is dropped, in the order of the six counters of docs/format.md."""

from __future__ import annotations

REASONS = ("full", "names", "large", "lane", "closed", "disk")

CLOSED = "closed"
AMBIGUOUS = "ambiguous"  # several runs were open, and the call could mean any: only in files of late drops
LATE_REASONS = (CLOSED, AMBIGUOUS)
