"""What the server of workers has in memory before it forks the first; only it imports this.

Importing torch does not touch CUDA, which does not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

if sys.platform == "linux":  # else this process would finish its imports after the run has ended
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.environ.get("DWLT_RUN", str(os.getppid())) != str(os.getppid()):
        os._exit(1)

import gc  # noqa: E402
import importlib  # noqa: E402
from contextlib import suppress  # noqa: E402

from dwlt_lib.config import datasets  # noqa: E402
from dwlt_lib.execution import workers  # noqa: E402

MODULES = (
    "torch",
    "pandas",
    "tqdm.auto",
    "ipywidgets",
    "ipykernel.debugger",
    # 2 s, and half of torch with them that the first training would load
    "torchvision.utils",
    "torchvision.transforms.functional",
    "dwlt_lib.execution.engine",
    "dwlt_lib.execution.make",
    "dwlt_lib.plotting.figures",
    "dwlt_lib.report.evidence",
    "dwlt_lib.cli.main",  # a worker runs what the main program imports
)

workers.skip_iris()
for name in MODULES:
    importlib.import_module(name)

from dwlt_lib.data import loading  # noqa: E402

sys.modules["torch"].set_num_threads(1)
for row in datasets.CATALOGUE.values():
    if row.loader == "embedded":
        with suppress(Exception):  # a notebook that needs it will say so
            loading.load(row.name, "train")
            loading.load(row.name, "test")
gc.collect()
gc.freeze()  # so that collecting garbage does not copy a worker's shared memory
