"""Who logged, as a key: lanes are numbered on each node by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

NODE = 0
"""The node that writes. It is the only one yet: write-ahead logs and events.jsonl name no node and are of this one."""

_BITS = 32


class Lane(NamedTuple):
    """A lane among those of all nodes of a run."""

    node: int
    number: int

    def __str__(self) -> str:
        return f"lane {self.number}" if self.node == NODE else f"lane {self.number} of node {self.node}"

    @property
    def key(self) -> int:
        """The lane as one number, as `lane_keys` returns it for each row of a table."""
        return (self.node << _BITS) + self.number

    def columns(self) -> dict[str, int]:
        """Return the lane as the books list it: they name a node only if it is not `NODE`."""
        return {"lane": self.number} if self.node == NODE else {"node": self.node, "lane": self.number}

    @classmethod
    def of_key(cls, key: int) -> Lane:
        """Return the lane that has this `key`."""
        return cls(*divmod(key, 1 << _BITS))

    @classmethod
    def of_producer(cls, producer: Mapping[str, Any]) -> Lane:
        """Return the lane of a producer that the books list."""
        return cls(producer.get("node", NODE), producer["lane"])

    @classmethod
    def of_line(cls, event: Mapping[str, Any]) -> Lane:
        """Return the lane of a line of events.jsonl, which names no node."""
        return cls(NODE, event["lane"])


def lane_keys(table: pa.Table) -> NDArray[np.int64]:
    """Return the `Lane.key` of each row; the table has the columns ``node`` and ``lane``."""
    keys: NDArray[np.int64] = (table["node"].to_numpy().astype("int64") << _BITS) + table["lane"].to_numpy()
    return keys
