"""Arrays and tensors as bytes of a safetensors file, and back."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from shmlog.base.extras import import_extra

# Types that safetensors has a name for; others are stored as bytes.
_NUMPY = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "f2": "F16", "u4": "U32", "i4": "I32",
    "f4": "F32", "u8": "U64", "i8": "I64", "f8": "F64",
}  # fmt: skip
_TORCH = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "float16": "F16", "bfloat16": "BF16",
    "int32": "I32", "float32": "F32", "int64": "I64", "float64": "F64",
}  # fmt: skip
_CODES = {kind: code for code, kind in _NUMPY.items()}
_TORCH_NAMES = {kind: name for name, kind in _TORCH.items()}
BYTES = {kind: int(code[1]) for code, kind in _NUMPY.items()} | {"BF16": 2}
"""Size of an item of each type, bytes."""


class Tensor(NamedTuple):
    """What a safetensors file holds under one name.

    ``data`` makes the bytes when they are written: arrays that it must copy are in
    memory one copy at a time.
    """

    dtype: str
    shape: tuple[int, ...]
    size: int
    data: Callable[[], memoryview]


class Source(Protocol):
    """A file that holds tensors."""

    path: Path

    def numpy(self, name: str, /) -> Any:
        """Return a tensor as a writable array."""

    def torch(self, name: str, /) -> Any:
        """Return a tensor as one of torch, on the CPU."""


def from_bytes(data: bytes) -> Tensor:
    """Return bytes as a tensor."""
    return Tensor("U8", (len(data),), len(data), lambda: memoryview(data))


# ---- numpy ----


def encode_numpy(array: Any) -> tuple[Tensor, dict[str, Any]]:
    """Return an array as a tensor, and the fields of its node beside the name.

    Raises
    ------
    TypeError
        If its dtype can't be stored.
    """
    dtype = array.dtype
    kind = _NUMPY.get(dtype.str[1:]) if is_plain(dtype) else None
    if kind is None:
        return from_bytes(_to_npy(array)), {"npy": True}
    if dtype.str[0] == ">":
        return Tensor(kind, array.shape, array.nbytes, lambda: _view(array.byteswap())), {"byteorder": ">"}
    return Tensor(kind, array.shape, array.nbytes, lambda: _view(array)), {}


def is_plain(dtype: Any) -> bool:
    """Whether the text of a dtype describes it fully; it does not for types of other packages, or with metadata."""
    import numpy as np

    return bool(np.dtype(dtype.str) == dtype and not dtype.metadata)


def _view(array: Any) -> memoryview:
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _to_npy(array: Any) -> bytes:
    """Return an array of an unusual dtype as the bytes of a .npy file."""
    import numpy as np

    dtype = array.dtype
    if dtype.hasobject:
        raise TypeError("an array of Python objects")
    if dtype.metadata or np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) != dtype:
        raise TypeError(f"an array of dtype {dtype.name}, which a .npy file can't hold")
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=(3, 0), allow_pickle=False)
    return out.getvalue()


def to_numpy(data: bytearray, dtype: str, shape: list[int]) -> Any:
    """Return the bytes of a tensor as a writable array."""
    import numpy as np

    return np.frombuffer(data, f"<{_CODES[dtype]}").reshape(shape)


def decode_numpy(source: Source, name: str, node: dict[str, Any]) -> Any:
    """Return the array of a node."""
    array = source.numpy(name)
    if node.get("npy"):
        import numpy as np

        return np.lib.format.read_array(io.BytesIO(array.tobytes()), allow_pickle=False)
    if node.get("byteorder") == ">":
        return array.byteswap().view(array.dtype.newbyteorder(">"))
    return array


# ---- torch ----


def is_torch(value: object) -> bool:
    """Whether ``value`` is a tensor of torch, or of a class made from it."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def encode_torch(tensor: Any) -> tuple[Tensor, dict[str, Any]]:
    """Return a torch tensor as a tensor of the file, and the fields of its node beside the name.

    Raises
    ------
    TypeError
        If it is not a dense tensor of numbers.
    """
    torch: Any = sys.modules["torch"]
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise TypeError(f"a {type(tensor).__name__}, which is neither a Tensor nor a Parameter")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise TypeError("a tensor that is sparse, quantized, nested or without data; make it dense first")
    node: dict[str, Any] = {}
    if type(tensor) is torch.nn.Parameter:
        node["parameter"] = True
    if tensor.requires_grad:
        node["requires_grad"] = True
    dtype = str(tensor.dtype).removeprefix("torch.")
    shape, size = tuple(tensor.shape), tensor.numel() * tensor.element_size()
    kind = _TORCH.get(dtype)
    if kind is None:
        node |= {"dtype": dtype, "shape": list(shape)}
        kind, shape = "U8", (size,)
    return Tensor(kind, shape, size, lambda: _bytes_of(tensor)), node


def _bytes_of(tensor: Any) -> memoryview:
    torch: Any = sys.modules["torch"]
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if not plain.numel():
        return memoryview(b"")
    data: memoryview = plain.reshape(-1).view(torch.uint8).numpy().data
    return data


def to_torch(data: bytearray, dtype: str, shape: list[int]) -> Any:
    """Return the bytes of a tensor as a tensor of torch."""
    torch: Any = sys.modules["torch"]
    kind = getattr(torch, _TORCH_NAMES[dtype])
    return torch.frombuffer(data, dtype=kind).reshape(shape) if data else torch.empty(shape, dtype=kind)


def decode_torch(source: Source, name: str, node: dict[str, Any]) -> Any:
    """Return the torch tensor of a node, on the CPU.

    Raises
    ------
    MissingExtraError
        If torch is not installed.
    """
    torch = import_extra("torch", f"{source.path}: tensors of torch")
    tensor = source.torch(name)
    if "dtype" in node:
        dtype = getattr(torch, node["dtype"], None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"no dtype {node['dtype']!r} in torch {torch.__version__}")
        shape = [int(length) for length in node["shape"]]
        tensor = tensor.view(dtype).reshape(shape) if math.prod(shape) else torch.empty(shape, dtype=dtype)
    if node.get("parameter"):
        return torch.nn.Parameter(tensor, requires_grad=bool(node.get("requires_grad")))
    return tensor.requires_grad_(bool(node.get("requires_grad")))
