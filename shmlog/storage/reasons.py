"""Why a record is dropped; in docs/format.md the order of the six counters."""

from __future__ import annotations

REASONS = ("full", "names", "large", "lane", "closed", "disk")
