"""Which records of a run a reader wants: by metric, producer, level and type."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shmlog.folder.logsettings import LEVELS
from shmlog.reader.event_lines import Event, metrics_of
from shmlog.records.lines import METRICS_TYPE

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid


@dataclass(frozen=True)
class Wanted:
    """What is wanted; by default, everything.

    Attributes
    ----------
    metrics : tuple of str
        Patterns of names; with some, a line of metrics has only those, and no event is wanted.
    rank, worker : int or None
        Only what this producer has logged.
    level : str or None
        Only messages of this level or a higher one, and errors.
    types : tuple of str
        Only events of these types; ``metrics`` are those lines.
    """

    metrics: tuple[str, ...] = ()
    rank: int | None = None
    worker: int | None = None
    level: str | None = None
    types: tuple[str, ...] = ()

    def line(self, line: Event) -> Event | None:
        """Return what is wanted of a line, or None."""
        wishes = (("rank", self.rank), ("worker", self.worker))
        if any(wish is not None and line.get(key) != wish for key, wish in wishes):
            return None
        if self.types and line.get("event_type") not in self.types:
            return None
        if self.level is not None and not _is_at_least(line, self.level):
            return None
        return self._only_metrics(line) if self.metrics else line

    def rows(self, table: pa.Table) -> pa.Table:
        """Return the metrics that lines which are wanted hold."""
        if self.level is not None or (self.types and METRICS_TYPE not in self.types):
            return table.slice(0, 0)
        for key, wish in (("rank", self.rank), ("worker", self.worker)):
            if wish is not None:
                table = table.filter(pc.equal(table[key], wish))
        if not self.metrics or not table.num_rows:
            return table
        names: Any = table["name"].unify_dictionaries().combine_chunks()
        fits = np.array([self._fits(name) for name in names.dictionary.to_pylist()])
        return table.filter(pa.array(fits[names.indices.to_numpy()]))

    def _fits(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.metrics)

    def _only_metrics(self, line: Event) -> Event | None:
        kept = {name: value for name, value in (metrics_of(line) or {}).items() if self._fits(name)}
        return {**line, "data": {**line["data"], "metrics": kept}} if kept else None


def _is_at_least(line: Event, level: str) -> bool:
    data: Any = line.get("data")
    of_line = data.get("level") if line.get("event_type") == "log" and isinstance(data, dict) else None
    of_line = "error" if line.get("event_type") == "error" else of_line
    return isinstance(of_line, str) and LEVELS.get(of_line.lower(), LEVELS["error"]) >= LEVELS[level]
