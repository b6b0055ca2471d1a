"""Which records of a run are exported: by name and step, and not all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shmlog.errors import UnknownNameError
from shmlog.folder.root import some
from shmlog.records.order import take_rows

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid


@dataclass(frozen=True)
class Selection:
    """What is taken of the metrics of a run.

    Attributes
    ----------
    names : sequence of str or None
        Names of metrics, or patterns with ``*``, ``?`` or ``[ ]``; None: all.
    steps : pair of int or None
        The first and the last step; None is open.
    every : int
        Of each metric every so-manieth record, from the first on, and the last one.
    """

    names: Sequence[str] | None = None
    steps: tuple[int | None, int | None] = (None, None)
    every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be a whole number, 1 or more, not {self.every!r}")

    def of(self, known: Sequence[str]) -> list[str]:
        """Return the wanted ones of the names that a run has.

        Raises
        ------
        UnknownNameError
            If a name or a pattern fits none of them; it lists what there is.
        """
        if self.names is None:
            return list(known)
        wanted: dict[str, None] = {}
        for name in self.names:
            fitting = [name] if name in known else [other for other in known if fnmatchcase(other, name)]
            if not fitting:
                similar = get_close_matches(name, known)
                perhaps = f"; perhaps {' or '.join(similar)} is meant" if similar else ""
                raise UnknownNameError(f"the run has no metric {name!r:.60}{perhaps}; there are {some(list(known))}")
            wanted |= dict.fromkeys(fitting)
        return list(wanted)

    def thin(self, table: pa.Table) -> pa.Table:
        """Return the records that are taken of a table, whose rows are those of the wanted names, by step and time."""
        first, last = self.steps
        if first is not None:
            table = table.filter(pc.greater_equal(table["step"], first))
        if last is not None:
            table = table.filter(pc.less_equal(table["step"], last))
        if self.every == 1 or not table.num_rows:
            return table
        column: Any = table["name"].unify_dictionaries().combine_chunks()
        codes = column.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        begins = np.flatnonzero(np.diff(codes[order], prepend=-1) != 0)
        lengths = np.diff(np.append(begins, len(codes)))
        place = np.arange(len(codes)) - np.repeat(begins, lengths)
        is_last = place == np.repeat(lengths, lengths) - 1
        return take_rows(table, np.sort(order[(place % self.every == 0) | is_last]))
