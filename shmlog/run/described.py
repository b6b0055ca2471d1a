"""What a run says of itself while it goes on: its parameters, its name, its tags, its last values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from shmlog.base.plain import plain
from shmlog.errors import UnreadableError
from shmlog.folder import runfile
from shmlog.folder.annotations import KEEP, check_changes, check_tags, read_annotations, write_annotations
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout


class Parameters(Mapping[str, Any]):
    """Parameters, read-only: ``config["lr"]``, and ``config.lr`` for names that are no method of a mapping.

    By name, nested parameters are ``Parameters``, too; by key they are dicts, so that ``dict(config)`` is JSON.
    """

    __slots__ = ("_values",)
    _values: Mapping[str, Any]

    def __init__(self, values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_values", values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._values[name]
        except KeyError:
            names = ", ".join(self._values) or "none"
            raise AttributeError(f"the run has no parameter {name!r}, only {names}") from None
        return Parameters(value) if isinstance(value, dict) else value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"parameter {name!r} can't be set here: log_config() changes the parameters of a run")

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self._values,)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class Described:
    """The properties of a `Run` that people set and read, in every process, also after its end."""

    enabled: Any
    id: Any
    flush: Callable[..., bool]
    _layout: RunLayout

    def __init__(self, unwritten: Description, parameters: dict[str, Any]) -> None:
        self._unwritten = unwritten  # of a run that is disabled
        self._parameters = parameters  # of such a run, or logged by this process: config.yaml has them a moment later

    @property
    def config(self) -> Parameters:
        """The parameters as they are recorded: of ``init(config=…)``, and of `Run.log_config`.

        ``run.config["lr"]`` and ``run.config.lr`` are the same; ``dict(run.config)`` is plain JSON. Values that JSON
        lacks are what they were converted to, secrets ``[redacted]``. Change them by `Run.log_config`.
        """
        recorded = {}
        if self.enabled:
            try:
                recorded = runfile.read(self._layout.config_yaml)
            except (OSError, UnreadableError):
                pass  # the folder is gone, or somebody has damaged the file: what this process knows is left
        return Parameters(plain({**recorded, **self._parameters}))  # a copy, which its user may change

    @property
    def name(self) -> str:
        """The run's name for people; it may be set, at any time."""
        name = self._described("name")
        return name if isinstance(name, str) else str(self.id)

    @name.setter
    def name(self, name: str) -> None:
        if name is None:
            raise TypeError("name must be a str; a run without one goes by its id")
        self._annotate(name=name)

    @property
    def notes(self) -> str | None:
        """Notes for people; they may be set, at any time."""
        notes = self._described("notes")
        return notes if isinstance(notes, str) else None

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self._annotate(notes=notes)

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        tags = self._described("tags")
        return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()

    def add_tags(self, tags: Iterable[str]) -> None:
        """Add tags to the run.

        Raises
        ------
        TypeError, ValueError
            If they are not a list of texts. Nothing was changed.
        CorruptDataError
            If annotations.yaml is damaged. Nothing was changed.
        StorageError
            If it can't be written. Nothing was changed.
        """
        added = check_tags(tags)
        self._change(lambda: {"tags": list(dict.fromkeys([*self.tags, *added]))})

    @property
    def summary(self) -> dict[str, Any]:
        """The last value, by step, of each metric of the run, whoever has logged it.

        It is read from the files of the run, as `shmlog.load` reads them, which imports pyarrow.
        """
        if not self.enabled:
            return {}
        from shmlog import load  # a process that only logs reads nothing

        self.flush()
        return load(self._layout.dir).last_values()

    # ---- how ----

    def _described(self, field: str) -> Any:
        if not self.enabled:
            return getattr(self._unwritten, field)
        try:
            annotated = read_annotations(self._layout)
            return annotated[field] if field in annotated else getattr(Description.read(self._layout), field)
        except (OSError, UnreadableError):
            return None

    def _annotate(self, **texts: str | None) -> None:
        changes = check_changes(texts, KEEP)
        self._change(lambda: changes)

    def _change(self, changes: Callable[[], dict[str, Any]]) -> None:
        if not self.enabled:
            self._unwritten = self._unwritten.changed(**changes())
            return
        from shmlog.folder.root import Root  # slow to import, and rarely needed

        with Root(self._layout.root).locked():
            write_annotations(self._layout, changes())
