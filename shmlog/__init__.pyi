# What `import shmlog` gives, as type checkers and people read it; __init__.py loads each on first use.

from shmlog import errors as errors
from shmlog._core import Metric as Metric
from shmlog.checkpoint.auto import AutoCheckpoint as AutoCheckpoint
from shmlog.checkpoint.manager import CheckpointManager as CheckpointManager
from shmlog.errors import ShmlogError as ShmlogError
from shmlog.errors import ShmlogWarning as ShmlogWarning
from shmlog.reader.stored import StoredRun as StoredRun
from shmlog.reader.stored import load as load
from shmlog.run.attach import attach as attach
from shmlog.run.current import current as current
from shmlog.run.current import event as event
from shmlog.run.current import finish as finish
from shmlog.run.current import log as log
from shmlog.run.current import metric as metric
from shmlog.run.init import init as init
from shmlog.run.run import Run as Run
from shmlog.store.store import Store as Store
from shmlog.transfer.export import export_run as export_run
from shmlog.transfer.imports import import_run as import_run

__version__: str
