"""Names of experiments and ids of runs, and the folders that bear them."""

from __future__ import annotations

_ID_BYTES_MAX = 64
_FOLDER_BYTES_MAX = 200
_ID_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_PLAIN = _ID_LETTERS | {"."}
LATEST, AUTO = "latest", "auto"
"""Words that mean a run, or what to do with it, where an id could stand."""


def is_id(text: str) -> bool:
    """Whether ``text`` can be the id of a run."""
    return 0 < len(text) <= _ID_BYTES_MAX and _ID_LETTERS.issuperset(text)


def check_id(value: str, what: str) -> str:
    """Return ``value`` if it can be the id of a run, or another short name.

    Raises
    ------
    TypeError, ValueError
        If it is not 1 to 64 letters, digits, ``_`` or ``-``.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if not is_id(value):
        raise ValueError(f"{what} {value!r}: use 1 to 64 letters, digits, '_' or '-'")
    return value


def check_own_id(value: str | None) -> str | None:
    """Return the id that a user may give a run; raises TypeError, and ValueError also for a word that means a run."""
    if value in (LATEST, AUTO):
        raise ValueError(f"id {value!r} is a word of shmlog: use another one")
    return value if value is None else check_id(value, "id")


# ---- experiments ----


def check_experiment(value: str, what: str = "experiment") -> str:
    """Return the name of an experiment, in Unicode's composed form: what looks the same is the same name.

    Raises
    ------
    TypeError, ValueError
        If it is empty, too long, begins or ends with a space, or has a ``/`` or a control character.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if value.isascii():
        name = value
    else:
        import unicodedata  # rarely needed

        name = unicodedata.normalize("NFC", value)
    if not name or name != name.strip() or "/" in name or not name.isprintable():
        raise ValueError(
            f"{what} {value!r}: use a name without '/' and control characters, and no space at its ends; "
            "to group experiments, pass group="
        )
    if len(folder_name(name)) > _FOLDER_BYTES_MAX:
        raise ValueError(f"{what} {value!r}: too long for the name of a folder; use 64 characters or fewer")
    return name


def is_experiment(name: str) -> bool:
    """Whether an experiment can have this name."""
    try:
        return check_experiment(name) == name
    except ValueError:
        return False


def folder_name(experiment: str) -> str:
    """Return the name of an experiment's folder: the name, with ``%XX`` (RFC 3986) for all but letters that are safe.

    Two names never have one folder, and no name leads out of the root.
    """
    if _ID_LETTERS.issuperset(experiment):
        return experiment
    first, rest = experiment[:1], experiment[1:]
    return _quote(first, _ID_LETTERS) + _quote(rest, _PLAIN)  # a folder that begins with "." is hidden, or ".."


def _quote(text: str, plain: frozenset[str]) -> str:
    quoted = ("".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass")) for letter in text)
    return "".join(letter if letter in plain else code for letter, code in zip(text, quoted, strict=True))


def experiment_of(folder: str) -> str | None:
    """Return the experiment whose folder has this name; None if it is not one that `folder_name` gives."""
    if _ID_LETTERS.issuperset(folder):
        return folder if len(folder) <= _FOLDER_BYTES_MAX else None
    head, *pieces = folder.split("%")
    try:
        name = b"".join([head.encode(), *(bytes.fromhex(piece[:2]) + piece[2:].encode() for piece in pieces)]).decode()
    except ValueError:
        return None
    return name if is_experiment(name) and folder_name(name) == folder else None
