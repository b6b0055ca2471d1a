"""Make a new run: its folder, its segment, its flusher."""

from __future__ import annotations

import stat

from shmlog.errors import StorageError, log_warning
from shmlog.folder import experiment, runfile, unbegun
from shmlog.folder.description import Description
from shmlog.folder.experiment import new_run_folder
from shmlog.folder.layout import RunLayout
from shmlog.run.join import make_current
from shmlog.run.options import Options, redacted
from shmlog.run.run import Run
from shmlog.run.start import close_segment, describe_process, open_segment, start
from shmlog.segment import shm


def create(options: Options, turn: int) -> Run:
    """Make a run with the options of `init`; if that fails, nothing of the run is left."""
    options = redacted(options)
    made_at = experiment.make(options.place.folder)
    layout = _make_folder(options)
    try:
        run, placed = open_segment(layout, options)
        try:
            _write_files(layout, options, placed, turn)
            start_data = {"experiment": options.place.experiment, "name": options.name, "tags": options.tags}
            start(run, start_data, options.config)
        except BaseException:
            close_segment(placed)
            raise
    except BaseException:
        unbegun.remove(layout)
        raise
    experiment.note(options.place.folder, made_at)
    return make_current(run)


def _make_folder(options: Options) -> RunLayout:
    layout = new_run_folder(options.place.folder, options.place.id)
    try:
        layout.make_folders()
        _warn_if_open(layout)
    except OSError as error:
        raise StorageError(f"cannot make folders in {layout.dir}: {error.strerror}; pass another root") from error
    return layout


def _warn_if_open(layout: RunLayout) -> None:
    """Warn of folders in which other users may replace our files; a sticky folder, as /tmp, is safe."""
    for folder in (layout.dir, layout.dir.parent, layout.dir.parent.parent):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            log_warning(
                "%s is writable for everybody: any user of this host may replace the runs in it "
                "(mode %o); chmod o-w it",
                folder,
                stat.S_IMODE(mode),
            )
            return


def _write_files(layout: RunLayout, options: Options, placed: shm.Placed, turn: int) -> None:
    description = Description.new(layout, options.described(), describe_process(options, placed, turn))
    try:
        runfile.write(layout.config_yaml, options.config, durable=False)
        description.write(layout, durable=False)
    except OSError as error:
        raise StorageError(f"cannot write into {layout.dir}: {error.strerror}") from error
