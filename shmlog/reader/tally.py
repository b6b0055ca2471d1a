"""What the files of a run hold, counted by producer, and what its books say of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shmlog.records.lanes import Lane
from shmlog.records.lines import GAP_TYPE, is_of_user
from shmlog.records.producers import fold
from shmlog.records.reasons import REASONS
from shmlog.records.values import RANKS

pc: Any = pyarrow.compute

Producer = tuple[Lane, int]  # with its pid (-1: unknown)


class Tally:
    """Metrics, events and drops by lane and process."""

    def __init__(self) -> None:
        self.metrics: Counter[Producer] = Counter()
        self.events: Counter[Producer] = Counter()
        self.dropped: dict[Producer, Counter[str]] = {}
        self._owners: dict[Producer, tuple[int, dict[str, Any]]] = {}  # with the first seq seen

    def add_metrics(self, table: pa.Table) -> None:
        """Count the rows of a table that has the columns of `OF_NODES` which say who logged them, and ``seq``."""
        nodes = pc.unique(table["node"]).to_pylist()
        for node in nodes:
            self._add_of_node(node, table if len(nodes) == 1 else table.filter(pc.equal(table["node"], node)))

    def _add_of_node(self, node: int, table: pa.Table) -> None:
        lanes, pids = (table[name].to_numpy().astype(np.int64) for name in ("lane", "pid"))
        keys = (lanes << 32) + (pids & 0xFFFFFFFF)
        distinct, firsts, counts = np.unique(keys, return_index=True, return_counts=True)
        for key, row, count in zip(distinct.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            producer = Lane(node, key >> 32), int(np.uint32(key & 0xFFFFFFFF).view(np.int32))
            self.metrics[producer] += count
            self._see(producer, table["seq"][row].as_py(), {name: table[name][row].as_py() for name in RANKS})

    def add_event(self, event: dict[str, Any]) -> None:
        """Count an event or a gap: a well-formed line of events.jsonl."""
        producer = Lane.of_line(event), -1 if event.get("pid") is None else event["pid"]
        dropped = gap_of(event)
        if dropped is None:
            self.events[producer] += 1
        else:
            self.dropped.setdefault(producer, Counter()).update(dropped)
        self._see(producer, event["seq"], {name: event.get(name) for name in RANKS})

    def _see(self, producer: Producer, seq: int, owner: dict[str, Any]) -> None:
        if producer not in self._owners or seq < self._owners[producer][0]:
            self._owners[producer] = seq, owner

    def counts(self) -> dict[Producer, dict[str, int]]:
        """Return for each producer how many metrics and events there are, and how many drops for each reason."""
        counts: dict[Producer, dict[str, int]] = {}
        for what, counter in (("metrics", self.metrics), ("events", self.events)):
            for producer, count in counter.items():
                counts.setdefault(producer, {})[what] = count
        for producer, dropped in self.dropped.items():
            counts.setdefault(producer, {}).update({f"drops ({reason})": n for reason, n in dropped.items()})
        return counts

    def producers(self) -> list[dict[str, Any]]:
        """Return the producers as run.yaml would list them, as far as the records say; see `fold`."""
        order = sorted(self._owners, key=lambda producer: (producer[0], self._owners[producer][0]))
        tenancy: Counter[Lane] = Counter()
        producers = []
        for lane, pid in order:
            tenancy[lane] += 1
            producers.append(
                {
                    **lane.columns(), "tenancy": tenancy[lane], "pid": None if pid < 0 else pid,
                    **self._owners[lane, pid][1], "host": None, "process": None, "started_at": None,
                    "metrics": self.metrics[lane, pid], "events": self.events[lane, pid],
                    "dropped": dict(self.dropped.get((lane, pid), {})),
                }
            )  # fmt: skip
        return fold(producers)


def gap_of(event: dict[str, Any]) -> dict[str, int] | None:
    """Return the drops that a line counts, or None if it is not a gap: a user may have events of that type."""
    data = event["data"]
    if event["event_type"] != GAP_TYPE or is_of_user(event) or not isinstance(data, dict) or set(data) != {"dropped"}:
        return None
    dropped = data["dropped"]
    if not isinstance(dropped, dict) or not dropped or not set(dropped) <= set(REASONS):
        return None
    return dropped if all(type(n) is int and n > 0 for n in dropped.values()) else None
