"""A state and the random number generators, as the tensors of a file; and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.checkpoint import container, rng, saver
from shmlog.checkpoint.codec import StateDecoder, StateEncoder
from shmlog.checkpoint.container import TensorReader, body
from shmlog.checkpoint.files import ABOUT, SCHEMA, CheckpointInfo, read_info
from shmlog.checkpoint.tensor import Tensor, from_bytes
from shmlog.errors import CorruptDataError

STATE = "shmlog.state"  # the tensor with the JSON


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A state that was read from a file.

    ``checkpoint["state"]``, ``["step"]`` or ``["iteration"]``, ``["timestamp"]``, ``["metrics"]`` and ``["metadata"]``
    give the same things, as code expects that was written for checkpoints that are dicts.

    Attributes
    ----------
    state : object
        The state that was saved, of the same types. Tensors of torch are on the CPU.
    info : CheckpointInfo
        Its step, metrics, metadata, file.
    rng : dict
        States of the random number generators when it was saved.
    """

    state: Any
    info: CheckpointInfo
    rng: dict[str, Any]

    def restore_rng(self) -> None:
        """Set the generators of random, numpy and torch to what they were."""
        rng.restore(self.rng)

    def __getitem__(self, key: str) -> Any:
        """Return the state, or what is known of it; raises KeyError, which lists the keys."""
        info = self.info
        values = {
            "state": self.state, "step": info.step, "iteration": info.step, "timestamp": info.created_at.isoformat(),
            "metrics": info.metrics, "metadata": info.metadata,
        }  # fmt: skip
        if key not in values:
            raise KeyError(f"{key!r}; a checkpoint has {', '.join(map(repr, values))}")
        return values[key]

    def __repr__(self) -> str:
        info = self.info
        return f"<Checkpoint {info.name!r} step {info.step}, {info.created_at:%Y-%m-%d %H:%M:%S} UTC, {info.path}>"


class Encoded(NamedTuple):
    """A state ready to be written; its arrays are still those of the caller."""

    info: CheckpointInfo
    tensors: dict[str, Tensor]
    about: dict[str, str]

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes of the file up to its digest."""
        return body(self.tensors, self.about)


def encode_state(
    state: Any,
    path: Path,
    name: str,
    step: int | None,
    number: int,
    metrics: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
    *,
    allow_pickle: bool,
) -> Encoded:
    """Return a state as tensors and JSON.

    Raises
    ------
    TypeError, ValueError
        If it holds a value that can't be stored; the message names the key path.
    """
    tensors: dict[str, Tensor] = {}
    encoder = StateEncoder(allow_pickle=allow_pickle, tensors=tensors)
    nodes = {"state": encoder.encode(state, ("state",)), "rng": encoder.encode(rng.capture(), ("rng", "rng"))}
    tensors[STATE] = from_bytes(_dumps(nodes))
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata must be a dict of plain values, not {type(metadata).__name__}")
    plain = StateEncoder(allow_pickle=False, tensors=None).encode
    info = CheckpointInfo(
        path, name, step, number, datetime.now(UTC), _numbers(metrics or {}), dict(metadata or {}), 0,
        encoder.has_pickled, saver.this_process(),
    )  # fmt: skip
    about = {
        "schema": SCHEMA,
        "name": name,
        "step": step,
        "number": number,
        "created_at": info.created_at.isoformat(),
        "metrics": plain(info.metrics, ("metrics",)),
        "metadata": plain(info.metadata, ("metadata",)),
        "has_pickled": info.has_pickled,
        "saver": info.saver,
    }
    return Encoded(info, tensors, {ABOUT: _dumps(about).decode("ascii")})


def _dumps(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _numbers(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the metrics as plain numbers, whatever library they come from."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be numbers by name, such as {{'loss': 0.5}}, not {type(metrics).__name__}")
    numbers: dict[str, int | float] = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = int(value) if isinstance(value, int) else float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metrics[{name!r}]: must be a number, not a {type(value).__name__}") from error
    return numbers


def read_checkpoint(path: Path, *, allow_pickle: bool) -> Checkpoint:
    """Check the SHA-256 of a checkpoint, and read it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is damaged.
    UnsafeDataError
        If it holds pickled objects and ``allow_pickle`` is false.
    MissingExtraError
        If it needs torch, which is not installed.
    """
    reader = TensorReader(path)
    container.verify(path)
    info = read_info(path)
    decoder = StateDecoder(reader, allow_pickle=allow_pickle)
    try:
        nodes = json.loads(reader.numpy(STATE).tobytes())
        state, generators = nodes["state"], nodes["rng"]
    except Exception as error:  # the library has errors of its own
        raise CorruptDataError(f"{path}: its state can't be read ({error})") from error
    return Checkpoint(decoder.decode(state), info, decoder.decode(generators))


def best_of(metric: str, mode: str, infos: list[CheckpointInfo]) -> CheckpointInfo | None:
    """Return the checkpoint with the best value of a metric; of equal ones the newest."""
    sign = 1 if mode == "max" else -1
    measured = [info for info in infos if not math.isnan(info.metrics.get(metric, math.nan))]
    return max(measured, key=lambda info: (sign * info.metrics[metric], info.number), default=None)
