"""run.yaml, config.yaml and other small files: JSON that is also YAML.

A process that logs must not import a YAML library (26 ms), so it writes a subset of JSON
from which YAML 1.1 readers such as PyYAML read the same values.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

from shmlog.base.durable import atomic_write
from shmlog.base.plain import word_of
from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.folder.files import LOCAL, RunFiles
from shmlog.folder.layout import RunLayout

ANNOTATED = ("name", "tags", "description", "notes", "group", "pinned")
"""The fields of annotations.yaml; each takes the place of the one in run.yaml."""

# Limit for a file that is not JSON: the YAML library reads some 50 KB a second, and less where it is nested deeply.
_YAML_BYTES_MAX = 64 << 10

_KEY = "crc32_above"  # the checksum of the text above its line
_MARK = f',\n  "{_KEY}": '.encode()
_CHECKSUM = rb'"([0-9a-f]{8})"\n}\n\Z'  # compiled at its first use

# PyYAML rejects these characters unescaped, and reads some as line breaks.
_UNPRINTABLE = "[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"


def _string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    if quoted.isascii() and "\x7f" not in quoted:
        return quoted  # without the pattern, which `init` would have to compile
    return re.sub(_UNPRINTABLE, lambda m: f"\\u{ord(m[0]):04x}", quoted)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return f'"{word_of(value)}"'
    text = repr(value)
    # YAML 1.1 reads 1e-05 as a string; 1.0e-05 is a number in both.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _render(value: object, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        items = [f"{deeper}{_string(str(k))}: {_render(v, deeper)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}" if items else "{}"
    if isinstance(value, (list, tuple)):
        lines = [f"{deeper}{_render(v, deeper)}" for v in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]" if lines else "[]"
    raise TypeError(f"cannot write a {type(value).__name__} into a run file")


def render(value: object) -> str:
    """Return ``value`` (dicts, lists, str, int, float, bool, None) as JSON that is YAML too."""
    return _render(value, "") + "\n"


def write(path: Path, value: object, *, durable: bool = True) -> None:
    """Replace the file ``path``, atomically and, by default, durably; its content is ``value``."""
    atomic_write(path, render(value).encode("utf-8"), durable=durable)


def write_sealed(path: Path, value: dict[str, Any], *, durable: bool = True) -> None:
    """Replace the file as `write` does, with a checksum as its last key; ``value`` must not be empty."""
    atomic_write(path, sealed(render(value)), durable=durable)


def sealed(text: str) -> bytes:
    """Return a JSON object, which must not be empty, with a checksum as its last key."""
    body = text.rstrip().removesuffix("}").rstrip().encode("utf-8")
    return body + _seal(body)


def _seal(text: bytes) -> bytes:
    return _MARK + b'"%08x"\n}\n' % zlib.crc32(text)


def is_intact(data: bytes) -> bool:
    """Whether ``data`` is what `sealed` returned, or has no checksum."""
    last = data.rfind(_MARK)
    return not _has_lost_mark(data) if last < 0 else data[last:] == _seal(data[:last])


def _has_lost_mark(data: bytes) -> bool:
    """Whether the last value is the checksum of the text above it although its key is another: the key is damaged."""
    checksum = re.search(_CHECKSUM, data)
    if checksum is None:
        return False
    ends = range(max(0, checksum.start() - 2 * len(_MARK)), checksum.start())
    return any(zlib.crc32(data[:end]) == int(checksum[1], 16) for end in ends)


def read(path: Path, files: RunFiles = LOCAL) -> dict[str, Any]:
    """Return the content of ``path``, without its checksum, which is not compared.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is neither JSON nor YAML, or not a mapping.
    RefusedError
        If `RunFiles.read` refuses the file.
    """
    return parse(path, files.read(path))


def parse(path: Path, data: bytes) -> dict[str, Any]:
    """Return what `read` returns for a file whose bytes are ``data``."""
    try:
        value = json.loads(data)
    except ValueError:
        value = _read_yaml(path, data)
    except RecursionError as error:
        raise CorruptDataError(f"{path}: nested too deeply") from error
    if not isinstance(value, dict):
        raise CorruptDataError(f"{path}: expected a mapping, found {type(value).__name__}")
    value.pop(_KEY, None)
    return value


def _read_yaml(path: Path, data: bytes) -> object:
    """Read a file that was edited by hand."""
    if len(data) > _YAML_BYTES_MAX:
        raise CorruptDataError(f"{path}: not JSON, and too large ({len(data)} bytes) to be read as YAML")
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """Refuses aliases: a few lines of them can expand to gigabytes, or to a list that contains itself."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("aliases are not accepted here")
            return super().compose_node(parent, index)

    try:
        return yaml.load(data, PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CorruptDataError(f"{path}: neither JSON nor YAML ({line})") from error


def read_mapping(path: Path, files: RunFiles = LOCAL) -> dict[str, Any]:
    """Return the content of one of our small files; raises CorruptDataError whatever is wrong inside."""
    return _parse_any(path, files.read(path))


def read_sealed_mapping(path: Path, files: RunFiles = LOCAL) -> tuple[dict[str, Any], str | None]:
    """Return what `read_mapping` returns, and the fault if the checksum in the file is wrong, or None."""
    data = files.read(path)
    fault = None if is_intact(data) else f"{path}: its checksum is wrong: any of it may be"
    return _parse_any(path, data), fault


def _parse_any(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return parse(path, data)
    except (UnreadableError, OSError):
        raise
    except Exception as error:  # the YAML library fails in many ways
        raise CorruptDataError(f"{path}: neither JSON nor YAML ({type(error).__name__}: {error})") from error


def read_provenance(layout: RunLayout, attempt: int) -> dict[str, Any]:
    """Return the content of an attempt's provenance.yaml; empty if it does not exist.

    Raises
    ------
    CorruptDataError
        If it is damaged.
    """
    try:
        provenance, fault = read_sealed_mapping(layout.provenance(attempt), layout.files)
    except FileNotFoundError:
        return {}
    if fault:
        raise CorruptDataError(fault)
    return provenance
