"""The store: all experiments and runs below one folder, to find, annotate and delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from shmlog.errors import RunStateError
from shmlog.folder import experiment
from shmlog.folder.annotations import KEEP, check_changes, check_tags, check_text, write_annotations
from shmlog.reader.facts import read_facts, read_record
from shmlog.reader.model import ExperimentRecord, RunRecord
from shmlog.store import creation, experiments
from shmlog.store.reading import RunName, StoreReader

if TYPE_CHECKING:
    from shmlog.store.prune import PruneResult
    from shmlog.store.restore import Archived


class Store(StoreReader):
    """All experiments and runs below a folder.

    Every method that takes a run takes a `RunRecord` or what `get` takes, such as its id; `delete` takes less.
    Listing reads what run.yaml, config.yaml and annotations.yaml of each run say, and
    keeps that in ``.shmlog/index``, which may be deleted at any time.

    Parameters
    ----------
    root : path, optional
        Folder of all experiments. It need not exist. Default: ``$SHMLOG_ROOT``, else ``runs``.
    """

    # ---- annotate ----

    def annotate(
        self, run: RunName, *, name: str = KEEP, description: str | None = KEEP, notes: str | None = KEEP,
        group: str | None = KEEP, tags: Iterable[str] = KEEP,
    ) -> RunRecord:  # fmt: skip
        """Change what people say of a run, live or not.

        It goes into annotations.yaml, which the run itself never touches.

        Parameters
        ----------
        name : str, optional
            For people; need not be unique.
        description, notes, group : str or None, optional
        tags : iterable of str, optional
            All tags. `tag` adds and removes some.

        Returns
        -------
        RunRecord
            The run as it is now.

        Raises
        ------
        TypeError, ValueError
            If a value is invalid. Nothing was changed.
        RunNotFoundError
            If there is no such run.
        CorruptDataError
            If annotations.yaml is damaged. Nothing was changed.
        StorageError
            If it can't be written. Nothing was changed.
        """
        texts = {"name": name, "description": description, "notes": notes, "group": group}
        if name is None:
            raise TypeError("name must be a str; a run without one goes by its id")
        return self._annotate(run, check_changes(texts, tags))

    def add_note(self, run: RunName, text: str, author: str | None = None) -> RunRecord:
        """Append a paragraph to the notes of a run, with the time and its author. Raises as `annotate` does.

        Parameters
        ----------
        text : str
        author : str, optional
            Default: the user of this process.
        """
        import getpass

        check_text("note", text)
        layout = self._layout(run)
        with self._root.locked():
            notes = read_record(layout).notes
            note = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}, {author or getpass.getuser()}: {text}"
            write_annotations(layout, {"notes": f"{notes}\n{note}" if notes else note})
        return read_record(layout)

    def rename(self, run: RunName, name: str) -> RunRecord:
        """Give a run another name for people; its id stays. Raises as `annotate` does."""
        return self.annotate(run, name=name)

    def tag(self, run: RunName, add: Iterable[str] = (), remove: Iterable[str] = ()) -> RunRecord:
        """Add tags to a run, and remove others. Raises as `annotate` does."""
        added, removed = check_tags(add), check_tags(remove)
        layout = self._layout(run)
        with self._root.locked():
            tags = [tag for tag in dict.fromkeys([*read_record(layout).tags, *added]) if tag not in removed]
            write_annotations(layout, {"tags": tags})
        return read_record(layout)

    def pin(self, run: RunName, pinned: bool = True) -> RunRecord:
        """Protect a run from deletion, or let it be deleted again. Raises as `annotate` does."""
        return self._annotate(run, {"pinned": bool(pinned)})

    def _annotate(self, run: RunName, changes: dict[str, Any]) -> RunRecord:
        layout = self._layout(run)
        with self._root.locked():
            read_record(layout)
            write_annotations(layout, changes)
        return read_record(layout)

    # ---- make ----

    def create_experiment(
        self, name: str, *, display_name: str | None = None, description: str | None = None, tags: Iterable[str] = ()
    ) -> ExperimentRecord:
        """Create an experiment; ``shmlog.init`` does so by itself.

        Raises
        ------
        ValueError
            If ``name`` can't be the name of a folder.
        RunStateError
            If the experiment exists.
        StorageError
            If it can't be written.
        """
        fields = check_changes({"display_name": display_name, "description": description}, tags)
        folder = self._root.experiment(name)
        with self._root.locked():
            if folder.exists():
                raise RunStateError(f"there is an experiment {name!r} in {self.root}; use annotate_experiment")
            experiments.write(self._root, name, fields)
        return self.experiment(name)

    def annotate_experiment(
        self, name: str, *, display_name: str | None = KEEP, description: str | None = KEEP,
        tags: Iterable[str] = KEEP,
    ) -> ExperimentRecord:  # fmt: skip
        """Change what people say of an experiment; the folder's name stays.

        Raises
        ------
        TypeError, ValueError
            If a value is invalid. Nothing was changed.
        ExperimentNotFoundError
            If there is no such experiment.
        """
        changes = check_changes({"display_name": display_name, "description": description}, tags)
        self._root.existing_experiment(name)
        with self._root.locked():
            experiments.write(self._root, name, changes)
        return self.experiment(name)

    def create_run(self, experiment: str, *, params: Mapping[str, Any] | None = None, **fields: Any) -> RunRecord:
        """Create a pending run, which another program starts.

        Parameters
        ----------
        experiment : str
            Name of the experiment; created if there is none.
        params : mapping, optional
            Parameters, nested as you like.
        **fields
            ``name``, ``tags``, ``description``, ``notes``, ``group``, ``parent``, ``job_name``.

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid. Nothing was created.
        StorageError
            If the folder can't be written.
        """
        return self.get(creation.create_run(self._root, experiment, params or {}, fields))

    def set_status(self, run: RunName, status: str) -> RunRecord:
        """Set the next status of a run that has no processes of shmlog.

        Such a run comes from `create_run` or an import. Other runs get their status from
        their own processes.

        Raises
        ------
        ValueError
            If ``status`` is unknown.
        RunStateError
            If ``status`` can't follow the run's own, or the run has processes of shmlog.
            Nothing was changed.
        """
        layout = self._layout(run)
        with self._root.locked():
            creation.set_status(layout, status)
        return read_record(layout)

    def rebuild(self, run: RunName) -> RunRecord:
        """Write a damaged or missing run.yaml anew, from its remains and the rest of the run.

        The damaged file is kept as run.yaml.damaged.

        Raises
        ------
        RunStateError
            If run.yaml is not damaged. Nothing was changed.
        """
        layout = self._layout(run)
        with self._root.locked():
            if not read_facts(layout).rebuilt:
                raise RunStateError(
                    f"{layout.run_yaml} can be read and is not rebuilt; if its checksum is wrong, check and correct "
                    "what it says, and delete the line crc32_above"
                )
            from shmlog.store.rebuild import rebuild

            rebuild(layout)
        return read_record(layout)

    # ---- delete ----

    def delete(self, run: RunName, *, force: bool = False) -> None:
        """Delete a run and all its files, and the contents of artifacts that no other run holds.

        Parameters
        ----------
        run : str or RunRecord
            Its id, ``"experiment/id"``, or a name that no other run has; the beginning of an id or a commit, and
            ``"latest"``, only with ``force``; never the name of an experiment.
        force : bool
            Delete the run even if it is pinned, or its annotations can't be read, or it may run on another
            machine; never if it is known to run.

        Raises
        ------
        RunNotFoundError
            If there is no such run, or ``run`` is not its whole name; the message has it. Nothing was changed.
        RunStateError
            If the run is pinned or running, or another process recovers or resumes it. Nothing was changed.
        StorageError
            If it can't be deleted.
        """
        from shmlog.store import removal

        layout = self._layout(run, partial(self._root.find_to_delete, force=force))
        with removal.held(layout), self._root.locked():
            facts = read_facts(layout)
            why = removal.why_busy(layout, facts)
            if why and (why == "running" or not force):
                raise RunStateError(f"run {layout.run_id} is {why}; finish it first")
            pinned = removal.why_pinned(layout, facts)
            if pinned and not force:
                raise RunStateError(f"run {layout.run_id} is {pinned}; unpin it first")
            folder = removal.move_to_trash(self._root, layout)
        removal.delete(folder)
        removal.collect_objects(self._root)

    def restore(self, run: str) -> RunRecord:
        """Bring back a run that `prune` has archived; the archive stays.

        Artifacts that it shared with other runs become files of its own.

        Parameters
        ----------
        run : str
            Its id or the beginning of it, ``"experiment/id"``, or its name.

        Raises
        ------
        ValueError
            If ``run`` can't be the name of a run, or is the id of several.
        RunNotFoundError
            If the run has no archive.
        RunStateError
            If the run exists.
        CorruptDataError
            If the archive is damaged. Nothing was restored.
        RefusedError
            If it holds what no archive of that run can hold, such as links or names that lead elsewhere.
            Nothing was restored.
        StorageError
            If it can't be written, or there is no room for it. Nothing was restored.
        """
        from shmlog.store.restore import restore

        return read_record(restore(self._root, run))

    def archives(self) -> list[Archived]:
        """Return what `prune` has archived, the newest first: what `restore` takes, with names, sizes and times."""
        from shmlog.store.restore import archives

        return archives(self._root)

    def delete_experiment(self, name: str, *, force: bool = False) -> None:
        """Delete an experiment.

        Parameters
        ----------
        force : bool
            Delete its runs, too, as ``delete(run, force=True)`` does.

        Raises
        ------
        RunStateError
            If it holds runs and ``force`` is not given, a run that is running, or files that are not of shmlog.
            Of a running experiment, nothing was changed.
        """
        folder = self._root.existing_experiment(name)
        records = self._catalog.runs(name) if force else []
        running = [record.run_id for record in records if record.live]
        if running:
            raise RunStateError(f"experiment {name!r}: run {running[0]} is running; finish it first")
        for record in records:
            self.delete(record, force=True)
        with self._root.locked():
            others = [path.name for path in folder.iterdir() if path.name != experiment.FILE_NAME]
            if others:
                raise RunStateError(f"experiment {name!r} is not empty: it holds {', '.join(sorted(others)[:3])}")
            (folder / experiment.FILE_NAME).unlink(missing_ok=True)
            folder.rmdir()

    def prune(
        self, *, keep: int | None = None, older_than: str | timedelta | None = None, mode: str = "all",
        experiment: str | None = None, status: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None, archive: bool = False, dry_run: bool = True,
    ) -> PruneResult:  # fmt: skip
        """Delete old runs; by default, only list them.

        Running, pending and pinned runs are never touched. Runs in which something is damaged are
        listed and kept.

        Parameters
        ----------
        keep : int, optional
            Keep so many of the newest runs of each experiment, by start. Runs that are never
            touched are not counted.
        older_than : str or timedelta, optional
            Keep runs that ended, or else began, less than so long ago, such as ``"30d"``.
        mode : str
            ``"all"``: delete what neither rule keeps. ``"any"``: delete what one of them does not keep.
        experiment, status, tags
            Only runs that meet these conditions, as for `runs`.
        archive : bool
            Keep each run as ``.archive/EXPERIMENT/ID.tar.zst`` below the root.
        dry_run : bool
            Only list the runs.

        Returns
        -------
        PruneResult
            What was, or would be, deleted, and the bytes that this frees.

        Raises
        ------
        ValueError
            If there is no rule, or one is invalid.
        """
        from shmlog.store.prune import Rules, prune

        rules = Rules.check(keep, older_than, mode)
        runs = self.runs(experiment, status=status, tags=tags)
        return prune(self._root, runs, rules, archive=archive, dry_run=dry_run)
