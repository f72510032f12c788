"""What the server of workers has in memory before it forks the first; only it imports this.

Importing torch does not touch CUDA, which does not survive a fork.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import signal
import sys
from contextlib import suppress

from dwlt_lib.workers import skip_iris

MODULES = (
    "torch",
    "pandas",
    "tqdm.auto",
    "ipywidgets",
    "dwlt_lib.engine",
    "dwlt_lib.make",
    "dwlt_lib.plots",
    "dwlt_lib.words",
    "dwlt_lib.cli",  # a worker runs what the main program imports
)

if sys.platform == "linux":  # else it would finish its imports first
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: this process ends with the run
skip_iris()
for name in MODULES:
    importlib.import_module(name)

from dwlt_lib import catalogue, data  # noqa: E402

sys.modules["torch"].set_num_threads(1)
for row in catalogue.CATALOGUE.values():
    if row.loader == "embedded":
        with suppress(Exception):  # a notebook that needs it will say so
            data.load(row.name, "train")
            data.load(row.name, "test")
gc.collect()
gc.freeze()  # so that collecting garbage does not copy a worker's shared memory
