"""The files below artifacts/ of a run: their names, and the data of the event that logs each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from shmlog.folder.content import Content, is_digest

EVENT_TYPE = "artifact"
FOLDER = "artifacts"
COMPONENT_BYTES_MAX = 255
NAME_BYTES_MAX = 1024
_UNKNOWN_TYPE = "application/octet-stream"

# What would end a line, colour a terminal or is not text; and the separator of other systems.
_UNUSABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\\\]")
# Devices of Windows: a run folder may be copied there.
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


class Logged(NamedTuple):
    """What an event says of an artifact."""

    name: str
    content: Content
    media_type: str
    timestamp: str

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> Logged | None:
        """Return what an event says, or None if `data_of` did not make its data: users may log any event."""
        data = event.get("data")
        if event.get("event_type") != EVENT_TYPE or not isinstance(data, dict):
            return None
        name, size, digest = data.get("name"), data.get("size_bytes"), data.get("digest")
        if type(size) is not int or size < 0 or not isinstance(digest, str) or not is_digest(digest):
            return None
        if not isinstance(name, str) or not is_name(name):
            return None
        media_type = data.get("media_type")
        media_type = media_type if isinstance(media_type, str) else media_type_of(name)
        return cls(name, Content(size, digest), media_type, str(event.get("timestamp")))


def data_of(name: str, content: Content) -> dict[str, Any]:
    """Return the data of the event that records an artifact."""
    return {"name": name, "path": f"{FOLDER}/{name}", **content._asdict(), "media_type": media_type_of(name)}


def check_name(name: object) -> str:
    """Return ``name`` if an artifact may have it.

    Raises
    ------
    TypeError
        If it is not a str.
    ValueError
        If it could lead out of the folder, or is not a valid file name everywhere.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an artifact must be a str, not {type(name).__name__}")
    unusable = _UNUSABLE.search(name)
    if unusable:
        raise ValueError(f"artifact name {name!r}: {unusable[0]!r} is not usable in it")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"artifact name {name[:40]!r}…: longer than {NAME_BYTES_MAX:,} bytes")
    for component in name.split("/"):
        _check_component(name, component)
    return name


def _check_component(name: str, component: str) -> None:
    if component in ("", ".", ".."):
        raise ValueError(f"artifact name {name!r}: use a relative path without '.', '..' and empty parts")
    if len(component.encode()) > COMPONENT_BYTES_MAX:
        raise ValueError(f"artifact name {name[:40]!r}…: a part is longer than {COMPONENT_BYTES_MAX} bytes")
    if _RESERVED.fullmatch(component):
        raise ValueError(f"artifact name {name!r}: {component!r} is a device on some systems")


def is_name(name: object) -> bool:
    """Whether an artifact may have this name."""
    try:
        check_name(name)
    except (TypeError, ValueError):
        return False
    return True


def media_type_of(name: str) -> str:
    """Return the media type that belongs to the suffix of a name."""
    import mimetypes  # reads the system's own lists the first time

    media_type, encoding = mimetypes.guess_type(name.rpartition("/")[2])
    if encoding is not None:
        return f"application/{encoding}" if encoding == "gzip" else _UNKNOWN_TYPE
    return media_type or _UNKNOWN_TYPE
