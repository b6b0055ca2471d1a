"""The metrics of a run as a sequence of records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from shmlog.reader.model import MetricRecord

if TYPE_CHECKING:
    import pyarrow as pa


class MetricRecords(Sequence[MetricRecord]):
    """The rows of a table of metrics; each becomes a `MetricRecord` when it is asked for.

    Attributes
    ----------
    table : pyarrow.Table
        The same rows, for what takes many of them.
    """

    def __init__(self, run_id: str, table: pa.Table) -> None:
        self._run_id = run_id
        self.table = table

    def __repr__(self) -> str:
        return f"<{len(self):,} metrics of run {self._run_id}>"

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> MetricRecord: ...
    @overload
    def __getitem__(self, index: slice) -> MetricRecords: ...
    def __getitem__(self, index: int | slice) -> MetricRecord | MetricRecords:
        chosen = range(len(self))[index]
        if isinstance(chosen, int):
            (row,) = self.table.slice(chosen, 1).to_pylist()
            return MetricRecord.of_row(self._run_id, row)
        is_piece = chosen.step == 1
        table = self.table.slice(chosen.start, len(chosen)) if is_piece else self.table.take(list(chosen))
        return MetricRecords(self._run_id, table)

    def __iter__(self) -> Iterator[MetricRecord]:
        for batch in self.table.to_batches():
            for row in batch.to_pylist():
                yield MetricRecord.of_row(self._run_id, row)
